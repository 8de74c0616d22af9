//! Assigns items (journals, shards) to members (brokers, consumers) and converges etcd towards the assignment
//! (journal protocol §11.5–11.7).
//!
//! Every member runs [`run`]; the one that was announced first leads. At each revision of the mirror the leader derives
//! the state, solves anew if anything a solution depends on has changed, and executes one round of convergence as guarded
//! transactions. A process that only believes to lead cannot do harm: its transactions compare its own member key.
//!
//! The solver stands behind [`Solver`]. It must never decide how to get from here to there: that is convergence, which
//! keeps enough consistent assignments of each item at every step.

mod converge;
mod driver;
#[cfg(test)]
mod fixtures;
mod max_flow;
mod metrics;
mod room;
mod schema;
mod solver;
mod state;

pub use driver::{AllocError, run};
pub use max_flow::MaxFlowSolver;
pub use room::others_have_room;
pub use schema::Allocatable;
pub use solver::{Assignment, Problem, ProblemItem, ProblemMember, Solver};
