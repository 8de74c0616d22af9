//! Tests of an application as its author would write them.

use consumer::ConsumerOptions;
use runtime::BoxError;
use testkit::{EtcdChoice, EtcdServer, TestBroker, TestConsumer, target};

use crate::app::{COUNTS, Count, Counter};
use crate::fixture::KEYS;

const JOURNALS: &str = "
name: test/
labels: [{name: content-type, value: application/x-ndjson}]
children:
- {name: test/counts}
- {name: test/keys}
- {name: test/logs/counter, labels: [{name: content-type, value: application/x-gazette-recoverylog}]}
";
const SHARDS: &str = "
shards:
- id: counter
  sources: [{journal: test/keys}]
  recovery_log_prefix: test/logs
  hint_prefix: /test/hints
";

/// Publishes a key, and gives the counts which are committed once it was processed.
async fn count(broker: &TestBroker, consumer: &TestConsumer, key: &str) -> Result<Vec<u64>, BoxError> {
    broker.publisher()?.publish_committed(|_| target(KEYS), Count::of(key))?.await?;
    consumer.wait_for_shards().await?;
    Ok(broker.committed::<Count>(COUNTS).await?.into_iter().map(|count| count.count).collect())
}

#[tokio::test]
async fn members_crash_and_leave_and_every_key_is_counted_once() {
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(JOURNALS).await.unwrap();
    let first = TestConsumer::start(&broker, Counter::default()).await.unwrap();
    first.create_shards(SHARDS).await.unwrap();
    assert_eq!(count(&broker, &first, "a").await.unwrap(), [1]);
    first.crash().await.unwrap();

    let second = TestConsumer::start(&broker, Counter::default()).await.unwrap();
    assert_eq!(count(&broker, &second, "a").await.unwrap(), [1, 2]);
    second.stop().await.unwrap();

    let third = TestConsumer::start(&broker, Counter::default()).await.unwrap();
    third.wait_for_primary("counter").await.unwrap();
    assert_eq!(count(&broker, &third, "b").await.unwrap(), [1, 2, 1]);
    third.stop().await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test]
async fn a_group_coordinates_over_the_etcd_of_its_broker() {
    let etcd = EtcdServer::start().await.unwrap();
    let address = EtcdChoice::Address(etcd.endpoint().to_owned());
    let broker = TestBroker::start_with(|options| options.etcd = address).await.unwrap();
    broker.create_journals(JOURNALS).await.unwrap();
    let mut used = String::new();
    let adjust = |options: &mut ConsumerOptions| used.clone_from(&options.etcd);
    let consumer = TestConsumer::start_with(&broker, Counter::default(), adjust).await.unwrap();
    assert_eq!(used, etcd.endpoint());
    consumer.create_shards(SHARDS).await.unwrap();
    assert_eq!(count(&broker, &consumer, "a").await.unwrap(), [1]);
    consumer.stop().await.unwrap();
    broker.stop().await.unwrap();
}
