//! The process is killed at any operation, and the database is recovered in another directory: it holds the last commit.
//!
//! A store runs random SQL against a broker in memory, and so does a SQLite without any of this, which must hold the same
//! after each transaction. Then the log is cut, as it would be had the process been killed there, and each cut is
//! recovered by a store of its own: its checkpoint and everything else must be of one commit, of the last one which is
//! wholly in the log, and SQLite must find nothing wrong with it.

use crate::script::Script;
use crate::world::*;
use consumer::Store;
use message::{Split, fixed};
use proto::protocol::LabelSet;
use recoverylog::{Action, Op};
use runtime::Entropy;
use std::collections::BTreeMap;
use store_sqlite::rusqlite::Connection;

/// Places where each log is cut, at random.
const CUTS: u64 = 20;

/// Operations from the first, after each of which it is cut, too.
const CREATION: usize = 20;

/// How a store is used.
struct Mode {
    prepare: Prepare,
    schema: &'static [&'static str],
    value_bytes_max: u64,
    transactions: i64,
    /// How often files are created, as the log says, by their names: at least, and at most.
    files: &'static [(&'static str, usize, usize)],
}

/// A finished run of a store.
struct Run {
    log: Vec<u8>,
    /// Of each commit, from the first: where the log ended when it began, and when it was acknowledged.
    commits: Vec<(usize, usize)>,
    /// What was in the database after so many commits.
    dumps: BTreeMap<i64, String>,
    /// Where the log may end: between operations, but for those which are appended as one.
    boundaries: Vec<usize>,
}

impl Mode {
    async fn run(&self, seed: u64) -> Run {
        let world = World::new().await;
        let mut store = world.store("dir", 1, self.prepare).await;
        let stock = Connection::open_in_memory().unwrap();
        if self.schema.contains(&"other") {
            stock.execute_batch("ATTACH ':memory:' AS other").unwrap();
        }
        for schema in self.schema {
            stock.execute_batch(&Script::tables(schema)).unwrap();
        }
        let mut dumps = BTreeMap::from([(0, dump_of(&mut store).await)]);
        assert_eq!(dumps[&0], dump(&stock));
        let mut script = Script::new(seed, self.schema, self.value_bytes_max);
        let mut commits = Vec::new();
        for number in 1..=self.transactions {
            let begin = world.broker.content(LOG).len();
            stock.execute_batch("BEGIN").unwrap();
            for statement in script.transaction() {
                stock.execute_batch(&statement).unwrap();
                sql(&mut store, &statement).await.unwrap();
            }
            stock.execute_batch("COMMIT").unwrap();
            commit(&mut store, number).await.unwrap();
            commits.push((begin, world.broker.content(LOG).len()));
            dumps.insert(number, dump_of(&mut store).await);
            assert_eq!(dumps[&number], dump(&stock), "after {number} transactions");
        }
        assert_eq!(integrity(&mut store).await, "ok");
        let log = world.broker.content(LOG);
        tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
        let boundaries = self.inspect(&log);
        println!("{} operations in {} bytes of log", boundaries.len() - 1, log.len());
        Run { log, commits, dumps, boundaries }
    }

    /// Finds where the log may end, and checks which files its operations are of.
    fn inspect(&self, log: &[u8]) -> Vec<usize> {
        let (mut ends, mut created, mut end) = (Vec::new(), Vec::new(), 0);
        let mut last = Action::Nothing;
        while end < log.len() {
            let Split::Frame { consumed, payload } = fixed::split(&log[end..], true) else {
                panic!("not a frame")
            };
            let op = Op::decode(&log[end..][payload]).unwrap();
            if !is_replacement(&last, &op.action) {
                ends.push(end);
            }
            end += consumed + usize::try_from(op.bytes_after_frame()).unwrap();
            if let Action::Create { path } = &op.action {
                created.push(path.clone());
            }
            last = op.action;
        }
        for (name, least, most) in self.files {
            let found = created.iter().filter(|path| path.starts_with(name)).count();
            assert!((*least..=*most).contains(&found), "{name}: {found} among the created files {created:?}");
        }
        ends.push(end);
        ends
    }

    /// Recovers the log as cut at `end`, and checks what the database holds.
    async fn check(&self, world: &World, run: &Run, end: usize) {
        world.broker.set_content(LOG, 0, &run.log[..end]);
        world.broker.set_registers(LOG, LabelSet::default());
        let mut store = world.store("cut", 2, self.prepare).await;
        let number = restored(&mut store).await;
        // What was acknowledged is there, and what had not begun is not.
        let acknowledged = run.commits.partition_point(|(_, acknowledged)| *acknowledged <= end) as i64;
        let begun = run.commits.partition_point(|(begin, _)| *begin < end) as i64;
        assert!(
            (acknowledged..=begun).contains(&number),
            "cut at {end}: found {number}, expected {acknowledged}..={begun}"
        );
        assert_eq!(integrity(&mut store).await, "ok", "cut at {end}");
        assert_eq!(dump_of(&mut store).await, run.dumps[&number], "cut at {end}, of commit {number}");
        // It is a store as any other.
        sql(&mut store, "INSERT INTO t0 (k) VALUES (1000)").await.unwrap();
        commit(&mut store, 1000).await.unwrap();
        tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    }

    async fn check_all(&self) {
        let seed = seed();
        let run = self.run(seed).await;
        let (entropy, world) = (Entropy::seeded(seed), World::new().await);
        // While the database is created, and anywhere.
        for end in &run.boundaries[..CREATION] {
            self.check(&world, &run, *end).await;
        }
        for _ in 0..CUTS {
            let at = usize::try_from(entropy.below(run.boundaries.len() as u64)).unwrap();
            self.check(&world, &run, run.boundaries[at]).await;
        }
        self.check(&world, &run, run.log.len()).await;
    }
}

/// Whether two operations replace a file by another: they are one append, so the log never ends between them.
fn is_replacement(first: &Action, second: &Action) -> bool {
    let (Action::Unlink { path: old, .. }, Action::Create { path: new } | Action::Link { path: new, .. }) =
        (first, second)
    else {
        return false;
    };
    old == new
}

const MANY: usize = usize::MAX;
const MAIN: &[&str] = &["main"];

fn tables(db: &Connection) -> store_sqlite::rusqlite::Result<()> {
    db.execute_batch(&Script::tables("main"))
}

/// As stores are by default: once the database is created, there are no journals. A random transaction may be larger
/// than SQLite's cache of 2 MB, and would then have one, so the cache holds what there is.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_which_fit_into_the_cache() {
    let prepare = |db: &Connection| {
        db.execute_batch("PRAGMA cache_spill = OFF")?;
        tables(db)
    };
    let files = &[("/pageDB/", 1, MANY), ("/primary.db-journal", 0, 2), ("/primary.db-wal", 0, 0)];
    Mode { prepare, schema: MAIN, value_bytes_max: 20_000, transactions: 60, files }.check_all().await;
}

/// With a cache so small that pages are written before the commit, and a journal to roll them back.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_which_outgrow_the_cache() {
    let prepare = |db: &Connection| {
        db.execute_batch("PRAGMA cache_size = 8; PRAGMA cache_spill = 8")?;
        tables(db)
    };
    let files = &[("/primary.db-journal", 5, MANY)];
    Mode { prepare, schema: MAIN, value_bytes_max: 60_000, transactions: 40, files }.check_all().await;
}

/// Two databases which commit as one, by a super-journal.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_over_two_databases() {
    let prepare = |db: &Connection| {
        db.execute_batch("ATTACH 'other.db' AS other")?;
        db.execute_batch(&(Script::tables("main") + &Script::tables("other")))
    };
    let files =
        &[("/primary.db-journal", 5, MANY), ("/other.db-journal", 5, MANY), ("/primary.db-mj", 5, MANY)];
    Mode { prepare, schema: &["main", "other"], value_bytes_max: 20_000, transactions: 40, files }
        .check_all()
        .await;
}

/// As SQLite journals if it is not built for atomic batches.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_in_a_write_ahead_log() {
    let prepare = |db: &Connection| {
        let mode = all(db, "PRAGMA journal_mode = WAL");
        assert_eq!(mode, "wal");
        db.execute_batch("PRAGMA wal_autocheckpoint = 20")?;
        tables(db)
    };
    let files = &[("/primary.db-wal", 4, MANY), ("/primary.db-shm", 0, 0)];
    Mode { prepare, schema: MAIN, value_bytes_max: 20_000, transactions: 60, files }.check_all().await;
}

/// Pages at the end move, and the file shrinks, at each commit; and pages are written before it.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_a_database_which_shrinks() {
    let prepare = |db: &Connection| {
        db.execute_batch("PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL; PRAGMA cache_size = 8")?;
        assert_eq!(all(db, "PRAGMA journal_mode = PERSIST"), "persist");
        db.execute_batch("PRAGMA cache_spill = 8")?;
        tables(db)?;
        assert_eq!(all(db, "PRAGMA auto_vacuum"), "Integer(1)");
        assert_eq!(all(db, "PRAGMA page_size"), "Integer(1024)");
        Ok(())
    };
    let files = &[("/primary.db-journal", 5, MANY)];
    Mode { prepare, schema: MAIN, value_bytes_max: 30_000, transactions: 40, files }.check_all().await;
}

/// Syncing is what SQLite orders its writes by. The order holds without it.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_an_application_which_turns_syncing_off() {
    let prepare = |db: &Connection| {
        db.execute_batch("PRAGMA synchronous = OFF; PRAGMA cache_size = 8; PRAGMA cache_spill = 8")?;
        assert_eq!(all(db, "PRAGMA journal_mode = DELETE"), "delete");
        tables(db)
    };
    let files = &[("/primary.db-journal", 5, MANY)];
    Mode { prepare, schema: MAIN, value_bytes_max: 60_000, transactions: 40, files }.check_all().await;
}
