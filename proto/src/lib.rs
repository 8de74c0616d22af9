//! The wire: generated messages and services, their validation, labels and selectors, and the names which cannot be wrong.

/// Messages and services of package `protocol` (journals). Source: spec of the journal protocol, §2.
#[allow(missing_docs, clippy::all)]
pub mod protocol {
    tonic::include_proto!("protocol");
}

/// Messages of package `recoverylog`.
#[allow(missing_docs, clippy::all)]
pub mod recoverylog {
    tonic::include_proto!("recoverylog");
}

/// Messages and services of package `consumer` (shards).
#[allow(missing_docs, clippy::all)]
pub mod consumer {
    tonic::include_proto!("consumer");
}
