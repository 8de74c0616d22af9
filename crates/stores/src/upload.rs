//! Uploading the content of a fragment.
//!
//! A blocking thread reads the content, hashes it, compresses it with the fragment's codec and hands over parts, of which
//! at most one waits while another is being written. Of all threads of the process, at most [`compressions_at_once_max`]
//! work at a time; one that waits for its store lets others go on. Before the last part is handed over, length and SHA-1 must be the
//! fragment's: an upload of other content is aborted before anyone can see it.

use std::io::{self, Read, Write};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use fragment::compress::Compressor;
use fragment::{Codec, Fragment, Sum};
use object_store::path::Path;
use object_store::{MultipartUpload, PutMultipartOptions, PutOptions};
use runtime::TaskGroup;
use sha1::{Digest, Sha1};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use crate::StoreError;
use crate::error::PlaceError;
use crate::operation::Operation;
use crate::place::Place;

/// Bytes of content read at a time.
const READ_BYTES: usize = 256 << 10;

/// Turns at reading, hashing and compressing, shared by all stores of the process.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(compressions_at_once_max()));

/// Fragments which a process compresses at once: half of its cores, but no more than 16, since the other half is for what
/// clients wait for.
pub fn compressions_at_once_max() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, 16)
}

/// The content of a fragment, to be read from its begin to its end: each call opens it anew, since an upload which
/// failed is tried again. Reads are made on a blocking thread. Bytes after the fragment's end are not asked for.
pub type Source = Arc<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// What an upload is of.
#[derive(Clone)]
pub(crate) struct Content {
    pub(crate) source: Source,
    pub(crate) codec: Codec,
    pub(crate) level: Option<u32>,
    pub(crate) length: u64,
    pub(crate) sum: Sum,
}

impl Content {
    pub(crate) fn of(fragment: &Fragment, level: Option<u32>, source: Source) -> Content {
        let length = u64::try_from(fragment.len()).expect("a fragment does not run backwards");
        Content { source, codec: fragment.codec, level, length, sum: fragment.sum }
    }
}

/// Where an upload failed.
pub(crate) enum UploadError {
    /// With the content.
    Content(String),
    /// With the place.
    Place(PlaceError),
}

impl UploadError {
    pub(crate) fn of(self, store: &Arc<str>, path: &str) -> StoreError {
        match self {
            UploadError::Content(problem) => {
                StoreError::Content { store: store.clone(), path: path.to_owned(), problem }
            }
            UploadError::Place(error) => error.of(Operation::Put, store, path),
        }
    }
}

impl<E: Into<PlaceError>> From<E> for UploadError {
    fn from(error: E) -> UploadError {
        UploadError::Place(error.into())
    }
}

/// Writes `content` to `path`, whole or not at all. Returns the bytes written.
pub(crate) async fn upload(
    place: &dyn Place,
    path: &Path,
    content: Content,
    tasks: &TaskGroup,
) -> Result<u64, UploadError> {
    let (parts, mut ready) = mpsc::channel(1);
    let part_bytes = place.part_bytes();
    let attributes = place.attributes(content.codec);
    let producer = tasks.spawn_blocking("compress fragment", move || produce(content, parts, part_bytes));
    let first = ready.recv().await.unwrap_or_default();
    let Some(second) = ready.recv().await else {
        // The producer is done, and says whether this one part is the whole content.
        producer.await.map_err(UploadError::Content)?;
        let written = first.len() as u64;
        let options = PutOptions { attributes, ..PutOptions::default() };
        place.objects().put_opts(path, first.into(), options).await?;
        return Ok(written);
    };
    let mut upload = {
        let options = PutMultipartOptions { attributes, ..PutMultipartOptions::default() };
        place.objects().put_multipart_opts(path, options).await?
    };
    let outcome = async {
        let mut written = 0;
        let mut next = vec![second, first];
        while let Some(part) = match next.pop() {
            Some(part) => Some(part),
            None => ready.recv().await,
        } {
            written += part.len() as u64;
            upload.put_part(part.into()).await?;
        }
        producer.await.map_err(UploadError::Content)?;
        upload.complete().await?;
        Ok(written)
    }
    .await;
    if outcome.is_err() {
        // Nothing is visible yet. What cannot be cleaned up now is passed over by listings.
        let _ = upload.abort().await;
    }
    outcome
}

/// Reads, checks and compresses `content` into `parts`. The error says what is wrong with the content; if nobody takes
/// the parts any more, that is not for this side to say.
fn produce(content: Content, parts: mpsc::Sender<Bytes>, part_bytes: usize) -> Result<(), String> {
    let Content { source, codec, level, length, sum } = content;
    let reader = source().map_err(|error| format!("cannot be opened: {error}"))?;
    let mut reader = reader.take(length);
    // A step makes few parts, which are handed over before the next one.
    let (full, made) = std::sync::mpsc::channel();
    let hand_over = || -> Result<(), String> {
        let mut made = made.try_iter();
        made.try_for_each(|part| parts.blocking_send(part)).map_err(|_| "is not wanted any more".to_owned())
    };
    let writer = PartWriter { full, part: Vec::new(), part_bytes };
    let mut compressor =
        Compressor::new(codec, level, writer).map_err(|error| format!("cannot be compressed: {error}"))?;
    let mut hasher = Sha1::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut found = 0;
    loop {
        let turn = turn();
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("cannot be read at byte {found}: {error}")),
        };
        found += read as u64;
        hasher.update(&buffer[..read]);
        compressor.write_all(&buffer[..read]).map_err(|error| format!("cannot be compressed: {error}"))?;
        drop(turn);
        hand_over()?;
    }
    if found != length {
        return Err(format!("has {found} bytes (expected {length})"));
    }
    let found = Sum::finish(hasher);
    if found != sum {
        return Err(format!("has SHA-1 {found} (expected {sum})"));
    }
    let turn = turn();
    let finished = compressor.finish().map_err(|error| format!("cannot be compressed: {error}"))?;
    drop(turn);
    finished.end();
    hand_over()
}

/// A turn at working, once there is one.
fn turn() -> SemaphorePermit<'static> {
    Handle::current().block_on(TURNS.acquire()).expect("the semaphore is never closed")
}

/// Cuts what is written into parts.
struct PartWriter {
    full: std::sync::mpsc::Sender<Bytes>,
    part: Vec<u8>,
    part_bytes: usize,
}

impl PartWriter {
    fn end(mut self) {
        if !self.part.is_empty() {
            self.push_part();
        }
    }

    fn push_part(&mut self) {
        let part = std::mem::take(&mut self.part).into();
        self.full.send(part).expect("who writes also receives");
    }
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.part.capacity() == 0 {
            self.part.reserve_exact(self.part_bytes);
        }
        let taken = bytes.len().min(self.part_bytes - self.part.len());
        self.part.extend_from_slice(&bytes[..taken]);
        if self.part.len() == self.part_bytes {
            self.push_part();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fragment::Codec;
    use futures::future::join_all;

    use super::*;
    use crate::store::tests::memory::{self, Faults};
    use crate::store::tests::{fragment_of, source};

    /// Zeros, whose readers are counted while they read.
    struct Counted {
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Read for Counted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            std::thread::yield_now();
            buffer.fill(0);
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(buffer.len())
        }
    }

    #[tokio::test]
    async fn few_fragments_are_compressed_at_once_and_waiting_ones_hold_up_nobody() {
        let (hanging, working) = (Faults::default(), Faults::default());
        let (slow, quick) = (memory::store(hanging.clone()), memory::store(working.clone()));
        slow.checked_health().await;
        // A part goes out, and no answer comes.
        hanging.hangs.store(true, Ordering::SeqCst);
        let noise = crate::store::tests::content(2 << 20);
        let stuck = fragment_of("a/journal", 0, Codec::None, &noise);
        let stuck = async {
            let puts = (0..2 * compressions_at_once_max()).map(|_| slow.put(&stuck, source(&noise)));
            join_all(puts).await
        };
        let zeros = vec![0; 3 << 20];
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (now.clone(), most.clone());
        let counted: Source =
            Arc::new(move || Ok(Box::new(Counted { now: counters.0.clone(), most: counters.1.clone() })));
        let uploads = async {
            let fragments: Vec<_> =
                (0..12).map(|n| fragment_of("b/journal", n, Codec::Gzip, &zeros)).collect();
            let puts = fragments.iter().map(|fragment| quick.put(fragment, counted.clone()));
            for put in join_all(puts).await {
                put.unwrap();
            }
        };
        tokio::select! {
            biased;
            _ = stuck => panic!("the store hangs"),
            () = uploads => {}
        }
        let most = most.load(Ordering::SeqCst);
        assert!((1..=compressions_at_once_max()).contains(&most), "{most} at once");
    }
}
