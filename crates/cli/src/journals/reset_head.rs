//! `courant journals reset-head`: lets journals go on which lost all of their replicas.
//!
//! A broker which gets a journal without a replica that could tell where it ended finds stored fragments and refuses
//! appends (INDEX_HAS_GREATER_OFFSET): there may have been more. This command says that what is stored is all there is:
//! an empty append at the end of the stored content makes that the place where the journal goes on. On a journal which
//! takes appends it does nothing.

use crate::output::{count_text, print};
use crate::session::{SelectorArgs, Session};
use client::{ReadError, RetryReader};
use futures::StreamExt;
use proto::protocol::append_request::Suspend;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{AppendRequest, ReadRequest, Status};
use runtime::BoxError;

/// Journals which are worked on at once.
const JOURNALS_AT_ONCE: usize = 32;
/// Attempts for a journal whose end moves between the question where it is and the append.
const ATTEMPTS_MAX: u32 = 3;

/// Options.
#[derive(Debug, clap::Args)]
pub struct ResetHeadArgs {
    #[command(flatten)]
    select: SelectorArgs,
}

/// Runs the command. Prints each journal, with the offset at which it goes on.
pub async fn run(session: &Session, args: ResetHeadArgs) -> Result<(), BoxError> {
    let selector = args.select.parse()?;
    let listing = session.request("listing journals", session.client.list(selector)).await?;
    if listing.journals.is_empty() {
        eprintln!("{}: nothing was done", args.select.nothing_matches("journal"));
    }
    let specs = listing.journals.into_iter().filter_map(|journal| journal.spec);
    let names: Vec<String> =
        specs.filter(|spec| spec.suspend_level() != Level::Full).map(|spec| spec.name).collect();
    let total = names.len();

    let outcomes = futures::stream::iter(names).map(|journal| async move {
        let what = format!("resetting the head of {journal}");
        (session.request(what, reset(session, &journal)).await, journal)
    });
    let mut outcomes = outcomes.buffer_unordered(JOURNALS_AT_ONCE);
    let mut failed = 0;
    while let Some((outcome, journal)) = outcomes.next().await {
        match outcome {
            Ok(Head::At(offset)) => print(&format!("{journal} {offset}\n"))?,
            Ok(Head::Moves) => eprintln!("{journal} takes appends: its end moves"),
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

/// Where a journal goes on.
enum Head {
    At(i64),
    /// Others append to it, so there is nothing to reset.
    Moves,
}

async fn reset(session: &Session, journal: &str) -> Result<Head, BoxError> {
    for _ in 0..ATTEMPTS_MAX {
        let request = AppendRequest {
            journal: journal.to_owned(),
            offset: write_head(session, journal).await?,
            suspend: Suspend::Keep as i32,
            ..Default::default()
        };
        match session.client.append(request, bytes::Bytes::new()).await {
            Ok(response) => return Ok(Head::At(response.commit.map_or(0, |commit| commit.end))),
            Err(error) if error.status() == Some(Status::WrongAppendOffset) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Head::Moves)
}

/// The end of the content which a journal's broker knows of. A broker which was just assigned looks into the stores first.
async fn write_head(session: &Session, journal: &str) -> Result<i64, BoxError> {
    let request =
        ReadRequest { journal: journal.to_owned(), offset: -1, metadata_only: true, ..Default::default() };
    let mut reader = RetryReader::new(session.client.clone(), request);
    match reader.next().await {
        Err(ReadError::NotYetAvailable { write_head, .. }) => Ok(write_head),
        // Content which was appended meanwhile.
        Ok(_) => Ok(reader.write_head()),
        Err(error) => Err(error.into()),
    }
}
