//! The decoded key space as of one revision, and how changes are applied to it.
//!
//! Pure. A [`KeySpace`] is a set of persistent maps, so a copy costs nothing and a batch of changes costs what it
//! changes. Applying follows the journal protocol §11.1: a key that does not decode is absent if it was absent, and keeps
//! its previous value and revision if it was known, until a value that decodes or a deletion arrives. Such keys are
//! remembered, since a key which exists but cannot be read must not be taken for one that does not exist.

use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;
use proto::protocol::Route;
use proto::{Invalid, MemberId, Revision};

use crate::keys::{AssignmentKey, KeyName, KeyPrefix};
use crate::txn::EtcdHeader;

/// What the values of a key space mean. Decoding must check what the spec of the value checks, that the value names
/// the key it stands under, and nothing more: a process that refuses what its peers accept stalls the cluster when it
/// leads (journal protocol §11.1).
pub trait Schema: Send + Sync + 'static {
    /// A journal or shard specification.
    type Item: Send + Sync;
    /// A process specification.
    type Member: Send + Sync;
    /// The state of an assignment.
    type Assignment: Send + Sync + Default;

    /// Decodes the value of `P/items/<id>`.
    ///
    /// # Errors
    /// If the value is malformed, or names another item.
    fn decode_item(&self, id: &str, value: &[u8]) -> Result<Self::Item, Invalid>;

    /// Decodes the value of `P/members/<id>`.
    ///
    /// # Errors
    /// If the value is malformed, or names another member.
    fn decode_member(&self, id: &MemberId, value: &[u8]) -> Result<Self::Member, Invalid>;

    /// Decodes the value of `P/assign/<key>`. The empty value, which new assignments have, is the default.
    ///
    /// # Errors
    /// If the value is malformed.
    fn decode_assignment(&self, key: &AssignmentKey, value: &[u8]) -> Result<Self::Assignment, Invalid>;

    /// The endpoint that a member advertises.
    fn endpoint(member: &Self::Member) -> &str;
}

/// A decoded value and the state of its key.
#[derive(Debug)]
pub struct Entry<T> {
    /// The decoded value.
    pub value: Arc<T>,
    /// Revision of the write that is shown.
    pub mod_revision: Revision,
    /// Revision at which the key came into being.
    pub create_revision: Revision,
    /// The lease of the key; 0 is none.
    pub lease: i64,
    /// The value as written.
    pub raw: Bytes,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Entry {
            value: Arc::clone(&self.value),
            mod_revision: self.mod_revision,
            create_revision: self.create_revision,
            lease: self.lease,
            raw: self.raw.clone(),
        }
    }
}

/// Everything under a prefix, decoded, as of [`KeySpace::revision`]. Immutable once published; cheap to clone.
pub struct KeySpace<S: Schema> {
    header: EtcdHeader,
    loads: u64,
    items: OrdMap<Arc<str>, Entry<S::Item>>,
    members: OrdMap<MemberId, Entry<S::Member>>,
    assignments: OrdMap<AssignmentKey, Entry<S::Assignment>>,
    /// Raw keys whose newest value does not decode, and whether an older value of theirs is shown.
    undecodable: OrdMap<Bytes, bool>,
}

impl<S: Schema> Clone for KeySpace<S> {
    fn clone(&self) -> Self {
        KeySpace {
            header: self.header,
            loads: self.loads,
            items: self.items.clone(),
            members: self.members.clone(),
            assignments: self.assignments.clone(),
            undecodable: self.undecodable.clone(),
        }
    }
}

impl<S: Schema> KeySpace<S> {
    /// A key space without keys.
    pub fn empty(header: EtcdHeader) -> KeySpace<S> {
        KeySpace {
            header,
            loads: 0,
            items: OrdMap::new(),
            members: OrdMap::new(),
            assignments: OrdMap::new(),
            undecodable: OrdMap::new(),
        }
    }

    /// A key space of these entries, for tests of what is decided on one.
    pub fn from_parts(
        header: EtcdHeader,
        items: impl IntoIterator<Item = (Arc<str>, Entry<S::Item>)>,
        members: impl IntoIterator<Item = (MemberId, Entry<S::Member>)>,
        assignments: impl IntoIterator<Item = (AssignmentKey, Entry<S::Assignment>)>,
    ) -> KeySpace<S> {
        KeySpace {
            items: items.into_iter().collect(),
            members: members.into_iter().collect(),
            assignments: assignments.into_iter().collect(),
            ..KeySpace::empty(header)
        }
    }

    /// Who answered last, with the effective revision: the highest at which a key under the prefix changed
    /// (journal protocol §11.3).
    pub fn header(&self) -> EtcdHeader {
        self.header
    }

    /// The effective revision.
    pub fn revision(&self) -> Revision {
        self.header.revision
    }

    /// How often the key space was read anew because history was compacted away. Two snapshots of the same count are
    /// connected by the changes between them; of different counts, changes may have been missed.
    pub fn loads(&self) -> u64 {
        self.loads
    }

    /// Items by name.
    pub fn items(&self) -> &OrdMap<Arc<str>, Entry<S::Item>> {
        &self.items
    }

    /// Members by id.
    pub fn members(&self) -> &OrdMap<MemberId, Entry<S::Member>> {
        &self.members
    }

    /// Assignments in key order.
    pub fn assignments(&self) -> &OrdMap<AssignmentKey, Entry<S::Assignment>> {
        &self.assignments
    }

    /// Assignments of one item, in key order.
    pub fn assignments_of<'a>(
        &'a self,
        item: &'a str,
    ) -> impl Iterator<Item = (&'a AssignmentKey, &'a Entry<S::Assignment>)> {
        self.assignments.range(AssignmentKey::first_of(item)..).take_while(move |(key, _)| &*key.item == item)
    }

    /// The route of an item: assigned members in key order, which of them is primary (−1 is none), and the endpoint of
    /// each, empty where the member is unknown (journal protocol §4.1).
    pub fn route(&self, item: &str) -> Route {
        let mut route = Route { members: Vec::new(), primary: -1, endpoints: Vec::new() };
        for (index, (key, _)) in self.assignments_of(item).enumerate() {
            if key.slot == 0 {
                route.primary = i32::try_from(index).unwrap_or(-1);
            }
            let member = self.members.get(&key.member);
            let endpoint = member.map(|m| S::endpoint(&m.value).to_owned()).unwrap_or_default();
            route.members.push(key.member.to_proto());
            route.endpoints.push(endpoint);
        }
        route
    }

    /// Marks a key as one whose newest value does not decode, in a key space made by [`KeySpace::from_parts`].
    #[must_use]
    pub fn with_undecodable(mut self, prefix: &KeyPrefix, key: &str) -> KeySpace<S> {
        let shown = match prefix.classify(key.as_bytes()) {
            Ok(KeyName::Item(id)) => self.items.contains_key(&id),
            Ok(KeyName::Member(id)) => self.members.contains_key(&id),
            Ok(KeyName::Assignment(key)) => self.assignments.contains_key(&key),
            Err(_) => false,
        };
        self.undecodable.insert(Bytes::copy_from_slice(key.as_bytes()), shown);
        self
    }

    /// Whether the newest value of a key does not decode. If an older value is shown, comparisons with its revision
    /// fail until the key is repaired.
    pub fn is_undecodable(&self, key: &str) -> bool {
        self.undecodable.contains_key(key.as_bytes())
    }

    /// Whether an item exists in etcd though it cannot be decoded.
    pub fn has_undecodable_item(&self, prefix: &KeyPrefix, id: &str) -> bool {
        self.is_undecodable(&prefix.item(id))
    }

    /// Raw keys that exist in etcd though their newest value cannot be decoded.
    pub fn undecodable(&self) -> impl Iterator<Item = &Bytes> {
        self.undecodable.keys()
    }

    /// How many keys exist in etcd, decodable or not.
    pub(crate) fn raw_keys(&self) -> usize {
        let shown = self.items.len() + self.members.len() + self.assignments.len();
        shown + self.undecodable.values().filter(|shown| !**shown).count()
    }

    pub(crate) fn set_loads(&mut self, loads: u64) {
        self.loads = loads;
    }

    pub(crate) fn set_header(&mut self, header: EtcdHeader) {
        self.header = header;
    }

    /// Applies one change, decoding its value.
    pub(crate) fn apply(&mut self, schema: &S, prefix: &KeyPrefix, change: Change) -> Applied {
        self.header.revision = self.header.revision.max(change.revision());
        match change {
            Change::Put(raw) => self.put(schema, prefix, raw),
            Change::Delete { key, .. } => {
                self.undecodable.remove(&key);
                match prefix.classify(&key) {
                    Ok(KeyName::Item(id)) => drop(self.items.remove(&id)),
                    Ok(KeyName::Member(id)) => drop(self.members.remove(&id)),
                    Ok(KeyName::Assignment(key)) => drop(self.assignments.remove(&key)),
                    Err(_) => {}
                }
                Applied::Yes
            }
        }
    }

    fn put(&mut self, schema: &S, prefix: &KeyPrefix, raw: RawEntry) -> Applied {
        let name = prefix.classify(&raw.key);
        let outcome = match &name {
            Ok(KeyName::Item(id)) => schema.decode_item(id, &raw.value).map(|value| {
                self.items.insert(Arc::clone(id), raw.entry(value));
            }),
            Ok(KeyName::Member(id)) => schema.decode_member(id, &raw.value).map(|value| {
                self.members.insert(id.clone(), raw.entry(value));
            }),
            Ok(KeyName::Assignment(key)) => decode_assignment(schema, key, &raw.value).map(|value| {
                self.assignments.insert(key.clone(), raw.entry(value));
            }),
            Err(error) => Err(error.clone()),
        };
        match outcome {
            Ok(()) => {
                self.undecodable.remove(&raw.key);
                Applied::Yes
            }
            Err(error) => {
                let shown = match &name {
                    Ok(KeyName::Item(id)) => self.items.contains_key(id),
                    Ok(KeyName::Member(id)) => self.members.contains_key(id),
                    Ok(KeyName::Assignment(key)) => self.assignments.contains_key(key),
                    Err(_) => false,
                };
                self.undecodable.insert(raw.key.clone(), shown);
                Applied::Undecodable { key: raw.key, error, previous_kept: shown }
            }
        }
    }
}

fn decode_assignment<S: Schema>(
    schema: &S,
    key: &AssignmentKey,
    value: &[u8],
) -> Result<S::Assignment, Invalid> {
    if value.is_empty() { Ok(S::Assignment::default()) } else { schema.decode_assignment(key, value) }
}

/// A key and its value, not yet decoded.
#[derive(Debug, Clone)]
pub(crate) struct RawEntry {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    pub(crate) lease: i64,
}

impl RawEntry {
    fn entry<T>(&self, value: T) -> Entry<T> {
        Entry {
            value: Arc::new(value),
            mod_revision: self.mod_revision,
            create_revision: self.create_revision,
            lease: self.lease,
            raw: self.value.clone(),
        }
    }
}

/// One change of one key.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(RawEntry),
    Delete { key: Bytes, revision: Revision },
}

impl Change {
    pub(crate) fn revision(&self) -> Revision {
        match self {
            Change::Put(raw) => raw.mod_revision,
            Change::Delete { revision, .. } => *revision,
        }
    }
}

/// What became of a change.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Yes,
    Undecodable { key: Bytes, error: Invalid, previous_kept: bool },
}
