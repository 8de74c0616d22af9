//! Transactions of a shard: the pure loop and its driver.

mod core;

pub use self::core::*;
