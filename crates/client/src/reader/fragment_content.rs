//! Reads fragments from their store, for brokers which are asked not to.
//!
//! A thread which may block opens the fragment ([`super::fragment_file`], [`super::fragment_http`]) and decompresses it; a
//! few chunks are ahead of the reader. A read that begins deep in a fragment begins at a block, if the end of the file has an
//! index ([`SeekIndex`]), and else passes over what is before. The content must be exactly as long as the fragment says, and
//! what is read from the fragment's begin, or from near it, to its end must have its SHA-1 before the last bytes are given.

use super::ReadError;
use super::fragment_file::FileUrl;
use super::fragment_http::HttpUrl;
use crate::client::{JournalClient, bare_name};
use crate::series::FragmentCounts;
use bytes::{Bytes, BytesMut};
use fragment::compress::{
    BLOCK_BYTES, Block, BlockReader, Decompressor, SeekIndex, SkipRead, TAIL_BYTES, Tail,
};
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

/// Where a fragment's file is. Its methods block.
pub(super) trait Place: Send {
    /// The file from `begin` on or, if the place cannot give that, from its beginning.
    fn open(&self, begin: u64) -> io::Result<Opened>;

    /// The last `bytes` bytes of the file, or all of it, and how many bytes it has. None if the place cannot give that.
    fn end(&self, bytes: u64) -> io::Result<Option<(Vec<u8>, u64)>>;
}

/// A stored fragment's bytes, opened.
pub(super) struct Opened {
    pub(super) bytes: Box<dyn SkipRead>,
    /// How the bytes are compressed, where they begin with the file.
    pub(super) codec: Codec,
    /// Where they begin in the file.
    pub(super) begin: u64,
    /// How many they are, if that is known.
    pub(super) stored: Option<u64>,
}

/// The content of a fragment, from an offset.
pub(super) struct FragmentContent {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    url: Arc<str>,
}

/// What to read of a fragment.
pub(super) struct Span {
    codec: Codec,
    /// Bytes of content.
    length: u64,
    /// Bytes of content before those which are wanted.
    skip: u64,
    /// Bytes which are wanted.
    wanted: u64,
    /// The sum of the whole, if the wanted bytes extend to the fragment's end, so that nothing must follow.
    sum_at_end: Option<Sum>,
    /// Where this is counted, if it is.
    counts: Option<FragmentCounts>,
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
        let file = client.options().file_root.as_deref().and_then(|root| FileUrl::path(root, url));
        let codec = Codec::try_from(fragment.compression_codec).map_err(|_| unsupported())?;
        let place: Box<dyn Place> = match file {
            Some(path) => Box::new(FileUrl { path, codec }),
            None => Box::new(HttpUrl::parse(client, url, codec).ok_or_else(unsupported)?),
        };

        let end = if end_offset == 0 { fragment.end } else { fragment.end.min(end_offset) };
        let bytes = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
        let span = Span {
            codec,
            length: bytes(fragment.begin, fragment.end),
            skip: bytes(fragment.begin, offset),
            wanted: bytes(offset, end),
            sum_at_end: (end == fragment.end).then(|| fragment.sum.as_ref().map_or(Sum::ZERO, Sum::from)),
            counts: client.series().map(|series| series.fragments(bare_name(&fragment.journal), codec)),
        };
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        // The reader learns of the end through its channel.
        drop(client.options().tasks.spawn_blocking("read fragment", move || {
            if let Err(error) = span.read(&*place, &sender) {
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
    fn read(&self, place: &dyn Place, chunks: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
        let mut content = self.open(place)?;
        if let Some(counts) = &self.counts {
            counts.discarded.inc_by(content.passed_over);
        }
        let mut wanted = self.wanted;
        while wanted != 0 {
            let mut chunk = BytesMut::zeroed(wanted.min(CHUNK_BYTES as u64) as usize);
            let read = content.read(&mut chunk)?;
            if read == 0 {
                return Err(too_short());
            }
            chunk.truncate(read);
            if let Some(counts) = &self.counts {
                counts.read.inc_by(read as u64);
            }
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

    /// Opens the content at the beginning of what is wanted.
    fn open(&self, place: &dyn Place) -> io::Result<Content> {
        if self.codec == Codec::None && self.skip > 0 {
            let opened = self.open_at(place, self.skip)?;
            let before = self.skip - opened.begin;
            return Content::stream(opened)?.pass_over(before);
        }
        // The first block, and all of a small fragment, is read from the beginning, which checks more.
        if self.skip < BLOCK_BYTES as u64 {
            let hasher = self.sum_at_end.map(|_| Sha1::new());
            return Content { hasher, ..Content::stream(self.open_at(place, 0)?)? }.pass_over(self.skip);
        }
        let Some((index, block)) = self.find_block(place)? else {
            return Content::stream(self.open_at(place, 0)?)?.pass_over(self.skip);
        };
        let opened = self.open_at(place, block.stored.start)?;
        if opened.begin == 0 {
            return Content::stream(opened)?.pass_over(self.skip);
        }
        let blocks = BlockReader::new(self.codec, opened.bytes, index.into(), block.number);
        let content = Content::new(Decompressed::Blocks(blocks));
        content.pass_over(self.skip - block.content.start)
    }

    fn open_at(&self, place: &dyn Place, begin: u64) -> io::Result<Opened> {
        let opened = place.open(begin)?;
        if let Some(counts) = &self.counts {
            counts.open(self.length, opened.stored);
        }
        Ok(opened)
    }

    /// The block in which what is wanted begins, if the end of the file has an index and the block is not the first one.
    fn find_block(&self, place: &dyn Place) -> io::Result<Option<(SeekIndex, Block)>> {
        if self.codec == Codec::GzipOffload {
            return Ok(None);
        }
        let mut bytes = TAIL_BYTES;
        for _ in 0..2 {
            let Some((end, stored)) = place.end(bytes)? else { return Ok(None) };
            match SeekIndex::read(self.codec, &end, stored, self.length) {
                Tail::Longer(longer) => bytes = longer,
                Tail::Nothing => return Ok(None),
                Tail::Index(index) => {
                    let block = index.block_at(self.skip).filter(|block| block.number > 0);
                    return Ok(block.map(|block| (index, block)));
                }
            }
        }
        Ok(None)
    }
}

/// Content on its way, hashed if all of it is seen.
struct Content {
    bytes: Decompressed,
    hasher: Option<Sha1>,
    /// Bytes that were passed over.
    passed_over: u64,
}

enum Decompressed {
    Stream(Decompressor<Box<dyn SkipRead>>),
    Blocks(BlockReader<Box<dyn SkipRead>>),
}

impl Content {
    fn stream(opened: Opened) -> io::Result<Content> {
        Ok(Content::new(Decompressed::Stream(Decompressor::new(opened.codec, opened.bytes)?)))
    }

    fn new(bytes: Decompressed) -> Content {
        Content { bytes, hasher: None, passed_over: 0 }
    }

    /// Passes over `bytes` bytes.
    fn pass_over(mut self, bytes: u64) -> io::Result<Content> {
        if let (Decompressed::Stream(stream), None) = (&mut self.bytes, &self.hasher) {
            stream.pass_over(bytes)?;
        } else if io::copy(&mut self.by_ref().take(bytes), &mut io::sink())? < bytes {
            return Err(too_short());
        }
        self.passed_over += bytes;
        Ok(self)
    }

    /// Requires that nothing follows, and that all of it has the expected sum.
    fn check_end(&mut self, expected: Sum) -> io::Result<()> {
        let invalid = |problem: String| Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        let hasher = self.hasher.take();
        if self.read(&mut [0])? != 0 {
            return invalid("did not read EOF at expected Fragment.End".to_owned());
        }
        match hasher.map(Sum::finish) {
            Some(found) if found != expected => {
                invalid(format!("it has SHA-1 {found} (expected {expected})"))
            }
            _ => Ok(()),
        }
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.bytes {
            Decompressed::Stream(stream) => stream.read(buffer)?,
            Decompressed::Blocks(blocks) => blocks.read(buffer)?,
        };
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
            let span = Span { codec: Codec::None, length: 10, skip, wanted, sum_at_end, counts: None };
            let file = FileUrl { path: file.path().to_owned(), codec: Codec::None };
            span.read(&file, &sender)?;
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
