//! The content of one append, gathered whole before the append enters its journal's queue.
//!
//! Small content is kept in memory, as the very buffers that came off the wire. Content beyond [`APPEND_MEMORY_MAX`], or
//! beyond what the broker has left of [`APPENDS_IN_FLIGHT_BYTES_MAX`], goes to a nameless file, which costs a slow or
//! large append time but never the journal. Spilling instead of waiting for memory means that streams cannot deadlock
//! over it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fragment::Sum;
use sha1::{Digest, Sha1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::spool::{DiskFile, SpoolDisk};

/// Bytes of one append that are kept in memory; what is larger spills into a file.
pub const APPEND_MEMORY_MAX: usize = 4 << 20;
/// Bytes of all appends of a broker that are kept in memory at a time. A stream which is about to spill holds one message
/// more.
pub const APPENDS_IN_FLIGHT_BYTES_MAX: usize = 256 << 20;
/// Bytes read back from a spilled append at a time.
const SPILL_READ_BYTES: usize = 1 << 20;
/// Directory of spilled appends, below the data directory. Its files have no name for longer than it takes to open them.
const SPILL_DIR: &str = "spill";

/// Where the content of a broker's appends is gathered. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ContentSpace {
    memory: Arc<Semaphore>,
    disk: Arc<dyn SpoolDisk>,
    dir: Arc<PathBuf>,
    next_spill: Arc<AtomicU64>,
}

/// Spilling an append failed.
#[derive(Debug, thiserror::Error)]
#[error("spilling append content into {dir}: {source}")]
pub(crate) struct SpillError {
    dir: String,
    source: io::Error,
}

impl ContentSpace {
    /// A space of `memory_max` bytes, and of a directory below `data_dir`.
    pub(crate) fn new(disk: Arc<dyn SpoolDisk>, data_dir: &Path, memory_max: usize) -> ContentSpace {
        ContentSpace {
            memory: Arc::new(Semaphore::new(memory_max)),
            disk,
            dir: Arc::new(data_dir.join(SPILL_DIR)),
            next_spill: Arc::default(),
        }
    }

    /// Content of an append that is about to be received.
    pub(crate) fn gather(&self) -> ContentBuffer {
        ContentBuffer {
            space: self.clone(),
            length: 0,
            held: Held::Memory { chunks: Vec::new(), permit: None },
        }
    }

    fn spill_error(&self, source: io::Error) -> SpillError {
        SpillError { dir: self.dir.display().to_string(), source }
    }

    /// A file that is gone once it is closed. Blocks.
    fn nameless_file(&self) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(self.next_spill.fetch_add(1, Ordering::Relaxed).to_string());
        self.disk.create_dir_all(&self.dir)?;
        let file = match self.disk.create(&path) {
            // Left by a broker that died between creating and removing it.
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&path)?;
                self.disk.create(&path)?
            }
            created => created?,
        };
        self.disk.remove(&path)?;
        Ok(file)
    }
}

/// Content as it comes.
pub(crate) struct ContentBuffer {
    space: ContentSpace,
    length: usize,
    held: Held,
}

enum Held {
    Memory { chunks: Vec<Bytes>, permit: Option<OwnedSemaphorePermit> },
    Spilled { file: Arc<dyn DiskFile>, hash: Sha1 },
}

impl ContentBuffer {
    /// Takes a chunk if there is memory for it; otherwise gives it back, to be spilled.
    pub(crate) fn push(&mut self, chunk: Bytes) -> Result<(), Bytes> {
        let Held::Memory { chunks, permit } = &mut self.held else { return Err(chunk) };
        if self.length + chunk.len() > APPEND_MEMORY_MAX {
            return Err(chunk);
        }
        let bytes = u32::try_from(chunk.len()).expect("within APPEND_MEMORY_MAX");
        let Ok(more) = Arc::clone(&self.space.memory).try_acquire_many_owned(bytes) else {
            return Err(chunk);
        };
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        self.length += chunk.len();
        chunks.push(chunk);
        Ok(())
    }

    /// Writes a chunk, and what memory holds before it, into the append's file. Blocks.
    ///
    /// # Errors
    /// As the disk fails. The append cannot go on then.
    pub(crate) fn spill(&mut self, chunk: &Bytes) -> Result<(), SpillError> {
        let spill = |buffer: &mut ContentBuffer| {
            if let Held::Memory { chunks, .. } = &buffer.held {
                let file = buffer.space.nameless_file()?;
                let (mut hash, mut at) = (Sha1::new(), 0);
                for chunk in chunks {
                    append_to(&*file, &mut hash, &mut at, chunk)?;
                }
                buffer.held = Held::Spilled { file, hash };
            }
            let Held::Spilled { file, hash } = &mut buffer.held else {
                unreachable!("memory was just spilled")
            };
            append_to(&**file, hash, &mut buffer.length, chunk)
        };
        spill(self).map_err(|source| self.space.spill_error(source))
    }

    /// The content, whole.
    pub(crate) fn finish(self) -> Content {
        let length = i64::try_from(self.length).expect("content is shorter than i64::MAX");
        match self.held {
            Held::Memory { chunks, permit } => {
                Content { length, stored: Stored::Memory { chunks, _permit: permit } }
            }
            Held::Spilled { file, hash } => {
                Content { length, stored: Stored::Spilled { file, sum: Sum::finish(hash) } }
            }
        }
    }
}

fn append_to(file: &dyn DiskFile, hash: &mut Sha1, at: &mut usize, chunk: &Bytes) -> io::Result<()> {
    crate::spool::write_all_at(file, &[chunk], *at as u64)?;
    hash.update(chunk);
    *at += chunk.len();
    Ok(())
}

/// The whole content of an append.
pub(crate) struct Content {
    length: i64,
    stored: Stored,
}

enum Stored {
    Memory { chunks: Vec<Bytes>, _permit: Option<OwnedSemaphorePermit> },
    Spilled { file: Arc<dyn DiskFile>, sum: Sum },
}

impl Content {
    /// Bytes.
    pub(crate) fn length(&self) -> i64 {
        self.length
    }

    /// The buffers of content which is in memory.
    pub(crate) fn in_memory(&self) -> Option<&[Bytes]> {
        match &self.stored {
            Stored::Memory { chunks, .. } => Some(chunks),
            Stored::Spilled { .. } => None,
        }
    }

    /// SHA-1 of the content; that of zero bytes if it is empty. Takes half a millisecond a megabyte of memory.
    pub(crate) fn sum(&self) -> Sum {
        match &self.stored {
            Stored::Memory { chunks, .. } => {
                let mut hash = Sha1::new();
                chunks.iter().for_each(|chunk| hash.update(chunk));
                Sum::finish(hash)
            }
            Stored::Spilled { sum, .. } => *sum,
        }
    }

    /// Gives the bytes to `visit` in pieces, in order. Blocks if the content was spilled.
    ///
    /// # Errors
    /// As the disk or `visit` fails.
    pub(crate) fn for_each<E: From<io::Error>>(
        &self,
        mut visit: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.stored {
            Stored::Memory { chunks, .. } => chunks.iter().try_for_each(|chunk| visit(chunk.clone())),
            Stored::Spilled { file, .. } => {
                let length = u64::try_from(self.length).expect("a length");
                let mut at = 0;
                while at < length {
                    let piece = (length - at).min(SPILL_READ_BYTES as u64);
                    let mut buffer = vec![0; usize::try_from(piece).expect("at most SPILL_READ_BYTES")];
                    if crate::spool::read_full_at(&**file, &mut buffer, at)? < buffer.len() {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    visit(buffer.into())?;
                    at += piece;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
