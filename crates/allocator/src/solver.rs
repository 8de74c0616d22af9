//! The interface of assignment solvers.
//!
//! A solver decides where assignments should be, and never how to get there.

use std::sync::Arc;

use proto::MemberId;

/// What is to be solved, in key order throughout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// Items by name.
    pub items: Vec<ProblemItem>,
    /// Members by id.
    pub members: Vec<ProblemMember>,
}

/// An item which wants assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemItem {
    /// Its name.
    pub id: Arc<str>,
    /// Members it should be assigned to; 0 is none.
    pub replication: u32,
    /// Members (by index) it is assigned to now, the primary first.
    pub current: Vec<usize>,
}

/// A member which takes assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemMember {
    /// Its zone and name.
    pub id: MemberId,
    /// Assignments it takes at most.
    pub limit: u32,
}

/// Which members each item should be assigned to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Pairs of item and member, sorted.
    pub pairs: Vec<(Arc<str>, MemberId)>,
}

impl Assignment {
    /// Members that `item` should be assigned to.
    pub fn of<'a>(&'a self, item: &'a str) -> impl Iterator<Item = &'a MemberId> {
        let begin = self.pairs.partition_point(|(id, _)| &**id < item);
        self.pairs[begin..].iter().take_while(move |(id, _)| &**id == item).map(|(_, member)| member)
    }
}

/// Solves for a desired assignment. Must be deterministic.
pub trait Solver: Send + Sync + 'static {
    /// An assignment which respects every limit and meets as much of the desired replication as it can.
    fn solve(&self, problem: &Problem) -> Assignment;
}
