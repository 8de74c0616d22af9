//! Rows of a shard's state: the sum so far of each stream, in RocksDB or in SQLite, as the shard's label says.
//!
//! In RocksDB a row is the stream's id and the sum as JSON. In SQLite it is one of the table `sums`: the id, the number
//! of chunks, and the value as eight little-endian bytes.

use client::OpFuture;
use consumer::Store;
use proto::consumer::Checkpoint;
use recoverylog::Recorder;
use runtime::{BoxError, TaskGroup};
use store_rocksdb::RocksStore;
use store_sqlite::SqliteStore;
use store_sqlite::rusqlite::{self, Connection, OptionalExtension};

use crate::{StreamId, Sum};

/// Label of a shard which names its store.
const STORE_LABEL: &str = "store";

/// Which store a shard has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    RocksDb,
    Sqlite,
}

/// A store which there is not.
#[derive(Debug, thiserror::Error)]
#[error("invalid label {STORE_LABEL}={0}; expected rocksdb or sqlite")]
pub struct StoreLabelError(String);

impl StoreKind {
    /// What the labels of a shard say; RocksDB if they say nothing.
    pub(crate) fn of_shard(spec: &proto::consumer::ShardSpec) -> Result<StoreKind, StoreLabelError> {
        StoreKind::parse(spec.label_set().value_of(STORE_LABEL))
    }

    fn parse(label: Option<&str>) -> Result<StoreKind, StoreLabelError> {
        match label.map(str::to_lowercase).as_deref() {
            None | Some("" | "rocksdb") => Ok(StoreKind::RocksDb),
            Some("sqlite") => Ok(StoreKind::Sqlite),
            Some(_) => Err(StoreLabelError(label.unwrap_or_default().to_owned())),
        }
    }
}

/// See the module.
pub(crate) enum Rows {
    RocksDb(RocksStore),
    Sqlite(SqliteStore),
}

impl Rows {
    pub(crate) async fn open(
        kind: StoreKind,
        recorder: Option<Recorder>,
        tasks: &TaskGroup,
    ) -> Result<Rows, BoxError> {
        Ok(match kind {
            StoreKind::RocksDb => Rows::RocksDb(RocksStore::open(recorder, tasks, |_| {}).await?),
            StoreKind::Sqlite => Rows::Sqlite(SqliteStore::open(recorder, tasks, sql::create).await?),
        })
    }

    /// The sum of a stream, if it has a row.
    pub(crate) async fn load(&mut self, id: StreamId) -> Result<Option<Sum>, BoxError> {
        match self {
            Rows::RocksDb(store) => match store.get(id.0)? {
                Some(row) => Ok(serde_json::from_slice(&row)
                    .map_err(|error| format!("row of stream {id} is not a sum: {error}"))?),
                None => Ok(None),
            },
            Rows::Sqlite(store) => Ok(sql::load(store.connection().await?, id)?),
        }
    }

    /// Writes sums into the running transaction.
    pub(crate) async fn store(&mut self, sums: Vec<Sum>) -> Result<(), BoxError> {
        match self {
            Rows::RocksDb(store) => {
                for sum in sums {
                    store.put(sum.id.0, serde_json::to_vec(&sum)?);
                }
            }
            Rows::Sqlite(_) if sums.is_empty() => {}
            Rows::Sqlite(store) => {
                store.run(move |db| sums.iter().try_for_each(|sum| sql::store(db, sum))).await?;
            }
        }
        Ok(())
    }
}

impl Store for Rows {
    type Reader = ();

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        match self {
            Rows::RocksDb(store) => store.restore_checkpoint().await,
            Rows::Sqlite(store) => store.restore_checkpoint().await,
        }
    }

    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        match self {
            Rows::RocksDb(store) => store.start_commit(checkpoint, wait_for),
            Rows::Sqlite(store) => store.start_commit(checkpoint, wait_for),
        }
    }

    fn reader(&self) {}

    fn destroy(self) {
        match self {
            Rows::RocksDb(store) => store.destroy(),
            Rows::Sqlite(store) => store.destroy(),
        }
    }
}

/// The table `sums`.
mod sql {
    use super::*;

    pub(super) fn create(db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS sums (id BLOB PRIMARY KEY NOT NULL, seq_no INTEGER, val BLOB)",
        )
    }

    pub(super) fn load(db: &Connection, id: StreamId) -> rusqlite::Result<Option<Sum>> {
        let mut select = db.prepare_cached("SELECT seq_no, val FROM sums WHERE id = ?1")?;
        let row = select.query_row([id.0.as_slice()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let sum = |(seq_no, value)| Sum { seq_no, value: u64::from_le_bytes(value), ..Sum::of_stream(id) };
        Ok(row.map(sum))
    }

    pub(super) fn store(db: &Connection, sum: &Sum) -> rusqlite::Result<()> {
        let upsert = "INSERT INTO sums (id, seq_no, val) VALUES (?1, ?2, ?3)
            ON CONFLICT (id) DO UPDATE SET seq_no = excluded.seq_no, val = excluded.val";
        let row = (sum.id.0.as_slice(), sum.seq_no, sum.value.to_le_bytes());
        db.prepare_cached(upsert)?.execute(row).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_label_is_checked() {
        for (label, expected) in [
            (None, Ok(StoreKind::RocksDb)),
            (Some(""), Ok(StoreKind::RocksDb)),
            (Some("rocksdb"), Ok(StoreKind::RocksDb)),
            (Some("RocksDB"), Ok(StoreKind::RocksDb)),
            (Some("sqlite"), Ok(StoreKind::Sqlite)),
            (Some("SQLite"), Ok(StoreKind::Sqlite)),
            (Some("csv"), Err("invalid label store=csv; expected rocksdb or sqlite")),
        ] {
            let found = StoreKind::parse(label).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{label:?}");
        }
    }

    #[test]
    fn a_row_of_sqlite_has_its_golden_shape() {
        let db = Connection::open_in_memory().unwrap();
        sql::create(&db).unwrap();
        let (id, other) = (StreamId([7; 16]), StreamId([8; 16]));
        assert_eq!(sql::load(&db, id).unwrap(), None);
        for (seq_no, value) in [(1, 5), (2, 0xae76_3109_c119_2ed6)] {
            let sum = Sum { seq_no, value, ..Sum::of_stream(id) };
            sql::store(&db, &sum).unwrap();
            assert_eq!(sql::load(&db, id).unwrap(), Some(sum));
        }
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let row: (String, i64, String) =
            db.query_row("SELECT hex(id), seq_no, hex(val) FROM sums", [], row).unwrap();
        assert_eq!(row, ("07".repeat(16), 2, "D62E19C1093176AE".to_owned()));
        assert_eq!(sql::load(&db, other).unwrap(), None);
    }
}
