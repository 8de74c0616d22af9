//! The commands against a broker which is the same program, over loopback.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod broker;
mod configuration;
mod content;
mod counter;
mod editing;
mod journals;
mod local;
mod shards;
mod stores;
mod terminal;

use broker::{Broker, courant, text};

/// Two journals without stores.
const TREE: &[u8] = b"
name: a/
replication: 1
labels: [{name: content-type, value: application/x-ndjson}, {name: app, value: test}]
fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1m}
children:
- name: a/one
- name: a/two
  max_append_rate: 100000000
";
