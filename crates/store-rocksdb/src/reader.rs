//! Reads of a store by requests, beside the shard which changes it.

use crate::overlay::Entry;
use crate::store::{Shared, StoreError, is_visible};
use rocksdb::{DB, Direction, IteratorMode, SnapshotWithThreadMode};
use runtime::TaskGroup;
use std::fmt;
use std::sync::{Arc, Weak};

/// Reads a store from any task. Does not hold it open. Cheap to clone.
#[derive(Clone)]
pub struct RocksReader {
    shared: Weak<Shared>,
    tasks: TaskGroup,
}

/// The store as it was at one moment: with every transaction whose commit was written by then, and nothing of others. The
/// last of them may not be durable in the recovery log yet.
pub struct RocksView<'a> {
    shared: &'a Shared,
    snapshot: SnapshotWithThreadMode<'a, DB>,
}

impl RocksReader {
    pub(crate) fn new(shared: &Arc<Shared>, tasks: &TaskGroup) -> RocksReader {
        RocksReader { shared: Arc::downgrade(shared), tasks: tasks.clone() }
    }

    /// Runs `read` on a thread where blocking is allowed. It should be over soon: the shard closes the store after it.
    ///
    /// # Errors
    /// If the store is closed; the error of `read`.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&RocksView<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = self.shared.upgrade().ok_or(StoreError::Closed)?;
        let read = move || read(&RocksView { snapshot: shared.db.snapshot(), shared: &shared });
        self.tasks.spawn_blocking("read RocksDB", read).await
    }
}

impl RocksView<'_> {
    /// The value of a key.
    ///
    /// # Errors
    /// If RocksDB cannot read it.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, StoreError> {
        self.snapshot.get(key).map_err(|source| self.shared.failed("reading", source))
    }

    /// Keys and values in order from a key on. The framework's are left out.
    pub fn iter(&self, from: &[u8]) -> impl Iterator<Item = Result<Entry, StoreError>> {
        let entries = self.snapshot.iterator(IteratorMode::From(from, Direction::Forward));
        entries.map(|entry| entry.map_err(|source| self.shared.failed("reading", source))).filter(is_visible)
    }
}

impl fmt::Debug for RocksReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksReader").field("is_open", &(self.shared.strong_count() > 0)).finish()
    }
}
