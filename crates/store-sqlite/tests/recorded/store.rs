//! What a shard relies on: commits are whole, durable, ordered and fenced.

use crate::world::*;
use client::testing::Fault;
use client::{OpError, OpFuture};
use consumer::Store;
use recoverylog::{Author, Player};
use std::sync::Arc;
use store_rocksdb::RocksStore;
use store_sqlite::rusqlite::{self, Connection};
use store_sqlite::{SqliteError, SqliteStore};
use tokio::sync::Semaphore;

fn table(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v)")
}

async fn put(store: &mut SqliteStore, key: &str, value: &str) {
    sql(store, &format!("INSERT OR REPLACE INTO kv VALUES ('{key}', '{value}')")).await.unwrap();
}

async fn rows(store: &mut SqliteStore) -> String {
    query(store, "SELECT k, v FROM kv ORDER BY k").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_recovered_elsewhere() {
    let world = World::new().await;
    let mut store = world.store("first", 1, table).await;
    assert_eq!(restored(&mut store).await, 0);
    put(&mut store, "a", "1").await;
    put(&mut store, "b", "2").await;
    commit(&mut store, 1).await.unwrap();
    sql(&mut store, "DELETE FROM kv WHERE k = 'a'; INSERT INTO kv VALUES ('c', zeroblob(1000000))")
        .await
        .unwrap();
    commit(&mut store, 2).await.unwrap();
    put(&mut store, "d", "never committed").await;

    let mut next = world.store("second", 2, table).await;
    assert_eq!(restored(&mut next).await, 2);
    assert_eq!(
        query(&mut next, "SELECT k, length(v) FROM kv ORDER BY k").await,
        "b|Integer(1)\nc|Integer(1000000)"
    );

    // The recovered database is recorded on.
    put(&mut next, "b", "again").await;
    commit(&mut next, 3).await.unwrap();
    let mut last = world.store("third", 3, table).await;
    assert_eq!(restored(&mut last).await, 3);
    assert_eq!(query(&mut last, "SELECT v FROM kv WHERE k = 'b'").await, "again");
}

/// As `.cargo/config.toml` has SQLite built: without, stores use a write-ahead log, and other tests do not hold.
#[tokio::test(flavor = "multi_thread")]
async fn stores_commit_by_atomic_batches_with_syncing_and_fast_secure_deletion() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let built = query(&mut store, "SELECT sqlite_compileoption_used('ENABLE_BATCH_ATOMIC_WRITE')").await;
    assert_eq!(built, "Integer(1)", "SQLite is built without atomic batches: run scripts/setup.sh");
    let mut settings = Vec::new();
    for pragma in ["journal_mode", "synchronous", "secure_delete"] {
        settings.push(query(&mut store, &format!("PRAGMA {pragma}")).await);
    }
    assert_eq!(settings, ["truncate", "Integer(2)", "Integer(2)"]);
}

/// The table and its one row are those which other implementations read.
#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_is_one_row() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let read = "SELECT rowid, typeof(checkpoint), hex(checkpoint) FROM gazette_checkpoint";
    assert_eq!(query(&mut store, read).await, "Integer(0)|text|");
    commit(&mut store, 7).await.unwrap();
    assert_eq!(
        query(&mut store, read).await,
        "Integer(0)|blob|0A0E0A08612F736F757263651202080 7".replace(' ', "")
    );
    let second = sql(&mut store, "INSERT INTO gazette_checkpoint (rowid, checkpoint) VALUES (1, '')").await;
    assert!(second.unwrap_err().to_string().contains("CHECK constraint failed"));

    sql(&mut store, "UPDATE gazette_checkpoint SET checkpoint = x'ff'").await.unwrap();
    let error = store.restore_checkpoint().await.unwrap_err().to_string();
    assert!(error.contains("cannot be decoded"), "{error}");
    sql(&mut store, "DELETE FROM gazette_checkpoint").await.unwrap();
    let error = commit(&mut store, 8).await.unwrap_err().to_string();
    assert!(error.starts_with("committing to SQLite in "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_transaction_goes_on_while_the_last_one_commits() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    put(&mut store, "a", "1").await;
    let (promise, dep) = OpFuture::pair();
    let first = store.start_commit(checkpoint(1), vec![dep]);
    // It sees what the last one changed, which is not durable yet.
    assert_eq!(rows(&mut store).await, "a|1");
    put(&mut store, "b", "2").await;
    store.connection().await.unwrap().execute("UPDATE kv SET v = 'x' WHERE k = 'a'", []).unwrap();
    assert!(first.try_result().is_none());
    promise.resolve(Ok(()));
    first.await.unwrap();

    let mut next = world.store("next", 2, table).await;
    assert_eq!((restored(&mut next).await, rows(&mut next).await), (1, "a|1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_not_in_the_log_before_its_dependencies_succeed() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    commit(&mut store, 1).await.unwrap();
    let head = world.broker.content(LOG).len();

    let (promise, dep) = OpFuture::pair();
    put(&mut store, "key", "value").await;
    let commit = store.start_commit(checkpoint(2), vec![OpFuture::resolved(Ok(())), dep]);
    // It is committed locally, and its bytes wait behind the barrier.
    assert_eq!(restored(&mut store).await, 2);
    assert!(commit.try_result().is_none());
    assert_eq!(world.broker.content(LOG).len(), head);
    promise.resolve(Ok(()));
    commit.await.unwrap();
    assert!(world.broker.content(LOG).len() > head);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dependency_fails_the_commit_and_those_after_it() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    put(&mut store, "key", "value").await;
    let failed = OpFuture::resolved(Err(OpError::failed("no such journal")));
    let error = store.start_commit(checkpoint(1), vec![failed]).await.unwrap_err();
    assert!(error.to_string().contains("no such journal"), "{error}");
    assert!(commit(&mut store, 2).await.unwrap_err().to_string().contains("no such journal"));

    let mut next = world.store("next", 2, table).await;
    assert_eq!((restored(&mut next).await, rows(&mut next).await), (0, String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_cannot_commit_and_says_that_it_is_fenced() {
    let world = World::new().await;
    let mut zombie = world.store("zombie", 1, table).await;
    put(&mut zombie, "key", "kept").await;
    commit(&mut zombie, 1).await.unwrap();

    let mut next = world.store("next", 2, table).await;
    put(&mut zombie, "key", "lost").await;
    let error = commit(&mut zombie, 2).await.unwrap_err();
    assert!(error.to_string().contains("recorder 1 of a/recovery/log is fenced"), "{error}");
    assert!(error.is_fenced());
    // The next one fails at once.
    let error = zombie.start_commit(checkpoint(3), Vec::new()).try_result().unwrap().unwrap_err();
    assert!(error.to_string().contains("is fenced"), "{error}");
    // SQLite was told as well: what cannot be recorded is not committed.
    let error = sql(&mut zombie, "UPDATE kv SET v = 'x'; COMMIT").await.unwrap_err();
    assert!(matches!(error, SqliteError::Record(_)), "{error}");

    assert_eq!((restored(&mut next).await, rows(&mut next).await), (1, "key|kept".into()));
    put(&mut next, "key", "new").await;
    commit(&mut next, 4).await.unwrap();
    let mut last = world.store("last", 3, table).await;
    assert_eq!((restored(&mut last).await, rows(&mut last).await), (4, "key|new".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_which_followed_takes_over() {
    let world = World::new().await;
    let mut store = world.store("primary", 1, table).await;
    commit(&mut store, 1).await.unwrap();
    let standby =
        Player::start(no_hints(), world.dir("standby"), world.client.clone(), &world.tasks).unwrap();
    standby.tailing().await;
    for number in 2..=60 {
        put(&mut store, &format!("key {:02}", number % 20), &"x".repeat(2000)).await;
        commit(&mut store, number).await.unwrap();
    }
    let author = Author::new(2).unwrap();
    standby.inject_handoff(author);
    let recorder = world.record_on(standby.done().await.unwrap(), author, &world.tasks).await;
    let mut next = SqliteStore::open(Some(recorder), &world.tasks, table).await.unwrap();
    assert_eq!(restored(&mut next).await, 60);
    assert_eq!(query(&mut next, "SELECT count(*) FROM kv").await, "Integer(20)");
    assert!(commit(&mut store, 61).await.unwrap_err().is_fenced());
    commit(&mut next, 61).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_recover_what_the_whole_log_does() {
    let world = World::new().await;
    let mut store = world.store("first", 1, table).await;
    for number in 1..=100 {
        put(&mut store, &format!("key {:02}", number % 30), &"x".repeat(1500)).await;
        commit(&mut store, number).await.unwrap();
    }
    let hints = store.recorder().build_hints().await.unwrap();
    // Only the identity at the root is a property, so that of the database of pages is a file.
    assert!(hints.properties.is_empty());
    for number in 101..=120 {
        put(&mut store, "late", &number.to_string()).await;
        commit(&mut store, number).await.unwrap();
    }
    let recorder = world.recorder(&hints, "second", 2).await;
    let mut next = SqliteStore::open_tuned(Some(recorder), &world.tasks, small_buffers, table).await.unwrap();
    assert_eq!(restored(&mut next).await, 120);
    assert_eq!(
        (dump_of(&mut next).await, integrity(&mut next).await),
        (dump_of(&mut store).await, "ok".into())
    );
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
    let mut store = SqliteStore::open_tuned(Some(recorder), &tasks, small_buffers, table).await.unwrap();
    commit(&mut store, 1).await.unwrap();

    world.broker.fault_append(Fault::Hold(Arc::new(Semaphore::new(0))));
    // More than RocksDB keeps in memory: it flushes.
    sql(&mut store, "INSERT INTO kv VALUES ('large', zeroblob(300000))").await.unwrap();
    let hanging = store.start_commit(checkpoint(2), Vec::new());
    assert_eq!(query(&mut store, "SELECT k FROM kv").await, "large");
    assert!(hanging.try_result().is_none());
    tasks.cancel();
    assert!(hanging.await.unwrap_err().to_string().contains("cancelled"));
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert!(!world.dir("dir").exists());
}

/// The application must not end transactions: what it changed would be committed without its checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_which_someone_else_ended_cannot_be_committed() {
    for end in ["COMMIT", "ROLLBACK"] {
        let world = World::new().await;
        let mut store = world.store("dir", 1, table).await;
        put(&mut store, "a", "1").await;
        sql(&mut store, end).await.unwrap();
        let error = store.connection().await.unwrap_err();
        assert!(matches!(error, SqliteError::TransactionEnded { .. }));
        let error = commit(&mut store, 1).await.unwrap_err().to_string();
        assert!(
            error.ends_with("was ended before its commit: by an error, or by COMMIT or ROLLBACK"),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_which_is_given_up_leaves_the_connection() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let gate = Arc::new(std::sync::Barrier::new(2));
    {
        let inside = Arc::clone(&gate);
        let mut work = Box::pin(store.run(move |db| {
            inside.wait();
            db.execute("INSERT INTO kv VALUES ('a', '1')", [])
        }));
        // It has begun once somebody polls, and is not done.
        let poll =
            std::future::poll_fn(|context| std::task::Poll::Ready(work.as_mut().poll(context).is_pending()));
        assert!(poll.await);
    }
    let commit = store.start_commit(checkpoint(1), Vec::new());
    gate.wait();
    commit.await.unwrap();
    assert_eq!(rows(&mut store).await, "a|1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_needs_a_recorder_and_tells_why_it_cannot_be_prepared() {
    let world = World::new().await;
    let error = SqliteStore::open(None, &world.tasks, table).await.unwrap_err();
    assert!(error.to_string().starts_with("a SQLite store needs a recovery log"), "{error}");
    let recorder = world.recorder(&no_hints(), "dir", 1).await;
    let prepare = |db: &Connection| db.execute_batch("CREATE TABEL t (a)");
    let error = SqliteStore::open(Some(recorder), &world.tasks, prepare).await.unwrap_err().to_string();
    assert!(error.starts_with("preparing SQLite in ") && error.contains("TABEL"), "{error}");
}

/// A shard which changed its store would begin anew, without its checkpoint: that is refused, either way.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_store_is_refused() {
    let world = World::new().await;
    let recorder = world.recorder(&no_hints(), "rocksdb", 1).await;
    let mut store = RocksStore::open(Some(recorder), &world.tasks, |_| {}).await.unwrap();
    store.start_commit(checkpoint(1), Vec::new()).await.unwrap();
    let recorder = world.recorder(&no_hints(), "dir", 2).await;
    let error = SqliteStore::open(Some(recorder), &world.tasks, table).await.unwrap_err().to_string();
    assert!(error.contains("holds CURRENT, which is of another kind of store"), "{error}");

    let world = World::new().await;
    let mut store = world.store("sqlite", 1, table).await;
    commit(&mut store, 1).await.unwrap();
    let recorder = world.recorder(&no_hints(), "dir", 2).await;
    let error = RocksStore::open(Some(recorder), &world.tasks, |_| {}).await.unwrap_err().to_string();
    assert!(error.contains("holds pageDB, which is of another kind of store"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_store_leaves_no_files() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    put(&mut store, "a", "1").await;
    commit(&mut store, 1).await.unwrap();
    assert!(world.dir("dir").join("pageDB/CURRENT").exists());
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert!(!world.dir("dir").exists());
    // And nothing of it is needed: the log has it all.
    assert_eq!(rows(&mut world.store("next", 2, table).await).await, "a|1");
}
