//! Whether the shards of an exiting process have somewhere to go. Pure.
//!
//! An exiting process sheds its shards only as far as the others have room, and enough of them remain. Where that can
//! never happen, as for the only process of a group, waiting for a hand-over would be waiting for ever.

use proto::MemberId;

use crate::schema::{ConsumerSchema, KeySpace};

/// Whether it makes sense to wait: `me` has an assignment, and the other members which stay could take every shard.
pub fn is_worth_waiting(key_space: &KeySpace, schema: &ConsumerSchema, me: &MemberId) -> bool {
    let is_assigned = key_space.assignments().keys().any(|key| key.member == *me);
    is_assigned && allocator::others_have_room(key_space, schema, me)
}
