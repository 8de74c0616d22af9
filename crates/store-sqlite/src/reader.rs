//! Reads of a store by requests, beside the shard which changes it.

use crate::store::{Database, SqliteError};
use crate::turns::{Turns, WeakTurns};
use runtime::{OnError, TaskGroup};
use rusqlite::Connection;
use std::fmt;
use tokio::sync::oneshot;

/// Reads a store from any task, between two transactions of the shard. Does not hold the store open. Cheap to clone.
#[derive(Clone)]
pub struct SqliteReader {
    turns: WeakTurns<Box<Database>>,
    tasks: TaskGroup,
}

impl SqliteReader {
    pub(crate) fn new(turns: &Turns<Box<Database>>, tasks: &TaskGroup) -> SqliteReader {
        SqliteReader { turns: turns.downgrade(), tasks: tasks.clone() }
    }

    /// Runs `read` with the connection, once the running transaction has ended, on a thread where blocking is allowed. It
    /// finds every transaction whose commit was written by then, and nothing of others; the last of them may not be
    /// durable in the recovery log yet. It cannot change anything. The next transaction of the shard waits for it, so it
    /// should be over soon.
    ///
    /// # Errors
    /// If the store is closed; the error of `read`.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let turns = self.turns.upgrade().ok_or(SqliteError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let tasks = self.tasks.clone();
        // A task of its own, so that a caller which is not polled holds up no transaction.
        self.tasks.spawn("read SQLite", OnError::Log, async move {
            let turn = tokio::select! {
                biased;
                () = tasks.token().cancelled() => None,
                turn = turns.next() => turn,
            };
            let outcome = match turn {
                Some(_) if answer.is_closed() => return Ok(()),
                Some(turn) => tasks.spawn_blocking("read SQLite", move || turn.read(read)).await,
                None => Err(SqliteError::Closed),
            };
            drop(answer.send(outcome)); // The caller may be gone.
            Ok(())
        });
        answered.await.unwrap_or(Err(SqliteError::Panicked))
    }
}

impl fmt::Debug for SqliteReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteReader").field("is_open", &self.turns.upgrade().is_some()).finish()
    }
}

/// A connection which cannot change anything as long as this lives.
pub(crate) struct ReadOnly<'a>(&'a Connection);

impl ReadOnly<'_> {
    pub(crate) fn begin(connection: &Connection) -> rusqlite::Result<ReadOnly<'_>> {
        connection.pragma_update(None, "query_only", true)?;
        Ok(ReadOnly(connection))
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        // What cannot be undone fails the shard's next statement.
        if !self.0.is_autocommit() {
            drop(self.0.execute_batch("ROLLBACK"));
        }
        drop(self.0.pragma_update(None, "query_only", false));
    }
}
