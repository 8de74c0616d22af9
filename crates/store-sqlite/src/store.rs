//! The store: a SQLite connection over recorded files, and a shard's changes by it.

use crate::ffi::{Registered, has_batch_atomic_writes};
use crate::files::RecordedFiles;
use crate::names::PAGES_DIR;
use crate::reader::{ReadOnly, SqliteReader};
use crate::slot::{Return, Slot};
use crate::turns::{Turn, Turns};
use client::{AppendFuture, OpError, OpFuture};
use consumer::Store;
use prost::Message;
use proto::consumer::Checkpoint;
use recoverylog::{RecordError, Recorder};
use runtime::{BoxError, OnError, TaskGroup};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Row};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use store_rocksdb::rocksdb::Options;
use store_rocksdb::{RecordedMaps, StoreError};

/// File of the main database.
const DATABASE: &str = "primary.db";

/// Files by which other kinds of stores are known.
const OTHER_STORES: [&str; 2] = ["CURRENT", "state.json"];

/// Bytes of write-ahead logs of the database of pages, over which it flushes what the oldest is needed for: as much must
/// be read again when it is opened.
const WAL_BYTES_MAX: u64 = 32 << 20;

/// Why a store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// The shard has no recovery log.
    #[error(
        "a SQLite store needs a recovery log, and the shard has none (set recovery_log_prefix of its ShardSpec)"
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
    /// SQLite does not take another file system.
    #[error("the file system of a SQLite store cannot be registered")]
    NoFileSystem,
    /// The database of pages failed.
    #[error(transparent)]
    Pages(StoreError),
    /// SQLite failed.
    #[error("{action} SQLite in {dir:?}: {source}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// Where.
        dir: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// SQLite journals in another way than it was told to.
    #[error("SQLite in {dir:?} has journal mode {found}; expected {expected}")]
    JournalMode {
        /// Where.
        dir: PathBuf,
        /// What it has.
        found: String,
        /// What it was told.
        expected: &'static str,
    },
    /// The running transaction was ended by someone else than the store: by an error of SQLite, or by the application.
    #[error("the transaction in {dir:?} was ended before its commit: by an error, or by COMMIT or ROLLBACK")]
    TransactionEnded {
        /// Where.
        dir: PathBuf,
    },
    /// Files are no longer recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// What was written cannot be recorded.
    #[error("recording SQLite in {dir:?}: {source}")]
    Files {
        /// Where.
        dir: PathBuf,
        /// Why not.
        source: BoxError,
    },
    /// The stored checkpoint is not one.
    #[error("the checkpoint in {dir:?} cannot be decoded: {source}")]
    Checkpoint {
        /// Where.
        dir: PathBuf,
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// Work with the connection panicked.
    #[error("the connection to SQLite is lost: work with it panicked")]
    Lost,
    /// The shard no longer runs here.
    #[error("the store is closed")]
    Closed,
    /// A reader panicked.
    #[error("a read of SQLite panicked")]
    Panicked,
}

/// The connection, and what it needs to live. Fields are closed in their order.
pub(crate) struct Database {
    connection: Connection,
    _file_system: Registered<RecordedFiles>,
    files: Arc<RecordedFiles>,
    /// Whether a transaction was begun.
    begun: bool,
}

/// What the shard has of the connection: its turn at it while a transaction is running.
struct Session {
    turns: Turns<Box<Database>>,
    turn: Option<Turn<Box<Database>>>,
}

/// The store of one shard.
///
/// The application changes it by SQL, within a transaction which is begun when it is first used. A commit adds the
/// checkpoint to it; a recovered database holds all of a transaction or nothing. There is one connection, and the
/// application neither begins nor ends transactions by it; savepoints are its to use. Between two transactions readers
/// have it.
pub struct SqliteStore {
    /// Works of the shard follow each other.
    session: Slot<Session>,
    turns: Turns<Box<Database>>,
    recorder: Recorder,
    tasks: TaskGroup,
}

impl SqliteStore {
    /// Opens, or creates, the database in the directory of `recorder`. `prepare` is called outside of a transaction each
    /// time: it creates tables if they are not there, attaches further databases (by names in the same directory), and
    /// may set pragmas. The size of pages cannot be changed once there are some.
    ///
    /// # Errors
    /// Without a recorder; if SQLite cannot open what is in the directory; if `prepare` or the recorder fails.
    pub async fn open(
        recorder: Option<Recorder>,
        tasks: &TaskGroup,
        prepare: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<SqliteStore, SqliteError> {
        SqliteStore::open_tuned(recorder, tasks, |_| {}, prepare).await
    }

    /// As [`SqliteStore::open`], with other options for the RocksDB which stores the pages. Those that recovery relies on
    /// cannot be changed.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub async fn open_tuned(
        recorder: Option<Recorder>,
        tasks: &TaskGroup,
        tune: fn(&mut Options),
        prepare: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<SqliteStore, SqliteError> {
        let recorder = recorder.ok_or(SqliteError::NoRecorder)?;
        let open = {
            let recorder = recorder.clone();
            move || Database::open(recorder, tune, prepare).map(Box::new)
        };
        let turns = Turns::new(tasks.spawn_blocking("open SQLite", open).await?);
        let session = Slot::new(Session { turns: turns.clone(), turn: None });
        Ok(SqliteStore { session, turns, recorder, tasks: tasks.clone() })
    }

    /// The connection, within the running transaction, once a commit or a reader which has it is done. For statements
    /// which read or change little: they run on this thread, and may read from disk. Changes stay in SQLite's cache until the
    /// commit; a transaction which outgrows that writes pages, and may wait for the recovery log: see
    /// [`SqliteStore::run`]. Use [`Connection::prepare_cached`] for statements which are used often.
    ///
    /// # Errors
    /// If a transaction cannot be begun.
    pub async fn connection(&mut self) -> Result<&Connection, SqliteError> {
        let database = self.session.here().await.ok_or(SqliteError::Lost)?.turn().await?;
        database.begin()?;
        Ok(&database.connection)
    }

    /// Runs `work` with the connection, within the running transaction, on a thread where blocking is allowed.
    ///
    /// # Errors
    /// If a transaction cannot be begun; the error of `work`.
    pub async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let work = |database: &mut Database| {
            database.begin()?;
            work(&database.connection).map_err(|error| database.failed("working with", error))
        };
        self.work(work).await
    }

    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Database) -> Result<T, SqliteError> + Send + 'static,
    ) -> Result<T, SqliteError> {
        // Waited for here, so that the thread does not wait.
        self.session.here().await.ok_or(SqliteError::Lost)?.turn().await?;
        let (slot, back) = self.session.take();
        let work = move || {
            let mut session = slot.into_value_blocking().ok_or(SqliteError::Lost)?;
            let outcome = session.work(work);
            back.give(session);
            outcome
        };
        self.tasks.spawn_blocking("work with SQLite", work).await
    }

    /// The recorder of the database's files.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

impl Store for SqliteStore {
    type Reader = SqliteReader;

    async fn restore_checkpoint(&mut self) -> Result<Checkpoint, BoxError> {
        Ok(self.work(|database| database.checkpoint()).await?)
    }

    /// The order in the log is: a barrier, which waits for `wait_for`; what SQLite writes to commit; another barrier,
    /// which is the commit.
    fn start_commit(&mut self, checkpoint: Checkpoint, wait_for: Vec<OpFuture>) -> OpFuture {
        let barrier = self.recorder.barrier(wait_for);
        if let Some(Err(error)) = barrier.try_result() {
            return OpFuture::resolved(Err(why(&self.recorder, error)));
        }
        let (slot, back) = self.session.take();
        let (promise, commit) = OpFuture::pair();
        let (recorder, tasks) = (self.recorder.clone(), self.tasks.clone());
        self.tasks.spawn("commit SQLite", OnError::Log, async move {
            let outcome = match write_commit(slot, back, checkpoint, &tasks).await {
                Ok(barrier) => barrier.await.map(drop).map_err(|error| why(&recorder, error)),
                Err(error) => Err(OpError::failed(error)),
            };
            promise.resolve(outcome);
            Ok(())
        });
        commit
    }

    fn reader(&self) -> SqliteReader {
        SqliteReader::new(&self.turns, &self.tasks)
    }

    fn destroy(self) {
        // Without a commit its transaction is undone.
        drop(self.session.into_value_blocking());
        if let Some(database) = self.turns.close() {
            database.files.cancel_background_work();
            drop(database);
        }
        let dir = self.recorder.dir();
        if let Err(error) = std::fs::remove_dir_all(dir) {
            tracing::warn!(?dir, %error, "cannot remove the directory of a SQLite");
        }
    }
}

/// Writes what is in the slot, or will be, and gives the barrier behind it.
async fn write_commit(
    slot: Slot<Session>,
    back: Return<Session>,
    checkpoint: Checkpoint,
    tasks: &TaskGroup,
) -> Result<AppendFuture, SqliteError> {
    let mut session = slot.into_value().await.ok_or(SqliteError::Lost)?;
    session.turn().await?;
    let write = move || {
        let outcome = session.work(|database| database.commit(&checkpoint));
        back.give(session);
        outcome
    };
    tasks.spawn_blocking("write SQLite", write).await
}

impl Session {
    /// Waits for a turn, unless there is one.
    async fn turn(&mut self) -> Result<&mut Database, SqliteError> {
        if self.turn.is_none() {
            self.turn = Some(self.turns.next().await.ok_or(SqliteError::Closed)?);
        }
        Ok(self.turn.as_mut().expect("it was set above"))
    }

    /// Works with the database, and ends the turn unless a transaction is running after that. The turn must have come.
    fn work<T>(
        &mut self,
        work: impl FnOnce(&mut Database) -> Result<T, SqliteError>,
    ) -> Result<T, SqliteError> {
        let mut turn = self.turn.take().expect("it was waited for");
        let outcome = work(&mut turn);
        self.turn = turn.begun.then_some(turn);
        outcome
    }
}

impl Database {
    fn open(
        recorder: Recorder,
        tune: fn(&mut Options),
        prepare: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<Database, SqliteError> {
        let found = OTHER_STORES.iter().copied().find(|name| recorder.dir().join(name).exists());
        if let Some(found) = found {
            return Err(SqliteError::OtherStore { dir: recorder.dir().to_owned(), found });
        }
        let tune = move |options: &mut Options| {
            options.set_max_total_wal_size(WAL_BYTES_MAX);
            tune(options);
        };
        let maps = RecordedMaps::open(&recorder, PAGES_DIR, tune).map_err(SqliteError::Pages)?;
        let files = Arc::new(RecordedFiles::new(maps, recorder.clone()));
        let file_system = Registered::new(Arc::clone(&files)).ok_or(SqliteError::NoFileSystem)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags_and_vfs(DATABASE, flags, file_system.name());
        let connection = connection.map_err(|error| because(&recorder, "opening", error))?;
        let database = Database { connection, _file_system: file_system, files, begun: false };
        database.set_up()?;
        prepare(&database.connection).map_err(|error| database.failed("preparing", error))?;
        database.create_checkpoint()?;
        Ok(database)
    }

    fn set_up(&self) -> Result<(), SqliteError> {
        let failed = |error| self.failed("setting up", error);
        // A log which is left behind is recovered like everything else: closing need not write.
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        self.connection.query_row("PRAGMA secure_delete = FAST", [], |_| Ok(())).map_err(failed)?;
        let expected = if has_batch_atomic_writes() { "truncate" } else { "wal" };
        let sql = format!("PRAGMA journal_mode = {expected}");
        let found: String = self.connection.query_row(&sql, [], |row| row.get(0)).map_err(failed)?;
        if found != expected {
            return Err(SqliteError::JournalMode { dir: self.recorder().dir().to_owned(), found, expected });
        }
        Ok(())
    }

    fn create_checkpoint(&self) -> Result<(), SqliteError> {
        let table = "CREATE TABLE IF NOT EXISTS gazette_checkpoint (
                rowid INTEGER PRIMARY KEY DEFAULT 0 CHECK (rowid = 0), checkpoint BLOB);
            INSERT OR IGNORE INTO gazette_checkpoint (rowid, checkpoint) VALUES (0, '');";
        self.connection.execute_batch(table).map_err(|error| self.failed("setting up", error))
    }

    fn checkpoint(&self) -> Result<Checkpoint, SqliteError> {
        let sql = "SELECT checkpoint FROM gazette_checkpoint WHERE rowid = 0";
        let bytes = |row: &Row<'_>| Ok(row.get_ref(0)?.as_bytes_or_null()?.map(<[u8]>::to_vec));
        let stored = self.connection.query_row(sql, [], bytes);
        let stored = stored.map_err(|error| self.failed("reading", error))?.unwrap_or_default();
        let dir = || self.recorder().dir().to_owned();
        Checkpoint::decode(stored.as_slice()).map_err(|source| SqliteError::Checkpoint { dir: dir(), source })
    }

    /// Lets a reader have the connection, between transactions.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, SqliteError> {
        if self.begun {
            // By whoever gave up before its commit: nobody goes on from here.
            return Err(SqliteError::Closed);
        }
        let failed = |error| self.failed("reading", error);
        let _read_only = ReadOnly::begin(&self.connection).map_err(failed)?;
        read(&self.connection).map_err(failed)
    }

    /// Begins a transaction, unless one is running.
    fn begin(&mut self) -> Result<(), SqliteError> {
        if self.begun {
            return if self.connection.is_autocommit() { Err(self.ended()) } else { Ok(()) };
        }
        self.connection.execute_batch("BEGIN").map_err(|error| self.failed("beginning with", error))?;
        self.begun = true;
        Ok(())
    }

    /// Commits the running transaction, and returns the barrier behind it.
    fn commit(&mut self, checkpoint: &Checkpoint) -> Result<AppendFuture, SqliteError> {
        self.begin()?;
        let update = || {
            let sql = "UPDATE gazette_checkpoint SET checkpoint = ?1 WHERE rowid = 0";
            match self.connection.prepare_cached(sql)?.execute([checkpoint.encode_to_vec()])? {
                1 => self.connection.execute_batch("COMMIT"),
                rows => Err(rusqlite::Error::StatementChangedRows(rows)),
            }
        };
        update().map_err(|error| self.failed("committing to", error))?;
        self.begun = false;
        let dir = || self.recorder().dir().to_owned();
        self.files.flush().map_err(|source| match self.recorder().failure() {
            Some(error) => SqliteError::Record(error),
            None => SqliteError::Files { dir: dir(), source },
        })?;
        Ok(self.recorder().barrier(Vec::new()))
    }

    fn recorder(&self) -> &Recorder {
        self.files.recorder()
    }

    fn ended(&self) -> SqliteError {
        match self.recorder().failure() {
            Some(error) => SqliteError::Record(error),
            None => SqliteError::TransactionEnded { dir: self.recorder().dir().to_owned() },
        }
    }

    fn failed(&self, action: &'static str, source: rusqlite::Error) -> SqliteError {
        because(self.recorder(), action, source)
    }
}

/// SQLite says only that an operation failed; the recorder may know why.
fn because(recorder: &Recorder, action: &'static str, source: rusqlite::Error) -> SqliteError {
    match recorder.failure() {
        Some(error) => SqliteError::Record(error),
        None => SqliteError::Sqlite { action, dir: recorder.dir().to_owned(), source },
    }
}

/// The recorder's first failure says more than that of an append which came later.
fn why(recorder: &Recorder, error: OpError) -> OpError {
    recorder.failure().map_or(error, OpError::failed)
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteStore").field(&self.recorder).finish()
    }
}
