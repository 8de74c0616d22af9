//! A broker in this process, and what tests do with a group of counters over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::specs::ShardSet;
use client::{ClientError, ClientOptions, CommittedReader, NewMessage, Publisher, ShardClient};
use consumer::{Consumer, ConsumerOptions};
use message::{Flags, Sequencer};
use proto::consumer::replica_status::Code;
use proto::consumer::{GetHintsRequest, ListRequest, StatRequest, StatResponse, list_response};
use proto::protocol::ReadRequest;
use runtime::{Clock, TaskGroup};
use testkit::TestBroker;

use crate::app::{COUNTS, Count, Counter};

const JOURNALS: &str = "
name: test/
replication: 1
fragment: {length: 1048576, compression_codec: NONE, refresh_interval: 1s, stores: ['file:///']}
labels: [{name: content-type, value: application/x-ndjson}]
children:
- {name: test/counts}
- {name: test/keys}
- name: test/logs/
  labels: [{name: content-type, value: application/x-gazette-recoverylog}]
  children: [{name: test/logs/counter}]
";

/// Where keys are published.
pub const KEYS: &str = "test/keys";

/// A broker, and what tests do with a group of counters over it.
pub struct Fixture {
    pub broker: TestBroker,
    pub tasks: TaskGroup,
    publisher: Publisher,
}

impl Fixture {
    pub async fn start() -> Fixture {
        Fixture::over(TestBroker::start().await.unwrap()).await
    }

    /// Over a broker which runs.
    pub async fn over(broker: TestBroker) -> Fixture {
        broker.create_journals(JOURNALS).await.unwrap();
        let publisher = broker.publisher().unwrap();
        Fixture { broker, tasks: TaskGroup::new("test"), publisher }
    }

    pub async fn member(&self, app: &Counter) -> Consumer {
        self.member_with(app, |_| {}).await
    }

    /// A member whose options `adjust` may change.
    pub async fn member_with(&self, app: &Counter, adjust: impl FnOnce(&mut ConsumerOptions)) -> Consumer {
        let mut options = ConsumerOptions::local(self.broker.endpoint(), "/test/counters").unwrap();
        options.lease_ttl = Duration::from_secs(2);
        adjust(&mut options);
        Consumer::start(app.clone(), options).await.unwrap()
    }

    pub fn shards(&self, member: &Consumer) -> ShardClient {
        ShardClient::new(member.endpoint(), ClientOptions::new(self.tasks.clone())).unwrap()
    }

    /// Creates the shard `counter`, with further fields of its specification.
    pub async fn create(&self, shards: &ShardClient, fields: &str) {
        let set = format!(
            "shards: [{{id: counter, sources: [{{journal: test/keys}}], max_txn_duration: 1s, {fields}}}]"
        );
        shards.apply(ShardSet::parse(&set).unwrap().to_apply_request().unwrap()).await.unwrap();
    }

    /// Publishes keys, and gives the end of the last one in the journal.
    pub async fn publish(&self, keys: &[&str]) -> i64 {
        let mut end = 0;
        for key in keys {
            let published =
                self.publisher.publish_committed(|_| testkit::target(KEYS), Count::of(key)).unwrap();
            end = published.await.unwrap().commit.as_ref().unwrap().end;
        }
        end
    }

    /// Every count which was published and committed before `end`.
    pub async fn counts(&self, end: i64) -> Vec<(String, u64)> {
        let request = ReadRequest { journal: COUNTS.to_owned(), end_offset: end, ..ReadRequest::default() };
        let new_message: NewMessage<Count> = Arc::new(|_| Ok(Count::default()));
        let sequencer = Sequencer::new(Vec::new(), 1000, 1 << 20);
        let mut reader = CommittedReader::new(self.broker.client().unwrap(), request, new_message, sequencer);
        let mut counts = Vec::new();
        loop {
            match reader.next().await {
                Ok(envelope) if envelope.message.uuid.flags() == Flags::ACK_TXN => {}
                Ok(envelope) => counts.push((envelope.message.key, envelope.message.count)),
                Err(error) => {
                    assert!(error.is_eof(), "{error}");
                    return counts;
                }
            }
        }
    }

    /// Stops the broker in order, and starts it again.
    pub async fn restart_broker(self) -> Fixture {
        let Fixture { broker, tasks, publisher } = self;
        Fixture { broker: broker.restart(|_| {}).await.unwrap(), tasks, publisher }
    }

    pub async fn stop(self) {
        self.tasks.cancel();
        self.broker.stop().await.unwrap();
    }
}

/// Fields of a shard which has a recovery log.
pub const WITH_LOG: &str = "recovery_log_prefix: test/logs, hint_prefix: /test/hints, hint_backups: 2";

pub async fn shard(shards: &ShardClient) -> Option<list_response::Shard> {
    shards.list(ListRequest::default()).await.unwrap().shards.into_iter().next()
}

/// Waits until `condition` is true of the shard, within the time that a test may take.
pub async fn wait_for(
    shards: &ShardClient,
    condition: impl Fn(&list_response::Shard) -> bool,
) -> list_response::Shard {
    let clock = Clock::system();
    let seen = async {
        loop {
            if let Some(shard) = shard(shards).await.filter(|shard| condition(shard)) {
                return shard;
            }
            clock.sleep(Duration::from_millis(10)).await;
        }
    };
    let seen = clock.timeout(Duration::from_secs(30), seen).await;
    match seen {
        Ok(shard) => shard,
        Err(_) => panic!("the shard did not come to be so: {:?}", shard(shards).await),
    }
}

pub fn codes(shard: &list_response::Shard) -> Vec<Code> {
    shard.status.iter().map(|status| status.code()).collect()
}

pub fn is_primary(shard: &list_response::Shard) -> bool {
    codes(shard).contains(&Code::Primary)
}

/// Whether this member is the primary.
pub fn is_primary_at(shard: &list_response::Shard, member: &Consumer) -> bool {
    let id = member.id().to_proto();
    is_primary(shard) && shard.route.as_ref().is_some_and(|route| route.primary_id() == Some(&id))
}

pub async fn stat(shards: &ShardClient, read_through: i64) -> Result<StatResponse, ClientError> {
    let read_through = BTreeMap::from([(KEYS.to_owned(), read_through)]);
    shards.stat(StatRequest { shard: "counter".to_owned(), read_through, ..StatRequest::default() }).await
}

pub fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

/// How many files the primary's hints speak of, if they are stored.
pub async fn live_files(shards: &ShardClient) -> Option<usize> {
    let request = GetHintsRequest { shard: "counter".to_owned(), ..GetHintsRequest::default() };
    let response = shards.get_hints(request).await.unwrap();
    response.primary_hints.and_then(|stored| stored.hints).map(|hints| hints.live_nodes.len())
}
