//! A store in a PostgreSQL database, for shards without a recovery log.
//!
//! [`PostgresStore`] keeps the checkpoint of a shard in the database which holds the application's rows, and commits both
//! in one SQL transaction. The framework does not create the table of checkpoints; the database's owner does, once:
//!
//! ```sql
//! CREATE TABLE gazette_checkpoints (
//!   shard_fqn  TEXT    PRIMARY KEY NOT NULL,
//!   fence      INTEGER NOT NULL,
//!   checkpoint BYTEA   NOT NULL
//! );
//! ```
//!
//! It is found by the `search_path`, and shared by all shards, and all groups, which use the database.
//!
//! # The fence
//!
//! Whoever restores the checkpoint of a shard raises the `fence` of its row, and each commit requires the value that it
//! restored with. So a process which was replaced, and does not know it yet, cannot commit: its statements are rolled
//! back, and the commit fails with `checkpoint fence was updated (ie, by a new primary)`. The values are those of
//! Gazette's SQL store (consumer protocol §4.10): either implementation can take a row over from the other.
//!
//! # What a transaction sees
//!
//! A transaction of the shard is one SQL transaction, begun by its first statement. It sees its own changes at once. What
//! it sees of the transaction before, which may still be committing, is chosen by [`Overlap`]: all of it, as the first
//! statement waits for that commit (the default); or, on a second connection, nothing of it until it is committed. See
//! there before choosing the latter.
//!
//! # When the connection is lost
//!
//! An idle connection is replaced when it is next needed. One which is lost within a transaction fails the attempt to run
//! the shard: the server has rolled the transaction back, and the messages are consumed again. One which is lost during
//! `COMMIT` leaves open whether the transaction is committed. That fails the attempt too; the next one reads from the
//! database how far the shard is, and consumes nothing twice.

mod connection;
mod connector;
mod error;
mod fence;
mod options;
mod reader;
mod store;
mod tls;

pub use error::PostgresError;
pub use options::{Overlap, PostgresOptions};
pub use reader::PostgresReader;
pub use store::PostgresStore;
pub use tokio_postgres;
