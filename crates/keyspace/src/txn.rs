//! Transactions and key-value pairs, as plain data.

use bytes::Bytes;
use etcd_client::proto::{PbKeyValue, PbResponseHeader, PbResponseOp, PbTxnOpResponse};
use proto::Revision;
use proto::protocol::header;

/// A key and its value, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The whole key. Bytes that are not UTF-8 are replaced; keys of ours have none.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key came into being, the last time it did.
    pub create_revision: Revision,
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// Number of writes since creation, from 1.
    pub version: i64,
    /// The lease whose end deletes the key; 0 is none.
    pub lease: i64,
}

impl From<PbKeyValue> for KeyValue {
    fn from(kv: PbKeyValue) -> KeyValue {
        KeyValue {
            key: String::from_utf8_lossy(&kv.key).into_owned(),
            value: kv.value.into(),
            create_revision: Revision(kv.create_revision),
            mod_revision: Revision(kv.mod_revision),
            version: kv.version,
            lease: kv.lease,
        }
    }
}

/// Who answered, and the state of the store when it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EtcdHeader {
    /// Identity of the etcd cluster.
    pub cluster_id: u64,
    /// Identity of the server which answered.
    pub member_id: u64,
    /// Revision of the store; in the header of a [`crate::KeySpace`], its effective revision (journal protocol §11.3).
    pub revision: Revision,
    /// Raft term of the server.
    pub raft_term: u64,
}

impl From<PbResponseHeader> for EtcdHeader {
    fn from(header: PbResponseHeader) -> EtcdHeader {
        EtcdHeader {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: Revision(header.revision),
            raft_term: header.raft_term,
        }
    }
}

impl From<EtcdHeader> for header::Etcd {
    fn from(header: EtcdHeader) -> header::Etcd {
        header::Etcd {
            cluster_id: header.cluster_id,
            member_id: header.member_id,
            revision: header.revision.0,
            raft_term: header.raft_term,
        }
    }
}

/// Compare, then write: one atomic step, at one revision. At most [`Txn::OPS_MAX`] comparisons and operations a branch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `then` to run.
    pub compares: Vec<Compare>,
    /// Runs if every comparison holds.
    pub then: Vec<Op>,
    /// Runs otherwise.
    pub or_else: Vec<Op>,
}

impl Txn {
    /// The most comparisons, and the most operations in a branch, which etcd takes by default.
    pub const OPS_MAX: usize = 128;
}

/// A condition on one key. An absent key has zero for every field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The last write of the key was at this revision.
    ModRevision {
        /// Key to look at.
        key: String,
        /// Expected revision; zero if the key must be absent.
        equals: Revision,
    },
    /// The key came into being at this revision.
    CreateRevision {
        /// Key to look at.
        key: String,
        /// Expected revision; zero if the key must be absent.
        equals: Revision,
    },
    /// The key was written this many times since it came into being.
    Version {
        /// Key to look at.
        key: String,
        /// Expected count; zero if the key must be absent.
        equals: i64,
    },
    /// The key is attached to this lease.
    Lease {
        /// Key to look at.
        key: String,
        /// Expected lease; zero is none.
        equals: i64,
    },
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a key. A key may be written once in a transaction.
    Put {
        /// Key to write.
        key: String,
        /// Its new value.
        value: Bytes,
        /// Which lease the key has afterwards.
        lease: PutLease,
    },
    /// Deletes a key; no error if it is absent.
    Delete {
        /// Key to delete.
        key: String,
    },
    /// Deletes every key that starts with `prefix`.
    DeletePrefix {
        /// Start of the keys; must not be empty.
        prefix: String,
    },
    /// Reads a key, as the operations before it left it.
    Get {
        /// Key to read.
        key: String,
    },
}

/// The lease of a written key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutLease {
    /// None: the key stays until it is deleted.
    None,
    /// Attached to this lease, which must exist.
    Id(i64),
    /// Whatever lease the key has; the key must exist.
    Keep,
}

/// The answer to one operation, in the order of the operations of the branch that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResponse {
    /// Written.
    Put,
    /// How many keys were deleted.
    Deleted(i64),
    /// The key, if it exists.
    Get(Option<KeyValue>),
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnOutcome {
    /// Whether every comparison held, so that `then` ran.
    pub succeeded: bool,
    /// Its revision is the transaction's own, if it wrote anything.
    pub header: EtcdHeader,
    /// Answers of the operations that ran.
    pub responses: Vec<OpResponse>,
}

pub(crate) fn op_response(response: PbResponseOp) -> OpResponse {
    match response.response {
        Some(PbTxnOpResponse::ResponseRange(range)) => {
            OpResponse::Get(range.kvs.into_iter().next().map(Into::into))
        }
        Some(PbTxnOpResponse::ResponseDeleteRange(delete)) => OpResponse::Deleted(delete.deleted),
        Some(PbTxnOpResponse::ResponsePut(_) | PbTxnOpResponse::ResponseTxn(_)) | None => OpResponse::Put,
    }
}
