//! Retention: the primary of a journal deletes stored fragments that are older than the journal's specification keeps them
//! (journal protocol §10.3, R11). Only if the broker is told to (`--broker.enforce-retention`): other brokers never delete.
//!
//! One task looks at the journals of which this broker is the primary, one after the other, every ten minutes. A journal
//! whose first stored fragment has expired has all its stores listed, and [`plan`] decides by what they hold now. Nothing is
//! deleted if one of them cannot be listed, nothing that is of another journal, and at most [`DELETIONS_MAX`] fragments at a
//! time. Recovery logs are never touched: what of them is needed, only their hints tell.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fragment::Fragment;
use fragment::index::{Answer, Query};
use futures::{StreamExt, TryStreamExt};
use proto::protocol::JournalSpec;
use proto::{JournalName, Revision, labels};
use runtime::backoff::Backoff;
use runtime::{Instant, OnError, TaskGroup};
use stores::StoreError;

use crate::replica::{Replica, ReplicaDeps};
use crate::resolver::Resolver;

pub use plan::{Kept, RetentionPlan, is_of_another_journal};

/// Fragments of a journal that are deleted in one pass.
const DELETIONS_MAX: usize = 1000;
/// Deletions under way at a time.
const DELETIONS_AT_ONCE_MAX: usize = 8;
/// Part by which the time between passes varies.
const PACE_JITTER: f64 = 0.2;
/// Waits of a journal after a pass that failed, the last one repeating.
const RETRY_WAITS: &[Duration] =
    &[Duration::from_secs(60), Duration::from_secs(10 * 60), Duration::from_secs(60 * 60)];

/// Starts to enforce retention, in a task of `tasks`, every `pace`.
pub fn start(resolver: Resolver, deps: ReplicaDeps, pace: Duration, tasks: &TaskGroup) {
    let stop = tasks.token().clone();
    tasks.spawn("retention", OnError::Log, async move {
        let mut enforcer = Enforcer { resolver, deps, failed: BTreeMap::new() };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = enforcer.run(pace) => {}
        }
        Ok(())
    });
}

/// Whether a journal's fragments are deleted with age, and at which.
pub fn retention_of(spec: &JournalSpec) -> Option<Duration> {
    let is_recovery_log = |value| value == labels::CONTENT_TYPE_RECOVERY_LOG;
    let is_kept = spec.label_set().values_of(labels::CONTENT_TYPE).any(is_recovery_log);
    spec.retention().filter(|_| !is_kept)
}

struct Enforcer {
    resolver: Resolver,
    deps: ReplicaDeps,
    /// Journals whose last pass failed, and when the next one is due.
    failed: BTreeMap<JournalName, (Backoff, Instant)>,
}

impl Enforcer {
    async fn run(&mut self, pace: Duration) {
        loop {
            self.deps.clock.sleep(self.deps.entropy.jitter(pace, PACE_JITTER)).await;
            let replicas = self.resolver.local_replicas();
            self.failed.retain(|journal, _| replicas.iter().any(|replica| replica.journal() == journal));
            for replica in replicas {
                self.look_at(&replica).await;
            }
        }
    }

    /// Makes a pass over a journal, if it is time.
    async fn look_at(&mut self, replica: &Replica) {
        let (journal, now) = (replica.journal(), self.deps.clock.now());
        if self.failed.get(journal).is_some_and(|(_, due)| now < *due) {
            return;
        }
        let Some((spec, created)) = self.enforced(journal) else { return };
        if !self.has_expired(replica, &spec) {
            return;
        }
        match self.pass(journal, &spec, created).await {
            Ok(deleted) => {
                self.failed.remove(journal);
                if deleted > 0 {
                    tracing::info!(%journal, fragments = deleted, "deleted fragments that are older than the retention");
                    replica.want_full_listing();
                }
            }
            Err(error) => {
                let (backoff, due) =
                    self.failed.entry(journal.clone()).or_insert((Backoff::new(RETRY_WAITS), now));
                let wait = backoff.next();
                *due = now + wait;
                tracing::warn!(%journal, %error, ?wait, "failed to enforce the retention (will retry)");
            }
        }
    }

    /// The specification, if this broker is the journal's primary and fragments of it are to be deleted.
    fn enforced(&self, journal: &JournalName) -> Option<(Arc<JournalSpec>, Revision)> {
        let key_space = self.resolver.key_space();
        let item = key_space.items().get(journal.as_arc())?;
        let mut assignments = key_space.assignments_of(journal.as_str());
        let is_mine = assignments.any(|(key, _)| key.slot == 0 && key.member == *self.resolver.me());
        let is_enforced = is_mine && retention_of(&item.value).is_some();
        is_enforced.then(|| (Arc::clone(&item.value), item.create_revision))
    }

    /// Whether the journal's first fragment is stored and old enough, as far as the index knows.
    fn has_expired(&self, replica: &Replica, spec: &JournalSpec) -> bool {
        let (view, now_unix) = (replica.index().borrow().clone(), self.deps.clock.unix_seconds());
        let first = view.index.query(&Query { offset: 0, begin_mod_time: 0, now_unix, jump_age_seconds: 0 });
        let Answer::Found(found) = first else { return false };
        view.first_listing_done
            && retention_of(spec)
                .is_some_and(|retention| plan::is_expired(&found.entry.fragment, now_unix, retention))
    }

    /// Deletes what the stores hold and need not. Returns how many fragments.
    async fn pass(
        &self,
        journal: &JournalName,
        spec: &JournalSpec,
        created: Revision,
    ) -> Result<usize, StoreError> {
        let Some(retention) = retention_of(spec) else { return Ok(0) };
        let key_space = self.resolver.key_space();
        let exists = |name: &str| key_space.items().contains_key(name);
        let mut plan = RetentionPlan::new(self.deps.clock.unix_seconds(), retention, DELETIONS_MAX);
        for url in &spec.fragment().stores {
            let store = self.deps.stores.get(url)?;
            let listed = store.list_each(journal, |fragment| {
                if !is_of_another_journal(journal, &fragment, exists) {
                    plan.push(fragment);
                }
            });
            // Boxed, since the state of a listing is large.
            Box::pin(listed).await?;
        }
        let (expired, _) = plan.finish(0);
        let deleted = futures::stream::iter(expired).map(Ok);
        deleted
            .map_ok(|fragment| async move { self.delete(journal, created, retention, &fragment).await })
            .try_buffered(DELETIONS_AT_ONCE_MAX)
            .try_fold(0, async |deleted, is_deleted| Ok(deleted + usize::from(is_deleted)))
            .await
    }

    /// Deletes a fragment, unless its journal has changed hands or would keep it longer by now.
    async fn delete(
        &self,
        journal: &JournalName,
        created: Revision,
        planned: Duration,
        fragment: &Fragment,
    ) -> Result<bool, StoreError> {
        let Some(url) = fragment.backing_store.as_deref() else { return Ok(false) };
        let is_due = self.enforced(journal).is_some_and(|(spec, now_created)| {
            now_created == created && retention_of(&spec).is_some_and(|retention| retention <= planned)
        });
        if is_due {
            self.deps.stores.get(url)?.remove(fragment).await?;
        }
        Ok(is_due)
    }
}
