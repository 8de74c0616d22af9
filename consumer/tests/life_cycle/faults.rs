//! What members survive, and how they end when they cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use consumer::ConsumerOptions;
use message::{Clock as MessageClock, Flags, Framing, Message, ProducerId, Uuid};
use proto::consumer::replica_status::Code;
use proto::protocol::AppendRequest;
use runtime::{BoxError, Clock, Metrics, OnError, TaskGroup};
use testkit::TestBroker;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::app::{COUNTS, Count, Counter};
use crate::fixture::*;

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// A way to a server, which can be cut.
struct Way {
    endpoint: String,
    open: watch::Sender<bool>,
    refused: Arc<AtomicUsize>,
}

impl Way {
    /// Forwards what comes to `listen` to the server at the URL `target`.
    async fn start(listen: &str, target: &str, tasks: &TaskGroup) -> Way {
        let listener = TcpListener::bind(listen).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (open, is_open) = watch::channel(true);
        let refused = Arc::new(AtomicUsize::new(0));
        let target = target.trim_start_matches("http://").to_owned();
        let accept = accept(listener, target, is_open, Arc::clone(&refused), tasks.clone());
        tasks.spawn("way", OnError::Log, accept);
        Way { endpoint, open, refused }
    }

    /// Breaks all connections, and refuses new ones.
    fn cut(&self) {
        self.open.send_replace(false);
    }

    fn restore(&self) {
        self.open.send_replace(true);
    }

    /// Waits until this many connections were refused since the cut.
    async fn refused(&self, count: usize) {
        let clock = Clock::system();
        let refused = async {
            while self.refused.load(Ordering::Relaxed) < count {
                clock.sleep(Duration::from_millis(20)).await;
            }
        };
        clock.timeout(LIMIT, refused).await.unwrap();
    }
}

async fn accept(
    listener: TcpListener,
    target: String,
    is_open: watch::Receiver<bool>,
    refused: Arc<AtomicUsize>,
    tasks: TaskGroup,
) -> Result<(), BoxError> {
    let token = tasks.token().clone();
    loop {
        let (client, _) = tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted?,
        };
        if !*is_open.borrow() {
            refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let (mut is_open, token, target) = (is_open.clone(), token.clone(), target.clone());
        tasks.spawn("connection", OnError::Log, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => {}
                _ = is_open.wait_for(|open| !open) => {}
                () = forward(client, &target) => {}
            }
            Ok(())
        });
    }
}

async fn forward(mut client: TcpStream, target: &str) {
    if let Ok(mut server) = TcpStream::connect(target).await {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }
}

/// Failed attempts to run a shard.
fn failures(metrics: &Metrics) -> usize {
    let text = metrics.render();
    text.lines().filter(|line| line.starts_with("courant_shard_failures_total{")).count()
}

#[tokio::test]
async fn a_member_cut_off_from_its_broker_waits_and_goes_on() {
    // The broker is known by an address of which only this test is the way to it.
    let broker = TestBroker::start_with(|options| options.host = "127.0.0.2".to_owned()).await.unwrap();
    let advertised = broker.endpoint().to_owned();
    let direct = advertised.replace("127.0.0.2", "127.0.0.1");
    let tasks = TaskGroup::new("ways");
    let way = Way::start(advertised.trim_start_matches("http://"), &direct, &tasks).await;
    let fixture = Fixture::over(broker).await;
    let (app, metrics) = (Counter::default(), Metrics::new());
    let adjust = |options: &mut ConsumerOptions| {
        options.etcd.clone_from(&direct);
        options.metrics = metrics.clone();
    };
    let member = fixture.member_with(&app, adjust).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let end = fixture.publish(&["a"]).await;
    stat(&shards, end).await.unwrap();

    way.cut();
    let cut = async {
        // As many attempts as fit into some seconds, by the waits between them.
        way.refused(15).await;
        assert_eq!(codes(&shard(&shards).await.unwrap()), [Code::Primary]);
        way.restore();
    };
    let (end, ()) = tokio::join!(fixture.publish(&["a", "b"]), cut);
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, pairs(&[("a", 1), ("a", 2), ("b", 1)]));
    assert_eq!(failures(&metrics), 0);
    member.stop().await.unwrap();
    fixture.stop().await;
    tasks.cancel();
}

#[tokio::test]
async fn a_member_cut_off_from_etcd_ends_when_its_lease_does() {
    let fixture = Fixture::start().await;
    let way = Way::start("127.0.0.1:0", fixture.broker.endpoint(), &fixture.tasks).await;
    let app = Counter::default();
    let cut_off = fixture.member_with(&app, |options| options.etcd.clone_from(&way.endpoint)).await;
    let shards = fixture.shards(&cut_off);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let end = fixture.publish(&["a"]).await;
    stat(&shards, end).await.unwrap();

    way.cut();
    Clock::system().timeout(LIMIT, cut_off.failed()).await.unwrap();
    let error = cut_off.stop().await.unwrap_err().to_string();
    assert!(error.contains("unable to keep member lease alive"), "{error}");

    let next = fixture.member(&app).await;
    let shards = fixture.shards(&next);
    wait_for(&shards, |shard| is_primary_at(shard, &next)).await;
    let end = fixture.publish(&["a"]).await;
    let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
    assert_eq!(fixture.counts(publish_at).await, pairs(&[("a", 1), ("a", 2)]));
    next.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn broker_and_etcd_restart_within_the_lease_and_no_shard_fails() {
    let mut fixture = Fixture::start().await;
    let (app, metrics) = (Counter::default(), Metrics::new());
    let adjust = |options: &mut ConsumerOptions| {
        options.lease_ttl = LIMIT;
        options.metrics = metrics.clone();
    };
    let member = fixture.member_with(&app, adjust).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let end = fixture.publish(&["a"]).await;
    stat(&shards, end).await.unwrap();
    for round in 2..=3 {
        fixture = fixture.restart_broker().await;
        let end = fixture.publish(&["a"]).await;
        let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
        let expected: Vec<_> = (1..=round).map(|count| ("a".to_owned(), count)).collect();
        assert_eq!(fixture.counts(publish_at).await, expected);
    }
    assert_eq!(failures(&metrics), 0);
    member.stop().await.unwrap();
    fixture.stop().await;
}

/// Appends a message as its producer stamped it; gives its end in the journal.
async fn append_stamped(fixture: &Fixture, producer: ProducerId, stamp: Duration, key: &str) -> i64 {
    let mut message = Count::of(key);
    message.set_uuid(Uuid::build(producer, MessageClock::from_unix(stamp), Flags::OUTSIDE_TXN));
    let mut frame = Vec::new();
    message.encode(Framing::Json, &mut frame).unwrap();
    let request = AppendRequest { journal: KEYS.to_owned(), ..AppendRequest::default() };
    let appended = fixture.broker.client().unwrap().append(request, frame.into()).await.unwrap();
    appended.commit.unwrap().end
}

/// Two days.
const AHEAD: Duration = Duration::from_secs(48 * 3600);

#[tokio::test]
async fn a_process_two_days_ahead_takes_no_message_twice_and_loses_none() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let ahead = |options: &mut ConsumerOptions| options.clock = Clock::system().with_skew(AHEAD);
    let now = Clock::system().unix_now();
    let [right, wrong] = [1, 2].map(|id| ProducerId::from_random([id; 6]));
    let mut expected = Vec::new();
    // The shard is of a process whose clock is ahead, then of one whose clock is right, then of one which is ahead again.
    for round in 0..3u32 {
        let member = match round {
            1 => fixture.member(&app).await,
            _ => fixture.member_with(&app, ahead).await,
        };
        let shards = fixture.shards(&member);
        if round == 0 {
            fixture.create(&shards, WITH_LOG).await;
        }
        wait_for(&shards, |shard| is_primary_at(shard, &member)).await;
        let stamp = now + Duration::from_secs(u64::from(round));
        let keys = [format!("right-{round}"), format!("wrong-{round}")];
        append_stamped(&fixture, right, stamp, &keys[0]).await;
        let end = append_stamped(&fixture, wrong, stamp + AHEAD, &keys[1]).await;
        stat(&shards, end).await.unwrap();
        // As a producer whose append was answered too late repeats it.
        append_stamped(&fixture, right, stamp, &keys[0]).await;
        append_stamped(&fixture, wrong, stamp + AHEAD, &keys[1]).await;
        let end = fixture.publish(&["last"]).await;
        expected.extend(keys.map(|key| (key, 1)));
        expected.push(("last".to_owned(), u64::from(round) + 1));
        let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
        assert_eq!(fixture.counts(publish_at).await, expected, "round {round}");
        member.stop().await.unwrap();
    }
    fixture.stop().await;
}
