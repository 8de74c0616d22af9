//! What a shard relies on: commits are whole, durable, ordered and fenced.

use crate::world::*;
use client::testing::Fault;
use client::{OpError, OpFuture};
use consumer::Store;
use recoverylog::{Author, Player};
use std::sync::Arc;
use store_rocksdb::rocksdb::{DB, IteratorMode};
use store_rocksdb::{RocksStore, StoreError};
use tokio::sync::Semaphore;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_recovered_elsewhere() {
    let world = World::new().await;
    let mut store = world.store("first", 1).await;
    assert_eq!(restored(&mut store).await, 0);
    store.put("a", "1");
    store.put("b", "2");
    commit(&mut store, 1).await.unwrap();
    store.delete("a");
    store.put("b", "3");
    store.put("c", vec![b'x'; 100_000]);
    commit(&mut store, 2).await.unwrap();
    store.put("d", "never committed");

    let mut next = world.store("second", 2).await;
    assert_eq!(restored(&mut next).await, 2);
    assert_eq!(text(next.get("a").unwrap()), None);
    assert_eq!(text(next.get("b").unwrap()).unwrap(), "3");
    assert_eq!(next.get("c").unwrap().unwrap().len(), 100_000);
    assert_eq!(text(next.get("d").unwrap()), None);

    // The recovered database is recorded on.
    next.put("a", "again");
    commit(&mut next, 3).await.unwrap();
    let mut last = world.store("third", 3).await;
    assert_eq!((restored(&mut last).await, text(last.get("a").unwrap()).unwrap()), (3, "again".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_visible_before_during_and_after_their_commit() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    store.put("a", "1");
    store.put("b", "1");
    assert_eq!(text(store.get("a").unwrap()).unwrap(), "1");

    let (promise, dep) = OpFuture::pair();
    let first = store.start_commit(checkpoint(1), vec![dep]);
    assert_eq!(text(store.get("a").unwrap()).unwrap(), "1");
    store.put("a", "2");
    store.delete("b");
    store.put("c", "2");
    let seen = |store: &RocksStore| -> Vec<(String, String)> {
        let text = |bytes: Box<[u8]>| String::from_utf8(bytes.into()).unwrap();
        store.iter(b"").map(|entry| entry.unwrap()).map(|(key, value)| (text(key), text(value))).collect()
    };
    let expected = [("a".to_owned(), "2".to_owned()), ("c".to_owned(), "2".to_owned())];
    assert_eq!(seen(&store), expected);
    promise.resolve(Ok(()));
    first.await.unwrap();
    commit(&mut store, 2).await.unwrap();
    // The framework's own keys are not among them.
    assert_eq!(seen(&store), expected);
    assert_eq!(store.db().iterator(IteratorMode::Start).count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_not_in_the_log_before_its_dependencies_succeed() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    commit(&mut store, 1).await.unwrap();
    let head = world.broker.content(LOG).len();

    let (promise, dep) = OpFuture::pair();
    store.put("key", "value");
    let commit = store.start_commit(checkpoint(2), vec![OpFuture::resolved(Ok(())), dep]);
    // The batch is written locally, and its bytes wait behind the barrier.
    while store.recorder().write_head() >= 0 && store.db().get("key").unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(commit.try_result().is_none());
    assert_eq!(world.broker.content(LOG).len(), head);
    promise.resolve(Ok(()));
    commit.await.unwrap();
    assert!(world.broker.content(LOG).len() > head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dependency_fails_the_commit_and_those_after_it() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    store.put("key", "value");
    let failed = OpFuture::resolved(Err(OpError::failed("no such journal")));
    let error = store.start_commit(checkpoint(1), vec![failed]).await.unwrap_err();
    assert!(error.to_string().contains("no such journal"), "{error}");
    assert!(commit(&mut store, 2).await.unwrap_err().to_string().contains("no such journal"));

    let mut next = world.store("next", 2).await;
    assert_eq!((restored(&mut next).await, next.get("key").unwrap()), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_commit_and_says_that_it_is_fenced() {
    let world = World::new().await;
    let mut zombie = world.store("zombie", 1).await;
    zombie.put("key", "kept");
    commit(&mut zombie, 1).await.unwrap();

    let mut next = world.store("next", 2).await;
    zombie.put("key", "lost");
    let error = commit(&mut zombie, 2).await.unwrap_err();
    assert!(error.to_string().contains("recorder 1 of a/recovery/log is fenced"), "{error}");
    assert!(error.is_fenced());
    assert!(zombie.recorder().failure().unwrap().is_fenced());
    // The next one fails at once.
    let error = zombie.start_commit(checkpoint(3), Vec::new()).try_result().unwrap().unwrap_err();
    assert!(error.to_string().contains("is fenced"), "{error}");
    // RocksDB was told as well: what it cannot record it does not do (C7).
    assert!(zombie.db().put("directly", "x").is_err());
    assert!(zombie.db().flush().is_err());

    assert_eq!((restored(&mut next).await, text(next.get("key").unwrap()).unwrap()), (1, "kept".into()));
    next.put("key", "new");
    commit(&mut next, 4).await.unwrap();
    let mut last = world.store("last", 3).await;
    assert_eq!((restored(&mut last).await, text(last.get("key").unwrap()).unwrap()), (4, "new".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_which_followed_takes_over() {
    let world = World::new().await;
    let mut store = world.store("primary", 1).await;
    commit(&mut store, 1).await.unwrap();
    let standby =
        Player::start(no_hints(), world.dir("standby"), world.client.clone(), &world.tasks).unwrap();
    standby.tailing().await;
    for number in 2..=150 {
        store.put(format!("key {:02}", number % 40), vec![b'x'; 2000]);
        commit(&mut store, number).await.unwrap();
    }
    let author = Author::new(2).unwrap();
    standby.inject_handoff(author);
    let recorder = world.record_on(standby.done().await.unwrap(), author, &world.tasks).await;
    let mut next = RocksStore::open(Some(recorder), &world.tasks, small_buffers).await.unwrap();
    assert_eq!((restored(&mut next).await, next.iter(b"key").count()), (150, 40));
    assert!(commit(&mut store, 151).await.unwrap_err().is_fenced());
    commit(&mut next, 151).await.unwrap();
}

/// A broker which does not answer holds up a commit, and the threads of RocksDB; a shard which is given up meanwhile is
/// rid of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_log_hangs_can_be_cancelled_and_destroyed() {
    let world = World::new().await;
    let tasks = world.tasks.child("shard");
    let author = Author::new(1).unwrap();
    let played = world.taken_over(&no_hints(), "dir", author).await.unwrap();
    let recorder = world.record_on(played, author, &tasks).await;
    let mut store = RocksStore::open(Some(recorder), &tasks, small_buffers).await.unwrap();
    commit(&mut store, 1).await.unwrap();

    world.broker.fault_append(Fault::Hold(Arc::new(Semaphore::new(0))));
    store.put("large", vec![b'x'; 200_000]); // More than RocksDB keeps in memory: it flushes.
    let hanging = store.start_commit(checkpoint(2), Vec::new());
    while store.db().get("large").unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    assert!(hanging.try_result().is_none());
    tasks.cancel();
    assert!(hanging.await.unwrap_err().to_string().contains("cancelled"));
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert!(!world.dir("dir").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_recover_what_the_whole_log_does() {
    let world = World::new().await;
    let mut store = world.store("first", 1).await;
    for number in 1..=200 {
        store.put(format!("key {:03}", number % 50), vec![b'x'; 1000]);
        commit(&mut store, number).await.unwrap();
    }
    let hints = store.recorder().build_hints().await.unwrap();
    for number in 201..=220 {
        commit(&mut store, number).await.unwrap();
    }
    let recorder = world.recorder(&hints, "second", 2).await;
    let mut next = RocksStore::open(Some(recorder), &world.tasks, small_buffers).await.unwrap();
    assert_eq!(restored(&mut next).await, 220);
    assert_eq!(next.iter(b"key").count(), 50);
    // The identity of the database is the same, as a property of the hints.
    assert_eq!(hints.properties[0].path, "/IDENTITY");
    let identity = std::fs::read_to_string(world.dir("second").join("IDENTITY")).unwrap();
    assert_eq!(identity, hints.properties[0].content);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_of_older_stores_are_a_checkpoint() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    store.db().put(b"\x00\x12mark\x00\x01\x12a/source\x00\x01", [0xf7, 0x04, 0xd2]).unwrap();
    store.db().put(b"\x00\x12marx", "not one").unwrap();
    assert_eq!(restored(&mut store).await, 1234);
    // A commit writes both, and the checkpoint counts from then on.
    commit(&mut store, 5000).await.unwrap();
    let mark = store.db().get(b"\x00\x12mark\x00\x01\x12a/source\x00\x01").unwrap().unwrap();
    assert_eq!(mark, [0xf7, 0x13, 0x88]);
    assert_eq!(restored(&mut store).await, 5000);

    store.db().put(b"\x00\x12checkpoint\x00\x01", [0xff]).unwrap();
    let error = store.restore_checkpoint().await.unwrap_err().to_string();
    assert!(error.contains("cannot be decoded"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_cannot_write_around_the_recorder() {
    let world = World::new().await;
    let recorder = world.recorder(&no_hints(), "dir", 1).await;
    let elsewhere = world.dir("elsewhere");
    let configure = {
        let elsewhere = elsewhere.clone();
        move |options: &mut store_rocksdb::rocksdb::Options| {
            small_buffers(options);
            options.set_wal_dir(&elsewhere);
            options.set_db_log_dir(&elsewhere);
            options.set_recycle_log_file_num(4);
            options.set_manual_wal_flush(true);
            options.set_use_direct_io_for_flush_and_compaction(true);
            options.set_wal_ttl_seconds(1000);
            options.set_allow_mmap_writes(true);
        }
    };
    let mut store = RocksStore::open(Some(recorder), &world.tasks, configure).await.unwrap();
    for number in 1..=100 {
        store.put(format!("key {number}"), vec![b'x'; 1000]);
        commit(&mut store, number).await.unwrap();
    }
    store.db().flush().unwrap();
    assert!(!elsewhere.exists());
    // Copies of the database are files elsewhere: they are refused, and do no harm.
    let copy = store_rocksdb::rocksdb::checkpoint::Checkpoint::new(store.db()).unwrap();
    assert!(copy.create_checkpoint(&elsewhere).is_err());
    drop(copy);
    commit(&mut store, 101).await.unwrap();
    let mut next = world.store("next", 2).await;
    assert_eq!(restored(&mut next).await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_needs_a_recorder() {
    let world = World::new().await;
    let error = RocksStore::open(None, &world.tasks, |_| {}).await.unwrap_err();
    assert!(matches!(error, StoreError::NoRecorder));
    assert!(error.to_string().contains("needs a recovery log"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_which_is_no_database_is_an_error() {
    let world = World::new().await;
    let recorder = world.recorder(&no_hints(), "dir", 1).await;
    let current = world.dir("dir").join("CURRENT");
    std::fs::write(&current, "nonsense").unwrap();
    recorder.create(&current).unwrap();
    let error = RocksStore::open(Some(recorder), &world.tasks, |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("opening RocksDB in "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_store_leaves_no_files() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    commit(&mut store, 1).await.unwrap();
    assert!(world.dir("dir").join("CURRENT").exists());
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert!(!world.dir("dir").exists());
    // And nothing of it is needed: the log has it all.
    assert_eq!(restored(&mut world.store("next", 2).await).await, 1);
}

/// Whatever was recorded is what is on disk: the files, and each of their bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_played_directory_equals_the_recorded_one() {
    let world = World::new().await;
    let mut store = world.store("first", 1).await;
    for number in 1..=300 {
        store.put(format!("key {:03}", number % 70), vec![b'a' + (number % 26) as u8; 700]);
        commit(&mut store, number).await.unwrap();
    }
    store.db().compact_range::<&[u8], &[u8]>(None, None);
    let recorder = store.recorder().clone();
    tokio::task::spawn_blocking(move || {
        // Closed, so that nothing changes any more; the directory stays.
        drop(store);
        recorder.sync_blocking().unwrap();
    })
    .await
    .unwrap();
    let played = world.taken_over(&no_hints(), "second", Author::new(2).unwrap()).await.unwrap();
    let files = |dir: &std::path::Path| -> std::collections::BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let entries =
            entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()));
        entries.filter(|(name, _)| !name.starts_with("LOG") && name != "LOCK").collect()
    };
    let (recorded, played) = (files(&world.dir("first")), files(&played.dir));
    assert_eq!(recorded.keys().collect::<Vec<_>>(), played.keys().collect::<Vec<_>>());
    for (name, content) in &recorded {
        assert!(content == &played[name], "{name} differs");
    }
    assert!(
        DB::open_for_read_only(&store_rocksdb::rocksdb::Options::default(), world.dir("second"), false)
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_what_is_committed_and_does_not_hold_the_store_open() {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    let reader = store.reader();
    let all = |reader: store_rocksdb::RocksReader, from: &'static str| async move {
        let keys = |view: &store_rocksdb::RocksView<'_>| {
            let entries = view.iter(from.as_bytes()).map(|entry| Ok(String::from_utf8(entry?.0.into())?));
            Ok(entries.collect::<Result<Vec<_>, runtime::BoxError>>().unwrap())
        };
        reader.read(keys).await
    };
    for key in ["a", "b", "c"] {
        store.put(key, "1");
    }
    assert!(all(reader.clone(), "").await.unwrap().is_empty(), "nothing is committed");
    commit(&mut store, 1).await.unwrap();
    store.put("b", "2");
    store.delete("c");
    assert_eq!(all(reader.clone(), "").await.unwrap(), ["a", "b", "c"]);
    assert_eq!(all(reader.clone(), "b").await.unwrap(), ["b", "c"]);
    assert_eq!(reader.read(|view| view.get("b")).await.unwrap(), Some(b"1".to_vec()));
    commit(&mut store, 2).await.unwrap();
    assert_eq!(reader.read(|view| view.get("b")).await.unwrap(), Some(b"2".to_vec()));
    assert_eq!(all(reader.clone(), "").await.unwrap(), ["a", "b"]);

    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert_eq!(all(reader, "").await.unwrap_err().to_string(), "the store is closed");
    assert!(!world.dir("dir").exists());
}
