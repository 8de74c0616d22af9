//! `courant journals`: lists, applies, edits, appends to and reads journals, prunes and suspends them, and lets them go on
//! after a loss.

mod append;
mod apply;
mod edit;
mod fragments;
mod list;
mod offsets;
mod prune;
mod read;
mod records;
mod reset_head;
mod store_health;
mod suspend;
mod whole;

use crate::session::{Session, SessionArgs};
use clap::{Args, Subcommand};
use runtime::BoxError;

/// Options of `courant journals`.
#[derive(Debug, Args)]
pub struct JournalsArgs {
    /// Options of every command.
    #[command(flatten)]
    pub session: SessionArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List journals and where they are.
    #[command(after_help = "Examples:\n  \
        courant journals list\n  \
        courant journals list -l name:prefix=examples/ --primary --rf -L content-type\n  \
        courant journals list -l name:prefix=examples/ -o yaml > journals.yaml")]
    List(list::ListArgs),
    /// Create, change and delete journals as a YAML tree says.
    #[command(after_help = "Example, with the tree in journals.yaml:\n  \
        courant journals apply --specs journals.yaml\n\n  \
        name: examples/\n  \
        replication: 1\n  \
        labels: [{name: content-type, value: application/x-ndjson}]\n  \
        fragment: {length: 67108864, compression_codec: SNAPPY, stores: ['file:///'], refresh_interval: 1m}\n  \
        children:\n  \
        - name: examples/greetings\n  \
        - name: examples/old\n    \
          delete: true\n    \
          revision: -1")]
    Apply(apply::ApplyArgs),
    /// Change journals in an editor: what is saved there is applied.
    #[command(after_help = "Examples:\n  \
        courant journals edit -l name=examples/greetings\n  \
        EDITOR='code --wait' courant journals edit -l name:prefix=examples/")]
    Edit(edit::EditArgs),
    /// Append a file, or its records, to journals.
    #[command(after_help = "Examples:\n  \
        courant journals append -l name=examples/greetings --input greetings.json\n  \
        tail -f log | courant journals append -l name:prefix=examples/logs/ --framing lines")]
    Append(append::AppendArgs),
    /// Read the content of journals.
    #[command(after_help = "Examples:\n  \
        courant journals read -l name=examples/greetings\n  \
        courant journals read -l name:prefix=examples/logs/ --block --tail\n  \
        courant journals read -l name:prefix=examples/ --offsets state.json --offsets-out state.json -o new-content")]
    Read(read::ReadArgs),
    /// List the fragments which journals consist of.
    #[command(after_help = "Examples:\n  \
        courant journals fragments -l name=examples/greetings\n  \
        courant journals fragments -l name:prefix=examples/ --from 1700000000 --url-ttl 1m -o json")]
    Fragments(fragments::FragmentsArgs),
    /// Let journals go on which lost all of their replicas, at the end of their stored content.
    ///
    /// Appends to such a journal fail with INDEX_HAS_GREATER_OFFSET, since content which was not stored may be missing.
    /// First bring back any broker which had a replica, with its data directory: then nothing is missing.
    #[command(after_help = "Example:\n  \
        courant journals reset-head -l name:prefix=examples/")]
    ResetHead(reset_head::ResetHeadArgs),
    /// Delete stored fragments which are older than their journal's retention.
    ///
    /// Works on the stores themselves, with credentials of your own; `--broker.file-root` says where `file://` stores are.
    /// A journal whose retention is zero, or not given, keeps everything. With an access token, it must be one that reaches all
    /// journals: what is below the name of a journal belongs to it unless there is a journal of that name.
    #[command(after_help = "Examples:\n  \
        courant journals prune -l name:prefix=examples/ --dry-run\n  \
        courant journals prune -l name:prefix=examples/ --broker.file-root courant-data/fragments")]
    Prune(prune::PruneArgs),
    /// Ask a broker whether a store of fragments works.
    ///
    /// The broker answers for stores which some journal has in its specification.
    #[command(after_help = "Examples:\n  \
        courant journals store-health s3://bucket/prefix/\n  \
        courant journals store-health s3://bucket/prefix/ --check-delete-prefix examples/")]
    StoreHealth(store_health::StoreHealthArgs),
    /// Suspend journals which are idle. Appending to one resumes it.
    #[command(after_help = "Examples:\n  \
        courant journals suspend -l name:prefix=examples/old/\n  \
        courant journals suspend -l name=examples/greetings --force")]
    Suspend(suspend::SuspendArgs),
}

pub use apply::{SPECS_BYTES_MAX, STALE, batches};

/// Runs the chosen command.
pub async fn run(args: JournalsArgs) -> Result<(), BoxError> {
    let mut options = args.session;
    if let Command::Read(args) = &args.command
        && let Some(root) = args.file_root()
    {
        options.broker.file_root = Some(root.to_owned());
    }
    let session = Session::open(&options)?;
    match args.command {
        Command::List(args) => list::run(&session, args).await,
        Command::Apply(args) => apply::run(&session, args).await,
        Command::Edit(args) => edit::run(&session, args).await,
        Command::Append(args) => append::run(&session, args).await,
        Command::Read(args) => read::run(&session, args).await,
        Command::Fragments(args) => fragments::run(&session, args).await,
        Command::ResetHead(args) => reset_head::run(&session, args).await,
        Command::Prune(args) => prune::run(&session, args).await,
        Command::StoreHealth(args) => store_health::run(&session, args).await,
        Command::Suspend(args) => suspend::run(&session, args).await,
    }
}
