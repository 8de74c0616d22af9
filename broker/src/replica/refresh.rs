//! The listing of a journal's stores: once at the start, then at each refresh interval, when the stores change, and soon when
//! a read waits for content which may have been stored by another replica.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fragment::index::RemoteSetBuilder;
use proto::JournalName;
use proto::protocol::JournalSpec;
use runtime::backoff::Backoff;
use runtime::{BoxError, CancellationToken};
use stores::StoreError;
use tokio::sync::{Notify, mpsc, watch};

use super::fragments::{Epoch, Listing};
use super::{Message, ReplicaDeps};

/// Part of a refresh interval by which it varies, so that the journals of a broker do not list together.
const INTERVAL_JITTER: f64 = 0.1;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Times after a listing at which readers may have another one: content which is not found is soon asked for less often.
const WANTED_AFTER: &[Duration] = &[s(1), s(1), s(2), s(4), s(8), s(15), s(30), s(60)];

/// Lists the stores of one journal. Any store's failure fails the listing as a whole, and the last one stays: what one
/// store lacks is not to vanish because another cannot be asked.
pub(super) struct Refresh {
    pub(super) journal: JournalName,
    pub(super) spec: watch::Receiver<Arc<JournalSpec>>,
    pub(super) owner: mpsc::WeakSender<Message>,
    pub(super) epoch: Epoch,
    pub(super) stop: CancellationToken,
    /// A reader waits for content which the stores may have.
    pub(super) wanted: Arc<Notify>,
}

/// Why a wait ended.
enum Woken {
    /// It is time, or the end, or the stores changed.
    Due,
    /// The specification changed otherwise.
    Changed,
    /// A reader waits.
    Wanted,
}

impl Refresh {
    /// Runs until the replica ends.
    pub(super) async fn run(mut self, deps: ReplicaDeps) -> Result<(), BoxError> {
        let mut backoff = Backoff::journal();
        let mut wanted = Backoff::new(WANTED_AFTER);
        let stop = self.stop.clone();
        let gone = deps.tasks.token().clone();
        loop {
            let spec = Arc::clone(&self.spec.borrow_and_update());
            let listed = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = gone.cancelled() => return Ok(()),
                // Boxed, since the state of a listing is large, and most of the time there is none.
                listed = Box::pin(self.list(&spec, &deps)) => listed,
            };
            let wait = match listed {
                Ok(listing) => {
                    let Some(owner) = self.owner.upgrade() else { return Ok(()) };
                    // An error means that the owner has ended, which `stop` says too.
                    drop(owner.send(Message::Listed(Box::new(listing))).await);
                    backoff.reset();
                    deps.entropy.jitter(spec.refresh_interval(), INTERVAL_JITTER)
                }
                Err(err) => {
                    let (journal, wait) = (&self.journal, backoff.next());
                    tracing::warn!(%journal, error = %err, "failed to refresh remote fragments (will retry)");
                    wait
                }
            };
            let now = deps.clock.now();
            let (mut next, mut is_wanted) = (now + wait, false);
            loop {
                match self.wait_until(next, is_wanted, &spec, &deps).await {
                    Woken::Due => break,
                    Woken::Changed => {
                        let changed = self.spec.borrow_and_update().refresh_interval();
                        next = next.min(deps.clock.now() + changed);
                    }
                    Woken::Wanted => {
                        is_wanted = true;
                        next = next.min(now + wanted.next());
                    }
                }
            }
            if !is_wanted {
                wanted.reset();
            }
            if stop.is_cancelled() || gone.is_cancelled() {
                return Ok(());
            }
        }
    }

    /// Waits for `next`, a change of the specification, the end, or a reader unless it `is_wanted` already.
    async fn wait_until(
        &mut self,
        next: runtime::Instant,
        is_wanted: bool,
        listed: &JournalSpec,
        deps: &ReplicaDeps,
    ) -> Woken {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Woken::Due,
            () = deps.tasks.token().cancelled() => Woken::Due,
            changed = self.spec.changed() => match changed {
                Ok(()) if self.spec.borrow().fragment().stores == listed.fragment().stores => Woken::Changed,
                Ok(()) | Err(_) => Woken::Due,
            },
            () = self.wanted.notified(), if !is_wanted => Woken::Wanted,
            () = deps.clock.sleep_until(next) => Woken::Due,
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
