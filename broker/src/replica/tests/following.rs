//! The replica as one of several: under a primary, and after one.

use futures::StreamExt;

use super::*;
use crate::replica::follow::Follow;
use crate::spool::{SpoolDir, SpoolPlace};

/// The primary's end of a Replicate stream.
struct Primary {
    requests: mpsc::UnboundedSender<Result<ReplicateRequest, tonic::Status>>,
    responses: mpsc::Receiver<Result<ReplicateResponse, tonic::Status>>,
}

impl Primary {
    /// Opens a stream over the route of `revision`, with a proposal.
    async fn open(replica: &Replica, revision: i64, opening: ReplicateRequest) -> Primary {
        let (requests, messages) = mpsc::unbounded_channel();
        let (sender, responses) = mpsc::channel(16);
        let mut header = header(&["peer"]);
        header.etcd.as_mut().unwrap().revision = revision;
        let (accepted, is_accepted) = oneshot::channel();
        let follow = Follow {
            header: header.clone(),
            opening: ReplicateRequest { header: Some(header), acknowledge: true, ..opening },
            requests: tokio_stream::wrappers::UnboundedReceiverStream::new(messages).boxed(),
            responses: sender,
            accepted,
        };
        replica.follow(follow).await;
        within(is_accepted).await.unwrap();
        Primary { requests, responses }
    }

    fn send(&self, message: ReplicateRequest) {
        self.requests.send(Ok(message)).unwrap();
    }

    async fn response(&mut self) -> ReplicateResponse {
        within(self.responses.recv()).await.expect("the stream goes on").unwrap()
    }

    async fn is_ok(&mut self) {
        assert_eq!(self.response().await.status(), Status::Ok);
    }
}

fn proposal(begin: i64, content: &[u8]) -> ReplicateRequest {
    let end = begin + i64::try_from(content.len()).unwrap();
    let sum = if content.is_empty() { Sum::ZERO } else { Sum::of(content) };
    let fragment = Fragment { end, sum, ..Fragment::empty(journal(), begin, Codec::Gzip) };
    ReplicateRequest {
        proposal: Some(fragment.to_proto()),
        registers: Some(LabelSet::from_pairs([("author", "primary")])),
        settled_through: Some(0),
        ..Default::default()
    }
}

/// An empty spool whose registers are the primary's: proposals of equal registers follow.
async fn rolled_to(replica: &Replica, revision: i64, offset: i64) -> Primary {
    let mut primary = Primary::open(replica, revision, proposal(offset, b"")).await;
    let first = primary.response().await;
    assert!(first.header.is_some(), "the first response has a header");
    assert_eq!(first.status(), Status::Ok);
    primary
}

async fn start(durability: Durability, spec: JournalSpec) -> Fixture {
    let (dir, disk) = (tempfile::tempdir().unwrap(), ImageDisk::default());
    let deps = deps(&disk, dir.path(), durability);
    let replica = Replica::start(journal(), Revision(7), Arc::new(spec), deps.clone());
    Fixture { dir, disk, deps, replica }
}

#[tokio::test]
async fn content_is_shown_once_the_primary_says_that_all_have_it() {
    for durability in [Durability::Process, Durability::Disk] {
        let fixture = start(durability, spec(&[])).await;
        let mut primary = rolled_to(&fixture.replica, 4, 100).await;
        let content = |content: &'static [u8]| ReplicateRequest {
            content: Bytes::from_static(content),
            ..Default::default()
        };
        primary.send(content(b"one"));
        primary.send(ReplicateRequest { acknowledge: true, ..proposal(100, b"one") });
        primary.is_ok().await;
        assert_eq!(fixture.view().index.end(), 0, "others may not have committed it");
        primary.send(ReplicateRequest { settled_through: Some(103), ..proposal(100, b"one") });
        fixture.until(|view| view.index.end() == 103).await;
        assert_eq!(fixture.read(100), b"one");
        // The next proposal tells of its predecessor.
        primary.send(content(b"two"));
        primary.send(ReplicateRequest {
            acknowledge: true,
            settled_through: Some(103),
            ..proposal(100, b"onetwo")
        });
        primary.is_ok().await;
        assert_eq!(fixture.view().index.end(), 103);
    }
}

#[tokio::test]
async fn below_a_primary_that_does_not_say_content_is_shown_when_it_is_committed() {
    let fixture = start(Durability::Process, spec(&[])).await;
    let mut opening = proposal(100, b"");
    opening.settled_through = None;
    let mut primary = Primary::open(&fixture.replica, 4, opening).await;
    primary.is_ok().await;
    primary.send(ReplicateRequest { content: Bytes::from_static(b"one"), ..Default::default() });
    primary.send(ReplicateRequest { acknowledge: true, settled_through: None, ..proposal(100, b"one") });
    primary.is_ok().await;
    fixture.until(|view| view.index.end() == 103).await;
}

#[tokio::test]
async fn a_joiner_rolls_to_the_end_and_tells_the_primary() {
    let fixture = start(Durability::Process, spec(&[])).await;
    let mut primary = Primary::open(&fixture.replica, 4, proposal(5, b"earlier")).await;
    let mismatch = primary.response().await;
    assert_eq!(mismatch.status(), Status::ProposalMismatch);
    let theirs = mismatch.fragment.unwrap();
    assert_eq!((theirs.begin, theirs.end), (12, 12));
    assert_eq!(mismatch.registers.unwrap().value_of("author"), Some("primary"));
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(12, b"") });
    primary.is_ok().await;
}

#[tokio::test]
async fn messages_out_of_order_end_the_stream_and_leave_nothing() {
    let fixture = start(Durability::Process, spec(&[])).await;
    let mut primary = rolled_to(&fixture.replica, 4, 100).await;
    let content = Bytes::from_static(b"late");
    primary.send(ReplicateRequest { content, content_delta: 3, ..Default::default() });
    let failure = within(primary.responses.recv()).await.unwrap().unwrap_err();
    assert_eq!(failure.message(), "invalid ContentDelta (3; expected 0)");
    assert!(within(primary.responses.recv()).await.is_none());

    let mut primary = Primary::open(&fixture.replica, 5, proposal(100, b"")).await;
    primary.is_ok().await;
    primary.send(proposal(100, b"never sent"));
    let failure = within(primary.responses.recv()).await.unwrap().unwrap_err();
    assert_eq!(failure.message(), "no ack requested but status != OK: PROPOSAL_MISMATCH");
}

#[tokio::test]
async fn content_beyond_the_largest_offset_ends_the_stream() {
    let fixture = start(Durability::Process, spec(&[])).await;
    let mut primary = rolled_to(&fixture.replica, 4, i64::MAX - 2).await;
    primary.send(ReplicateRequest { content: Bytes::from_static(b"one"), ..Default::default() });
    let failure = within(primary.responses.recv()).await.unwrap().unwrap_err();
    assert!(failure.message().starts_with("content which would end beyond offset "), "{failure}");
}

#[tokio::test]
async fn the_stream_of_a_primary_that_hangs_is_cut_off_for_a_newer_one() {
    let fixture = start(Durability::Process, spec(&[])).await;
    let mut zombie = rolled_to(&fixture.replica, 4, 100).await;
    let mut primary = Primary::open(&fixture.replica, 5, proposal(100, b"")).await;
    primary.is_ok().await;
    let cut_off = within(zombie.responses.recv()).await.unwrap().unwrap_err();
    assert_eq!(cut_off.message(), "superseded by the stream of a newer route");
    primary.send(ReplicateRequest { content: Bytes::from_static(b"one"), ..Default::default() });
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(100, b"one") });
    primary.is_ok().await;
}

#[tokio::test]
async fn what_a_replica_acknowledges_survives_a_loss_of_power_although_it_rolls() {
    let fixture = start(Durability::Disk, spec(&[])).await;
    let mut primary = rolled_to(&fixture.replica, 4, 100).await;
    let content = |content: &'static [u8]| ReplicateRequest {
        content: Bytes::from_static(content),
        ..Default::default()
    };
    // As a journal's first two appends come, one close behind the other: they are applied together.
    primary.send(content(b"one"));
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(100, b"one") });
    primary.send(proposal(103, b""));
    primary.send(content(b"two"));
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(103, b"two") });
    primary.is_ok().await;
    primary.is_ok().await;
    let ops = fixture.disk.ops();
    for seed in 0..16 {
        let image = fixture.disk.after_power_loss(ops, &Entropy::seeded(seed));
        let head = SpoolHead { journal: journal(), incarnation: 1, create_revision: 7 };
        let place = SpoolPlace::new(Arc::new(image), fixture.dir.path(), Durability::Disk, head);
        let adopted = SpoolDir::adopt(place).unwrap();
        let spans: Vec<_> = adopted
            .completed
            .iter()
            .map(|spool| &spool.completed.fragment)
            .map(|f| (f.begin, f.end))
            .collect();
        let current = adopted.dir.spool().fragment();
        assert_eq!((&spans[..], current.begin, current.end), (&[(100, 103)][..], 103, 106), "seed {seed}");
    }
}

#[tokio::test]
async fn a_replica_that_becomes_the_primary_goes_on_with_what_it_has() {
    let fixture = start(Durability::Process, spec(&[])).await;
    let mut primary = rolled_to(&fixture.replica, 2, 100).await;
    primary.send(ReplicateRequest { content: Bytes::from_static(b"one"), ..Default::default() });
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(100, b"one") });
    primary.is_ok().await;
    assert_eq!(fixture.view().index.end(), 0);
    // The old primary keeps its stream open: it is cut off.
    assert_eq!(fixture.synchronise(&[]).await.unwrap(), Synchronised::Ready);
    assert_eq!(fixture.read(100), b"one", "it is all that there is, and so the journal");
    assert_eq!(fixture.append(b"two").await, (103, 106));
    drop(primary);
}

#[tokio::test]
async fn spools_that_were_left_behind_are_set_aside() {
    let fixture = Fixture::start(Durability::Process, spec(&[])).await;
    fixture.append(b"first").await;
    fixture.append(b"second").await;
    fixture.deps.tasks.cancel();
    within(fixture.deps.tasks.join()).await.unwrap();

    // The spools are of revision 3. Where others agreed on a newer route, or etcd knows of nothing, they are out of date.
    for (mark, is_current) in [(Some(2), true), (Some(3), true), (Some(4), false), (None, false)] {
        let disk = fixture.disk.clone();
        let marks = Marks(Arc::new(Mutex::new(mark.map(Revision))));
        let deps =
            ReplicaDeps { marks: Arc::new(marks), ..deps(&disk, fixture.dir.path(), Durability::Process) };
        let replica = Replica::start(journal(), Revision(7), Arc::new(spec(&[])), deps.clone());
        assert_eq!(within(replica.synchronise(header(&[]))).await.unwrap(), Synchronised::Ready);
        let head = replica.index().borrow().head.clone().unwrap();
        assert_eq!(head.end, if is_current { 11 } else { 0 });
        // A mark of other replicas than those which agreed last is written anew.
        assert_eq!(replica.is_marked(head.synced_at), mark == Some(3));
        let stale = disk.names().into_iter().filter(|name| name.ends_with(".stale")).count();
        assert_eq!(stale, if is_current { 0 } else { 2 });
        deps.tasks.cancel();
        within(deps.tasks.join()).await.unwrap();
    }
}

#[tokio::test]
async fn content_that_others_may_lack_is_not_stored_by_a_replica_that_leaves() {
    let fixture = start(Durability::Process, spec(&["file:///"])).await;
    let mut primary = rolled_to(&fixture.replica, 4, 100).await;
    primary.send(ReplicateRequest { content: Bytes::from_static(b"one"), ..Default::default() });
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(100, b"one") });
    primary.is_ok().await;
    within(fixture.replica.clone().shutdown(Farewell::Handover)).await;
    assert_eq!(within(fixture.deps.persister.drain(LIMIT)).await, 0);
    assert!(!fixture.dir.path().join("a").exists(), "nothing was stored");

    // The next one finds it.
    let deps = deps(&fixture.disk, fixture.dir.path(), Durability::Process);
    let replica = Replica::start(journal(), Revision(7), Arc::new(spec(&["file:///"])), deps);
    let mut primary = Primary::open(&replica, 5, proposal(100, b"one")).await;
    primary.is_ok().await;
    let view = within(replica.index().wait_for(|view| view.index.end() == 103)).await.unwrap().clone();
    assert_eq!(view.head.unwrap().registers.value_of("author"), Some("primary"));
}

#[tokio::test]
async fn a_group_that_was_being_sent_when_the_pipeline_failed_is_not_taken_for_acknowledged() {
    let (fixture, mut peers) = start_with_peers(Durability::Process).await;
    let mut peer = agreed(&fixture, &mut peers).await;
    let small = fixture.queue(b"small", Wants::default(), &[]);
    let (small_is_sent, wait) = oneshot::channel();
    // More than the peer takes at once: the group stays under way.
    let large = async {
        wait.await.unwrap();
        join_all((0..20).map(|_| fixture.queue(&vec![7; 1 << 20], Wants::default(), &[]))).await
    };
    let peer = async {
        assert_eq!(&peer.next().await.content[..], b"small");
        small_is_sent.send(()).unwrap();
        while peer.next().await.content.len() < 1 << 20 {}
        peer.responses.send(Err(tonic::Status::unavailable("gone"))).await.unwrap();
        while within(peer.requests.recv()).await.is_some() {}
    };
    let (small, large, ()) = futures::join!(small, large, peer);
    assert!(error(small).contains("gone"));
    let mut torn_down = 0;
    for outcome in large {
        match outcome {
            Outcome::Failed(error) => {
                assert_eq!(error.to_string(), "the pipeline was torn down");
                torn_down += 1;
            }
            // It was not in that group, and found no pipeline.
            outcome => assert!(matches!(outcome, Outcome::Resolve), "{outcome:?}"),
        }
    }
    assert!(torn_down > 0);
    assert_eq!(fixture.view().index.end(), 0, "nothing of it is shown");
}

#[tokio::test]
async fn a_replica_whose_sync_failed_goes_on_in_a_new_file() {
    let fixture = start(Durability::Disk, spec(&[])).await;
    let mut primary = rolled_to(&fixture.replica, 4, 100).await;
    fixture.disk.fail_syncs(true);
    primary.send(ReplicateRequest { content: Bytes::from_static(b"one"), ..Default::default() });
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(100, b"one") });
    let failure = within(primary.responses.recv()).await.unwrap().unwrap_err();
    assert!(failure.message().contains("injected sync failure"), "{failure}");
    fixture.disk.fail_syncs(false);
    let mut primary = Primary::open(&fixture.replica, 5, proposal(100, b"one")).await;
    let response = primary.response().await;
    let fragment = response.fragment.clone().unwrap();
    assert_eq!((response.status(), fragment.begin, fragment.end), (Status::ProposalMismatch, 103, 103));
    primary.send(ReplicateRequest { acknowledge: true, ..proposal(103, b"") });
    primary.is_ok().await;
    assert_eq!(fixture.read(100), b"one");
}

#[tokio::test]
async fn a_stream_that_begins_waits_for_the_disk_where_that_is_allowed() {
    let fixture = start(Durability::Disk, spec(&[])).await;
    drop(rolled_to(&fixture.replica, 4, 100).await);
    let mut primary = Primary::open(&fixture.replica, 5, proposal(100, b"")).await;
    primary.is_ok().await;
    // All tasks run on this thread.
    assert!(!fixture.disk.has_synced_on(std::thread::current().id()));
}

#[tokio::test]
async fn a_broker_whose_lease_has_expired_acknowledges_nothing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), ImageDisk::default());
    let is_member = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let asked = Arc::clone(&is_member);
    let deps = ReplicaDeps {
        is_member: Arc::new(move || asked.load(std::sync::atomic::Ordering::Relaxed)),
        ..deps(&disk, dir.path(), Durability::Process)
    };
    let replica = Replica::start(journal(), Revision(7), Arc::new(spec(&[])), deps.clone());
    let fixture = Fixture { dir, disk, deps, replica };
    fixture.synchronise(&[]).await.unwrap();
    assert_eq!(fixture.append(b"one").await, (0, 3));
    is_member.store(false, std::sync::atomic::Ordering::Relaxed);
    let error = error(fixture.queue(b"two", Wants::default(), &[]).await);
    assert_eq!(error, "the broker's etcd lease expired before the append was acknowledged");
}
