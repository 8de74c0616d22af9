//! Why an append failed, and what its client is told.

use auth::Expired;
use keyspace::EtcdError;
use proto::Invalid;
use runtime::BoxError;
use tonic::{Code, Status};

use super::content::SpillError;
use crate::flow::Underflow;
use crate::replica::AppendError;
use crate::resolution::ResolveError;

/// A failed append. Outcomes that the protocol has a status for are not among these. Unless it says otherwise, the append
/// has no effect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The stream ended before its first message.
    #[error("EOF")]
    NoRequest,
    /// The first message breaks a rule.
    #[error("{0}")]
    Invalid(Invalid),
    /// Resolution failed.
    #[error("resolve: {0}")]
    Resolve(ResolveError),
    /// The client's stream broke a rule or an end came too soon.
    #[error("append stream: {0}")]
    Stream(String),
    /// The client's stream failed.
    #[error("append stream: {}", .0.message())]
    Client(Status),
    /// Its token expired before it was in its journal's queue.
    #[error("append stream: {0}")]
    Expired(#[from] Expired),
    /// The client fell behind.
    #[error("append stream: {0}")]
    Underflow(#[from] Underflow),
    /// Content could not be gathered.
    #[error("append stream: {0}")]
    Spill(#[from] SpillError),
    /// The journal's route could not be published.
    #[error("updateAssignments: {0}")]
    Assignments(EtcdError),
    /// The journal's suspension could not be changed.
    #[error("updateJournalSpec: {0}")]
    Suspension(EtcdError),
    /// The append, or the synchronisation before it, failed. See [`AppendError`] for its effect.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// There is no way to the primary.
    #[error("proxying append: {0}")]
    Unreachable(BoxError),
    /// The primary failed the append, or the way to it broke; in that case the effect is unknown.
    #[error("{}", .0.message())]
    Peer(Status),
}

/// Errors are code Unknown with their text, as other implementations have it; a peer's or the stream's own status keeps its
/// code. What fails because a broker is leaving, or has died, is Unavailable: it may be tried again, and elsewhere.
impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let code = match &failure {
            Failure::Client(status) | Failure::Peer(status) => status.code(),
            Failure::Expired(_) => Code::DeadlineExceeded,
            Failure::Unreachable(_)
            | Failure::Resolve(ResolveError::Stopped | ResolveError::MirrorStopped)
            | Failure::Append(AppendError::Stopped | AppendError::Expired) => Code::Unavailable,
            Failure::Append(AppendError::Pipeline(error)) => error.code(),
            _ => Code::Unknown,
        };
        Status::new(code, failure.to_string())
    }
}
