//! The content of one copy of a fragment, from a local file, from a store or from another replica, as chunks.

use bytes::{Bytes, BytesMut};
use fragment::Fragment;
use futures::StreamExt;
use runtime::{BoxError, CancellationToken, TaskGroup};
use stores::{ContentStream, StoreError};

use super::ReadContext;
use super::elsewhere::Relay;
use crate::error::ServiceError;
use crate::spool::LocalFile;
use crate::stored;

/// Content of one response, bytes. Clients accept any size below the limit of a message.
pub const READ_CHUNK_BYTES_MAX: usize = 256 << 10;
/// Content that is read from a file at once, bytes.
pub const READ_AHEAD_BYTES: usize = 1 << 20;
/// Reads of at most this many bytes of what was just committed do not leave the async thread: the kernel has them.
const READ_INLINE_BYTES_MAX: usize = 64 << 10;

enum Source {
    File(LocalFile, TaskGroup),
    Store(ContentStream),
    Replica(Box<Relay>, CancellationToken),
}

/// What is wrong with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It is not the content that its name says.
    Corrupt,
    /// There is none.
    Missing,
    /// It cannot be read now.
    Unavailable,
}

impl Defect {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Defect::Corrupt => "corrupt",
            Defect::Missing => "missing",
            Defect::Unavailable => "unavailable",
        }
    }
}

/// A copy cannot be read.
#[derive(Debug)]
pub struct ContentError {
    /// What is wrong with it.
    pub defect: Defect,
    /// What to tell.
    pub error: ServiceError,
}

impl ContentError {
    /// Of an attempt to do `action`.
    pub fn new(defect: Defect, action: String, source: BoxError) -> ContentError {
        ContentError { defect, error: ServiceError::Content { action, source } }
    }

    fn of_store(action: &str, error: StoreError) -> ContentError {
        let defect = match &error {
            StoreError::Corrupt { .. } => Defect::Corrupt,
            error if error.is_not_found() => Defect::Missing,
            _ => Defect::Unavailable,
        };
        ContentError::new(defect, action.to_owned(), error.into())
    }
}

/// Reads `begin..end` of a fragment, in order.
pub struct ContentReader {
    source: Source,
    offset: i64,
    end: i64,
    /// Content that was read ahead, from `offset`.
    ahead: Bytes,
    is_recent: bool,
    fragment: String,
}

impl ContentReader {
    /// Opens the fragment's local file, or its stored object, unless that was opened `ahead`.
    ///
    /// # Errors
    /// If the object cannot be opened.
    pub async fn open(
        context: &ReadContext,
        fragment: &Fragment,
        file: Option<LocalFile>,
        ahead: Option<ContentStream>,
        begin: i64,
        end: i64,
    ) -> Result<ContentReader, ContentError> {
        assert!(
            fragment.begin <= begin && begin <= end && end <= fragment.end,
            "content lies within its fragment"
        );
        let source = match file {
            Some(file) => Source::File(file, context.files.clone()),
            None => {
                let failed =
                    |error| ContentError::of_store(&action_on(&fragment.content_path(), begin), error);
                Source::Store(match ahead {
                    Some(opened) => opened,
                    None => stored::content(&context.stores, fragment, begin).await.map_err(failed)?,
                })
            }
        };
        let is_recent = end == fragment.end;
        let fragment = fragment.content_path();
        Ok(ContentReader { source, offset: begin, end, ahead: Bytes::new(), is_recent, fragment })
    }

    /// Reads `begin..end` of what another replica sends.
    pub fn relayed(relay: Box<Relay>, begin: i64, end: i64, stopped: CancellationToken) -> ContentReader {
        let (source, fragment) = (Source::Replica(relay, stopped), "of another replica".to_owned());
        ContentReader { source, offset: begin, end, ahead: Bytes::new(), is_recent: false, fragment }
    }

    /// Offset of the next chunk.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The next chunk, never empty; `None` at the end.
    ///
    /// # Errors
    /// If the content cannot be read, or is shorter than the fragment says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ContentError> {
        self.next_before(self.end).await
    }

    /// The next chunk, which ends at `end` at the latest; `None` there.
    ///
    /// # Errors
    /// As of [`ContentReader::next`].
    pub async fn next_before(&mut self, end: i64) -> Result<Option<Bytes>, ContentError> {
        let left = usize::try_from(end.min(self.end) - self.offset).unwrap_or(0);
        if left == 0 {
            return Ok(None);
        }
        while self.ahead.is_empty() {
            self.ahead = match &mut self.source {
                Source::File(file, files) => {
                    let inline = self.is_recent && left <= READ_INLINE_BYTES_MAX;
                    read_file(file, files, self.offset, left.min(READ_AHEAD_BYTES), inline).await
                }
                Source::Store(content) => match content.next().await {
                    Some(content) => content.map_err(|error| ContentError::of_store(&self.action(), error)),
                    None => Err(self.failed(Defect::Corrupt, "unexpected EOF")),
                },
                Source::Replica(relay, stopped) => match relay.next(stopped).await {
                    Some(response) => Ok(response.content),
                    None => Err(self.failed(Defect::Unavailable, "unexpected EOF")),
                },
            }?;
        }
        let chunk = self.ahead.split_to(self.ahead.len().min(left).min(READ_CHUNK_BYTES_MAX));
        self.offset += i64::try_from(chunk.len()).expect("a chunk is smaller than its limit");
        Ok(Some(chunk))
    }

    fn failed(&self, defect: Defect, problem: &str) -> ContentError {
        ContentError::new(defect, self.action(), problem.into())
    }

    fn action(&self) -> String {
        action_on(&self.fragment, self.offset)
    }
}

fn action_on(fragment: &str, offset: i64) -> String {
    format!("read fragment {fragment} at {offset}")
}

async fn read_file(
    file: &LocalFile,
    files: &TaskGroup,
    offset: i64,
    length: usize,
    inline: bool,
) -> Result<Bytes, ContentError> {
    let read = {
        let file = file.clone();
        move || {
            let mut buffer = BytesMut::zeroed(length);
            let read = file.read_at(offset, &mut buffer)?;
            buffer.truncate(read);
            Ok(buffer.freeze())
        }
    };
    let outcome: std::io::Result<Bytes> =
        if inline { read() } else { files.spawn_blocking("read spool", read).await };
    let (defect, problem): (Defect, BoxError) = match outcome {
        Ok(content) if !content.is_empty() => return Ok(content),
        Ok(_) => (Defect::Corrupt, "unexpected EOF".into()),
        Err(error) => (Defect::Unavailable, error.into()),
    };
    let action = format!("read spool {} at {offset}", file.path().display());
    Err(ContentError::new(defect, action, problem))
}
