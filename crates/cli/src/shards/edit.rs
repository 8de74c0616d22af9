//! `courant shards edit`: changes shards in an editor.

use super::{ShardSession, apply, referenced};
use crate::editor::EditorArgs;
use crate::session::SelectorArgs;
use client::specs::ShardSet;
use runtime::BoxError;

/// Options.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    #[command(flatten)]
    select: SelectorArgs,
    /// Changes in one transaction at most; zero puts all in one. Several transactions may apply in part.
    #[arg(long, default_value_t = 0, value_name = "CHANGES")]
    max_txn_size: usize,
    #[command(flatten)]
    editor: EditorArgs,
}

/// Runs the command.
pub async fn run(session: &ShardSession, args: EditArgs) -> Result<(), BoxError> {
    let listing = session.list(args.select.parse()?).await?;
    if listing.shards.is_empty() {
        return Err(args.select.nothing_matches("shard"));
    }
    let yaml = ShardSet::from_list(&listing).to_yaml()?;
    let accept = async |yaml: &str| {
        let request = ShardSet::parse(yaml)?.to_apply_request()?;
        referenced::verify(&session.session, &request).await?;
        apply::submit(session, request, args.max_txn_size).await
    };
    args.editor.edit(yaml, accept).await
}
