//! The consumer framework: applications, shards and exactly-once transactions.

pub mod hints;
pub mod progress;
pub mod schema;
pub mod shard;
pub mod txn;
