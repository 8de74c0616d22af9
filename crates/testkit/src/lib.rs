//! A cluster within a test: a broker with embedded etcd, in this process, on loopback and in a temporary directory.
//!
//! [`TestBroker`] is for tests of this project and for authors of applications: their consumers and clients talk to it
//! over real connections, as they would to `courant serve`. It knows no faults; tests that kill use processes.

use std::path::Path;

use broker::{Broker, BrokerOptions};
use client::{ClientOptions, JournalClient};
use runtime::{BoxError, TaskGroup};
use tempfile::TempDir;

/// A running broker and its directory, which is removed when this is dropped.
pub struct TestBroker {
    broker: Broker,
    bind: String,
    dir: TempDir,
    tasks: TaskGroup,
}

impl TestBroker {
    /// Starts a broker on a free port.
    ///
    /// # Errors
    /// If it cannot start; see [`Broker::start`].
    pub async fn start() -> Result<TestBroker, BoxError> {
        TestBroker::start_with(|_| {}).await
    }

    /// Starts a broker whose options `adjust` may change.
    ///
    /// # Errors
    /// If it cannot start; see [`Broker::start`].
    pub async fn start_with(adjust: impl FnOnce(&mut BrokerOptions)) -> Result<TestBroker, BoxError> {
        let dir = TempDir::with_prefix("courant-testkit-")?;
        let mut options = BrokerOptions::embedded(dir.path().join("data"));
        adjust(&mut options);
        // On the heap: the future of a whole broker would burden the stack of every test.
        let broker = Box::pin(Broker::start(options)).await?;
        let bind = broker.endpoint().trim_start_matches("http://").to_owned();
        Ok(TestBroker { broker, bind, dir, tasks: TaskGroup::new("testkit") })
    }

    /// Stops the broker in order, and starts it again on its port and directory, as changed by `adjust`.
    ///
    /// # Errors
    /// If it failed, or cannot start again.
    pub async fn restart(self, adjust: impl FnOnce(&mut BrokerOptions)) -> Result<TestBroker, BoxError> {
        let TestBroker { broker, bind, dir, tasks } = self;
        let mut options = BrokerOptions::embedded(dir.path().join("data"));
        options.bind.clone_from(&bind);
        adjust(&mut options);
        broker.stop().await?;
        Ok(TestBroker { broker: Box::pin(Broker::start(options)).await?, bind, dir, tasks })
    }

    /// The URL of the broker, and of its etcd.
    pub fn endpoint(&self) -> &str {
        self.broker.endpoint()
    }

    /// The broker.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// A directory which lives as long as this.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client of the broker. Its tasks end with [`TestBroker::stop`].
    ///
    /// # Errors
    /// Never, as the endpoint is a valid one.
    pub fn client(&self) -> Result<JournalClient, BoxError> {
        Ok(JournalClient::new(self.endpoint(), ClientOptions::new(self.tasks.child("client")))?)
    }

    /// Stops the broker in order.
    ///
    /// # Errors
    /// If a part of it failed.
    pub async fn stop(self) -> Result<(), BoxError> {
        self.tasks.cancel();
        self.broker.stop().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_restarts_on_its_port_and_directory() {
        let broker = TestBroker::start().await.unwrap();
        let endpoint = broker.endpoint().to_owned();
        let id = broker.broker().id().clone();
        let client = broker.client().unwrap();
        assert!(client.list(Default::default()).await.unwrap().journals.is_empty());
        let broker = broker.restart(|options| options.journal_limit = 5).await.unwrap();
        assert_eq!((broker.endpoint(), broker.broker().id()), (endpoint.as_str(), &id));
        broker.stop().await.unwrap();
    }
}
