//! Reading the snappy framing format: chunks, each of which says how much it holds and has a checksum.

use std::io::{self, BufRead, Read};

use snap::raw::Decoder;

use super::blocks::SNAPPY_IDENTIFIER;
use super::entry::Notes;
use super::source::{SkipRead, Source};
use super::wrong;

/// Longest content of a chunk, and the longest chunk that decoders accept (of incompressible content, with its checksum).
const CHUNK_CONTENT_BYTES_MAX: usize = 65536;
const CHUNK_BYTES_MAX: usize = 76490;

const COMPRESSED: u8 = 0x00;
const UNCOMPRESSED: u8 = 0x01;
const SKIPPABLE: std::ops::RangeInclusive<u8> = 0x80..=0xfe;
const IDENTIFIER: u8 = 0xff;

const CHECKSUM_BYTES: usize = 4;
/// A variable-length number of 32 bits has at most so many.
const VARINT_BYTES_MAX: usize = 5;

/// Decompresses chunks.
pub(super) struct Snappy {
    decoder: Decoder,
    /// Whether the stream was seen to be one.
    is_identified: bool,
    /// What was read of a chunk.
    chunk: Vec<u8>,
    content: Vec<u8>,
    /// Content that was taken.
    taken: usize,
}

/// A chunk of content, of which the beginning was read.
struct Begun {
    is_compressed: bool,
    bytes: usize,
    content: usize,
}

impl Snappy {
    /// Reads from the beginning of the stream or, if `is_entered`, from that of any chunk.
    pub(super) fn new(is_entered: bool) -> Snappy {
        Snappy {
            decoder: Decoder::new(),
            is_identified: is_entered,
            chunk: Vec::new(),
            content: Vec::new(),
            taken: 0,
        }
    }

    /// Reads content into `output`.
    pub(super) fn read<R: Read>(
        &mut self,
        source: &mut Source<R>,
        output: &mut [u8],
        notes: &mut Notes,
    ) -> io::Result<usize> {
        while self.taken == self.content.len() {
            let Some(begun) = self.begin(source, notes)? else { return Ok(0) };
            self.decode(source, &begun)?;
            notes.made(begun.content as u64);
        }
        let taken = (&self.content[self.taken..]).read(output)?;
        self.taken += taken;
        Ok(taken)
    }

    /// Passes over `bytes` bytes of content. Chunks of which nothing is wanted are not decompressed.
    pub(super) fn pass_over<R: SkipRead>(
        &mut self,
        source: &mut Source<R>,
        mut bytes: u64,
        notes: &mut Notes,
    ) -> io::Result<()> {
        loop {
            let ready = (self.content.len() - self.taken).min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.taken += ready;
            bytes -= ready as u64;
            if bytes == 0 {
                return Ok(());
            }
            let begun = self.begin(source, notes)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if begun.content as u64 <= bytes {
                source.skip((begun.bytes - self.chunk.len()) as u64)?;
                bytes -= begun.content as u64;
            } else {
                self.decode(source, &begun)?;
            }
            notes.made(begun.content as u64);
        }
    }

    /// Reads up to where the next chunk of content says how much it holds; none at the end.
    fn begin<R: Read>(&mut self, source: &mut Source<R>, notes: &mut Notes) -> io::Result<Option<Begun>> {
        loop {
            if self.is_identified {
                notes.can_enter(source.position(), || None);
            }
            if source.fill_buf()?.is_empty() {
                return Ok(None);
            }
            let mut head = [0; 4];
            source.read_exact(&mut head)?;
            let [kind, length @ ..] = head;
            let bytes = usize::from(length[0]) | usize::from(length[1]) << 8 | usize::from(length[2]) << 16;
            if !self.is_identified && kind != IDENTIFIER {
                return Err(wrong("it does not begin with snappy's identifier".to_owned()));
            }
            if bytes > CHUNK_BYTES_MAX {
                let problem =
                    format!("a snappy chunk has {bytes} bytes (at most {CHUNK_BYTES_MAX} are allowed)");
                return Err(wrong(problem));
            }
            self.chunk.clear();
            match kind {
                COMPRESSED | UNCOMPRESSED => return self.begin_content(source, kind, bytes).map(Some),
                kind if kind == IDENTIFIER || SKIPPABLE.contains(&kind) => {
                    self.read_up_to(source, bytes)?;
                    if kind == IDENTIFIER && self.chunk != SNAPPY_IDENTIFIER[4..] {
                        return Err(wrong("a chunk is not snappy's identifier".to_owned()));
                    }
                    self.is_identified = true;
                }
                kind => return Err(wrong(format!("a snappy chunk has the unknown type {kind:#04x}"))),
            }
        }
    }

    fn begin_content(&mut self, source: &mut impl Read, kind: u8, bytes: usize) -> io::Result<Begun> {
        let is_compressed = kind == COMPRESSED;
        let content = if is_compressed {
            self.read_up_to(source, bytes.min(CHECKSUM_BYTES + VARINT_BYTES_MAX))?;
            read_varint(self.chunk.get(CHECKSUM_BYTES..).unwrap_or_default())?
        } else {
            self.read_up_to(source, CHECKSUM_BYTES)?;
            bytes.saturating_sub(CHECKSUM_BYTES) as u64
        };
        match usize::try_from(content) {
            Ok(content) if content <= CHUNK_CONTENT_BYTES_MAX && bytes >= CHECKSUM_BYTES => {
                Ok(Begun { is_compressed, bytes, content })
            }
            _ => Err(wrong(format!(
                "a snappy chunk of {bytes} bytes holds {content} (at most {CHUNK_CONTENT_BYTES_MAX} are allowed)"
            ))),
        }
    }

    /// Reads the rest of a chunk, and makes its content.
    fn decode(&mut self, source: &mut impl Read, begun: &Begun) -> io::Result<()> {
        self.read_up_to(source, begun.bytes)?;
        let (checksum, packed) = self.chunk.split_at(CHECKSUM_BYTES);
        self.content.clear();
        self.taken = 0;
        if begun.is_compressed {
            self.content.resize(begun.content, 0);
            self.decoder.decompress(packed, &mut self.content).map_err(|error| wrong(error.to_string()))?;
        } else {
            self.content.extend_from_slice(packed);
        }
        if masked(crc32c::crc32c(&self.content)).to_le_bytes() != checksum {
            return Err(wrong("a snappy chunk does not have the checksum that it says".to_owned()));
        }
        Ok(())
    }

    /// Reads until `bytes` bytes of the chunk are there.
    fn read_up_to(&mut self, source: &mut impl Read, bytes: usize) -> io::Result<()> {
        let read = self.chunk.len();
        self.chunk.resize(bytes, 0);
        source.read_exact(&mut self.chunk[read..])
    }
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

/// The form in which the format keeps a checksum.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}
