//! Collects watch responses into a batch that is applied at once, and refuses what a sound etcd cannot have sent.
//!
//! Pure. All changes of one revision arrive in one response, so applying whole responses never shows half of a
//! transaction. Batching delays what is seen, never reorders it.

use bytes::Bytes;
use etcd_client::EventType;
use etcd_client::proto::{PbEvent, PbKeyValue, PbWatchResponse};
use proto::Revision;

use crate::keys::KeyPrefix;
use crate::seen::DataLost;
use crate::space::{Applied, Change, KeySpace, RawEntry, Schema};
use crate::txn::EtcdHeader;

/// Why a mirror cannot go on: what it shows may no longer be what etcd has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorFault {
    /// The server is of another cluster, or its data was lost or replaced.
    #[error(transparent)]
    DataLost(#[from] DataLost),
    /// The server sent a change that lies before one already applied.
    #[error("etcd sent a change of {key:?} at revision {found}, after revision {applied} was applied")]
    RevisionWentBack {
        /// The key, as text.
        key: String,
        /// Revision already applied.
        applied: Revision,
        /// Revision of the change.
        found: Revision,
    },
    /// The server ended the watch for a reason that trying again does not cure.
    #[error("etcd ended the watch: {0}")]
    WatchRefused(String),
}

/// Responses received but not yet applied.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    changes: Vec<Change>,
    header: Option<EtcdHeader>,
    /// All changes at or before this revision have been received.
    progress: Revision,
}

impl Batch {
    /// Adds a response. `applied` is the revision up to which changes were received before this batch.
    pub(crate) fn push(
        &mut self,
        response: PbWatchResponse,
        expected_cluster: u64,
        applied: Revision,
    ) -> Result<(), MirrorFault> {
        let header: EtcdHeader = response.header.unwrap_or_default().into();
        if header.cluster_id != expected_cluster {
            let found = header.cluster_id;
            return Err(DataLost::ClusterChanged { expected: expected_cluster, found }.into());
        }
        self.header = Some(header);
        // Responses do not split revisions, so this response begins after whatever came before it.
        let floor = applied.max(self.progress);
        if response.events.is_empty() {
            self.progress = floor.max(header.revision);
            return Ok(());
        }
        for event in response.events {
            let change = change_of(event);
            let found = change.revision();
            if found <= floor || found < self.progress {
                let key = match &change {
                    Change::Put(raw) => &raw.key,
                    Change::Delete { key, .. } => key,
                };
                let key = String::from_utf8_lossy(key).into_owned();
                return Err(MirrorFault::RevisionWentBack { key, applied: floor.max(self.progress), found });
            }
            self.progress = found;
            self.changes.push(change);
        }
        Ok(())
    }

    /// The revision up to which every change was received, once this batch is applied.
    pub(crate) fn progress(&self) -> Revision {
        self.progress
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Applies the batch to a copy of `space`, and gives what could not be decoded beside it.
    pub(crate) fn apply<S: Schema>(
        self,
        space: &KeySpace<S>,
        schema: &S,
        prefix: &KeyPrefix,
    ) -> (KeySpace<S>, Vec<Applied>) {
        let mut next = space.clone();
        if let Some(header) = self.header {
            next.set_header(EtcdHeader { revision: space.revision(), ..header });
        }
        let mut skipped = Vec::new();
        for change in self.changes {
            match next.apply(schema, prefix, change) {
                Applied::Yes => {}
                undecodable => skipped.push(undecodable),
            }
        }
        (next, skipped)
    }
}

/// A key space from a range read; its effective revision is the one that was read.
pub(crate) fn load<S: Schema>(
    kvs: Vec<PbKeyValue>,
    header: EtcdHeader,
    schema: &S,
    prefix: &KeyPrefix,
) -> (KeySpace<S>, Vec<Applied>) {
    let mut space = KeySpace::empty(header);
    let mut skipped = Vec::new();
    for kv in kvs {
        match space.apply(schema, prefix, Change::Put(raw_entry(kv))) {
            Applied::Yes => {}
            undecodable => skipped.push(undecodable),
        }
    }
    space.set_header(header);
    (space, skipped)
}

fn change_of(event: PbEvent) -> Change {
    let kv = event.kv.unwrap_or_default();
    if event.r#type == EventType::Delete as i32 {
        Change::Delete { key: kv.key.into(), revision: Revision(kv.mod_revision) }
    } else {
        Change::Put(raw_entry(kv))
    }
}

fn raw_entry(kv: PbKeyValue) -> RawEntry {
    RawEntry {
        key: Bytes::from(kv.key),
        value: Bytes::from(kv.value),
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        lease: kv.lease,
    }
}

#[cfg(test)]
mod tests;
