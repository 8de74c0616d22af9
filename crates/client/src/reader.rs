//! Readers of a journal's bytes.
//!
//! [`Reader`] is one Read call. It checks what the broker sends, and reads fragments from their store where the broker
//! says so. [`RetryReader`] is what most should use: it goes on over the end of calls, for as long as the journal lasts.

mod fragment_content;
mod fragment_file;
mod fragment_http;
mod frames;
mod retry;
mod retry_reader;

use crate::client::{JournalClient, bare_name};
use crate::error::ClientError;
use crate::routes::Need;
use auth::{Capability, Grant};
use bytes::Bytes;
use fragment_content::FragmentContent;
pub(crate) use fragment_http::http_client;
use frames::{End, Event, Frames};
use proto::Validate;
use proto::protocol::{Fragment, ReadRequest, ReadResponse, Status};
pub use retry_reader::RetryReader;
use runtime::{HeldCounter, Instant};
use std::io;
use std::sync::Arc;

/// Bytes of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Offset of the first byte.
    pub offset: i64,
    /// At least one byte.
    pub bytes: Bytes,
}

/// Why there are no bytes (now).
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The broker ended the call. It may do so at any time; a [`RetryReader`] goes on.
    #[error("EOF")]
    Closed,
    /// Everything before the request's end offset was read.
    #[error("EOF")]
    EndOffset,
    /// Content between the offsets is gone. Reported once; reading goes on at `to`.
    #[error("offset jump from {from} to {to}")]
    OffsetJump {
        /// Offset which was expected.
        from: i64,
        /// Offset of the next byte.
        to: i64,
    },
    /// The journal ends here, and the request does not wait.
    #[error("OFFSET_NOT_YET_AVAILABLE (offset {offset}, write head {write_head})")]
    NotYetAvailable {
        /// Offset of the next byte.
        offset: i64,
        /// The journal's end.
        write_head: i64,
    },
    /// There is no such journal.
    #[error("{0}: JOURNAL_NOT_FOUND")]
    JournalNotFound(Arc<str>),
    /// The journal is suspended, and has no replica which could be read.
    #[error("{0}: SUSPENDED")]
    Suspended(Arc<str>),
    /// The client was told to stop.
    #[error("cancelled")]
    Cancelled,
    /// The fragment must be read from a URL which this client cannot read. Allowing the broker to proxy helps.
    #[error("fragment URL {url} is not supported")]
    UnsupportedUrl {
        /// The URL, without its arguments, which may be secret.
        url: Arc<str>,
    },
    /// A fragment could not be read from its store.
    #[error("fragment {url}: {error}")]
    Fragment {
        /// The URL, without its arguments, which may be secret.
        url: Arc<str>,
        /// What happened.
        error: Arc<io::Error>,
    },
    /// The call failed, or the broker answered with another status.
    #[error(transparent)]
    Client(ClientError),
}

impl ReadError {
    /// Whether this is the end of what was asked for, or of a call, rather than a failure.
    pub fn is_eof(&self) -> bool {
        matches!(self, ReadError::Closed | ReadError::EndOffset)
    }
}

enum Source {
    Idle,
    Call(tonic::Streaming<ReadResponse>, Arc<str>),
    Fragment(FragmentContent),
    Ended(ReadError),
}

/// One Read call.
pub struct Reader {
    client: JournalClient,
    request: ReadRequest,
    frames: Frames,
    source: Source,
    /// When a broker took the call.
    began: Option<Instant>,
    bytes_read: Option<HeldCounter>,
}

impl JournalClient {
    /// A reader of a single call, which is made when the first bytes are asked for.
    pub fn read(&self, request: ReadRequest) -> Reader {
        let bytes_read = self.series().map(|series| series.read(bare_name(&request.journal)));
        Reader {
            client: self.clone(),
            frames: Frames::new(&request),
            request,
            source: Source::Idle,
            began: None,
            bytes_read,
        }
    }
}

impl Reader {
    /// Offset of the next byte; −1 if it was requested and is not known yet.
    pub fn offset(&self) -> i64 {
        self.frames.offset()
    }

    /// The journal's end, as the broker last said; zero before.
    pub fn write_head(&self) -> i64 {
        self.frames.write_head()
    }

    /// The fragment of the current content, as the broker last described it.
    pub fn fragment(&self) -> Option<&Fragment> {
        self.frames.fragment()
    }

    /// When a broker took the call, if one did.
    fn began(&self) -> Option<Instant> {
        self.began
    }

    /// The next bytes. After any error but [`ReadError::OffsetJump`], the same error again. Cancel safe: a call which is
    /// dropped while it waits loses nothing.
    pub async fn next(&mut self) -> Result<Chunk, ReadError> {
        loop {
            let step = match &mut self.source {
                Source::Idle => self.start().await,
                Source::Call(stream, _) => {
                    let frame = stream.message().await;
                    self.on_frame(frame)
                }
                Source::Fragment(content) => {
                    let bytes = content.next().await;
                    self.on_bytes(bytes)
                }
                Source::Ended(error) => return Err(error.clone()),
            };
            match step {
                Ok(None) => {}
                Ok(Some(chunk)) => {
                    if let Some(counter) = &self.bytes_read {
                        counter.inc_by(chunk.bytes.len() as u64);
                    }
                    return Ok(chunk);
                }
                Err(error @ ReadError::OffsetJump { .. }) => return Err(error),
                Err(error) => self.source = Source::Ended(error),
            }
        }
    }

    async fn start(&mut self) -> Result<Option<Chunk>, ReadError> {
        self.request.validate().map_err(|e| ReadError::Client(ClientError::Request(e)))?;
        let journal = bare_name(&self.request.journal);
        let mut call = self.client.dispatch(journal, Need::Any).map_err(ReadError::Client)?;
        let grant = Grant::journal(Capability::READ, journal);
        let request = self.client.options().request(self.request.clone(), grant);
        let outcome = call.rpc.read(request).await.map_err(ClientError::Grpc);
        let response = self.client.note_failure(journal, &call, outcome).map_err(ReadError::Client)?;
        self.source = Source::Call(response.into_inner(), call.endpoint);
        self.began = Some(self.client.options().clock.now());
        Ok(None)
    }

    fn on_frame(
        &mut self,
        frame: Result<Option<ReadResponse>, tonic::Status>,
    ) -> Result<Option<Chunk>, ReadError> {
        let journal = bare_name(&self.request.journal);
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.on_end(),
            Err(status) => {
                let error = ClientError::Grpc(status);
                if let Source::Call(_, endpoint) = &self.source {
                    self.client.note_error(journal, endpoint, &error);
                }
                return Err(ReadError::Client(error));
            }
        };
        let invalid = |e| ReadError::Client(ClientError::Response(e));
        let (event, header) = self.frames.on_frame(frame).map_err(invalid)?;
        if header.is_some() {
            self.client.observe(journal, header.as_ref());
        }
        match event {
            Event::Content { offset, bytes } => Ok(Some(Chunk { offset, bytes })),
            Event::Jump { from, to } => Err(ReadError::OffsetJump { from, to }),
            Event::Nothing => Ok(None),
        }
    }

    fn on_end(&mut self) -> Result<Option<Chunk>, ReadError> {
        let journal = bare_name(&self.request.journal);
        match self.frames.on_end() {
            End::Closed => Err(ReadError::Closed),
            End::Complete => Err(ReadError::EndOffset),
            End::Status(Status::OffsetNotYetAvailable) => {
                Err(ReadError::NotYetAvailable { offset: self.offset(), write_head: self.write_head() })
            }
            End::Status(Status::JournalNotFound) => Err(ReadError::JournalNotFound(journal.into())),
            End::Status(Status::Suspended) => Err(ReadError::Suspended(journal.into())),
            End::Status(status) => Err(ReadError::Client(ClientError::journal(journal, status))),
            End::Fragment(fragment, url) => {
                let (offset, end_offset) = (self.offset(), self.request.end_offset);
                let content = FragmentContent::open(&self.client, &fragment, &url, offset, end_offset)?;
                self.source = Source::Fragment(content);
                Ok(None)
            }
        }
    }

    fn on_bytes(&mut self, bytes: Option<Result<Bytes, ReadError>>) -> Result<Option<Chunk>, ReadError> {
        let Some(bytes) = bytes.transpose()? else { return self.on_end() };
        let offset = self.offset();
        let advanced = self.frames.advance(bytes.len() as i64);
        advanced.map_err(|e| ReadError::Client(ClientError::Response(e)))?;
        Ok(Some(Chunk { offset, bytes }))
    }
}
