//! Which shards this process must start, promote, replace or stop, given what it runs and what it is assigned
//! (consumer protocol §5.1). Pure: the owner of the shards executes the changes.
//!
//! An assignment is identified by the revision which created its key. A promotion moves the key, so a lower slot keeps
//! the shard although the identity changes; any other new identity means that the assignment was deleted and made again
//! between two looks, and whatever ran under the old one must not go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::Revision;

/// An assignment of a shard to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Zero is the primary.
    pub slot: u32,
    /// Revision at which the assignment key was created.
    pub create_revision: Revision,
}

/// What to do about one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Run a new shard.
    Start(Assigned),
    /// Keep the shard; it moved to a lower slot.
    Promote(Assigned),
    /// Keep the shard; its specification or status may have changed.
    Refresh,
    /// Stop the shard which runs, and run a new one.
    Replace(Assigned),
    /// Stop the shard.
    Stop,
}

/// Changes which lead from the shards that run to those which are assigned, in the order of shard ids.
pub fn changes(
    running: &BTreeMap<Arc<str>, Assigned>,
    assigned: &BTreeMap<Arc<str>, Assigned>,
) -> Vec<(Arc<str>, Change)> {
    let stops = running.keys().filter(|id| !assigned.contains_key(*id)).map(|id| (id.clone(), Change::Stop));
    let kept = assigned.iter().map(|(id, now)| {
        let change = match running.get(id) {
            None => Change::Start(*now),
            Some(was) if now.slot < was.slot => Change::Promote(*now),
            Some(was) if now.create_revision == was.create_revision => Change::Refresh,
            Some(_) => Change::Replace(*now),
        };
        (id.clone(), change)
    });
    let mut all: Vec<_> = stops.chain(kept).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(entries: &[(&str, u32, i64)]) -> BTreeMap<Arc<str>, Assigned> {
        let assigned = |slot, created| Assigned { slot, create_revision: Revision(created) };
        entries.iter().map(|(id, slot, created)| (Arc::from(*id), assigned(*slot, *created))).collect()
    }

    fn check(running: &[(&str, u32, i64)], assigned: &[(&str, u32, i64)], expected: &[(&str, Change)]) {
        let found = changes(&set(running), &set(assigned));
        let found: Vec<_> = found.iter().map(|(id, change)| (&**id, *change)).collect();
        assert_eq!(found, expected);
    }

    fn at(slot: u32, created: i64) -> Assigned {
        Assigned { slot, create_revision: Revision(created) }
    }

    #[test]
    fn a_new_assignment_starts_a_shard() {
        check(
            &[],
            &[("shard-1", 0, 5), ("shard-2", 1, 6)],
            &[("shard-1", Change::Start(at(0, 5))), ("shard-2", Change::Start(at(1, 6)))],
        );
    }

    #[test]
    fn a_lower_slot_promotes_although_the_key_was_created_anew() {
        check(&[("shard-1", 1, 5)], &[("shard-1", 0, 9)], &[("shard-1", Change::Promote(at(0, 9)))]);
        check(&[("shard-1", 2, 5)], &[("shard-1", 1, 9)], &[("shard-1", Change::Promote(at(1, 9)))]);
    }

    #[test]
    fn the_same_assignment_refreshes() {
        check(&[("shard-1", 0, 5)], &[("shard-1", 0, 5)], &[("shard-1", Change::Refresh)]);
    }

    #[test]
    fn an_assignment_deleted_and_made_again_replaces_the_shard() {
        check(&[("shard-1", 0, 5)], &[("shard-1", 0, 9)], &[("shard-1", Change::Replace(at(0, 9)))]);
        check(&[("shard-1", 0, 5)], &[("shard-1", 1, 9)], &[("shard-1", Change::Replace(at(1, 9)))]);
    }

    #[test]
    fn a_lost_assignment_stops_the_shard_and_order_is_by_id() {
        check(
            &[("shard-2", 0, 5), ("shard-4", 0, 5)],
            &[("shard-1", 0, 8), ("shard-4", 0, 5)],
            &[("shard-1", Change::Start(at(0, 8))), ("shard-2", Change::Stop), ("shard-4", Change::Refresh)],
        );
    }
}
