//! Ordered maps in a RocksDB whose files are recorded, for stores which are built on one.
//!
//! The database lies in a directory below the recorder's. Each map is a column family; the one called `default` exists,
//! and is not used. All of it blocks: a write may wait for a flush, and that for the recovery log.

use crate::overlay::Entry;
use crate::pool::shared_options;
use crate::store::{StoreError, recorded_options};
use recoverylog::Recorder;
use rocksdb::{
    BoundColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, Direction, IteratorMode, MultiThreaded,
    Options, WriteBatch,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

type Db = DBWithThreadMode<MultiThreaded>;

/// The map which RocksDB makes by itself.
const DEFAULT: &str = "default";

/// See the module.
pub struct RecordedMaps {
    // Before the recorder, so that it is closed first: closing records, too.
    db: Db,
    recorder: Recorder,
    dir: PathBuf,
    configure: Box<dyn Fn(&mut Options) + Send + Sync>,
}

impl RecordedMaps {
    /// Opens, or creates, the database in the directory `name` of the directory of `recorder`, with all maps that it
    /// holds. `configure` may tune the options of the database, and of each map.
    ///
    /// # Errors
    /// If RocksDB cannot open what is in the directory; if the recorder fails meanwhile.
    pub fn open(
        recorder: &Recorder,
        name: &str,
        configure: impl Fn(&mut Options) + Send + Sync + 'static,
    ) -> Result<RecordedMaps, StoreError> {
        let dir = recorder.dir().join(name);
        let options = recorded_options(recorder, &configure)?;
        let failed =
            |action| move |source| StoreError::of(recorder, action, &recorder.dir().join(name), source);
        // Written last when a database is created: without it, there is none.
        let known = if dir.join("CURRENT").exists() {
            Db::list_cf(&options, &dir).map_err(failed("listing maps of"))?
        } else {
            vec![DEFAULT.to_owned()]
        };
        let families = known.iter().map(|name| ColumnFamilyDescriptor::new(name, map_options(&configure)));
        let db = Db::open_cf_descriptors(&options, &dir, families).map_err(failed("opening"))?;
        Ok(RecordedMaps { db, recorder: recorder.clone(), dir, configure: Box::new(configure) })
    }

    /// Creates a map, unless it is there.
    ///
    /// # Errors
    /// If RocksDB cannot; [`StoreError::Record`] if the recorder failed.
    pub fn create(&self, map: &str) -> Result<(), StoreError> {
        if self.contains(map) {
            return Ok(());
        }
        let options = map_options(&self.configure);
        self.db.create_cf(map, &options).map_err(|source| self.failed("creating a map of", source))
    }

    /// Whether there is such a map.
    pub fn contains(&self, map: &str) -> bool {
        self.db.cf_handle(map).is_some()
    }

    /// The value of a key; none if there is no such key, or no such map.
    ///
    /// # Errors
    /// If RocksDB cannot read.
    pub fn get(&self, map: &str, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(family) = self.db.cf_handle(map) else { return Ok(None) };
        self.db.get_cf(&family, key).map_err(|source| self.failed("reading", source))
    }

    /// The last key of a map, and its value.
    ///
    /// # Errors
    /// If RocksDB cannot read.
    pub fn last(&self, map: &str) -> Result<Option<Entry>, StoreError> {
        let Some(family) = self.db.cf_handle(map) else { return Ok(None) };
        let entry = self.db.iterator_cf(&family, IteratorMode::End).next().transpose();
        entry.map_err(|source| self.failed("reading", source))
    }

    /// The keys of a map from `from` on, in their order.
    ///
    /// # Errors
    /// If RocksDB cannot read.
    pub fn keys(&self, map: &str, from: &[u8]) -> Result<Vec<Box<[u8]>>, StoreError> {
        let Some(family) = self.db.cf_handle(map) else { return Ok(Vec::new()) };
        let entries = self.db.iterator_cf(&family, IteratorMode::From(from, Direction::Forward));
        let keys = entries.map(|entry| entry.map(|(key, _)| key)).collect::<Result<_, _>>();
        keys.map_err(|source| self.failed("reading", source))
    }

    /// Sets keys which have a value, and deletes those which have none, in a map which is created if it is not there. It
    /// happens all at once: a recovered database has all of
    /// these changes, or none. They are in the log, in the order of calls, but not durable: that is for a barrier.
    ///
    /// # Errors
    /// If RocksDB cannot write; [`StoreError::Record`] if the recorder failed.
    pub fn write<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        map: &str,
        changes: impl IntoIterator<Item = (K, Option<V>)>,
    ) -> Result<(), StoreError> {
        self.create(map)?;
        let family: Option<Arc<BoundColumnFamily<'_>>> = self.db.cf_handle(map);
        let family = family.expect("it was created");
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put_cf(&family, key, value),
                None => batch.delete_cf(&family, key),
            }
        }
        self.db.write(batch).map_err(|source| self.failed("writing to", source))
    }

    /// The directory of the database.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends flushes and compactions, so that closing does not wait for more than the running step of one.
    pub fn cancel_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }

    fn failed(&self, action: &'static str, source: rocksdb::Error) -> StoreError {
        StoreError::of(&self.recorder, action, &self.dir, source)
    }
}

fn map_options(configure: &impl Fn(&mut Options)) -> Options {
    let mut options = shared_options();
    configure(&mut options);
    options
}

impl fmt::Debug for RecordedMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedMaps").field("dir", &self.dir).field("recorder", &self.recorder).finish()
    }
}
