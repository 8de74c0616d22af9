//! Shards from assignment to hand-over, over a broker in this process.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod app;
mod faults;
mod fixture;
mod hand_over;
mod http;
mod pruning;
mod testkit_use;
mod tokens;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use app::{COUNTS, Counter, OPENS};
use client::ShardClient;
use client::specs::ShardSet;
use fixture::*;
use proto::consumer::replica_status::Code;
use proto::consumer::{GetHintsRequest, GetHintsResponse, StatRequest, Status, UnassignRequest};
use proto::protocol::{ApplyRequest, apply_request};
use runtime::Clock;

#[tokio::test]
async fn a_stat_reads_the_writes_before_it_and_says_where_outputs_are() {
    let fixture = Fixture::start().await;
    let member = fixture.member(&Counter::default()).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    assert_eq!(stat(&shards, 0).await.unwrap().read_through, BTreeMap::from([(KEYS.to_owned(), 0)]));

    let end = fixture.publish(&["a", "b", "a"]).await;
    let response = stat(&shards, end).await.unwrap();
    assert_eq!(response.read_through[KEYS], end);
    let counts = fixture.counts(response.publish_at[COUNTS]).await;
    assert_eq!(counts, pairs(&[("a", 1), ("b", 1), ("a", 2)]));

    let progress = member.resolver().progress("counter").unwrap().borrow().clone();
    let source = progress.sources[KEYS];
    assert_eq!((progress.status, progress.messages), (Code::Primary, 3));
    assert_eq!((source.read_through, source.read_head, source.unread()), (end, end, 0));
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn requests_about_nothing_are_answered_and_malformed_ones_refused() {
    let fixture = Fixture::start().await;
    let member = fixture.member(&Counter::default()).await;
    let shards = fixture.shards(&member);
    let error = stat(&shards, 0).await.unwrap_err();
    assert_eq!(error.shard_status(), Some(Status::ShardNotFound));
    let request = GetHintsRequest { shard: "counter".to_owned(), ..GetHintsRequest::default() };
    let error = shards.get_hints(request).await.unwrap_err();
    assert_eq!(error.shard_status(), Some(Status::ShardNotFound));

    // Past the client's own checks, as another implementation might send it.
    let mut raw =
        proto::consumer::shard_client::ShardClient::new(runtime::grpc::channel(member.endpoint()).unwrap());
    for shard in ["", " ", "a#b", "\u{0}"] {
        let request = StatRequest { shard: shard.to_owned(), ..StatRequest::default() };
        assert!(raw.stat(request).await.unwrap_err().message().contains("Shard"), "{shard:?}");
        let request = GetHintsRequest { shard: shard.to_owned(), ..GetHintsRequest::default() };
        assert!(raw.get_hints(request).await.is_err());
        let request = UnassignRequest { shards: vec![shard.to_owned()], ..UnassignRequest::default() };
        assert!(raw.unassign(request).await.is_err());
    }
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_promotion_stores_hints_and_exit_refreshes_them() {
    let fixture = Fixture::start().await;
    let member = fixture.member(&Counter::default()).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let hints = |shards: ShardClient| async move {
        let request = GetHintsRequest { shard: "counter".to_owned(), ..GetHintsRequest::default() };
        shards.get_hints(request).await.unwrap()
    };
    let is_stored = |response: &GetHintsResponse| {
        let primary = response.primary_hints.as_ref().is_some_and(|stored| stored.hints.is_some());
        primary && response.backup_hints[0].hints.is_some()
    };
    let clock = Clock::system();
    while !is_stored(&hints(shards.clone()).await) {
        clock.sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(hints(shards.clone()).await.backup_hints.len(), 2);
    let end = fixture.publish(&["a"]).await;
    stat(&shards, end).await.unwrap();
    let live = |response: GetHintsResponse| response.primary_hints.unwrap().hints.unwrap().live_nodes.len();
    assert_eq!(live(hints(shards).await), 0, "nothing was written before the promotion");
    member.stop().await.unwrap();

    let member = fixture.member(&Counter::default()).await;
    let shards = fixture.shards(&member);
    assert_eq!(live(hints(shards.clone()).await), 1, "the state is a file which the exit has hinted at");
    wait_for(&shards, is_primary).await;
    stat(&shards, end).await.unwrap();
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_failed_shard_shows_why_and_starts_again_from_its_last_commit() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let member = fixture.member(&app).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    let end = fixture.publish(&["a"]).await;
    wait_for(&shards, is_primary).await;
    stat(&shards, end).await.unwrap();

    for (failure, expected) in [
        (&app.failures.consume, "runTransactions: app.ConsumeMessage: told to fail"),
        (&app.failures.panic, "panicked: told to panic"),
    ] {
        failure.store(1, Ordering::Relaxed);
        let end = fixture.publish(&["a"]).await;
        // For a moment, the status may still be that of the shard which was deleted.
        wait_for(&shards, |shard| codes(shard) == [Code::Failed] && shard.status[0].errors == [expected])
            .await;
        wait_for(&shards, is_primary).await;
        stat(&shards, end).await.unwrap();
    }
    let publish_at = stat(&shards, 0).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, pairs(&[("a", 1), ("a", 2), ("a", 3)]));
    member.stop().await.unwrap();
    let (begun, finished) = (&app.calls.begun, &app.calls.finished);
    // A panic is no way to end a transaction, but for that one every begin has its finish.
    assert_eq!(begun.load(Ordering::Relaxed), finished.load(Ordering::Relaxed) + 1);
    fixture.stop().await;
}

#[tokio::test]
async fn a_deferred_message_opens_the_next_transaction() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    // Published before there is a shard, so that one transaction could take them all.
    let end = fixture.publish(&["a", OPENS, "a", OPENS, "b"]).await;
    let member = fixture.member(&app).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    let expected = [("a", 1), (OPENS, 1), ("a", 2), (OPENS, 2), ("b", 1)];
    assert_eq!(fixture.counts(publish_at).await, pairs(&expected));
    assert_eq!(app.calls.deferred.load(Ordering::Relaxed), 2);
    assert_eq!(app.calls.begun.load(Ordering::Relaxed), 3);
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_recovered_acknowledgement_of_a_deleted_journal_is_dropped() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let member = fixture.member(&app).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    let end = fixture.publish(&["a"]).await;
    wait_for(&shards, is_primary).await;
    stat(&shards, end).await.unwrap();
    member.stop().await.unwrap();

    let delete = apply_request::Change {
        expect_mod_revision: -1,
        delete: COUNTS.to_owned(),
        ..apply_request::Change::default()
    };
    fixture.broker.client().unwrap().apply(ApplyRequest { changes: vec![delete] }).await.unwrap();
    let member = fixture.member(&app).await;
    let shards = fixture.shards(&member);
    wait_for(&shards, is_primary).await;
    assert_eq!(stat(&shards, end).await.unwrap().read_through[KEYS], end);
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn what_a_shard_lacks_is_named_by_its_status() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let member = fixture.member(&app).await;
    let shards = fixture.shards(&member);
    let no_log =
        "completeRecovery: app.NewStore: a JSON file store needs a recovery log, and the shard has none";
    for (fields, expected) in [
        ("", no_log),
        (
            "recovery_log_prefix: test/nowhere, hint_prefix: /test/hints",
            "beginRecovery: fetching log spec: named journal does not exist (test/nowhere/counter)",
        ),
    ] {
        fixture.create(&shards, fields).await;
        // For a moment, the status may still be that of the shard which was deleted.
        wait_for(&shards, |shard| codes(shard) == [Code::Failed] && shard.status[0].errors == [expected])
            .await;
        let delete = "shards: [{id: counter, delete: true, revision: -1}]";
        shards.apply(ShardSet::parse(delete).unwrap().to_apply_request().unwrap()).await.unwrap();
        assert!(shard(&shards).await.is_none());
    }
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn an_unassigned_primary_is_assigned_anew() {
    let fixture = Fixture::start().await;
    let member = fixture.member(&Counter::default()).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    let end = fixture.publish(&["a", "a"]).await;
    wait_for(&shards, is_primary).await;
    stat(&shards, end).await.unwrap();
    let request =
        |only_failed, dry_run| UnassignRequest { shards: vec!["counter".to_owned()], only_failed, dry_run };
    assert!(shards.unassign(request(true, false)).await.unwrap().shards.is_empty());
    assert_eq!(shards.unassign(request(false, true)).await.unwrap().shards, ["counter"]);
    assert!(is_primary(&shard(&shards).await.unwrap()), "a dry run changes nothing");
    assert_eq!(shards.unassign(request(false, false)).await.unwrap().shards, ["counter"]);
    wait_for(&shards, is_primary).await;
    let end = fixture.publish(&["a"]).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, pairs(&[("a", 1), ("a", 2), ("a", 3)]));
    member.stop().await.unwrap();
    fixture.stop().await;
}
