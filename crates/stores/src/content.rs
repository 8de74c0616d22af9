//! Reading the content of a stored fragment.
//!
//! Files are read and decompressed on blocking threads, one chunk per step, and only when the consumer asks for the next
//! one: a slow consumer holds no thread, and no more memory than a chunk and its codec's window. What is read from the
//! fragment's beginning is checked against its length and its SHA-1. The last chunk is held back until the check has
//! passed, so that a corrupt fragment cannot be mistaken for a complete one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use fragment::compress::Decompressor;
use fragment::{Codec, Fragment, Sum};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::{Attribute, GetOptions, GetRange, GetResult, GetResultPayload};
use runtime::{Clock, Elapsed, TaskGroup};
use sha1::{Digest, Sha1};
use tokio::runtime::Handle;

use crate::StoreError;
use crate::error::PlaceError;
use crate::operation::Operation;

/// Content of a fragment, in order. Ends after the fragment's last byte, or with an error.
pub type ContentStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// What every gzip stream begins with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Bytes of content per chunk.
pub const CONTENT_CHUNK_BYTES: usize = 256 << 10;
/// How long a store may take to give the next bytes of an object.
const NEXT_BYTES_TIMEOUT: Duration = Duration::from_secs(60);

/// The part of the object of `fragment` which holds its content from `offset` on.
pub(crate) fn range_of(fragment: &Fragment, offset: i64) -> GetOptions {
    // What is compressed can only be read from its beginning.
    let skip = if fragment.codec == Codec::None { offset - fragment.begin } else { 0 };
    let range = GetRange::Offset(u64::try_from(skip).expect("the offset is within the fragment"));
    GetOptions { range: (skip > 0).then_some(range), ..GetOptions::default() }
}

/// The content from `offset` on of `fragment`, whose object was asked for with [`range_of`].
pub(crate) async fn content_of(
    fragment: &Fragment,
    offset: i64,
    object: GetResult,
    (store, path): (Arc<str>, String),
    clock: Clock,
    tasks: TaskGroup,
) -> Result<ContentStream, StoreError> {
    let fragment = fragment.clone();
    // Decompressors read already when they are made.
    let opening = move || ContentReader::new(&fragment, offset, object, (store, path), clock);
    let reader = tasks.spawn_blocking("open fragment", opening).await?;
    let chunks = stream::try_unfold(Some(reader), move |reader| {
        let tasks = tasks.clone();
        async move {
            let Some(mut reader) = reader else { return Ok(None) };
            let step = tasks.spawn_blocking("read fragment", move || (reader.next_chunk(), reader));
            let (chunk, reader) = step.await;
            let chunk = chunk?;
            let more = reader.remaining > 0;
            Ok((!chunk.is_empty()).then(|| (chunk, more.then_some(reader))))
        }
    });
    Ok(chunks.boxed())
}

/// One fragment being read.
struct ContentReader {
    content: Decompressor<Came>,
    /// Hash of the content, if it is read from its beginning.
    hasher: Option<Sha1>,
    expected: Sum,
    length: u64,
    /// Content bytes to be dropped.
    skip: u64,
    /// Content bytes to be returned.
    remaining: u64,
    store: Arc<str>,
    path: String,
}

impl ContentReader {
    fn new(
        fragment: &Fragment,
        offset: i64,
        object: GetResult,
        (store, path): (Arc<str>, String),
        clock: Clock,
    ) -> Result<ContentReader, StoreError> {
        let bytes = |count: i64| u64::try_from(count).expect("the offset is within the fragment");
        let length = bytes(fragment.len());
        if fragment.codec == Codec::None && object.meta.size != length {
            let problem = format!("the object has {} bytes (expected {length})", object.meta.size);
            return Err(StoreError::Corrupt { store, path, problem });
        }
        let whole = object.range.start == 0;
        let skip = if whole { bytes(offset - fragment.begin) } else { 0 };
        let of_store = |error| PlaceError::Io(error).of(Operation::Get, &store, &path);
        let (codec, source) = as_it_came(fragment.codec, object, clock).map_err(of_store)?;
        let content = Decompressor::new(codec, source).map_err(of_store)?;
        let hasher = whole.then(Sha1::new);
        let remaining = bytes(fragment.end - offset);
        Ok(ContentReader { content, hasher, expected: fragment.sum, length, skip, remaining, store, path })
    }

    /// The next bytes of content; empty if there are none at all.
    fn next_chunk(&mut self) -> Result<Bytes, StoreError> {
        let mut buffer = vec![0; CONTENT_CHUNK_BYTES];
        while self.skip > 0 {
            let wanted = self.skip.min(CONTENT_CHUNK_BYTES as u64) as usize;
            self.fill(&mut buffer[..wanted])?;
            self.skip -= wanted as u64;
        }
        let wanted = self.remaining.min(CONTENT_CHUNK_BYTES as u64) as usize;
        buffer.truncate(wanted);
        self.fill(&mut buffer)?;
        self.remaining -= wanted as u64;
        if self.remaining == 0 {
            self.check_end()?;
        }
        Ok(buffer.into())
    }

    /// Fills all of `buffer` with content.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), StoreError> {
        if let Err(error) = self.content.read_exact(buffer) {
            return Err(match error.kind() {
                io::ErrorKind::UnexpectedEof => self.corrupt(format!(
                    "unexpected EOF before the fragment's end ({} bytes expected)",
                    self.length
                )),
                _ => self.failed(error),
            });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer);
        }
        Ok(())
    }

    /// Requires that nothing follows, and that all that was read has the fragment's sum.
    fn check_end(&mut self) -> Result<(), StoreError> {
        let mut more = [0; 1];
        match self.content.read(&mut more) {
            Ok(0) => {}
            Ok(_) => return Err(self.corrupt("did not read EOF at expected Fragment.End".to_owned())),
            Err(error) => return Err(self.failed(error)),
        }
        let Some(found) = self.hasher.take().map(Sum::finish) else { return Ok(()) };
        if found == self.expected {
            return Ok(());
        }
        Err(self.corrupt(format!("its content has SHA-1 {found} (expected {})", self.expected)))
    }

    fn corrupt(&self, problem: String) -> StoreError {
        StoreError::Corrupt { store: self.store.clone(), path: self.path.clone(), problem }
    }

    /// Tells what the store said from what the decompressor did.
    fn failed(&self, error: io::Error) -> StoreError {
        let is_of_store =
            error.get_ref().is_some_and(|inner| inner.is::<SourceError>()) || error.raw_os_error().is_some();
        if is_of_store {
            PlaceError::Io(error).of(Operation::Get, &self.store, &self.path)
        } else {
            self.corrupt(error.to_string())
        }
    }
}

/// An object as it came: bytes which were looked at, and the rest.
type Came = io::Chain<io::Cursor<Vec<u8>>, Stored>;

/// How the content of `object` is to be decompressed. Some stores decompress what is theirs to decompress, some do not,
/// and what is between may: what came says which it is (journal protocol §17, R18).
fn as_it_came(codec: Codec, object: GetResult, clock: Clock) -> io::Result<(Codec, Came)> {
    let is_gzip = object.attributes.get(&Attribute::ContentEncoding).is_some_and(|value| &**value == "gzip");
    let mut source = Stored::new(object, clock);
    let mut head = Vec::new();
    let mut came = codec;
    if codec == Codec::GzipOffload && !is_gzip {
        source.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head)?;
        if head != GZIP_MAGIC {
            came = Codec::None;
        }
    }
    Ok((came, Read::chain(io::Cursor::new(head), source)))
}

/// The bytes of an object did not come.
#[derive(Debug, thiserror::Error)]
enum SourceError {
    #[error(transparent)]
    Objects(#[from] object_store::Error),
    #[error("no bytes within {NEXT_BYTES_TIMEOUT:?}")]
    TimedOut,
}

/// The bytes of an object, to be read on a blocking thread.
enum Stored {
    File {
        file: File,
        at: u64,
        end: u64,
    },
    Stream {
        stream: BoxStream<'static, object_store::Result<Bytes>>,
        ready: Bytes,
        clock: Clock,
        handle: Handle,
    },
}

impl Stored {
    fn new(object: GetResult, clock: Clock) -> Stored {
        let GetResult { payload, range, .. } = object;
        match payload {
            GetResultPayload::File(file, _) => Stored::File { file, at: range.start, end: range.end },
            GetResultPayload::Stream(stream) => {
                Stored::Stream { stream, ready: Bytes::new(), clock, handle: Handle::current() }
            }
        }
    }
}

impl Read for Stored {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stored::File { file, at, end } => {
                let wanted = buffer.len().min(usize::try_from(*end - *at).unwrap_or(usize::MAX));
                let read = file.read_at(&mut buffer[..wanted], *at)?;
                *at += read as u64;
                Ok(read)
            }
            Stored::Stream { stream, ready, clock, handle } => {
                while ready.is_empty() {
                    match handle.block_on(clock.timeout(NEXT_BYTES_TIMEOUT, stream.next())) {
                        Ok(Some(Ok(bytes))) => *ready = bytes,
                        Ok(Some(Err(error))) => return Err(io::Error::other(SourceError::Objects(error))),
                        Ok(None) => return Ok(0),
                        Err(Elapsed) => return Err(io::Error::other(SourceError::TimedOut)),
                    }
                }
                let read = buffer.len().min(ready.len());
                ready.copy_to_slice(&mut buffer[..read]);
                Ok(read)
            }
        }
    }
}
