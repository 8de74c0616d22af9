//! `courant journals edit`: changes journals in an editor.

use super::apply;
use crate::editor::EditorArgs;
use crate::session::{SelectorArgs, Session};
use client::specs::JournalNode;
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
pub async fn run(session: &Session, args: EditArgs) -> Result<(), BoxError> {
    let listing = session.request("listing journals", session.client.list(args.select.parse()?)).await?;
    if listing.journals.is_empty() {
        return Err(args.select.nothing_matches("journal"));
    }
    let yaml = JournalNode::from_list(&listing).to_yaml()?;
    let accept = async |yaml: &str| {
        let request = JournalNode::parse(yaml)?.to_apply_request()?;
        apply::submit(session, request, args.max_txn_size).await
    };
    args.editor.edit(yaml, accept).await
}
