//! Readers, beside the shard which changes the store.

use crate::world::*;
use client::OpFuture;
use consumer::Store;
use futures::poll;
use store_sqlite::rusqlite::{self, Connection};
use store_sqlite::{SqliteError, SqliteReader, SqliteStore};

fn table(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("CREATE TABLE IF NOT EXISTS kv (k TEXT PRIMARY KEY, v)")
}

async fn put(store: &mut SqliteStore, key: &str) {
    sql(store, &format!("INSERT INTO kv (k) VALUES ('{key}')")).await.unwrap();
}

async fn keys(reader: &SqliteReader) -> Result<String, SqliteError> {
    reader.read(|db| Ok(all(db, "SELECT k FROM kv ORDER BY k"))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_the_transaction_and_not_for_its_durability() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let reader = store.reader();
    assert_eq!(restored(&mut store).await, 0);
    assert_eq!(keys(&reader).await.unwrap(), "");
    put(&mut store, "a").await;
    let mut waiting = Box::pin(keys(&reader));
    assert!(poll!(&mut waiting).is_pending());
    put(&mut store, "b").await;
    assert!(poll!(&mut waiting).is_pending());

    let (promise, dep) = OpFuture::pair();
    let first = store.start_commit(checkpoint(1), vec![dep]);
    assert_eq!(waiting.await.unwrap(), "a\nb");
    assert!(first.try_result().is_none());
    // The next transaction is under way, and no part of what a reader finds.
    put(&mut store, "c").await;
    let mut waiting = Box::pin(keys(&reader));
    assert!(poll!(&mut waiting).is_pending());
    promise.resolve(Ok(()));
    first.await.unwrap();
    commit(&mut store, 2).await.unwrap();
    assert_eq!(waiting.await.unwrap(), "a\nb\nc");
    // A transaction without a statement has its turn, too.
    commit(&mut store, 3).await.unwrap();
    assert_eq!(keys(&reader).await.unwrap(), "a\nb\nc");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_among_transactions_find_each_of_them_whole() {
    const TRANSACTIONS: i64 = 60;
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let reader = store.reader();
    let write = async {
        for number in 1..=TRANSACTIONS {
            put(&mut store, &format!("{number} a")).await;
            put(&mut store, &format!("{number} b")).await;
            commit(&mut store, number).await.unwrap();
        }
    };
    let read = async {
        let (mut before, mut reads) = (0, 0);
        while before < 2 * TRANSACTIONS {
            let count = |db: &Connection| db.query_row("SELECT count(*) FROM kv", [], |row| row.get(0));
            let found: i64 = reader.read(count).await.unwrap();
            assert!(found % 2 == 0 && found >= before, "{found} after {before}");
            (before, reads) = (found, reads + 1);
        }
        reads
    };
    let ((), reads) = tokio::join!(write, read);
    assert!(reads > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_changes_nothing_whatever_it_does() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let reader = store.reader();
    put(&mut store, "a").await;
    commit(&mut store, 1).await.unwrap();

    for change in ["DELETE FROM kv", "BEGIN; DELETE FROM kv", "DROP TABLE kv", "PRAGMA user_version = 7"] {
        let error = reader.read(move |db| db.execute_batch(change)).await.unwrap_err().to_string();
        assert!(error.contains("attempt to write a readonly database"), "{change}: {error}");
    }
    // A transaction that it begins ends with it.
    reader.read(|db| db.execute_batch("BEGIN")).await.unwrap();
    let error = reader.read(|_| -> rusqlite::Result<()> { panic!("as a reader may") }).await.unwrap_err();
    assert!(matches!(error, SqliteError::Panicked), "{error}");

    put(&mut store, "b").await;
    commit(&mut store, 2).await.unwrap();
    assert_eq!(keys(&reader).await.unwrap(), "a\nb");
    assert_eq!(integrity(&mut store).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_which_is_given_up_or_not_polled_holds_up_nobody() {
    let world = World::new().await;
    let mut store = world.store("dir", 1, table).await;
    let reader = store.reader();
    put(&mut store, "a").await;
    let (mut dropped, mut idle) = (Box::pin(keys(&reader)), Box::pin(keys(&reader)));
    assert!(poll!(&mut dropped).is_pending() && poll!(&mut idle).is_pending());
    drop(dropped);
    commit(&mut store, 1).await.unwrap();
    put(&mut store, "b").await;
    commit(&mut store, 2).await.unwrap();
    // It was read in its turn, between the two.
    assert_eq!(idle.await.unwrap(), "a");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_a_store_which_has_ended_says_so() {
    let world = World::new().await;
    let recorder = world.recorder(&no_hints(), "dir", 1).await;
    let tasks = world.tasks.child("shard");
    let mut store = SqliteStore::open(Some(recorder), &tasks, table).await.unwrap();
    let reader = store.reader();
    put(&mut store, "a").await;
    commit(&mut store, 1).await.unwrap();
    assert_eq!(keys(&reader).await.unwrap(), "a");

    // It ends within a transaction, which nobody will commit.
    put(&mut store, "b").await;
    let mut waiting = Box::pin(keys(&reader));
    assert!(poll!(&mut waiting).is_pending());
    tasks.cancel();
    // As a shard does: a read which waits for ever would hold it up.
    tasks.join().await.unwrap();
    assert!(matches!(waiting.await, Err(SqliteError::Closed)));
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert!(matches!(keys(&reader).await, Err(SqliteError::Closed)));

    // Or it is dropped.
    let mut store = world.store("next", 2, table).await;
    let reader = store.reader();
    put(&mut store, "b").await;
    let mut waiting = Box::pin(keys(&reader));
    assert!(poll!(&mut waiting).is_pending());
    drop(store);
    assert!(matches!(waiting.await, Err(SqliteError::Closed)));
    assert!(matches!(keys(&reader).await, Err(SqliteError::Closed)));
}
