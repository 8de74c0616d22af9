//! The last rides of each bike, in SQL: in PostgreSQL for a shard without a recovery log, in SQLite for one with it.
//!
//! Both have the same table, and take the same statements.

use client::OpFuture;
use consumer::{Shard, Store};
use proto::consumer::Checkpoint;
use recoverylog::Recorder;
use runtime::BoxError;
use store_postgres::tokio_postgres::types::ToSql;
use store_postgres::{PostgresOptions, PostgresReader, PostgresStore};
use store_sqlite::rusqlite::{self, Connection, params_from_iter};
use store_sqlite::{SqliteReader, SqliteStore};

use crate::{Ride, Trip};

const TABLE: &str = include_str!("../rides.sql");

/// A ride which comes again changes nothing.
const INSERT: &str = "INSERT INTO rides
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
    ON CONFLICT (bike_id, start_time) DO NOTHING";

const KEEP_LAST: &str = "DELETE FROM rides WHERE bike_id = $1 AND start_time NOT IN
    (SELECT start_time FROM rides WHERE bike_id = $1 ORDER BY start_time DESC LIMIT 20)";

const SELECT: &str = "SELECT uuid, start_time, end_time,
    start_station_name, end_station_name, start_station_id, end_station_id
    FROM rides WHERE bike_id = $1 ORDER BY start_time DESC";

/// The store of a shard.
#[derive(Debug)]
pub enum RideStore {
    /// Without a recovery log.
    Postgres(PostgresStore),
    /// With one.
    Sqlite(SqliteStore),
}

/// Reads it, for requests.
#[derive(Clone, Debug)]
pub enum RideReader {
    /// Of [`RideStore::Postgres`].
    Postgres(PostgresReader),
    /// Of [`RideStore::Sqlite`].
    Sqlite(SqliteReader),
}

impl RideStore {
    pub(crate) async fn open(
        shard: &Shard,
        recorder: Option<Recorder>,
        postgres: PostgresOptions,
    ) -> Result<RideStore, BoxError> {
        Ok(match recorder {
            None => RideStore::Postgres(PostgresStore::open(shard.fqn(), postgres, shard.tasks()).await?),
            recorder => {
                let create = |db: &Connection| db.execute_batch(TABLE);
                RideStore::Sqlite(SqliteStore::open(recorder, shard.tasks(), create).await?)
            }
        })
    }

    /// Adds a ride, and gives the last rides of its bike, the very last one first. None if it is there already.
    pub(crate) async fn add(&mut self, ride: &Ride) -> Result<Option<Vec<Trip>>, BoxError> {
        let bike = ride.bike_id().to_string();
        match self {
            RideStore::Postgres(store) => {
                let columns: Vec<_> = ride.columns().iter().map(|text| text as &(dyn ToSql + Sync)).collect();
                if store.execute(INSERT, &columns).await? == 0 {
                    return Ok(None);
                }
                store.execute(KEEP_LAST, &[&bike]).await?;
                let rows = store.query(SELECT, &[&bike]).await?;
                Ok(Some(rows.iter().map(|row| trip(|index| row.try_get(index))).collect::<Result<_, _>>()?))
            }
            RideStore::Sqlite(store) => {
                let db = store.connection().await?;
                if db.prepare_cached(INSERT)?.execute(params_from_iter(ride.columns()))? == 0 {
                    return Ok(None);
                }
                db.prepare_cached(KEEP_LAST)?.execute([&bike])?;
                Ok(Some(select(db, &bike)?))
            }
        }
    }
}

impl RideReader {
    /// The last rides of a bike, the very last one first.
    pub(crate) async fn trips(&self, bike_id: u64) -> Result<Vec<Trip>, BoxError> {
        let bike = bike_id.to_string();
        match self {
            RideReader::Postgres(reader) => {
                let rows = reader.query(SELECT, &[&bike]).await?;
                Ok(rows.iter().map(|row| trip(|index| row.try_get(index))).collect::<Result<_, _>>()?)
            }
            RideReader::Sqlite(reader) => Ok(reader.read(move |db| select(db, &bike)).await?),
        }
    }
}

fn select(db: &Connection, bike: &str) -> rusqlite::Result<Vec<Trip>> {
    let mut select = db.prepare_cached(SELECT)?;
    select.query_map([bike], |row| trip(|index| row.get(index)))?.collect()
}

/// A row of [`SELECT`].
fn trip<E>(column: impl Fn(usize) -> Result<String, E>) -> Result<Trip, E> {
    Ok(Trip {
        uuid: column(0)?,
        start_time: crate::ride::shown(&column(1)?),
        end_time: crate::ride::shown(&column(2)?),
        start_station: column(3)?,
        end_station: column(4)?,
        start_station_id: column(5)?,
        end_station_id: column(6)?,
    })
}

impl Store for RideStore {
    type Reader = RideReader;

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        match self {
            RideStore::Postgres(store) => store.restore_checkpoint().await,
            RideStore::Sqlite(store) => store.restore_checkpoint().await,
        }
    }

    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        match self {
            RideStore::Postgres(store) => store.start_commit(checkpoint, wait_for),
            RideStore::Sqlite(store) => store.start_commit(checkpoint, wait_for),
        }
    }

    fn reader(&self) -> RideReader {
        match self {
            RideStore::Postgres(store) => RideReader::Postgres(store.reader()),
            RideStore::Sqlite(store) => RideReader::Sqlite(store.reader()),
        }
    }

    fn destroy(self) {
        match self {
            RideStore::Postgres(store) => store.destroy(),
            RideStore::Sqlite(store) => store.destroy(),
        }
    }
}
