//! Fragment stores: where the fragments of journals are kept once they are complete.
//!
//! [`Stores`] makes a [`Store`] of a URL when it is first asked for, checks its health from then on, and drops it when it
//! is no longer used. A store puts, finds, lists and reads the files of fragments, under the names and with the URL
//! arguments of the journal protocol §10. What is uploaded is checked before it becomes visible and read back after; what
//! is read whole is checked against its SHA-1. Nothing that a journal's name or a path postfix says can leave a store's
//! root. Only this crate names `object_store`.
//!
//! Stores are directories, buckets of S3 and of Google, and containers of Azure. Each kind is an implementation of
//! `Place`, and all pass the same suite of tests, the cloud ones against servers.

mod aws_profile;
mod azure;
mod azure_sas;
mod cloud_place;
mod content;
mod environment;
mod error;
mod file_place;
mod google;
mod health;
mod index_cache;
mod listing;
mod location;
mod odd_keys;
mod operation;
mod place;
mod registry;
mod retry;
mod s3;
mod store;
mod times;
mod upload;

pub use content::{CONTENT_CHUNK_BYTES, ContentStream, STEP_BYTES};
pub use environment::Environment;
pub use error::StoreError;
pub use health::{HEALTHY_INTERVAL, Health};
pub use operation::Operation;
pub use registry::{STORES_MAX, Stores, StoresConfig};
pub use store::{REQUESTS_IN_FLIGHT_MAX, Store, UPLOADS_IN_FLIGHT_MAX};
pub use times::StoreTimes;
pub use upload::{Source, compressions_at_once_max};
