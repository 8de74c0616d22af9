//! `courant journals suspend`: lets idle journals go to sleep, until something is appended to them.
//!
//! The command is an empty append for each journal, which asks the journal's primary to suspend it. One without content loses
//! all of its replicas; one whose content is stored keeps a single replica, which goes on serving reads. With `--force` content
//! that is not stored yet is no obstacle: it is stored in the course of it. Journals which are not idle enough stay as they are.

use crate::output::{count_text, print};
use crate::session::{SelectorArgs, Session};
use futures::StreamExt;
use proto::protocol::append_request::Suspend;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{AppendRequest, Status};
use runtime::BoxError;

/// Journals which are worked on at once.
const JOURNALS_AT_ONCE: usize = 32;

/// Options.
#[derive(Debug, clap::Args)]
pub struct SuspendArgs {
    #[command(flatten)]
    select: SelectorArgs,
    /// Suspend journals also while they have content that is not stored yet, or was stored a short time ago.
    #[arg(long, short = 'f')]
    force: bool,
}

/// Runs the command. Prints each journal, with what became of it.
pub async fn run(session: &Session, args: SuspendArgs) -> Result<(), BoxError> {
    let selector = args.select.parse()?;
    let suspend = if args.force { Suspend::Now } else { Suspend::IfFlushed };
    let listing = session.request("listing journals", session.client.list(selector)).await?;
    if listing.journals.is_empty() {
        eprintln!("{}: nothing was done", args.select.nothing_matches("journal"));
    }
    let specs = listing.journals.into_iter().filter_map(|journal| journal.spec);
    let names: Vec<String> =
        specs.filter(|spec| spec.suspend_level() != Level::Full).map(|spec| spec.name).collect();
    let total = names.len();

    let outcomes = futures::stream::iter(names).map(|journal| async move {
        let what = format!("suspending {journal}");
        (session.request(what, is_suspended(session, &journal, suspend)).await, journal)
    });
    let mut outcomes = outcomes.buffer_unordered(JOURNALS_AT_ONCE);
    let mut failed = 0;
    while let Some((outcome, journal)) = outcomes.next().await {
        match outcome {
            Ok(true) => print(&format!("{journal} suspended\n"))?,
            Ok(false) => print(&format!("{journal} in use\n"))?,
            Err(error) => {
                failed += 1;
                eprintln!("{error}");
            }
        }
    }
    if failed > 0 {
        return Err(format!("{failed} of {} failed", count_text(total, "journal")).into());
    }
    Ok(())
}

/// Asks for the suspension. Whether it took place: the primary declines it for a journal that is in use.
async fn is_suspended(session: &Session, journal: &str, suspend: Suspend) -> Result<bool, BoxError> {
    let request =
        AppendRequest { journal: journal.to_owned(), suspend: suspend.into(), ..Default::default() };
    match session.client.append(request, bytes::Bytes::new()).await {
        Ok(_) => Ok(false),
        Err(error) if error.status() == Some(Status::Suspended) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
