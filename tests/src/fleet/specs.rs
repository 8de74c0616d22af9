//! Specifications for a fleet: those of stream-sum, and raw journals, with the fleet's replication.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use client::specs::{JournalNode, ShardSet};
use runtime::BoxError;

/// Fragments are small and short-lived, so that a run of minutes sees them rolled, stored and read back.
const FRAGMENT_BYTES: i64 = 512 << 10;
const RAW_FRAGMENT_BYTES: i64 = 128 << 10;
const FLUSH: &str = "1m";

/// Replicas of a journal, of which each is in a broker of its own: a fleet has as many brokers.
pub const BROKERS_MAX: i64 = 4;
/// Hot standbys of a shard, beside its primary: a fleet has one summer more.
pub const STANDBYS_MAX: i64 = 2;
/// Leases of a fleet's processes: shorter ones are lost on a machine which is busy, longer ones are waited for in vain.
pub const LEASE_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

/// What differs from the specifications of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Copies {
    /// Replicas of each journal.
    pub replication: i32,
    /// Hot standbys of each shard.
    pub hot_standbys: u32,
}

/// stream-sum's journals, as YAML.
pub fn stream_sum_journals(copies: Copies) -> Result<String, BoxError> {
    let mut node = JournalNode::parse(&example("journals.yaml")?)?;
    node.replication = copies.replication;
    node.fragment.length = FRAGMENT_BYTES;
    node.fragment.flush_interval = serde_json::from_value(FLUSH.into())?;
    Ok(node.to_yaml()?)
}

/// stream-sum's shards, as YAML.
pub fn stream_sum_shards(copies: Copies) -> Result<String, BoxError> {
    let mut set = ShardSet::parse(&example("shards.yaml")?)?;
    set.common.hot_standbys = copies.hot_standbys;
    Ok(set.to_yaml()?)
}

/// Raw journals, as YAML. `directory` ends in a slash, and `names` begin with it.
pub fn raw_journals(directory: &str, names: &[String], copies: Copies) -> String {
    let children: Vec<String> = names.iter().map(|name| format!("{{name: {name}}}")).collect();
    format!(
        "name: {directory}\nreplication: {}\nfragment: {{length: {RAW_FRAGMENT_BYTES}, \
         compression_codec: GZIP, refresh_interval: 5s, flush_interval: {FLUSH}, stores: ['file:///']}}\n\
         children: [{}]\n",
        copies.replication,
        children.join(", ")
    )
}

/// A file of the stream-sum example.
fn example(name: &str) -> Result<String, BoxError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/stream-sum").join(name);
    Ok(std::fs::read_to_string(path)?)
}
