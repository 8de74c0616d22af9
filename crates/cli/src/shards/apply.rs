//! `courant shards apply`: creates, changes and deletes shards.

use super::{ShardSession, referenced};
use crate::journals::{SPECS_BYTES_MAX, STALE, batches};
use crate::output::{count_text, print, read_text};
use crate::render;
use client::specs::ShardSet;
use proto::consumer::{ApplyRequest, Status};
use runtime::BoxError;

/// Options.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The YAML set; `-` is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    specs: String,
    /// Print the request instead of sending it.
    #[arg(long)]
    dry_run: bool,
    /// Changes in one transaction at most; zero puts all in one. Several transactions may apply in part.
    #[arg(long, default_value_t = 0, value_name = "CHANGES")]
    max_txn_size: usize,
}

/// Runs the command.
pub async fn run(session: &ShardSession, args: ApplyArgs) -> Result<(), BoxError> {
    let yaml = read_text(&args.specs, SPECS_BYTES_MAX).await?;
    let set = ShardSet::parse(&yaml).map_err(|e| format!("{}: {e}", args.specs))?;
    let request = set.to_apply_request().map_err(|e| format!("{}: {e}", args.specs))?;
    referenced::verify(&session.session, &request).await?;
    if args.dry_run {
        return Ok(print(&render::text(&request, "consumer.ApplyRequest")?)?);
    }
    submit(session, request, args.max_txn_size).await
}

/// Sends changes, in transactions of at most `max_txn_size`; zero does not split them.
pub async fn submit(
    session: &ShardSession,
    request: ApplyRequest,
    max_txn_size: usize,
) -> Result<(), BoxError> {
    let total = request.changes.len();
    for changes in batches(request.changes, max_txn_size) {
        let what = format!("applying {}", count_text(changes.len(), "shard"));
        let call = session.shards.apply(ApplyRequest { changes, ..Default::default() });
        let call = async { call.await.map_err(|e| format!("{e}{}", hint(e.shard_status()))) };
        let response = session.request(&what, call).await?;
        let revision = response.header.unwrap_or_default().revision();
        eprintln!("{what}: done at revision {revision}");
    }
    eprintln!("successfully applied {}", count_text(total, "shard"));
    Ok(())
}

fn hint(status: Option<Status>) -> &'static str {
    match status {
        Some(Status::EtcdTransactionFailed) => STALE,
        _ => "",
    }
}
