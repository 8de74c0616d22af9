//! The consumer framework: applications, shards and exactly-once transactions.
//!
//! An [`Application`] says how to fold messages into a [`Store`] and what to publish. The framework assigns *shards* of
//! its work to the processes of a group, reads committed messages exactly once, runs [`transaction`]s, recovers the
//! state of a shard from its recovery log wherever the shard goes, and serves the `consumer.Shard` service. [`run`] makes
//! a program of an application; [`Consumer`] runs it within a process.
//!
//! ```text
//! Consumer ── ShardSet ── one task per shard ── standby: player ─▶ primary: store, transactions
//!    │            ▲                                                    ▲
//!    └ service ── resolver                              pumps of source journals
//! ```
//!
//! This crate does not know the broker, only its client; and it knows stores only by their contract.

mod app;
mod config;
mod consumer;
mod drain;
#[cfg(test)]
mod fixtures;
mod hints;
mod json_store;
mod metrics;
mod progress;
mod prune;
mod run;
mod schema;
mod service;
mod shard;
mod store;
mod txn;

pub use app::{Application, Consumed};
pub use config::{ConsumerArgs, ConsumerOptions, OptionsError, ServeArgs, UnsupportedArgs};
pub use consumer::Consumer;
pub use json_store::{JsonFileStore, JsonStoreError};
pub use progress::{Progress, SourceProgress};
pub use run::run;
pub use schema::{ConsumerSchema, KeySpace, Mirror};
pub use service::{Resolution, ResolveArgs, ResolveError, Resolver};
pub use shard::Shard;
pub use store::{Store, StoreFenced};
pub use txn::core as transaction;
