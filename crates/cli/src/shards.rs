//! `courant shards`: lists, applies, edits and unassigns shards of a consumer, prunes their recovery logs, and recovers
//! their files.

mod apply;
mod edit;
mod list;
mod prune;
mod recover;
mod referenced;
mod unassign;

use crate::session::{Session, SessionArgs};
use auth::Authorizer;
use clap::{Args, Subcommand};
use client::{ClientOptions, ShardClient};
use proto::consumer::{ListRequest, ListResponse};
use proto::protocol::LabelSelector;
use runtime::BoxError;
use runtime::config::{ConsumerClientArgs, parse_duration};
use runtime::tls::ClientTls;
use std::time::Duration;

/// Options of `courant shards`.
#[derive(Debug, Args)]
pub struct ShardsArgs {
    /// Options of every command.
    #[command(flatten)]
    pub session: SessionArgs,
    /// The consumer.
    #[command(flatten)]
    consumer: ConsumerClientArgs,
    /// Taken for the sake of scripts: consumers pass requests on to whoever has the shard, so that no routes are kept.
    #[arg(
        id = "consumer.cache.size",
        long = "consumer.cache.size",
        env = "CONSUMER_CACHE_SIZE",
        value_name = "COUNT",
        default_value_t = 0,
        help_heading = "Consumer",
        hide = true
    )]
    _cache_size: usize,
    /// As the one before.
    #[arg(id = "consumer.cache.ttl", long = "consumer.cache.ttl", env = "CONSUMER_CACHE_TTL",
        value_name = "DURATION", default_value = "1m", value_parser = parse_duration, help_heading = "Consumer",
        hide = true)]
    _cache_ttl: Duration,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List shards, their status and where they are.
    #[command(after_help = "Examples:\n  \
        courant shards list --consumer.address http://localhost:9000\n  \
        courant shards list -l id:prefix=summer/ --primary --lag\n  \
        courant shards list -o yaml > shards.yaml")]
    List(list::ListArgs),
    /// Create, change and delete shards as a YAML set says.
    #[command(after_help = "Example, with the set in shards.yaml:\n  \
        courant shards apply --specs shards.yaml\n\n  \
        common:\n    \
          recovery_log_prefix: recovery/logs\n    \
          hint_prefix: /hints\n    \
          max_txn_duration: 1s\n  \
        shards:\n  \
        - id: shard-000\n    \
          sources: [{journal: examples/part-000}]")]
    Apply(apply::ApplyArgs),
    /// Change shards in an editor: what is saved there is applied.
    #[command(after_help = "Examples:\n  \
        courant shards edit -l id=shard-000\n  \
        EDITOR='code --wait' courant shards edit -l id:prefix=summer/")]
    Edit(edit::EditArgs),
    /// Recover the files of a shard, as of its last commit, into a directory.
    ///
    /// The shard goes on: its recovery log is read up to its end, and not taken over. The directory is wiped first.
    #[command(after_help = "Example:\n  \
        courant shards recover --id shard-000 --dir /tmp/shard-000")]
    Recover(recover::RecoverArgs),
    /// Remove assignments of shards, so that they are assigned anew.
    #[command(after_help = "Examples:\n  \
        courant shards unassign -l id=shard-000\n  \
        courant shards unassign -l id:prefix=shard- --failed --dry-run")]
    Unassign(unassign::UnassignArgs),
    /// Delete stored fragments of recovery logs which no shard would read to recover.
    ///
    /// Hints are the only way into a pruned log: prune only where etcd is replicated, and back it up afterwards.
    ///
    /// A log is kept whole until its shard has stored all of its hints, which takes as many recoveries as it has backups of
    /// hints. Shards of other consumers which were forked from this one's are not known: do not prune logs that they use.
    /// Access tokens must reach all shards and journals.
    /// Works on the stores of the logs, with this command's own credentials, and --broker.file-root for file stores.
    #[command(after_help = "Examples:\n  \
        courant shards prune -l id:prefix=summer/ --dry-run\n  \
        courant shards prune -l id:prefix=summer/ --broker.file-root /var/lib/courant/store")]
    Prune(prune::PruneArgs),
}

/// A command's clients.
struct ShardSession {
    session: Session,
    shards: ShardClient,
    address: String,
    /// Of requests to the consumer.
    authorizer: Authorizer,
}

impl ShardSession {
    /// The selected shards.
    async fn list(&self, selector: LabelSelector) -> Result<ListResponse, BoxError> {
        let request = ListRequest { selector: Some(selector), ..Default::default() };
        self.request("listing shards", self.shards.list(request)).await
    }

    /// Awaits a request to the consumer, and names `what` and the consumer if it fails.
    async fn request<T, E: std::fmt::Display>(
        &self,
        what: impl std::fmt::Display,
        request: impl Future<Output = Result<T, E>>,
    ) -> Result<T, BoxError> {
        self.session.request_to(&self.address, what, || self.shards.last_failure(), request).await
    }
}

/// Runs the chosen command.
pub async fn run(args: ShardsArgs) -> Result<(), BoxError> {
    let session = Session::open(&args.session)?;
    let consumer = args.consumer;
    let authorizer = client::consumer_authorizer_of(&consumer)?;
    let tls = ClientTls::load(consumer.tls.options().client()?, &session.clock)?;
    let options = ClientOptions { authorizer: authorizer.clone(), tls, ..session.options.clone() };
    let shards = ShardClient::new(&consumer.address, options)?;
    let session = ShardSession { session, shards, address: consumer.address, authorizer };
    match args.command {
        Command::List(args) => list::run(&session, args).await,
        Command::Apply(args) => apply::run(&session, args).await,
        Command::Edit(args) => edit::run(&session, args).await,
        Command::Recover(args) => recover::run(&session, args).await,
        Command::Prune(args) => prune::run(&session, args).await,
        Command::Unassign(args) => unassign::run(&session, args).await,
    }
}
