//! The files of a SQLite connection, which are recorded.
//!
//! Pages of databases go into a RocksDB whose own files are recorded, one map for each database. Journals and
//! write-ahead logs are real files, each mirrored as a file of the recovery log. Both end up in one log, so whatever
//! prefix of it is recovered is a moment of the past, if operations are recorded in an order which SQLite relies on. That
//! order is kept here, whatever SQLite is told about syncing:
//!
//! * a page is recorded after everything that was written to journals before it;
//! * a journal is emptied, begun anew or removed after all pages which were written before that.
//!
//! Nothing here waits for the log, nor for the disk: what is durable is for the barrier behind a commit to tell. What
//! may wait is RocksDB, for one of its flushes, and the recorder, for room. So none of this runs on a thread of the
//! asynchronous runtime, except what fits into SQLite's cache (see [`SqliteStore::connection`]).
//!
//! [`SqliteStore::connection`]: crate::SqliteStore::connection

use crate::ffi::{Batch, File, FileSystem, Kind, Open};
use crate::log_buffer::{LogBuffer, Write, restarts};
use crate::names;
use crate::pages::Pages;
use recoverylog::{Fnode, Recorder};
use runtime::BoxError;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store_rocksdb::RecordedMaps;

/// See the module.
#[derive(Debug)]
pub(crate) struct RecordedFiles {
    // Before the recorder, so that it is closed first: closing records, too.
    maps: RecordedMaps,
    recorder: Recorder,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Open databases, by the names of their maps.
    databases: BTreeMap<String, Pages>,
    logs: LogBuffer,
    /// Whether pages were lost which SQLite was told are written: nothing is written any more.
    failed: bool,
}

/// A file which SQLite opened.
pub(crate) enum RecordedFile {
    /// Pages of a database.
    Database { files: Arc<RecordedFiles>, map: String },
    /// A journal, or a write-ahead log.
    Log { files: Arc<RecordedFiles>, path: PathBuf, file: std::fs::File, fnode: Fnode },
    /// A file which is not recorded: it is only read, or of no use to anyone else.
    Plain { path: PathBuf, file: std::fs::File, delete_on_close: bool },
}

impl RecordedFiles {
    pub(crate) fn new(maps: RecordedMaps, recorder: Recorder) -> RecordedFiles {
        RecordedFiles { maps, recorder, state: Mutex::default() }
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Records everything that was written.
    pub(crate) fn flush(&self) -> Result<(), BoxError> {
        let mut state = self.lock();
        self.flush_pages(&mut state)?;
        self.flush_logs(&mut state)
    }

    /// Makes closing quick.
    pub(crate) fn cancel_background_work(&self) {
        self.maps.cancel_background_work();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn local(&self, name: &str) -> Result<PathBuf, BoxError> {
        Ok(self.recorder.dir().join(names::clean(name)?))
    }

    fn record(&self, write: Option<Write>) -> Result<(), BoxError> {
        match write {
            Some(Write { fnode, offset, bytes }) => Ok(self.recorder.write_at(fnode, offset, &bytes)?),
            None => Ok(()),
        }
    }

    fn flush_logs(&self, state: &mut State) -> Result<(), BoxError> {
        self.record(state.logs.take())
    }

    /// Stores what is staged for all databases.
    fn flush_pages(&self, state: &mut State) -> Result<(), BoxError> {
        let maps: Vec<String> = state.databases.keys().cloned().collect();
        maps.iter().try_for_each(|map| self.flush_database(state, map))
    }

    fn flush_database(&self, state: &mut State, map: &str) -> Result<(), BoxError> {
        let State { databases, logs, failed } = state;
        let pages = databases.get_mut(map).ok_or_else(|| format!("database {map} is not open"))?;
        if pages.in_batch() {
            return Ok(()); // It is stored as one, or not at all.
        }
        let staged = pages.take();
        if staged.is_empty() {
            return Ok(());
        }
        if *failed {
            return Err(format!("database {map} lost pages which it could not store").into());
        }
        let changes = staged.into_iter().map(|(offset, page)| (offset.to_be_bytes(), page));
        let stored = self.record(logs.take()).and_then(|()| Ok(self.maps.write(map, changes)?));
        *failed = stored.is_err();
        stored
    }

    fn open_database(this: &Arc<Self>, name: &str, open: Open) -> Result<RecordedFile, BoxError> {
        let map = names::map(name)?;
        let mut state = this.lock();
        if state.databases.contains_key(&map) {
            return Err(format!("database {map} is open already, and can be only once").into());
        }
        if !open.create && !this.maps.contains(&map) {
            return Err(format!("there is no database {map}").into());
        }
        this.maps.create(&map)?;
        let first = this.maps.get(&map, &0u64.to_be_bytes())?;
        let last = this.maps.last(&map)?.map(|(key, page)| Ok::<_, BoxError>((offset_of(&key)?, page.len())));
        let pages = Pages::stored(first.as_deref(), last.transpose()?)?;
        state.databases.insert(map.clone(), pages);
        Ok(RecordedFile::Database { files: Arc::clone(this), map })
    }

    fn open_log(this: &Arc<Self>, name: &str, open: Open) -> Result<RecordedFile, BoxError> {
        let path = this.local(name)?;
        let (exists, recorded) = (path.exists(), this.recorder.fnode(&path)?);
        if exists != recorded.is_some() {
            return Err(format!("{path:?} exists: {exists}, and is recorded: {}", !exists).into());
        }
        let file = open_local(&path, open)?;
        let fnode = match recorded {
            Some(fnode) => fnode,
            None => this.recorder.create(&path)?,
        };
        Ok(RecordedFile::Log { files: Arc::clone(this), path, file, fnode })
    }
}

impl FileSystem for RecordedFiles {
    type File = RecordedFile;

    fn full_path(&self, name: &str) -> Result<String, BoxError> {
        Ok(names::clean(name)?)
    }

    fn open(this: &Arc<Self>, name: &str, open: Open) -> Result<RecordedFile, BoxError> {
        match open.kind {
            Kind::Database => RecordedFiles::open_database(this, name, open),
            Kind::Log if !open.read_only => RecordedFiles::open_log(this, name, open),
            Kind::Log | Kind::Temporary => {
                let path = this.local(name)?;
                let file = open_local(&path, open)?;
                Ok(RecordedFile::Plain { path, file, delete_on_close: open.delete_on_close })
            }
        }
    }

    fn delete(&self, name: &str) -> Result<bool, BoxError> {
        let path = self.local(name)?;
        let mut state = self.lock();
        let fnode = self.recorder.fnode(&path)?;
        if let Some(fnode) = fnode {
            self.flush_pages(&mut state)?;
            state.logs.forget(fnode);
        }
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(format!("cannot remove {path:?}: {error}").into()),
        }
        if fnode.is_some() {
            self.recorder.remove(&path)?;
        }
        Ok(true)
    }

    fn exists(&self, name: &str) -> Result<bool, BoxError> {
        if self.maps.contains(&names::map(name)?) {
            return Ok(true);
        }
        let metadata = std::fs::metadata(self.local(name)?);
        Ok(metadata.is_ok_and(|metadata| !metadata.is_file() || metadata.len() > 0))
    }
}

impl File for RecordedFile {
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, BoxError> {
        match self {
            RecordedFile::Database { files, map } => files.read_pages(map, offset, buffer),
            RecordedFile::Log { file, .. } | RecordedFile::Plain { file, .. } => {
                read_at(file, offset, buffer)
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), BoxError> {
        match self {
            RecordedFile::Database { files, map } => files.write_page(map, offset, data),
            RecordedFile::Log { files, path, file, fnode } => {
                file.write_all_at(data, offset)?;
                if restarts(offset, data) {
                    *fnode = files.restart(path, *fnode)?;
                }
                files.write_log(*fnode, offset, data)
            }
            RecordedFile::Plain { file, .. } => Ok(file.write_all_at(data, offset)?),
        }
    }

    fn truncate(&mut self, size: u64) -> Result<(), BoxError> {
        match self {
            RecordedFile::Database { files, map } => files.truncate_pages(map, size),
            RecordedFile::Log { files, path, file, fnode } => {
                file.set_len(size)?;
                if size == 0 {
                    *fnode = files.restart(path, *fnode)?;
                } else {
                    // Not recorded: what follows the new end counts for nothing to SQLite, and is overwritten.
                    files.lock().logs.truncate(*fnode, size);
                }
                Ok(())
            }
            RecordedFile::Plain { file, .. } => Ok(file.set_len(size)?),
        }
    }

    fn sync(&mut self) -> Result<(), BoxError> {
        match self {
            RecordedFile::Database { files, map } => files.flush_database(&mut files.lock(), map),
            RecordedFile::Log { files, .. } => files.flush_logs(&mut files.lock()),
            RecordedFile::Plain { .. } => Ok(()),
        }
    }

    fn size(&mut self) -> Result<u64, BoxError> {
        match self {
            RecordedFile::Database { files, map } => Ok(files.lock().pages(map)?.size()),
            RecordedFile::Log { file, .. } | RecordedFile::Plain { file, .. } => Ok(file.metadata()?.len()),
        }
    }

    fn batch(&mut self, step: Batch) -> Result<bool, BoxError> {
        let RecordedFile::Database { files, map } = self else { return Ok(false) };
        let mut state = files.lock();
        match step {
            Batch::Begin => {
                files.flush_database(&mut state, map)?;
                state.pages(map)?.begin_batch()?;
            }
            Batch::Commit => {
                state.pages(map)?.commit_batch()?;
                files.flush_database(&mut state, map)?;
            }
            Batch::RollBack => state.pages(map)?.roll_back_batch(),
        }
        Ok(true)
    }

    fn close(self) -> Result<(), BoxError> {
        match self {
            RecordedFile::Database { files, map } => {
                let mut state = files.lock();
                state.pages(&map)?.roll_back_batch();
                let flushed = files.flush_database(&mut state, &map);
                state.databases.remove(&map);
                flushed
            }
            RecordedFile::Log { files, .. } => files.flush_logs(&mut files.lock()),
            RecordedFile::Plain { path, delete_on_close: true, .. } => Ok(std::fs::remove_file(path)?),
            RecordedFile::Plain { .. } => Ok(()),
        }
    }
}

impl RecordedFiles {
    fn read_pages(&self, map: &str, offset: u64, buffer: &mut [u8]) -> Result<usize, BoxError> {
        let mut state = self.lock();
        let pages = state.pages(map)?;
        let Some(page_bytes) = pages.page_bytes() else { return Ok(0) };
        let available = pages.size().saturating_sub(offset).min(buffer.len() as u64);
        let available = usize::try_from(available)?;
        let mut done = 0;
        while done < available {
            let at = offset + done as u64;
            let within = usize::try_from(at % u64::from(page_bytes))?;
            let page = at - within as u64;
            let stored = match pages.staged(page) {
                Some(staged) => staged.map(<[u8]>::to_vec),
                None => self.maps.get(map, &page.to_be_bytes())?,
            };
            let length = (page_bytes as usize - within).min(available - done);
            // A page which was never written is one of zeros, as the buffer is.
            if let Some(stored) = stored {
                let bytes = stored.get(within..within + length);
                let bytes =
                    bytes.ok_or_else(|| format!("page {page} of {map} has {} bytes", stored.len()))?;
                buffer[done..done + length].copy_from_slice(bytes);
            }
            done += length;
        }
        Ok(available)
    }

    fn write_page(&self, map: &str, offset: u64, page: &[u8]) -> Result<(), BoxError> {
        let mut state = self.lock();
        if state.pages(map)?.is_full(page.len()) {
            self.flush_database(&mut state, map)?;
        }
        Ok(state.pages(map)?.write(offset, page)?)
    }

    fn truncate_pages(&self, map: &str, size: u64) -> Result<(), BoxError> {
        let mut state = self.lock();
        let stored = self.maps.keys(map, &size.to_be_bytes())?;
        let stored = stored.iter().map(|key| offset_of(key)).collect::<Result<Vec<_>, _>>()?;
        state.pages(map)?.truncate(size, stored);
        Ok(())
    }

    /// Begins a log anew, as another file of the same name.
    fn restart(&self, path: &Path, fnode: Fnode) -> Result<Fnode, BoxError> {
        let mut state = self.lock();
        self.flush_pages(&mut state)?;
        state.logs.forget(fnode);
        Ok(self.recorder.create(path)?)
    }

    fn write_log(&self, fnode: Fnode, offset: u64, data: &[u8]) -> Result<(), BoxError> {
        let mut state = self.lock();
        let ready = state.logs.write(fnode, offset, data);
        self.record(ready)
    }
}

impl State {
    fn pages(&mut self, map: &str) -> Result<&mut Pages, BoxError> {
        self.databases.get_mut(map).ok_or_else(|| format!("database {map} is not open").into())
    }
}

fn offset_of(key: &[u8]) -> Result<u64, BoxError> {
    let bytes =
        key.try_into().map_err(|_| format!("key {key:?} is no offset of a page; expected 8 bytes"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn open_local(path: &Path, open: Open) -> Result<std::fs::File, BoxError> {
    let mut options = OpenOptions::new();
    options.read(true).write(!open.read_only);
    options.create(open.create && !open.read_only).create_new(open.create && open.exclusive);
    if open.create
        && let Some(dir) = path.parent()
    {
        std::fs::create_dir_all(dir)?;
    }
    options.open(path).map_err(|error| format!("cannot open {path:?}: {error}").into())
}

fn read_at(file: &std::fs::File, offset: u64, buffer: &mut [u8]) -> Result<usize, BoxError> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}
