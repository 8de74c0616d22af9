//! Readers, beside the shard which changes the database.

use consumer::Store;
use store_postgres::{PostgresError, PostgresReader, PostgresStore};

use crate::world::{ADD, SHARD, World, commit, text};

async fn counts(reader: &PostgresReader) -> Result<i64, PostgresError> {
    let rows = reader.query("SELECT coalesce(sum(count), 0)::BIGINT FROM counts", &[]).await?;
    Ok(rows[0].get(0))
}

#[tokio::test]
async fn a_read_waits_for_nobody_and_finds_whole_transactions() {
    let world = World::new().await;
    let (mut store, _) = world.store().await;
    let reader = store.reader();
    for number in 1..=3 {
        store.execute(ADD, &[&"a"]).await.unwrap();
        store.execute(ADD, &[&"b"]).await.unwrap();
        assert_eq!(counts(&reader).await.unwrap(), 2 * (number - 1));
        commit(&mut store, number).await.unwrap();
        assert_eq!(counts(&reader).await.unwrap(), 2 * number);
    }
}

#[tokio::test]
async fn a_reader_has_few_sessions_and_changes_nothing() {
    let world = World::new().await;
    let (store, _) = world.store().await;
    let reader = store.reader();
    // As many reads as there are at once: more would be refused by the server, which takes 20 sessions.
    let reads = (0..50).map(|_| reader.query("SELECT pg_sleep(0.01)", &[]));
    futures::future::try_join_all(reads).await.unwrap();
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'courant'";
    let sessions: i64 = world.sql.query_one(sql, &[]).await.unwrap().get(0);
    // The test's own, the store's, and four of readers.
    assert!((3..=6).contains(&sessions), "{sessions}");

    let error = text(&reader.query(ADD, &[&"a"]).await.unwrap_err());
    assert!(error.contains("cannot execute INSERT in a read-only transaction"), "{error}");
}

#[tokio::test]
async fn a_reader_outlives_the_server_and_ends_with_the_shard() {
    let mut world = World::new().await;
    let tasks = world.tasks.child("shard");
    let mut store = PostgresStore::open(SHARD, world.options(), &tasks).await.unwrap();
    store.restore_checkpoint().await.unwrap();
    let reader = store.reader();
    assert_eq!(counts(&reader).await.unwrap(), 0);
    world.server.crash().unwrap();
    let error = counts(&reader).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    world.server.start_again(&[]).unwrap();
    assert_eq!(counts(&reader).await.unwrap(), 0);

    tasks.cancel();
    tasks.join().await.unwrap();
    assert!(matches!(counts(&reader).await, Err(PostgresError::Closed)));
    store.destroy();
}
