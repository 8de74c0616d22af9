//! Client of brokers and consumers: routes, appends, readers, lists, specification trees.
//!
//! [`JournalClient`] makes single requests and knows where to send them. On it stand [`AppendService`], which appends in
//! the background, in order and in batches; [`RetryReader`], which reads a journal over any number of calls;
//! [`WatchedList`], a listing which stays current; and, for messages, [`Publisher`], [`UncommittedReader`] and
//! [`CommittedReader`]. [`ShardClient`] talks to consumers.
//!
//! The client learns of the cluster from response headers alone. It never reads etcd. Brokers may come and go: whatever
//! may be repeated is repeated, with another broker where one is known, until it succeeds or cannot.

mod append;
mod append_service;
mod brokers;
mod channels;
mod client;
mod committed;
mod error;
mod op;
mod options;
mod outage;
mod publisher;
mod reader;
mod routes;
mod series;
mod shard_client;
pub mod specs;
#[cfg(feature = "testing")]
pub mod testing;
mod uncommitted;
mod watched_list;

pub use append_service::{AppendService, AppendSlot};
pub use client::{ClientOptions, JournalClient};
pub use committed::{CommittedError, CommittedReader};
pub use error::{ClientError, StatusCode};
pub use op::{AppendFuture, OpError, OpFuture, OpPromise};
pub use options::{authorizer_of, consumer_authorizer_of};
pub use publisher::{PublishError, Publisher};
pub use reader::{Chunk, ReadError, Reader, RetryReader};
pub use shard_client::ShardClient;
pub use uncommitted::{FRAME_BYTES_MAX, Gap, IterError, NewMessage, SpecError, UncommittedReader};
pub use watched_list::{WatchStopped, WatchedList};
