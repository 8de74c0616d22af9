//! The bytes of a batch, until its append is done: in memory while the service's budget lasts, and else in a temporary
//! file which has no name.
//!
//! Bytes are written once, into a chunk of memory which becomes a message as it is. A writer may take back what it wrote
//! last.

use crate::append::CHUNK_BYTES_MAX;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use runtime::TaskGroup;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes which all batches of a service hold in memory, besides one unfinished chunk of each journal.
pub(super) const MEMORY_BYTES_MAX: usize = 32 << 20;

/// What the batches of a service hold.
#[derive(Debug)]
pub(super) struct Budget {
    memory_max: usize,
    memory: AtomicUsize,
    buffered: AtomicU64,
}

impl Budget {
    pub(super) fn new(memory_max: usize) -> Budget {
        Budget { memory_max, memory: AtomicUsize::new(0), buffered: AtomicU64::new(0) }
    }

    /// Bytes of finished chunks, in memory and in files.
    pub(super) fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    fn charge_memory(&self, bytes: usize) -> bool {
        let charged = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.memory_max);
        self.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, charged).is_ok()
    }
}

/// A part of a batch, which returns what it charged when it is dropped.
struct Piece {
    place: Place,
    charged: usize,
    budget: Arc<Budget>,
}

enum Place {
    Memory(Bytes),
    File(Range<u64>),
}

impl Place {
    fn len(&self) -> usize {
        match self {
            Place::Memory(bytes) => bytes.len(),
            Place::File(range) => (range.end - range.start) as usize,
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.budget.buffered.fetch_sub(self.charged as u64, Ordering::Relaxed);
        if let Place::Memory(_) = self.place {
            self.budget.memory.fetch_sub(self.charged, Ordering::Relaxed);
        }
    }
}

/// The bytes of a batch which is still written to.
pub(super) struct Buffer {
    pieces: Vec<Piece>,
    /// The unfinished chunk.
    tail: Vec<u8>,
    /// Bytes of `pieces`.
    finished: u64,
    file: Option<Arc<File>>,
    file_len: u64,
    budget: Arc<Budget>,
}

impl Buffer {
    pub(super) fn new(budget: Arc<Budget>) -> Buffer {
        Buffer { pieces: Vec::new(), tail: Vec::new(), finished: 0, file: None, file_len: 0, budget }
    }

    /// Bytes written.
    pub(super) fn len(&self) -> u64 {
        self.finished + self.tail.len() as u64
    }

    /// Where the next bytes are written: append only, and finish a chunk afterwards.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    pub(super) fn write(&mut self, mut content: &[u8]) -> io::Result<()> {
        while !content.is_empty() {
            let room = CHUNK_BYTES_MAX - self.tail.len().min(CHUNK_BYTES_MAX);
            let (now, later) = content.split_at(content.len().min(room));
            if self.tail.capacity() == 0 && !(self.pieces.is_empty() && later.is_empty()) {
                // A batch which fills chunks need not grow each by doubling.
                self.tail.reserve_exact(CHUNK_BYTES_MAX);
            }
            self.tail.extend_from_slice(now);
            content = later;
            self.finish_full_chunk()?;
        }
        Ok(())
    }

    /// Finishes the chunk if it is full. On error it stays, to be taken back.
    pub(super) fn finish_full_chunk(&mut self) -> io::Result<()> {
        if self.tail.len() >= CHUNK_BYTES_MAX { self.finish_chunk() } else { Ok(()) }
    }

    fn finish_chunk(&mut self) -> io::Result<()> {
        let charged = self.tail.len();
        let place = if self.budget.charge_memory(charged) {
            Place::Memory(Bytes::from(std::mem::take(&mut self.tail)))
        } else {
            self.spill()?
        };
        self.budget.buffered.fetch_add(charged as u64, Ordering::Relaxed);
        self.finished += charged as u64;
        self.pieces.push(Piece { place, charged, budget: Arc::clone(&self.budget) });
        Ok(())
    }

    /// Moves the chunk to the file, which is made now if it is the first.
    fn spill(&mut self) -> io::Result<Place> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(Arc::new(tempfile::tempfile()?)),
        };
        file.write_all_at(&self.tail, self.file_len)?;
        let begin = self.file_len;
        self.file_len += self.tail.len() as u64;
        self.tail.clear();
        Ok(Place::File(begin..self.file_len))
    }

    /// Takes back everything past the first `len` bytes.
    pub(super) fn truncate(&mut self, len: u64) {
        let mut excess = self.len().saturating_sub(len);
        let of_tail = excess.min(self.tail.len() as u64);
        self.tail.truncate(self.tail.len() - of_tail as usize);
        excess -= of_tail;
        while excess != 0
            && let Some(mut piece) = self.pieces.pop()
        {
            let kept = piece.place.len() - excess.min(piece.place.len() as u64) as usize;
            let removed = (piece.place.len() - kept) as u64;
            self.finished -= removed;
            excess -= removed;
            match &mut piece.place {
                Place::Memory(bytes) => bytes.truncate(kept),
                Place::File(range) => {
                    range.end -= removed;
                    self.file_len = range.end;
                }
            }
            if kept != 0 {
                self.pieces.push(piece);
            }
        }
    }

    /// Ends writing.
    pub(super) fn freeze(mut self) -> Content {
        let tail = Bytes::from(std::mem::take(&mut self.tail));
        Content { pieces: self.pieces.into(), tail, file: self.file }
    }
}

/// The bytes of a batch which is being appended: they may be streamed any number of times.
#[derive(Clone)]
pub(super) struct Content {
    pieces: Arc<[Piece]>,
    tail: Bytes,
    file: Option<Arc<File>>,
}

impl Content {
    /// All bytes, in chunks. Files are read as the stream is polled, on a thread where that may block.
    pub(super) fn stream(&self, tasks: &TaskGroup) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let (content, tasks) = (self.clone(), tasks.clone());
        let pieces = futures::stream::iter(0..self.pieces.len()).then(move |index| {
            let (content, tasks) = (content.clone(), tasks.clone());
            async move {
                match (&content.pieces[index].place, &content.file) {
                    (Place::Memory(bytes), _) => Ok(bytes.clone()),
                    (Place::File(range), Some(file)) => {
                        let (range, file) = (range.clone(), Arc::clone(file));
                        tasks.spawn_blocking("read append buffer", move || read_range(&file, range)).await
                    }
                    (Place::File(_), None) => unreachable!("a piece of a file implies the file"),
                }
            }
        });
        pieces.chain(futures::stream::iter([Ok(self.tail.clone())]))
    }
}

fn read_range(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_back(content: &Content) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let tasks = TaskGroup::new("test");
            let pieces: Vec<_> = content.stream(&tasks).collect().await;
            pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Writes, some of which are taken back, at every mix of memory and file.
        #[test]
        fn what_was_kept_is_read_back(
            writes in prop::collection::vec((0..3 * CHUNK_BYTES_MAX, any::<bool>()), 0..8),
            memory_chunks in 0..6usize,
        ) {
            let budget = Arc::new(Budget::new(memory_chunks * CHUNK_BYTES_MAX));
            let mut buffer = Buffer::new(Arc::clone(&budget));
            let mut expected = Vec::new();
            for (index, (len, kept)) in writes.into_iter().enumerate() {
                let (mark, content) = (buffer.len(), vec![index as u8; len]);
                buffer.write(&content).unwrap();
                if kept {
                    expected.extend_from_slice(&content);
                } else {
                    buffer.truncate(mark);
                }
                prop_assert_eq!(buffer.len(), expected.len() as u64);
            }
            prop_assert!(budget.memory.load(Ordering::Relaxed) <= memory_chunks * CHUNK_BYTES_MAX);
            let content = buffer.freeze();
            prop_assert_eq!(read_back(&content), &expected[..]);
            prop_assert_eq!(read_back(&content), expected, "it can be read again");
            drop(content);
            prop_assert_eq!((budget.memory.load(Ordering::Relaxed), budget.buffered()), (0, 0));
        }
    }
}
