//! What brokers keep in etcd: journals (items), brokers (members) and assignments.
//!
//! Decoding follows journal protocol §11.1. It must not be stricter than the protocol: a broker which refuses what its
//! peers accept takes their journals for deleted ones. A journal is consistent once every assignment value holds the
//! route which the assignment keys imply.

use allocator::Allocatable;
use keyspace::{AssignmentKey, Schema};
use prost::Message;
use proto::protocol::{BrokerSpec, JournalSpec, Route};
use proto::{Invalid, MemberId, Validate};

/// A snapshot of the brokers' part of etcd.
pub type KeySpace = keyspace::KeySpace<JournalSchema>;
/// The mirror of the brokers' part of etcd.
pub type Mirror = keyspace::Mirror<JournalSchema>;

/// The prefix of keys unless another is configured.
pub const DEFAULT_PREFIX: &str = "/gazette/cluster";

/// How the keys of brokers are decoded, and what the allocator reads in them.
#[derive(Debug, Clone, Copy)]
pub struct JournalSchema {
    /// Upper bound of every journal's replication.
    pub max_replication: u32,
}

fn decode<M: Message + Default>(value: &[u8]) -> Result<M, Invalid> {
    M::decode(value).map_err(|e| Invalid::new(e).within("protobuf"))
}

impl Schema for JournalSchema {
    type Item = JournalSpec;
    type Member = BrokerSpec;
    type Assignment = Route;

    fn decode_item(&self, id: &str, value: &[u8]) -> Result<JournalSpec, Invalid> {
        let spec: JournalSpec = decode(value)?;
        spec.validate_stored()?;
        if spec.name != id {
            return Err(Invalid::new(format!(
                "JournalSpec Name doesn't match Item ID ({} vs {id})",
                spec.name
            )));
        }
        Ok(spec)
    }

    fn decode_member(&self, id: &MemberId, value: &[u8]) -> Result<BrokerSpec, Invalid> {
        let spec: BrokerSpec = decode(value)?;
        spec.validate()?;
        let own = spec.member_id()?;
        if own != *id {
            return Err(Invalid::new(format!("BrokerSpec ID doesn't match Member key ({own} vs {id})")));
        }
        Ok(spec)
    }

    fn decode_assignment(&self, _key: &AssignmentKey, value: &[u8]) -> Result<Route, Invalid> {
        let route: Route = decode(value)?;
        route.validate()?;
        Ok(route)
    }

    fn endpoint(member: &BrokerSpec) -> &str {
        member.endpoint()
    }
}

impl Allocatable for JournalSchema {
    fn replication(&self, item: &JournalSpec) -> u32 {
        let max = i32::try_from(self.max_replication).unwrap_or(i32::MAX);
        u32::try_from(item.desired_replication(max)).unwrap_or(0)
    }

    fn limit(&self, member: &BrokerSpec) -> u32 {
        member.journal_limit
    }

    fn exiting(&self, member: &BrokerSpec) -> bool {
        member.exiting
    }

    fn consistent(
        &self,
        _id: &str,
        _key: &AssignmentKey,
        _value: &Route,
        all: &[(&AssignmentKey, &Route)],
    ) -> bool {
        // All or nothing: a journal whose replicas disagree about its route is not consistent in any of them.
        let implied = implied_route(all.iter().map(|(key, _)| *key));
        all.iter().all(|(_, value)| value.equivalent(&implied))
    }
}

/// The route which assignment keys of one journal imply, in key order, without endpoints.
pub fn implied_route<'a>(keys: impl Iterator<Item = &'a AssignmentKey>) -> Route {
    let mut route = Route::unrouted();
    for (index, key) in keys.enumerate() {
        if key.slot == 0 {
            route.primary = i32::try_from(index).unwrap_or(-1);
        }
        route.members.push(key.member.to_proto());
    }
    route
}

#[cfg(test)]
mod tests {
    use proto::protocol::ProcessSpec;

    use super::*;
    use crate::fixtures::{journal_spec, member};

    const SCHEMA: JournalSchema = JournalSchema { max_replication: 2 };

    fn key(suffix: &str, slot: u32) -> AssignmentKey {
        AssignmentKey { item: "a/journal".into(), member: member(suffix), slot }
    }

    #[test]
    fn items_and_members_must_match_their_keys() {
        let spec = journal_spec("a/journal");
        let value = spec.encode_to_vec();
        assert_eq!(SCHEMA.decode_item("a/journal", &value).unwrap(), spec);
        let error = SCHEMA.decode_item("other", &value).unwrap_err().to_string();
        assert_eq!(error, "JournalSpec Name doesn't match Item ID (a/journal vs other)");
        assert!(SCHEMA.decode_item("a/journal", b"\xff").is_err());

        let broker = BrokerSpec {
            process_spec: Some(ProcessSpec::new(&member("one"), "http://host:1")),
            journal_limit: 7,
            exiting: false,
        };
        let value = broker.encode_to_vec();
        assert_eq!(SCHEMA.decode_member(&member("one"), &value).unwrap(), broker);
        assert!(SCHEMA.decode_member(&member("two"), &value).is_err());
    }

    #[test]
    fn assignments_are_valid_routes() {
        let route = implied_route([key("one", 0)].iter());
        assert_eq!(SCHEMA.decode_assignment(&key("one", 0), &route.encode_to_vec()).unwrap(), route);
        let misplaced = Route { primary: 1, ..route };
        assert!(SCHEMA.decode_assignment(&key("one", 0), &misplaced.encode_to_vec()).is_err());
    }

    #[test]
    fn replication_is_capped_and_follows_suspension() {
        let mut spec = journal_spec("a/journal");
        spec.replication = 3;
        assert_eq!(SCHEMA.replication(&spec), 2);
        spec.suspend = Some(proto::protocol::journal_spec::Suspend { level: 2, offset: 0 });
        assert_eq!(SCHEMA.replication(&spec), 0);
    }

    #[test]
    fn a_journal_is_consistent_when_every_value_is_the_implied_route() {
        let keys = [key("one", 1), key("two", 0)];
        let route = implied_route(keys.iter());
        assert_eq!((route.primary, route.members.len()), (1, 2));
        let stale = implied_route(keys[1..].iter());
        for (values, expected) in
            [([&route, &route], true), ([&route, &stale], false), ([&stale, &stale], false)]
        {
            let all: Vec<_> = keys.iter().zip(values).collect();
            assert_eq!(SCHEMA.consistent("a/journal", &keys[0], values[0], &all), expected);
        }
    }
}
