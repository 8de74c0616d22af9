//! The store: the application's statements, and commits which go on in the background.

use std::fmt;
use std::sync::Arc;

use client::{OpError, OpFuture};
use consumer::Store;
use proto::consumer::Checkpoint;
use runtime::{BoxError, OnError, TaskGroup};
use tokio::sync::oneshot;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row};

use crate::connection::Connection;
use crate::connector::Connector;
use crate::fence::{self, Fence};
use crate::{Overlap, PostgresError, PostgresOptions, PostgresReader};

/// The store of one shard.
///
/// Statements of the application run in the transaction of the shard, which the first of them begins. The application
/// must not end it, by COMMIT or otherwise; savepoints are its own. A statement which fails, outside of a savepoint,
/// fails the transaction, even if its error is passed over.
pub struct PostgresStore {
    shard: Arc<str>,
    connector: Connector,
    fence: Fence,
    /// The connection of the running transaction, once it has begun.
    running: Option<Connection>,
    /// A connection without transaction.
    idle: Option<Connection>,
    last: Option<Committing>,
    tasks: TaskGroup,
}

/// The last commit which was started.
struct Committing {
    outcome: OpFuture,
    /// Comes back before the commit succeeds.
    connection: oneshot::Receiver<Connection>,
}

impl PostgresStore {
    /// A store for the shard of this full name (`Shard::fqn`), whose connections are of `tasks`: `Shard::tasks`, so that
    /// they end with the shard. Connects when it is first used.
    ///
    /// # Errors
    /// If the authorities of the server's certificate cannot be read.
    pub async fn open(
        shard_fqn: &str,
        options: PostgresOptions,
        tasks: &TaskGroup,
    ) -> Result<PostgresStore, PostgresError> {
        let connector = Connector::new(options, tasks).await?;
        Ok(PostgresStore {
            shard: shard_fqn.into(),
            connector,
            fence: Fence::NONE,
            running: None,
            idle: None,
            last: None,
            tasks: tasks.clone(),
        })
    }

    /// Rows which a statement gives, as part of the running transaction. The statement is prepared once per connection.
    ///
    /// # Errors
    /// If no transaction can be begun, or the statement fails.
    pub async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.begun().await?.query(sql, params).await
    }

    /// As [`PostgresStore::query`], for at most one row.
    ///
    /// # Errors
    /// As there; and if there are more rows.
    pub async fn query_opt(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PostgresError> {
        self.begun().await?.query_opt(sql, params).await
    }

    /// Runs a statement as part of the running transaction, and gives the number of rows that it changed. It is prepared
    /// once per connection.
    ///
    /// # Errors
    /// As of [`PostgresStore::query`].
    pub async fn execute(&mut self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, PostgresError> {
        self.begun().await?.execute(sql, params).await
    }

    /// The client of the running transaction, which is begun, for all that the other methods do not cover: COPY, batches
    /// of statements, savepoints.
    ///
    /// # Errors
    /// If no transaction can be begun.
    pub async fn transaction(&mut self) -> Result<&Client, PostgresError> {
        Ok(self.begun().await?.client())
    }

    async fn begun(&mut self) -> Result<&mut Connection, PostgresError> {
        if self.running.is_none() {
            if let Some(last) = &self.last
                && self.connector.options().overlap == Overlap::AfterCommit
            {
                last.outcome.clone().await.map_err(PostgresError::Before)?;
            }
            let (idle, isolation) = (self.take_idle(), self.connector.options().isolation);
            self.running = Some(self.connector.begin(idle, isolation).await?);
        }
        Ok(self.running.as_mut().expect("it was set above"))
    }

    /// A connection without transaction, if there is one at this moment.
    fn take_idle(&mut self) -> Option<Connection> {
        let returned = self.last.as_mut().and_then(|last| last.connection.try_recv().ok());
        // With two of them the other one stays for the next transaction.
        match self.idle.take() {
            Some(idle) => {
                self.idle = returned;
                Some(idle)
            }
            None => returned,
        }
    }

    async fn restore(&mut self) -> Result<Checkpoint, PostgresError> {
        let shard = Arc::clone(&self.shard);
        let connection = self.begun().await?;
        let (fence, checkpoint) = fence::take(connection, &shard).await?;
        // The row is there from now on, and whoever restored before is fenced.
        fence::write(connection, &shard, fence, &checkpoint).await?;
        connection.commit().await?;
        self.fence = fence.committed();
        self.idle = self.running.take();
        Ok(checkpoint)
    }
}

impl Store for PostgresStore {
    type Reader = PostgresReader;

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        Ok(self.restore().await?)
    }

    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        if let Some(Err(error)) = self.last.as_ref().and_then(|last| last.outcome.try_result()) {
            return OpFuture::resolved(Err(OpError::failed(PostgresError::Before(error))));
        }
        let session = match self.running.take() {
            Some(connection) => Session::Begun(connection),
            None => Session::Idle(self.take_idle()),
        };
        // A connection which came back and was not taken stays.
        if let Some(returned) = self.last.as_mut().and_then(|last| last.connection.try_recv().ok()) {
            self.idle = Some(returned);
        }
        let (shard, connector) = (Arc::clone(&self.shard), self.connector.clone());
        let commit = Commit { shard, connector, fence: self.fence, session, checkpoint };
        self.fence = self.fence.committed();

        let (promise, outcome) = OpFuture::pair();
        let (give_back, connection) = oneshot::channel();
        let token = self.tasks.token().clone();
        self.tasks.spawn("commit PostgreSQL", OnError::Log, async move {
            let committed = tokio::select! {
                biased;
                () = token.cancelled() => Err(OpError::Cancelled),
                committed = commit.run(wait_for) => committed,
            };
            promise.resolve(committed.map(|connection| {
                // Nobody takes it back if the store is gone.
                drop(give_back.send(connection));
            }));
            Ok(())
        });
        self.last = Some(Committing { outcome: outcome.clone(), connection });
        outcome
    }

    fn reader(&self) -> PostgresReader {
        PostgresReader::new(self.connector.clone())
    }

    /// There are no local files. The connections end with the shard's tasks, if not before.
    fn destroy(self) {}
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("shard", &self.shard).field("fence", &self.fence).finish()
    }
}

/// Where a transaction is to be committed.
enum Session {
    Begun(Connection),
    /// The application made no statement.
    Idle(Option<Connection>),
}

/// A transaction which was handed over to be committed.
struct Commit {
    shard: Arc<str>,
    connector: Connector,
    fence: Fence,
    session: Session,
    checkpoint: Checkpoint,
}

impl Commit {
    /// Gives the connection back. If it fails the connection is dropped, and with it the transaction.
    async fn run(self, wait_for: Vec<OpFuture>) -> Result<Connection, OpError> {
        for op in wait_for {
            op.await.map_err(|error| OpError::Dependency(Arc::new(error)))?;
        }
        self.write().await.map_err(OpError::failed)
    }

    async fn write(self) -> Result<Connection, PostgresError> {
        let mut connection = match self.session {
            Session::Begun(connection) => connection,
            Session::Idle(idle) => self.connector.begin(idle, IsolationLevel::ReadCommitted).await?,
        };
        fence::write(&mut connection, &self.shard, self.fence, &self.checkpoint).await?;
        connection.commit().await?;
        Ok(connection)
    }
}
