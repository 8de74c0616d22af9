//! The only door to time, randomness, spawning, signals, configuration, logging, metrics, servers, channels and TLS.
//!
//! Everything above takes these as values: a [`Clock`], an [`Entropy`], a [`TaskGroup`], [`Metrics`], a
//! [`server::Listener`]. A test or a simulation replaces the values, and code above has no other way to reach the
//! world. clippy bans the ambient calls everywhere else.

pub mod backoff;
mod clock;
pub mod config;
mod entropy;
pub mod grpc;
pub mod grpc_metrics;
pub mod introspection;
pub mod json_gateway;
pub mod limits;
pub mod logging;
mod metrics;
pub mod server;
pub mod signals;
mod socket;
mod tasks;
pub mod tls;
pub mod trace;

pub use clock::{Clock, ClockSteering, Elapsed, Instant};
pub use entropy::Entropy;
pub use metrics::{HeldCounter, HeldCounters, Metrics};
pub use prometheus;
pub use tasks::{OnError, Panicked, StillRunning, TaskError, TaskGroup, panic_text};
pub use tokio_util::sync::CancellationToken;

/// Any error, where the kind no longer matters.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// The operation was abandoned because its caller or its process stops. Maps to gRPC `Canceled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("context canceled")]
pub struct Cancelled;
