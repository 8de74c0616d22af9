//! Whether the journals of an exiting broker have somewhere to go.
//!
//! An exiting broker sheds its journals only as far as the others have room and enough of them remain (journal protocol
//! §11.5). Where that can never happen, as for the only broker of a cluster, waiting for a hand-over would be waiting
//! for ever: the broker then closes its spools, which the next process adopts, and leaves.

use allocator::Allocatable;
use proto::MemberId;

use crate::key_space::{JournalSchema, KeySpace};

/// Whether the other members, as they are now, could take every journal that `me` is assigned.
pub fn could_hand_over(key_space: &KeySpace, schema: &JournalSchema, me: &MemberId) -> bool {
    let others = key_space.members().iter().filter(|(id, entry)| *id != me && !schema.exiting(&entry.value));
    let (others, room) = others.fold((0u64, 0u64), |(count, room), (_, entry)| {
        (count + 1, room + u64::from(schema.limit(&entry.value)))
    });
    let replications = || key_space.items().values().map(|entry| u64::from(schema.replication(&entry.value)));
    others >= replications().max().unwrap_or(0) && room >= replications().sum()
}

/// Whether `me` has an assignment, of a journal that exists or not.
pub fn is_assigned(key_space: &KeySpace, me: &MemberId) -> bool {
    key_space.assignments().keys().any(|key| key.member == *me)
}
