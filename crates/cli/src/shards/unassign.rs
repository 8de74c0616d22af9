//! `courant shards unassign`: removes assignments of shards, so that they are assigned anew.

use super::ShardSession;
use super::list::status_text;
use crate::output::{count_text, print};
use crate::session::SelectorArgs;
use proto::consumer::replica_status::Code;
use proto::consumer::{UnassignRequest, list_response};
use runtime::BoxError;

/// Shards of one request.
const SHARDS_MAX: usize = 100;

/// Options.
#[derive(Debug, clap::Args)]
pub struct UnassignArgs {
    #[command(flatten)]
    select: SelectorArgs,
    /// Only remove assignments which have failed.
    #[arg(long)]
    failed: bool,
    /// Say what would be unassigned, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command. Prints the ids of the shards of which an assignment was removed.
pub async fn run(session: &ShardSession, args: UnassignArgs) -> Result<(), BoxError> {
    let list = session.list(args.select.parse()?).await?;
    let has_failed = |shard: &list_response::Shard| shard.status.iter().any(|s| s.code() == Code::Failed);
    let shards: Vec<_> = list.shards.into_iter().filter(|shard| !args.failed || has_failed(shard)).collect();
    let mut unassigned = 0;
    for batch in shards.chunks(SHARDS_MAX) {
        let request = UnassignRequest {
            shards: batch.iter().filter_map(|s| s.spec.as_ref()).map(|spec| spec.id.clone()).collect(),
            only_failed: args.failed,
            dry_run: args.dry_run,
        };
        let what = format!("unassigning {}", count_text(request.shards.len(), "shard"));
        let response = session.request(what, session.shards.unassign(request)).await?;
        for id in &response.shards {
            let shard = batch.iter().find(|s| s.spec.as_ref().is_some_and(|spec| spec.id == *id));
            let was = shard.map(|s| status_text(s).to_owned()).unwrap_or_default();
            eprintln!("{id} was {was}{}", if args.dry_run { " (dry run: nothing was done)" } else { "" });
            print(&format!("{id}\n"))?;
        }
        unassigned += response.shards.len();
    }
    eprintln!("{} of {} unassigned", unassigned, count_text(shards.len(), "shard"));
    Ok(())
}
