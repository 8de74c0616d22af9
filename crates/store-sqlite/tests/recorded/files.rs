//! What is stored where, and what SQLite is refused.

use crate::script::Script;
use crate::world::*;
use consumer::Store;
use recoverylog::Author;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use store_rocksdb::rocksdb::{DB, IteratorMode, Options};
use store_sqlite::SqliteStore;
use store_sqlite::rusqlite::{self, Connection};

fn table(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("CREATE TABLE IF NOT EXISTS t (a, b)")
}

/// Writes the pages of a database as the file that SQLite itself would have.
fn export(pages_dir: &Path, map: &str, file: &Path) -> usize {
    let names = DB::list_cf(&Options::default(), pages_dir).unwrap();
    assert!(names.contains(&"default".to_owned()) && names.contains(&map.to_owned()), "{names:?}");
    let db = DB::open_cf_for_read_only(&Options::default(), pages_dir, &names, false).unwrap();
    assert_eq!(db.iterator(IteratorMode::Start).count(), 0, "the family `default` is not used");
    let file = std::fs::OpenOptions::new().create_new(true).read(true).write(true).open(file).unwrap();
    let entries = db.iterator_cf(db.cf_handle(map).unwrap(), IteratorMode::Start);
    let pages = entries.map(|entry| {
        let (key, page) = entry.unwrap();
        let offset = u64::from_be_bytes((*key).try_into().unwrap());
        file.write_all_at(&page, offset).unwrap();
    });
    let count = pages.count();
    // Pages at the end which hold nothing are not stored: the header says how many there are.
    let mut header = [0; 100];
    file.read_exact_at(&mut header, 0).unwrap();
    let page_bytes = u64::from(u16::from_be_bytes([header[16], header[17]]));
    let page_count = u64::from(u32::from_be_bytes(header[28..32].try_into().unwrap()));
    file.set_len(file.metadata().unwrap().len().max(page_bytes * page_count)).unwrap();
    count
}

/// The keys are offsets and the values pages: put together, they are a database which any SQLite opens.
#[tokio::test(flavor = "multi_thread")]
async fn pages_put_together_are_a_database() {
    let world = World::new().await;
    let prepare = |db: &Connection| {
        db.execute_batch("ATTACH 'sub/other.db' AS other")?;
        db.execute_batch(&(Script::tables("main") + &Script::tables("other")))
    };
    let mut store = world.store("dir", 1, prepare).await;
    let mut script = Script::new(seed(), &["main", "other"], 20_000);
    for number in 1..=20 {
        for statement in script.transaction() {
            sql(&mut store, &statement).await.unwrap();
        }
        commit(&mut store, number).await.unwrap();
    }
    let expected = dump_of(&mut store).await;
    let played = world.taken_over(&no_hints(), "played", Author::new(2).unwrap()).await.unwrap();
    let (main, other) = (world.dir("main.db"), world.dir("other.db"));
    assert!(export(&played.dir.join("pageDB"), "/primary.db", &main) > 4);
    assert!(export(&played.dir.join("pageDB"), "/sub/other.db", &other) > 4);

    let stock = Connection::open(&main).unwrap();
    stock.execute("ATTACH ?1 AS other", [other.to_str().unwrap()]).unwrap();
    assert_eq!(all(&stock, "PRAGMA integrity_check"), "ok");
    assert_eq!(dump(&stock), expected);
    assert_eq!(all(&stock, "SELECT count(*) FROM gazette_checkpoint"), "Integer(1)");
}

/// Whatever was recorded is what is on disk: the files, and each of their bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_played_directory_equals_the_recorded_one() {
    let world = World::new().await;
    let prepare = |db: &Connection| {
        db.execute_batch("PRAGMA cache_size = 8; PRAGMA cache_spill = 8")?;
        table(db)
    };
    let mut store = world.store("first", 1, prepare).await;
    for number in 1..=20 {
        sql(&mut store, "INSERT INTO t SELECT value, zeroblob(3000) FROM generate_series(1, 30)")
            .await
            .unwrap_or(());
        sql(&mut store, "INSERT INTO t VALUES (1, zeroblob(200000)); DELETE FROM t WHERE rowid % 3 = 0")
            .await
            .unwrap();
        commit(&mut store, number).await.unwrap();
    }
    // Within a transaction, so that there is a journal, of which the last part may wait to be recorded.
    sql(&mut store, "UPDATE t SET b = zeroblob(3001)").await.unwrap();
    commit(&mut store, 21).await.unwrap();
    let recorder = store.recorder().clone();
    tokio::task::spawn_blocking(move || {
        // Closed, so that no compaction changes anything any more; the directory stays.
        drop(store);
        recorder.sync_blocking().unwrap();
    })
    .await
    .unwrap();
    let played = world.taken_over(&no_hints(), "second", Author::new(2).unwrap()).await.unwrap();
    let (recorded, played) = (files(&world.dir("first")), files(&played.dir));
    assert_eq!(recorded.keys().collect::<Vec<_>>(), played.keys().collect::<Vec<_>>());
    assert!(recorded.contains_key("primary.db-journal") && recorded.contains_key("pageDB/CURRENT"));
    for (name, content) in &recorded {
        assert!(content == &played[name], "{name} differs");
    }
    assert_eq!(recorded["primary.db-journal"], b"");
}

/// Recorded files below a directory, by their paths.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for (prefix, dir) in [("", dir.to_owned()), ("pageDB/", dir.join("pageDB"))] {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_file() && !name.starts_with("LOG") && name != "LOCK" {
                found.insert(format!("{prefix}{name}"), std::fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_pages_leave_the_store() {
    let world = World::new().await;
    let prepare = |db: &Connection| {
        db.execute_batch("PRAGMA auto_vacuum = FULL")?;
        table(db)
    };
    let mut store = world.store("dir", 1, prepare).await;
    sql(&mut store, "INSERT INTO t VALUES (1, zeroblob(400000))").await.unwrap();
    commit(&mut store, 1).await.unwrap();
    sql(&mut store, "DELETE FROM t").await.unwrap();
    commit(&mut store, 2).await.unwrap();
    let count = query(&mut store, "PRAGMA page_count").await;
    let played = world.taken_over(&no_hints(), "played", Author::new(2).unwrap()).await.unwrap();
    let stored = export(&played.dir.join("pageDB"), "/primary.db", &world.dir("export.db"));
    assert_eq!(format!("Integer({stored})"), count);
    assert!(stored < 10, "{stored} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_vacuumed_but_keeps_its_page_size() {
    let world = World::new().await;
    let mut store = world.store("first", 1, table).await;
    sql(&mut store, "INSERT INTO t VALUES (1, zeroblob(400000)), (2, zeroblob(10))").await.unwrap();
    commit(&mut store, 1).await.unwrap();
    sql(&mut store, "DELETE FROM t WHERE a = 1").await.unwrap();
    commit(&mut store, 2).await.unwrap();

    let vacuum = |db: &Connection| {
        db.execute_batch("VACUUM")?;
        assert_eq!(all(db, "PRAGMA page_count"), "Integer(3)");
        Ok(())
    };
    let mut store = world.store("second", 2, vacuum).await;
    assert_eq!((restored(&mut store).await, integrity(&mut store).await), (2, "ok".into()));

    let recorder = world.recorder(&no_hints(), "third", 3).await;
    let larger = |db: &Connection| db.execute_batch("PRAGMA page_size = 8192; VACUUM");
    let error = SqliteStore::open(Some(recorder), &world.tasks, larger).await.unwrap_err().to_string();
    assert!(error.starts_with("preparing SQLite in ") && error.contains("disk I/O error"), "{error}");
    let mut store = world.store("fourth", 4, table).await;
    assert_eq!((restored(&mut store).await, integrity(&mut store).await), (2, "ok".into()));
    assert_eq!(query(&mut store, "SELECT a, length(b) FROM t").await, "Integer(2)|Integer(10)");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_elsewhere_and_databases_which_are_open_are_refused() {
    let world = World::new().await;
    let prepare = |db: &Connection| {
        for name in ["primary.db", "/./primary.db", "../elsewhere.db", "pageDB/x.db"] {
            let error = db.execute("ATTACH ?1 AS other", [name]).unwrap_err().to_string();
            assert!(error.contains("unable to open database"), "{name}: {error}");
        }
        db.execute_batch("ATTACH ':memory:' AS memory; CREATE TEMP TABLE u (a); INSERT INTO u VALUES (1)")?;
        table(db)
    };
    let mut store = world.store("dir", 1, prepare).await;
    // Large sorts go to temporary files, which are not recorded.
    sql(&mut store, "PRAGMA temp.cache_size = 8; INSERT INTO u SELECT zeroblob(100000) FROM sqlite_master")
        .await
        .unwrap();
    sql(&mut store, "INSERT INTO t SELECT 1, a FROM u ORDER BY a DESC").await.unwrap();
    commit(&mut store, 1).await.unwrap();
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    assert_eq!(std::fs::read_dir(world.dirs.path()).unwrap().count(), 0);
}
