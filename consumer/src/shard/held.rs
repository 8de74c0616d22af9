//! The assignment by which this process holds a shard, as etcd has it now. Pure.

use std::sync::Arc;

use keyspace::{AssignmentKey, Compare};
use proto::consumer::ReplicaStatus;
use proto::consumer::replica_status::Code;
use proto::{MemberId, Revision};

use super::local_set::Assigned;
use crate::schema::KeySpace;

/// An assignment of this process.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its key.
    pub key: AssignmentKey,
    /// Revision at which the key was created.
    pub create_revision: Revision,
    /// Revision of its last write.
    pub mod_revision: Revision,
    /// What was reported last.
    pub status: Arc<ReplicaStatus>,
}

impl Held {
    /// The assignment of `shard` to `me` in the lowest slot.
    pub fn find(key_space: &KeySpace, me: &MemberId, shard: &str) -> Option<Held> {
        let mine = key_space.assignments_of(shard).filter(|(key, _)| key.member == *me);
        mine.min_by_key(|(key, _)| key.slot).map(|(key, entry)| Held {
            key: key.clone(),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            status: Arc::clone(&entry.value),
        })
    }

    /// Its place among the shards that run.
    pub fn assigned(&self) -> Assigned {
        Assigned { slot: self.key.slot, create_revision: self.create_revision }
    }

    /// Holds as long as the assignment does; `key` is its etcd key.
    pub fn still_held(&self, key: String) -> Compare {
        Compare::CreateRevision { key, equals: self.create_revision }
    }

    /// Holds as long as nothing else was reported; `key` is its etcd key.
    pub fn unchanged(&self, key: String) -> Compare {
        Compare::ModRevision { key, equals: self.mod_revision }
    }
}

/// The member which served a shard as of `before`, if it is still there `now`: it may be about to end its last
/// transaction.
pub fn predecessor(before: &KeySpace, now: &KeySpace, shard: &str) -> Option<MemberId> {
    let (key, entry) = before.assignments_of(shard).find(|(key, _)| key.slot == 0)?;
    let is_there = entry.value.code() == Code::Primary && now.members().contains_key(&key.member);
    is_there.then(|| key.member.clone())
}
