//! Listings become trees and sets, which become the same specifications again; malformed input is told where it is.

mod journals;
mod properties;
mod shards;

use super::*;

/// A journal specification with every kind of field set.
fn journal(name: &str) -> proto::protocol::JournalSpec {
    let node: JournalNode = serde_yaml_ng::from_str(
        "{replication: 3, labels: [{name: aa, value: x}], flags: O_RDWR, max_append_rate: 1000,
          fragment: {length: 1024, compression_codec: SNAPPY, stores: ['s3://bucket/'], refresh_interval: 1m}}",
    )
    .unwrap();
    proto::protocol::JournalSpec { name: name.into(), ..node.to_spec() }
}
