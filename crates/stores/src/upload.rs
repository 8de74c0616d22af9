//! Uploading the content of a fragment.
//!
//! A blocking thread reads the content, hashes it, compresses it with the fragment's codec and hands over parts, of which
//! at most one waits while another is being written. Before the last part is handed over, length and SHA-1 must be the
//! fragment's: an upload of other content is aborted before anyone can see it.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use fragment::compress::Compressor;
use fragment::{Codec, Fragment, Sum};
use object_store::path::Path;
use object_store::{MultipartUpload, PutMultipartOptions, PutOptions};
use runtime::TaskGroup;
use sha1::{Digest, Sha1};
use tokio::sync::mpsc;

use crate::StoreError;
use crate::error::PlaceError;
use crate::operation::Operation;
use crate::place::Place;

/// Bytes of content read at a time.
const READ_BYTES: usize = 256 << 10;

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
    let writer = PartWriter { parts, part: Vec::new(), part_bytes };
    let mut compressor =
        Compressor::new(codec, level, writer).map_err(|error| format!("cannot be compressed: {error}"))?;
    let mut hasher = Sha1::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut found = 0;
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("cannot be read at byte {found}: {error}")),
        };
        found += read as u64;
        hasher.update(&buffer[..read]);
        compressor.write_all(&buffer[..read]).map_err(|error| format!("cannot be compressed: {error}"))?;
    }
    if found != length {
        return Err(format!("has {found} bytes (expected {length})"));
    }
    let found = Sum::finish(hasher);
    if found != sum {
        return Err(format!("has SHA-1 {found} (expected {sum})"));
    }
    let finished = compressor.finish().and_then(PartWriter::send);
    finished.map_err(|error| format!("cannot be compressed: {error}"))
}

/// Cuts what is written into parts.
struct PartWriter {
    parts: mpsc::Sender<Bytes>,
    part: Vec<u8>,
    part_bytes: usize,
}

impl PartWriter {
    fn send(mut self) -> io::Result<()> {
        self.send_part()
    }

    fn send_part(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part).into();
        self.parts.blocking_send(part).map_err(|_| io::Error::other("the upload has ended"))
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
            self.send_part()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
