//! A SQLite store whose file operations are recorded into a recovery log.
//!
//! [`SqliteStore`] is the store of a shard: a SQLite database, changed by SQL in one transaction, of which the shard's
//! checkpoint is part. SQLite reads and writes through a file system of ours: pages go into a RocksDB whose files are
//! recorded, and journals are recorded as files. Playing any prefix of the log gives a database which opens and holds the
//! last commit of that prefix.
//!
//! Journals are needed seldom: where SQLite is built for it (`SQLITE_ENABLE_BATCH_ATOMIC_WRITE`), the pages of a
//! transaction which fits into its cache are written as one atomic batch.

mod ffi;
mod files;
mod header;
mod log_buffer;
mod names;
mod pages;
mod reader;
mod slot;
mod store;
mod turns;

pub use reader::SqliteReader;
pub use rusqlite;
pub use store::{SqliteError, SqliteStore};
