//! Makes connections, and replaces those which were lost.

use std::sync::Arc;
use std::time::Duration;

use runtime::backoff::Backoff;
use runtime::{BoxError, OnError, TaskGroup};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::{IsolationLevel, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connection::Connection;
use crate::error::is_lost;
use crate::{PostgresError, PostgresOptions, tls};

/// How long a server which cannot be reached, or which starts, is tried again. After that the attempt to run the shard
/// fails, and the shard is started again with growing waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    options: Arc<PostgresOptions>,
    tls: Option<MakeRustlsConnect>,
    tasks: TaskGroup,
}

impl Connector {
    pub(crate) async fn new(options: PostgresOptions, tasks: &TaskGroup) -> Result<Connector, PostgresError> {
        let tls = match options.is_encrypted() {
            true => {
                let ca_file = options.ca_file.clone();
                let read = move || tls::connector(ca_file.as_deref());
                Some(tasks.spawn_blocking("read certificate authorities", read).await?)
            }
            false => None,
        };
        Ok(Connector { options: Arc::new(options), tls, tasks: tasks.clone() })
    }

    pub(crate) fn options(&self) -> &PostgresOptions {
        &self.options
    }

    /// Begins a transaction on `connection` if it still is one, else on a new one.
    pub(crate) async fn begin(
        &self,
        connection: Option<Connection>,
        isolation: IsolationLevel,
    ) -> Result<Connection, PostgresError> {
        if let Some(connection) = connection
            && !connection.is_closed()
            && connection.begin(isolation).await?
        {
            return Ok(connection);
        }
        let clock = &self.options.clock;
        let deadline = clock.now() + CONNECT_LIMIT;
        let mut backoff = Backoff::journal();
        loop {
            let failed = match self.connect().await {
                // A connection which is lost at once was accepted by a server that stops.
                Ok(connection) => match connection.begin(isolation).await? {
                    true => return Ok(connection),
                    false => None,
                },
                Err(error) if is_lost(&error) && clock.now() < deadline => Some(error),
                Err(source) => {
                    return Err(PostgresError::Connect { target: self.options.target(), source });
                }
            };
            tracing::warn!(target = self.options.target(), error = ?failed,
                "no connection to PostgreSQL (will retry)");
            clock.sleep(backoff.next()).await;
        }
    }

    /// A session which cannot change anything. Tries once: whoever asks may do so again.
    pub(crate) async fn connect_to_read(&self) -> Result<Connection, PostgresError> {
        let connect = async {
            let connection = self.connect().await?;
            connection.client().batch_execute("SET default_transaction_read_only = on").await?;
            Ok::<_, tokio_postgres::Error>(connection)
        };
        let target = || self.options.target();
        connect.await.map_err(|source| PostgresError::Connect { target: target(), source })
    }

    /// Whether the shard has ended, and its sessions with it.
    pub(crate) fn has_ended(&self) -> bool {
        self.tasks.token().is_cancelled()
    }

    async fn connect(&self) -> Result<Connection, tokio_postgres::Error> {
        let config = &self.options.config;
        let client = match &self.tls {
            Some(tls) => {
                let (client, session) = config.connect(tls.clone()).await?;
                self.drive(session);
                client
            }
            None => {
                let (client, session) = config.connect(NoTls).await?;
                self.drive(session);
                client
            }
        };
        let limit = self.options.idle_in_transaction.as_millis();
        client.batch_execute(&format!("SET idle_in_transaction_session_timeout = {limit}")).await?;
        Ok(Connection::new(client))
    }

    /// Moves the session's bytes, until its client is dropped or the shard ends.
    fn drive<T>(&self, session: tokio_postgres::Connection<Socket, T>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let token = self.tasks.token().clone();
        self.tasks.spawn("PostgreSQL session", OnError::Log, async move {
            let ended = tokio::select! {
                biased;
                () = token.cancelled() => Ok(()),
                ended = session => ended,
            };
            if let Err(error) = ended {
                let error: BoxError = error.into();
                tracing::warn!(error = runtime::grpc::chain_text(&*error), "a session of PostgreSQL ended");
            }
            Ok(())
        });
    }
}
