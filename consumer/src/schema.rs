//! What the keys of a consumer group mean: shard specifications, members and replica states (consumer protocol §1.1).
//!
//! Decoding is as lax as the protocol permits, since a process that refuses what its peers accept stalls the group when
//! it leads. Pure.

use allocator::Allocatable;
use keyspace::{AssignmentKey, Schema};
use proto::consumer::replica_status::Code;
use proto::consumer::{ConsumerSpec, ReplicaStatus, ShardSpec};
use proto::{Invalid, MemberId, Validate};

/// A snapshot of a group's part of etcd.
pub type KeySpace = keyspace::KeySpace<ConsumerSchema>;
/// The mirror of a group's part of etcd.
pub type Mirror = keyspace::Mirror<ConsumerSchema>;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerSchema {
    /// Upper bound of hot standbys of any shard.
    pub max_hot_standbys: u32,
}

fn decode<M: prost::Message + Default>(value: &[u8]) -> Result<M, Invalid> {
    M::decode(value).map_err(Invalid::new)
}

impl Schema for ConsumerSchema {
    type Item = ShardSpec;
    type Member = ConsumerSpec;
    type Assignment = ReplicaStatus;

    fn decode_item(&self, id: &str, value: &[u8]) -> Result<ShardSpec, Invalid> {
        let spec: ShardSpec = decode(value)?;
        spec.validate_stored()?;
        if spec.id != id {
            return Err(Invalid::new(format!("ShardSpec ID doesn't match item ID ({} vs {id})", spec.id)));
        }
        Ok(spec)
    }

    fn decode_member(&self, id: &MemberId, value: &[u8]) -> Result<ConsumerSpec, Invalid> {
        let spec: ConsumerSpec = decode(value)?;
        spec.validate()?;
        let found = spec.member_id()?;
        if found != *id {
            return Err(Invalid::new(format!("ConsumerSpec ID doesn't match Member ID ({found} vs {id})")));
        }
        Ok(spec)
    }

    fn decode_assignment(&self, _: &AssignmentKey, value: &[u8]) -> Result<ReplicaStatus, Invalid> {
        let status: ReplicaStatus = decode(value)?;
        status.validate()?;
        Ok(status)
    }

    fn endpoint(member: &ConsumerSpec) -> &str {
        member.endpoint()
    }
}

impl Allocatable for ConsumerSchema {
    fn replication(&self, spec: &ShardSpec) -> u32 {
        spec.desired_replication(self.max_hot_standbys)
    }

    fn limit(&self, member: &ConsumerSpec) -> u32 {
        member.shard_limit
    }

    fn exiting(&self, member: &ConsumerSpec) -> bool {
        member.exiting
    }

    fn consistent(
        &self,
        _: &str,
        _: &AssignmentKey,
        status: &ReplicaStatus,
        all: &[(&AssignmentKey, &ReplicaStatus)],
    ) -> bool {
        is_consistent(status.code(), all.iter().map(|(key, status)| (key.slot, status.code())))
    }
}

/// Whether a replica of this state counts towards its shard's replication, given the slots and states of all replicas.
/// A failed one does only if the primary failed too: then there is nothing better to wait for.
fn is_consistent(code: Code, mut all: impl Iterator<Item = (u32, Code)>) -> bool {
    match code {
        Code::Idle | Code::Backfill => false,
        Code::Standby | Code::Primary => true,
        Code::Failed => all.any(|(slot, code)| slot == 0 && code == Code::Failed),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    const SCHEMA: ConsumerSchema = ConsumerSchema { max_hot_standbys: 2 };

    #[test]
    fn consistency_follows_its_truth_table() {
        use Code::*;
        for (code, all, expected) in [
            (Idle, &[(0, Idle)][..], false),
            (Backfill, &[(0, Backfill)], false),
            (Standby, &[(1, Standby)], true),
            (Primary, &[(0, Primary)], true),
            (Failed, &[(0, Failed)], true),
            (Failed, &[(0, Primary), (1, Failed)], false),
            (Failed, &[(0, Failed), (1, Failed)], true),
            (Failed, &[(1, Failed)], false),
        ] {
            assert_eq!(is_consistent(code, all.iter().copied()), expected, "{code:?} of {all:?}");
        }
    }

    #[test]
    fn replication_is_capped() {
        let spec = |disable, hot_standbys| ShardSpec { disable, hot_standbys, ..ShardSpec::default() };
        assert_eq!(SCHEMA.replication(&spec(false, 0)), 1);
        assert_eq!(SCHEMA.replication(&spec(false, 9)), 3);
        assert_eq!(SCHEMA.replication(&spec(true, 9)), 0);
    }

    #[test]
    fn values_must_name_their_key() {
        let spec = ShardSpec {
            id: "shard-a".to_owned(),
            max_txn_duration: Some(proto::duration::from_nanos(1)),
            ..ShardSpec::default()
        };
        let value = spec.encode_to_vec();
        assert_eq!(SCHEMA.decode_item("shard-a", &value), Ok(spec));
        let error = SCHEMA.decode_item("shard-b", &value).unwrap_err();
        assert_eq!(error.to_string(), "ShardSpec ID doesn't match item ID (shard-a vs shard-b)");
        assert!(SCHEMA.decode_item("shard-a", b"\xff\xff").is_err());
    }

    proptest::proptest! {
        #[test]
        fn other_bytes_are_an_error_and_no_panic(value: Vec<u8>) {
            let id = MemberId::new("zone", "suffix").unwrap();
            let key = AssignmentKey { item: "shard-a".into(), member: id.clone(), slot: 0 };
            let _ = SCHEMA.decode_item("shard-a", &value);
            let _ = SCHEMA.decode_member(&id, &value);
            let _ = SCHEMA.decode_assignment(&key, &value);
        }
    }
}
