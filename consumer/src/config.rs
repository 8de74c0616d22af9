//! The command line of an application (consumer protocol §6), and what it means.
//!
//! Without `--etcd.address` the application is for one machine: the broker embeds etcd, so its address serves for both,
//! and the application listens on loopback only. With it, defaults are those of a Gazette consumer.

use std::path::PathBuf;
use std::time::Duration;

use auth::{Authorizer, Keys};
use clap::builder::RangedU64ValueParser;
use keyspace::KeyPrefix;
use proto::{Invalid, MemberId};
use runtime::config::{
    BrokerClientArgs, ConfigError, DebugArgs, EtcdArgs, LOOPBACK, LogArgs, Secret, WATCH_DELAY_MAX,
    bind_address, duration_within, given, listen, parse_duration, pet_name,
};
use runtime::tls::{ClientTlsFiles, ServerTlsFiles};
use runtime::{Clock, Entropy, Metrics, grpc};

use crate::prune::INTERVAL as PRUNE_INTERVAL;
use crate::shard::hint_pace::GROWTH_BYTES;

/// What the names of groups begin with.
const PREFIX: &str = "/gazette/consumers";
/// Least size of messages which are received, bytes: requests of hundreds of shards.
const MESSAGE_RECV_MIN: u64 = 64 << 10;

runtime::server_tls_args!("consumer", "CONSUMER");

/// Options of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    /// The application's process.
    #[command(flatten)]
    pub consumer: ConsumerArgs,
    /// Brokers.
    #[command(flatten)]
    pub broker: BrokerClientArgs,
    /// etcd.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
    /// Diagnostics.
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// Options of the application's process.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Consumer")]
pub struct ConsumerArgs {
    /// Availability zone of this process.
    #[arg(id = "consumer.zone", long = "consumer.zone", env = "CONSUMER_ZONE", default_value = "local")]
    pub zone: String,
    /// Id of this process, unique in its zone. [default: two random words]
    #[arg(id = "consumer.id", long = "consumer.id", env = "CONSUMER_ID")]
    pub id: Option<String>,
    /// Host under which others reach this process. [default: 127.0.0.1, which is then all that is listened on;
    /// with --etcd.address: the host name]
    #[arg(id = "consumer.host", long = "consumer.host", env = "CONSUMER_HOST")]
    pub host: Option<String>,
    /// Port to listen on, or unix:///path. [default: a free port]
    #[arg(id = "consumer.port", long = "consumer.port", env = "CONSUMER_PORT")]
    pub port: Option<String>,
    /// Most shards of which this process runs a replica.
    #[arg(id = "consumer.limit", long = "consumer.limit", env = "CONSUMER_LIMIT", default_value_t = 32)]
    pub limit: u32,
    /// Upper bound of every shard's hot standbys.
    #[arg(
        id = "consumer.max-hot-standbys",
        long = "consumer.max-hot-standbys",
        env = "CONSUMER_MAX_HOT_STANDBYS",
        default_value_t = 3
    )]
    pub max_hot_standbys: u32,
    /// How long changes of etcd are gathered before they are acted upon.
    #[arg(id = "consumer.watch-delay", long = "consumer.watch-delay", env = "CONSUMER_WATCH_DELAY",
        value_name = "DURATION", default_value = "30ms", value_parser = duration_within(..=WATCH_DELAY_MAX))]
    pub watch_delay: Duration,
    /// Longest time to wait at exit for other processes to take over.
    #[arg(id = "consumer.drain-timeout", long = "consumer.drain-timeout", env = "CONSUMER_DRAIN_TIMEOUT",
        value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Largest gRPC message that is received, bytes. At least 65536.
    #[arg(id = "consumer.max-grpc-recv-size", long = "consumer.max-grpc-recv-size",
        env = "CONSUMER_MAX_GRPC_RECV_SIZE", default_value_t = grpc::MAX_MESSAGE_RECV_SERVER,
        value_parser = RangedU64ValueParser::<usize>::new().range(MESSAGE_RECV_MIN..))]
    pub max_grpc_recv_size: usize,
    /// Delete stored fragments of recovery logs which no stored hints need, every ten minutes, by whichever process is
    /// the shard's primary. It needs the logs' stores: their credentials from the environment, as a broker does, and
    /// --broker.file-root. Shards of *other* groups whose logs were forked from this one's are not known to it.
    #[arg(
        id = "consumer.prune-recovery-logs",
        long = "consumer.prune-recovery-logs",
        env = "CONSUMER_PRUNE_RECOVERY_LOGS"
    )]
    pub prune_recovery_logs: bool,
    /// Origin whose pages may call the JSON gateway from a browser, as https://host:port. May be given several times.
    #[arg(
        id = "consumer.allow-origin",
        long = "consumer.allow-origin",
        env = "CONSUMER_ALLOW_ORIGIN",
        value_name = "ORIGIN"
    )]
    pub allow_origin: Vec<String>,
    /// Keys of access tokens in base64, separated by commas or white space. Every request then needs a token that one of
    /// them signed; the first signs what this process asks others. AA== among them accepts requests without a token, too.
    #[arg(
        id = "consumer.auth-keys",
        long = "consumer.auth-keys",
        env = "CONSUMER_AUTH_KEYS",
        value_name = "KEYS",
        hide_env_values = true
    )]
    pub auth_keys: Option<Secret>,
    /// TLS of the port.
    #[command(flatten)]
    pub server_tls: ServerTlsArgs,
    /// TLS towards other processes.
    #[command(flatten)]
    pub peer_tls: PeerTlsArgs,
}

/// Everything that a [`crate::Consumer`] is started with.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// This process among the members of its group.
    pub member: MemberId,
    /// Address to listen on: `host:port`, or `unix:///path`.
    pub bind: String,
    /// Host under which others reach the listener.
    pub host: String,
    /// TLS of the listener, if it has any.
    pub server_tls: Option<ServerTlsFiles>,
    /// TLS towards other processes of the group whose endpoints are of `https`.
    pub peer_tls: ClientTlsFiles,
    /// URL of etcd.
    pub etcd: String,
    /// TLS towards an etcd at an address of `https`.
    pub etcd_tls: ClientTlsFiles,
    /// Prefix of the group's keys.
    pub prefix: KeyPrefix,
    /// Time to live of the process's lease.
    pub lease_ttl: Duration,
    /// How long changes of etcd are gathered.
    pub watch_delay: Duration,
    /// Most shards to be assigned.
    pub shard_limit: u32,
    /// Upper bound of every shard's hot standbys.
    pub max_hot_standbys: u32,
    /// Largest message received, bytes.
    pub max_message_bytes: usize,
    /// Origins whose pages may call the JSON gateway.
    pub allow_origin: Vec<String>,
    /// Longest wait for others to take over at exit.
    pub drain_timeout: Duration,
    /// URL of a broker.
    pub broker: String,
    /// What requests to brokers are sent as.
    pub broker_authorizer: Authorizer,
    /// Keys of access tokens to this process; without them, nothing is checked.
    pub auth_keys: Option<Keys>,
    /// TLS towards brokers whose endpoints are of `https`.
    pub broker_tls: ClientTlsFiles,
    /// Journal routes which the client remembers; zero is its default.
    pub route_cache_size: usize,
    /// How long it does.
    pub route_cache_ttl: Duration,
    /// Where `file://` URLs of fragments are found.
    pub file_root: Option<PathBuf>,
    /// Address of an extra listener for diagnostics.
    pub debug_bind: Option<String>,
    /// Keep metrics off the main port.
    pub debug_private: bool,
    /// How far ahead of wall time published messages are stamped. For tests.
    pub publish_clock_delta: Duration,
    /// Growth of a recovery log after which its primary stores hints, in bytes.
    pub hint_growth_bytes: i64,
    /// How often recovery logs are pruned, with the credentials of this process's environment; `None` is never.
    pub prune_interval: Option<Duration>,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Metrics.
    pub metrics: Metrics,
}

/// The options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// One has a value that cannot be honoured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The id is malformed.
    #[error("--consumer.zone, --consumer.id: {0}")]
    Member(Invalid),
    /// The prefix is malformed.
    #[error("--etcd.prefix: {0}")]
    Prefix(Invalid),
    /// The host name of this machine is unknown.
    #[error("cannot find the host name of this machine: {0}; give --consumer.host")]
    HostName(std::io::Error),
}

impl ConsumerOptions {
    /// A process on a free loopback port, for use within another process. `broker` serves etcd too.
    ///
    /// # Errors
    /// If the prefix is malformed.
    pub fn local(broker: &str, prefix: &str) -> Result<ConsumerOptions, OptionsError> {
        let entropy = Entropy::system();
        Ok(ConsumerOptions {
            member: MemberId::new("local", &pet_name(&entropy)).map_err(OptionsError::Member)?,
            bind: format!("{LOOPBACK}:0"),
            host: LOOPBACK.to_owned(),
            server_tls: None,
            peer_tls: ClientTlsFiles::default(),
            etcd: broker.to_owned(),
            etcd_tls: ClientTlsFiles::default(),
            prefix: KeyPrefix::parse(prefix).map_err(OptionsError::Prefix)?,
            lease_ttl: Duration::from_secs(20),
            watch_delay: Duration::from_millis(1),
            shard_limit: 1024,
            max_hot_standbys: 3,
            max_message_bytes: grpc::MAX_MESSAGE_RECV_SERVER,
            allow_origin: Vec::new(),
            drain_timeout: Duration::from_secs(60),
            broker: broker.to_owned(),
            broker_authorizer: Authorizer::none(),
            auth_keys: None,
            broker_tls: ClientTlsFiles::default(),
            route_cache_size: 0,
            route_cache_ttl: Duration::from_secs(60),
            file_root: None,
            debug_bind: None,
            debug_private: false,
            publish_clock_delta: Duration::ZERO,
            hint_growth_bytes: GROWTH_BYTES,
            prune_interval: None,
            clock: Clock::system(),
            entropy,
            metrics: Metrics::new(),
        })
    }

    /// What the command line means for the application of this name.
    ///
    /// # Errors
    /// If an option has a value that cannot be honoured.
    pub fn from_args(args: ServeArgs, app: &str) -> Result<ConsumerOptions, OptionsError> {
        let ServeArgs { consumer, broker, etcd, log: _, debug } = args;
        let server_tls = consumer.server_tls.options().server()?;
        // As in Gazette, those of peers are for a process which has TLS itself.
        let peer_tls = consumer.peer_tls.options().client()?;
        let peer_tls = if server_tls.is_some() { peer_tls } else { ClientTlsFiles::default() };
        let (broker_tls, etcd_tls) = (broker.tls.options().client()?, etcd.tls.options().client()?);
        let auth_keys = parse_keys(consumer.auth_keys.as_ref())?;
        let is_single = etcd.address().is_none();
        let port = given(consumer.port);
        let port = port.as_deref().unwrap_or("0");
        let (bind, host) = listen(is_single, given(consumer.host), port).map_err(OptionsError::HostName)?;
        let entropy = Entropy::system();
        let suffix = given(consumer.id).unwrap_or_else(|| pet_name(&entropy));
        let prefix = given(etcd.prefix.clone()).unwrap_or_else(|| format!("{PREFIX}/{app}"));
        Ok(ConsumerOptions {
            member: MemberId::new(&consumer.zone, &suffix).map_err(OptionsError::Member)?,
            bind,
            host,
            server_tls,
            peer_tls,
            etcd: etcd.address().unwrap_or(&broker.address).to_owned(),
            etcd_tls: if is_single { broker_tls.clone() } else { etcd_tls },
            prefix: KeyPrefix::parse(&prefix).map_err(OptionsError::Prefix)?,
            lease_ttl: etcd.lease,
            watch_delay: consumer.watch_delay,
            shard_limit: consumer.limit,
            max_hot_standbys: consumer.max_hot_standbys,
            max_message_bytes: consumer.max_grpc_recv_size,
            allow_origin: consumer.allow_origin.into_iter().filter(|origin| !origin.is_empty()).collect(),
            drain_timeout: consumer.drain_timeout,
            broker_authorizer: client::authorizer_of(&broker)?,
            file_root: broker.file_root(),
            broker: broker.address,
            auth_keys,
            broker_tls,
            route_cache_size: broker.cache_size,
            route_cache_ttl: broker.cache_ttl,
            debug_bind: given(debug.port).map(|port| bind_address(is_single, &port)),
            debug_private: debug.private,
            publish_clock_delta: Duration::ZERO,
            hint_growth_bytes: GROWTH_BYTES,
            prune_interval: consumer.prune_recovery_logs.then_some(PRUNE_INTERVAL),
            clock: Clock::system(),
            entropy,
            metrics: Metrics::with_process(),
        })
    }
}

fn parse_keys(keys: Option<&Secret>) -> Result<Option<Keys>, ConfigError> {
    let parsed = keys.and_then(Secret::reveal).map(Keys::parse).transpose();
    parsed.map_err(|error| ConfigError::Invalid { option: "consumer.auth-keys", problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn options(args: &[&str]) -> Result<ConsumerOptions, String> {
        let args = std::iter::once("program").chain(args.iter().copied());
        let program = Program::try_parse_from(args).map_err(|error| error.to_string())?;
        ConsumerOptions::from_args(program.args, "my-app").map_err(|error| error.to_string())
    }

    #[test]
    fn without_etcd_the_broker_serves_it_and_loopback_is_enough() {
        let got = options(&["--broker.address=http://localhost:9999"]).unwrap();
        assert_eq!((got.bind.as_str(), got.host.as_str()), ("127.0.0.1:0", "127.0.0.1"));
        assert_eq!(
            (got.etcd.as_str(), got.broker.as_str()),
            ("http://localhost:9999", "http://localhost:9999")
        );
        assert_eq!(got.prefix.as_str(), "/gazette/consumers/my-app");
        assert_eq!((got.shard_limit, got.max_hot_standbys, &*got.member.zone), (32, 3, "local"));
    }

    #[test]
    fn with_etcd_defaults_are_those_of_a_cluster() {
        let got = options(&["--etcd.address=http://etcd:2379", "--etcd.prefix=/my/group"]).unwrap();
        assert_eq!((got.bind.as_str(), got.host), ("0.0.0.0:0", listen(false, None, "0").unwrap().1));
        assert_eq!((got.etcd.as_str(), got.prefix.as_str()), ("http://etcd:2379", "/my/group"));
    }

    #[test]
    fn numbers_out_of_bounds_are_told_of_them() {
        for (arg, bounds) in [
            ("--consumer.limit=4294967296", "4294967296 is not in 0..=4294967295"),
            ("--consumer.max-hot-standbys=-1", "-1 is not in 0..=4294967295"),
            ("--consumer.watch-delay=2562047h", "is not 24h0m0s or less"),
            ("--consumer.max-grpc-recv-size=0", "0 is not in 65536.."),
            ("--consumer.drain-timeout=-1s", "invalid duration"),
        ] {
            let (option, value) = arg.split_once('=').unwrap();
            let error = options(&[arg]).unwrap_err();
            assert!(error.contains(&format!("invalid value '{value}' for '{option} <")), "{error}");
            assert!(error.contains(bounds), "{arg}: {error}");
        }
    }

    #[test]
    fn the_etcd_of_a_broker_has_the_tls_of_the_broker() {
        let files = |ca: &str| ClientTlsFiles { identity: None, ca: Some(ca.into()) };
        let both = ["--broker.trusted-ca-file=broker", "--etcd.trusted-ca-file=etcd"];
        let got = options(&both).unwrap();
        assert_eq!((got.broker_tls, got.etcd_tls), (files("broker"), files("broker")));
        let got = options(&[&both[..], &["--etcd.address=https://etcd:2379"]].concat()).unwrap();
        assert_eq!((got.broker_tls, got.etcd_tls), (files("broker"), files("etcd")));
        assert_eq!((got.server_tls, got.peer_tls), (None, ClientTlsFiles::default()));
    }

    #[test]
    fn values_that_cannot_be_honoured_are_refused() {
        for (arg, expected) in [
            (
                "--consumer.auth-keys=secret",
                "--consumer.auth-keys: key 1 is not standard base64 (with padding)",
            ),
            (
                "--broker.auth-token=\u{7f}",
                "--broker.auth-token: the token has characters which cannot be sent",
            ),
            (
                "--consumer.server-ca-file=x",
                "--consumer.server-cert-file: is missing; expected a file beside --consumer.server-ca-file",
            ),
            (
                "--broker.cert-file=x",
                "--broker.cert-key-file: is missing; expected a file beside --broker.cert-file",
            ),
        ] {
            assert_eq!(options(&[arg]).unwrap_err(), expected);
        }
        assert!(options(&["--etcd.prefix=a//b"]).unwrap_err().starts_with("--etcd.prefix: "));
        assert!(options(&["--consumer.id=no"]).unwrap_err().starts_with("--consumer.zone, --consumer.id: "));
    }
}
