//! Whether the shards of an exiting process have somewhere to go. Pure.
//!
//! An exiting process sheds its shards only as far as the others have room, and enough of them remain. Where that can
//! never happen, as for the only process of a group, waiting for a hand-over would be waiting for ever.

use allocator::Allocatable;
use proto::MemberId;

use crate::schema::{ConsumerSchema, KeySpace};

/// Whether it makes sense to wait: `me` has an assignment, and the other members which stay could take every shard.
pub fn is_worth_waiting(key_space: &KeySpace, schema: &ConsumerSchema, me: &MemberId) -> bool {
    let is_assigned = key_space.assignments().keys().any(|key| key.member == *me);
    let others = key_space.members().iter().filter(|(id, entry)| *id != me && !schema.exiting(&entry.value));
    let limits = others.map(|(_, entry)| schema.limit(&entry.value));
    let replications = key_space.items().values().map(|entry| schema.replication(&entry.value));
    is_assigned && fits(limits, replications)
}

/// Whether items of these replications can be assigned to members of these limits, each replica to another member.
fn fits(limits: impl Iterator<Item = u32>, replications: impl Iterator<Item = u32>) -> bool {
    let (members, room) =
        limits.fold((0u32, 0u64), |(count, room), limit| (count + 1, room + u64::from(limit)));
    let (widest, slots) =
        replications.fold((0, 0u64), |(widest, slots), r| (widest.max(r), slots + u64::from(r)));
    members >= widest && room >= slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_need_room_and_be_enough() {
        for (limits, replications, expected) in [
            (&[][..], &[1][..], false),
            (&[10], &[1, 1], true),
            (&[10], &[2], false),
            (&[10, 10], &[2, 1], true),
            (&[1, 1], &[2, 1], false),
        ] {
            assert_eq!(fits(limits.iter().copied(), replications.iter().copied()), expected, "{limits:?}");
        }
    }
}
