//! What can go wrong between a client and its servers.

use proto::Invalid;
use proto::protocol::{AppendResponse, LabelSet, Status};
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why a single request failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// The call failed below the protocol: the server said so, or it could not be reached, or it went away.
    #[error("{}{}", runtime::grpc::chain_text(.0), advice(.0))]
    Grpc(tonic::Status),
    /// The server answered with a status that is not OK.
    #[error("{item}: {status}{}", .detail.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Status {
        /// The journal, shard or request which the status is about.
        item: Arc<str>,
        /// The status.
        status: StatusCode,
        /// What the server said besides.
        detail: Option<Arc<str>>,
    },
    /// The server's answer breaks the protocol.
    #[error("invalid response: {0}")]
    Response(Invalid),
    /// The request breaks the protocol, and was not sent.
    #[error("invalid request: {0}")]
    Request(Invalid),
    /// An endpoint cannot be dialled.
    #[error("endpoint {endpoint}: {problem} (expected http(s)://host:port or unix:///path)")]
    Endpoint {
        /// The endpoint, as it was configured or advertised.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The content to append could not be read; nothing was committed.
    #[error("reading content: {0}")]
    Content(Arc<io::Error>),
    /// The client was told to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A status which is not OK, of either protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusCode {
    /// Of brokers.
    Journal(Status),
    /// Of consumers.
    Shard(proto::consumer::Status),
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusCode::Journal(status) => status.fmt(f),
            StatusCode::Shard(status) => status.fmt(f),
        }
    }
}

impl ClientError {
    /// An error for a journal status which is not OK.
    pub(crate) fn journal(item: &str, status: Status) -> ClientError {
        ClientError::Status { item: item.into(), status: StatusCode::Journal(status), detail: None }
    }

    /// The status a broker answered with.
    pub fn status(&self) -> Option<Status> {
        match self {
            ClientError::Status { status: StatusCode::Journal(status), .. } => Some(*status),
            _ => None,
        }
    }

    /// The status a consumer answered with.
    pub fn shard_status(&self) -> Option<proto::consumer::Status> {
        match self {
            ClientError::Status { status: StatusCode::Shard(status), .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether the server could not be connected to: the request was not sent, and had no effect.
    pub fn is_unreachable(&self) -> bool {
        let ClientError::Grpc(status) = self else { return false };
        let mut cause = status.source();
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// Whether the connection to the server failed, as this side saw it. A server which says that another one is
    /// unavailable works itself.
    pub fn is_connection(&self) -> bool {
        // A status which was made on this side has the transport's error as its source.
        matches!(self, ClientError::Grpc(status) if status.source().is_some())
    }

    /// Whether the server, or the way to it, failed rather than the request. The outcome is unknown unless
    /// [`ClientError::is_unreachable`]; another attempt may succeed, elsewhere.
    pub fn is_unavailable(&self) -> bool {
        let is_code = matches!(self, ClientError::Grpc(status) if status.code() == tonic::Code::Unavailable);
        is_code || self.is_connection()
    }

    /// Whether the server refused the request's token, or that there was none. It had no effect, and the same request will
    /// be refused again.
    pub fn is_unauthenticated(&self) -> bool {
        matches!(self, ClientError::Grpc(status) if status.code() == tonic::Code::Unauthenticated)
    }

    /// Whether routing was in flux: the same request, repeated, finds its way once brokers agree.
    pub fn is_routing(&self) -> bool {
        self.status().is_some_and(|status| {
            matches!(
                status,
                Status::NotJournalPrimaryBroker
                    | Status::NoJournalPrimaryBroker
                    | Status::InsufficientJournalBrokers
            )
        })
    }
}

/// What to do about a status, where its text alone does not say it.
fn advice(status: &tonic::Status) -> &'static str {
    match status.code() {
        tonic::Code::Unauthenticated => {
            "; check the auth keys or the auth token which this client was given, what the token is for, and the clock"
        }
        tonic::Code::Unimplemented => {
            "; check the address (brokers serve journals, the processes of a consumer serve its shards) and the server's version"
        }
        _ => "",
    }
}

/// Checks an append's answer.
pub(crate) fn check_append(journal: &str, response: AppendResponse) -> Result<AppendResponse, ClientError> {
    match response.status() {
        Status::Ok => Ok(response),
        status => {
            let detail = Some(response.store_health_error).filter(|text| !text.is_empty()).map(Arc::from);
            let detail = detail.or_else(|| response.registers.as_ref().and_then(registers_text));
            Err(ClientError::Status { item: journal.into(), status: StatusCode::Journal(status), detail })
        }
    }
}

fn registers_text(registers: &LabelSet) -> Option<Arc<str>> {
    let labels = registers.labels.iter().map(|label| format!("{}={}", label.name, label.value));
    let labels = labels.collect::<Vec<_>>().join(",");
    (!labels.is_empty()).then(|| format!("registers {labels}").into())
}
