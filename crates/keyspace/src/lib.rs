//! etcd, real or embedded: transactions, leases and the decoded mirror.
//!
//! All coordination of Courant goes through the etcd v3 API and through this crate, which alone names the etcd client.
//! [`Etcd`] sends requests; [`Lease`] is a proof of life; [`Membership`] announces this process; [`Mirror`] follows
//! everything under a prefix and publishes immutable [`KeySpace`] snapshots, decoded by a [`Schema`].
//! [`embedded::EmbeddedEtcd`] serves the part of the API that we use from within the process, persisted in a directory,
//! for the machine that has no etcd.
//!
//! Revisions order everything. A snapshot is the state at exactly one revision, and comparing the revisions of its
//! entries in a [`Txn`] is how a decision made on a snapshot is kept from overwriting what was not seen.

pub mod embedded;

mod batch;
mod client;
mod error;
mod identity;
mod keys;
mod lease;
mod membership;
mod mirror;
mod seen;
mod space;
mod spread;
mod txn;

pub use batch::MirrorFault;
pub use client::{Etcd, EtcdOptions};
pub use error::EtcdError;
pub use identity::{Misdirected, check_proxy_header};
pub use keys::{AssignmentKey, KeyName, KeyPrefix};
pub use lease::{Lease, LeaseLost};
pub use membership::{Membership, MembershipError, Predecessor};
pub use mirror::{Mirror, MirrorStopped, WhyStopped};
pub use seen::DataLost;
pub use space::{Entry, KeySpace, Schema};
pub use txn::{Compare, EtcdHeader, KeyValue, Op, OpResponse, PutLease, Txn, TxnOutcome};
