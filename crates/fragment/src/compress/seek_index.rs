//! Where the blocks of a compressed file are.
//!
//! The index of a file is at its end, in the form that its format has for what decompressors are to pass over, so that
//! every tool reads the file as if the index were not there:
//!
//! - Zstandard: the *seek table* of the Zstandard seekable format, in a skippable frame. Tables that others wrote are read.
//! - gzip: the extra field of an empty member after the last one, in a subfield `Co`.
//! - snappy: chunks of the reserved skippable type `0xc0`.
//!
//! gzip and snappy share the content of their index: the stored size of each block (u32), then the number of blocks (u32),
//! the content of each block but the last (u32), the CRC-32C of all of that (u32), and [`MAGIC`]; all little-endian. An extra
//! field and a snappy chunk end at 64 KiB, so the sizes are cut into parts of [`PART_BLOCKS`], of which the last holds
//! the rest.
//!
//! Reading is total: an index is bytes from outside. It is trusted only if it accounts for every byte of the file and of
//! the content. That does not make it true, so a block must besides decode to exactly the length that the index says.

use std::ops::Range;

use crate::Codec;

/// Longest index that is read, bytes. That of a fragment of 16 GiB in blocks of 1 MiB takes an eighth.
pub const INDEX_BYTES_MAX: u64 = 1 << 20;
/// Bytes at the end of a file which hold the index of a fragment of up to 8 GiB.
pub const TAIL_BYTES: u64 = 64 << 10;
/// Longest block of which an index is used, bytes of content. Others are read as if there were no index.
pub const BLOCK_CONTENT_BYTES_MAX: u64 = 4 << 20;
/// No codec makes so much of [`BLOCK_CONTENT_BYTES_MAX`].
const BLOCK_STORED_BYTES_MAX: u64 = 2 * BLOCK_CONTENT_BYTES_MAX;

/// Sizes in one part of an index of gzip or snappy.
const PART_BLOCKS: usize = 8192;
/// Ends the index of gzip and snappy.
const MAGIC: [u8; 8] = *b"CourSeek";
const TRAILER_BYTES: usize = 3 * 4 + MAGIC.len();
/// Type of a chunk that snappy decoders skip.
const SNAPPY_CHUNK: u8 = 0xc0;
/// A gzip member of no content with an extra field, whose length follows.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
const GZIP_SUBFIELD: [u8; 2] = *b"Co";
/// An empty deflate stream, the CRC-32 of nothing and its length.
const GZIP_END: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Of a frame that Zstandard decoders skip, as the seekable format numbers it.
const ZSTD_FRAME: u32 = 0x184D_2A5E;
const ZSTD_MAGIC: u32 = 0x8F92_EAB1;
const ZSTD_HEAD_BYTES: usize = 8;
const ZSTD_FOOT_BYTES: usize = 9;
/// Bits of the table's descriptor: entries have a checksum; these must be zero.
const ZSTD_CHECKSUMS: u8 = 0x80;
const ZSTD_RESERVED: u8 = 0x7c;

/// The blocks of a file, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeekIndex {
    /// The end of each.
    ends: Vec<End>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct End {
    content: u64,
    stored: u64,
}

/// A part of a file which can be decompressed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its number, from 0.
    pub number: usize,
    /// Its content, counted from the beginning of the file's.
    pub content: Range<u64>,
    /// Its bytes in the file.
    pub stored: Range<u64>,
}

/// What the end of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tail {
    /// An index which accounts for the whole file.
    Index(SeekIndex),
    /// There is an index of this many bytes, of which the tail is only a part.
    Longer(u64),
    /// There is none, or none that can be used.
    Nothing,
}

impl SeekIndex {
    /// Looks for the index of a file of `stored_length` bytes, which holds `content_length` bytes compressed by `codec`, and
    /// ends with `tail`.
    pub fn read(codec: Codec, tail: &[u8], stored_length: u64, content_length: u64) -> Tail {
        let found = match codec {
            Codec::Zstandard => read_zstd(tail),
            Codec::Gzip => read_parts(&GZIP, tail, content_length),
            Codec::Snappy => read_parts(&SNAPPY, tail, content_length),
            Codec::None | Codec::GzipOffload => None,
        };
        match found {
            Some(Found::Longer(bytes)) if bytes <= stored_length.min(INDEX_BYTES_MAX) => Tail::Longer(bytes),
            Some(Found::Blocks { ends, bytes }) => {
                let index = SeekIndex { ends };
                let (end, begin) = (index.end(), stored_length.checked_sub(bytes));
                let is_whole = end.content == content_length && Some(end.stored) == begin;
                if is_whole && index.is_usable() { Tail::Index(index) } else { Tail::Nothing }
            }
            Some(Found::Longer(_)) | None => Tail::Nothing,
        }
    }

    /// The block which holds content byte `offset`, if the content is that long.
    pub fn block_at(&self, offset: u64) -> Option<Block> {
        self.block(self.ends.partition_point(|end| end.content <= offset))
    }

    /// The block of this number, if there are so many.
    pub fn block(&self, number: usize) -> Option<Block> {
        let end = self.ends.get(number)?;
        let begin = number.checked_sub(1).map_or(End::default(), |before| self.ends[before]);
        Some(Block { number, content: begin.content..end.content, stored: begin.stored..end.stored })
    }

    /// Where the last block ends in the file.
    pub fn stored_end(&self) -> u64 {
        self.end().stored
    }

    /// Memory that this takes, bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of::<SeekIndex>() + self.ends.capacity() * size_of::<End>()
    }

    fn end(&self) -> End {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Whether no block takes more memory than it may.
    fn is_usable(&self) -> bool {
        let mut begin = End::default();
        self.ends.iter().all(|end| {
            let (content, stored) = (end.content - begin.content, end.stored - begin.stored);
            begin = *end;
            content <= BLOCK_CONTENT_BYTES_MAX && (1..=BLOCK_STORED_BYTES_MAX).contains(&stored)
        })
    }
}

/// What was written of a file, from which its index is made.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Stored bytes and content bytes of each block.
    blocks: Vec<(u32, u32)>,
}

impl Written {
    pub(super) fn push(&mut self, stored: usize, content: usize) {
        let bytes = |count| u32::try_from(count).expect("a block is shorter than 4 GiB");
        self.blocks.push((bytes(stored), bytes(content)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The index of the file, to be appended to it. Empty if there is at most one block: it would say nothing.
    pub(super) fn index(&self, codec: Codec) -> Vec<u8> {
        if self.blocks.len() < 2 {
            return Vec::new();
        }
        let stored: Vec<u32> = self.blocks.iter().map(|(stored, _)| *stored).collect();
        match codec {
            Codec::Zstandard => write_zstd(&self.blocks),
            Codec::Gzip => write_parts(&GZIP, &stored, self.blocks[0].1),
            Codec::Snappy => write_parts(&SNAPPY, &stored, self.blocks[0].1),
            Codec::None | Codec::GzipOffload => Vec::new(),
        }
    }
}

enum Found {
    Longer(u64),
    Blocks { ends: Vec<End>, bytes: u64 },
}

/// The ends of blocks of these stored and content bytes; none if they leave the range of numbers.
fn ends(blocks: impl Iterator<Item = (u32, u32)>) -> Vec<End> {
    let mut end = End::default();
    let add = |(stored, content)| {
        end = End { stored: end.stored + u64::from(stored), content: end.content + u64::from(content) };
        end
    };
    blocks.map(add).collect()
}

fn write_zstd(blocks: &[(u32, u32)]) -> Vec<u8> {
    let bytes = |count| u32::try_from(count).expect("a fragment has fewer than 2^28 blocks");
    let mut table = Vec::with_capacity(ZSTD_HEAD_BYTES + blocks.len() * 8 + ZSTD_FOOT_BYTES);
    table.extend_from_slice(&ZSTD_FRAME.to_le_bytes());
    table.extend_from_slice(&bytes(blocks.len() * 8 + ZSTD_FOOT_BYTES).to_le_bytes());
    for (stored, content) in blocks {
        table.extend_from_slice(&stored.to_le_bytes());
        table.extend_from_slice(&content.to_le_bytes());
    }
    table.extend_from_slice(&bytes(blocks.len()).to_le_bytes());
    // The frames have checksums of their own.
    table.push(0);
    table.extend_from_slice(&ZSTD_MAGIC.to_le_bytes());
    table
}

fn read_zstd(tail: &[u8]) -> Option<Found> {
    let foot = tail.last_chunk::<ZSTD_FOOT_BYTES>()?;
    let (count, descriptor) = (u32_at(foot, 0)?, foot[4]);
    if u32_at(foot, 5)? != ZSTD_MAGIC || descriptor & ZSTD_RESERVED != 0 {
        return None;
    }
    let entry = if descriptor & ZSTD_CHECKSUMS == 0 { 8 } else { 12 };
    let frame = u64::from(count) * entry as u64 + ZSTD_FOOT_BYTES as u64;
    let bytes = ZSTD_HEAD_BYTES as u64 + frame;
    if bytes > tail.len() as u64 {
        return Some(Found::Longer(bytes));
    }
    let table = &tail[tail.len() - usize::try_from(bytes).ok()?..];
    if u32_at(table, 0)? != ZSTD_FRAME || u64::from(u32_at(table, 4)?) != frame {
        return None;
    }
    let entries = &table[ZSTD_HEAD_BYTES..table.len() - ZSTD_FOOT_BYTES];
    let blocks = entries.chunks_exact(entry).filter_map(|entry| Some((u32_at(entry, 0)?, u32_at(entry, 4)?)));
    Some(Found::Blocks { ends: ends(blocks), bytes })
}

/// How a format wraps a part of an index.
struct Wrapping {
    head: fn(usize) -> Vec<u8>,
    end: &'static [u8],
}

const GZIP: Wrapping = Wrapping { head: gzip_head, end: &GZIP_END };
const SNAPPY: Wrapping = Wrapping { head: snappy_head, end: &[] };

fn gzip_head(bytes: usize) -> Vec<u8> {
    let length = |bytes| u16::try_from(bytes).expect("a part is shorter than 64 KiB").to_le_bytes();
    [&GZIP_HEAD[..], &length(bytes + 4), &GZIP_SUBFIELD, &length(bytes)].concat()
}

fn snappy_head(bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).expect("a part is shorter than 64 KiB").to_le_bytes();
    vec![SNAPPY_CHUNK, length[0], length[1], length[2]]
}

/// The whole index of blocks which all have `content` bytes, the last one perhaps fewer.
fn write_parts(wrapping: &Wrapping, stored: &[u32], content: u32) -> Vec<u8> {
    let mut sizes: Vec<u8> = stored.iter().flat_map(|stored| stored.to_le_bytes()).collect();
    let count = u32::try_from(stored.len()).expect("a fragment has fewer than 2^32 blocks");
    let rest = [count.to_le_bytes(), content.to_le_bytes()].concat();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&sizes), &rest);
    let trailer_at = sizes.len();
    sizes.extend([&rest[..], &crc.to_le_bytes(), &MAGIC].concat());
    let mut index = Vec::new();
    let mut begin = 0;
    while begin < sizes.len() {
        let end = begin + PART_BLOCKS * 4;
        // The trailer stays in one piece with the last sizes.
        let end = if end >= trailer_at { sizes.len() } else { end };
        index.extend((wrapping.head)(end - begin));
        index.extend_from_slice(&sizes[begin..end]);
        index.extend_from_slice(wrapping.end);
        begin = end;
    }
    index
}

fn read_parts(wrapping: &Wrapping, tail: &[u8], content_length: u64) -> Option<Found> {
    let last = tail.strip_suffix(wrapping.end)?;
    let trailer = last.last_chunk::<TRAILER_BYTES>()?;
    if !trailer.ends_with(&MAGIC) {
        return None;
    }
    let (count, content) = (u32_at(trailer, 0)?, u32_at(trailer, 4)?);
    let blocks = usize::try_from(count).ok()?;
    let parts = blocks.div_ceil(PART_BLOCKS);
    let (head, wrapped) = ((wrapping.head)(0).len(), wrapping.end.len());
    let bytes = parts * (head + wrapped) + blocks * 4 + TRAILER_BYTES;
    if bytes > tail.len() {
        return Some(Found::Longer(bytes as u64));
    }
    let index = &tail[tail.len() - bytes..];
    let part = index.chunks(head + PART_BLOCKS * 4 + wrapped).filter_map(|part| part.get(head..));
    let stored: Vec<u32> = part
        .flat_map(|part| part.chunks_exact(4).take(PART_BLOCKS))
        .take(blocks)
        .filter_map(|size| u32_at(size, 0))
        .collect();
    // Whatever else the parts hold must be what would be written.
    if stored.len() != blocks || write_parts(wrapping, &stored, content) != index {
        return None;
    }
    let before_last = u64::from(content) * (u64::from(count).checked_sub(1)?);
    let rest = content_length.checked_sub(before_last)?;
    let last = u32::try_from(rest).ok().filter(|last| (1..=content).contains(last))?;
    let contents = std::iter::repeat_n(content, blocks - 1).chain([last]);
    Some(Found::Blocks { ends: ends(stored.into_iter().zip(contents)), bytes: bytes as u64 })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests;
