//! A key space in memory for tests: what etcd would do with the transactions of the allocator.

use std::collections::BTreeMap;
use std::fmt::Write;

use keyspace::{
    AssignmentKey, Compare, Entry, EtcdHeader, KeyName, KeyPrefix, KeySpace, Op, PutLease, Schema, Txn,
};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use proto::{Invalid, MemberId, Revision};
use runtime::Entropy;

use crate::schema::Allocatable;

/// Items are their replication; members are their limit and whether they are `exiting`. Assignments are consistent once
/// they are `ready`, as those of shards are one by one; or once all of an item have the [`route`] of all, as those of
/// journals are.
pub(crate) struct Plain;

pub(crate) struct PlainMember {
    limit: u32,
    exiting: bool,
}

fn number(text: &str) -> Result<u32, Invalid> {
    text.parse().map_err(|_| Invalid::new(format!("{text:?}; expected a number")))
}

fn text(value: &[u8]) -> Result<&str, Invalid> {
    std::str::from_utf8(value).map_err(Invalid::new)
}

impl Schema for Plain {
    type Item = u32;
    type Member = PlainMember;
    type Assignment = String;

    fn decode_item(&self, _: &str, value: &[u8]) -> Result<u32, Invalid> {
        number(text(value)?)
    }

    fn decode_member(&self, _: &MemberId, value: &[u8]) -> Result<PlainMember, Invalid> {
        let text = text(value)?;
        let (limit, exiting) = text.strip_suffix(" exiting").map_or((text, false), |limit| (limit, true));
        Ok(PlainMember { limit: number(limit)?, exiting })
    }

    fn decode_assignment(&self, _: &AssignmentKey, value: &[u8]) -> Result<String, Invalid> {
        Ok(text(value)?.to_owned())
    }

    fn endpoint(_: &PlainMember) -> &str {
        ""
    }
}

impl Allocatable for Plain {
    fn replication(&self, item: &u32) -> u32 {
        *item
    }

    fn limit(&self, member: &PlainMember) -> u32 {
        member.limit
    }

    fn exiting(&self, member: &PlainMember) -> bool {
        member.exiting
    }

    fn consistent(
        &self,
        _: &str,
        _: &AssignmentKey,
        value: &String,
        all: &[(&AssignmentKey, &String)],
    ) -> bool {
        let implied = route(all.iter().map(|(key, _)| *key));
        value == "ready" || all.iter().all(|(_, value)| **value == implied)
    }
}

/// Members and slots of an item's assignments.
fn route<'a>(keys: impl Iterator<Item = &'a AssignmentKey>) -> String {
    keys.map(|key| format!("{}:{}", key.member, key.slot)).collect::<Vec<_>>().join(" ")
}

/// A random test's configuration. Its seed is that of `COURANT_SEED`, else a new one. It is printed, so that a failure can
/// be repeated.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var_os("COURANT_SEED").map(|seed| seed.to_str().unwrap().parse().unwrap());
    let seed = given.unwrap_or_else(|| Entropy::system().u64());
    println!("repeat with COURANT_SEED={seed}");
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) fn prefix() -> KeyPrefix {
    KeyPrefix::parse("/p").unwrap()
}

/// `zone/name`.
pub(crate) fn id(text: &str) -> MemberId {
    let (zone, name) = text.split_once('/').unwrap();
    MemberId::new(zone, name).unwrap()
}

#[derive(Debug, Clone)]
struct Stored {
    value: String,
    create: i64,
    modified: i64,
    lease: i64,
}

/// Keys and their revisions.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    revision: i64,
    keys: BTreeMap<String, Stored>,
    leases: i64,
}

impl World {
    /// A world with these members (`zone/name`, limit), announced in this order, and items (name, replication).
    pub(crate) fn new(members: &[(&str, u32)], items: &[(&str, u32)]) -> World {
        let mut world = World::default();
        for (member, limit) in members {
            world.join(member, *limit);
        }
        for (item, replication) in items {
            world.item(item, *replication);
        }
        world
    }

    /// Announces a member under a lease of its own.
    pub(crate) fn join(&mut self, member: &str, limit: u32) {
        self.leases += 1;
        let lease = self.leases;
        self.put(&prefix().member(&id(member)), &limit.to_string(), lease);
    }

    /// A member asks to be relieved.
    pub(crate) fn exit(&mut self, member: &str) {
        let key = prefix().member(&id(member));
        let Stored { value, lease, .. } = self.keys[&key].clone();
        self.put(&key, &format!("{value} exiting"), lease);
    }

    /// A member's lease ends, with all keys under it.
    pub(crate) fn die(&mut self, member: &str) {
        let lease = self.keys[&prefix().member(&id(member))].lease;
        self.revision += 1;
        self.keys.retain(|_, stored| stored.lease != lease);
    }

    pub(crate) fn item(&mut self, item: &str, replication: u32) {
        self.put(&prefix().item(item), &replication.to_string(), 0);
    }

    pub(crate) fn remove_item(&mut self, item: &str) {
        self.revision += 1;
        self.keys.remove(&prefix().item(item));
    }

    /// Creates an assignment, or changes its value.
    pub(crate) fn assign(&mut self, item: &str, member: &str, slot: u32, value: &str) {
        let lease = self.keys.get(&prefix().member(&id(member))).map_or(0, |stored| stored.lease);
        let key = AssignmentKey { item: item.into(), member: id(member), slot };
        self.put(&prefix().assignment(&key), value, lease);
    }

    /// Makes every assignment consistent that `choose` picks: those of shards.
    pub(crate) fn make_ready(&mut self, mut choose: impl FnMut(&str) -> bool) {
        let waiting: Vec<String> = self
            .keys
            .iter()
            .filter(|(key, stored)| key.starts_with("/p/assign/") && stored.value != "ready" && choose(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in waiting {
            let lease = self.keys[&key].lease;
            self.put(&key, "ready", lease);
        }
    }

    /// Makes all assignments of every item consistent that `choose` picks: those of journals.
    pub(crate) fn make_routed(&mut self, mut choose: impl FnMut(&str) -> bool) {
        let space = self.space();
        for item in space.items().keys().filter(|item| choose(item)) {
            let keys: Vec<&AssignmentKey> = space.assignments_of(item).map(|(key, _)| key).collect();
            let route = route(keys.iter().copied());
            for (key, _) in space.assignments_of(item).filter(|(_, entry)| *entry.value != route) {
                self.assign(item, &key.member.to_string().replace('#', "/"), key.slot, &route);
            }
        }
    }

    fn put(&mut self, key: &str, value: &str, lease: i64) {
        self.revision += 1;
        let create = self.keys.get(key).map_or(self.revision, |stored| stored.create);
        let stored = Stored { value: value.to_owned(), create, modified: self.revision, lease };
        self.keys.insert(key.to_owned(), stored);
    }

    /// Runs a transaction; whether its comparisons held.
    pub(crate) fn apply(&mut self, txn: &Txn) -> bool {
        assert!(txn.compares.len() <= Txn::OPS_MAX && txn.then.len() <= Txn::OPS_MAX);
        let holds = txn.compares.iter().all(|compare| match compare {
            Compare::ModRevision { key, equals } => self.keys.get(key).map_or(0, |s| s.modified) == equals.0,
            Compare::CreateRevision { key, equals } => self.keys.get(key).map_or(0, |s| s.create) == equals.0,
            other => panic!("the allocator does not compare {other:?}"),
        });
        if !holds {
            return false;
        }
        let revision = self.revision;
        for op in &txn.then {
            self.revision = revision;
            match op {
                Op::Put { key, value, lease: PutLease::Id(lease) } => {
                    self.put(key, std::str::from_utf8(value).unwrap(), *lease);
                }
                Op::Delete { key } => assert!(self.keys.remove(key).is_some(), "{key} was compared"),
                other => panic!("the allocator does not do {other:?}"),
            }
        }
        self.revision = revision + 1;
        true
    }

    /// The mirror's picture.
    pub(crate) fn space(&self) -> KeySpace<Plain> {
        let header = EtcdHeader { revision: Revision(self.revision), ..EtcdHeader::default() };
        let (mut items, mut members, mut assignments) = (Vec::new(), Vec::new(), Vec::new());
        for (key, stored) in &self.keys {
            let raw = stored.value.as_bytes();
            match prefix().classify(key.as_bytes()).unwrap() {
                KeyName::Item(id) => {
                    let value = Plain.decode_item(&id, raw).unwrap();
                    items.push((id, entry(stored, value)));
                }
                KeyName::Member(id) => {
                    let value = Plain.decode_member(&id, raw).unwrap();
                    members.push((id, entry(stored, value)));
                }
                KeyName::Assignment(key) => {
                    let value = Plain.decode_assignment(&key, raw).unwrap();
                    assignments.push((key, entry(stored, value)));
                }
            }
        }
        KeySpace::from_parts(header, items, members, assignments)
    }

    /// Assignments, a line each: key and value.
    pub(crate) fn assignments(&self) -> String {
        let mut out = String::new();
        for (key, stored) in &self.keys {
            if let Some(key) = key.strip_prefix("/p/assign/") {
                writeln!(out, "{key} {}", stored.value).unwrap();
            }
        }
        out
    }

    /// Members whose assignments of an item are consistent.
    pub(crate) fn consistent(&self, item: &str) -> Vec<MemberId> {
        let space = self.space();
        let all: Vec<_> = space.assignments_of(item).map(|(key, entry)| (key, &*entry.value)).collect();
        let consistent = all.iter().filter(|(key, value)| Plain.consistent(item, key, value, &all));
        consistent.map(|(key, _)| key.member.clone()).collect()
    }

    /// Whether an item is assigned to a member.
    pub(crate) fn is_assigned(&self, item: &str, member: &MemberId) -> bool {
        let begin = format!("/p/assign/{item}#{member}#");
        self.keys.keys().any(|key| key.starts_with(&begin))
    }
}

fn entry<T>(stored: &Stored, value: T) -> Entry<T> {
    Entry {
        value: value.into(),
        mod_revision: Revision(stored.modified),
        create_revision: Revision(stored.create),
        lease: stored.lease,
        raw: stored.value.clone().into(),
    }
}

/// Transactions as text, without the prefix.
pub(crate) fn render(txns: &[Txn]) -> String {
    let mut out = String::new();
    for txn in txns {
        for compare in &txn.compares {
            match compare {
                Compare::ModRevision { key, equals } => writeln!(out, "if {} at {equals}", &key[3..]),
                Compare::CreateRevision { key, equals } => {
                    writeln!(out, "if {} created at {equals}", &key[3..])
                }
                other => writeln!(out, "if {other:?}"),
            }
            .unwrap();
        }
        for op in &txn.then {
            match op {
                Op::Put { key, value, lease: PutLease::Id(lease) } => {
                    let value = String::from_utf8_lossy(value);
                    writeln!(out, "  put {} = {value:?} under {lease}", &key[3..])
                }
                Op::Delete { key } => writeln!(out, "  delete {}", &key[3..]),
                other => writeln!(out, "  {other:?}"),
            }
            .unwrap();
        }
    }
    out
}
