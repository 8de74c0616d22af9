//! Reads of the database by requests, beside the shard which changes it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::PostgresError;
use crate::connection::Connection;
use crate::connector::Connector;

/// Sessions of one shard's readers. Reads beyond them wait for each other.
const SESSIONS_MAX: usize = 4;

/// Reads the database from any task, in sessions of its own, which end with the shard. Cheap to clone.
#[derive(Clone)]
pub struct PostgresReader(Arc<Sessions>);

struct Sessions {
    connector: Connector,
    turns: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

impl PostgresReader {
    pub(crate) fn new(connector: Connector) -> PostgresReader {
        let (turns, idle) = (Semaphore::new(SESSIONS_MAX), Mutex::default());
        PostgresReader(Arc::new(Sessions { connector, turns, idle }))
    }

    /// Rows which a query gives. It finds every transaction which was committed when it began, of this shard and of whoever
    /// else uses the database, and nothing of others. It cannot change anything. It is prepared once per session.
    ///
    /// # Errors
    /// If the shard no longer runs here, the server cannot be reached, or the query fails.
    pub async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, PostgresError> {
        let Sessions { connector, turns, .. } = &*self.0;
        let _turn = turns.acquire().await.expect("it is never closed");
        if connector.has_ended() {
            return Err(PostgresError::Closed);
        }
        let idle = self.idle().pop().filter(|connection| !connection.is_closed());
        let mut connection = match idle {
            Some(connection) => connection,
            None => connector.connect_to_read().await?,
        };
        let rows = connection.query(sql, params).await?;
        self.idle().push(connection);
        Ok(rows)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PostgresReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresReader").field("is_open", &!self.0.connector.has_ended()).finish()
    }
}
