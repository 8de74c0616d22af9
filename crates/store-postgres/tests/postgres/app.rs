//! A whole application: counts keys into a table and publishes each new count, exactly once through restarts of its
//! processes and of the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::specs::{JournalNode, ShardSet};
use client::{AppendService, ClientOptions, CommittedReader, NewMessage, Publisher, ShardClient};
use consumer::{Application, Consumed, Consumer, ConsumerOptions, Shard};
use message::mapping::Target;
use message::{Envelope, Flags, Framing, Sequencer, Uuid};
use proto::JournalName;
use proto::consumer::StatRequest;
use proto::protocol::{JournalSpec, ReadRequest};
use recoverylog::Recorder;
use runtime::{BoxError, Clock, TaskGroup};
use serde::{Deserialize, Serialize};
use store_postgres::{Overlap, PostgresOptions, PostgresStore};
use testkit::TestBroker;

use crate::world::World;

const KEYS: &str = "test/keys";
const COUNTS: &str = "test/counts";
const JOURNALS: &str = "
name: test/
replication: 1
fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1s, stores: ['file:///']}
labels: [{name: content-type, value: application/x-ndjson}]
children: [{name: test/counts}, {name: test/keys}]
";
const SHARDS: &str = "shards: [{id: counter, sources: [{journal: test/keys}], max_txn_duration: 1s}]";

/// A key to be counted; or, as it is published, its count.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Count {
    uuid: Uuid,
    key: String,
    count: i64,
}

message::json_message!(Count);

fn target(journal: &str) -> Target {
    Target { journal: JournalName::parse(journal).unwrap(), framing: Framing::Json }
}

/// Counts by reading, computing and writing back, or within one statement.
#[derive(Clone)]
struct Counter {
    options: PostgresOptions,
}

const UPSERT: &str = "INSERT INTO counts VALUES ($1, 1)
    ON CONFLICT (key) DO UPDATE SET count = counts.count + 1 RETURNING count";

impl Application for Counter {
    type Message = Count;
    type Store = PostgresStore;

    async fn new_store(&self, shard: &Shard, _: Option<Recorder>) -> Result<PostgresStore, BoxError> {
        Ok(PostgresStore::open(shard.fqn(), self.options.clone(), shard.tasks()).await?)
    }

    fn new_message(&self, _: &JournalSpec) -> Result<Count, BoxError> {
        Ok(Count::default())
    }

    async fn consume_message(
        &self,
        _: &Shard,
        store: &mut PostgresStore,
        envelope: &Envelope<Count>,
        publisher: &mut Publisher,
    ) -> Result<Consumed, BoxError> {
        let message = &envelope.message;
        if message.uuid.flags() == Flags::ACK_TXN {
            return Ok(Consumed::Done);
        }
        let count: i64 = match self.options.overlap {
            Overlap::AtOnce => store.query(UPSERT, &[&message.key]).await?[0].get(0),
            Overlap::AfterCommit => {
                let read = "SELECT count FROM counts WHERE key = $1";
                let row = store.query_opt(read, &[&message.key]).await?;
                let count = row.map_or(0, |row| row.get::<_, i64>(0)) + 1;
                let write = "INSERT INTO counts VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET count = EXCLUDED.count";
                store.execute(write, &[&message.key, &count]).await?;
                count
            }
        };
        publisher.publish_uncommitted(|_| Ok(target(COUNTS)), Count { count, ..message.clone() })?;
        Ok(Consumed::Done)
    }

    async fn finalize_txn(
        &self,
        _: &Shard,
        _: &mut PostgresStore,
        _: &mut Publisher,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

struct Fixture {
    world: World,
    broker: TestBroker,
    tasks: TaskGroup,
    publisher: Publisher,
    app: Counter,
    /// End of the last published key.
    end: i64,
    published: BTreeMap<String, i64>,
}

impl Fixture {
    async fn start(overlap: Overlap) -> Fixture {
        let world = World::new().await;
        let broker = TestBroker::start().await.unwrap();
        let client = broker.client().unwrap();
        client.apply(JournalNode::parse(JOURNALS).unwrap().to_apply_request().unwrap()).await.unwrap();
        let tasks = TaskGroup::new("test");
        let publisher = Publisher::new(AppendService::new(client, tasks.child("appends")), None);
        let app = Counter { options: PostgresOptions { overlap, ..world.options() } };
        Fixture { world, broker, tasks, publisher, app, end: 0, published: BTreeMap::new() }
    }

    async fn member(&self) -> Consumer {
        let mut options = ConsumerOptions::local(self.broker.endpoint(), "/test/counters").unwrap();
        options.lease_ttl = Duration::from_secs(2);
        Consumer::start(self.app.clone(), options).await.unwrap()
    }

    fn shards(&self, member: &Consumer) -> ShardClient {
        ShardClient::new(member.endpoint(), ClientOptions::new(self.tasks.clone())).unwrap()
    }

    async fn publish(&mut self, keys: usize) {
        for number in 0..keys {
            let key = format!("key {}", number % 7);
            *self.published.entry(key.clone()).or_default() += 1;
            let message = Count { key, ..Count::default() };
            let published = self.publisher.publish_committed(|_| Ok(target(KEYS)), message).unwrap();
            self.end = published.await.unwrap().commit.as_ref().unwrap().end;
        }
    }

    /// Waits until the shard has counted all keys that were published, and gives the end of the published counts.
    async fn counted(&self, member: &Consumer) -> i64 {
        let (shards, clock) = (self.shards(member), Clock::system());
        let read_through = BTreeMap::from([(KEYS.to_owned(), self.end)]);
        let request = StatRequest { shard: "counter".to_owned(), read_through, ..StatRequest::default() };
        let counted = async {
            loop {
                // The shard may be between two attempts.
                match shards.stat(request.clone()).await {
                    Ok(response) => return response.publish_at.get(COUNTS).copied().unwrap_or(0),
                    Err(error) => println!("not yet: {error}"),
                }
                clock.sleep(Duration::from_millis(50)).await;
            }
        };
        clock.timeout(Duration::from_secs(60), counted).await.unwrap()
    }

    /// Every count which was published and committed before `end`, by key in order.
    async fn counts(&self, end: i64) -> BTreeMap<String, Vec<i64>> {
        let request = ReadRequest { journal: COUNTS.to_owned(), end_offset: end, ..ReadRequest::default() };
        let new_message: NewMessage<Count> = Arc::new(|_| Ok(Count::default()));
        let sequencer = Sequencer::new(Vec::new(), 1000, 1 << 20);
        let mut reader = CommittedReader::new(self.broker.client().unwrap(), request, new_message, sequencer);
        let mut counts: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        loop {
            match reader.next().await {
                Ok(envelope) if envelope.message.uuid.flags() == Flags::ACK_TXN => {}
                Ok(envelope) => counts.entry(envelope.message.key).or_default().push(envelope.message.count),
                Err(error) => {
                    assert!(error.is_eof(), "{error}");
                    return counts;
                }
            }
        }
    }
}

async fn counts_exactly_once(overlap: Overlap) {
    let mut fixture = Fixture::start(overlap).await;
    let first = fixture.member().await;
    fixture.shards(&first).apply(ShardSet::parse(SHARDS).unwrap().to_apply_request().unwrap()).await.unwrap();
    fixture.publish(40).await;
    fixture.counted(&first).await;

    // A process dies with a transaction under way.
    fixture.publish(40).await;
    first.kill().await;
    let second = fixture.member().await;
    fixture.counted(&second).await;

    // The server dies, and comes back.
    fixture.publish(40).await;
    fixture.world.server.crash().unwrap();
    fixture.publish(20).await;
    fixture.world.server.start_again(&[]).unwrap();
    fixture.counted(&second).await;

    // A process leaves in order, and another one takes over.
    fixture.publish(20).await;
    let third = fixture.member().await;
    second.stop().await.unwrap();
    fixture.publish(20).await;
    let end = fixture.counted(&third).await;

    let expected: BTreeMap<String, Vec<i64>> =
        fixture.published.iter().map(|(key, count)| (key.clone(), (1..=*count).collect())).collect();
    assert_eq!(fixture.counts(end).await, expected);
    fixture.world.reconnect().await;
    for (key, count) in &fixture.published {
        assert_eq!(fixture.world.count(key).await, Some(*count), "{key}");
    }
    third.stop().await.unwrap();
    fixture.tasks.cancel();
    fixture.broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_counts_exactly_once() {
    counts_exactly_once(Overlap::AfterCommit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_with_overlapping_transactions_counts_exactly_once() {
    counts_exactly_once(Overlap::AtOnce).await;
}
