//! A spool file as its readers have it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use fragment::spool::CONTENT_AT;

use super::dir::{SpoolError, io_error};
use super::disk::{DiskFile, SpoolDisk, read_full_at};

/// The open file of one local fragment. Clones share the descriptor, which is the reference count of the file's space:
/// once the fragment is stored the file loses its name, and its last reader frees it. Reads are positional and wait for
/// no writer.
#[derive(Clone)]
pub struct LocalFile {
    file: Arc<dyn DiskFile>,
    path: Arc<PathBuf>,
    begin: i64,
    /// A sync of the file failed. Held while there is one, so that none is mistaken for one which succeeds.
    sync_failed: Arc<Mutex<bool>>,
}

impl LocalFile {
    pub(crate) fn new(file: Arc<dyn DiskFile>, path: PathBuf, begin: i64) -> LocalFile {
        LocalFile { file, path: Arc::new(path), begin, sync_failed: Arc::default() }
    }

    /// The same file, of a fragment that begins elsewhere: the former one was empty.
    pub(crate) fn based_at(&self, begin: i64) -> LocalFile {
        LocalFile { begin, ..self.clone() }
    }

    /// Fills `buffer` with the content from journal offset `offset` on, and returns how many bytes there were. Blocks.
    /// The caller bounds `offset` and `buffer` by the span of a published fragment: beyond it is content that is not
    /// committed, or none.
    ///
    /// # Errors
    /// As the file system fails, and for an offset before the fragment.
    pub fn read_at(&self, offset: i64, buffer: &mut [u8]) -> io::Result<usize> {
        let within = u64::try_from(offset.saturating_sub(self.begin)).map_err(|_| {
            let text = format!(
                "offset {offset} is before the fragment of {} at {}",
                self.path.display(),
                self.begin
            );
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        read_full_at(&*self.file, buffer, CONTENT_AT + within)
    }

    /// Name of the file, which it may have lost.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn disk_file(&self) -> &Arc<dyn DiskFile> {
        &self.file
    }

    /// Returns once everything written survives a loss of power. Blocks. Once that has failed it fails for good: the kernel
    /// tells only once of pages that it could not write, and may have forgotten which they were.
    pub(crate) fn sync(&self) -> Result<(), SpoolError> {
        let mut has_failed = self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match *has_failed {
            true => Err(io::Error::other("an earlier sync of it failed")),
            false => self.file.sync_data(),
        };
        *has_failed = outcome.is_err();
        outcome.map_err(|err| io_error("syncing", &self.path, err))
    }

    /// Whether a sync of the file has failed.
    pub(crate) fn is_distrusted(&self) -> bool {
        *self.sync_failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the file's name away. Blocks.
    pub(crate) fn remove(&self, disk: &dyn SpoolDisk) -> io::Result<()> {
        match disk.remove(&self.path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.path.display(), self.begin)
    }
}
