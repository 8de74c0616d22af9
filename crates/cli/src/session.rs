//! What commands have in common: options, clients, and the tasks which serve them.

use auth::Authorizer;
use client::{ClientError, ClientOptions, JournalClient};
use fragment::compress::Levels;
use proto::protocol::LabelSelector;
use runtime::config::{BrokerClientArgs, LogArgs, duration_within, format_duration};
use runtime::logging::Logging;
use runtime::tls::ClientTls;
use runtime::{BoxError, Clock, Entropy, Metrics, TaskGroup};
use std::fmt::Display;
use std::future::Future;
use std::time::Duration;
use stores::{Environment, StoreTimes, Stores, StoresConfig};

/// Shortest time in which a server may answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Options of every command which talks to brokers.
#[derive(Debug, clap::Args)]
pub struct SessionArgs {
    /// Failure zone of this process: brokers of it are preferred.
    #[arg(long, env = "ZONE", default_value = "local")]
    pub zone: String,
    /// How long a request may take, including the wait for a server which cannot be reached. Appends and reads are tried for
    /// as long as it takes.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = duration_within(TIMEOUT_MIN..))]
    pub timeout: Duration,
    /// Brokers.
    #[command(flatten)]
    pub broker: BrokerClientArgs,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Selects journals or shards, where it must be said which.
#[derive(Debug, clap::Args)]
pub struct SelectorArgs {
    /// Which: labels to have or not to have, such as `name:prefix=examples/, !deprecated` or `app in (a, b)`.
    #[arg(long, short = 'l')]
    selector: String,
}

impl SelectorArgs {
    /// The selector.
    pub fn parse(&self) -> Result<LabelSelector, BoxError> {
        parse_selector(&self.selector)
    }

    /// That nothing is selected.
    pub fn nothing_matches(&self, thing: &str) -> BoxError {
        format!("no {thing} matches {}", self.selector).into()
    }
}

/// Parses the value of `--selector`.
pub fn parse_selector(text: &str) -> Result<LabelSelector, BoxError> {
    text.parse().map_err(|e| format!("--selector: {e}").into())
}

/// A command's clients and tasks.
pub struct Session {
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Tasks, which end with the command.
    pub tasks: TaskGroup,
    /// Brokers.
    pub client: JournalClient,
    /// What the clients are made of.
    pub options: ClientOptions,
    timeout: Duration,
    address: String,
    _logging: Logging,
}

impl Session {
    /// Directs the log and makes the client, which connects when it is used.
    pub fn open(args: &SessionArgs) -> Result<Session, BoxError> {
        let logging = runtime::logging::init(&args.log, "courant")?;
        let tasks = TaskGroup::new("courant");
        let options = ClientOptions {
            zone: args.zone.clone(),
            cache_size: args.broker.cache_size,
            cache_ttl: args.broker.cache_ttl,
            file_root: args.broker.file_root(),
            authorizer: client::authorizer_of(&args.broker)?,
            tls: ClientTls::load(args.broker.tls.options().client()?, &Clock::system())?,
            ..ClientOptions::new(tasks.clone())
        };
        let (clock, entropy) = (options.clock.clone(), options.entropy.clone());
        let client = JournalClient::new(&args.broker.address, options.clone())?;
        let (timeout, address) = (args.timeout, args.broker.address.clone());
        Ok(Session { clock, entropy, tasks, client, options, timeout, address, _logging: logging })
    }

    /// That commands which delete what nobody needs see everybody. `option` is that of the token which `authorizer` may send.
    ///
    /// # Errors
    /// If the token does not reach everything: what is hidden would look as if it did not need anything.
    pub fn require_everything(authorizer: &Authorizer, option: &str) -> Result<(), BoxError> {
        match authorizer.reaches_everything() {
            true => Ok(()),
            false => Err(format!(
                "{option}: the token does not reach everything (expected one without a selector): what it hides may need \
                 what would be deleted"
            )
            .into()),
        }
    }

    /// Fragment stores, to be used by this command itself, with the credentials of its environment.
    pub fn stores(&self) -> Stores {
        // Stores check their health by writing an object, for as long as their group is not cancelled. Commands have no
        // use for that: they write nothing.
        let tasks = self.tasks.child("stores");
        tasks.cancel();
        Stores::new(StoresConfig {
            file_root: self.options.file_root.clone(),
            default_root: None,
            file_only: false,
            environment: Environment::of_process(),
            levels: Levels::default(),
            times: StoreTimes::default(),
            clock: self.clock.clone(),
            entropy: self.entropy.clone(),
            tasks,
            metrics: Metrics::new(),
        })
    }

    /// Awaits a request to brokers, and names `what` and the broker if it fails or takes too long.
    pub async fn request<T, E: Display>(
        &self,
        what: impl Display,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BoxError> {
        self.request_to(&self.address, what, || self.client.last_failure(), request).await
    }

    /// As [`Session::request`], to any server. `failure` says why the server could not be reached, if it could not.
    pub async fn request_to<T, E: Display>(
        &self,
        address: &str,
        what: impl Display,
        failure: impl FnOnce() -> Option<ClientError>,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BoxError> {
        match self.clock.timeout(self.timeout, request).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(format!("{what} at {address}: {error}").into()),
            Err(_elapsed) => {
                Err(format!("{what} at {address}: {}", unanswered(self.timeout, failure())).into())
            }
        }
    }
}

/// That there was no answer, and what that may be due to.
fn unanswered(waited: Duration, failure: Option<ClientError>) -> String {
    let waited = format_duration(waited);
    match failure {
        // It is running, and says so.
        Some(error) if !error.is_connection() => format!("failures only, for {waited} ({error})"),
        Some(error) => format!("no answer within {waited}; is it running? ({error})"),
        None => format!("no answer within {waited}; is it running?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_which_fails_is_not_asked_whether_it_runs() {
        let wait = Duration::from_secs(2);
        assert_eq!(unanswered(wait, None), "no answer within 2s; is it running?");
        let failed = ClientError::Grpc(tonic::Status::unavailable("its store is down"));
        assert_eq!(
            unanswered(wait, Some(failed)),
            "failures only, for 2s (rpc error: code = Unavailable desc = its store is down)"
        );
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let said = unanswered(wait, Some(ClientError::Grpc(tonic::Status::from_error(refused.into()))));
        assert!(said.starts_with("no answer within 2s; is it running? ("), "{said}");
    }
}
