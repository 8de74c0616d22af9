//! Finding an offset in a snappy stream by its chunks, which say how much content they hold.

use std::io::{self, Read};

use super::blocks::SNAPPY_IDENTIFIER;

/// Longest content of a chunk, and the longest chunk that decoders accept (of incompressible content, with its checksum).
const CHUNK_CONTENT_BYTES_MAX: u64 = 65536;
const CHUNK_BYTES_MAX: u64 = 76490;

const COMPRESSED: u8 = 0x00;
const UNCOMPRESSED: u8 = 0x01;
const SKIPPABLE: std::ops::RangeInclusive<u8> = 0x80..=0xfe;
const IDENTIFIER: u8 = 0xff;

/// A reader of which bytes can be passed over, at less cost than reading them.
pub trait SkipRead: Read {
    /// Passes over `bytes` bytes.
    ///
    /// # Errors
    /// If there are not so many, which may also show at the next read.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// Where a walk over chunks ended.
#[derive(Debug, PartialEq, Eq)]
pub struct SnappyPosition {
    /// Content in the chunks that were passed over, bytes.
    pub skipped: u64,
    /// What is to be put before the rest of the reader, to make it a stream.
    pub prefix: Vec<u8>,
}

/// Passes over the chunks of `stored`, a stream of the snappy framing format, which end at content byte `offset` or before.
///
/// # Errors
/// If it is no such stream, or ends before.
pub fn walk_snappy(stored: &mut impl SkipRead, offset: u64) -> io::Result<SnappyPosition> {
    let mut identified = [0; SNAPPY_IDENTIFIER.len()];
    stored.read_exact(&mut identified)?;
    if identified != *SNAPPY_IDENTIFIER {
        return Err(wrong("it does not begin with snappy's identifier".to_owned()));
    }
    let mut prefix = SNAPPY_IDENTIFIER.to_vec();
    let mut skipped = 0;
    while skipped < offset {
        prefix.truncate(SNAPPY_IDENTIFIER.len());
        let head = read_more(stored, &mut prefix, 4)?;
        let bytes = u64::from(u32::from_le_bytes([head[1], head[2], head[3], 0]));
        if bytes > CHUNK_BYTES_MAX {
            return Err(wrong(format!(
                "a snappy chunk has {bytes} bytes (at most {CHUNK_BYTES_MAX} are allowed)"
            )));
        }
        let (content, read) = match head[0] {
            COMPRESSED => {
                // The checksum and the length of the content, a variable-length number of at most five bytes.
                let start = read_more(stored, &mut prefix, bytes.min(4 + 5))?;
                (read_varint(start.get(4..).unwrap_or_default())?, start.len() as u64)
            }
            UNCOMPRESSED => (bytes.saturating_sub(4), 0),
            kind if kind == IDENTIFIER || SKIPPABLE.contains(&kind) => (0, 0),
            kind => return Err(wrong(format!("a snappy chunk has the unknown type {kind:#04x}"))),
        };
        if content > CHUNK_CONTENT_BYTES_MAX {
            return Err(wrong(format!(
                "a snappy chunk holds {content} bytes (at most {CHUNK_CONTENT_BYTES_MAX} are allowed)"
            )));
        }
        if skipped + content > offset {
            return Ok(SnappyPosition { skipped, prefix });
        }
        stored.skip(bytes - read)?;
        skipped += content;
    }
    prefix.truncate(SNAPPY_IDENTIFIER.len());
    Ok(SnappyPosition { skipped, prefix })
}

/// Reads `bytes` bytes to the end of `buffer`, and returns them.
fn read_more<'a>(stored: &mut impl Read, buffer: &'a mut Vec<u8>, bytes: u64) -> io::Result<&'a [u8]> {
    let begin = buffer.len();
    let read = stored.take(bytes).read_to_end(buffer)?;
    if read as u64 == bytes { Ok(&buffer[begin..]) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn read_varint(bytes: &[u8]) -> io::Result<u64> {
    let mut value = 0;
    for (byte, shift) in bytes.iter().zip((0..).step_by(7)) {
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(wrong("a snappy chunk does not say how much it holds".to_owned()))
}

fn wrong(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
