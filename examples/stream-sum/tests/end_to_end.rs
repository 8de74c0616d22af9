//! A chunker over two members of the summer's group, one of which is killed half-way: every sum is right, and comes once.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::specs::{JournalNode, ShardSet};
use client::{ClientOptions, ShardClient};
use consumer::{Consumer, ConsumerOptions};
use proto::consumer::replica_status::Code;
use proto::consumer::{ListRequest, list_response};
use proto::protocol::LabelSelector;
use runtime::{CancellationToken, Clock, TaskGroup};
use stream_sum::Summer;
use stream_sum::chunker::{ChunkerArgs, Progress, ProgressMode, run};
use testkit::TestBroker;

const JOURNALS: &str = include_str!("../journals.yaml");
const SHARDS: &str = include_str!("../shards.yaml");
const WORKERS: u64 = 4;
const STREAMS: u64 = 10;
const CHUNKS: u64 = 10;

async fn start_summer(broker: &TestBroker) -> Consumer {
    let mut options = ConsumerOptions::local(broker.endpoint(), "/test/summer").unwrap();
    options.lease_ttl = Duration::from_secs(2);
    Consumer::start(Summer::default(), options).await.unwrap()
}

async fn apply_specs(broker: &TestBroker, summer: &Consumer, tasks: &TaskGroup) -> ShardClient {
    let client = broker.client().unwrap();
    client.apply(JournalNode::parse(JOURNALS).unwrap().to_apply_request().unwrap()).await.unwrap();
    let shards = ShardClient::new(summer.endpoint(), ClientOptions::new(tasks.clone())).unwrap();
    shards.apply(ShardSet::parse(SHARDS).unwrap().to_apply_request().unwrap()).await.unwrap();
    shards
}

/// Waits until `condition` is true of the shards. The wait is bounded by the test's own limit.
async fn wait_for_shards(shards: &ShardClient, condition: impl Fn(&[list_response::Shard]) -> bool) {
    let request = ListRequest { selector: Some(LabelSelector::everything()), ..ListRequest::default() };
    while !condition(&shards.list(request.clone()).await.unwrap().shards) {
        Clock::system().sleep(Duration::from_millis(20)).await;
    }
}

fn is_primary(shard: &list_response::Shard) -> bool {
    shard.status.iter().any(|status| status.code() == Code::Primary)
}

/// Whether each of two members is the primary of some shard.
fn are_shared(shards: &[list_response::Shard]) -> bool {
    let primary =
        |shard: &list_response::Shard| shard.route.as_ref().and_then(|route| route.primary_id().cloned());
    let first = shards.first().and_then(primary);
    shards.iter().all(is_primary) && shards.iter().any(|shard| primary(shard) != first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_although_a_member_is_killed() {
    let tasks = TaskGroup::new("test");
    let broker = TestBroker::start().await.unwrap();
    let (killed, kept) = (start_summer(&broker).await, start_summer(&broker).await);
    let shards = apply_specs(&broker, &kept, &tasks).await;
    wait_for_shards(&shards, are_shared).await;

    // The member is killed while the chunker runs, at the first progress that it reports.
    let client = broker.client().unwrap();
    let args = ChunkerArgs {
        zone: "local".to_owned(),
        streams: STREAMS as i64,
        chunks: CHUNKS,
        workers: WORKERS,
        delay: Duration::from_secs(60),
        progress: ProgressMode::None,
    };
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&has_ended);
    let chunker = async move {
        let (mut progress, stop) = (Progress::new(ProgressMode::None, None), CancellationToken::new());
        let totals = run(&client, &args, &mut progress, &stop, &TaskGroup::new("chunker")).await;
        ended.store(true, Ordering::Relaxed);
        totals.unwrap()
    };
    let resolver = kept.resolver().clone();
    let kill = async move {
        let has_begun = || resolver.local_progress().values().any(|progress| progress.transactions > 1);
        while !has_begun() && !has_ended.load(Ordering::Relaxed) {
            Clock::system().sleep(Duration::from_millis(1)).await;
        }
        killed.kill().await;
    };
    let (totals, ()) = tokio::join!(chunker, kill);
    assert_eq!((totals.streams, totals.chunks), (WORKERS * STREAMS, WORKERS * STREAMS * (CHUNKS + 1)));

    kept.stop().await.unwrap();
    tasks.cancel();
    broker.stop().await.unwrap();
}
