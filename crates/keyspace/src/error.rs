//! Failures of requests to etcd.

use tonic::Code;

use crate::seen::DataLost;

/// A request to etcd failed: which one, and what the server or the connection said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("etcd {operation}: {message} ({code:?})")]
pub struct EtcdError {
    operation: String,
    code: Code,
    message: String,
    lost: Option<DataLost>,
}

impl EtcdError {
    /// A failure of `operation` that this process found by itself.
    pub(crate) fn new(operation: impl Into<String>, code: Code, message: impl Into<String>) -> EtcdError {
        EtcdError { operation: operation.into(), code, message: message.into(), lost: None }
    }

    pub(crate) fn from_client(operation: impl Into<String>, error: etcd_client::Error) -> EtcdError {
        match error {
            // A status of this side has sources, which say why the connection failed.
            etcd_client::Error::GRpcStatus(status) if std::error::Error::source(&status).is_some() => {
                EtcdError::new(operation, status.code(), runtime::grpc::chain_text(&status))
            }
            etcd_client::Error::GRpcStatus(status) => {
                EtcdError::new(operation, status.code(), status.message())
            }
            etcd_client::Error::TransportError(error) => {
                EtcdError::new(operation, Code::Unavailable, runtime::grpc::chain_text(&error))
            }
            etcd_client::Error::InvalidArgs(text) => EtcdError::new(operation, Code::InvalidArgument, text),
            // The stream of requests was closed under us, which happens when the connection is lost.
            etcd_client::Error::WatchError(text) | etcd_client::Error::LeaseKeepAliveError(text) => {
                let code = if text.contains("lease not found") { Code::NotFound } else { Code::Unavailable };
                EtcdError::new(operation, code, text)
            }
            other => EtcdError::new(operation, Code::Internal, other.to_string()),
        }
    }

    /// The answer to `operation` is from data that is not what this process has seen.
    pub(crate) fn of_lost_data(operation: impl Into<String>, lost: DataLost) -> EtcdError {
        EtcdError { lost: Some(lost.clone()), ..EtcdError::new(operation, Code::DataLoss, lost.to_string()) }
    }

    /// Whether, and how, the data of etcd was lost or replaced.
    pub fn data_lost(&self) -> Option<&DataLost> {
        self.lost.as_ref()
    }

    /// The gRPC code of the failure.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What the server said.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether no server could be reached, or none answered in time.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.code, Code::Unavailable | Code::DeadlineExceeded)
    }

    /// Whether the same request may succeed later. If it also [may have taken effect](Self::may_have_taken_effect), a
    /// retry must be guarded by a comparison.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Aborted | Code::Cancelled
        )
    }

    /// Whether the outcome is unknown: the server may have applied the request.
    pub fn may_have_taken_effect(&self) -> bool {
        self.is_retryable() || matches!(self.code, Code::Internal | Code::DataLoss)
    }

    /// Whether the revision that was asked for is no longer kept.
    pub fn is_compacted(&self) -> bool {
        self.code == Code::OutOfRange && self.message.contains("compacted")
    }

    /// Whether the request named a lease which does not exist: it expired or was revoked.
    pub fn is_lease_not_found(&self) -> bool {
        self.code == Code::NotFound && self.message.contains("lease not found")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_says_whether_to_retry_and_whether_it_may_have_happened() {
        for (code, unavailable, retryable, unknown) in [
            (Code::Unavailable, true, true, true),
            (Code::DeadlineExceeded, true, true, true),
            (Code::Unknown, false, true, true),
            (Code::Internal, false, false, true),
            (Code::InvalidArgument, false, false, false),
            (Code::OutOfRange, false, false, false),
            (Code::ResourceExhausted, false, false, false),
        ] {
            let error = EtcdError::new("put /x", code, "text");
            assert_eq!(
                (error.is_unavailable(), error.is_retryable(), error.may_have_taken_effect()),
                (unavailable, retryable, unknown),
                "{code:?}"
            );
        }
        let error = EtcdError::new("put /x", Code::NotFound, "etcdserver: requested lease not found");
        assert!(error.is_lease_not_found());
        assert_eq!(error.to_string(), "etcd put /x: etcdserver: requested lease not found (NotFound)");
    }
}
