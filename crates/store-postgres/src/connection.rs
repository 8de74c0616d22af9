//! One session of a server, with the statements that it has prepared.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Row, Statement};

use crate::PostgresError;
use crate::error::is_lost;

/// Prepared statements of a connection. An application which makes statements of values, rather than giving them as
/// parameters, prepares them again from time to time.
const STATEMENTS_MAX: usize = 256;

/// See the module. Its session ends when it is dropped, and an open transaction is rolled back.
pub(crate) struct Connection {
    client: Client,
    statements: BTreeMap<Box<str>, Statement>,
}

impl Connection {
    pub(crate) fn new(client: Client) -> Connection {
        Connection { client, statements: BTreeMap::new() }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(crate) async fn query(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, params).await.map_err(PostgresError::statement(sql))
    }

    pub(crate) async fn query_opt(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, PostgresError> {
        let statement = self.prepared(sql).await?;
        self.client.query_opt(&statement, params).await.map_err(PostgresError::statement(sql))
    }

    pub(crate) async fn execute(
        &mut self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, PostgresError> {
        let statement = self.prepared(sql).await?;
        self.client.execute(&statement, params).await.map_err(PostgresError::statement(sql))
    }

    /// Begins a transaction. False if there is no session any more, so that none was begun.
    pub(crate) async fn begin(&self, isolation: IsolationLevel) -> Result<bool, PostgresError> {
        let level = match isolation {
            IsolationLevel::ReadUncommitted => "READ UNCOMMITTED",
            IsolationLevel::RepeatableRead => "REPEATABLE READ",
            IsolationLevel::Serializable => "SERIALIZABLE",
            _ => "READ COMMITTED",
        };
        let sql = format!("BEGIN ISOLATION LEVEL {level} READ WRITE");
        match self.client.batch_execute(&sql).await {
            Ok(()) => Ok(true),
            Err(error) if is_lost(&error) => Ok(false),
            Err(error) => Err(PostgresError::statement(&sql)(error)),
        }
    }

    /// Commits the transaction. A statement must have succeeded right before: a server answers COMMIT of a transaction
    /// in which one failed by rolling it back, and not by an error.
    pub(crate) async fn commit(&self) -> Result<(), PostgresError> {
        self.client.batch_execute("COMMIT").await.map_err(PostgresError::commit)
    }

    async fn prepared(&mut self, sql: &str) -> Result<Statement, PostgresError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await.map_err(PostgresError::statement(sql))?;
        if self.statements.len() >= STATEMENTS_MAX {
            self.statements.clear();
        }
        self.statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }
}
