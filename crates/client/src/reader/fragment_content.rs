//! Reads fragments from their store, for brokers which are asked not to.
//!
//! A thread which may block opens the fragment ([`super::fragment_file`], [`super::fragment_http`]), decompresses it and
//! skips to the offset; a few chunks are ahead of the reader. The content must be exactly as long as the fragment says, and
//! what is read from the fragment's begin to its end must have its SHA-1 before the last bytes are given.

use super::ReadError;
use super::fragment_file::FileUrl;
use super::fragment_http::HttpUrl;
use crate::client::JournalClient;
use bytes::{Bytes, BytesMut};
use fragment::compress::Decompressor;
use fragment::{Codec, Sum};
use proto::protocol::Fragment;
use sha1::{Digest, Sha1};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Bytes of a chunk.
const CHUNK_BYTES: usize = 128 << 10;
/// Chunks which are read ahead.
const CHUNKS_AHEAD: usize = 8;

/// Where a fragment is read from.
enum Place {
    File(FileUrl),
    Http(HttpUrl),
}

/// A stored fragment's bytes, opened.
pub(super) struct Opened {
    pub(super) bytes: Box<dyn Read>,
    /// How the bytes are compressed.
    pub(super) codec: Codec,
    /// Bytes of content which are skipped already.
    pub(super) skipped: u64,
}

/// The content of a fragment, from an offset.
pub(super) struct FragmentContent {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    url: Arc<str>,
}

/// What to read of a fragment.
pub(super) struct Span {
    pub(super) codec: Codec,
    /// Bytes of content before those which are wanted.
    pub(super) skip: u64,
    /// Bytes which are wanted.
    wanted: u64,
    /// The sum of the whole, if the wanted bytes extend to the fragment's end, so that nothing must follow.
    sum_at_end: Option<Sum>,
}

impl FragmentContent {
    /// Begins to read a fragment at `offset`, up to its end or `end_offset` unless that is zero. An error says that this
    /// client cannot read the URL at all.
    pub(super) fn open(
        client: &JournalClient,
        fragment: &Fragment,
        url: &str,
        offset: i64,
        end_offset: i64,
    ) -> Result<FragmentContent, ReadError> {
        // What follows may be secret.
        let bare: Arc<str> = url.split('?').next().unwrap_or(url).into();
        let unsupported = || ReadError::UnsupportedUrl { url: Arc::clone(&bare) };
        let file = client.options().file_root.as_deref().and_then(|root| FileUrl::parse(root, url));
        let place = match file {
            Some(file) => Place::File(file),
            None => Place::Http(HttpUrl::parse(client, url).ok_or_else(unsupported)?),
        };
        let codec = Codec::try_from(fragment.compression_codec).map_err(|_| unsupported())?;

        let end = if end_offset == 0 { fragment.end } else { fragment.end.min(end_offset) };
        let bytes = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let span = Span {
            codec,
            skip: bytes(fragment.begin, offset),
            wanted: bytes(offset, end),
            sum_at_end: (end == fragment.end).then(|| fragment.sum.as_ref().map_or(Sum::ZERO, Sum::from)),
        };
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        // The reader learns of the end through its channel.
        drop(client.options().tasks.spawn_blocking("read fragment", move || {
            let opened = match place {
                Place::File(file) => file.open(&span),
                Place::Http(url) => url.open(&span),
            };
            if let Err(error) = opened.and_then(|opened| span.read(opened, &sender)) {
                let _ = sender.blocking_send(Err(error));
            }
        }));
        Ok(FragmentContent { chunks, url: bare })
    }

    /// The next bytes; None is the end of what was asked for.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, ReadError>> {
        let chunk = self.chunks.recv().await?;
        Some(
            chunk.map_err(|error| ReadError::Fragment { url: Arc::clone(&self.url), error: Arc::new(error) }),
        )
    }
}

impl Span {
    fn read(&self, opened: Opened, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let skip = self.skip - opened.skipped;
        let hasher = (opened.skipped == 0 && self.sum_at_end.is_some()).then(Sha1::new);
        let mut content = Content { bytes: Decompressor::new(opened.codec, opened.bytes)?, hasher };
        if io::copy(&mut content.by_ref().take(skip), &mut io::sink())? < skip {
            return Err(too_short());
        }
        let mut wanted = self.wanted;
        while wanted != 0 {
            let mut chunk = BytesMut::zeroed(wanted.min(CHUNK_BYTES as u64) as usize);
            let read = content.read(&mut chunk)?;
            if read == 0 {
                return Err(too_short());
            }
            chunk.truncate(read);
            wanted -= read as u64;
            if wanted == 0
                && let Some(expected) = self.sum_at_end
            {
                content.check_end(expected)?;
            }
            if chunks.blocking_send(Ok(chunk.freeze())).is_err() {
                return Ok(()); // The reader is gone.
            }
        }
        Ok(())
    }
}

/// Content on its way, hashed if all of it is seen.
struct Content {
    bytes: Decompressor<Box<dyn Read>>,
    hasher: Option<Sha1>,
}

impl Content {
    /// Requires that nothing follows, and that all of it has the expected sum.
    fn check_end(&mut self, expected: Sum) -> io::Result<()> {
        let invalid = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        if self.bytes.read(&mut [0])? != 0 {
            return invalid("did not read EOF at expected Fragment.End".to_owned());
        }
        match self.hasher.take().map(Sum::finish) {
            Some(found) if found != expected => {
                invalid(format!("it has SHA-1 {found} (expected {expected})"))
            }
            _ => Ok(()),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "fragment file ends before Fragment.End")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_and_its_length_checked() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"0123456789").unwrap();
        let read_with = |skip, wanted, sum_at_end| {
            let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
            let span = Span { codec: Codec::None, skip, wanted, sum_at_end };
            let file = FileUrl(file.path().to_owned()).open(&span)?;
            span.read(file, &sender)?;
            drop(sender);
            let mut all = Vec::new();
            while let Ok(chunk) = chunks.try_recv() {
                all.extend_from_slice(&chunk.unwrap());
            }
            io::Result::Ok(String::from_utf8(all).unwrap())
        };
        let sum = Sum::of(b"0123456789");
        let read = |skip, wanted, to_end: bool| read_with(skip, wanted, to_end.then_some(sum));
        assert_eq!(read(2, 8, true).unwrap(), "23456789");
        assert_eq!(read(2, 3, false).unwrap(), "234");
        assert_eq!(read(0, 10, true).unwrap(), "0123456789");
        assert_eq!(read(2, 9, true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(11, 1, true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(2, 7, true).unwrap_err().to_string(), "did not read EOF at expected Fragment.End");
        let other = Sum::of(b"9876543210");
        let error = read_with(0, 10, Some(other)).unwrap_err().to_string();
        assert_eq!(error, format!("it has SHA-1 {sum} (expected {other})"));
    }
}
