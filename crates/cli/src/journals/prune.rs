//! `courant journals prune`: deletes stored fragments that are older than their journal's retention.
//!
//! Works on the stores directly, with the credentials of whoever runs it; brokers notice at their next listing. What may go is
//! decided as brokers decide it (`--broker.enforce-retention`): a journal loses its beginning, and keeps its last fragment
//! unless its specification says where it goes on. A journal without retention keeps everything, and so does a recovery log:
//! what of it is needed only its shard's hints tell.

use crate::output::{count_text, deleted_text, print};
use crate::session::{SelectorArgs, Session};
use crate::terminal::{Output, Progress};
use broker::{RetentionPlan, is_of_another_journal, retention_of};
use futures::{StreamExt, TryStreamExt};
use proto::JournalName;
use proto::protocol::{JournalSpec, LabelSelector};
use recoverylog::{Deleted, Mode};
use runtime::BoxError;
use std::collections::BTreeSet;
use std::time::Duration;
use stores::Stores;

/// Journals which are worked on at once.
const JOURNALS_AT_ONCE: usize = 8;
/// Deletions of one journal at once.
const DELETIONS_AT_ONCE: usize = 8;
/// Fragments which are deleted between two listings of a journal.
const DELETIONS_MAX: usize = 100_000;

/// Options.
#[derive(Debug, clap::Args)]
pub struct PruneArgs {
    #[command(flatten)]
    select: SelectorArgs,
    /// Show what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What was found and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    journals: usize,
    kept_for_ever: usize,
    fragments: Deleted,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.journals += other.journals;
        self.kept_for_ever += other.kept_for_ever;
        self.fragments += other.fragments;
    }

    fn text(&self, mode: Mode) -> String {
        let journals = count_text(self.journals, "journal");
        format!("{} of {journals}; {} kept for ever", deleted_text(self.fragments, mode), self.kept_for_ever)
    }
}

/// What the work on each journal shares.
struct Pruner<'a> {
    session: &'a Session,
    stores: Stores,
    /// Names of all journals.
    names: BTreeSet<String>,
    mode: Mode,
}

/// Runs the command. Prints each deleted fragment, with its store.
///
/// # Errors
/// If the session's token does not reach everything, before anything is asked or deleted.
pub async fn run(session: &Session, args: PruneArgs) -> Result<(), BoxError> {
    Session::require_everything(&session.options.authorizer, "--broker.auth-token")?;
    let selector = args.select.parse()?;
    let listing = session.request("listing journals", session.client.list(selector)).await?;
    let specs: Vec<JournalSpec> = listing.journals.into_iter().filter_map(|journal| journal.spec).collect();
    let all = session.client.list(LabelSelector::default());
    let all = session.request("listing all journals", all).await?;
    let names = all.journals.into_iter().filter_map(|journal| journal.spec).map(|spec| spec.name).collect();
    let mode = if args.dry_run { Mode::DryRun } else { Mode::Delete };
    let pruner = Pruner { session, stores: session.stores(), names, mode };

    let total = specs.len();
    let outcomes = futures::stream::iter(specs).map(|spec| pruner.prune(spec));
    let mut outcomes = outcomes.buffer_unordered(JOURNALS_AT_ONCE);
    let (mut counts, mut failed) = (Counts::default(), 0);
    let mut progress = Progress::of_things(&session.clock, Output::Flows, total).says("journals");
    while let Some((count, outcome)) = outcomes.next().await {
        counts.add(count);
        progress.advance(1);
        if let Err(error) = outcome {
            if crate::output::is_broken_pipe(error.as_ref()) {
                return Err(error);
            }
            failed += 1;
            eprintln!("{error}");
        }
    }
    drop(progress);
    eprintln!("{}", counts.text(mode));
    if failed > 0 {
        return Err(format!("{failed} of {} failed", count_text(total, "journal")).into());
    }
    Ok(())
}

impl Pruner<'_> {
    /// Works on one journal. What was done before a failure counts.
    async fn prune(&self, spec: JournalSpec) -> (Counts, Result<(), BoxError>) {
        let mut counts = Counts { journals: 1, ..Counts::default() };
        let Some(retention) = retention_of(&spec) else {
            counts.kept_for_ever = 1;
            return (counts, Ok(()));
        };
        loop {
            let outcome = self.pass(&spec, retention, &mut counts).await;
            match outcome {
                Ok(DELETIONS_MAX) if self.mode == Mode::Delete => {}
                Ok(_) => return (counts, Ok(())),
                Err(error) => return (counts, Err(format!("pruning {}: {error}", spec.name).into())),
            }
        }
    }

    /// Lists the journal's stores and deletes what is due. Returns how many fragments were.
    async fn pass(
        &self,
        spec: &JournalSpec,
        retention: Duration,
        counts: &mut Counts,
    ) -> Result<usize, BoxError> {
        let journal = JournalName::parse(&spec.name)?;
        let exists = |name: &str| self.names.contains(name);
        let mut plan = RetentionPlan::new(self.session.clock.unix_seconds(), retention, DELETIONS_MAX);
        for url in &spec.fragment().stores {
            let store = self.stores.get(url)?;
            let listed = store.list_each(&journal, |fragment| {
                if !is_of_another_journal(&journal, &fragment, exists) {
                    plan.push(fragment);
                }
            });
            listed.await?;
        }
        let resumes_at = spec.suspend.as_ref().map_or(0, |suspend| suspend.offset);
        let (expired, kept) = plan.finish(resumes_at);
        let fragments = &mut counts.fragments;
        fragments.listed = fragments.listed.max(kept.listed as u64);
        fragments.listed_bytes = fragments.listed_bytes.max(kept.listed_bytes);
        let due = expired.len();
        let deletions = futures::stream::iter(expired).map(|fragment| async move {
            let url = fragment.backing_store.as_deref().unwrap_or_default();
            if self.mode == Mode::Delete {
                self.stores.get(url)?.remove(&fragment).await?;
            }
            let bytes = u64::try_from(fragment.len()).unwrap_or(0);
            Ok::<_, BoxError>((bytes, format!("{url} {}\n", fragment.content_path())))
        });
        let mut deletions = deletions.buffered(DELETIONS_AT_ONCE);
        while let Some((bytes, line)) = deletions.try_next().await? {
            counts.fragments.deleted += 1;
            counts.fragments.deleted_bytes += bytes;
            print(&line)?;
        }
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_in_one_line() {
        let fragments = Deleted { listed: 3, listed_bytes: 3 << 20, ..Deleted::default() };
        let mut counts = Counts { journals: 1, fragments, ..Counts::default() };
        counts.add(Counts { journals: 1, kept_for_ever: 1, ..Counts::default() });
        let fragments = Deleted { deleted: 1, deleted_bytes: 1024, ..Deleted::default() };
        counts.add(Counts { fragments, ..Counts::default() });
        assert_eq!(
            counts.text(Mode::DryRun),
            "would delete 1 of 3 fragments (1.0 KiB of 3.0 MiB) of 2 journals; 1 kept for ever"
        );
        assert!(counts.text(Mode::Delete).starts_with("deleted 1 of"));
    }
}
