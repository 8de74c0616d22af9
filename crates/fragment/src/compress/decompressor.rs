//! Decompression of a stream.

use std::io::{self, Read};

use super::entry::{Entry, Notes, Noting};
use super::gzip::Gzip;
use super::snappy::Snappy;
use super::source::{SkipRead, Source};
use super::zstandard::Zstandard;
use crate::Codec;

/// Content that is decompressed at once to be passed over, bytes.
const PASS_BYTES: usize = 256 << 10;

/// A reader of the content of a compressed stream. It can note on its way where the stream can be entered ([`Entry`]).
pub struct Decompressor<R: Read> {
    source: Source<R>,
    format: Format,
    notes: Notes,
}

enum Format {
    /// Content as it is.
    None,
    /// Any number of concatenated gzip members.
    Gzip(Box<Gzip>),
    /// Any number of concatenated Zstandard frames.
    Zstandard(Zstandard),
    /// Snappy framing.
    Snappy(Box<Snappy>),
}

impl<R: Read> Decompressor<R> {
    /// A reader of the content of `inner`, the file as it is stored. A [`Codec::GzipOffload`] file is gzip; where the
    /// store already decompressed it, read it as [`Codec::None`].
    pub fn new(codec: Codec, inner: R) -> io::Result<Decompressor<R>> {
        let notes = Notes::new(None, 0);
        Ok(Decompressor { source: Source::new(inner, 0), format: Format::new(codec, false)?, notes })
    }

    /// A reader of a file of `content_length` bytes of content, which notes where it can be entered.
    pub fn noting(
        codec: Codec,
        inner: R,
        noting: Noting,
        content_length: u64,
    ) -> io::Result<Decompressor<R>> {
        let format = Format::new(codec, noting == Noting::Everywhere)?;
        let notes = Notes::new(Some(content_length), 0);
        Ok(Decompressor { source: Source::new(inner, 0), format, notes })
    }

    /// A reader of the content from `entry` on, of which `inner` reads what is stored. It notes entries everywhere.
    pub fn enter(codec: Codec, inner: R, entry: &Entry, content_length: u64) -> io::Result<Decompressor<R>> {
        let format = match codec {
            Codec::Gzip | Codec::GzipOffload => Format::Gzip(Box::new(Gzip::enter(entry))),
            Codec::Snappy => Format::Snappy(Box::new(Snappy::new(true))),
            Codec::None | Codec::Zstandard => Format::new(codec, false)?,
        };
        let notes = Notes::new(Some(content_length), entry.content);
        Ok(Decompressor { source: Source::new(inner, entry.stored), format, notes })
    }

    /// The entries that were noted and not taken yet, in order.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        self.notes.take()
    }
}

impl Format {
    /// At the beginning. `is_copyable` says whether gzip is to be entered anywhere.
    fn new(codec: Codec, is_copyable: bool) -> io::Result<Format> {
        Ok(match codec {
            Codec::None => Format::None,
            Codec::Gzip | Codec::GzipOffload => Format::Gzip(Box::new(Gzip::new(is_copyable))),
            Codec::Zstandard => Format::Zstandard(Zstandard::new()?),
            Codec::Snappy => Format::Snappy(Box::new(Snappy::new(false))),
        })
    }
}

impl<R: SkipRead> Decompressor<R> {
    /// Passes over `bytes` bytes of content, at less cost than reading them.
    ///
    /// # Errors
    /// If there are not so many, which may also show at the next read.
    pub fn pass_over(&mut self, mut bytes: u64) -> io::Result<()> {
        match &mut self.format {
            Format::None => return self.source.skip(bytes),
            Format::Snappy(snappy) => return snappy.pass_over(&mut self.source, bytes, &mut self.notes),
            Format::Gzip(_) | Format::Zstandard(_) => {}
        }
        let mut buffer = vec![0; PASS_BYTES.min(usize::try_from(bytes).unwrap_or(PASS_BYTES))];
        while bytes > 0 {
            let wanted = buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
            match self.read(&mut buffer[..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => bytes -= read as u64,
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, content: &mut [u8]) -> io::Result<usize> {
        match &mut self.format {
            Format::None => self.source.read(content),
            Format::Gzip(gzip) => gzip.read(&mut self.source, content, &mut self.notes),
            Format::Zstandard(zstandard) => zstandard.read(&mut self.source, content, &mut self.notes),
            Format::Snappy(snappy) => snappy.read(&mut self.source, content, &mut self.notes),
        }
    }
}
