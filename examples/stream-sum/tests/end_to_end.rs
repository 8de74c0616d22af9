//! A chunker over two members of the summer's group, one of which is killed half-way: every sum is right, and comes once.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proto::consumer::{ListRequest, list_response};
use runtime::{CancellationToken, Clock, TaskGroup};
use stream_sum::Summer;
use stream_sum::chunker::{ChunkerArgs, Progress, ProgressMode, run};
use testkit::{TestBroker, TestConsumer};

const JOURNALS: &str = include_str!("../journals.yaml");
const SHARDS: &str = include_str!("../shards.yaml");
const WORKERS: u64 = 4;
const STREAMS: u64 = 10;
const CHUNKS: u64 = 10;

async fn start_summer(broker: &TestBroker) -> TestConsumer {
    TestConsumer::start(broker, Summer::default()).await.unwrap()
}

/// Whether each of two members is the primary of some shard.
fn are_shared(shards: &[list_response::Shard]) -> bool {
    let primary =
        |shard: &list_response::Shard| shard.route.as_ref().and_then(|route| route.primary_id().cloned());
    let first = shards.first().and_then(primary);
    shards.iter().any(|shard| primary(shard) != first)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_although_a_member_is_killed() {
    let broker = TestBroker::start().await.unwrap();
    let (killed, kept) = (start_summer(&broker).await, start_summer(&broker).await);
    broker.create_journals(JOURNALS).await.unwrap();
    kept.create_shards(SHARDS).await.unwrap();
    let shards = kept.shards().list(ListRequest::default()).await.unwrap().shards;
    assert!(are_shared(&shards), "{shards:?}");

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
    let resolver = kept.consumer().resolver().clone();
    let kill = async move {
        let has_begun = || resolver.local_progress().values().any(|progress| progress.transactions > 1);
        while !has_begun() && !has_ended.load(Ordering::Relaxed) {
            Clock::system().sleep(Duration::from_millis(1)).await;
        }
        killed.crash().await.unwrap();
    };
    let (totals, ()) = tokio::join!(chunker, kill);
    assert_eq!((totals.streams, totals.chunks), (WORKERS * STREAMS, WORKERS * STREAMS * (CHUNKS + 1)));

    kept.stop().await.unwrap();
    broker.stop().await.unwrap();
}
