//! Files of blocks: compression that can be entered in the middle.
//!
//! Content is cut into blocks of [`BLOCK_BYTES`], and each is compressed into a complete stream of its format: a gzip member, a
//! Zstandard frame, or snappy chunks behind a stream identifier. Their concatenation is a stream of the format too,
//! which every tool reads. After the last block comes the file's index ([`super::SeekIndex`]).

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::seek_index::Written;
use super::wrong;
use crate::Codec;

/// Content of each block but the last, bytes.
pub const BLOCK_BYTES: usize = 1 << 20;

/// What every snappy stream begins with.
pub(super) const SNAPPY_IDENTIFIER: &[u8; 10] = b"\xff\x06\x00\x00sNaPpY";

/// Compresses one block after the other. Memory: a block, and what it may be compressed to.
pub struct BlockWriter<W: Write> {
    packer: Packer,
    /// Content of the block to come.
    block: Vec<u8>,
    packed: Vec<u8>,
    written: Written,
    inner: W,
}

enum Packer {
    Gzip(Compression),
    Zstandard(Box<zstd::bulk::Compressor<'static>>),
    Snappy,
}

impl<W: Write> BlockWriter<W> {
    pub(super) fn gzip(level: Compression, inner: W) -> BlockWriter<W> {
        BlockWriter::new(Packer::Gzip(level), inner)
    }

    pub(super) fn zstandard(level: i32, inner: W) -> io::Result<BlockWriter<W>> {
        let mut compressor = zstd::bulk::Compressor::new(level)?;
        compressor.include_checksum(true)?;
        Ok(BlockWriter::new(Packer::Zstandard(Box::new(compressor)), inner))
    }

    pub(super) fn snappy(inner: W) -> BlockWriter<W> {
        BlockWriter::new(Packer::Snappy, inner)
    }

    fn new(packer: Packer, inner: W) -> BlockWriter<W> {
        BlockWriter { packer, block: Vec::new(), packed: Vec::new(), written: Written::default(), inner }
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() || self.written.is_empty() {
            self.write_block()?;
        }
        let index = self.written.index(self.packer.codec());
        self.inner.write_all(&index)?;
        Ok(self.inner)
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.packed.clear();
        self.packer.pack(&self.block, &mut self.packed)?;
        self.inner.write_all(&self.packed)?;
        self.written.push(self.packed.len(), self.block.len());
        self.block.clear();
        Ok(())
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.block.reserve_exact(BLOCK_BYTES);
        }
        let taken = content.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&content[..taken]);
        if self.block.len() == BLOCK_BYTES {
            self.write_block()?;
        }
        Ok(taken)
    }

    /// Flushes the wrapped writer. A block which is not full stays here until [`super::Compressor::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Packer {
    fn codec(&self) -> Codec {
        match self {
            Packer::Gzip(_) => Codec::Gzip,
            Packer::Zstandard(_) => Codec::Zstandard,
            Packer::Snappy => Codec::Snappy,
        }
    }

    /// Compresses `block` to the end of `packed`, which is empty.
    fn pack(&mut self, block: &[u8], packed: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Packer::Gzip(level) => {
                let mut encoder = GzEncoder::new(packed, *level);
                encoder.write_all(block)?;
                encoder.finish()?;
            }
            Packer::Zstandard(compressor) => {
                packed.reserve(zstd::zstd_safe::compress_bound(block.len()));
                compressor.compress_to_buffer(block, packed)?;
            }
            // The encoder writes nothing at all without content.
            Packer::Snappy if block.is_empty() => packed.extend_from_slice(SNAPPY_IDENTIFIER),
            Packer::Snappy => {
                let mut encoder = snap::write::FrameEncoder::new(packed);
                encoder.write_all(block)?;
                encoder.flush()?;
            }
        }
        Ok(())
    }
}

/// Decompresses one block, which is all of `stored` and must have exactly `length` bytes of content. Checksums of the format
/// are checked. Memory: the content.
///
/// # Errors
/// If `stored` is something else.
pub fn decode_block(codec: Codec, stored: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    match codec {
        Codec::Zstandard => {
            content.reserve_exact(length);
            zstd::bulk::Decompressor::new()?.decompress_to_buffer(stored, &mut content)?;
        }
        Codec::Gzip => content = read_exactly(MultiGzDecoder::new(stored), length)?,
        Codec::Snappy => content = read_exactly(snap::read::FrameDecoder::new(stored), length)?,
        Codec::None | Codec::GzipOffload => return Err(wrong(format!("{codec} has no blocks"))),
    }
    if content.len() != length {
        return Err(wrong(format!("a block has {} bytes of content (expected {length})", content.len())));
    }
    Ok(content)
}

/// All that `decoder` gives, which is to be `length` bytes.
fn read_exactly(mut decoder: impl Read, length: usize) -> io::Result<Vec<u8>> {
    let mut content = vec![0; length];
    decoder.read_exact(&mut content)?;
    if decoder.read(&mut [0])? > 0 {
        return Err(wrong(format!("a block has more than the expected {length} bytes of content")));
    }
    Ok(content)
}
