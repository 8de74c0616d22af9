//! Pruning of recovery logs by their primaries (consumer protocol §4.11).
//!
//! Every interval a process reads all stored hints of all shards of its group from etcd, and deletes the stored fragments
//! of the logs of those shards which it is the primary of, where no hints speak of them. The protocol has no deletion:
//! the process uses the stores of the logs' journals itself, with credentials of its own.
//!
//! It is safe by construction ([`recoverylog::prune`]); and beyond that:
//!
//! * If etcd cannot be read, or a specification in it cannot be decoded, the round deletes nothing.
//! * A fragment goes only if the hints of the round before did not speak of it either. So whoever has begun to play from
//!   hints which were replaced meanwhile, or forks a shard from such hints, has an interval's time to be done.
//! * A log which has other journals below its name is passed over, as their fragments are listed among its own.

use std::time::Duration;

use client::JournalClient;
use futures::{StreamExt, TryStreamExt};
use keyspace::EtcdError;
use prost::Message;
use proto::consumer::ShardSpec;
use proto::consumer::replica_status::Code;
use proto::protocol::{JournalSpec, LabelSelector};
use proto::{JournalName, Revision, labels};
use recoverylog::prune::{Needed, StoredHints};
use recoverylog::{Deleted, Mode, delete_unneeded};
use runtime::prometheus::IntCounter;
use runtime::{BoxError, CancellationToken, Clock, Metrics};
use stores::Stores;

use crate::hints::{self, HintsStoreError};
use crate::schema::Mirror;
use crate::shard::ShardSet;

/// How often logs are pruned, and so how long a fragment is kept at least after the last hints which spoke of it.
pub const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Shards of which hints are read at once.
const READS_AT_ONCE: usize = 16;

/// What was pruned.
#[derive(Clone)]
struct PruneMetrics {
    rounds: IntCounter,
    fragments: IntCounter,
    bytes: IntCounter,
    failures: IntCounter,
}

impl PruneMetrics {
    fn new(metrics: &Metrics) -> PruneMetrics {
        let counter = |name, help| metrics.counter(name, help);
        PruneMetrics {
            rounds: counter(
                "courant_prune_rounds_total",
                "Rounds in which recovery logs were looked at for pruning.",
            ),
            fragments: counter(
                "courant_pruned_fragments_total",
                "Fragments of recovery logs which were deleted, as no hints speak of them.",
            ),
            bytes: counter(
                "courant_pruned_bytes_total",
                "Content of the fragments of recovery logs which were deleted.",
            ),
            failures: counter("courant_prune_failures_total", "Failures to prune recovery logs."),
        }
    }
}

/// See the module.
pub struct LogPruner {
    pub mirror: Mirror,
    pub shards: ShardSet,
    pub client: JournalClient,
    pub stores: Stores,
    pub clock: Clock,
    pub interval: Duration,
    metrics: PruneMetrics,
}

/// Why a round deletes nothing.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("reading hints: {0}")]
    Etcd(#[from] EtcdError),
}

impl LogPruner {
    /// A pruner of the logs of `shards`.
    pub fn new(
        mirror: Mirror,
        shards: ShardSet,
        client: JournalClient,
        stores: Stores,
        (clock, interval): (Clock, Duration),
        metrics: &Metrics,
    ) -> LogPruner {
        let metrics = PruneMetrics::new(metrics);
        LogPruner { mirror, shards, client, stores, clock, interval, metrics }
    }

    /// Prunes until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) -> Result<(), BoxError> {
        tokio::select! {
            biased;
            () = token.cancelled() => Ok(()),
            never = self.rounds() => match never {},
        }
    }

    async fn rounds(&self) -> std::convert::Infallible {
        // Knows of no shard, and so keeps everything.
        let mut before = Needed::default();
        loop {
            self.clock.sleep(self.interval).await;
            match self.needed().await {
                Ok(now) => {
                    for log in self.own_logs() {
                        self.prune(&log, &before, &now).await;
                    }
                    self.metrics.rounds.inc();
                    before = now;
                }
                Err(error) => {
                    self.metrics.failures.inc();
                    tracing::warn!(%error, "recovery logs are not pruned (will retry)");
                }
            }
        }
    }

    /// Logs of the shards which this process is the primary of.
    fn own_logs(&self) -> Vec<JournalName> {
        let view = self.shards.view();
        let primary = view.shards.values().filter(|core| {
            core.assigned.borrow().slot == 0 && core.progress.borrow().status == Code::Primary
        });
        primary.filter_map(|core| core.spec().recovery_log()).collect()
    }

    /// What all stored hints of the group speak of, by etcd itself: the mirror passes over what it cannot decode.
    async fn needed(&self) -> Result<Needed, RoundError> {
        let (etcd, prefix) = (self.mirror.etcd(), self.mirror.item_key(""));
        let (items, _) = etcd.range(&prefix, Revision(0)).await?;
        let mut needed = Needed::default();
        let mut specs = Vec::new();
        for item in items {
            match ShardSpec::decode(item.value.clone()) {
                Ok(spec) if self.mirror.item_key(&spec.id) == item.key => specs.push(spec),
                Ok(_) | Err(_) => needed.add_unreadable(&item.key),
            }
        }
        let with_log = specs.into_iter().filter_map(|spec| Some((spec.recovery_log()?, spec)));
        let with_log: Vec<_> = with_log.collect();
        let reads = futures::stream::iter(with_log).map(|(log, spec)| async move {
            match hints::fetch(etcd, &spec).await {
                Err(HintsStoreError::Etcd(error)) => Err(error),
                stored => Ok((log, spec, stored)),
            }
        });
        let mut reads = reads.buffer_unordered(READS_AT_ONCE);
        while let Some((log, spec, stored)) = reads.try_next().await? {
            add(&mut needed, &log, &spec, stored);
        }
        Ok(needed)
    }

    async fn prune(&self, log: &JournalName, before: &Needed, now: &Needed) {
        if let Some(why) = now.kept_whole(log) {
            tracing::debug!(%log, %why, "a recovery log is not pruned");
            return;
        }
        let outcome = match self.spec_of(log).await {
            Ok(Some(spec)) => self.delete(log, &spec, before, now).await,
            Ok(None) => return,
            Err(error) => (Deleted::default(), vec![error]),
        };
        let (deleted, errors) = outcome;
        self.metrics.fragments.inc_by(deleted.deleted);
        self.metrics.bytes.inc_by(deleted.deleted_bytes);
        if deleted.deleted > 0 {
            tracing::info!(%log, fragments = deleted.deleted, bytes = deleted.deleted_bytes, "pruned a recovery log");
        }
        for error in errors {
            self.metrics.failures.inc();
            tracing::warn!(%log, %error, "cannot prune a recovery log (will retry)");
        }
    }

    async fn delete(
        &self,
        log: &JournalName,
        spec: &JournalSpec,
        before: &Needed,
        now: &Needed,
    ) -> (Deleted, Vec<BoxError>) {
        let urls = &spec.fragment().stores;
        let needs = |fragment: &fragment::Fragment| {
            let (begin, end) = (fragment.begin, fragment.end);
            before.needs(log, begin, end) || now.needs(log, begin, end)
        };
        let (deleted, errors) = delete_unneeded(&self.stores, log, urls, Mode::Delete, needs, |_| ()).await;
        (deleted, errors.into_iter().map(BoxError::from).collect())
    }

    /// The specification of a log's journal; none if the log is to be passed over.
    async fn spec_of(&self, log: &JournalName) -> Result<Option<JournalSpec>, BoxError> {
        let below: LabelSelector = format!("name:prefix={log}/").parse()?;
        if !self.client.list(below).await?.journals.is_empty() {
            tracing::warn!(%log, "a recovery log is not pruned, as there are journals below its name");
            return Ok(None);
        }
        let listing = self.client.list(LabelSelector::include([(labels::NAME, log.as_str())])).await?;
        Ok(listing.journals.into_iter().next().and_then(|journal| journal.spec))
    }
}

/// Adds all places of a shard's hints.
fn add(
    needed: &mut Needed,
    log: &JournalName,
    spec: &ShardSpec,
    stored: Result<hints::Stored, HintsStoreError>,
) {
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => return needed.add_unreadable(&error.to_string()),
    };
    let places = std::iter::once(spec.hint_primary_key()).chain(spec.hint_backup_keys());
    let found = std::iter::once(&stored.primary).chain(&stored.backups);
    for (place, hints) in places.zip(found) {
        needed.add(log, &place, hints.as_ref().map_or(StoredHints::Missing, StoredHints::Found));
    }
}
