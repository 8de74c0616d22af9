//! `courant shards prune`: deletes fragments of recovery logs which no stored hints need (consumer protocol §4.11).
//!
//! All shards of the consumer are asked for their hints, selected or not, since a shard which was forked from another one
//! needs parts of that one's log. What is needed [`recoverylog::prune`] tells. Fragments are deleted from the stores
//! directly, with the credentials of whoever runs it; brokers notice at their next listing.

use super::ShardSession;
use crate::output::{count_text, deleted_text, is_broken_pipe, print};
use crate::session::{SelectorArgs, Session};
use crate::terminal::{Output, Progress};
use broker::is_of_another_journal;
use fragment::Fragment;
use futures::StreamExt;
use proto::JournalName;
use proto::consumer::{GetHintsRequest, GetHintsResponse, ShardSpec, get_hints_response};
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{FragmentStoreHealthRequest, JournalSpec, LabelSelector, Status};
use recoverylog::prune::{Needed, StoredHints};
use recoverylog::{Deleted, Mode, delete_unneeded};
use runtime::BoxError;
use std::collections::{BTreeMap, BTreeSet};
use stores::Stores;

/// Shards which are asked for hints at once.
const SHARDS_AT_ONCE: usize = 32;
/// Logs which are worked on at once. Each deletes up to 32 fragments at once.
const LOGS_AT_ONCE: usize = 4;

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
    shards: usize,
    /// Logs which were passed over, with a reason.
    skipped: usize,
    /// Stores which refused us.
    denied: usize,
    failed: usize,
    fragments: Deleted,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.shards += other.shards;
        self.skipped += other.skipped;
        self.denied += other.denied;
        self.failed += other.failed;
        self.fragments += other.fragments;
    }

    fn text(&self, mode: Mode) -> String {
        format!(
            "{} of {}; skipped {}; failed: {}; permission denied: {}",
            deleted_text(self.fragments, mode),
            count_text(self.shards, "shard"),
            count_text(self.skipped, "log"),
            self.failed,
            self.denied,
        )
    }
}

/// Runs the command. Prints each deleted fragment, with its store.
///
/// # Errors
/// If one of the tokens does not reach everything, before anything is asked or deleted.
pub async fn run(session: &ShardSession, args: PruneArgs) -> Result<(), BoxError> {
    Session::require_everything(&session.session.options.authorizer, "--broker.auth-token")?;
    Session::require_everything(&session.authorizer, "--consumer.auth-token")?;
    let selected = list(session, args.select.parse()?).await?;
    let all = list(session, LabelSelector::default()).await?;
    let needed = needed(session, &all).await;
    let journals = session.session.client.list(LabelSelector::default());
    let journals = session.session.request("listing journals", journals).await?.journals;
    let specs = journals.into_iter().filter_map(|journal| journal.spec);
    let pruner = Pruner {
        session,
        mode: if args.dry_run { Mode::DryRun } else { Mode::Delete },
        stores: session.session.stores(),
        needed,
        journals: specs.map(|spec| (spec.name.clone(), spec)).collect(),
    };
    let logs: BTreeSet<JournalName> = selected.iter().filter_map(ShardSpec::recovery_log).collect();
    let mut counts = Counts { shards: selected.len(), ..Counts::default() };
    let mut outcomes =
        futures::stream::iter(&logs).map(|log| pruner.prune(log)).buffer_unordered(LOGS_AT_ONCE);
    let mut progress =
        Progress::of_things(&session.session.clock, Output::Flows, logs.len()).says("recovery logs");
    while let Some(outcome) = outcomes.next().await {
        counts.add(outcome?);
        progress.advance(1);
    }
    drop(progress);
    eprintln!("{}", counts.text(pruner.mode));
    match counts.failed {
        0 => Ok(()),
        failed => Err(format!("{failed} of {} failed", count_text(logs.len(), "log")).into()),
    }
}

async fn list(session: &ShardSession, selector: LabelSelector) -> Result<Vec<ShardSpec>, BoxError> {
    let list = session.list(selector).await?;
    Ok(list.shards.into_iter().filter_map(|shard| shard.spec).collect())
}

/// What the stored hints of all shards speak of. Hints which cannot be read keep everything.
async fn needed(session: &ShardSession, shards: &[ShardSpec]) -> Needed {
    let with_log = shards.iter().filter_map(|spec| Some((spec.recovery_log()?, spec)));
    let reads = futures::stream::iter(with_log).map(|(log, spec)| async move {
        let request = GetHintsRequest { shard: spec.id.clone(), ..Default::default() };
        let what = format!("reading the hints of {}", spec.id);
        (log, spec, session.request(what, session.shards.get_hints(request)).await)
    });
    let mut reads = reads.buffer_unordered(SHARDS_AT_ONCE);
    let mut needed = Needed::default();
    while let Some((log, spec, hints)) = reads.next().await {
        match hints {
            Ok(hints) => add(&mut needed, &log, spec, &hints),
            Err(error) => {
                eprintln!("{error}");
                needed.add_unreadable(&spec.id);
            }
        }
    }
    needed
}

fn add(needed: &mut Needed, log: &JournalName, spec: &ShardSpec, response: &GetHintsResponse) {
    let stored = |hints: Option<&get_hints_response::ResponseHints>| {
        // Not borrowed from the argument, so that an absent entry can be told too.
        hints.and_then(|entry| entry.hints.clone())
    };
    let primary = ("primary".to_owned(), stored(response.primary_hints.as_ref()));
    // At least as many as the specification asks for, even of a server which leaves out those that are not written.
    let wanted = usize::try_from(spec.hint_backups).unwrap_or(0).max(response.backup_hints.len());
    let backups = (0..wanted).map(|i| (format!("backup {i}"), stored(response.backup_hints.get(i))));
    for (place, hints) in std::iter::once(primary).chain(backups) {
        let place = format!("{place} of {}", spec.id);
        needed.add(log, &place, hints.as_ref().map_or(StoredHints::Missing, StoredHints::Found));
    }
}

/// What the work on each log shares.
struct Pruner<'a> {
    session: &'a ShardSession,
    mode: Mode,
    stores: Stores,
    needed: Needed,
    /// All journals by name.
    journals: BTreeMap<String, JournalSpec>,
}

impl Pruner<'_> {
    /// Works on one log. What was done before a failure counts.
    ///
    /// # Errors
    /// If nobody reads what is printed.
    async fn prune(&self, log: &JournalName) -> Result<Counts, BoxError> {
        let spec = match self.prunable(log).await {
            Ok(spec) => spec,
            Err(why) => {
                eprintln!("skipped {log}: {why}");
                return Ok(Counts { skipped: 1, ..Counts::default() });
            }
        };
        let mut printed = Ok(());
        let needs = |fragment: &Fragment| {
            self.needed.needs(log, fragment.begin, fragment.end)
                || is_of_another_journal(log, fragment, |name| self.journals.contains_key(name))
        };
        let each = |fragment: &Fragment| {
            let url = fragment.backing_store.as_deref().unwrap_or_default();
            if printed.is_ok() {
                printed = print(&format!("{url} {}\n", fragment.content_path()));
            }
        };
        let urls = &spec.fragment().stores;
        let (fragments, errors) = delete_unneeded(&self.stores, log, urls, self.mode, needs, each).await;
        let mut counts = Counts { fragments, ..Counts::default() };
        for error in &errors {
            eprintln!("pruning {log}: {error}");
            counts.denied += usize::from(error.is_auth());
        }
        counts.failed = usize::from(errors.iter().any(|error| !error.is_auth()));
        match printed {
            Err(error) if is_broken_pipe(&error) => Err(error.into()),
            Err(error) => Err(format!("printing: {error}").into()),
            Ok(()) => Ok(counts),
        }
    }

    /// The specification of a log which is to be pruned.
    ///
    /// # Errors
    /// Why it is passed over.
    async fn prunable(&self, log: &JournalName) -> Result<&JournalSpec, BoxError> {
        let spec = self.journals.get(log.as_str()).ok_or("its journal does not exist")?;
        if spec.suspend_level() != Level::None {
            return Err("it is suspended".into());
        }
        if let Some(why) = self.needed.kept_whole(log) {
            return Err(why.into());
        }
        for store in &spec.fragment().stores {
            let request = FragmentStoreHealthRequest { fragment_store: store.clone(), ..Default::default() };
            let health = self.session.session.client.store_health(request);
            let health = self.session.session.request(format!("health of {store}"), health).await?;
            if health.status() != Status::Ok {
                return Err(format!("its store {store} is unhealthy: {}", health.store_health_error).into());
            }
        }
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_told_in_one_line() {
        let mut counts = Counts { shards: 2, ..Counts::default() };
        let fragments = Deleted { listed: 3, listed_bytes: 3 << 20, deleted: 1, deleted_bytes: 1024 };
        counts.add(Counts { fragments, ..Counts::default() });
        counts.add(Counts { skipped: 1, denied: 2, failed: 3, ..Counts::default() });
        assert_eq!(
            counts.text(Mode::DryRun),
            "would delete 1 of 3 fragments (1.0 KiB of 3.0 MiB) of 2 shards; skipped 1 log; failed: 3; permission denied: 2"
        );
    }
}
