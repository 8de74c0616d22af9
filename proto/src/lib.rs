//! The wire: generated messages and services, their validation, labels and selectors, and the names which cannot be wrong.
//!
//! Messages are plain data and may say anything. They are validated once, where they enter a process ([`Validate`]);
//! from then on names travel as [`JournalName`], [`ShardId`], [`MemberId`] and [`Revision`]. Everything here is total: no
//! bytes from outside can panic it. Nothing here does I/O or knows the time.
//!
//! Rules, texts and encodings are those of the journal protocol §2-§4 and the consumer protocol §1; where this crate is
//! stricter (`..` elements, malformed store URLs), the item says so.

mod append_rpc;
mod apply_rpc;
mod canonical;
mod checkpoint;
pub mod duration;
pub mod endpoint;
mod fragment;
mod fragments_rpc;
mod header;
mod hints;
mod invalid;
mod journal_spec;
mod label_selector;
mod label_set;
pub mod labels;
mod list_rpc;
mod media_type;
mod member_id;
mod names;
pub mod path;
mod process;
mod read_rpc;
mod replica_status;
mod replicate_rpc;
mod revision;
mod route;
mod selector_text;
mod sha1_sum;
mod shard_rpc;
mod shard_spec;
mod status;
pub mod store_url;
mod token;
mod url_parts;

pub use canonical::{Canonical, canonical};
pub use fragments_rpc::FRAGMENTS_PAGE_LIMIT_MAX;
pub use invalid::{Invalid, Validate};
pub use journal_spec::{FRAGMENT_LENGTH, REPLICATION_MAX};
pub use member_id::MemberId;
pub use names::{JournalName, ShardId};
pub use process::BROKER_JOURNAL_LIMIT_MAX;
pub use revision::Revision;
pub use shard_spec::HINT_BACKUPS_MAX;
pub use store_url::StoreUrl;
pub use url_parts::percent_decode;

/// Encoded `FileDescriptorSet` of every package, imports included: what printing messages as JSON or text needs.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Messages and services of package `protocol` (journals): the journal protocol §2.
#[allow(missing_docs, clippy::all)]
pub mod protocol {
    tonic::include_proto!("protocol");
}

/// Messages of package `recoverylog`: the consumer protocol §4.
#[allow(missing_docs, clippy::all)]
pub mod recoverylog {
    tonic::include_proto!("recoverylog");
}

/// Messages and services of package `consumer` (shards): the consumer protocol §1.
#[allow(missing_docs, clippy::all)]
pub mod consumer {
    tonic::include_proto!("consumer");
}

#[cfg(test)]
mod tests;
