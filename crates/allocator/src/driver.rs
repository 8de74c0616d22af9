//! The loop around the pure parts: one round at each revision of the mirror, executed by the leader alone.

use std::sync::Arc;
use std::time::Duration;

use keyspace::{EtcdError, KeySpace, Mirror, WhyStopped};
use proto::{MemberId, Revision};
use runtime::backoff::Backoff;
use runtime::{Clock, Metrics, TaskGroup};

use crate::converge::converge;
use crate::metrics::AllocatorMetrics;
use crate::schema::Allocatable;
use crate::solver::{Assignment, Solver};
use crate::state::{State, leader_of};

/// Waits after failures of etcd.
const RETRY: &[Duration] = &[Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

/// Why the allocator stopped.
#[derive(Debug, thiserror::Error)]
pub enum AllocError {
    /// Our own member key is gone, or somebody made it unreadable: the lease was lost, or the key was written by others.
    #[error("member key not found in Etcd: {0}")]
    MemberNotFound(MemberId),
    /// The mirror stopped.
    #[error("{0}")]
    MirrorStopped(WhyStopped),
}

/// Runs the allocator of the member `me`: leads when this member is the leader, and returns `Ok` when this member is
/// exiting and holds no assignment, or when `tasks` are cancelled. Solutions are computed in blocking tasks of that group.
///
/// # Errors
/// See [`AllocError`].
pub async fn run<S: Allocatable>(
    mirror: Mirror<S>,
    me: MemberId,
    solver: Arc<dyn Solver>,
    clock: Clock,
    metrics: Metrics,
    tasks: TaskGroup,
) -> Result<(), AllocError> {
    let mut revisions = mirror.subscribe();
    let stop = tasks.token().clone();
    let mut leader = Leader {
        metrics: AllocatorMetrics::register(&metrics),
        mirror,
        solver,
        solved: None,
        clock: clock.clone(),
        tasks,
    };
    let mut backoff = Backoff::new(RETRY);
    loop {
        let space = revisions.borrow_and_update().clone();
        let is_damaged = space.is_undecodable(&leader.mirror.member_key(&me));
        let own = space.members().get(&me).filter(|_| !is_damaged);
        let own = own.ok_or_else(|| AllocError::MemberNotFound(me.clone()))?;
        let is_exiting = leader.mirror.schema().exiting(&own.value);
        if is_exiting && space.assignments().keys().all(|key| key.member != me) {
            return Ok(());
        }
        if leader_of(&space).is_some_and(|first| *first == me) {
            let round = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                round = leader.lead(&space) => round?,
            };
            match round {
                Round::Moved => {
                    backoff.reset();
                    continue;
                }
                Round::Quiet => backoff.reset(),
                Round::Failed(error) => {
                    tracing::warn!(%error, "converge iteration failed (will retry)");
                    let retry = async {
                        clock.sleep(backoff.next()).await;
                        leader.catch_up(&me).await
                    };
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return Ok(()),
                        caught_up = retry => caught_up?,
                    }
                    continue;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            changed = revisions.changed() => changed.map_err(|_| leader.mirror_stopped())?,
        }
    }
}

/// How a round of the leader ended.
enum Round {
    /// Something changed, and the mirror shows it.
    Moved,
    /// There was nothing to do, or a comparison failed. In the latter case the mirror is behind, and its next revision
    /// starts another round.
    Quiet,
    /// etcd failed. Whether it did what was asked is not known.
    Failed(EtcdError),
}

/// What the leader remembers between rounds.
struct Leader<S: Allocatable> {
    mirror: Mirror<S>,
    solver: Arc<dyn Solver>,
    /// The last solution, and the digest of what it was computed from.
    solved: Option<(u64, Assignment)>,
    metrics: AllocatorMetrics,
    clock: Clock,
    tasks: TaskGroup,
}

impl<S: Allocatable> Leader<S> {
    /// One round, until the mirror shows what it did.
    async fn lead(&mut self, space: &KeySpace<S>) -> Result<Round, AllocError> {
        match self.round(space).await {
            Ok(Some(through)) => {
                self.mirror.wait_for(through).await.map_err(|_| self.mirror_stopped())?;
                Ok(Round::Moved)
            }
            Ok(None) => Ok(Round::Quiet),
            Err(error) => Ok(Round::Failed(error)),
        }
    }

    /// Waits until the mirror shows all that etcd has now, so that the next round begins with what a failed one may
    /// have done. If etcd fails again, the next round will find out.
    async fn catch_up(&self, me: &MemberId) -> Result<(), AllocError> {
        match self.mirror.etcd().range(&self.mirror.member_key(me), Revision::NONE).await {
            Ok((_, header)) => {
                self.mirror.wait_for(header.revision).await.map_err(|_| self.mirror_stopped())?;
            }
            Err(error) => tracing::debug!(%error, "cannot ask etcd for its revision"),
        }
        Ok(())
    }

    fn mirror_stopped(&self) -> AllocError {
        AllocError::MirrorStopped(self.mirror.why_stopped())
    }

    /// One round: the revision that its transactions brought about, if they did.
    async fn round(&mut self, space: &KeySpace<S>) -> Result<Option<Revision>, EtcdError> {
        let mut state = State::derive(space, self.mirror.schema());
        self.metrics.sizes(&state);
        let digest = state.digest();
        if self.solved.as_ref().is_none_or(|(of, _)| *of != digest) {
            let began = self.clock.now();
            let (solver, problem) = (Arc::clone(&self.solver), state.problem(space));
            // Large problems take long enough to hold up others of this thread, keep-alives among them.
            let solution = self.tasks.spawn_blocking("solve", move || solver.solve(&problem)).await;
            self.metrics.solved(self.clock.now() - began);
            report(&state, &solution);
            self.solved = Some((digest, solution));
        }
        let (_, desired) = self.solved.as_ref().expect("a solution was just made if there was none");
        let (txns, counts) = converge(space, self.mirror.schema(), self.mirror.prefix(), &mut state, desired);
        if txns.is_empty() {
            return Ok(None);
        }
        self.metrics.converge(counts);
        let mut through = None;
        for txn in txns {
            let outcome = self.mirror.etcd().txn(txn).await?;
            if !outcome.succeeded {
                tracing::debug!("a comparison of the converge transaction failed (will retry)");
                return Ok(through);
            }
            through = Some(outcome.header.revision);
        }
        Ok(through)
    }
}

fn report(state: &State, solution: &Assignment) {
    let (wanted, placed) = (state.item_slots(), solution.pairs.len() as u64);
    let (items, members) = (state.items.len(), state.members.len());
    tracing::info!(items, members, wanted, placed, "solved for maximum assignment");
    if placed < wanted {
        tracing::warn!(items, members, wanted, placed, "cannot reach desired replication for all items");
    }
}
