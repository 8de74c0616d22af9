mod following;

use std::path::Path;
use std::pin::pin;

use bytes::Bytes;
use fragment::Sum;
use fragment::compress::Levels;
use fragment::index::{Answer, Query};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use proto::protocol::process_spec::Id;
use proto::protocol::{
    LabelSelector, ReplicateRequest, ReplicateResponse, Route, header::Etcd, journal_spec,
};
use proto::{JournalName, MemberId, Validate};
use runtime::BoxError;
use stores::{Environment, StoreTimes, StoresConfig};
use tempfile::TempDir;

use super::*;
use crate::listings::NamesBelow;
use crate::pipeline::PeerChannels;
use crate::spool::image::ImageDisk;

const LIMIT: Duration = Duration::from_secs(30);

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn spec(stores: &[&str]) -> JournalSpec {
    let spec = JournalSpec {
        name: "a/journal".to_owned(),
        replication: 1,
        labels: Some(LabelSet::default()),
        fragment: Some(journal_spec::Fragment {
            length: 1 << 20,
            compression_codec: Codec::Gzip.number(),
            stores: stores.iter().map(|url| (*url).to_owned()).collect(),
            refresh_interval: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..Default::default()
        }),
        ..Default::default()
    };
    spec.validate().unwrap();
    spec
}

fn member(suffix: &str) -> Id {
    MemberId::new("zone", suffix).unwrap().to_proto()
}

fn header(peers: &[&str]) -> Header {
    let members: Vec<_> = ["me-myself"].iter().chain(peers).map(|suffix| member(suffix)).collect();
    let endpoints = members.iter().map(|id| format!("http://{}", id.suffix)).collect();
    let etcd = Etcd { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
    Header::routed(member("me-myself"), Route { members, primary: 0, endpoints }, etcd)
}

struct Fixture {
    dir: TempDir,
    disk: ImageDisk,
    deps: ReplicaDeps,
    replica: Replica,
}

impl Fixture {
    async fn start(durability: Durability, spec: JournalSpec) -> Fixture {
        Fixture::start_on(ImageDisk::default(), tempfile::tempdir().unwrap(), durability, spec).await
    }

    async fn start_on(disk: ImageDisk, dir: TempDir, durability: Durability, spec: JournalSpec) -> Fixture {
        let deps = deps(&disk, dir.path(), durability);
        let replica = Replica::start(journal(), Revision(7), Arc::new(spec), deps.clone());
        let fixture = Fixture { dir, disk, deps, replica };
        fixture.synchronise(&[]).await.unwrap();
        fixture
    }

    /// As after the death of the process, on what it left.
    async fn restart(self, spec: JournalSpec) -> Fixture {
        self.deps.tasks.cancel();
        within(self.deps.tasks.join()).await.unwrap();
        Fixture::start_on(self.disk, self.dir, self.deps.durability, spec).await
    }

    async fn synchronise(&self, peers: &[&str]) -> Result<Synchronised, AppendError> {
        within(self.replica.synchronise(header(peers))).await
    }

    fn queue(
        &self,
        content: &[u8],
        wants: Wants,
        union: &[(&str, &str)],
    ) -> impl Future<Output = Outcome> + use<> {
        let mut buffer = self.deps.content.gather();
        if !content.is_empty() {
            buffer.push(Bytes::copy_from_slice(content)).unwrap();
        }
        let (reply, outcome) = oneshot::channel();
        let job = Job {
            admitted: Revision(3),
            wants,
            union_registers: (!union.is_empty()).then(|| LabelSet::from_pairs(union.iter().copied())),
            subtract_registers: None,
            roll_at_end: false,
            content: Arc::new(buffer.finish()),
            span: tracing::Span::none(),
            reply,
        };
        let replica = self.replica.clone();
        async move { within(replica.append(job, outcome)).await }
    }

    async fn append(&self, content: &[u8]) -> (i64, i64) {
        place(self.queue(content, Wants::default(), &[]).await)
    }

    fn view(&self) -> IndexView {
        self.replica.index().borrow().clone()
    }

    /// Everything that local files hold from `offset` on, as a reader sees it.
    fn read(&self, mut offset: i64) -> Vec<u8> {
        let view = self.view();
        let mut content = Vec::new();
        while let Answer::Found(found) =
            view.index.query(&Query { offset, begin_mod_time: 0, now_unix: 0, jump_age_seconds: 0 })
        {
            let fragment = found.entry.fragment;
            let mut buffer = vec![0; usize::try_from(fragment.end - offset).unwrap()];
            let read = found.entry.file.expect("it is local").read_at(offset, &mut buffer).unwrap();
            assert_eq!(read, buffer.len());
            content.extend(buffer);
            offset = fragment.end;
        }
        content
    }

    async fn until(&self, is: impl FnMut(&IndexView) -> bool) {
        drop(within(self.replica.index().wait_for(is)).await.unwrap());
    }

    fn spools(&self) -> Vec<String> {
        self.disk.names().into_iter().filter(|name| name.ends_with(".spool")).collect()
    }
}

fn deps(disk: &ImageDisk, dir: &Path, durability: Durability) -> ReplicaDeps {
    let (clock, entropy, metrics) = (Clock::system(), Entropy::seeded(1), Metrics::new());
    let tasks = TaskGroup::new("replicas");
    let stores = Stores::new(StoresConfig {
        file_root: None,
        default_root: Some(dir.to_owned()),
        file_only: false,
        environment: Environment::default(),
        levels: Levels::default(),
        times: StoreTimes::default(),
        clock: clock.clone(),
        entropy: entropy.clone(),
        tasks: tasks.child("stores"),
        metrics: metrics.clone(),
    });
    let disk = Arc::new(disk.clone());
    let data_dir = dir.to_owned();
    let (connector, marks) = (Arc::new(Nobody), Arc::new(Marks::default()));
    ReplicaDeps::new(ReplicaParts {
        clock,
        entropy,
        tasks,
        stores,
        metrics,
        disk,
        data_dir,
        durability,
        connector,
        marks,
        incarnation: 1,
        is_member: Arc::new(|| true),
        names: Arc::new(|_: &str| NamesBelow::default()),
        spec_of: Arc::new(|_, _| None),
        replica_upload: Duration::from_secs(60),
    })
}

/// Connects to nobody.
struct Nobody;

impl PeerConnector for Nobody {
    fn connect(&self, _: &JournalName, _: &Id, _: &Header) -> Result<PeerChannels, String> {
        Err("nobody is there".to_owned())
    }
}

/// What etcd says of the journal.
#[derive(Clone)]
struct Marks(Arc<Mutex<Option<Revision>>>);

/// Older than every spool.
impl Default for Marks {
    fn default() -> Marks {
        Marks(Arc::new(Mutex::new(Some(Revision::NONE))))
    }
}

impl SyncMarks for Marks {
    fn last(
        &self,
        name: &JournalName,
        create_revision: Revision,
    ) -> BoxFuture<'static, Result<Option<Revision>, BoxError>> {
        assert_eq!((name, create_revision), (&journal(), Revision(7)));
        std::future::ready(Ok(*self.0.lock().unwrap())).boxed()
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    Clock::system().timeout(LIMIT, future).await.expect("it takes too long")
}

fn place(outcome: Outcome) -> (i64, i64) {
    match outcome {
        Outcome::Committed(place, _) => (place.begin, place.end),
        outcome => panic!("{outcome:?}"),
    }
}

fn error(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failed(error) => error.to_string(),
        outcome => panic!("{outcome:?}"),
    }
}

#[tokio::test]
async fn appends_in_the_queue_commit_in_groups_and_each_has_its_own_span() {
    for durability in [Durability::Process, Durability::Disk] {
        let fixture = Fixture::start(durability, spec(&[])).await;
        assert_eq!(fixture.append(b"first").await, (0, 5));
        let contents: Vec<_> = (0..200).map(|n| format!("append number {n}\n")).collect();
        let before = fixture.deps.metrics.commits.get();
        let appends = contents.iter().map(|content| fixture.queue(content.as_bytes(), Wants::default(), &[]));
        let outcomes = join_all(appends).await;
        let places: Vec<_> = outcomes.into_iter().map(place).collect();
        assert!(fixture.deps.metrics.commits.get() - before < 100, "{}", fixture.deps.metrics.commits.get());
        let journal = fixture.read(0);
        for ((begin, end), content) in places.iter().zip(&contents) {
            let span = usize::try_from(*begin).unwrap()..usize::try_from(*end).unwrap();
            assert_eq!(journal[span], *content.as_bytes());
        }
        assert_eq!(journal.len(), 5 + contents.concat().len(), "the spans are apart");
        let head = fixture.view().head.unwrap();
        assert_eq!((head.begin, head.end), (5, i64::try_from(journal.len()).unwrap()));
    }
}

#[tokio::test]
async fn content_is_visible_and_answered_only_once_it_is_durable() {
    let fixture = Fixture::start(Durability::Disk, spec(&[])).await;
    fixture.append(b"one").await;
    fixture.append(b"two").await;
    fixture.disk.hold_syncs(true);
    let commits = fixture.deps.metrics.commits.get();
    let append = tokio::task::LocalSet::new();
    let outcome = append.run_until(async {
        let appended = tokio::task::spawn_local(fixture.queue(b"three", Wants::default(), &[]));
        let clock = Clock::system();
        while fixture.deps.metrics.commits.get() == commits {
            clock.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(fixture.view().index.end(), 6);
        assert!(!appended.is_finished());
        fixture.disk.hold_syncs(false);
        within(appended).await.unwrap()
    });
    assert_eq!(place(outcome.await), (6, 11));
    assert_eq!(fixture.view().index.end(), 11);
}

#[tokio::test]
async fn a_full_disk_fails_appends_until_there_is_space() {
    for durability in [Durability::Process, Durability::Disk] {
        let fixture = Fixture::start(durability, spec(&[])).await;
        fixture.append(b"one").await;
        fixture.append(b"two").await;
        fixture.disk.set_space(Some(2));
        for _ in 0..3 {
            let error = error(fixture.queue(b"three", Wants::default(), &[]).await);
            assert!(error.ends_with("/a%2Fjournal/0000000000000001.spool: no storage space"), "{error}");
            assert_eq!(fixture.read(0), b"onetwo");
        }
        fixture.disk.set_space(None);
        assert_eq!(fixture.append(b"four").await, (6, 10));
        assert_eq!(fixture.read(0), b"onetwofour");
        let fixture = fixture.restart(spec(&[])).await;
        assert_eq!(fixture.read(0), b"onetwofour");
    }
}

#[tokio::test]
async fn a_failed_sync_has_an_unknown_outcome_and_the_journal_goes_on_in_a_new_file() {
    let fixture = Fixture::start(Durability::Disk, spec(&[])).await;
    fixture.append(b"one").await;
    fixture.append(b"two").await;
    fixture.disk.fail_syncs(true);
    let error = error(fixture.queue(b"three", Wants::default(), &[]).await);
    assert!(error.ends_with("0000000000000001.spool: injected sync failure"), "{error}");
    assert_eq!(fixture.read(0), b"onetwo", "it may have taken effect, and is not shown until that is known");
    // A new file cannot be synced either.
    let again = fixture.queue(b"four", Wants::default(), &[]).await;
    assert!(matches!(again, Outcome::Failed(AppendError::Write(_))), "{again:?}");
    fixture.disk.fail_syncs(false);
    fixture.synchronise(&[]).await.unwrap();
    assert_eq!(fixture.read(0), b"onetwothree", "it has taken effect");
    assert_eq!(fixture.append(b"five5").await, (11, 16));
    assert_eq!(fixture.view().head.unwrap().begin, 11);
    assert_eq!(fixture.read(0), b"onetwothreefive5");
}

#[tokio::test]
async fn a_restarted_broker_serves_and_continues_what_it_finds_with_its_registers() {
    for durability in [Durability::Process, Durability::Disk] {
        let fixture = Fixture::start(durability, spec(&[])).await;
        fixture.append(b"one").await;
        place(fixture.queue(b"two", Wants::default(), &[("author", "me")]).await);
        let fixture = fixture.restart(spec(&[])).await;
        fixture.until(|view| view.head.is_some()).await;
        assert_eq!(fixture.read(0), b"onetwo");
        let check = |value: &str| Wants {
            offset: Some(6),
            check_registers: Some(LabelSelector::include([("author", value)])),
            ..Wants::default()
        };
        let refused = fixture.queue(b"x", check("you"), &[]).await;
        assert!(matches!(refused, Outcome::Refused(Status::RegisterMismatch, _)), "{refused:?}");
        assert_eq!(place(fixture.queue(b"three", check("me"), &[]).await), (6, 11));
        assert_eq!(fixture.read(0), b"onetwothree");
    }
}

#[tokio::test]
async fn a_completed_fragment_leaves_the_disk_once_it_is_stored_and_its_readers_keep_it() {
    let fixture = Fixture::start(Durability::Process, spec(&["file:///"])).await;
    fixture.append(b"first").await;
    let before = fixture.view();
    fixture.append(b"second").await;
    fixture.until(|view| view.index.remote().covers(0, 5)).await;
    within(async {
        while fixture.spools() != ["0000000000000001.spool"] {
            Clock::system().sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    // The name is gone; whoever had the file open has it still.
    let Answer::Found(found) =
        before.index.query(&Query { offset: 0, begin_mod_time: 0, now_unix: 0, jump_age_seconds: 0 })
    else {
        panic!("it was there")
    };
    let mut buffer = [0; 5];
    assert_eq!(found.entry.file.unwrap().read_at(0, &mut buffer).unwrap(), 5);
    assert_eq!(&buffer, b"first");
    let stored = std::fs::read_dir(fixture.dir.path().join("a/journal")).unwrap().next().unwrap().unwrap();
    assert_eq!(
        stored.file_name().to_str().unwrap(),
        format!("{:016x}-{:016x}-{}.gz", 0, 5, Sum::of(b"first"))
    );
    assert_eq!(fixture.append(b"third").await, (11, 16));
    assert_eq!(fixture.deps.metrics.persisted.get(), 1);

    // What the store has and what the spool has make the journal again.
    let fixture = fixture.restart(spec(&["file:///"])).await;
    fixture.until(|view| view.first_listing_done && view.index.end() == 16).await;
    assert_eq!(fixture.view().index.begin(), 0);
}

#[tokio::test]
async fn a_store_that_fails_is_tried_again_and_the_fragment_is_served_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    // Where a directory should be made there is a file.
    std::fs::write(dir.path().join("a"), b"").unwrap();
    let fixture =
        Fixture::start_on(ImageDisk::default(), dir, Durability::Process, spec(&["file:///"])).await;
    fixture.append(b"first").await;
    fixture.append(b"second").await;
    assert_eq!(fixture.read(0), b"firstsecond");
    let left = within(fixture.deps.persister.drain(Duration::from_millis(50))).await;
    assert_eq!((left, fixture.spools().len()), (1, 2));

    std::fs::remove_file(fixture.dir.path().join("a")).unwrap();
    let fixture = fixture.restart(spec(&["file:///"])).await;
    fixture.until(|view| view.index.remote().covers(0, 5)).await;
    assert_eq!(within(fixture.deps.persister.drain(LIMIT)).await, 0);
}

#[tokio::test]
async fn a_journal_without_stores_stays_on_disk_until_it_gets_one() {
    let fixture = Fixture::start(Durability::Process, spec(&[])).await;
    fixture.append(b"first").await;
    fixture.append(b"second").await;
    fixture.until(|view| view.first_listing_done).await;
    assert_eq!((fixture.read(0), fixture.spools().len()), (b"firstsecond".to_vec(), 2));
    fixture.replica.update_spec(Arc::new(spec(&["file:///"])));
    fixture.until(|view| view.index.remote().covers(0, 5)).await;
}

#[tokio::test]
async fn a_handed_over_replica_completes_its_fragment_and_keeps_its_end() {
    let fixture = Fixture::start(Durability::Process, spec(&["file:///"])).await;
    fixture.append(b"first").await;
    place(fixture.queue(b"second", Wants::default(), &[("author", "me")]).await);
    within(fixture.replica.clone().shutdown(Farewell::Handover)).await;
    assert!(matches!(fixture.queue(b"x", Wants::default(), &[]).await, Outcome::Resolve));
    assert_eq!(fixture.synchronise(&[]).await.unwrap(), Synchronised::Closed);
    assert_eq!(within(fixture.deps.persister.drain(LIMIT)).await, 0);
    assert_eq!(fixture.spools(), ["0000000000000002.spool"]);

    let fixture = fixture.restart(spec(&["file:///"])).await;
    fixture.until(|view| view.first_listing_done && view.index.remote().covers(0, 11)).await;
    let head = fixture.view().head.unwrap();
    assert_eq!((head.end, head.registers.value_of("author")), (11, Some("me")));
    assert_eq!(fixture.append(b"third").await, (11, 16));
}

#[tokio::test]
async fn a_deleted_journals_content_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"").unwrap();
    let fixture =
        Fixture::start_on(ImageDisk::default(), dir, Durability::Process, spec(&["file:///"])).await;
    fixture.append(b"first").await;
    fixture.append(b"second").await;
    within(fixture.replica.clone().shutdown(Farewell::Deleted)).await;
    within(async {
        while !fixture.spools().is_empty() {
            Clock::system().sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(within(fixture.deps.persister.drain(LIMIT)).await, 0, "nobody uploads it any more");
}

#[tokio::test]
async fn spools_that_cannot_be_read_fail_appends_until_they_can() {
    let fixture = Fixture::start(Durability::Process, spec(&[])).await;
    fixture.append(b"first").await;
    fixture.disk.fail_opens(true);
    fixture.deps.tasks.cancel();
    within(fixture.deps.tasks.join()).await.unwrap();
    let deps = deps(&fixture.disk, fixture.dir.path(), Durability::Process);
    let replica = Replica::start(journal(), Revision(7), Arc::new(spec(&[])), deps.clone());
    let fixture = Fixture { deps, replica, ..fixture };
    let error = loop {
        // Queued before the first attempt to adopt has failed, or after it.
        match fixture.queue(b"x", Wants::default(), &[]).await {
            Outcome::Failed(error) => break error.to_string(),
            Outcome::Resolve => {}
            outcome => panic!("{outcome:?}"),
        }
    };
    assert!(error.starts_with("opening ") && error.ends_with("injected open failure"), "{error}");
    fixture.disk.fail_opens(false);
    while !matches!(fixture.synchronise(&[]).await, Ok(Synchronised::Ready)) {}
    assert_eq!(fixture.read(0), b"first");
}

/// A peer that the test answers for.
struct Peer {
    requests: mpsc::Receiver<ReplicateRequest>,
    responses: mpsc::Sender<Result<ReplicateResponse, tonic::Status>>,
}

impl Peer {
    /// The next message.
    async fn next(&mut self) -> ReplicateRequest {
        within(self.requests.recv()).await.unwrap()
    }

    async fn answer(&self, response: ReplicateResponse) {
        self.responses.send(Ok(response)).await.unwrap();
    }
}

/// A replica, and the peers that it connects to.
async fn start_with_peers(durability: Durability) -> (Fixture, mpsc::UnboundedReceiver<Peer>) {
    let (dir, disk) = (tempfile::tempdir().unwrap(), ImageDisk::default());
    let (connected, peers) = mpsc::unbounded_channel();
    let deps =
        ReplicaDeps { connector: Arc::new(Connector(connected)), ..deps(&disk, dir.path(), durability) };
    let replica = Replica::start(journal(), Revision(7), Arc::new(spec(&[])), deps.clone());
    (Fixture { dir, disk, deps, replica }, peers)
}

/// Synchronises with a peer which agrees.
async fn agreed(fixture: &Fixture, peers: &mut mpsc::UnboundedReceiver<Peer>) -> Peer {
    let peer = async {
        let mut peer = within(peers.recv()).await.unwrap();
        peer.next().await;
        peer.answer(ReplicateResponse::default()).await;
        peer
    };
    let (synchronised, peer) = futures::join!(fixture.synchronise(&["peer"]), peer);
    assert_eq!(synchronised.unwrap(), Synchronised::Ready);
    peer
}

struct Connector(mpsc::UnboundedSender<Peer>);

impl PeerConnector for Connector {
    fn connect(&self, _: &JournalName, _: &Id, _: &Header) -> Result<PeerChannels, String> {
        let (requests, far_requests) = mpsc::channel(8);
        let (far_responses, responses) = mpsc::channel(8);
        self.0.send(Peer { requests: far_requests, responses: far_responses }).unwrap();
        Ok(PeerChannels { requests, responses })
    }
}

#[tokio::test]
async fn content_is_visible_once_every_replica_has_it_and_a_failed_peer_means_a_new_pipeline() {
    let (fixture, mut peers) = start_with_peers(Durability::Process).await;

    // The peer holds more: all roll to its end, and take its registers.
    let peer = async {
        let mut peer = within(peers.recv()).await.unwrap();
        let opening = peer.next().await;
        assert_eq!((opening.header.unwrap().process_id, opening.acknowledge), (Some(member("peer")), true));
        peer.answer(ReplicateResponse {
            status: Status::ProposalMismatch.into(),
            fragment: Some(Fragment { end: 100, ..Fragment::empty(journal(), 50, Codec::None) }.to_proto()),
            registers: Some(LabelSet::from_pairs([("author", "peer")])),
            ..Default::default()
        })
        .await;
        let proposal = peer.next().await.proposal.unwrap();
        assert_eq!((proposal.begin, proposal.end), (100, 100));
        peer.answer(ReplicateResponse::default()).await;
        (peer, peers)
    };
    let (synchronised, (mut peer, mut peers)) = futures::join!(fixture.synchronise(&["peer"]), peer);
    assert_eq!(synchronised.unwrap(), Synchronised::Ready);
    let head = fixture.view().head.unwrap();
    assert_eq!((head.end, head.registers.value_of("author")), (100, Some("peer")));

    let answering = async {
        let content = peer.next().await;
        assert_eq!((&content.content[..], content.content_delta), (&b"hello"[..], 0));
        let commit = peer.next().await;
        assert_eq!((commit.proposal.unwrap().end, commit.acknowledge), (105, true));
        assert_eq!(fixture.view().index.end(), 0, "the peer has not committed it yet");
        peer.answer(ReplicateResponse::default()).await;
        peer
    };
    let (outcome, mut peer) = futures::join!(fixture.queue(b"hello", Wants::default(), &[]), answering);
    assert_eq!(place(outcome), (100, 105));
    assert_eq!(fixture.view().index.end(), 105);

    let dying = async {
        while peer.next().await.content != b"lost?"[..] {}
        drop(peer);
    };
    let (outcome, ()) = futures::join!(fixture.queue(b"lost?", Wants::default(), &[]), dying);
    let error = error(outcome);
    assert!(error.contains(r#" zone:"zone" suffix:"peer" : "#), "{error}");
    assert!(
        matches!(fixture.queue(b"x", Wants::default(), &[]).await, Outcome::Resolve),
        "there is no pipeline"
    );
    let peer = async {
        let mut peer = within(peers.recv()).await.unwrap();
        let opening = peer.next().await.proposal.unwrap();
        assert_eq!(opening.end, 110, "what failed is part of the journal");
        peer.answer(ReplicateResponse::default()).await;
    };
    let (synchronised, ()) = futures::join!(fixture.synchronise(&["peer"]), peer);
    assert_eq!(synchronised.unwrap(), Synchronised::Ready);
}

#[tokio::test]
async fn a_peer_that_dies_while_nothing_is_appended_costs_no_append() {
    let (fixture, mut peers) = start_with_peers(Durability::Process).await;
    let has_no_pipeline = |view: &IndexView| view.head.as_ref().unwrap().route.is_none();
    let peer = agreed(&fixture, &mut peers).await;
    drop(peer);
    fixture.until(has_no_pipeline).await;
    let outcome = fixture.queue(b"x", Wants::default(), &[]).await;
    assert!(matches!(outcome, Outcome::Resolve), "{outcome:?}");

    // So it is if the peer says what nobody has asked for.
    let peer = agreed(&fixture, &mut peers).await;
    assert_eq!(fixture.view().head.unwrap().end, 0, "nothing was written");
    peer.answer(ReplicateResponse::default()).await;
    fixture.until(has_no_pipeline).await;
}

#[tokio::test]
async fn when_one_of_two_peers_dies_the_other_is_told_what_is_settled() {
    let (fixture, mut peers) = start_with_peers(Durability::Process).await;
    let both = async {
        let mut both = [within(peers.recv()).await.unwrap(), within(peers.recv()).await.unwrap()];
        for peer in &mut both {
            peer.next().await;
            peer.answer(ReplicateResponse::default()).await;
        }
        both
    };
    let (synchronised, [mut dying, mut other]) =
        futures::join!(fixture.synchronise(&["peer-a", "peer-b"]), both);
    assert_eq!(synchronised.unwrap(), Synchronised::Ready);
    let committed = async {
        for peer in [&mut dying, &mut other] {
            while !peer.next().await.acknowledge {}
            peer.answer(ReplicateResponse::default()).await;
        }
        drop(dying);
        let told = other.next().await;
        assert_eq!((told.settled_through, told.acknowledge), (Some(5), false));
        assert!(within(other.requests.recv()).await.is_none(), "and then its stream ends");
    };
    let (outcome, ()) = futures::join!(fixture.queue(b"hello", Wants::default(), &[]), committed);
    assert_eq!(place(outcome), (0, 5));
}

#[tokio::test]
async fn a_group_is_not_acknowledged_by_what_a_peer_says_of_one_whose_sync_failed() {
    let (fixture, mut peers) = start_with_peers(Durability::Disk).await;
    let mut peer = agreed(&fixture, &mut peers).await;
    for content in [b"one", b"two"] {
        let committed = async {
            while !peer.next().await.acknowledge {}
            peer.answer(ReplicateResponse::default()).await;
        };
        let (outcome, ()) = futures::join!(fixture.queue(content, Wants::default(), &[]), committed);
        place(outcome);
    }
    fixture.disk.fail_syncs(true);
    let sent = async {
        while !peer.next().await.acknowledge {}
        peer
    };
    let (outcome, peer) = futures::join!(fixture.queue(b"three", Wants::default(), &[]), sent);
    assert!(matches!(&outcome, Outcome::Failed(AppendError::Sync(_))), "{outcome:?}");
    fixture.disk.fail_syncs(false);
    // The peer has committed it, and says so. That says nothing of what is sent next.
    drop(peer.responses.send(Ok(ReplicateResponse::default())).await);
    let outcome = fixture.queue(b"four", Wants::default(), &[]).await;
    assert!(matches!(outcome, Outcome::Resolve), "{outcome:?}");
    let opening = async { within(peers.recv()).await.unwrap().next().await.proposal.unwrap() };
    let synchronised = async { drop(fixture.synchronise(&["peer"]).await) };
    let (opening, ()) = futures::join!(opening, synchronised);
    assert_eq!((opening.begin, opening.end), (11, 11), "the file is left");
}

#[tokio::test]
async fn a_route_that_was_superseded_does_not_come_back() {
    let (fixture, mut peers) = start_with_peers(Durability::Process).await;
    let stale = header(&[]);
    let mut newer = header(&["peer"]);
    newer.etcd.as_mut().unwrap().revision = 20;
    let peer = async {
        let mut peer = within(peers.recv()).await.unwrap();
        peer.next().await;
        peer.answer(ReplicateResponse::default()).await;
        peer
    };
    let (synchronised, _peer) = futures::join!(within(fixture.replica.synchronise(newer)), peer);
    assert_eq!(synchronised.unwrap(), Synchronised::Ready);
    // Whoever asks was resolved before, and would append without the peer.
    let synchronised = within(fixture.replica.synchronise(stale)).await.unwrap();
    assert_eq!(synchronised, Synchronised::ReadThrough(Revision(20)));
    assert_eq!(fixture.view().head.unwrap().route.unwrap().members.len(), 2);
}

#[tokio::test]
async fn an_append_that_comes_while_its_replica_closes_is_resolved_again() {
    let fixture = Fixture::start(Durability::Disk, spec(&[])).await;
    fixture.append(b"one").await;
    fixture.append(b"two").await;
    let (clock, commits) = (Clock::system(), fixture.deps.metrics.commits.get());
    fixture.disk.hold_syncs(true);
    let mut under_way = pin!(fixture.queue(b"three", Wants::default(), &[]));
    assert!(futures::poll!(under_way.as_mut()).is_pending());
    while fixture.deps.metrics.commits.get() == commits {
        clock.sleep(Duration::from_millis(1)).await;
    }
    let mut closed = pin!(fixture.replica.clone().shutdown(Farewell::Handover));
    assert!(futures::poll!(closed.as_mut()).is_pending());
    let inbox = &fixture.replica.inner.messages;
    while inbox.capacity() < inbox.max_capacity() {
        clock.sleep(Duration::from_millis(1)).await;
    }
    let mut late = pin!(fixture.queue(b"late", Wants::default(), &[]));
    assert!(futures::poll!(late.as_mut()).is_pending());
    fixture.disk.hold_syncs(false);
    let (under_way, late, ()) = futures::join!(under_way, late, within(closed));
    assert_eq!(place(under_way), (6, 11));
    assert!(matches!(late, Outcome::Resolve), "{late:?}");
}
