//! Compression and decompression of fragment content, as synchronous writers and readers.
//!
//! What is written in GZIP, ZSTANDARD and SNAPPY can be entered in the middle: it consists of blocks of [`BLOCK_BYTES`]
//! and, where there are several, an index of them ([`SeekIndex`]). Every tool of the format reads it. What others wrote can
//! be entered where its decompressor has noted it ([`Entry`]), and gzip where a member begins ([`gzip_members`]).
//!
//! All of this runs wherever it is called; callers keep it off async threads and off the commit path. Memory is bounded by a
//! block when writing, and when reading by the codec's own windows: 64 KiB for snappy, 256 KiB for gzip, and for Zstandard
//! the window a stream asks for, refused above [`ZSTD_WINDOW_LOG_MAX`]. Decompressors read bytes from outside: they end
//! in an error on anything that is not their format, never in a panic, and never make more of a stream than its reader
//! asks for.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::Codec;

mod block_reader;
mod blocks;
mod decompressor;
mod entry;
mod gzip;
mod members;
mod seek_index;
mod snappy;
mod source;
mod zstandard;

pub use block_reader::BlockReader;
pub use blocks::{BLOCK_BYTES, BlockWriter, decode_block};
pub use decompressor::Decompressor;
pub use entry::{ENTRIES_MAX, ENTRY_SPACING_BYTES, Entry, Noting};
pub use members::gzip_members;
pub use seek_index::{BLOCK_CONTENT_BYTES_MAX, Block, INDEX_BYTES_MAX, SeekIndex, TAIL_BYTES, Tail};
pub use source::SkipRead;

/// Base-two logarithm of the largest Zstandard window accepted when reading: 128 MiB, the format's customary limit, so
/// that whatever a conforming writer made at any level without asking for "ultra" windows can be read.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Compression levels by codec, each on its codec's own scale and clamped to what that knows (gzip 0–9, Zstandard 1–22).
/// `None` is the library's default: gzip 6, Zstandard 3. Snappy has no levels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Of [`Codec::Gzip`] and [`Codec::GzipOffload`].
    pub gzip: Option<u32>,
    /// Of [`Codec::Zstandard`].
    pub zstandard: Option<u32>,
}

impl Levels {
    /// The level of `codec`, to be given to [`Compressor::new`].
    pub fn of(&self, codec: Codec) -> Option<u32> {
        match codec {
            Codec::Gzip | Codec::GzipOffload => self.gzip,
            Codec::Zstandard => self.zstandard,
            Codec::None | Codec::Snappy => None,
        }
    }
}

/// A writer which compresses what it is given into the writer it wraps. Dropping it without [`Compressor::finish`]
/// leaves a truncated stream.
pub enum Compressor<W: Write> {
    /// Passes content through.
    None(W),
    /// One gzip member, for content whose decompression is the store's.
    Member(GzEncoder<W>),
    /// Blocks and their index.
    Blocks(BlockWriter<W>),
}

impl<W: Write> Compressor<W> {
    /// A compressor into `inner`. `level` is the codec's own scale, clamped to what it knows (gzip 0–9, Zstandard
    /// 1–22); `None` is the library's default. It has no meaning for the other codecs.
    pub fn new(codec: Codec, level: Option<u32>, inner: W) -> io::Result<Compressor<W>> {
        let gzip_level = level.map_or(Compression::default(), |level| Compression::new(level.min(9)));
        Ok(match codec {
            Codec::None => Compressor::None(inner),
            Codec::GzipOffload => Compressor::Member(GzEncoder::new(inner, gzip_level)),
            Codec::Gzip => Compressor::Blocks(BlockWriter::gzip(gzip_level, inner)),
            Codec::Zstandard => {
                let level = level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, |level| level.clamp(1, 22) as i32);
                Compressor::Blocks(BlockWriter::zstandard(level, inner)?)
            }
            Codec::Snappy => Compressor::Blocks(BlockWriter::snappy(inner)),
        })
    }

    /// Writes what is buffered and the end of the stream, and returns the wrapped writer (not flushed).
    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(inner) => Ok(inner),
            Compressor::Member(encoder) => encoder.finish(),
            Compressor::Blocks(writer) => writer.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(inner) => inner.write(content),
            Compressor::Member(encoder) => encoder.write(content),
            Compressor::Blocks(writer) => writer.write(content),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(inner) => inner.flush(),
            Compressor::Member(encoder) => encoder.flush(),
            Compressor::Blocks(writer) => writer.flush(),
        }
    }
}

/// An error about bytes which are not what they should be.
fn wrong(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// An error about a stream that ends too early.
fn incomplete(part: &str) -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, format!("incomplete {part}"))
}

#[cfg(test)]
mod tests;
