//! A RocksDB store whose file operations are recorded into a recovery log.
//!
//! [`RocksStore`] is the store of a shard: a key-value map, and the shard's checkpoint in the same write batch. A file
//! system observer under RocksDB tells the shard's [`Recorder`](recoverylog::Recorder) of every change that RocksDB made
//! to its files; so the recovery log holds the database as it was at every moment, and playing any prefix of the log
//! gives a database which opens and holds the last commit of that prefix.
//!
//! RocksDB never does more than it was told succeeded: if the log refuses an operation, be it that another process took
//! the log over, the operation fails for RocksDB too, which then accepts no writes. What is in the directory alone, and
//! not in the log, counts for nothing: the directory is removed with the store.

mod env;
mod keys;
mod maps;
mod observer;
mod overlay;
mod pool;
mod reader;
mod store;

pub use keys::MarkError;
pub use maps::RecordedMaps;
pub use overlay::Entry;
pub use reader::{RocksReader, RocksView};
pub use rocksdb;
pub use store::{RocksStore, StoreError};
