//! Messages of a journal, as they were written.

use crate::client::{JournalClient, bare_name};
use crate::error::ClientError;
use crate::reader::{ReadError, RetryReader};
use bytes::{Buf, BytesMut};
use message::{BoxError, Decoder, Envelope, Framing, Message, MessageError, Split};
use proto::labels;
use proto::protocol::{JournalSpec, LabelSelector, ReadRequest};
use std::sync::Arc;

/// Bytes of the largest frame which is read: a bound for what a corrupt length can make a reader hold.
pub const FRAME_BYTES_MAX: usize = 1 << 30;

/// Makes fresh messages of a journal, to be decoded into.
pub type NewMessage<M> = Arc<dyn Fn(&JournalSpec) -> Result<M, BoxError> + Send + Sync>;

/// What to do about content which is gone from a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// Log a warning, and read on behind it: messages are lost, and the reader should catch up.
    Warn,
    /// Fail: the reader knows that there were messages.
    Fail,
}

/// Why there is no message (now).
#[derive(Debug, thiserror::Error)]
pub enum IterError {
    /// The end of what was asked for, between messages; or, if the request does not block, of the journal.
    #[error(transparent)]
    End(ReadError),
    /// The end of what was asked for, within a message.
    #[error("unexpected EOF")]
    UnexpectedEof,
    /// The journal's specification could not be had.
    #[error("fetching journal spec: {0}")]
    Spec(SpecError),
    /// The journal holds no messages.
    #[error("determining framing: {0}")]
    Framing(message::UnknownContentType),
    /// The application has no message for the journal.
    #[error("newMessage: {0}")]
    NewMessage(BoxError),
    /// A frame cannot be decoded. The next call goes on behind it.
    #[error("framing.Unmarshal(offset {offset}): {error}")]
    Unmarshal {
        /// Where the frame begins.
        offset: i64,
        /// What is wrong with it.
        error: MessageError,
    },
    /// There is no frame where one should begin. The next call goes on behind what was skipped.
    #[error("framing.Unmarshal(offset {offset}): detected de-synchronization (skipped {skipped} bytes)")]
    Desync {
        /// Where a frame should begin.
        offset: i64,
        /// Bytes which were skipped.
        skipped: usize,
    },
    /// A frame is larger than any that is read.
    #[error("frame at offset {offset} exceeds {FRAME_BYTES_MAX} bytes")]
    TooLarge {
        /// Where the frame begins.
        offset: i64,
    },
    /// Content is gone, and its loss is not accepted.
    #[error("content from {from} to {to} is gone")]
    Gap {
        /// Offset of the first byte which is gone.
        from: i64,
        /// Offset of the next byte which is there.
        to: i64,
    },
    /// Reading failed.
    #[error(transparent)]
    Read(ReadError),
}

/// Why a journal's specification could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The listing failed.
    #[error(transparent)]
    List(ClientError),
    /// There is no such journal.
    #[error("named journal does not exist ({0})")]
    NotFound(String),
}

impl IterError {
    /// Whether this is the end of what was asked for, rather than a failure.
    pub fn is_eof(&self) -> bool {
        matches!(self, IterError::End(error) if error.is_eof())
    }
}

impl JournalClient {
    /// The specification of one journal, given with or without `;meta`.
    pub async fn journal_spec(&self, journal: &str) -> Result<JournalSpec, SpecError> {
        let name = bare_name(journal);
        let selector = LabelSelector::include([(labels::NAME, name)]);
        let listing = self.list(selector).await.map_err(SpecError::List)?;
        let specs = listing.journals.into_iter().filter_map(|journal| journal.spec);
        specs.into_iter().find(|spec| spec.name == name).ok_or_else(|| SpecError::NotFound(name.to_owned()))
    }
}

/// What is known once the journal's specification was fetched.
struct Opened {
    spec: Arc<JournalSpec>,
    decoder: Decoder,
}

/// Reads messages as they were written: of whatever producer, committed or not, and again if they were written again.
pub struct UncommittedReader<M> {
    reader: RetryReader,
    journal: Arc<str>,
    new_message: NewMessage<M>,
    gap: Gap,
    opened: Option<Opened>,
    /// Bytes from `offset`, not yet decoded.
    buffer: BytesMut,
    offset: i64,
    /// No bytes follow the buffer.
    ended: Option<ReadError>,
}

impl<M: Message> UncommittedReader<M> {
    /// A reader of `request`, which begins at a frame. The journal's specification, and with it the framing, is fetched
    /// when the first message is asked for.
    pub fn new(
        client: JournalClient,
        request: ReadRequest,
        new_message: NewMessage<M>,
    ) -> UncommittedReader<M> {
        UncommittedReader {
            journal: request.journal.as_str().into(),
            offset: request.offset,
            reader: RetryReader::new(client, request),
            new_message,
            gap: Gap::Warn,
            opened: None,
            buffer: BytesMut::new(),
            ended: None,
        }
    }

    /// A reader of `begin..end` of the same journal, for a replay: it fails if anything of it is gone.
    pub fn replay(&self, begin: i64, end: i64) -> UncommittedReader<M> {
        let request =
            ReadRequest { offset: begin, end_offset: end, block: true, ..self.reader.request().clone() };
        let mut replay =
            UncommittedReader::new(self.reader.client().clone(), request, Arc::clone(&self.new_message));
        replay.journal = Arc::clone(&self.journal);
        replay.gap = Gap::Fail;
        replay.opened = self.opened.as_ref().map(|opened| Opened {
            spec: Arc::clone(&opened.spec),
            decoder: Decoder::new(opened.decoder.framing()),
        });
        replay
    }

    /// What to do about content which is gone. The default is to warn.
    pub fn with_gap(mut self, gap: Gap) -> UncommittedReader<M> {
        self.gap = gap;
        self
    }

    /// The journal, as it was requested. Envelopes share it.
    pub fn journal(&self) -> &Arc<str> {
        &self.journal
    }

    /// Offset of the next frame; −1 if the write head was requested and is not known yet.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// The journal's end, as a broker last said; zero before.
    pub fn write_head(&self) -> i64 {
        self.reader.write_head()
    }

    /// The journal's specification, once it was fetched.
    pub fn spec(&self) -> Option<&Arc<JournalSpec>> {
        self.opened.as_ref().map(|opened| &opened.spec)
    }

    /// The next message. Cancel safe: a call which is dropped while it waits loses nothing.
    pub async fn next(&mut self) -> Result<Envelope<M>, IterError> {
        if self.opened.is_none() {
            self.open().await?;
        }
        loop {
            if let Some(envelope) = self.take_frame()? {
                return Ok(envelope);
            }
            self.fill().await?;
        }
    }

    async fn open(&mut self) -> Result<(), IterError> {
        let spec = self.reader.client().journal_spec(&self.journal).await.map_err(IterError::Spec)?;
        let content_type = spec.label_set().value_of(labels::CONTENT_TYPE).unwrap_or("");
        let framing = Framing::by_content_type(content_type).map_err(IterError::Framing)?;
        self.opened = Some(Opened { spec: Arc::new(spec), decoder: Decoder::new(framing) });
        Ok(())
    }

    /// Decodes the frame at the front of the buffer, if it is all there.
    fn take_frame(&mut self) -> Result<Option<Envelope<M>>, IterError> {
        let Some(Opened { spec, decoder }) = &mut self.opened else { return Ok(None) };
        let begin = self.offset;
        let (consumed, payload) = match decoder.split(&self.buffer, self.ended.is_some()) {
            Split::Frame { consumed, payload } => (consumed, payload),
            Split::NeedMore if self.buffer.len() > FRAME_BYTES_MAX => {
                return Err(IterError::TooLarge { offset: begin });
            }
            Split::NeedMore => return Ok(None),
            Split::Desync { skip } => {
                self.advance(skip);
                return Err(IterError::Desync { offset: begin, skipped: skip });
            }
            Split::Truncated => return Err(IterError::UnexpectedEof),
            Split::End => {
                self.advance(self.buffer.len());
                return self.ended.take().map_or(Ok(None), |error| Err(IterError::End(error)));
            }
        };
        let message = (self.new_message)(spec).map_err(IterError::NewMessage);
        let decoded = message.and_then(|mut message| {
            let decoded = decoder.decode(&self.buffer, consumed, payload, &mut message);
            decoded.map(|()| message).map_err(|error| IterError::Unmarshal { offset: begin, error })
        });
        self.advance(consumed);
        let message = decoded?;
        Ok(Some(Envelope { journal: Arc::clone(&self.journal), begin, end: self.offset, message }))
    }

    fn advance(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
        self.offset += bytes as i64;
    }

    /// Adds the reader's next bytes to the buffer.
    async fn fill(&mut self) -> Result<(), IterError> {
        match self.reader.next().await {
            Ok(chunk) => {
                if self.buffer.is_empty() {
                    self.offset = chunk.offset;
                }
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(())
            }
            Err(ReadError::OffsetJump { from, to }) => self.on_jump(from, to),
            Err(error @ ReadError::EndOffset) => {
                self.ended = Some(error);
                Ok(())
            }
            Err(error @ ReadError::NotYetAvailable { .. }) => Err(IterError::End(error)),
            Err(error) => Err(IterError::Read(error)),
        }
    }

    /// A frame which began before a gap cannot be completed.
    fn on_jump(&mut self, from: i64, to: i64) -> Result<(), IterError> {
        if self.gap == Gap::Fail {
            return Err(IterError::Gap { from, to });
        }
        let lost_frame_bytes = self.buffer.len();
        tracing::warn!(journal = &*self.journal, from, to, lost_frame_bytes, "content is gone; reading on");
        self.buffer.clear();
        self.offset = to;
        if let Some(opened) = &mut self.opened {
            opened.decoder = Decoder::new(opened.decoder.framing());
        }
        Ok(())
    }
}
