//! Compression and decompression of fragment content, as synchronous writers and readers.
//!
//! Both run wherever they are called; callers keep them off async threads and off the commit path. Memory is bounded by
//! the codec's own windows: 64 KiB blocks for snappy, 32 KiB for gzip, and for Zstandard the window a stream asks for,
//! refused above [`ZSTD_WINDOW_LOG_MAX`]. Decompressors read bytes from outside: they end in an error on anything that
//! is not their format, never in a panic, and never make more of a stream than its reader asks for.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::Codec;

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
    /// One gzip member. Also for content whose decompression is the store's.
    Gzip(GzEncoder<W>),
    /// One Zstandard frame, with a content checksum.
    Zstandard(zstd::stream::write::Encoder<'static, W>),
    /// Snappy framing.
    Snappy(Box<snap::write::FrameEncoder<W>>),
}

impl<W: Write> Compressor<W> {
    /// A compressor into `inner`. `level` is the codec's own scale, clamped to what it knows (gzip 0–9, Zstandard
    /// 1–22); `None` is the library's default. It has no meaning for the other codecs.
    pub fn new(codec: Codec, level: Option<u32>, inner: W) -> io::Result<Compressor<W>> {
        Ok(match codec {
            Codec::None => Compressor::None(inner),
            Codec::Gzip | Codec::GzipOffload => {
                let level = level.map_or(Compression::default(), |level| Compression::new(level.min(9)));
                Compressor::Gzip(GzEncoder::new(inner, level))
            }
            Codec::Zstandard => {
                let level = level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, |level| level.clamp(1, 22) as i32);
                let mut encoder = zstd::stream::write::Encoder::new(inner, level)?;
                encoder.include_checksum(true)?;
                Compressor::Zstandard(encoder)
            }
            Codec::Snappy => Compressor::Snappy(Box::new(snap::write::FrameEncoder::new(inner))),
        })
    }

    /// Writes what is buffered and the end of the stream, and returns the wrapped writer (not flushed).
    pub fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(inner) => Ok(inner),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstandard(encoder) => encoder.finish(),
            Compressor::Snappy(encoder) => {
                encoder.into_inner().map_err(|error| io::Error::other(error.to_string()))
            }
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(inner) => inner.write(content),
            Compressor::Gzip(encoder) => encoder.write(content),
            Compressor::Zstandard(encoder) => encoder.write(content),
            Compressor::Snappy(encoder) => encoder.write(content),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(inner) => inner.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
            Compressor::Zstandard(encoder) => encoder.flush(),
            Compressor::Snappy(encoder) => encoder.flush(),
        }
    }
}

/// A reader of the content of a compressed stream.
pub enum Decompressor<R: Read> {
    /// Passes content through.
    None(R),
    /// Any number of concatenated gzip members.
    Gzip(Box<MultiGzDecoder<R>>),
    /// Any number of concatenated Zstandard frames.
    Zstandard(zstd::stream::read::Decoder<'static, io::BufReader<R>>),
    /// Snappy framing.
    Snappy(Box<snap::read::FrameDecoder<R>>),
}

impl<R: Read> Decompressor<R> {
    /// A reader of the content of `inner`, the file as it is stored. A [`Codec::GzipOffload`] file is gzip; where the
    /// store already decompressed it, read it as [`Codec::None`].
    pub fn new(codec: Codec, inner: R) -> io::Result<Decompressor<R>> {
        Ok(match codec {
            Codec::None => Decompressor::None(inner),
            Codec::Gzip | Codec::GzipOffload => Decompressor::Gzip(Box::new(MultiGzDecoder::new(inner))),
            Codec::Zstandard => {
                let mut decoder = zstd::stream::read::Decoder::new(inner)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Decompressor::Zstandard(decoder)
            }
            Codec::Snappy => Decompressor::Snappy(Box::new(snap::read::FrameDecoder::new(inner))),
        })
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, content: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressor::None(inner) => inner.read(content),
            Decompressor::Gzip(decoder) => decoder.read(content),
            Decompressor::Zstandard(decoder) => decoder.read(content),
            Decompressor::Snappy(decoder) => decoder.read(content),
        }
    }
}

#[cfg(test)]
mod tests;
