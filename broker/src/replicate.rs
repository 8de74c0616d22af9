//! The two ends of Replicate (journal protocol §6): a primary's streams to its peers, and the service which hands such a
//! stream to the replica that it is for.

mod connect;
mod serve;

pub use connect::GrpcConnector;
pub use serve::serve;
