//! What this process has seen of etcd, so that data which is not what it was cannot be taken for it.
//!
//! Pure. An etcd that lost its data comes back at the same address with fewer revisions, and often under the same cluster
//! id, which etcd derives from its configuration. An answer that follows all writes before its request can therefore be
//! checked twice: it must be of the same cluster, and its revision no smaller than any that was seen before the request.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use proto::Revision;

use crate::txn::EtcdHeader;

/// The data of etcd is not what this process has seen. Nothing that was decided on it holds; a new process can begin
/// with the new data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataLost {
    /// Another cluster answers.
    #[error("etcd cluster id changed from {expected:x} to {found:x}: its data was replaced")]
    ClusterChanged {
        /// Cluster which answered before.
        expected: u64,
        /// Cluster which answers now.
        found: u64,
    },
    /// The same cluster has fewer revisions than before.
    #[error(
        "etcd cluster {cluster:x} is at revision {found}, expected {expected} or later: its data was lost or replaced"
    )]
    RevisionsGone {
        /// The cluster.
        cluster: u64,
        /// Revision that was seen before.
        expected: Revision,
        /// Revision of the answer.
        found: Revision,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// 0 before the first answer.
    cluster: AtomicU64,
    revision: AtomicI64,
}

impl Seen {
    /// The revision that the answer to a request which is sent now must have reached.
    pub(crate) fn floor(&self) -> Revision {
        Revision(self.revision.load(Ordering::SeqCst))
    }

    /// Remembers a revision that etcd has told of by itself.
    pub(crate) fn note(&self, revision: Revision) {
        self.revision.fetch_max(revision.0, Ordering::SeqCst);
    }

    /// Checks an answer against what was seen before its request, and remembers it.
    pub(crate) fn check(&self, header: EtcdHeader, floor: Revision) -> Result<(), DataLost> {
        let (found, cluster) = (header.revision, header.cluster_id);
        let exchanged = self.cluster.compare_exchange(0, cluster, Ordering::SeqCst, Ordering::SeqCst);
        if let Err(expected) = exchanged
            && expected != cluster
        {
            return Err(DataLost::ClusterChanged { expected, found: cluster });
        }
        if found < floor {
            return Err(DataLost::RevisionsGone { cluster, expected: floor, found });
        }
        self.note(found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, revision: i64) -> EtcdHeader {
        EtcdHeader { cluster_id, revision: Revision(revision), ..EtcdHeader::default() }
    }

    #[test]
    fn answers_of_another_cluster_or_with_fewer_revisions_are_refused() {
        let seen = Seen::default();
        seen.check(header(10, 7), seen.floor()).unwrap();
        let early = seen.floor();
        seen.check(header(10, 9), seen.floor()).unwrap();
        assert_eq!(seen.check(header(10, 8), early), Ok(()), "it may have been answered before the other");
        assert_eq!(seen.floor(), Revision(9));
        let gone = seen.check(header(10, 2), seen.floor()).unwrap_err();
        let text = "etcd cluster a is at revision 2, expected 9 or later: its data was lost or replaced";
        assert_eq!(gone.to_string(), text);
        let changed = seen.check(header(11, 99), seen.floor()).unwrap_err();
        assert_eq!(changed.to_string(), "etcd cluster id changed from a to b: its data was replaced");
    }
}
