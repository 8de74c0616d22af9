//! The consumer framework: applications, shards and exactly-once transactions.
//!
//! An [`Application`] says how to fold messages into a [`Store`] and what to publish. The framework assigns *shards* of
//! its work to the processes of a group, reads committed messages exactly once, runs [`transaction`]s, recovers the
//! state of a shard from its recovery log wherever the shard goes, and serves the `consumer.Shard` service. [`run`] makes
//! a program of an application; [`Consumer`] runs it within a process.
//!
//! ```text
//! Consumer ── ShardSet ── one task per shard ── standby: player ─▶ primary: store, transactions
//!    │            ▲                                                    ▲
//!    └ service ── resolver                              pumps of source journals
//! ```
//!
//! This crate does not know the broker, only its client; and it knows stores only by their contract.
//!
//! # A whole application
//!
//! It counts how often each key comes, keeps the counts in a JSON file, and publishes each new count. This is all that there
//! is to it; the program is `fn main() -> ExitCode { consumer::run(Counter) }`.
//!
//! ```
//! use std::collections::BTreeMap;
//!
//! use client::Publisher;
//! use consumer::{Application, Consumed, JsonFileStore, Shard};
//! use message::mapping::Target;
//! use message::{Envelope, Flags, Framing, Uuid};
//! use proto::JournalName;
//! use proto::protocol::JournalSpec;
//! use recoverylog::Recorder;
//! use runtime::BoxError;
//! use serde::{Deserialize, Serialize};
//!
//! /// A key which came; or, as it is published, how often it did. A line of JSON in its journal.
//! #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
//! struct Count {
//!     uuid: Uuid,
//!     key: String,
//!     count: u64,
//! }
//!
//! message::json_message!(Count);
//!
//! struct Counter;
//!
//! impl Application for Counter {
//!     type Message = Count;
//!     type Store = JsonFileStore<BTreeMap<String, u64>>;
//!
//!     async fn new_store(&self, shard: &Shard, recorder: Option<Recorder>) -> Result<Self::Store, BoxError> {
//!         Ok(JsonFileStore::open(recorder, shard.tasks()).await?)
//!     }
//!
//!     fn new_message(&self, _: &JournalSpec) -> Result<Count, BoxError> {
//!         Ok(Count::default())
//!     }
//!
//!     async fn consume_message(
//!         &self,
//!         _: &Shard,
//!         store: &mut Self::Store,
//!         envelope: &Envelope<Count>,
//!         publisher: &mut Publisher,
//!     ) -> Result<Consumed, BoxError> {
//!         let message = &envelope.message;
//!         if message.uuid.flags() != Flags::ACK_TXN {
//!             let count = store.state.entry(message.key.clone()).or_default();
//!             *count += 1;
//!             let target = Target { journal: JournalName::parse("my/counts")?, framing: Framing::Json };
//!             publisher.publish_uncommitted(|_| Ok(target), Count { count: *count, ..message.clone() })?;
//!         }
//!         Ok(Consumed::Done)
//!     }
//!
//!     async fn finalize_txn(&self, _: &Shard, _: &mut Self::Store, _: &mut Publisher) -> Result<(), BoxError> {
//!         Ok(()) // Nothing is held back.
//!     }
//! }
//!
//! // The test of it: one member counts, and dies; another one goes on.
//! # fn main() -> Result<(), BoxError> { tokio::runtime::Runtime::new()?.block_on(test()) }
//! async fn test() -> Result<(), BoxError> {
//!     let broker = testkit::TestBroker::start().await?;
//!     broker.create_journals("
//!         name: my/
//!         labels: [{name: content-type, value: application/x-ndjson}]
//!         children:
//!         - {name: my/counts}
//!         - {name: my/keys}
//!         - {name: my/logs/counter, labels: [{name: content-type, value: application/x-gazette-recoverylog}]}
//!     ").await?;
//!     let member = testkit::TestConsumer::start(&broker, Counter).await?;
//!     member.create_shards("
//!         shards:
//!         - {id: counter, sources: [{journal: my/keys}], recovery_log_prefix: my/logs, hint_prefix: /my/hints}
//!     ").await?;
//!
//!     let publisher = broker.publisher()?;
//!     let publish = |key: &str| {
//!         let message = Count { key: key.to_owned(), ..Count::default() };
//!         publisher.publish_committed(|_| testkit::target("my/keys"), message)
//!     };
//!     publish("a")?.await?;
//!     publish("b")?.await?;
//!     member.wait_for_shards().await?;
//!     member.crash().await?;
//!
//!     let member = testkit::TestConsumer::start(&broker, Counter).await?;
//!     publish("a")?.await?;
//!     member.wait_for_shards().await?;
//!     let counts: Vec<Count> = broker.committed("my/counts").await?;
//!     let counts: Vec<_> = counts.iter().map(|message| (message.key.as_str(), message.count)).collect();
//!     assert_eq!(counts, [("a", 1), ("b", 1), ("a", 2)]);
//!     member.stop().await?;
//!     broker.stop().await
//! }
//! ```

mod app;
mod config;
mod consumer;
mod drain;
#[cfg(test)]
mod fixtures;
mod hints;
mod init;
mod json_store;
mod metrics;
mod progress;
mod prune;
mod run;
mod schema;
mod service;
mod shard;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod txn;

pub use app::{Application, Consumed};
pub use auth::{Access, Admission, Capability};
pub use config::{ConsumerArgs, ConsumerOptions, OptionsError, ServeArgs};
pub use consumer::Consumer;
pub use init::InitContext;
pub use json_store::{JsonFileStore, JsonReader, JsonStoreError};
pub use progress::{Progress, SourceProgress};
pub use run::{run, run_with};
pub use schema::{ConsumerSchema, KeySpace, Mirror};
pub use service::{Peers, Resolution, ResolveArgs, ResolveError, Resolver};
pub use shard::Shard;
pub use store::{Store, StoreFenced};
pub use txn::core as transaction;
