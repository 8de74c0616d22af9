//! Shards from assignment to hand-over, over a broker in this process.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod app;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use app::{COUNTS, Count, Counter, OPENS};
use client::specs::{JournalNode, ShardSet};
use client::{
    AppendService, ClientError, ClientOptions, CommittedReader, NewMessage, Publisher, ShardClient,
};
use consumer::{Consumer, ConsumerOptions};
use message::mapping::Target;
use message::{Flags, Framing, Sequencer};
use proto::JournalName;
use proto::consumer::replica_status::Code;
use proto::consumer::{
    GetHintsRequest, GetHintsResponse, ListRequest, StatRequest, StatResponse, Status, UnassignRequest,
    list_response,
};
use proto::protocol::{ApplyRequest, ReadRequest, apply_request};
use runtime::{Clock, TaskGroup};
use testkit::TestBroker;

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

const KEYS: &str = "test/keys";

/// A broker, and what tests do with a group of counters over it.
struct Fixture {
    broker: TestBroker,
    tasks: TaskGroup,
    publisher: Publisher,
}

impl Fixture {
    async fn start() -> Fixture {
        let broker = TestBroker::start().await.unwrap();
        let client = broker.client().unwrap();
        client.apply(JournalNode::parse(JOURNALS).unwrap().to_apply_request().unwrap()).await.unwrap();
        let tasks = TaskGroup::new("test");
        let publisher = Publisher::new(AppendService::new(client, tasks.child("appends")), None);
        Fixture { broker, tasks, publisher }
    }

    async fn member(&self, app: &Counter) -> Consumer {
        let mut options = ConsumerOptions::local(self.broker.endpoint(), "/test/counters").unwrap();
        options.lease_ttl = Duration::from_secs(2);
        Consumer::start(app.clone(), options).await.unwrap()
    }

    fn shards(&self, member: &Consumer) -> ShardClient {
        ShardClient::new(member.endpoint(), ClientOptions::new(self.tasks.clone())).unwrap()
    }

    /// Creates the shard `counter`, with further fields of its specification.
    async fn create(&self, shards: &ShardClient, fields: &str) {
        let set = format!(
            "shards: [{{id: counter, sources: [{{journal: test/keys}}], max_txn_duration: 1s, {fields}}}]"
        );
        shards.apply(ShardSet::parse(&set).unwrap().to_apply_request().unwrap()).await.unwrap();
    }

    /// Publishes keys, and gives the end of the last one in the journal.
    async fn publish(&self, keys: &[&str]) -> i64 {
        let mut end = 0;
        for key in keys {
            let target = Target { journal: JournalName::parse(KEYS).unwrap(), framing: Framing::Json };
            let published = self.publisher.publish_committed(|_| Ok(target), Count::of(key)).unwrap();
            end = published.await.unwrap().commit.as_ref().unwrap().end;
        }
        end
    }

    /// Every count which was published and committed before `end`.
    async fn counts(&self, end: i64) -> Vec<(String, u64)> {
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

    async fn stop(self) {
        self.tasks.cancel();
        self.broker.stop().await.unwrap();
    }
}

const WITH_LOG: &str = "recovery_log_prefix: test/logs, hint_prefix: /test/hints, hint_backups: 2";

async fn shard(shards: &ShardClient) -> Option<list_response::Shard> {
    shards.list(ListRequest::default()).await.unwrap().shards.into_iter().next()
}

/// Waits until `condition` is true of the shard, within the time that a test may take.
async fn wait_for(
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

fn codes(shard: &list_response::Shard) -> Vec<Code> {
    shard.status.iter().map(|status| status.code()).collect()
}

fn is_primary(shard: &list_response::Shard) -> bool {
    codes(shard).contains(&Code::Primary)
}

async fn stat(shards: &ShardClient, read_through: i64) -> Result<StatResponse, ClientError> {
    let read_through = BTreeMap::from([(KEYS.to_owned(), read_through)]);
    shards.stat(StatRequest { shard: "counter".to_owned(), read_through, ..StatRequest::default() }).await
}

fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect()
}

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
        let failed = wait_for(&shards, |shard| codes(shard) == [Code::Failed]).await;
        assert_eq!(failed.status[0].errors, [expected]);
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
        let failed = wait_for(&shards, |shard| codes(shard) == [Code::Failed]).await;
        assert_eq!(failed.status[0].errors, [expected]);
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

#[tokio::test]
async fn a_hot_standby_takes_over_when_the_primary_dies() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let (dies, lives) = (fixture.member(&app).await, fixture.member(&app).await);
    let shards = fixture.shards(&lives);
    fixture.create(&shards, &format!("hot_standbys: 1, {WITH_LOG}")).await;
    let ready = |shard: &list_response::Shard| {
        let mut codes = codes(shard);
        codes.sort();
        codes == [Code::Standby, Code::Primary]
    };
    let listed = wait_for(&shards, ready).await;
    let end = fixture.publish(&["a", "b"]).await;
    // Answered by the primary, whichever of the two it is.
    assert_eq!(stat(&shards, end).await.unwrap().read_through[KEYS], end);
    let primary = listed.route.unwrap().primary_id().cloned().unwrap();
    let (dies, lives) = if *dies.id() == primary { (dies, lives) } else { (lives, dies) };
    let shards = fixture.shards(&lives);
    dies.kill().await;
    wait_for(&shards, |shard| codes(shard) == [Code::Primary]).await;
    let end = fixture.publish(&["a"]).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, pairs(&[("a", 1), ("b", 1), ("a", 2)]));
    lives.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_member_which_leaves_hands_its_shard_over() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let leaves = fixture.member(&app).await;
    let shards = fixture.shards(&leaves);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let stays = fixture.member(&app).await;
    fixture.publish(&["a", "b", "a"]).await;
    leaves.stop().await.unwrap();
    let shards = fixture.shards(&stays);
    let id = stays.id().to_proto();
    let moved = |shard: &list_response::Shard| {
        is_primary(shard) && shard.route.as_ref().is_some_and(|route| route.primary_id() == Some(&id))
    };
    wait_for(&shards, moved).await;
    let end = fixture.publish(&["b"]).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, pairs(&[("a", 1), ("b", 1), ("a", 2), ("b", 2)]));
    stays.stop().await.unwrap();
    fixture.stop().await;
}
