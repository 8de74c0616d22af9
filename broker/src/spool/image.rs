//! A disk in memory for tests: it records every operation, can be full or failing, and gives the images that a crash at
//! any moment may leave.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

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

#[derive(Default)]
struct State {
    names: BTreeMap<PathBuf, usize>,
    files: Vec<Vec<u8>>,
    ops: Vec<Op>,
    /// Bytes that may still be written.
    space: Option<u64>,
    fail_syncs: bool,
}

/// A disk in memory.
#[derive(Clone, Default)]
pub(crate) struct ImageDisk {
    state: Arc<Mutex<State>>,
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

    /// Names of all files.
    pub(crate) fn names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        self.state().names.keys().map(name).collect()
    }

    /// Flips a bit of a file.
    pub(crate) fn corrupt(&self, name: &str, at: usize) {
        let mut state = self.state();
        let id = *state.names.iter().find(|(path, _)| path.ends_with(name)).unwrap().1;
        state.files[id][at] ^= 1;
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
        let last = |is: &dyn Fn(&Op) -> bool| ops.iter().rposition(is).map_or(0, |at| at + 1);
        let names_synced = last(&|op| matches!(op, Op::SyncDir)) as u64;
        let names_kept = names_synced + entropy.below(ops.len() as u64 - names_synced + 1);
        for (number, op) in ops.iter().enumerate() {
            match op {
                Op::Create(..) => image.replay(op),
                Op::Rename(..) | Op::Remove(..) if (number as u64) < names_kept => image.replay(op),
                Op::Write(id, at, bytes) => {
                    let is_synced = number < last(&|op| matches!(op, Op::SyncFile(synced) if synced == id));
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if is_synced || entropy.below(2) == 0 {
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
                state.files.push(Vec::new());
                state.names.insert(path.clone(), *id);
            }
            Op::Rename(from, to) => {
                let id = state.names.remove(from).unwrap();
                state.names.insert(to.clone(), id);
            }
            Op::Remove(path) => drop(state.names.remove(path).unwrap()),
            Op::Write(id, at, bytes) => {
                let (at, file) = (usize::try_from(*at).unwrap(), &mut state.files[*id]);
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Op::Truncate(id, length) => state.files[*id].truncate(usize::try_from(*length).unwrap()),
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
        let id = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
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
        self.replay(&Op::SyncDir);
        Ok(())
    }
}

impl DiskFile for ImageFile {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let rest = state.files[self.id].get(usize::try_from(at).unwrap()..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
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
        Ok(self.disk.state().files[self.id].len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.disk.state().fail_syncs {
            return Err(io::Error::other("injected sync failure"));
        }
        self.disk.replay(&Op::SyncFile(self.id));
        Ok(())
    }
}
