//! The content of one fragment, from a local file or from a store, as chunks.

use bytes::{Bytes, BytesMut};
use fragment::Fragment;
use futures::StreamExt;
use futures::stream::BoxStream;
use runtime::TaskGroup;

use super::ReadContext;
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
    Store(BoxStream<'static, Result<Bytes, ServiceError>>),
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
    /// Opens the fragment's local file, or its stored object.
    ///
    /// # Errors
    /// If the object cannot be opened.
    pub async fn open(
        context: &ReadContext,
        fragment: &Fragment,
        file: Option<LocalFile>,
        begin: i64,
        end: i64,
    ) -> Result<ContentReader, ServiceError> {
        assert!(
            fragment.begin <= begin && begin <= end && end <= fragment.end,
            "content lies within its fragment"
        );
        let source = match file {
            Some(file) => Source::File(file, context.files.clone()),
            None => Source::Store(stored::content(&context.stores, fragment, begin).await?),
        };
        let is_recent = end == fragment.end;
        let fragment = fragment.content_path();
        Ok(ContentReader { source, offset: begin, end, ahead: Bytes::new(), is_recent, fragment })
    }

    /// Offset of the next chunk.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The next chunk, never empty; `None` at the end.
    ///
    /// # Errors
    /// If the content cannot be read, or is shorter than the fragment says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ServiceError> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
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
                    Some(content) => content,
                    None => Err(self.failed("unexpected EOF")),
                },
            }?;
        }
        let chunk = self.ahead.split_to(self.ahead.len().min(left).min(READ_CHUNK_BYTES_MAX));
        self.offset += i64::try_from(chunk.len()).expect("a chunk is smaller than its limit");
        Ok(Some(chunk))
    }

    fn failed(&self, problem: &str) -> ServiceError {
        ServiceError::Content {
            action: format!("read fragment {} at {}", self.fragment, self.offset),
            source: problem.into(),
        }
    }
}

async fn read_file(
    file: &LocalFile,
    files: &TaskGroup,
    offset: i64,
    length: usize,
    inline: bool,
) -> Result<Bytes, ServiceError> {
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
    let problem = match outcome {
        Ok(content) if !content.is_empty() => return Ok(content),
        Ok(_) => "unexpected EOF".into(),
        Err(error) => error.into(),
    };
    let action = format!("read spool {} at {offset}", file.path().display());
    Err(ServiceError::Content { action, source: problem })
}
