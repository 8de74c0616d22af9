//! Small key spaces for the unit tests of this crate.

use std::sync::Arc;

use bytes::Bytes;
use keyspace::{AssignmentKey, Entry, EtcdHeader};
use proto::consumer::replica_status::Code;
use proto::consumer::{ConsumerSpec, ReplicaStatus, ShardSpec};
use proto::protocol::{LabelSet, ProcessSpec};
use proto::{MemberId, Revision};

use crate::schema::KeySpace;
use crate::shard::status;

/// Revision of every test key space.
pub(crate) const REVISION: Revision = Revision(90);

/// A member of zone `zone`.
pub(crate) fn member(suffix: &str) -> MemberId {
    MemberId::new("zone", &format!("process-{suffix}")).unwrap()
}

/// A shard with one label, `kind`, and one source.
pub(crate) fn shard_spec(id: &str, kind: &str) -> ShardSpec {
    ShardSpec {
        id: id.to_owned(),
        labels: Some(LabelSet::from_pairs([("kind", kind)])),
        max_txn_duration: Some(proto::duration::from_nanos(1)),
        ..ShardSpec::default()
    }
}

fn entry<T>(value: T, revision: i64) -> Entry<T> {
    let (mod_revision, create_revision) = (Revision(revision), Revision(revision - 1));
    Entry { value: Arc::new(value), mod_revision, create_revision, lease: 0, raw: Bytes::new() }
}

/// A key space with members `me` and `peer`, these shards as `(id, kind)`, and these replicas as
/// `(shard, member, slot, code)`. Revisions are 10, 11, … in the order given.
pub(crate) fn key_space(shards: &[(&str, &str)], replicas: &[(&str, &str, u32, Code)]) -> KeySpace {
    let header = EtcdHeader { cluster_id: 7, member_id: 8, revision: REVISION, raft_term: 1 };
    let process = |suffix: &str| {
        let process_spec = Some(ProcessSpec::new(&member(suffix), format!("http://{suffix}:80")));
        (member(suffix), entry(ConsumerSpec { process_spec, shard_limit: 5, exiting: false }, 5))
    };
    let mut revision = 9;
    let mut next = || {
        revision += 1;
        revision
    };
    let items: Vec<_> =
        shards.iter().map(|(id, kind)| (Arc::from(*id), entry(shard_spec(id, kind), next()))).collect();
    let assignments: Vec<_> = replicas
        .iter()
        .map(|(id, suffix, slot, code)| {
            let key = AssignmentKey { item: (*id).into(), member: member(suffix), slot: *slot };
            let status =
                if *code == Code::Failed { status::failed("broken") } else { ReplicaStatus::new(*code) };
            (key, entry(status, next()))
        })
        .collect();
    KeySpace::from_parts(header, items, [process("me"), process("peer")], assignments)
}
