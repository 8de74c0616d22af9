//! How failures of the journal service become gRPC statuses (journal protocol §2.1).
//!
//! Outcomes of the protocol are statuses within responses and do not come here. What does keeps the code of a peer's
//! gRPC status, if it wraps one; cancellations and deadlines have their own codes; what a broker that is leaving cannot
//! answer is `Unavailable`; all else is `Unknown` with its text.

use proto::{Invalid, JournalName};
use runtime::{BoxError, grpc};
use tonic::Status;

use crate::resolution::ResolveError;

/// A request of the journal service failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The request is malformed.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// It cannot be resolved.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// etcd refused or cannot be reached.
    #[error("{0}")]
    Etcd(#[from] keyspace::EtcdError),
    /// Content or a store cannot be read.
    #[error("{action}: {source}")]
    Content {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: BoxError,
    },
    /// What the journal holds is not known yet.
    #[error(
        "what journal {journal} holds is not known yet, since its stores were not listed ({})",
        problem.as_deref().unwrap_or("the first listing is under way")
    )]
    NotListed {
        /// The journal.
        journal: JournalName,
        /// Why listing fails, if it does.
        problem: Option<String>,
    },
    /// A peer failed, or cannot be reached.
    #[error("proxy: {0}")]
    Peer(#[source] BoxError),
}

impl From<ServiceError> for Status {
    fn from(error: ServiceError) -> Status {
        match &error {
            // What a peer says is passed on as it is.
            ServiceError::Peer(source) => grpc::status_of(&**source),
            // Another broker answers soon, or this one does.
            ServiceError::Resolve(ResolveError::Stopped | ResolveError::MirrorStopped)
            | ServiceError::NotListed { .. } => Status::unavailable(error.to_string()),
            _ => grpc::status_of(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn statuses_say_what_clients_rely_on() {
        let peer: BoxError = Status::unavailable("gone").into();
        for (error, code, message) in [
            (
                ServiceError::from(Invalid::new("cannot begin with '/' (/x)").within("Journal")),
                Code::Unknown,
                "Journal: cannot begin with '/' (/x)",
            ),
            (ResolveError::Stopped.into(), Code::Unavailable, "resolver has stopped serving local replicas"),
            (ServiceError::Peer(peer), Code::Unavailable, "gone"),
            (
                ServiceError::Content { action: "open fragment".into(), source: "no such file".into() },
                Code::Unknown,
                "open fragment: no such file",
            ),
        ] {
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, message));
        }
    }
}
