//! The files of the embedded etcd.
//!
//! The directory holds `LOCK` and one log, named by a number. A log that has grown is replaced: the new one is written
//! under another name, synced, renamed, and the directory synced; then the old one is removed. A write that fails is
//! cut off again, so that the log ends with the last frame that was acknowledged. Everything here blocks; the owner calls
//! it on a thread where that is allowed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{self, Damage, Identity};
use super::store::{Effect, Store};

/// A log of at least this many bytes may be replaced.
const ROTATE_BYTES_MIN: usize = 16 << 20;
/// A log is replaced when it is this many times the size of the snapshot that it began with.
const ROTATE_GROWTH: usize = 4;

/// Why the files could not be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("{action} {path:?}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("{path:?} is in use by another process (it holds a lock on the file)")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A log is damaged other than at its end. Restore the directory, or remove it to begin anew.
    #[error("log {path:?} is {source}")]
    Damaged {
        /// The log.
        path: PathBuf,
        /// Where and how.
        source: Damage,
    },
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { action, path, source }
}

/// What became of an append which failed.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// Nothing of it is in the log.
    Refused(LogError),
    /// It is not known what the disk holds. No further write can be relied on.
    Unknown(LogError),
}

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    path: PathBuf,
    sequence: u64,
    file: File,
    length: u64,
    next_number: u64,
    snapshot_bytes: usize,
    _lock: File,
}

/// The log of `dir` with the state that it holds, or a new one, whose identity is `fresh`.
pub(crate) fn open(dir: &Path, fresh: Identity, now: Duration) -> Result<(Log, Identity, Store), LogError> {
    fs::create_dir_all(dir).map_err(io_error("create directory", dir))?;
    let lock = lock(dir)?;
    let sequences = sequences(dir)?;
    let Some(sequence) = sequences.last().copied() else {
        let store = Store::new();
        let log = create(dir, 1, fresh, &store, lock)?;
        return Ok((log, fresh, store));
    };
    let path = log_path(dir, sequence);
    let content = fs::read(&path).map_err(io_error("read", &path))?;
    let loaded =
        record::load(&content, now).map_err(|source| LogError::Damaged { path: path.clone(), source })?;
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(io_error("open", &path))?;
    let length = loaded.length as u64;
    if loaded.length < content.len() {
        let torn = content.len() - loaded.length;
        tracing::warn!(
            ?path,
            torn,
            "dropping the torn end of the embedded etcd's log: it was never acknowledged"
        );
        file.set_len(length).map_err(io_error("cut the torn end off", &path))?;
        file.sync_all().map_err(io_error("sync", &path))?;
    }
    for old in sequences.iter().filter(|old| **old != sequence) {
        let old = log_path(dir, *old);
        fs::remove_file(&old).map_err(io_error("remove", &old))?;
    }
    let mut identity = loaded.identity;
    identity.raft_term = identity.raft_term.saturating_add(1);
    let mut log = Log {
        dir: dir.to_owned(),
        path,
        sequence,
        file,
        length,
        next_number: loaded.next_number,
        snapshot_bytes: loaded.snapshot_bytes,
        _lock: lock,
    };
    let frame = record::identity_frame(log.next_number, identity);
    log.append_frame(&frame).map_err(|e| match e {
        AppendError::Refused(e) | AppendError::Unknown(e) => e,
    })?;
    Ok((log, identity, loaded.store))
}

impl Log {
    /// Makes `effects` durable, as one frame.
    pub(crate) fn append(&mut self, effects: &[Effect]) -> Result<(), AppendError> {
        let frame = record::effects_frame(self.next_number, effects);
        self.append_frame(&frame)
    }

    fn append_frame(&mut self, frame: &[u8]) -> Result<(), AppendError> {
        if let Err(error) = self.file.write_all_at(frame, self.length) {
            let refused = io_error("append to", &self.path)(error);
            // Bytes past the end would be taken for a torn frame, but must not lie beyond the next one.
            return Err(match self.file.set_len(self.length) {
                Ok(()) => AppendError::Refused(refused),
                Err(error) => AppendError::Unknown(io_error("cut a failed write off", &self.path)(error)),
            });
        }
        // After a failed sync the page cache may claim what the disk does not have.
        self.file.sync_data().map_err(|e| AppendError::Unknown(io_error("sync", &self.path)(e)))?;
        self.length += frame.len() as u64;
        self.next_number += 1;
        Ok(())
    }

    /// Whether the log has grown enough to be replaced.
    pub(crate) fn is_surplus(&self) -> bool {
        let limit = ROTATE_BYTES_MIN.max(self.snapshot_bytes.saturating_mul(ROTATE_GROWTH));
        self.length > limit as u64
    }

    /// Replaces the log by one that begins with a snapshot of `store`. If that fails the old one stays in use.
    pub(crate) fn rotate(mut self, identity: Identity, store: &Store) -> (Log, Result<(), LogError>) {
        let lock = match self._lock.try_clone() {
            Ok(lock) => lock,
            Err(error) => {
                let failed = io_error("share the lock of", &self.dir)(error);
                return (self, Err(failed));
            }
        };
        match create(&self.dir, self.sequence + 1, identity, store, lock) {
            Ok(next) => {
                let removed = fs::remove_file(&self.path).map_err(io_error("remove", &self.path));
                (next, removed)
            }
            Err(error) => {
                // Not again before the log has doubled.
                let length = usize::try_from(self.length).unwrap_or(usize::MAX);
                self.snapshot_bytes = length / ROTATE_GROWTH * 2;
                (self, Err(error))
            }
        }
    }
}

fn create(dir: &Path, sequence: u64, identity: Identity, store: &Store, lock: File) -> Result<Log, LogError> {
    let (content, next_number) = record::snapshot(identity, store);
    let path = log_path(dir, sequence);
    let file = write_durably(dir, &path, &content).inspect_err(|_| {
        // A leftover is removed when the directory is opened, if not now.
        let _ = fs::remove_file(path.with_extension("tmp"));
    })?;
    Ok(Log {
        dir: dir.to_owned(),
        path,
        sequence,
        file,
        length: content.len() as u64,
        next_number,
        snapshot_bytes: content.len(),
        _lock: lock,
    })
}

/// Creates the file `path` with `content`: it has its name only once it is whole and durable.
fn write_durably(dir: &Path, path: &Path, content: &[u8]) -> Result<File, LogError> {
    let temporary = path.with_extension("tmp");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&temporary)
        .map_err(io_error("create", &temporary))?;
    file.write_all_at(content, 0).map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename", &temporary))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync directory", dir))?;
    Ok(file)
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn log_path(dir: &Path, sequence: u64) -> PathBuf {
    dir.join(format!("{sequence:016}.log"))
}

/// Numbers of the logs in `dir`, ascending. Files that were never finished are removed; others are left alone.
fn sequences(dir: &Path) -> Result<Vec<u64>, LogError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io_error("list", dir))? {
        let path = entry.map_err(io_error("list", dir))?.path();
        let number =
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
        match (number, path.extension().and_then(|e| e.to_str())) {
            (Some(number), Some("log")) => found.push(number),
            (Some(_), Some("tmp")) => fs::remove_file(&path).map_err(io_error("remove", &path))?,
            _ => {}
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests;
