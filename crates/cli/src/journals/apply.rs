//! `courant journals apply`: creates, changes and deletes journals.

use crate::output::{count_text, print, read_text};
use crate::render;
use crate::session::Session;
use client::specs::JournalNode;
use proto::protocol::ApplyRequest;
use runtime::BoxError;

/// Largest tree that is read.
pub const SPECS_BYTES_MAX: u64 = 256 << 20;

/// What to do about a change which was refused as it is not of the present revision.
pub const STALE: &str = ": a revision is not current (without one, or with 0, it is created: list for the present one, or use -1 to apply \
                         whatever the revision is)";

/// Options.
#[derive(Debug, clap::Args)]
pub struct ApplyArgs {
    /// The YAML tree; `-` is standard input.
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
pub async fn run(session: &Session, args: ApplyArgs) -> Result<(), BoxError> {
    let yaml = read_text(&args.specs, SPECS_BYTES_MAX).await?;
    let tree = JournalNode::parse(&yaml).map_err(|e| format!("{}: {e}", args.specs))?;
    let request = tree.to_apply_request().map_err(|e| format!("{}: {e}", args.specs))?;
    if args.dry_run {
        return Ok(print(&render::text(&request, "protocol.ApplyRequest")?)?);
    }
    submit(session, request, args.max_txn_size).await
}

/// Sends changes, in transactions of at most `max_txn_size`; zero does not split them.
pub async fn submit(session: &Session, request: ApplyRequest, max_txn_size: usize) -> Result<(), BoxError> {
    let total = request.changes.len();
    for changes in batches(request.changes, max_txn_size) {
        let names = format!("applying {}", batch_text(&changes));
        let call = session.client.apply(ApplyRequest { changes });
        let call = async { call.await.map_err(|e| format!("{e}{}", hint(e.status()))) };
        let response = session.request(&names, call).await?;
        let revision = response.header.unwrap_or_default().revision();
        eprintln!("{names}: done at revision {revision}");
    }
    eprintln!("successfully applied {}", count_text(total, "journal"));
    Ok(())
}

/// Splits changes into transactions of at most `size`; zero does not split.
pub fn batches<T>(mut changes: Vec<T>, size: usize) -> Vec<Vec<T>> {
    let mut batches = Vec::new();
    while size != 0 && changes.len() > size {
        let rest = changes.split_off(size);
        batches.push(std::mem::replace(&mut changes, rest));
    }
    batches.push(changes);
    batches
}

fn batch_text(changes: &[proto::protocol::apply_request::Change]) -> String {
    let name = |c: &proto::protocol::apply_request::Change| {
        c.upsert.as_ref().map_or_else(|| c.delete.clone(), |spec| spec.name.clone())
    };
    match changes {
        [] => "nothing".to_owned(),
        [one] => name(one),
        [first, .., last] => {
            format!("{} ({} to {})", count_text(changes.len(), "journal"), name(first), name(last))
        }
    }
}

fn hint(status: Option<proto::protocol::Status>) -> &'static str {
    match status {
        Some(proto::protocol::Status::EtcdTransactionFailed) => STALE,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_split_into_transactions() {
        assert_eq!(batches(vec![1, 2, 3, 4, 5], 2), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(batches(vec![1, 2], 2), [vec![1, 2]]);
        assert_eq!(batches(vec![1, 2], 0), [vec![1, 2]]);
        assert_eq!(batches(Vec::<u8>::new(), 2), [Vec::<u8>::new()]);
    }
}
