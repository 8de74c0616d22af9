//! What the allocator must know about items, members and assignments.

use keyspace::{AssignmentKey, Schema};

/// A key space whose items can be assigned to its members.
pub trait Allocatable: Schema {
    /// How many members an item should be assigned to; 0 is none.
    fn replication(&self, item: &Self::Item) -> u32;

    /// How many assignments a member takes at most.
    fn limit(&self, member: &Self::Member) -> u32;

    /// Whether a member asked to be relieved of its assignments.
    fn exiting(&self, member: &Self::Member) -> bool;

    /// Whether one assignment of an item is consistent: it could take over, given `all` current assignments of the item
    /// in key order. An assignment is only taken away while enough consistent ones stay.
    fn consistent(
        &self,
        item: &str,
        key: &AssignmentKey,
        value: &Self::Assignment,
        all: &[(&AssignmentKey, &Self::Assignment)],
    ) -> bool;
}
