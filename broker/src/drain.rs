//! Whether the journals of an exiting broker have somewhere to go.
//!
//! An exiting broker sheds its journals only as far as the others have room and enough of them remain (journal protocol
//! §11.5). Where that can never happen, as for the only broker of a cluster, waiting for a hand-over would be waiting
//! for ever: the broker then closes its spools, which the next process adopts, and leaves.

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
    match key_space.assignments().keys().filter(|key| key.member == *me).count() {
        0 => Prospect::Released,
        assigned if allocator::others_have_room(key_space, schema, me) => Prospect::HandOver(assigned),
        assigned => Prospect::Stuck(assigned),
    }
}
