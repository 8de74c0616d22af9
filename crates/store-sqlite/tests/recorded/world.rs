//! Stores which record to a broker in memory, and what is in them.

pub use consumer::testing::{LOG, World, checkpoint, commit, no_hints, restored, seed};
use store_rocksdb::rocksdb::Options;
use store_sqlite::rusqlite::{self, Connection};
use store_sqlite::{SqliteError, SqliteStore};

pub type Prepare = fn(&Connection) -> rusqlite::Result<()>;

pub trait Opens {
    /// Takes the log over, and opens the store.
    async fn store(&self, dir: &str, id: u32, prepare: Prepare) -> SqliteStore;
}

impl Opens for World {
    async fn store(&self, dir: &str, id: u32, prepare: Prepare) -> SqliteStore {
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
