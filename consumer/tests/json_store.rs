//! What a JSON file store leaves in its recovery log, and what is recovered of it.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use client::{OpError, OpFuture};
use consumer::testing::{LOG, World, checkpoint, commit, no_hints, restored};
use consumer::{JsonFileStore, JsonStoreError, Store};
use message::{Split, fixed};
use recoverylog::{Action, Op, Recorder};

type Numbers = JsonFileStore<Vec<u64>>;

trait Opens {
    async fn recorder_in(&self, dir: &str, id: u32) -> Recorder;

    async fn store(&self, dir: &str, id: u32) -> Numbers;

    /// Names of the operations in the log from `begin` on, with their paths.
    fn operations(&self, begin: usize) -> Vec<String>;
}

impl Opens for World {
    async fn recorder_in(&self, dir: &str, id: u32) -> Recorder {
        self.recorder(&no_hints(), dir, id).await
    }

    async fn store(&self, dir: &str, id: u32) -> Numbers {
        JsonFileStore::open(Some(self.recorder_in(dir, id).await), &self.tasks).await.unwrap()
    }

    fn operations(&self, begin: usize) -> Vec<String> {
        let (log, mut at, mut names) = (self.broker.content(LOG), begin, Vec::new());
        while at < log.len() {
            let Split::Frame { consumed, payload } = fixed::split(&log[at..], true) else {
                panic!("not a frame")
            };
            let op = Op::decode(&log[at..][payload]).unwrap();
            at += consumed + usize::try_from(op.bytes_after_frame()).unwrap();
            names.push(match op.action {
                Action::Create { path } => format!("create {path}"),
                Action::Link { path, .. } => format!("link {path}"),
                Action::Unlink { path, .. } => format!("unlink {path}"),
                Action::Write { .. } => "write".to_owned(),
                other => format!("{other:?}"),
            });
        }
        names
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_one_new_file_which_replaces_the_last() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    assert_eq!((restored(&mut store).await, store.state.len()), (0, 0));
    let begin = world.broker.content(LOG).len();
    store.state = vec![1];
    commit(&mut store, 1).await.unwrap();
    let first = ["create /next.json", "write", "write", "write", "link /state.json", "unlink /next.json"];
    assert_eq!(world.operations(begin), first);

    let begin = world.broker.content(LOG).len();
    store.state.push(u64::MAX);
    commit(&mut store, 2).await.unwrap();
    let mut second = first.to_vec();
    second.insert(4, "unlink /state.json");
    assert_eq!(world.operations(begin), second);

    let mut next = world.store("next", 2).await;
    assert_eq!((restored(&mut next).await, next.state), (2, vec![1, u64::MAX]));
}

/// The process before was killed between its writes and the rename: its file is recovered, and goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_which_was_left_behind_is_replaced() {
    let world = World::new().await;
    let recorder = world.recorder_in("killed", 1).await;
    let fnode = recorder.create(&recorder.dir().join("next.json")).unwrap();
    recorder.write_at(fnode, 0, b"{}\n[1,").unwrap();
    recorder.barrier(Vec::new()).await.unwrap();

    let mut store = world.store("dir", 2).await;
    assert_eq!(restored(&mut store).await, 0);
    assert!(world.dirs.path().join("dir/next.json").exists());
    let begin = world.broker.content(LOG).len();
    store.state = vec![7];
    commit(&mut store, 1).await.unwrap();
    assert_eq!(world.operations(begin)[..2], ["unlink /next.json", "create /next.json"]);
    let mut next = world.store("next", 3).await;
    assert_eq!((restored(&mut next).await, next.state), (1, vec![7]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_waits_for_its_dependencies_and_fails_with_them() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    let head = world.broker.content(LOG).len();
    let (promise, dep) = OpFuture::pair();
    let waiting = store.start_commit(checkpoint(1), vec![dep]);
    // It is written locally, and its bytes wait behind the barrier.
    while !world.dirs.path().join("dir/state.json").exists() {
        tokio::task::yield_now().await;
    }
    assert!(waiting.try_result().is_none());
    assert_eq!(world.broker.content(LOG).len(), head);
    promise.resolve(Err(OpError::failed("no such journal")));
    assert!(waiting.await.unwrap_err().to_string().contains("no such journal"));
    assert!(commit(&mut store, 2).await.is_err());
    assert_eq!(restored(&mut world.store("next", 2).await).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_whole_durable_commits_and_nothing_else() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    let reader = store.reader();
    let read = || reader.state().map(|state| state.to_vec());
    store.state = vec![1];
    assert_eq!(read().unwrap(), [0; 0], "the transaction runs");
    commit(&mut store, 1).await.unwrap();
    assert_eq!(read().unwrap(), [1]);

    store.state.push(2);
    let (promise, dep) = OpFuture::pair();
    let waiting = store.start_commit(checkpoint(2), vec![dep]);
    store.state.push(3);
    assert_eq!(read().unwrap(), [1], "the commit waits for what it depends on");
    promise.resolve(Ok(()));
    waiting.await.unwrap();
    assert_eq!(read().unwrap(), [1, 2]);
    drop(store);
    assert!(matches!(read(), Err(JsonStoreError::Closed)));

    let mut next = world.store("next", 2).await;
    assert_eq!(next.reader().state().unwrap().to_vec(), [1, 2], "what was recovered");
    next.state.push(9);
    let (promise, dep) = OpFuture::pair();
    let failing = next.start_commit(checkpoint(3), vec![dep]);
    promise.resolve(Err(OpError::failed("no such journal")));
    failing.await.unwrap_err();
    assert_eq!(next.reader().state().unwrap().to_vec(), [1, 2], "the commit failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_commit_and_says_that_it_is_fenced() {
    let world = World::new().await;
    let mut zombie = world.store("zombie", 1).await;
    zombie.state = vec![1];
    commit(&mut zombie, 1).await.unwrap();
    let mut next = world.store("next", 2).await;
    zombie.state = vec![2];
    let error = commit(&mut zombie, 2).await.unwrap_err();
    assert!(error.is_fenced());
    assert!(error.to_string().contains("recorder 1 of a/recovery/log is fenced"), "{error}");
    assert_eq!((restored(&mut next).await, next.state), (1, vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_which_holds_another_kind_of_store_is_refused() {
    let world = World::new().await;
    for (number, found) in [(1, "CURRENT"), (3, "pageDB/CURRENT")] {
        let recorder = world.recorder_in(&format!("other-{number}"), number).await;
        let path = recorder.dir().join(found);
        let fnode = recorder.create(&path).unwrap();
        recorder.write_at(fnode, 0, b"MANIFEST-000004\n").unwrap();
        recorder.barrier(Vec::new()).await.unwrap();
        // What refuses is what was recovered from the log.
        let recorder = world.recorder_in(&format!("json-{number}"), number + 1).await;
        let begin = world.broker.content(LOG).len();
        let error = Numbers::open(Some(recorder.clone()), &world.tasks).await.map(drop).unwrap_err();
        let name = found.split('/').next().unwrap();
        let expected = format!("holds {name}, which is of another kind of store");
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(world.operations(begin), Vec::<String>::new(), "nothing is written");
        recorder.remove(&recorder.dir().join(found)).unwrap();
        recorder.barrier(Vec::new()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_needs_a_recorder_and_a_file_which_is_whole() {
    let world = World::new().await;
    let error = Numbers::open(None, &world.tasks).await.map(drop).unwrap_err();
    assert!(matches!(error, JsonStoreError::NoRecorder));
    for (number, content) in [(1, "{}\n[1"), (2, "{}\n"), (3, ""), (4, "{}\n[1]\n{\"sources\":")] {
        let recorder = world.recorder_in("dir", number).await;
        std::fs::write(recorder.dir().join("state.json"), content).unwrap();
        let error = Numbers::open(Some(recorder), &world.tasks).await.map(drop).unwrap_err();
        assert!(matches!(error, JsonStoreError::Document { .. }), "{content:?}: {error}");
    }
}
