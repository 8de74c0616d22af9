//! Framings: how messages are laid out one after the other in a journal (journal messages §2.3).
//!
//! A framing is chosen by the journal's `content-type` label. Splitting is pure: the caller offers the bytes it has, and
//! learns the extent of the first frame, or that more bytes are needed. A splitter never reaches past the frame which it
//! returns, since the offsets of messages follow from it.

use crate::{Message, MessageError, csv, fixed};
use std::fmt;
use std::ops::Range;

/// A layout of messages in a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One JSON document per line.
    Json,
    /// A magic, the length, and a payload (usually protobuf).
    Fixed,
    /// Comma-separated values as of RFC 4180.
    Csv,
}

/// A content type for which there is no framing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unrecognized content-type ({0})")]
pub struct UnknownContentType(pub String);

/// What the front of a buffer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Split {
    /// A whole frame: the next message begins `consumed` bytes further, and its payload is at `payload` of the buffer.
    Frame {
        /// Bytes up to the next frame, at least one.
        consumed: usize,
        /// Where [`Message::decode`] finds the message: a JSON document, a fixed payload, a CSV record.
        payload: Range<usize>,
    },
    /// The frame ends past the buffer, and more bytes may come.
    NeedMore,
    /// There is no frame here. The caller may skip `skip` bytes and go on.
    Desync {
        /// Bytes up to what may be the next frame.
        skip: usize,
    },
    /// The input ended, and it ended between frames.
    End,
    /// The input ended within a frame.
    Truncated,
}

impl Framing {
    /// The framing of a `content-type` label. Recovery logs have none: they hold more than messages.
    pub fn by_content_type(content_type: &str) -> Result<Framing, UnknownContentType> {
        [Framing::Json, Framing::Fixed, Framing::Csv]
            .into_iter()
            .find(|framing| framing.content_type() == content_type)
            .ok_or_else(|| UnknownContentType(content_type.to_owned()))
    }

    /// The `content-type` label of this framing.
    pub fn content_type(self) -> &'static str {
        match self {
            Framing::Json => "application/x-ndjson",
            Framing::Fixed => "application/x-protobuf-fixed",
            Framing::Csv => "text/csv",
        }
    }

    /// The first frame of `buffer`, which begins at a frame. `eof` says that no bytes follow the buffer.
    pub fn split(self, buffer: &[u8], eof: bool) -> Split {
        match self {
            Framing::Json => split_line(buffer, 0, eof),
            Framing::Fixed => fixed::split(buffer, eof),
            Framing::Csv => csv::split(buffer, eof),
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.content_type())
    }
}

/// The first line of `buffer`, of which the first `scanned` bytes are known to hold no line feed.
fn split_line(buffer: &[u8], scanned: usize, eof: bool) -> Split {
    match memchr::memchr(b'\n', &buffer[scanned..]) {
        Some(index) => Split::Frame { consumed: scanned + index + 1, payload: 0..scanned + index },
        None if !eof => Split::NeedMore,
        None if buffer.is_empty() => Split::End,
        None => Split::Truncated,
    }
}

/// Splits and decodes the frames of one input in order. Remembers what a framing carries from frame to frame.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    /// Bytes of the current line which are known to hold no line feed, so that long lines are scanned once.
    scanned: usize,
    /// Fields of the first CSV record: all others must have as many.
    fields: Option<usize>,
    /// Line feeds before the current frame.
    lines: u64,
}

impl Decoder {
    /// A decoder of an input which begins at a frame.
    pub fn new(framing: Framing) -> Decoder {
        Decoder { framing, scanned: 0, fields: None, lines: 0 }
    }

    /// The framing which is decoded.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// As [`Framing::split`]. After `NeedMore` the next call must offer the same bytes and more.
    pub fn split(&mut self, buffer: &[u8], eof: bool) -> Split {
        if self.framing != Framing::Json {
            return self.framing.split(buffer, eof);
        }
        let split = split_line(buffer, self.scanned.min(buffer.len()), eof);
        self.scanned = if split == Split::NeedMore { buffer.len() } else { 0 };
        split
    }

    /// Decodes a frame of `buffer` which `split` returned into a fresh message. The frame is done with, also on error.
    pub fn decode<M: Message>(
        &mut self,
        buffer: &[u8],
        consumed: usize,
        payload: Range<usize>,
        message: &mut M,
    ) -> Result<(), MessageError> {
        if self.framing == Framing::Csv {
            let line = self.lines + 1 + count_lines(&buffer[..payload.start]);
            self.lines += count_lines(&buffer[..consumed]);
            let found = csv::count_fields(&buffer[payload.clone()]);
            if *self.fields.get_or_insert(found) != found {
                return Err(csv::CsvError::FieldCount { line }.into());
            }
        }
        message.decode(self.framing, &buffer[payload])
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests;
