//! What can go wrong with a PostgreSQL store.

use std::error::Error;
use std::io::ErrorKind;
use std::path::PathBuf;

use client::OpError;
use consumer::StoreFenced;
use runtime::grpc::chain_text;
use tokio_postgres::error::SqlState;

/// Why a store cannot be opened, used or committed.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The connection string is malformed.
    #[error("the connection string of a PostgreSQL store: {}", chain_text(.0))]
    Options(#[source] tokio_postgres::Error),
    /// There are no authorities to verify the server's certificate by.
    #[error("certificate authorities of a PostgreSQL store in {path:?}: {problem}")]
    Authorities {
        /// The file; without one, the machine's own were meant.
        path: Option<PathBuf>,
        /// What is wrong with it.
        problem: String,
    },
    /// No connection can be made.
    #[error("connecting to PostgreSQL ({target}): {}", chain_text(.source))]
    Connect {
        /// Database and servers.
        target: String,
        /// Why not.
        source: tokio_postgres::Error,
    },
    /// A statement failed. Its transaction cannot be committed any more.
    #[error("{statement:?}: {}", chain_text(.source))]
    Statement {
        /// The statement, or its beginning.
        statement: String,
        /// Why.
        source: tokio_postgres::Error,
    },
    /// The server refused to commit, and has rolled back.
    #[error("COMMIT: {}", chain_text(.0))]
    Refused(#[source] tokio_postgres::Error),
    /// The connection was lost during the commit: it is committed, or rolled back. Restoring the checkpoint tells.
    #[error("COMMIT: the connection was lost before the server answered, so the outcome is unknown: {}", chain_text(.0))]
    OutcomeUnknown(#[source] tokio_postgres::Error),
    /// The stored checkpoint is not one.
    #[error("the checkpoint of {shard} in gazette_checkpoints cannot be decoded: {source}")]
    Checkpoint {
        /// Full name of the shard.
        shard: String,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// Another process has restored the shard's checkpoint meanwhile. Nothing was committed.
    #[error("{shard}: {source}")]
    Fenced {
        /// Full name of the shard.
        shard: String,
        /// As the framework knows it.
        source: StoreFenced,
    },
    /// A commit before failed.
    #[error("the transaction before was not committed: {0}")]
    Before(#[source] OpError),
    /// The shard no longer runs here.
    #[error("the store is closed")]
    Closed,
}

/// Longest part of a statement which an error shows, in bytes.
const STATEMENT_SHOWN_MAX: usize = 200;

impl PostgresError {
    pub(crate) fn statement(statement: &str) -> impl Fn(tokio_postgres::Error) -> PostgresError {
        let mut shown = statement.len().min(STATEMENT_SHOWN_MAX);
        while !statement.is_char_boundary(shown) {
            shown -= 1;
        }
        let statement = statement[..shown].to_owned();
        move |source| PostgresError::Statement { statement: statement.clone(), source }
    }

    pub(crate) fn commit(source: tokio_postgres::Error) -> PostgresError {
        if is_lost(&source) { PostgresError::OutcomeUnknown(source) } else { PostgresError::Refused(source) }
    }

    /// Whether the same may succeed later without anything being changed: the server could not be reached, or ended the
    /// connection, or gave up one of two transactions which waited for each other.
    pub fn is_retryable(&self) -> bool {
        match self {
            PostgresError::Connect { source, .. } => is_lost(source),
            PostgresError::Statement { source, .. } | PostgresError::Refused(source) => {
                is_lost(source)
                    || matches!(
                        source.code(),
                        Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
                    )
            }
            PostgresError::OutcomeUnknown(_) => true,
            _ => false,
        }
    }

    /// Whether the transaction may be committed nevertheless.
    pub fn may_have_committed(&self) -> bool {
        matches!(self, PostgresError::OutcomeUnknown(_))
    }
}

/// Whether an error says that there is no server, or no connection to it any more, rather than what a server answered.
pub(crate) fn is_lost(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        // Class 08 is of connections, 57P0x of servers which stop or start, 25P03 of sessions which idled for too long.
        return code.code().starts_with("08")
            || code.code().starts_with("57P0")
            || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
            || *code == SqlState::TOO_MANY_CONNECTIONS;
    }
    if error.is_closed() {
        return true;
    }
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    io.is_some_and(|io| {
        matches!(
            io.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::NotConnected
                | ErrorKind::BrokenPipe
                | ErrorKind::NotFound // No socket file: the server is not started.
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::TimedOut
                | ErrorKind::UnexpectedEof
        )
    })
}
