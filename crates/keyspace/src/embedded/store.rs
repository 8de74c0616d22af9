//! The multi-version store of the embedded etcd.
//!
//! Pure. Requests and the time go in; answers and [`Effect`]s come out. A copy is cheap (persistent maps), so the owner
//! keeps one to fall back to when the effects of a batch cannot be made durable, and readers work on published copies.
//!
//! Every write that changes something makes one revision. Each key keeps its versions back to the last compaction, and
//! `history` the changes of each revision in the order in which they were made, for watches. A key belongs to at most
//! one lease, the one its newest version names. Semantics, errors and corner cases are those of etcd 3.4.

mod compact;
mod error;
mod lease;
mod plan;
mod range;
mod watch;
mod write;

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbEvent, PbKeyValue,
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseRevokeResponse, PbPutRequest, PbPutResponse,
    PbTxnRequest, PbTxnResponse,
};
use imbl::{OrdMap, Vector};
use std::time::Duration;

pub(crate) use error::StoreError;
pub(crate) use lease::LeaseState;
pub(crate) use range::Span;
pub(crate) use watch::{Caught, WatchSpec};

/// Most comparisons, or operations in a branch, of a transaction.
pub(crate) const TXN_OPS_MAX: usize = 128;
/// Most bytes of keys and values, of all kept versions, before writes are refused.
pub(crate) const STORE_BYTES_MAX: usize = 512 << 20;
/// Bytes of superseded history that are kept for watches which lag; beyond it, the older half is compacted away.
pub(crate) const HISTORY_BYTES_MAX: usize = 32 << 20;

/// What the maps need for each version, so that many empty values are bounded too.
const VERSION_BYTES: usize = 128;

/// A key with its value, as one write left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kv {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl Kv {
    pub(crate) fn to_pb(&self) -> PbKeyValue {
        PbKeyValue {
            key: self.key.to_vec(),
            value: self.value.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            lease: self.lease,
        }
    }

    fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + VERSION_BYTES
    }
}

/// One version of a key: what it was from `revision` on. `None` is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    revision: i64,
    kv: Option<Arc<Kv>>,
}

impl Version {
    fn bytes(&self, key: &[u8]) -> usize {
        key.len() + self.kv.as_ref().map_or(0, |kv| kv.value.len()) + VERSION_BYTES
    }
}

/// One change of one key. A deletion has the key and the revision only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kv: Arc<Kv>,
    pub(crate) deleted: bool,
}

/// What must be durable before the answer to a write is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The changes of a new revision, in order.
    Revision { revision: i64, changes: Arc<[Change]> },
    /// A lease came into being.
    Grant { id: i64, ttl_seconds: i64 },
    /// A lease is gone; its keys were deleted before.
    Revoke { id: i64 },
    /// History up to this revision is no longer needed.
    Compact { revision: i64 },
}

/// A request that changes the store.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Write {
    Put(PbPutRequest),
    Delete(PbDeleteRequest),
    Txn(PbTxnRequest),
    Compact(PbCompactionRequest),
    /// Its id is not zero: the caller chooses one.
    Grant(PbLeaseGrantRequest),
    Revoke(i64),
    KeepAlive(i64),
}

/// The answer to a [`Write`]. Headers hold the revision only.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Written {
    Put(PbPutResponse),
    Delete(PbDeleteResponse),
    Txn(PbTxnResponse),
    Compact(PbCompactionResponse),
    Grant(PbLeaseGrantResponse),
    Revoke(PbLeaseRevokeResponse),
    /// The new time to live, zero if there is no such lease, and the store's revision.
    KeepAlive {
        ttl_seconds: i64,
        revision: i64,
    },
}

/// The state of the store. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    revision: i64,
    /// Revisions before this one cannot be read; −1 before the first compaction.
    compacted: i64,
    keys: OrdMap<Bytes, Vector<Version>>,
    history: OrdMap<i64, Arc<[Change]>>,
    leases: OrdMap<i64, LeaseState>,
    /// Of all kept versions.
    bytes: usize,
    /// Of all changes in `history`.
    history_bytes: usize,
}

impl Store {
    /// An empty store, at revision 1.
    pub(crate) fn new() -> Store {
        Store::at(-1)
    }

    /// An empty store as it is right after a compaction at `compacted`; −1 is none.
    pub(crate) fn at(compacted: i64) -> Store {
        Store {
            revision: compacted.max(1),
            compacted,
            keys: OrdMap::new(),
            history: OrdMap::new(),
            leases: OrdMap::new(),
            bytes: 0,
            history_bytes: 0,
        }
    }

    /// The newest revision.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// The oldest revision that can be read; −1 if all can.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    /// Bytes of all kept keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Carries out a request at time `now`. On an error nothing has changed.
    pub(crate) fn apply(
        &mut self,
        write: &Write,
        now: Duration,
    ) -> Result<(Written, Vec<Effect>), StoreError> {
        match write {
            Write::Put(request) => self.put(request).map(|(r, e)| (Written::Put(r), e)),
            Write::Delete(request) => self.delete(request).map(|(r, e)| (Written::Delete(r), e)),
            Write::Txn(request) => self.txn(request).map(|(r, e)| (Written::Txn(r), e)),
            Write::Compact(request) => self.compact(request).map(|(r, e)| (Written::Compact(r), e)),
            Write::Grant(request) => self.grant(request, now).map(|(r, e)| (Written::Grant(r), e)),
            Write::Revoke(id) => self.revoke(*id).map(|(r, e)| (Written::Revoke(r), e)),
            Write::KeepAlive(id) => {
                let ttl_seconds = self.keep_alive(*id, now);
                Ok((Written::KeepAlive { ttl_seconds, revision: self.revision }, Vec::new()))
            }
        }
    }

    /// Repeats an effect that was made durable earlier. Leases get their whole time again, from `now`.
    ///
    /// # Errors
    /// If the effect does not follow from the state, so that the log is not one that this store wrote.
    pub(crate) fn replay(&mut self, effect: Effect, now: Duration) -> Result<(), String> {
        match effect {
            Effect::Revision { revision, changes } => self.replay_revision(revision, changes),
            Effect::Grant { id, ttl_seconds } => self.restore_lease(id, ttl_seconds, now),
            Effect::Revoke { id } => match self.leases.get(&id) {
                Some(lease) if lease.keys.is_empty() => {
                    self.leases.remove(&id);
                    Ok(())
                }
                Some(_) => Err(format!("lease {id} is revoked but still has keys")),
                None => Err(format!("lease {id} is revoked but was not granted")),
            },
            Effect::Compact { revision } => {
                if revision <= self.compacted || revision > self.revision {
                    let (from, to) = (self.compacted, self.revision);
                    return Err(format!("compaction at {revision}, with revisions {from} to {to}"));
                }
                self.compact_to(revision);
                Ok(())
            }
        }
    }

    fn replay_revision(&mut self, revision: i64, changes: Arc<[Change]>) -> Result<(), String> {
        if Some(revision) != self.revision.checked_add(1) || changes.is_empty() {
            return Err(format!("revision {revision} follows revision {}", self.revision));
        }
        for change in changes.iter() {
            if change.kv.key.is_empty() || change.kv.mod_revision != revision {
                return Err(format!(
                    "a change of revision {} in revision {revision}",
                    change.kv.mod_revision
                ));
            }
            self.record(change);
        }
        self.advance(changes);
        Ok(())
    }

    /// Restores one key as it was at the compaction that this store began with.
    pub(crate) fn restore_base(&mut self, kv: Kv) -> Result<(), String> {
        if kv.key.is_empty() || kv.mod_revision > self.compacted || self.keys.contains_key(&kv.key) {
            return Err(format!("key {:?} of revision {}", kv.key, kv.mod_revision));
        }
        let change = Change { kv: Arc::new(kv), deleted: false };
        self.record(&change);
        if change.kv.mod_revision == self.compacted {
            // Watches may still begin at the compacted revision itself.
            self.history_bytes += change.kv.bytes();
            let mut changes = self.history.get(&self.compacted).map(|c| c.to_vec()).unwrap_or_default();
            changes.push(change);
            self.history.insert(self.compacted, changes.into());
        }
        Ok(())
    }

    /// Keys as they were at the last compaction.
    pub(crate) fn base(&self) -> impl Iterator<Item = &Kv> {
        self.keys
            .values()
            .filter_map(|versions| versions.front())
            .filter(|version| version.revision <= self.compacted)
            .filter_map(|version| version.kv.as_deref())
    }

    /// Revisions after the last compaction, with their changes.
    pub(crate) fn revisions(&self) -> impl Iterator<Item = (i64, &Arc<[Change]>)> {
        let after = self.compacted;
        self.history.iter().map(|(r, c)| (*r, c)).filter(move |(r, _)| *r > after)
    }

    /// Adds a version of a key, and moves the key to the lease that it names.
    fn record(&mut self, change: &Change) {
        let kv = &change.kv;
        let versions = self.keys.entry(kv.key.clone()).or_default();
        let previous = versions.back().and_then(|v| v.kv.as_ref()).map_or(0, |kv| kv.lease);
        let value = (!change.deleted).then(|| Arc::clone(kv));
        versions.push_back(Version { revision: kv.mod_revision, kv: value });
        self.bytes += kv.bytes();
        if previous != kv.lease {
            self.detach(previous, &kv.key);
        }
        self.attach(kv.lease, &kv.key);
    }

    /// Closes the revision whose changes were recorded.
    fn advance(&mut self, changes: Arc<[Change]>) {
        self.revision += 1;
        self.history_bytes += changes.iter().map(|c| c.kv.bytes()).sum::<usize>();
        self.history.insert(self.revision, changes);
    }
}

pub(crate) fn event(change: &Change, prev_kv: Option<&Arc<Kv>>) -> PbEvent {
    PbEvent {
        r#type: i32::from(change.deleted),
        kv: Some(change.kv.to_pb()),
        prev_kv: prev_kv.map(|kv| kv.to_pb()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
