//! The journal service: append, read, list, apply, fragments.
//!
//! A [`Broker`] serves the journals which the allocator assigns to it. The [`Resolver`] follows the mirror of etcd and
//! starts, wakes and stops one replica for each assigned journal; every request is resolved by it, to this process, to
//! a peer, or to a status. Requests are decided by pure functions of what the resolver and the replicas publish.
//!
//! This crate knows bytes and not messages, and nothing of consumers.

mod apply;
mod broker;
mod config;
mod data_dir;
mod drain;
mod error;
#[cfg(test)]
mod fixtures;
mod fragments;
mod gate;
mod gateway;
mod health;
mod key_space;
mod list;
mod listings;
mod local_set;
mod metrics;
mod peers;
mod read;
mod resolution;
mod resolver;
mod retention;
mod serve;
mod service;
mod stored;

// The append path.
mod append;
mod flow;
mod orphans;
mod persist;
mod pipeline;
mod pulse;
mod replica;
mod replicate;
mod spool;
mod sync_mark;

pub use broker::Broker;
pub use config::{BrokerConfig, BrokerOptions, EtcdChoice, OptionsError, Paces, ServeArgs};
pub use data_dir::DataDirError;
pub use retention::{Kept, RetentionPlan, is_of_another_journal, retention_of};
pub use serve::serve;
pub use spool::{DiskFile, Durability, OsDisk, SpoolDisk};

/// The pure core of appends, for benchmarks.
#[doc(hidden)]
pub mod bench {
    pub use crate::append::{Admission, Group, GroupFormer, Known, Offer, Place, Terms, Wants};
}
