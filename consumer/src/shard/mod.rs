//! Shards which this process runs: from the assignment in etcd to the transactions of an application.

mod attempt;
mod budget;
mod core;
mod failure;
mod held;
pub mod hint_pace;
mod hint_writer;
mod local_set;
mod process;
mod recovery;
mod reporter;
mod set;
pub(crate) mod status;
mod task;

pub use self::core::Shard;
pub(crate) use self::core::{AnyReader, Core};
pub(crate) use process::Process;
pub(crate) use set::ShardSet;
