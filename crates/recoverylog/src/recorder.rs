//! The recorder: appends the operations of a directory to its recovery log, as they happen (consumer protocol §4.6).
//!
//! Its methods are synchronous and are called by the threads of a store, right after an operation succeeded locally. Each
//! takes a lock and the log's append slot, so that the order of the log is that of the state machine; the append itself
//! goes on in the background. Every append checks the fence: once another author took the log over, none is accepted.
//!
//! A recorder fails once and for good: when it is fenced, when an append fails, or when an operation contradicts what was
//! recorded. From then on each call is refused with that first error, without delay, since the log no longer holds what
//! the directory holds. A store must take any error as a failure of its disk; it may count an operation as durable only
//! after a barrier behind it succeeded.

mod state;

use crate::op::Fnode;
use crate::path;
use crate::record_error::RecordError;
use crate::recording::{Recording, RecordingError, complete_hints, is_property};
use crate::{Author, Fsm};
use client::{AppendFuture, AppendService, OpError, OpFuture};
use proto::JournalName;
use proto::protocol::AppendRequest;
use proto::recoverylog::FsmHints;
use state::State;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes which wait to be appended, over which writes are held back until older ones are done.
const BUFFERED_BYTES_MAX: u64 = 256 << 20;

/// Most bytes of a file which is kept as a property.
const PROPERTY_BYTES_MAX: u64 = 64 << 10;

struct Inner {
    dir: PathBuf,
    log: JournalName,
    author: Author,
    request: AppendRequest,
    appends: AppendService,
    state: Mutex<State>,
}

/// Records the operations of one directory. Clones are the same recorder.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

impl Recorder {
    /// Goes on recording what `fsm` holds of `dir` to `log`, as `author`, who holds the fence if the log is the one that
    /// was played. If it is another one, the author takes its fence.
    ///
    /// # Errors
    /// If `dir` is not absolute and clean, or the log cannot be appended to.
    pub async fn start(
        fsm: Fsm,
        author: Author,
        dir: PathBuf,
        log: JournalName,
        appends: AppendService,
    ) -> Result<Recorder, RecordError> {
        path::check_dir(&dir)?;
        let plain = AppendRequest { journal: String::from(&log), ..AppendRequest::default() };
        let failed = |cause| RecordError::Append { log: log.clone(), cause };
        let response = start_append(&appends, plain.clone(), &[])?.await.map_err(failed)?;
        let head = response.commit.as_ref().map_or(0, |commit| commit.end);

        let (mut recording, mut frames) = (Recording::new(fsm, author, log.clone(), head), Vec::new());
        recording.fork(&mut frames).map_err(|cause| RecordError::Operation { log: log.clone(), cause })?;
        if !frames.is_empty() {
            let request = AppendRequest { union_registers: Some(author.take_fence()), ..plain.clone() };
            let response = start_append(&appends, request, &frames)?.await.map_err(failed)?;
            let end = response.commit.as_ref().map_or(head, |commit| commit.end);
            recording.on_committed(recording.last_seq_no(), end);
        }
        let request = AppendRequest { check_registers: Some(author.check_fence()), ..plain };
        let state = Mutex::new(State::new(recording));
        let inner = Inner { dir, log, author, request, appends, state };
        Ok(Recorder { inner: Arc::new(inner) })
    }

    /// The directory of which operations are recorded.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The log which is recorded to.
    pub fn log(&self) -> &JournalName {
        &self.inner.log
    }

    /// Who records.
    pub fn author(&self) -> Author {
        self.inner.author
    }

    /// Largest known write head of the log, in bytes. The more it grew since the last hints, the more useful new ones are.
    pub fn write_head(&self) -> i64 {
        let mut state = self.lock();
        state.observe();
        state.recording.write_head()
    }

    /// Why this recorder cannot go on, if it cannot.
    pub fn failure(&self) -> Option<RecordError> {
        let mut state = self.lock();
        state.observe();
        state.failure.clone()
    }

    /// The file at a local path; none if nothing was recorded of that path.
    pub fn fnode(&self, path: &Path) -> Result<Option<Fnode>, RecordError> {
        let path = self.recorded(path)?;
        let mut state = self.lock();
        state.check()?;
        Ok(state.recording.fsm().links().get(&path).copied())
    }

    /// Records a new, empty file at a local path, in place of one which is there.
    pub fn create(&self, path: &Path) -> Result<Fnode, RecordError> {
        let path = self.recorded(path)?;
        self.record(&[], |recording, frames| recording.create(path, frames))
    }

    /// Records a write to a file. Blocks while too many bytes wait to be appended, so never call it from async code.
    pub fn write_at(&self, fnode: Fnode, offset: u64, data: &[u8]) -> Result<(), RecordError> {
        self.wait_for_room();
        self.record(data, |recording, frames| recording.write_at(fnode, offset, data.len(), frames))
    }

    /// Records the removal of a local path.
    pub fn remove(&self, path: &Path) -> Result<(), RecordError> {
        let path = self.recorded(path)?;
        self.record(&[], |recording, frames| recording.remove(path, frames))
    }

    /// Records a rename, which has already happened.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<(), RecordError> {
        let (local, from, to) = (to, self.recorded(from)?, self.recorded(to)?);
        let content = is_property(&to).then(|| read_property(local)).transpose();
        let content = content.map_err(|cause| {
            self.fail(RecordError::Property { path: local.to_owned(), cause: Arc::new(cause) })
        })?;
        self.record(&[], |recording, frames| recording.rename(from, to, content, frames))
    }

    /// Records another path of a file.
    pub fn link(&self, from: &Path, to: &Path) -> Result<(), RecordError> {
        let (from, to) = (self.recorded(from)?, self.recorded(to)?);
        self.record(&[], |recording, frames| recording.link(&from, to, frames))
    }

    /// An append which is committed after all operations so far, and not before all of `deps` succeeded. Nor are later
    /// operations: if one of `deps` fails, so does this recorder.
    pub fn barrier(&self, deps: Vec<OpFuture>) -> AppendFuture {
        let mut state = self.lock();
        state.observe();
        match &state.failure {
            None => self.append_barrier(&mut state, deps),
            Some(error) => AppendFuture::resolved(Err(error.clone().into())),
        }
    }

    /// Says in the log that nothing which matters follows: whoever is to take over need not wait any longer for the end
    /// of what goes on here. Resolves when that is committed.
    pub fn conclude(&self) -> AppendFuture {
        match self.record(&[], Recording::conclude) {
            Ok(()) => self.barrier(Vec::new()),
            Err(error) => AppendFuture::resolved(Err(error.into())),
        }
    }

    /// Blocks this thread until all operations so far are committed. Never called from async code.
    pub fn sync_blocking(&self) -> Result<(), RecordError> {
        match self.barrier(Vec::new()).wait_blocking() {
            Ok(_) => Ok(()),
            Err(cause) => Err(self.lock().fail_append(cause)),
        }
    }

    /// Hints of the files as they are, once all operations so far are committed.
    ///
    /// # Errors
    /// The recorder's failure; or [`RecordError::NoHintsYet`] right after the log was changed.
    pub async fn build_hints(&self) -> Result<FsmHints, RecordError> {
        let (mut hints, barrier) = {
            let mut state = self.lock();
            state.check()?;
            let hints = state.recording.build_hints();
            let hints = hints.map_err(|_| RecordError::NoHintsYet { log: self.inner.log.clone() })?;
            (hints, self.append_barrier(&mut state, Vec::new()))
        };
        let response = barrier.await.map_err(|cause| self.lock().fail_append(cause))?;
        complete_hints(&mut hints, response.commit.as_ref().map_or(0, |commit| commit.end));
        Ok(hints)
    }

    /// Sequences operations, and appends their frames and the written bytes.
    fn record<T>(
        &self,
        written: &[u8],
        operations: impl FnOnce(&mut Recording, &mut Vec<u8>) -> Result<T, RecordingError>,
    ) -> Result<T, RecordError> {
        let mut state = self.lock();
        state.check()?;
        let State { recording, frames, .. } = &mut *state;
        frames.clear();
        let outcome = operations(recording, frames).map_err(|cause| {
            let log = self.inner.log.clone();
            state.fail(RecordError::Operation { log, cause })
        })?;
        let mut slot = self.inner.appends.start_append(self.inner.request.clone(), Vec::new());
        let bytes = slot.write_all(&state.frames).and_then(|()| slot.write_all(written));
        bytes.map_err(|error| state.fail_append(OpError::failed(error)))?;
        state.watch(slot);
        Ok(outcome)
    }

    fn append_barrier(&self, state: &mut State, deps: Vec<OpFuture>) -> AppendFuture {
        state.watch(self.inner.appends.start_append(self.inner.request.clone(), deps))
    }

    fn wait_for_room(&self) {
        while self.inner.appends.buffered_bytes() > BUFFERED_BYTES_MAX {
            let oldest = {
                let mut state = self.lock();
                state.observe();
                state.oldest.clone()
            };
            match oldest {
                Some(watched) => drop(watched.append.wait_blocking()),
                None => return, // What waits is not of this recorder.
            }
        }
    }

    fn recorded(&self, path: &Path) -> Result<String, RecordError> {
        path::recorded(&self.inner.dir, path).map_err(|error| self.fail(error.into()))
    }

    fn fail(&self, error: RecordError) -> RecordError {
        self.lock().fail(error)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { dir, log, author, .. } = &*self.inner;
        f.debug_struct("Recorder").field("log", log).field("dir", dir).field("author", author).finish()
    }
}

fn start_append(
    appends: &AppendService,
    request: AppendRequest,
    content: &[u8],
) -> Result<AppendFuture, RecordError> {
    let log = JournalName::parse(&request.journal)?;
    let mut slot = appends.start_append(request, Vec::new());
    slot.write_all(content).map_err(|error| RecordError::Append { log, cause: OpError::failed(error) })?;
    Ok(slot.release())
}

fn read_property(path: &Path) -> io::Result<String> {
    let mut content = String::new();
    let length = std::fs::File::open(path)?.take(PROPERTY_BYTES_MAX + 1).read_to_string(&mut content)? as u64;
    if length > PROPERTY_BYTES_MAX {
        return Err(io::Error::other(format!("larger than {PROPERTY_BYTES_MAX} bytes")));
    }
    Ok(content)
}
