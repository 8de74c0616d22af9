//! Whether the items of a member that leaves have somewhere to go. Pure.

use keyspace::KeySpace;
use proto::MemberId;

use crate::schema::Allocatable;

/// Whether the members other than `me` which stay could take every item, as far as their limits and their number tell.
pub fn others_have_room<S: Allocatable>(key_space: &KeySpace<S>, schema: &S, me: &MemberId) -> bool {
    let others = key_space.members().iter().filter(|(id, entry)| *id != me && !schema.exiting(&entry.value));
    let limits = others.map(|(_, entry)| schema.limit(&entry.value));
    let replications = key_space.items().values().map(|entry| schema.replication(&entry.value));
    fits(limits, replications)
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
            (&[], &[0], true),
            (&[10], &[1, 1], true),
            (&[10], &[2], false),
            (&[10, 10], &[2, 1], true),
            (&[1, 1], &[2, 1], false),
        ] {
            assert_eq!(fits(limits.iter().copied(), replications.iter().copied()), expected, "{limits:?}");
        }
    }
}
