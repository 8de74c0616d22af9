//! Measurements which need a cluster of their own. The `bench` program prints them.

mod failover;
mod fixture;
mod shards;

pub use failover::failover;
pub use shards::shards;
