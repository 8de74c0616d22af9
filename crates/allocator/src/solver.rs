//! The interface of assignment solvers, and the balanced one.

use std::sync::Arc;

use proto::MemberId;

/// What is to be solved, in key order throughout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {}

/// Which members each item should be assigned to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Pairs of item and member, sorted.
    pub pairs: Vec<(Arc<str>, MemberId)>,
}

/// Solves for a desired assignment. Must be deterministic.
pub trait Solver: Send + Sync {
    /// An assignment which respects every limit and meets as much of the desired replication as it can.
    fn solve(&self, problem: &Problem) -> Assignment;
}

/// Balances assignments over members and zones, and moves as little as it can.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalancedSolver;

impl Solver for BalancedSolver {
    fn solve(&self, _problem: &Problem) -> Assignment {
        Assignment::default()
    }
}
