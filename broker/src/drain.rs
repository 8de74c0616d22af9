//! Whether the journals of an exiting broker have somewhere to go.
//!
//! An exiting broker sheds its journals only as far as the others have room and enough of them remain (journal protocol
//! §11.5). Where that can never happen, as for the only broker of a cluster, waiting for a hand-over would be waiting
//! for ever: the broker then closes its spools, which the next process adopts, and leaves.

use allocator::Allocatable;
use proto::MemberId;

use crate::key_space::{JournalSchema, KeySpace};

/// What an exiting broker may hope for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// It has no assignment any more.
    Released,
    /// The other members, as they are now, can take all journals, of which so many are still here.
    HandOver(usize),
    /// The other members cannot take so many journals that are here.
    Stuck(usize),
}

/// What `me` may hope for.
pub fn prospect(key_space: &KeySpace, schema: &JournalSchema, me: &MemberId) -> Prospect {
    let assigned = key_space.assignments().keys().filter(|key| key.member == *me).count();
    let others = key_space.members().iter().filter(|(id, entry)| *id != me && !schema.exiting(&entry.value));
    let limits = others.map(|(_, entry)| schema.limit(&entry.value));
    let replications = key_space.items().values().map(|entry| schema.replication(&entry.value));
    match assigned {
        0 => Prospect::Released,
        assigned if fits(limits, replications) => Prospect::HandOver(assigned),
        assigned => Prospect::Stuck(assigned),
    }
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
