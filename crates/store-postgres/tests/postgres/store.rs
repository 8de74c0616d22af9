//! What a store promises, over a real server.

use std::time::Duration;

use client::{OpError, OpFuture};
use consumer::Store;
use futures::FutureExt;
use store_postgres::{Overlap, PostgresError, PostgresStore};

use crate::world::{ADD, SHARD, World, checkpoint, commit, text};

#[tokio::test]
async fn a_fresh_shard_has_fence_1_and_each_primary_raises_it() {
    let world = World::new().await;
    for fence in 1..=3 {
        let (mut store, restored) = world.store().await;
        assert_eq!((world.row().await, restored), ((fence, i64::from(fence) - 1), i64::from(fence) - 1));
        commit(&mut store, i64::from(fence)).await.unwrap();
        assert_eq!(world.row().await, (fence, i64::from(fence)));
    }
    // Shards do not know each other.
    let mut other = PostgresStore::open("another", world.options(), &world.tasks).await.unwrap();
    assert!(other.restore_checkpoint().await.unwrap().sources.is_empty());
}

#[tokio::test]
async fn a_zombie_cannot_commit_and_what_it_wrote_is_rolled_back() {
    let world = World::new().await;
    let (mut zombie, _) = world.store().await;
    zombie.execute(ADD, &[&"zombie"]).await.unwrap();
    let (mut next, restored) = world.store().await;
    assert_eq!(restored, 0);

    let error = commit(&mut zombie, 1).await.unwrap_err();
    let expected = format!("{SHARD}: checkpoint fence was updated (ie, by a new primary)");
    assert_eq!(text(&error), expected);
    // The next one fails at once, by the same cause.
    let error = zombie.start_commit(checkpoint(2), Vec::new()).try_result().unwrap().unwrap_err();
    assert!(text(&error).ends_with(&expected), "{error}");

    next.execute(ADD, &[&"next"]).await.unwrap();
    commit(&mut next, 3).await.unwrap();
    assert_eq!((world.row().await, world.count("zombie").await), ((2, 3), None));
    assert_eq!(world.count("next").await, Some(1));
}

#[tokio::test]
async fn only_one_of_two_which_begin_a_shard_at_once_commits() {
    let world = World::new().await;
    let open = async |shard: &str| {
        let mut store = PostgresStore::open(shard, world.options(), &world.tasks).await.unwrap();
        (store.restore_checkpoint().await.map(|_| ()), store)
    };
    for shard in 0..20 {
        let shard = format!("shard {shard}");
        let ((one, mut first), (two, mut second)) = tokio::join!(open(&shard), open(&shard));
        let mut committed = 0;
        for (restored, store) in [(one, &mut first), (two, &mut second)] {
            committed += match restored {
                Ok(()) => usize::from(commit(store, 1).await.is_ok()),
                Err(error) => {
                    let error = text(&*error);
                    assert!(error.contains("duplicate key value violates unique constraint"), "{error}");
                    0
                }
            };
        }
        assert_eq!(committed, 1, "{shard}");
    }
}

#[tokio::test]
async fn a_negative_fence_violates_the_primary_key() {
    let world = World::new().await;
    world.sql.execute("INSERT INTO gazette_checkpoints VALUES ($1, -1, '')", &[&SHARD]).await.unwrap();
    let mut store = PostgresStore::open(SHARD, world.options(), &world.tasks).await.unwrap();
    let error = text(&*store.restore_checkpoint().await.unwrap_err());
    assert!(
        error.contains("duplicate key value violates unique constraint \"gazette_checkpoints_pkey\""),
        "{error}"
    );
    assert_eq!(world.row().await, (-1, 0));
}

#[tokio::test]
async fn without_its_table_a_store_says_so() {
    let world = World::new().await;
    world.sql.batch_execute("DROP TABLE gazette_checkpoints").await.unwrap();
    let mut store = PostgresStore::open(SHARD, world.options(), &world.tasks).await.unwrap();
    let error = text(&*store.restore_checkpoint().await.unwrap_err());
    assert!(error.contains("relation \"gazette_checkpoints\" does not exist"), "{error}");
}

#[tokio::test]
async fn a_commit_waits_for_its_dependencies() {
    let world = World::new().await;
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    let (promise, dependency) = OpFuture::pair();
    let commit = store.start_commit(checkpoint(1), vec![OpFuture::resolved(Ok(())), dependency]);
    // What the store could have done by now it has done.
    world.until("state = 'idle in transaction'").await;
    assert!(commit.try_result().is_none());
    assert_eq!((world.row().await, world.count("key").await), ((1, 0), None));
    promise.resolve(Ok(()));
    commit.await.unwrap();
    assert_eq!((world.row().await, world.count("key").await), ((1, 1), Some(1)));
}

#[tokio::test]
async fn a_failed_dependency_fails_the_commit() {
    let world = World::new().await;
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    let failed = OpFuture::resolved(Err(OpError::failed("no such journal")));
    let error = store.start_commit(checkpoint(1), vec![failed]).await.unwrap_err();
    assert!(matches!(error, OpError::Dependency(_)) && text(&error).contains("no such journal"), "{error}");
    assert!(commit(&mut store, 2).await.is_err());
    let (_, restored) = world.store().await;
    assert_eq!((restored, world.count("key").await), (0, None));
}

#[tokio::test]
async fn a_transaction_without_statements_commits_its_checkpoint() {
    let world = World::new().await;
    let (mut store, _) = world.store().await;
    for number in 1..=3 {
        commit(&mut store, number).await.unwrap();
    }
    assert_eq!(world.row().await, (1, 3));
}

#[tokio::test]
async fn a_failed_statement_fails_the_commit_even_if_it_is_passed_over() {
    let world = World::new().await;
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    let error = store.execute("INSERT INTO counts VALUES ($1, 1)", &[&"key"]).await.unwrap_err();
    assert!(!error.is_retryable() && !error.may_have_committed(), "{error}");
    assert!(
        text(&error).starts_with("\"INSERT INTO counts VALUES ($1, 1)\": db error: ERROR: duplicate key"),
        "{error}"
    );
    let error = commit(&mut store, 1).await.unwrap_err();
    assert!(text(&error).contains("current transaction is aborted"), "{error}");
    assert_eq!((world.row().await, world.count("key").await), ((1, 0), None));
}

#[tokio::test]
async fn a_deferred_constraint_refuses_the_commit() {
    let world = World::new().await;
    let table = "CREATE TABLE parts (key TEXT REFERENCES counts DEFERRABLE INITIALLY DEFERRED)";
    world.sql.batch_execute(table).await.unwrap();
    let (mut store, _) = world.store().await;
    store.execute("INSERT INTO parts VALUES ('missing')", &[]).await.unwrap();
    let error = commit(&mut store, 1).await.unwrap_err();
    let OpError::Failed(inner) = &error else { panic!("{error}") };
    let inner = inner.downcast_ref::<PostgresError>().unwrap();
    assert!(matches!(inner, PostgresError::Refused(_)) && !inner.may_have_committed(), "{inner}");
    assert_eq!(world.row().await, (1, 0));
}

#[tokio::test]
async fn the_next_transaction_sees_what_the_one_before_commits() {
    let world = World::new().await;
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    let (promise, dependency) = OpFuture::pair();
    let first = store.start_commit(checkpoint(1), vec![dependency]);
    let mut read = Box::pin(store.query("SELECT count FROM counts WHERE key = $1", &[&"key"]));
    assert!((&mut read).now_or_never().is_none());
    promise.resolve(Ok(()));
    let count: i64 = read.await.unwrap()[0].get(0);
    assert_eq!((count, first.try_result().unwrap().is_ok()), (1, true));

    // If it fails, no statement of the next one is run.
    store.execute(ADD, &[&"key"]).await.unwrap();
    let failed = OpFuture::resolved(Err(OpError::failed("no such journal")));
    let second = store.start_commit(checkpoint(2), vec![failed]);
    let error = store.execute(ADD, &[&"key"]).await.unwrap_err();
    assert!(text(&error).contains("the transaction before was not committed"), "{error}");
    assert!(second.await.is_err());
    assert_eq!((world.row().await, world.count("key").await), ((1, 1), Some(1)));
}

#[tokio::test]
async fn an_overlapping_transaction_reads_older_rows_and_waits_to_write_them() {
    let world = World::new().await;
    let (mut store, _) = world.store_with(|options| options.overlap = Overlap::AtOnce).await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    let (promise, dependency) = OpFuture::pair();
    let first = store.start_commit(checkpoint(1), vec![dependency]);
    // Other rows are written at once, and seen.
    store.execute(ADD, &[&"other"]).await.unwrap();
    let keys = store.query("SELECT key FROM counts", &[]).await.unwrap();
    assert_eq!(keys.iter().map(|row| row.get(0)).collect::<Vec<&str>>(), ["other"]);
    assert!(first.try_result().is_none());

    // The same row is written after it is committed, and nothing is lost.
    let mut add = Box::pin(store.execute(ADD, &[&"key"]));
    let blocked = world.until("wait_event_type = 'Lock'");
    tokio::select! {
        biased;
        added = &mut add => panic!("it must wait: {added:?}"),
        () = blocked => {}
    }
    promise.resolve(Ok(()));
    assert_eq!(add.await.unwrap(), 1);
    first.await.unwrap();
    for number in 2..=5 {
        commit(&mut store, number).await.unwrap();
        store.execute(ADD, &[&"key"]).await.unwrap();
    }
    commit(&mut store, 6).await.unwrap();
    assert_eq!(
        (world.row().await, world.count("key").await, world.count("other").await),
        ((1, 6), Some(6), Some(1))
    );
    // Two connections are enough.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'courant'";
    let sessions: i64 = world.sql.query_one(sessions, &[]).await.unwrap().get(0);
    assert!(sessions <= 3, "{sessions} sessions, of which one is the test's");
}

#[tokio::test]
async fn a_connection_which_was_lost_between_transactions_is_replaced() {
    let mut world = World::new().await;
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    commit(&mut store, 1).await.unwrap();
    world.server.stop().unwrap();
    world.server.start_again(&[]).unwrap();
    world.reconnect().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    commit(&mut store, 2).await.unwrap();
    assert_eq!((world.row().await, world.count("key").await), ((1, 2), Some(2)));
}

#[tokio::test]
async fn a_connection_which_is_lost_within_a_transaction_fails_it() {
    let mut world = World::new().await;
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    world.server.crash().unwrap();
    world.server.start_again(&[]).unwrap();
    world.reconnect().await;
    let error = store.execute(ADD, &[&"key"]).await.unwrap_err();
    assert!(error.is_retryable() && !error.may_have_committed(), "{error}");
    assert!(commit(&mut store, 1).await.is_err());
    let (_, restored) = world.store().await;
    assert_eq!((restored, world.count("key").await), (0, None));
}

fn is_unknown(error: &OpError) -> bool {
    let OpError::Failed(inner) = error else { return false };
    inner.downcast_ref::<PostgresError>().is_some_and(PostgresError::may_have_committed)
}

/// The server ends within COMMIT, before it has decided.
#[tokio::test]
async fn a_server_which_dies_before_it_committed_has_committed_nothing() {
    let mut world = World::new().await;
    world
        .sql
        .batch_execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN PERFORM pg_advisory_lock(1); RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON counts DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION wait();
             SELECT pg_advisory_lock(1);",
        )
        .await
        .unwrap();
    let (mut store, _) = world.store().await;
    store.execute(ADD, &[&"key"]).await.unwrap();
    let commit = store.start_commit(checkpoint(1), Vec::new());
    world.until("query = 'COMMIT' AND wait_event = 'advisory'").await;
    world.server.crash().unwrap();
    let error = commit.await.unwrap_err();
    assert!(is_unknown(&error) && text(&error).contains("outcome is unknown"), "{error}");
    world.server.start_again(&[]).unwrap();
    world.reconnect().await;
    let (_, restored) = world.store().await;
    assert_eq!((restored, world.count("key").await), (0, None));
}

/// The server has decided, and ends before it could say so: it waits for a standby which does not exist.
#[tokio::test]
async fn a_server_which_dies_after_it_committed_has_committed_all() {
    let mut world = World::new().await;
    let (store, _) = world.store().await;
    drop(store);
    world.server.stop().unwrap();
    world.server.start_again(&["synchronous_standby_names=nobody", "synchronous_commit=local"]).unwrap();
    world.reconnect().await;
    let mut store = PostgresStore::open(SHARD, world.options(), &world.tasks).await.unwrap();
    store.restore_checkpoint().await.unwrap();
    store.transaction().await.unwrap().batch_execute("SET LOCAL synchronous_commit = on").await.unwrap();
    store.execute(ADD, &[&"key"]).await.unwrap();
    let commit = store.start_commit(checkpoint(1), Vec::new());
    world.until("query = 'COMMIT' AND wait_event = 'SyncRep'").await;
    assert!(commit.try_result().is_none());
    world.server.crash().unwrap();
    assert!(is_unknown(&commit.await.unwrap_err()));
    world.server.start_again(&[]).unwrap();
    world.reconnect().await;
    let (_, restored) = world.store().await;
    assert_eq!((restored, world.count("key").await), (1, Some(1)));
}

/// A primary which hangs within a transaction keeps its rows locked, but not for ever.
#[tokio::test]
async fn a_primary_which_hangs_lets_go_of_its_rows() {
    let world = World::new().await;
    let hangs = Duration::from_millis(300);
    let (mut hanging, _) = world.store_with(|options| options.idle_in_transaction = hangs).await;
    hanging.execute(ADD, &[&"key"]).await.unwrap();
    let (mut next, _) = world.store().await;
    assert_eq!(next.execute(ADD, &[&"key"]).await.unwrap(), 1);
    commit(&mut next, 1).await.unwrap();
    assert_eq!((world.row().await, world.count("key").await), ((2, 1), Some(1)));
    let error = hanging.execute(ADD, &[&"key"]).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_shard_which_ends_ends_its_sessions() {
    let world = World::new().await;
    let tasks = world.tasks.child("shard");
    let mut store = PostgresStore::open(SHARD, world.options(), &tasks).await.unwrap();
    store.restore_checkpoint().await.unwrap();
    store.execute(ADD, &[&"key"]).await.unwrap();
    let (_promise, dependency) = OpFuture::pair();
    let commit = store.start_commit(checkpoint(1), vec![dependency]);
    tasks.cancel();
    assert!(commit.await.unwrap_err().is_cancelled());
    tasks.join().await.unwrap();
    store.destroy();
    let (_, restored) = world.store().await;
    assert_eq!((restored, world.count("key").await), (0, None));
}

#[tokio::test]
async fn a_server_which_cannot_be_reached_is_named() {
    let options =
        store_postgres::PostgresOptions::parse("host=/nowhere user=me password=secret dbname=app").unwrap();
    let (clock, limit) = (options.clock.clone(), Duration::from_secs(40));
    let tasks = runtime::TaskGroup::new("test");
    let mut store = PostgresStore::open(SHARD, options, &tasks).await.unwrap();
    tokio::time::pause();
    let error = clock.timeout(limit, store.restore_checkpoint()).await.unwrap().unwrap_err();
    let error = text(&*error);
    assert!(error.starts_with("connecting to PostgreSQL (app of /nowhere/.s.PGSQL.5432): "), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
