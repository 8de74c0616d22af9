//! Keeps the stored hints of a primary fresh, so that whoever comes next reads little of the recovery log.
//!
//! On promotion the recovered hints are stored as a backup, and the first hints of the new recorder as the primary's; then
//! again as the log grows ([`HintPace`]), and when the shard ends while it is still assigned, as when the process exits.
//! Nothing here may fail the shard: old hints cost time, not correctness.

use std::sync::Arc;
use std::time::Duration;

use keyspace::Compare;
use proto::MemberId;
use proto::recoverylog::FsmHints;
use recoverylog::Recorder;
use runtime::backoff::Backoff;
use runtime::{BoxError, CancellationToken, Clock};

use super::core::Core;
use super::held::Held;
use super::hint_pace::HintPace;
use super::process::SharedProcess;
use crate::Application;
use crate::hints::{self, HintsStoreError, Outcome};
use crate::schema::Mirror;

/// Longest time that a shard which ends spends on its last hints.
const LAST_LIMIT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone)]
pub struct HintWriter {
    core: Arc<Core>,
    mirror: Mirror,
    me: MemberId,
    clock: Clock,
    growth_bytes: i64,
    recorder: Recorder,
    /// Not yet stored, if any.
    recovered: Option<FsmHints>,
}

impl HintWriter {
    /// A writer for the primary of `core`; none if the shard has no log.
    pub fn new<A: Application>(
        process: &SharedProcess<A>,
        core: &Arc<Core>,
        recorder: Option<Recorder>,
        recovered: Option<Option<FsmHints>>,
    ) -> Option<HintWriter> {
        Some(HintWriter {
            core: Arc::clone(core),
            mirror: process.mirror.clone(),
            me: process.me.clone(),
            clock: process.clock.clone(),
            growth_bytes: process.hint_growth_bytes,
            recorder: recorder?,
            recovered: recovered.flatten(),
        })
    }

    /// Writes hints until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) -> Result<(), BoxError> {
        tokio::select! {
            biased;
            () = token.cancelled() => Ok(()),
            never = self.write_all() => match never {},
        }
    }

    async fn write_all(&self) -> std::convert::Infallible {
        if let Some(recovered) = &self.recovered {
            self.store_recovered(recovered).await;
        }
        let began = self.clock.now();
        let mut pace = HintPace::new(self.growth_bytes);
        // The log grows with transactions, and each of them shows here.
        let mut progress = self.core.progress.subscribe();
        loop {
            let due = async {
                match pace.due(self.recorder.write_head()) {
                    Some(due) => self.clock.sleep_until(began + due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = due => match self.record().await {
                    Some(head) => pace.written(self.clock.now() - began, head),
                    None => pace.failed(self.clock.now() - began),
                },
                changed = progress.changed() => if changed.is_err() {
                    return std::future::pending().await;
                },
            }
        }
    }

    /// The shard ends: records its hints once more, if it is still assigned.
    pub async fn record_last(&self) {
        if self.clock.timeout(LAST_LIMIT, self.record()).await.is_err() {
            tracing::debug!(shard = %self.core.id, "no time to record the last hints");
        }
    }

    /// What must hold of our assignment; `None` once it is gone.
    fn guard(&self) -> Option<Compare> {
        let held = Held::find(&self.mirror.snapshot(), &self.me, &self.core.id)?;
        Some(held.still_held(self.mirror.assignment_key(&held.key)))
    }

    async fn store_recovered(&self, recovered: &FsmHints) {
        let mut backoff = Backoff::journal();
        while let Some(guard) = self.guard() {
            let spec = self.core.spec();
            match hints::store_recovered(self.mirror.etcd(), &spec, guard, recovered).await {
                Ok(Outcome::Written) => return,
                Ok(Outcome::Conflict) => {}
                Err(error @ HintsStoreError::Etcd(_)) => {
                    tracing::warn!(shard = %self.core.id, %error, "cannot store recovered hints (will retry)");
                }
                Err(error) => {
                    tracing::error!(shard = %self.core.id, %error, "recovered hints are not stored");
                    return;
                }
            }
            self.clock.sleep(backoff.next()).await;
        }
    }

    /// Records hints once; gives the end of the log that they are of.
    async fn record(&self) -> Option<i64> {
        let shard = &self.core.id;
        // A successor is not to be kept waiting for hints which would not be stored.
        let guard = self.guard()?;
        let built = match self.recorder.build_hints().await {
            Ok(built) => built,
            Err(error) => {
                tracing::debug!(%shard, %error, "there are no hints to record");
                return None;
            }
        };
        let head = self.recorder.write_head();
        match hints::record(self.mirror.etcd(), &self.core.spec(), guard, &built).await {
            Ok(Outcome::Written) => {
                self.core.metrics.hints_written(self.clock.unix_seconds());
                return Some(head);
            }
            Ok(Outcome::Conflict) => {
                tracing::debug!(%shard, "the shard is assigned anew; its hints are not recorded")
            }
            Err(error) => tracing::warn!(%shard, %error, "cannot record hints"),
        }
        None
    }
}
