//! The store: a RocksDB whose files are recorded, and a shard's changes to it.

use crate::env::observed_env;
use crate::keys::{self, MarkError};
use crate::observer::RecordingObserver;
use crate::overlay::{Changes, Entry, Overlay};
use crate::pool::shared_options;
use crate::reader::RocksReader;
use client::{AppendFuture, OpError, OpFuture};
use consumer::Store;
use prost::Message;
use proto::consumer::Checkpoint;
use recoverylog::{RecordError, Recorder};
use rocksdb::{DB, Direction, IteratorMode, Options, WriteBatch};
use runtime::{BoxError, OnError, TaskGroup};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Size at which RocksDB begins a new manifest, in bytes. A manifest is as old as its oldest byte, and so is the part of
/// the log which must be kept and played for it.
const MANIFEST_BYTES_MAX: usize = 128 << 10;

/// Files by which other kinds of stores are known.
const OTHER_STORES: [&str; 2] = ["pageDB", "state.json"];

/// Threads for flushes, and as many for compactions, of all databases of the process. They wait for recovery logs, so
/// there are more than there are processors to keep busy.
const BACKGROUND_THREADS: i32 = 4;

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The shard has no recovery log.
    #[error(
        "a RocksDB store needs a recovery log, and the shard has none (set recovery_log_prefix of its ShardSpec)"
    )]
    NoRecorder,
    /// The recovery log is that of a store of another kind, whose checkpoint would be lost.
    #[error(
        "{dir:?} holds {found}, which is of another kind of store; a shard which changes its store needs a new log"
    )]
    OtherStore {
        /// Where.
        dir: PathBuf,
        /// A file of the other store.
        found: &'static str,
    },
    /// The shard no longer runs here.
    #[error("the store is closed")]
    Closed,
    /// There is no memory for the environment.
    #[error("the environment of a RocksDB cannot be made")]
    NoEnvironment,
    /// RocksDB failed.
    #[error("{action} RocksDB in {dir:?}: {source}")]
    RocksDb {
        /// What was tried.
        action: &'static str,
        /// Where.
        dir: PathBuf,
        /// What RocksDB says.
        source: rocksdb::Error,
    },
    /// The operations of RocksDB are no longer recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The stored checkpoint is not one.
    #[error("the checkpoint in {dir:?} cannot be decoded: {source}")]
    Checkpoint {
        /// Where.
        dir: PathBuf,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// A stored offset is not one.
    #[error(transparent)]
    Mark(#[from] MarkError),
}

impl StoreError {
    /// RocksDB says only that an operation was refused; the recorder knows why.
    pub(crate) fn of(
        recorder: &Recorder,
        action: &'static str,
        dir: &Path,
        source: rocksdb::Error,
    ) -> StoreError {
        match recorder.failure() {
            Some(error) => StoreError::Record(error),
            None => StoreError::RocksDb { action, dir: dir.to_owned(), source },
        }
    }
}

/// What a running commit needs, on whichever thread it runs.
pub(crate) struct Shared {
    // Before the recorder, so that it is closed first: closing records, too.
    pub(crate) db: DB,
    recorder: Recorder,
}

/// The store of one shard.
///
/// Changes are kept in memory until they are committed, and are visible to reads of this store at once. A commit is one
/// write batch, the checkpoint included, so a recovered database holds all of a transaction or nothing.
pub struct RocksStore {
    shared: Arc<Shared>,
    overlay: Overlay,
    tasks: TaskGroup,
}

impl RocksStore {
    /// Opens, or creates, the database in the directory of `recorder`. `configure` may tune the options; those which
    /// would write around the recorder, or which recovery relies on, are set afterwards.
    ///
    /// # Errors
    /// Without a recorder; if RocksDB cannot open what is in the directory; if the recorder fails meanwhile.
    pub async fn open(
        recorder: Option<Recorder>,
        tasks: &TaskGroup,
        configure: impl FnOnce(&mut Options) + Send + 'static,
    ) -> Result<RocksStore, StoreError> {
        let recorder = recorder.ok_or(StoreError::NoRecorder)?;
        let open = move || {
            let dir = recorder.dir().to_owned();
            if let Some(found) = OTHER_STORES.iter().copied().find(|name| dir.join(name).exists()) {
                return Err(StoreError::OtherStore { dir, found });
            }
            let options = recorded_options(&recorder, configure)?;
            let db = DB::open(&options, &dir).map_err(|source| because(&recorder, "opening", source))?;
            Ok::<_, StoreError>(Shared { db, recorder })
        };
        let shared = tasks.spawn_blocking("open RocksDB", open).await?;
        Ok(RocksStore { shared: Arc::new(shared), overlay: Overlay::default(), tasks: tasks.clone() })
    }

    /// The value of a key, changes of the running transaction included. May read from disk.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.as_ref();
        match self.overlay.get(key) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => self.shared.db.get(key).map_err(|source| self.failed("reading", source)),
        }
    }

    /// Sets the value of a key, as part of the running transaction. Keys which begin with a zero byte are the framework's.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.overlay.put(key.into(), value.into());
    }

    /// Deletes a key, as part of the running transaction.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.overlay.delete(key.into());
    }

    /// Keys and values in order from a key on, changes of the running transaction included. The framework's are left out.
    pub fn iter<'a>(&'a self, from: &'a [u8]) -> impl Iterator<Item = Result<Entry, StoreError>> + 'a {
        let entries = self.shared.db.iterator(IteratorMode::From(from, Direction::Forward));
        let entries = entries.map(|entry| entry.map_err(|source| self.failed("reading", source)));
        self.overlay.entries(from, entries).filter(is_visible)
    }

    /// The database, without the running transaction. Only to read: what is written around this store is not part of
    /// any transaction.
    pub fn db(&self) -> &DB {
        &self.shared.db
    }

    /// The recorder of the database's files.
    pub fn recorder(&self) -> &Recorder {
        &self.shared.recorder
    }

    fn failed(&self, action: &'static str, source: rocksdb::Error) -> StoreError {
        self.shared.failed(action, source)
    }
}

/// Whether an entry is the application's. Errors are everybody's.
pub(crate) fn is_visible(entry: &Result<Entry, StoreError>) -> bool {
    entry.as_ref().map_or(true, |(key, _)| !keys::is_reserved(key))
}

impl Store for RocksStore {
    type Reader = RocksReader;

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        let shared = Arc::clone(&self.shared);
        let restore = move || shared.restore_checkpoint();
        Ok(self.tasks.spawn_blocking("restore checkpoint", restore).await?)
    }

    /// The order in the log is: a barrier, which waits for `wait_for`; the batch; another barrier, which is the commit.
    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        let changes = self.overlay.seal();
        let barrier = self.shared.recorder.barrier(wait_for);
        if let Some(Err(error)) = barrier.try_result() {
            return OpFuture::resolved(Err(self.shared.why(error)));
        }
        let shared = Arc::clone(&self.shared);
        let write = self.tasks.spawn_blocking("write RocksDB", {
            let shared = Arc::clone(&shared);
            move || shared.write(&changes, &checkpoint)
        });
        let (promise, commit) = OpFuture::pair();
        self.tasks.spawn("commit RocksDB", OnError::Log, async move {
            let outcome = match write.await {
                Ok(barrier) => barrier.await.map(drop).map_err(|error| shared.why(error)),
                Err(error) => Err(OpError::failed(error)),
            };
            drop(shared);
            promise.resolve(outcome);
            Ok(())
        });
        commit
    }

    fn reader(&self) -> RocksReader {
        RocksReader::new(&self.shared, &self.tasks)
    }

    fn destroy(self) {
        let dir = self.shared.recorder.dir().to_owned();
        self.shared.db.cancel_all_background_work(true);
        drop(self);
        if let Err(error) = std::fs::remove_dir_all(&dir) {
            tracing::warn!(?dir, %error, "cannot remove the directory of a RocksDB");
        }
    }
}

impl Shared {
    pub(crate) fn failed(&self, action: &'static str, source: rocksdb::Error) -> StoreError {
        because(&self.recorder, action, source)
    }

    fn restore_checkpoint(&self) -> Result<Checkpoint, StoreError> {
        let dir = || self.recorder.dir().to_owned();
        let failed = |source| because(&self.recorder, "reading", source);
        if let Some(value) = self.db.get(keys::checkpoint_key()).map_err(failed)? {
            let checkpoint = Checkpoint::decode(value.as_slice());
            return checkpoint.map_err(|source| StoreError::Checkpoint { dir: dir(), source });
        }
        let prefix = keys::marks_prefix();
        let mut marks = Vec::new();
        for entry in self.db.iterator(IteratorMode::From(&prefix, Direction::Forward)) {
            let (key, value) = entry.map_err(failed)?;
            if !key.starts_with(&prefix) {
                break;
            }
            marks.push((key, value));
        }
        Ok(keys::checkpoint_of_marks(marks.into_iter())?)
    }

    /// Writes the changes, and returns the barrier behind them.
    fn write(&self, changes: &Changes, checkpoint: &Checkpoint) -> Result<AppendFuture, StoreError> {
        let mut batch = WriteBatch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        for (key, value) in keys::marks(checkpoint) {
            batch.put(key, value);
        }
        batch.put(keys::checkpoint_key(), checkpoint.encode_to_vec());
        self.db.write(batch).map_err(|source| because(&self.recorder, "writing to", source))?;
        Ok(self.recorder.barrier(Vec::new()))
    }

    /// The recorder's first failure says more than that of an append which came later.
    fn why(&self, error: OpError) -> OpError {
        self.recorder.failure().map_or(error, OpError::failed)
    }
}

impl fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RocksStore").field(&self.shared.recorder).finish()
    }
}

/// Options of a database whose files are recorded.
pub(crate) fn recorded_options(
    recorder: &Recorder,
    configure: impl FnOnce(&mut Options),
) -> Result<Options, StoreError> {
    let mut options = shared_options();
    configure(&mut options);
    let observer = RecordingObserver::new(recorder.clone());
    let mut env = observed_env(observer).ok_or(StoreError::NoEnvironment)?;
    env.set_background_threads(BACKGROUND_THREADS);
    env.set_high_priority_background_threads(BACKGROUND_THREADS);
    options.set_env(&env);
    require(&mut options);
    Ok(options)
}

fn because(recorder: &Recorder, action: &'static str, source: rocksdb::Error) -> StoreError {
    StoreError::of(recorder, action, recorder.dir(), source)
}

/// What recording and recovery need, whatever was configured.
fn require(options: &mut Options) {
    options.create_if_missing(true);
    options.set_max_manifest_file_size(MANIFEST_BYTES_MAX);
    // Files elsewhere would not be recorded.
    options.set_wal_dir("");
    options.set_db_log_dir("");
    options.set_db_paths(&[]);
    // A log file which is reused keeps its old bytes, and one in an archive is renamed into another directory.
    options.set_recycle_log_file_num(0);
    options.set_wal_ttl_seconds(0);
    options.set_wal_size_limit_mb(0);
    // The write-ahead log must reach the recorder before a write returns, and as plain appends.
    options.set_manual_wal_flush(false);
    options.set_allow_mmap_writes(false);
    options.set_use_direct_io_for_flush_and_compaction(false);
}
