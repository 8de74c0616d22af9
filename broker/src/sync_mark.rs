//! Synchronisation marks: which replicas of a journal hold everything that was acknowledged.
//!
//! An append is acknowledged only by a full set of replicas, whose primary has synchronised them, written their route to
//! etcd, and then the journal's *mark*: the revision at which they agreed. It does so when the first append is about to enter the
//! queue, so a set that refuses all appends, since the store holds more than it knows of, leaves the mark as it is. Each replica
//! keeps the revision of its last synchronisation in its spool. A spool of the mark's revision, or of a later attempt, was part
//! of the last set that could acknowledge anything; an older one may lack what was acknowledged since, and may hold what was not.
//!
//! Revisions of an etcd that lost its data say nothing about those of the one before. So the first broker that finds none gives
//! etcd an *incarnation*, a random number, and spools remember that too.
//!
//! Marks are kept outside of the prefix that brokers mirror, where other implementations would stumble over them. That of a
//! deleted journal stays, and is void: it names the item's revision.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use keyspace::{Compare, Etcd, Op, OpResponse, PutLease, Txn};
use proto::{JournalName, Revision};
use runtime::BoxError;

/// What is put before the cluster's prefix.
const ROOT: &str = "/courant";

/// Reads marks.
pub trait SyncMarks: Send + Sync + 'static {
    /// The mark of the journal whose item was created at `create_revision`; `None` if it has none.
    fn last(
        &self,
        journal: &JournalName,
        create_revision: Revision,
    ) -> BoxFuture<'static, Result<Option<Revision>, BoxError>>;
}

/// Marks in etcd.
#[derive(Clone)]
pub struct EtcdMarks {
    etcd: Etcd,
    prefix: Arc<str>,
}

impl EtcdMarks {
    /// Marks of the cluster whose keys begin with `prefix`.
    pub fn new(etcd: &Etcd, prefix: &str) -> EtcdMarks {
        EtcdMarks { etcd: etcd.clone(), prefix: prefix.into() }
    }

    /// The incarnation of etcd, which is `fresh` if it had none.
    ///
    /// # Errors
    /// If etcd fails, or holds something else under the key.
    pub async fn incarnation(&self, fresh: u64) -> Result<u64, BoxError> {
        let key = format!("{ROOT}{}/incarnation", self.prefix);
        let value = format!("{fresh:016x}");
        let txn = Txn {
            compares: vec![Compare::Version { key: key.clone(), equals: 0 }],
            then: vec![Op::Put { key: key.clone(), value: value.into(), lease: PutLease::None }],
            or_else: vec![Op::Get { key: key.clone() }],
        };
        let outcome = self.etcd.txn(txn).await?;
        let found = match outcome.responses.into_iter().next() {
            _ if outcome.succeeded => return Ok(fresh),
            Some(OpResponse::Get(Some(found))) => found.value,
            _ => return Err(format!("{key}: etcd says neither that it exists nor that it does not").into()),
        };
        let parsed = str::from_utf8(&found).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
        parsed.ok_or_else(|| format!("{key}: {found:?} (expected a hexadecimal number)").into())
    }
}

impl SyncMarks for EtcdMarks {
    fn last(
        &self,
        journal: &JournalName,
        create_revision: Revision,
    ) -> BoxFuture<'static, Result<Option<Revision>, BoxError>> {
        let (etcd, key) = (self.etcd.clone(), key(&self.prefix, journal.as_str()));
        async move {
            let Some(found) = etcd.get(&key).await? else { return Ok(None) };
            let mark = decode(&found.value)
                .ok_or_else(|| format!("{key}: {:?} (expected two revisions)", found.value))?;
            Ok(mark.of(create_revision))
        }
        .boxed()
    }
}

/// The operation which marks the journal `journal` of the cluster at `prefix`.
pub fn put(prefix: &str, journal: &str, create_revision: Revision, synced_at: Revision) -> Op {
    let value = format!("{create_revision} {synced_at}");
    Op::Put { key: key(prefix, journal), value: value.into_bytes().into(), lease: PutLease::None }
}

fn key(prefix: &str, journal: &str) -> String {
    format!("{ROOT}{prefix}/synced/{journal}")
}

#[derive(Debug, PartialEq, Eq)]
struct Mark {
    create_revision: Revision,
    synced_at: Revision,
}

impl Mark {
    /// The revision, unless the mark is of a former journal of the same name.
    fn of(&self, create_revision: Revision) -> Option<Revision> {
        (self.create_revision == create_revision).then_some(self.synced_at)
    }
}

fn decode(value: &[u8]) -> Option<Mark> {
    let (create_revision, synced_at) = str::from_utf8(value).ok()?.split_once(' ')?;
    let revision = |text: &str| text.parse().ok().map(Revision);
    Some(Mark { create_revision: revision(create_revision)?, synced_at: revision(synced_at)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_round_trip_and_belong_to_one_journal() {
        let Op::Put { key, value, .. } = put("/gazette/cluster", "a/journal", Revision(3), Revision(9))
        else {
            panic!("a mark is put")
        };
        assert_eq!(key, "/courant/gazette/cluster/synced/a/journal");
        let mark = decode(&value).unwrap();
        assert_eq!((mark.of(Revision(3)), mark.of(Revision(4))), (Some(Revision(9)), None));
    }

    #[test]
    fn other_values_are_no_marks() {
        for value in ["", "3", "3 x", " 9", "3 9 1"] {
            assert_eq!(decode(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(decode(b"\xff 1"), None);
    }
}
