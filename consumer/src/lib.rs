//! The consumer framework: applications, shards and exactly-once transactions.

mod app;
mod hints;
mod metrics;
mod progress;
mod schema;
mod service;
mod shard;
mod store;
mod txn;

pub use app::{Application, Consumed};
pub use progress::{Progress, SourceProgress};
pub use service::{Resolution, ResolveArgs, ResolveError, Resolver};
pub use shard::Shard;
pub use store::Store;
