//! A disk in memory for tests: it records every operation, can be full or failing, and gives the images that a crash at
//! any moment may leave.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;

use runtime::Entropy;

use super::disk::{DiskFile, SpoolDisk};

/// Blocks of a file that reach the disk independently.
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Op {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    Write(usize, u64, Vec<u8>),
    Truncate(usize, u64),
    SyncFile(usize),
    SyncDir,
}

/// Content of a file, without its holes.
#[derive(Default)]
struct Sectors {
    written: BTreeMap<u64, [u8; SECTOR]>,
    length: u64,
}

impl Sectors {
    fn write(&mut self, mut at: u64, mut bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        let is_blank = at >= self.length && bytes.iter().all(|byte| *byte == 0);
        self.length = self.length.max(end);
        while !bytes.is_empty() && !is_blank {
            let within = usize::try_from(at).unwrap() % SECTOR;
            let (now, later) = bytes.split_at(bytes.len().min(SECTOR - within));
            let sector = self.written.entry(at / SECTOR as u64).or_insert([0; SECTOR]);
            sector[within..within + now.len()].copy_from_slice(now);
            (at, bytes) = (at + now.len() as u64, later);
        }
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> usize {
        let read = buffer.len().min(usize::try_from(self.length.saturating_sub(at)).unwrap());
        let (mut at, mut rest) = (at, &mut buffer[..read]);
        while !rest.is_empty() {
            let within = usize::try_from(at).unwrap() % SECTOR;
            let length = rest.len().min(SECTOR - within);
            let (now, later) = rest.split_at_mut(length);
            match self.written.get(&(at / SECTOR as u64)) {
                Some(sector) => now.copy_from_slice(&sector[within..within + length]),
                None => now.fill(0),
            }
            (at, rest) = (at + length as u64, later);
        }
        read
    }

    fn truncate(&mut self, length: u64) {
        let mut rest = self.written.split_off(&(length / SECTOR as u64));
        if let Some(mut sector) = rest.remove(&(length / SECTOR as u64)) {
            sector[usize::try_from(length).unwrap() % SECTOR..].fill(0);
            self.written.insert(length / SECTOR as u64, sector);
        }
        self.length = length;
    }
}

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    files: Vec<Sectors>,
    ops: Vec<Op>,
    /// Bytes that may still be written.
    space: Option<u64>,
    /// Threads which waited for a sync.
    synced_on: Vec<ThreadId>,
    fail_syncs: bool,
    fail_dir_syncs: bool,
    hold_syncs: bool,
    fail_opens: bool,
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(crate) struct ImageDisk {
    state: Arc<Mutex<State>>,
    released: Arc<Condvar>,
}

impl std::fmt::Debug for ImageDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ImageDisk")
    }
}

struct ImageFile {
    disk: ImageDisk,
    id: usize,
}

impl ImageDisk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Operations so far.
    pub(crate) fn ops(&self) -> usize {
        self.state().ops.len()
    }

    /// Leaves room for this many more bytes, or for any number.
    pub(crate) fn set_space(&self, space: Option<u64>) {
        self.state().space = space;
    }

    /// Lets syncs fail.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.state().fail_syncs = fail;
    }

    /// Whether a thread waited for the sync of a file.
    pub(crate) fn has_synced_on(&self, thread: ThreadId) -> bool {
        self.state().synced_on.contains(&thread)
    }

    /// Lets syncs of directories fail.
    pub(crate) fn fail_dir_syncs(&self, fail: bool) {
        self.state().fail_dir_syncs = fail;
    }

    /// Lets files that exist fail to open.
    pub(crate) fn fail_opens(&self, fail: bool) {
        self.state().fail_opens = fail;
    }

    /// Lets syncs wait, until they are let go again.
    pub(crate) fn hold_syncs(&self, hold: bool) {
        self.state().hold_syncs = hold;
        self.released.notify_all();
    }

    /// Names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.state().names.keys().map(name).collect()
    }

    /// Flips a bit of a file.
    pub(crate) fn corrupt(&self, name: &str, at: usize) {
        let mut state = self.state();
        let id = *state.names.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
        let (at, mut byte) = (at as u64, [0]);
        assert_eq!(state.files[id].read(at, &mut byte), 1);
        state.files[id].write(at, &[byte[0] ^ 1]);
    }

    /// The disk after the death of its process: the first `ops` operations, and a part of the next one.
    pub(crate) fn after_kill(&self, ops: usize, entropy: &Entropy) -> ImageDisk {
        let image = ImageDisk::default();
        let state = self.state();
        state.ops[..ops].iter().for_each(|op| image.replay(op));
        if let Some(Op::Write(id, at, bytes)) = state.ops.get(ops) {
            let part = usize::try_from(entropy.below(bytes.len() as u64 + 1)).unwrap();
            image.replay(&Op::Write(*id, *at, bytes[..part].to_vec()));
        }
        image
    }

    /// The disk after a loss of power: of the first `ops` operations, those that were synced, and any part of the
    /// others. Names reach the disk in order.
    pub(crate) fn after_power_loss(&self, ops: usize, entropy: &Entropy) -> ImageDisk {
        let image = ImageDisk::default();
        let state = self.state();
        let ops = &state.ops[..ops];
        let names_synced = ops.iter().rposition(|op| matches!(op, Op::SyncDir)).map_or(0, |at| at + 1) as u64;
        let names_kept = names_synced + entropy.below(ops.len() as u64 - names_synced + 1);
        let mut synced = BTreeMap::new();
        for (number, op) in ops.iter().enumerate() {
            if let Op::SyncFile(id) = op {
                synced.insert(*id, number);
            }
        }
        for (number, op) in ops.iter().enumerate() {
            match op {
                Op::Create(..) => image.replay(op),
                Op::Rename(..) | Op::Remove(..) if (number as u64) < names_kept => image.replay(op),
                Op::Write(id, ..) if synced.get(id).is_some_and(|synced| number < *synced) => {
                    image.replay(op)
                }
                Op::Write(_, _, bytes) if bytes.iter().all(|byte| *byte == 0) => {}
                Op::Write(id, at, bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if entropy.below(2) == 0 {
                            let at = at + (n * SECTOR) as u64;
                            image.replay(&Op::Write(*id, at, sector.to_vec()));
                        }
                    }
                }
                Op::Truncate(..) => image.replay(op),
                Op::Rename(..) | Op::Remove(..) | Op::SyncFile(..) | Op::SyncDir => {}
            }
        }
        image
    }

    fn replay(&self, op: &Op) {
        let state = &mut *self.state();
        match op {
            Op::Create(path, id) => {
                assert_eq!(*id, state.files.len());
                state.files.push(Sectors::default());
                state.names.insert(path.clone(), *id);
            }
            Op::Rename(from, to) => {
                let id = state.names.remove(from).unwrap();
                state.names.insert(to.clone(), id);
            }
            Op::Remove(path) => drop(state.names.remove(path).unwrap()),
            Op::Write(id, at, bytes) => state.files[*id].write(*at, bytes),
            Op::Truncate(id, length) => state.files[*id].truncate(*length),
            Op::SyncFile(_) | Op::SyncDir => {}
        }
        state.ops.push(op.clone());
    }
}

impl SpoolDisk for ImageDisk {
    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let names = self.state().names.keys().cloned().collect::<Vec<_>>();
        Ok(names
            .iter()
            .filter(|path| path.parent() == Some(dir))
            .map(|path| path.file_name().unwrap().into())
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let id = {
            let state = self.state();
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if state.space == Some(0) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.files.len()
        };
        self.replay(&Op::Create(path.to_owned(), id));
        Ok(Arc::new(ImageFile { disk: self.clone(), id }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        if state.fail_opens {
            return Err(io::Error::other("injected open failure"));
        }
        Ok(Arc::new(ImageFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.replay(&Op::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.state().names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.replay(&Op::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        if self.state().fail_dir_syncs {
            return Err(io::Error::other("injected sync failure"));
        }
        self.replay(&Op::SyncDir);
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(self.state().space.unwrap_or(u64::MAX))
    }
}

impl DiskFile for ImageFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.state();
        Ok(state.files[self.id].read(at, buffer))
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.to_vec()).collect();
        if let Some(space) = &mut self.disk.state().space {
            if *space == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.truncate(usize::try_from(*space).unwrap());
            *space -= bytes.len() as u64;
        }
        let written = bytes.len();
        self.disk.replay(&Op::Write(self.id, at, bytes));
        Ok(written)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.disk.replay(&Op::Truncate(self.id, length));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.id].length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.state().synced_on.push(std::thread::current().id());
        let state = self.disk.released.wait_while(self.disk.state(), |state| state.hold_syncs).unwrap();
        let fails = state.fail_syncs;
        drop(state);
        if fails {
            return Err(io::Error::other("injected sync failure"));
        }
        self.disk.replay(&Op::SyncFile(self.id));
        Ok(())
    }
}
