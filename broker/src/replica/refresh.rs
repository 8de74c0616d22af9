//! The listing of a journal's stores: once at the start, then at each refresh interval, and when the stores change.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fragment::index::RemoteSetBuilder;
use proto::JournalName;
use proto::protocol::JournalSpec;
use runtime::backoff::Backoff;
use runtime::{BoxError, CancellationToken};
use stores::StoreError;
use tokio::sync::{mpsc, watch};

use super::fragments::{Epoch, Listing};
use super::{Message, ReplicaDeps};

/// Part of a refresh interval by which it varies, so that the journals of a broker do not list together.
const INTERVAL_JITTER: f64 = 0.1;

/// Lists the stores of one journal. Any store's failure fails the listing as a whole, and the last one stays: what one
/// store lacks is not to vanish because another cannot be asked.
pub(super) struct Refresh {
    pub(super) journal: JournalName,
    pub(super) spec: watch::Receiver<Arc<JournalSpec>>,
    pub(super) owner: mpsc::WeakSender<Message>,
    pub(super) epoch: Epoch,
    pub(super) stop: CancellationToken,
}

impl Refresh {
    /// Runs until the replica ends.
    pub(super) async fn run(mut self, deps: ReplicaDeps) -> Result<(), BoxError> {
        let mut backoff = Backoff::journal();
        let stop = self.stop.clone();
        let gone = deps.tasks.token().clone();
        loop {
            let spec = Arc::clone(&self.spec.borrow_and_update());
            let listed = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = gone.cancelled() => return Ok(()),
                listed = self.list(&spec, &deps) => listed,
            };
            let wait = match listed {
                Ok(listing) => {
                    let Some(owner) = self.owner.upgrade() else { return Ok(()) };
                    // An error means that the owner has ended, which `stop` says too.
                    drop(owner.send(Message::Listed(listing)).await);
                    backoff.reset();
                    deps.entropy.jitter(spec.refresh_interval(), INTERVAL_JITTER)
                }
                Err(err) => {
                    let (journal, wait) = (&self.journal, backoff.next());
                    tracing::warn!(%journal, error = %err, "failed to refresh remote fragments (will retry)");
                    wait
                }
            };
            let mut next = deps.clock.now() + wait;
            while !self.wait_until(next, &spec, &deps).await {
                let changed = self.spec.borrow_and_update().refresh_interval();
                next = next.min(deps.clock.now() + changed);
            }
            if stop.is_cancelled() || gone.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Waits for `next`, a change of the stores, or the end. False after another change of the specification.
    async fn wait_until(&mut self, next: runtime::Instant, listed: &JournalSpec, deps: &ReplicaDeps) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            () = deps.tasks.token().cancelled() => true,
            changed = self.spec.changed() => match changed {
                Ok(()) => self.spec.borrow().fragment().stores != listed.fragment().stores,
                Err(_) => true,
            },
            () = deps.clock.sleep_until(next) => true,
        }
    }

    async fn list(&self, spec: &JournalSpec, deps: &ReplicaDeps) -> Result<Listing, StoreError> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let mut remote = RemoteSetBuilder::default();
        for url in &spec.fragment().stores {
            let store = deps.stores.get(url)?;
            store.list_each(&self.journal, |fragment| remote.push(fragment)).await?;
        }
        Ok(Listing { remote: remote.build(), epoch })
    }
}
