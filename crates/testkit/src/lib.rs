//! A cluster within a test: broker, etcd and consumers in this process, on loopback and in a temporary directory.
//!
//! For authors of applications: a test starts a broker, creates journals, starts the application, creates shards, publishes,
//! waits until all of it was processed, and looks at what came of it. Everything speaks over real connections, as it would
//! to `courant serve`.
//!
//! ```no_run
//! # use testkit::{TestBroker, TestConsumer};
//! # use runtime::BoxError;
//! # async fn test<A: consumer::Application>(app: A, message: A::Message) -> Result<(), BoxError>
//! # where A: Clone, A::Message: Default {
//! let broker = TestBroker::start().await?;
//! broker.create_journals(include_str!("../../../examples/stream-sum/journals.yaml")).await?;
//! let consumer = TestConsumer::start(&broker, app.clone()).await?;
//! consumer.create_shards(include_str!("../../../examples/stream-sum/shards.yaml")).await?;
//!
//! let mapping = |_: &A::Message| testkit::target("examples/stream-sum/chunks/part-000");
//! broker.publisher()?.publish_committed(mapping, message)?.await?;
//! consumer.wait_for_shards().await?;
//! assert!(broker.committed::<A::Message>("examples/stream-sum/sums").await?.is_empty());
//!
//! consumer.crash().await?;        // or stop(), which leaves in order
//! let next = TestConsumer::start(&broker, app).await?;
//! next.wait_for_primary("chunks-part-000").await?;
//! next.stop().await?;
//! broker.stop().await?;
//! # Ok(()) }
//! ```
//!
//! etcd is embedded in the broker. A test which needs a real one starts [`EtcdServer`], and names it in the broker's options.
//! Nothing here knows faults of machines or networks; tests of those use processes.

mod broker;
mod consumer;

use std::time::Duration;

pub use ::broker::EtcdChoice;
use message::Framing;
use message::mapping::{MappingError, Target};
use proto::JournalName;
use runtime::{BoxError, Clock};
pub use store_servers::EtcdServer;

pub use crate::broker::TestBroker;
pub use crate::consumer::TestConsumer;

/// Longest wait for anything: a test which waits for longer waits in vain.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at what cannot be watched.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A journal of JSON lines, to be published to.
///
/// # Errors
/// If the name is malformed.
pub fn target(journal: &str) -> Result<Target, MappingError> {
    let journal = JournalName::parse(journal).map_err(MappingError::Name)?;
    Ok(Target { journal, framing: Framing::Json })
}

/// Waits for what is expected to come soon.
async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> Result<T, BoxError> {
    let waited = Clock::system().timeout(WAIT_LIMIT, happens).await;
    waited.map_err(|_| format!("after {WAIT_LIMIT:?} still waiting for {what}").into())
}

/// The address in a choice of etcd; none if it is embedded.
fn etcd_address(choice: &EtcdChoice) -> Option<String> {
    match choice {
        EtcdChoice::Embedded => None,
        EtcdChoice::Address(address) => Some(address.clone()),
    }
}
