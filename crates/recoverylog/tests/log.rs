//! Recorders and players over a broker in memory.

#![allow(clippy::unwrap_used, reason = "only tests use it")]

use client::testing::{Fault, StubBroker};
use client::{AppendService, ClientOptions, JournalClient, OpError, OpFuture};
use proto::JournalName;
use proto::protocol::{LabelSet, Status};
use proto::recoverylog::FsmHints;
use recoverylog::{Author, Fnode, Fsm, PlayError, Played, Player, RecordError, Recorder};
use runtime::TaskGroup;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::Semaphore;

const LOG: &str = "a/recovery/log";

/// A broker with logs, a client, and room for directories.
struct World {
    tasks: TaskGroup,
    broker: StubBroker,
    client: JournalClient,
    dirs: TempDir,
}

impl World {
    async fn new() -> World {
        let tasks = TaskGroup::new("test");
        let broker = StubBroker::start(&tasks).await.unwrap();
        for log in [LOG, "b/recovery/log"] {
            broker.add_journal(log, LabelSet::default());
        }
        let client = JournalClient::new(broker.endpoint(), ClientOptions::new(tasks.clone())).unwrap();
        World { tasks, broker, client, dirs: tempfile::tempdir().unwrap() }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.dirs.path().join(name)
    }

    fn appends(&self) -> AppendService {
        AppendService::new(self.client.clone(), self.tasks.child("appends"))
    }

    fn play(&self, hints: &FsmHints, dir: &str) -> Player {
        Player::start(hints.clone(), self.dir(dir), self.client.clone(), &self.tasks).unwrap()
    }

    /// Plays to the head of the log.
    async fn played(&self, hints: &FsmHints, dir: &str) -> Result<Played, PlayError> {
        let player = self.play(hints, dir);
        player.finish_at_write_head();
        player.done().await
    }

    /// Plays, and hands the log over to `author`.
    async fn taken_over(&self, hints: &FsmHints, dir: &str, author: Author) -> Played {
        let player = self.play(hints, dir);
        player.inject_handoff(author);
        player.done().await.unwrap()
    }

    /// Takes the log over, and goes on recording.
    async fn primary(&self, hints: &FsmHints, dir: &str, author: Author) -> Recorded {
        let played = self.taken_over(hints, dir, author).await;
        self.recorded(played.fsm, dir, author, LOG).await
    }

    async fn recorded(&self, fsm: Fsm, dir: &str, author: Author, log: &str) -> Recorded {
        let dir = self.dir(dir);
        fs::create_dir_all(&dir).unwrap();
        let recorder = Recorder::start(fsm, author, dir.clone(), journal(log), self.appends()).await.unwrap();
        Recorded { recorder, dir }
    }
}

/// A directory whose operations are recorded, as a store does it.
struct Recorded {
    recorder: Recorder,
    dir: PathBuf,
}

impl Recorded {
    fn create(&self, name: &str) -> Result<Fnode, RecordError> {
        fs::write(self.dir.join(name), "").unwrap();
        self.recorder.create(&self.dir.join(name))
    }

    fn append(&self, name: &str, fnode: Fnode, data: &str) -> Result<(), RecordError> {
        let file = fs::OpenOptions::new().write(true).open(self.dir.join(name)).unwrap();
        let offset = file.metadata().unwrap().len();
        file.write_all_at(data.as_bytes(), offset).unwrap();
        self.recorder.write_at(fnode, offset, data.as_bytes())
    }

    fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.dir.join(from), self.dir.join(to));
        fs::rename(&from, &to).unwrap();
        self.recorder.rename(&from, &to).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.join(name)).unwrap();
        self.recorder.remove(&self.dir.join(name)).unwrap();
    }

    async fn sync(&self) -> Result<(), RecordError> {
        let recorder = self.recorder.clone();
        tokio::task::spawn_blocking(move || recorder.sync_blocking()).await.unwrap()
    }

    fn files(&self) -> BTreeMap<String, String> {
        files_of(&self.dir)
    }
}

fn files_of(dir: &Path) -> BTreeMap<String, String> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap())
    };
    fs::read_dir(dir).unwrap().map(entry).collect()
}

fn journal(name: &str) -> JournalName {
    JournalName::parse(name).unwrap()
}

fn author(id: u32) -> Author {
    Author::new(id).unwrap()
}

fn no_hints() -> FsmHints {
    FsmHints { log: LOG.into(), ..FsmHints::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_directory_is_played_elsewhere() {
    let world = World::new().await;
    let first = world.primary(&no_hints(), "first", author(1)).await;
    let fnode = first.create("file").unwrap();
    first.append("file", fnode, "hello").unwrap();
    first.create("gone").unwrap();
    first.remove("gone");
    first.append("file", fnode, " world").unwrap();
    first.rename("file", "renamed");
    first.create("id.tmp").unwrap();
    fs::write(first.dir.join("id.tmp"), "the id").unwrap();
    first.rename("id.tmp", "IDENTITY");
    first.sync().await.unwrap();
    let fnode_at = |name: &str| first.recorder.fnode(&first.dir.join(name)).unwrap();
    assert_eq!(["renamed", "file", "gone", "IDENTITY"].map(fnode_at), [Some(fnode), None, None, None]);

    let played = world.played(&no_hints(), "second").await.unwrap();
    assert_eq!(played.log.as_str(), LOG);
    assert_eq!(files_of(&played.dir), first.files());

    // Hints lead to the same, and so do those of the player.
    let hints = first.recorder.build_hints().await.unwrap();
    assert_eq!(hints.properties[0].content, "the id");
    for hints in [hints, played.fsm.build_hints(&played.log)] {
        let again = world.played(&hints, "third").await.unwrap();
        assert_eq!(files_of(&again.dir), first.files());
        assert_eq!(again.fsm.build_hints(&again.log).properties, hints.properties);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_hold_true_bounds_of_offsets() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let fnode = recorded.create("a").unwrap();
    recorded.sync().await.unwrap();
    recorded.create("b").unwrap();
    recorded.append("a", fnode, "more").unwrap();
    let hints = recorded.recorder.build_hints().await.unwrap();
    let exact = world.played(&hints, "copy").await.unwrap().fsm.build_hints(&journal(LOG));
    for (bound, exact) in hints.live_nodes.iter().zip(&exact.live_nodes) {
        let (bound, exact) = (&bound.segments[0], &exact.segments[0]);
        assert_eq!((bound.first_seq_no, bound.last_seq_no), (exact.first_seq_no, exact.last_seq_no));
        assert!(bound.first_offset <= exact.first_offset && bound.last_offset >= exact.last_offset);
        assert!(bound.last_offset <= world.broker.content(LOG).len() as i64);
    }
    // The second file begins after what was known to be committed.
    assert!(hints.live_nodes[1].segments[0].first_offset > 0);
    assert_eq!(recorded.recorder.write_head(), world.broker.content(LOG).len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_recorder_fails_at_once_and_says_so() {
    let world = World::new().await;
    let zombie = world.primary(&no_hints(), "zombie", author(1)).await;
    let fnode = zombie.create("file").unwrap();
    zombie.append("file", fnode, "kept").unwrap();
    zombie.sync().await.unwrap();

    let next = world.primary(&no_hints(), "next", author(2)).await;
    assert_eq!(next.files()["file"], "kept");
    let head = world.broker.content(LOG).len();

    // The zombie has not heard of it yet: the operation is accepted, and its commit is not.
    zombie.append("file", fnode, "lost").unwrap();
    let error = zombie.sync().await.unwrap_err();
    assert!(error.is_fenced(), "{error}");
    assert!(error.to_string().contains("recorder 1 of a/recovery/log is fenced"), "{error}");
    // From then on it knows.
    assert!(zombie.append("file", fnode, "lost").unwrap_err().is_fenced());
    assert!(zombie.create("other").unwrap_err().is_fenced());
    assert!(zombie.recorder.failure().unwrap().is_fenced());
    assert!(zombie.recorder.build_hints().await.unwrap_err().is_fenced());
    assert!(zombie.recorder.barrier(Vec::new()).try_result().unwrap().is_err());
    assert_eq!(world.broker.content(LOG).len(), head);

    // Its successor is not disturbed.
    next.append("file", fnode, " and more").unwrap();
    next.sync().await.unwrap();
    let played = world.played(&no_hints(), "copy").await.unwrap();
    assert_eq!(files_of(&played.dir)["file"], "kept and more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_waits_for_its_dependencies_and_so_does_what_follows() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let fnode = recorded.create("file").unwrap();
    recorded.sync().await.unwrap();
    let head = world.broker.content(LOG).len();

    let (promise, dep) = OpFuture::pair();
    let barrier = recorded.recorder.barrier(vec![dep]);
    recorded.append("file", fnode, "after").unwrap();
    let after = recorded.recorder.barrier(Vec::new());
    // Another journal's append goes through meanwhile, and the log's does not.
    world.client.append(plain("b/recovery/log"), "x".into()).await.unwrap();
    assert!(barrier.try_result().is_none() && after.try_result().is_none());
    assert_eq!(world.broker.content(LOG).len(), head);

    promise.resolve(Ok(()));
    after.await.unwrap();
    assert!(barrier.try_result().unwrap().is_ok());
    assert!(world.broker.content(LOG).len() > head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dependency_fails_the_recorder() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let failed = OpFuture::resolved(Err(OpError::failed("disk on fire")));
    let error = recorded.recorder.barrier(vec![failed]).await.unwrap_err();
    assert!(error.to_string().contains("disk on fire"), "{error}");
    let error = recorded.sync().await.unwrap_err();
    assert!(matches!(error, RecordError::Append { .. }) && !error.is_fenced(), "{error}");
    assert!(recorded.create("file").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_recorder_fails_rather_than_waits() {
    let world = World::new().await;
    let author = author(1);
    let played = world.taken_over(&no_hints(), "dir", author).await;
    let tasks = world.tasks.child("cancelled");
    let appends = AppendService::new(world.client.clone(), tasks.clone());
    let recorder =
        Recorder::start(played.fsm, author, played.dir.clone(), journal(LOG), appends).await.unwrap();
    let recorded = Recorded { recorder, dir: played.dir };

    world.broker.fault_append(Fault::Hold(Arc::new(Semaphore::new(0))));
    recorded.create("file").unwrap();
    let (synced, ()) = tokio::join!(recorded.sync(), async { tasks.cancel() });
    let error = synced.unwrap_err();
    assert!(matches!(&error, RecordError::Append { cause, .. } if cause.is_cancelled()), "{error}");
    assert!(recorded.create("other").is_err());
    assert!(recorded.recorder.fnode(&recorded.dir.join("file")).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_which_contradicts_the_recording_fails_the_recorder() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let outside = recorded.recorder.create(&world.dir("elsewhere/file")).unwrap_err();
    assert!(outside.to_string().contains("outside of the recorded directory"), "{outside}");
    let error = recorded.create("file").unwrap_err();
    assert_eq!(error.to_string(), outside.to_string());

    let other = world.primary(&no_hints(), "other", author(2)).await;
    let error = other.recorder.remove(&other.dir.join("unknown")).unwrap_err();
    assert_eq!(error.to_string(), "recording to a/recovery/log: remove of /unknown, which was not recorded");
    assert!(other.sync().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_follows_and_takes_over() {
    let world = World::new().await;
    let primary = world.primary(&no_hints(), "primary", author(1)).await;
    let fnode = primary.create("file").unwrap();
    primary.sync().await.unwrap();

    let standby = world.play(&no_hints(), "standby");
    standby.tailing().await;
    let played_before = standby.progress().unwrap();
    assert!(played_before.tailing && played_before.offset == played_before.head);

    primary.append("file", fnode, "while it follows").unwrap();
    primary.sync().await.unwrap();
    standby.inject_handoff(author(2));
    let played = standby.done().await.unwrap();
    assert_eq!(files_of(&played.dir)["file"], "while it follows");

    primary.append("file", fnode, "too late").unwrap();
    assert!(primary.sync().await.unwrap_err().is_fenced());
    let next = world.recorded(played.fsm, "standby", author(2), LOG).await;
    next.append("file", fnode, ", and now").unwrap();
    next.sync().await.unwrap();
    let last = world.played(&no_hints(), "last").await.unwrap();
    assert_eq!(files_of(&last.dir)["file"], "while it follows, and now");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_players_which_take_over_the_last_one_wins() {
    let world = World::new().await;
    let before = world.primary(&no_hints(), "before", author(1)).await;
    let fnode = before.create("file").unwrap();
    before.sync().await.unwrap();

    let players: Vec<_> =
        (2..6).map(|id| (author(id), world.play(&no_hints(), &format!("player{id}")))).collect();
    for (_, player) in &players {
        player.tailing().await;
    }
    for (author, player) in &players {
        player.inject_handoff(*author);
    }
    let mut recorded = Vec::new();
    for (author, player) in &players {
        let played = player.done().await.unwrap();
        let dir = played.dir.file_name().unwrap().to_str().unwrap().to_owned();
        recorded.push(world.recorded(played.fsm, &dir, *author, LOG).await);
    }
    let mut kept = 0;
    for one in &recorded {
        one.append("file", fnode, &format!("{:?}", one.recorder.author())).unwrap();
        kept += u32::from(one.sync().await.is_ok());
    }
    assert_eq!(kept, 1);
    let last = world.played(&no_hints(), "last").await.unwrap();
    let winner = recorded.iter().find(|one| one.recorder.failure().is_none()).unwrap();
    assert_eq!(files_of(&last.dir), winner.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_is_forked_to() {
    let world = World::new().await;
    let first = world.primary(&no_hints(), "first", author(1)).await;
    let fnode = first.create("file").unwrap();
    first.append("file", fnode, "one").unwrap();
    first.sync().await.unwrap();

    let played = world.taken_over(&no_hints(), "second", author(2)).await;
    let fork = world.recorded(played.fsm, "second", author(2), "b/recovery/log").await;
    assert_eq!(world.broker.content("b/recovery/log").len(), 20);
    // Until a live file is written to, hints would end in the log before, which every reader refuses.
    let error = fork.recorder.build_hints().await.unwrap_err();
    assert!(matches!(error, RecordError::NoHintsYet { .. }), "{error}");

    fork.append("file", fnode, " two").unwrap();
    let hints = fork.recorder.build_hints().await.unwrap();
    assert_eq!((hints.log.as_str(), hints.live_nodes[0].segments[0].log.as_str()), ("b/recovery/log", LOG));
    let last = world.played(&hints, "last").await.unwrap();
    assert_eq!(files_of(&last.dir)["file"], "one two");

    // The fork holds the fence of the new log, too.
    let third = world.taken_over(&hints, "third", author(3)).await;
    assert_eq!(third.log.as_str(), "b/recovery/log");
    fork.append("file", fnode, " three").unwrap();
    assert!(fork.sync().await.unwrap_err().is_fenced());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_which_lost_its_tail_is_refused() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let fnode = recorded.create("file").unwrap();
    recorded.append("file", fnode, "one").unwrap();
    recorded.sync().await.unwrap();
    let before = world.broker.content(LOG);
    recorded.append("file", fnode, "two").unwrap();
    let hints = recorded.recorder.build_hints().await.unwrap();

    world.broker.set_content(LOG, 0, &before);
    let error = world.played(&hints, "copy").await.unwrap_err();
    assert!(matches!(error, PlayError::ShortLog { .. }) && error.is_data_loss(), "{error}");
    assert!(error.to_string().contains("max write-head of a/recovery/log is"), "{error}");
    assert!(!world.dir("copy").exists());

    // The recorder sees it, too.
    let _ = recorded.append("file", fnode, "three");
    let _ = recorded.sync().await;
    let error = recorded.create("other").unwrap_err();
    assert!(matches!(error, RecordError::WentBack { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_which_lost_its_beginning_is_refused_without_hints_for_it() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let fnode = recorded.create("file").unwrap();
    recorded.append("file", fnode, "one").unwrap();
    recorded.sync().await.unwrap();
    let content = world.broker.content(LOG);
    let begin = content.len() / 2;
    world.broker.set_content(LOG, begin as i64, &content[begin..]);
    let error = world.played(&no_hints(), "copy").await.unwrap_err();
    assert!(error.is_data_loss(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_which_ends_within_an_operation_is_refused() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    recorded.create("file").unwrap();
    recorded.sync().await.unwrap();
    let content = world.broker.content(LOG);
    world.broker.set_content(LOG, 0, &content[..content.len() - 1]);
    let error = world.played(&no_hints(), "copy").await.unwrap_err();
    assert!(matches!(error, PlayError::TornOp { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn players_name_what_they_cannot_read() {
    let world = World::new().await;
    let missing = FsmHints { log: "no/such/log".into(), ..FsmHints::default() };
    let error = world.played(&missing, "copy").await.unwrap_err();
    assert_eq!(error.to_string(), "determining the head of no/such/log: no/such/log: JOURNAL_NOT_FOUND");

    let invalid = FsmHints::default();
    let error = Player::start(invalid, world.dir("copy"), world.client.clone(), &world.tasks).unwrap_err();
    assert_eq!(error.to_string(), "hinted log not provided");

    let relative = Player::start(no_hints(), "relative".into(), world.client.clone(), &world.tasks).unwrap();
    let error = relative.done().await.unwrap_err();
    assert!(error.to_string().contains("not an absolute, clean directory"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn players_go_on_where_brokers_fail() {
    let world = World::new().await;
    let recorded = world.primary(&no_hints(), "dir", author(1)).await;
    let fnode = recorded.create("file").unwrap();
    recorded.append("file", fnode, &"x".repeat(100_000)).unwrap();
    recorded.sync().await.unwrap();
    world.broker.fault_append(Fault::Status(Status::NoJournalPrimaryBroker));
    world.broker.fault_append(Fault::GrpcAfterEffect(tonic::Code::Unavailable));
    world.broker.fault_read(Fault::Grpc(tonic::Code::Unavailable));
    let player = world.play(&no_hints(), "copy");
    player.tailing().await;
    // The hand-off is repeated since its outcome is unknown: the second one does not apply, and does no harm.
    world.broker.fault_append(Fault::GrpcAfterEffect(tonic::Code::Unavailable));
    player.inject_handoff(author(2));
    let played = player.done().await.unwrap();
    assert_eq!(files_of(&played.dir), recorded.files());

    let next = world.recorded(played.fsm, "copy", author(2), LOG).await;
    next.append("file", fnode, "y").unwrap();
    world.broker.fault_append(Fault::GrpcAfterEffect(tonic::Code::Unavailable));
    next.sync().await.unwrap();
    assert_eq!(files_of(&world.played(&no_hints(), "last").await.unwrap().dir), next.files());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_player_removes_its_directory() {
    let world = World::new().await;
    let tasks = world.tasks.child("player");
    let player = Player::start(no_hints(), world.dir("copy"), world.client.clone(), &tasks).unwrap();
    player.tailing().await;
    assert!(world.dir("copy").exists());
    tasks.cancel();
    assert!(player.done().await.unwrap_err().is_cancelled());
    assert!(!world.dir("copy").exists());

    // Also while its append hangs.
    world.broker.fault_append(Fault::Hold(Arc::new(Semaphore::new(0))));
    let tasks = world.tasks.child("player");
    let player = Player::start(no_hints(), world.dir("copy"), world.client.clone(), &tasks).unwrap();
    tasks.cancel();
    assert!(player.done().await.unwrap_err().is_cancelled());
}

fn plain(journal: &str) -> proto::protocol::AppendRequest {
    proto::protocol::AppendRequest { journal: journal.into(), ..Default::default() }
}
