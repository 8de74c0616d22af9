//! A broker in memory, and stores which record to it.

use client::testing::StubBroker;
use client::{AppendService, ClientOptions, JournalClient};
use consumer::Store;
use proto::JournalName;
use proto::consumer::{Checkpoint, checkpoint::Source};
use proto::protocol::LabelSet;
use proto::recoverylog::FsmHints;
use recoverylog::{Author, PlayError, Played, Player, Recorder};
use runtime::{Entropy, TaskGroup};
use std::path::PathBuf;
use store_rocksdb::rocksdb::Options;
use store_sqlite::rusqlite::{self, Connection};
use store_sqlite::{SqliteError, SqliteStore};
use tempfile::TempDir;

pub const LOG: &str = "a/recovery/log";

pub type Prepare = fn(&Connection) -> rusqlite::Result<()>;

pub struct World {
    pub tasks: TaskGroup,
    pub broker: StubBroker,
    pub client: JournalClient,
    pub dirs: TempDir,
}

impl World {
    pub async fn new() -> World {
        let tasks = TaskGroup::new("test");
        let broker = StubBroker::start(&tasks).await.unwrap();
        broker.add_journal(LOG, LabelSet::default());
        let client = JournalClient::new(broker.endpoint(), ClientOptions::new(tasks.clone())).unwrap();
        World { tasks, broker, client, dirs: tempfile::tempdir().unwrap() }
    }

    pub fn dir(&self, name: &str) -> PathBuf {
        self.dirs.path().join(name)
    }

    /// Plays the log and takes it over.
    pub async fn taken_over(&self, hints: &FsmHints, dir: &str, author: Author) -> Result<Played, PlayError> {
        let player = Player::start(hints.clone(), self.dir(dir), self.client.clone(), &self.tasks).unwrap();
        player.inject_handoff(author);
        player.done().await
    }

    /// Takes the log over, and goes on recording.
    pub async fn recorder(&self, hints: &FsmHints, dir: &str, id: u32) -> Recorder {
        let author = Author::new(id).unwrap();
        let played = self.taken_over(hints, dir, author).await.unwrap();
        self.record_on(played, author, &self.tasks).await
    }

    /// Goes on recording what was played; the appends are of `tasks`.
    pub async fn record_on(&self, played: Played, author: Author, tasks: &TaskGroup) -> Recorder {
        let appends = AppendService::new(self.client.clone(), tasks.child("appends"));
        let log = JournalName::parse(LOG).unwrap();
        Recorder::start(played.fsm, author, played.dir, log, appends).await.unwrap()
    }

    /// Takes the log over, and opens the store.
    pub async fn store(&self, dir: &str, id: u32, prepare: Prepare) -> SqliteStore {
        let recorder = self.recorder(&no_hints(), dir, id).await;
        SqliteStore::open_tuned(Some(recorder), &self.tasks, small_buffers, prepare).await.unwrap()
    }
}

/// Makes flushes and compactions of the database of pages happen all the time.
pub fn small_buffers(options: &mut Options) {
    options.set_write_buffer_size(64 << 10); // RocksDB has no smaller ones.
    options.set_target_file_size_base(16 << 10);
    options.set_max_bytes_for_level_base(64 << 10);
    options.set_level_zero_file_num_compaction_trigger(2);
}

pub fn no_hints() -> FsmHints {
    FsmHints { log: LOG.into(), ..FsmHints::default() }
}

/// A checkpoint which is told from others by a number.
pub fn checkpoint(number: i64) -> Checkpoint {
    let source = Source { read_through: number, ..Source::default() };
    Checkpoint { sources: [("a/source".to_owned(), source)].into(), ..Checkpoint::default() }
}

/// The number of a checkpoint; zero for the empty one.
pub fn number_of(checkpoint: &Checkpoint) -> i64 {
    checkpoint.sources.get("a/source").map_or(0, |source| source.read_through)
}

/// Commits without dependencies, and waits for it.
pub async fn commit(store: &mut SqliteStore, number: i64) -> Result<(), client::OpError> {
    store.start_commit(checkpoint(number), Vec::new()).await
}

pub async fn restored(store: &mut SqliteStore) -> i64 {
    number_of(&store.restore_checkpoint().await.unwrap())
}

/// Runs statements.
pub async fn sql(store: &mut SqliteStore, statements: &str) -> Result<(), SqliteError> {
    let statements = statements.to_owned();
    store.run(move |db| db.execute_batch(&statements)).await
}

/// The one value which a query gives, as text.
pub async fn query(store: &mut SqliteStore, statement: &str) -> String {
    let statement = statement.to_owned();
    store.run(move |db| Ok(all(db, &statement))).await.unwrap()
}

/// Rows which a query gives, as text: values are parted by `|`, rows by line feeds.
pub fn all(db: &Connection, statement: &str) -> String {
    let mut statement = db.prepare(statement).unwrap();
    let columns = statement.column_count();
    let mut rows = statement.query([]).unwrap();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let values = (0..columns).map(|column| match row.get_ref(column).unwrap() {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            value => format!("{value:?}"),
        });
        lines.push(values.collect::<Vec<_>>().join("|"));
    }
    lines.join("\n")
}

/// Everything that the databases hold, without the checkpoint.
pub fn dump(db: &Connection) -> String {
    let mut text = String::new();
    for schema in all(db, "SELECT name FROM pragma_database_list WHERE name != 'temp'").lines() {
        let master = format!("FROM {schema}.sqlite_master WHERE name NOT LIKE 'sqlite%'");
        text += &all(
            db,
            &format!(
                "SELECT '{schema}', type, name, sql {master} AND name NOT LIKE 'gazette%' ORDER BY name"
            ),
        );
        for table in all(db, &format!("SELECT name {master} AND type = 'table' ORDER BY name")).lines() {
            if table != "gazette_checkpoint" {
                text += &format!("\n{schema}.{table}:\n");
                text += &all(db, &format!("SELECT * FROM {schema}.{table} ORDER BY rowid"));
            }
        }
        text.push('\n');
    }
    text
}

pub async fn dump_of(store: &mut SqliteStore) -> String {
    store.run(|db| Ok(dump(db))).await.unwrap()
}

/// What SQLite itself finds of the integrity of all databases: `ok`, or what is wrong.
pub async fn integrity(store: &mut SqliteStore) -> String {
    query(store, "SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check").await
}

/// The seed of a random test: that of `COURANT_SEED`, else a new one. It is printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var_os("COURANT_SEED").map(|seed| seed.to_str().unwrap().parse().unwrap());
    let seed = given.unwrap_or_else(|| Entropy::system().u64());
    println!("repeat with COURANT_SEED={seed}");
    seed
}
