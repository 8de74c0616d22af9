//! Who takes a shard over, from whom, and what it costs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use consumer::Consumer;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::consumer::list_response;
use proto::consumer::replica_status::Code;
use runtime::{Clock, Metrics};

use crate::app::{COUNTS, Counter};
use crate::fixture::*;

/// Whether the shard has a primary and `standbys` more replicas which are ready.
fn is_ready(shard: &list_response::Shard, standbys: usize) -> bool {
    let codes = codes(shard);
    let count = |wanted| codes.iter().filter(|code| **code == wanted).count();
    (count(Code::Primary), count(Code::Standby), codes.len()) == (1, standbys, standbys + 1)
}

/// The member which is primary, and the others.
fn split(shard: &list_response::Shard, members: Vec<Consumer>) -> (Consumer, Vec<Consumer>) {
    let (mut primary, others): (Vec<_>, Vec<_>) =
        members.into_iter().partition(|member| is_primary_at(shard, member));
    (primary.pop().unwrap(), others)
}

/// Operations that this process has played as a standby, and after it became primary.
fn played(metrics: &Metrics) -> (u64, u64) {
    let text = metrics.render();
    let value = |when: &str| {
        let name = "courant_shard_played_operations_total{";
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(when));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    };
    (value("when=\"standby\""), value("when=\"takeover\""))
}

#[tokio::test]
async fn a_hot_standby_takes_over_reading_only_the_tail() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let metrics = [Metrics::new(), Metrics::new()];
    let mut members = Vec::new();
    for metrics in &metrics {
        members.push(fixture.member_with(&app, |options| options.metrics = metrics.clone()).await);
    }
    let shards = fixture.shards(&members[0]);
    fixture.create(&shards, &format!("hot_standbys: 1, {WITH_LOG}")).await;
    let listed = wait_for(&shards, |shard| is_ready(shard, 1)).await;
    let mut expected = Vec::new();
    for round in 1..=30 {
        let end = fixture.publish(&["a", "b"]).await;
        // Answered by the primary, whichever of the two it is.
        assert_eq!(stat(&shards, end).await.unwrap().read_through[KEYS], end);
        expected.extend(pairs(&[("a", round), ("b", round)]));
    }
    let survivor = usize::from(is_primary_at(&listed, &members[0]));
    let (dies, mut lives) = split(&listed, members);
    let lives = lives.pop().unwrap();
    let shards = fixture.shards(&lives);
    dies.kill().await;
    wait_for(&shards, |shard| codes(shard) == [Code::Primary]).await;

    let (before, after) = played(&metrics[survivor]);
    // Each commit of the store is several operations; taking over is one.
    assert!(before >= 90 && after <= 5, "played {before} operations as a standby, {after} afterwards");
    let end = fixture.publish(&["a"]).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    expected.extend(pairs(&[("a", 31)]));
    assert_eq!(fixture.counts(publish_at).await, expected);
    lives.stop().await.unwrap();
    fixture.stop().await;
}

/// A member leaves in order.
fn leave(member: Consumer) -> BoxFuture<'static, ()> {
    async { member.stop().await.unwrap() }.boxed()
}

/// Publishes one key after the other while `leaving` goes on, and some more.
async fn publish_during(fixture: &Fixture, leaving: BoxFuture<'static, ()>) -> (u64, i64) {
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let publish = async {
        let mut count = 0;
        while !*is_done.borrow_and_update() {
            fixture.publish(&["a"]).await;
            count += 1;
        }
        let end = fixture.publish(&["a"]).await;
        (count + 1, end)
    };
    let leave = async {
        leaving.await;
        done.send_replace(true);
    };
    tokio::join!(publish, leave).0
}

/// Every count up to `count`, in order.
fn counted(count: u64) -> Vec<(String, u64)> {
    (1..=count).map(|count| ("a".to_owned(), count)).collect()
}

#[tokio::test]
async fn members_leave_one_by_one_and_no_message_is_consumed_twice() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let mut members = Vec::new();
    for _ in 0..3 {
        members.push(fixture.member(&app).await);
    }
    let shards = fixture.shards(&members[0]);
    fixture.create(&shards, &format!("hot_standbys: 1, {WITH_LOG}")).await;
    wait_for(&shards, |shard| is_ready(shard, 1)).await;
    let (mut count, mut end) = (0, 0);
    for left in [2, 1, 0] {
        let shards = fixture.shards(&members[0]);
        let listed = wait_for(&shards, |shard| is_ready(shard, left.min(1))).await;
        let (leaves, others) = split(&listed, members);
        // The last member has nobody to leave the shard to.
        let (published, published_end) = publish_during(&fixture, leave(leaves)).await;
        (count, end) = (count + published, published_end);
        members = others;
    }
    let last = fixture.member(&app).await;
    let shards = fixture.shards(&last);
    wait_for(&shards, |shard| is_primary_at(shard, &last)).await;
    // Outputs of this process are known once there is one.
    end = end.max(fixture.publish(&["a"]).await);
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, counted(count + 1));
    assert_eq!(app.calls.total.load(Ordering::Relaxed) as u64, count + 1, "work was done twice");
    last.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_member_which_leaves_serves_until_another_is_ready() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let leaves = fixture.member(&app).await;
    let shards = fixture.shards(&leaves);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let stays = fixture.member(&app).await;
    let (count, end) = publish_during(&fixture, leave(leaves)).await;
    let shards = fixture.shards(&stays);
    wait_for(&shards, |shard| is_primary_at(shard, &stays)).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, counted(count));
    assert_eq!(app.calls.total.load(Ordering::Relaxed) as u64, count, "work was done twice");
    stays.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_member_leaves_when_its_drain_timeout_is_over() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let leaves = fixture.member_with(&app, |options| options.drain_timeout = Duration::ZERO).await;
    let shards = fixture.shards(&leaves);
    fixture.create(&shards, WITH_LOG).await;
    let end = fixture.publish(&["a", "a"]).await;
    wait_for(&shards, is_primary).await;
    stat(&shards, end).await.unwrap();
    let stays = fixture.member(&app).await;
    leaves.stop().await.unwrap();
    let shards = fixture.shards(&stays);
    wait_for(&shards, |shard| is_primary_at(shard, &stays)).await;
    let end = fixture.publish(&["a"]).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, counted(3));
    stays.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn hints_are_renewed_as_the_log_grows() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let member = fixture.member_with(&app, |options| options.hint_growth_bytes = 1).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let end = fixture.publish(&["a"]).await;
    stat(&shards, end).await.unwrap();
    let clock = Clock::system();
    let hinted = async {
        // The first commit made the file of the state; the promotion could not know of it.
        while live_files(&shards).await != Some(1) {
            clock.sleep(Duration::from_millis(20)).await;
        }
    };
    clock.timeout(Duration::from_secs(60), hinted).await.unwrap();
    member.stop().await.unwrap();
    fixture.stop().await;
}
