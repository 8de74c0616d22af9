//! A member of an application's group within a test.

use std::collections::BTreeMap;
use std::time::Duration;

use auth::Authorizer;
use client::specs::{GoDuration, ShardSet};
use client::{ClientOptions, JournalClient, ShardClient};
use consumer::{Application, Consumer, ConsumerOptions};
use proto::consumer::{ListRequest, ShardSpec, StatRequest, StatResponse};
use proto::protocol::LabelSelector;
use runtime::{BoxError, Clock, TaskGroup};

use crate::broker::head;
use crate::{LOOK_EVERY, TestBroker, WAIT_LIMIT};

/// Prefix of the group's keys, unless a test says otherwise.
const GROUP: &str = "/consumer.test";
/// Longer than a machine under load forgets a process. A crash does not wait for it.
const LEASE: Duration = Duration::from_secs(60);
const MAX_TXN: GoDuration = GoDuration(1_000_000_000);

/// A running member.
pub struct TestConsumer {
    consumer: Consumer,
    shards: ShardClient,
    journals: JournalClient,
    tasks: TaskGroup,
}

impl TestConsumer {
    /// Starts a member of the group `/consumer.test`, which runs `app` over `broker`. Several share the shards.
    ///
    /// # Errors
    /// If it cannot start; see [`Consumer::start`].
    pub async fn start<A: Application>(broker: &TestBroker, app: A) -> Result<TestConsumer, BoxError> {
        TestConsumer::start_with(broker, app, |_| {}).await
    }

    /// Starts a member whose options `adjust` may change.
    ///
    /// # Errors
    /// If it cannot start; see [`Consumer::start`].
    pub async fn start_with<A: Application>(
        broker: &TestBroker,
        app: A,
        adjust: impl FnOnce(&mut ConsumerOptions),
    ) -> Result<TestConsumer, BoxError> {
        let mut options = ConsumerOptions::local(broker.endpoint(), GROUP)?;
        options.etcd = broker.etcd().to_owned();
        options.lease_ttl = LEASE;
        adjust(&mut options);
        let authorizer = options.auth_keys.clone().map_or_else(Authorizer::none, Authorizer::signing);
        let consumer = Box::pin(Consumer::start(app, options)).await?;
        let tasks = TaskGroup::new("testkit");
        let client = ClientOptions { authorizer, ..ClientOptions::new(tasks.clone()) };
        let shards = ShardClient::new(consumer.endpoint(), client)?;
        Ok(TestConsumer { consumer, shards, journals: broker.client()?, tasks })
    }

    /// The URL of the member.
    pub fn endpoint(&self) -> &str {
        self.consumer.endpoint()
    }

    /// The member.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// A client of the member's Shard service, which has its keys. Its tasks end with the member.
    pub fn shards(&self) -> &ShardClient {
        &self.shards
    }

    /// Creates shards, and waits until each is served by its primary. They are specified as for `courant shards apply`, by a
    /// set in YAML. A shard without `max_txn_duration` has a second.
    ///
    /// # Errors
    /// If the set is malformed, a shard exists, or does not come to be served.
    pub async fn create_shards(&self, set: &str) -> Result<(), BoxError> {
        let mut set = ShardSet::parse(set)?;
        if set.common.max_txn_duration == GoDuration::default() {
            set.common.max_txn_duration = MAX_TXN;
        }
        let request = set.to_apply_request()?;
        self.shards.apply(request.clone()).await?;
        for spec in request.changes.iter().filter_map(|change| change.upsert.as_ref()) {
            if !spec.disable {
                self.wait_for_primary(&spec.id).await?;
            }
        }
        Ok(())
    }

    /// Waits until a shard is served by its primary, here or elsewhere: its store is open, and it runs transactions.
    ///
    /// # Errors
    /// If that does not come to be within a minute: with the last answer, and the status of its replicas.
    pub async fn wait_for_primary(&self, shard: &str) -> Result<(), BoxError> {
        self.stat(shard, BTreeMap::new()).await.map(drop)
    }

    /// Waits until the shards of the group have processed everything that their source journals hold by now. Gives the
    /// answer of each, by its id, which says how far it has read and what it has published.
    ///
    /// # Errors
    /// If that does not come to be within a minute for one of them.
    pub async fn wait_for_shards(&self) -> Result<BTreeMap<String, StatResponse>, BoxError> {
        self.wait_for_selected(LabelSelector::everything()).await
    }

    /// As [`TestConsumer::wait_for_shards`], for those which `selector` matches.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_for_selected(
        &self,
        selector: LabelSelector,
    ) -> Result<BTreeMap<String, StatResponse>, BoxError> {
        let mut answers = BTreeMap::new();
        for spec in self.specs(selector).await? {
            let mut read_through = BTreeMap::new();
            for source in &spec.sources {
                read_through.insert(source.journal.clone(), head(&self.journals, &source.journal).await?);
            }
            answers.insert(spec.id.clone(), self.stat(&spec.id, read_through).await?);
        }
        Ok(answers)
    }

    async fn specs(&self, selector: LabelSelector) -> Result<Vec<ShardSpec>, BoxError> {
        let request = ListRequest { selector: Some(selector), ..ListRequest::default() };
        let shards = self.shards.list(request).await?.shards;
        Ok(shards.into_iter().filter_map(|shard| shard.spec).filter(|spec| !spec.disable).collect())
    }

    /// Waits for a shard to be served and to have read through these offsets.
    async fn stat(&self, shard: &str, read_through: BTreeMap<String, i64>) -> Result<StatResponse, BoxError> {
        let request = StatRequest { shard: shard.to_owned(), read_through, ..StatRequest::default() };
        let clock = Clock::system();
        let mut refused = None;
        let answered = async {
            loop {
                // It may move, be between two attempts to run, or of a process that died.
                match self.shards.stat(request.clone()).await {
                    Ok(response) => return response,
                    Err(error) => refused = Some(error),
                }
                clock.sleep(LOOK_EVERY).await;
            }
        };
        if let Ok(response) = clock.timeout(WAIT_LIMIT, answered).await {
            return Ok(response);
        }
        let last = refused.map_or("no answer".to_owned(), |error| error.to_string());
        let listed = self.shards.list(ListRequest::default()).await.map(|list| list.shards);
        let listed = listed.map(|shards| {
            let of =
                |id: &str| shards.iter().find(|found| found.spec.as_ref().is_some_and(|spec| spec.id == id));
            of(shard).map(|shard| shard.status.clone())
        });
        Err(format!("shard {shard} did not come to {request:?} within {WAIT_LIMIT:?}: {last}; its replicas: {listed:?}").into())
    }

    /// Leaves the group in order: others take its shards over, and what cannot be taken over ends its transaction.
    ///
    /// # Errors
    /// If a part of it failed.
    pub async fn stop(self) -> Result<(), BoxError> {
        self.tasks.cancel();
        self.consumer.stop().await
    }

    /// Ends at once: transactions are abandoned, and nobody is told, as if the process had died. etcd is made to find out
    /// now rather than when the lease runs out.
    ///
    /// # Errors
    /// If etcd cannot be asked.
    pub async fn crash(self) -> Result<(), BoxError> {
        self.tasks.cancel();
        let resolver = self.consumer.resolver().clone();
        let lease = resolver.key_space().members().get(self.consumer.id()).map(|member| member.lease);
        self.consumer.kill().await;
        if let Some(lease) = lease {
            resolver.mirror().etcd().revoke(lease).await?;
        }
        Ok(())
    }
}
