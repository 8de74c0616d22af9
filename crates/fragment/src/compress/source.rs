//! The stored bytes of a stream, and how many of them were taken.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};

/// Stored bytes which are asked for at once.
const READ_BYTES: usize = 128 << 10;

/// A reader of which bytes can be passed over, at less cost than reading them.
pub trait SkipRead: Read {
    /// Passes over `bytes` bytes.
    ///
    /// # Errors
    /// If there are not so many, which may also show at the next read.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

impl<R: SkipRead + ?Sized> SkipRead for Box<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        (**self).skip(bytes)
    }
}

/// Beyond the end of a file there is nothing to read.
impl SkipRead for File {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.seek_relative(bytes)
    }
}

/// A buffered reader that knows its position.
pub(super) struct Source<R> {
    reader: BufReader<R>,
    position: u64,
}

impl<R: Read> Source<R> {
    /// A source of `inner`, which is at `position` of what is stored.
    pub(super) fn new(inner: R, position: u64) -> Source<R> {
        Source { reader: BufReader::with_capacity(READ_BYTES, inner), position }
    }

    /// Where the next byte is in what is stored.
    pub(super) fn position(&self) -> u64 {
        self.position
    }
}

impl<R: SkipRead> SkipRead for Source<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let buffered = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.reader.buffer().len());
        self.reader.consume(buffered);
        if bytes > buffered as u64 {
            self.reader.get_mut().skip(bytes - buffered as u64)?;
        }
        self.position = self.position.saturating_add(bytes);
        Ok(())
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl<R: Read> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.position += bytes as u64;
    }
}
