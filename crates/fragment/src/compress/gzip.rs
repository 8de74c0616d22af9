//! Reading gzip: members, each a header, a deflate stream, and the sum of its content.
//!
//! Two decompressors of deflate are used. The fast one cannot be copied. The other one can, and with it a stream can be
//! entered where no member begins.

use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::Arc;

use flate2::{Decompress, FlushDecompress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use zlib_rs::crc32::crc32;

use super::entry::{Entry, Notes};
use super::source::Source;
use super::{incomplete, wrong};

/// What every member begins with: that it is gzip, and holds a deflate stream.
pub(super) const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// How far back deflate refers.
const WINDOW_BYTES: usize = 32 << 10;
/// Content that the decompressor which can be copied has before it: a power of two.
const RING_BYTES: usize = 256 << 10;

/// Flags of a header.
const HEADER_CRC: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
const RESERVED: u8 = 0xe0;

/// A decompressor within a member.
pub(super) struct Inside {
    inflate: DecompressorOxide,
    /// The content before, as far back as it may be referred to.
    window: Vec<u8>,
    member: Member,
}

impl Inside {
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Inside>() + self.window.capacity()
    }
}

/// Decompresses any number of members.
pub(super) struct Gzip {
    inflate: Inflate,
    /// The one that is being read.
    member: Option<Member>,
    /// Whether there was any.
    is_begun: bool,
}

enum Inflate {
    Fast(Decompress),
    Copyable(Box<Copyable>),
}

/// Content of a member so far.
#[derive(Clone, Copy, Default)]
struct Member {
    crc: u32,
    /// Its length, modulo 2^32.
    length: u32,
}

/// A decompressor that can be copied. It writes into a ring.
struct Copyable {
    inflate: DecompressorOxide,
    ring: Vec<u8>,
    /// Where content goes on in the ring.
    at: usize,
    /// Content in the ring which was not taken yet.
    ready: Range<usize>,
}

/// What a decompressor did.
struct Progress {
    taken: usize,
    made: usize,
    is_end: bool,
}

impl Gzip {
    /// Reads from the beginning, with a decompressor that can be copied or one that is faster.
    pub(super) fn new(is_copyable: bool) -> Gzip {
        let inflate = match is_copyable {
            true => Inflate::Copyable(Box::new(Copyable::new())),
            false => Inflate::Fast(Decompress::new(false)),
        };
        Gzip { inflate, member: None, is_begun: false }
    }

    pub(super) fn enter(entry: &Entry) -> Gzip {
        let mut gzip = Gzip { is_begun: true, ..Gzip::new(true) };
        if let (Some(inside), Inflate::Copyable(copyable)) = (&entry.inside, &mut gzip.inflate) {
            copyable.enter(inside);
            gzip.member = Some(inside.member);
        }
        gzip
    }

    /// Reads content into `output`.
    pub(super) fn read<R: Read>(
        &mut self,
        source: &mut Source<R>,
        output: &mut [u8],
        notes: &mut Notes,
    ) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        loop {
            if let Inflate::Copyable(copyable) = &mut self.inflate
                && !copyable.ready.is_empty()
            {
                return Ok(copyable.take(output));
            }
            if self.member.is_none() && !self.begin(source, notes)? {
                return Ok(0);
            }
            let made = self.step(source, output, notes)?;
            if made > 0 && matches!(self.inflate, Inflate::Fast(_)) {
                return Ok(made);
            }
        }
    }

    /// Begins the next member, if there is one.
    fn begin<R: Read>(&mut self, source: &mut Source<R>, notes: &mut Notes) -> io::Result<bool> {
        if source.fill_buf()?.is_empty() {
            return if self.is_begun { Ok(false) } else { Err(incomplete("gzip member")) };
        }
        if self.is_begun {
            notes.can_enter(source.position(), || None);
            self.inflate.reset();
        }
        read_header(source)?;
        self.is_begun = true;
        self.member = Some(Member::default());
        Ok(true)
    }

    /// Makes content, and returns how much: into `output`, or into the ring.
    fn step<R: Read>(
        &mut self,
        source: &mut Source<R>,
        output: &mut [u8],
        notes: &mut Notes,
    ) -> io::Result<usize> {
        let member = self.member.as_mut().expect("a member was begun");
        let input = source.fill_buf()?;
        let at_end = input.is_empty();
        let (progress, content) = match &mut self.inflate {
            Inflate::Fast(inflate) => {
                let progress = run_fast(inflate, input, output)?;
                let content = &output[..progress.made];
                (progress, content)
            }
            Inflate::Copyable(copyable) => (copyable.run(input)?, &copyable.ring[copyable.ready.clone()]),
        };
        source.consume(progress.taken);
        member.crc = crc32(member.crc, content);
        member.length = member.length.wrapping_add(progress.made as u32);
        notes.made(progress.made as u64);
        if progress.is_end {
            member.check_end(source)?;
            self.member = None;
        } else if progress.taken == 0 && progress.made == 0 {
            return Err(if at_end { incomplete("gzip member") } else { corrupt() });
        } else if let Inflate::Copyable(copyable) = &self.inflate {
            let member = *member;
            notes.can_enter(source.position(), || Some(Arc::new(copyable.inside(member))));
        }
        Ok(progress.made)
    }
}

impl Inflate {
    fn reset(&mut self) {
        match self {
            Inflate::Fast(inflate) => inflate.reset(false),
            Inflate::Copyable(copyable) => copyable.inflate.init(),
        }
    }
}

impl Copyable {
    fn new() -> Copyable {
        Copyable { inflate: DecompressorOxide::new(), ring: vec![0; RING_BYTES], at: 0, ready: 0..0 }
    }

    fn run(&mut self, input: &[u8]) -> io::Result<Progress> {
        let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
        let (status, taken, made) = decompress(&mut self.inflate, input, &mut self.ring, self.at, flags);
        self.ready = self.at..self.at + made;
        self.at = self.ready.end % RING_BYTES;
        let is_end = match status {
            TINFLStatus::Done => true,
            TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => false,
            _ => return Err(corrupt()),
        };
        Ok(Progress { taken, made, is_end })
    }

    fn take(&mut self, output: &mut [u8]) -> usize {
        let taken = output.len().min(self.ready.len());
        output[..taken].copy_from_slice(&self.ring[self.ready.start..][..taken]);
        self.ready.start += taken;
        taken
    }

    fn inside(&self, member: Member) -> Inside {
        let before = self.at.min(WINDOW_BYTES);
        let mut window = Vec::with_capacity(WINDOW_BYTES);
        window.extend_from_slice(&self.ring[RING_BYTES - (WINDOW_BYTES - before)..]);
        window.extend_from_slice(&self.ring[self.at - before..self.at]);
        Inside { inflate: self.inflate.clone(), window, member }
    }

    fn enter(&mut self, inside: &Inside) {
        self.inflate = inside.inflate.clone();
        self.ring[..WINDOW_BYTES].copy_from_slice(&inside.window);
        self.at = WINDOW_BYTES;
    }
}

impl Member {
    /// Reads what follows the content, which must be its sum and its length.
    fn check_end(&self, source: &mut impl Read) -> io::Result<()> {
        let mut end = [0; 8];
        source.read_exact(&mut end)?;
        let [a, b, c, d, ref length @ ..] = end;
        if u32::from_le_bytes([a, b, c, d]) != self.crc || *length != self.length.to_le_bytes() {
            return Err(wrong(
                "a gzip member does not have the checksum and the length that it says".to_owned(),
            ));
        }
        Ok(())
    }
}

fn run_fast(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> io::Result<Progress> {
    let (taken, made) = (inflate.total_in(), inflate.total_out());
    let status = inflate.decompress(input, output, FlushDecompress::None).map_err(|_| corrupt())?;
    let since = |now: u64, before: u64| usize::try_from(now - before).expect("it is of a buffer");
    Ok(Progress {
        taken: since(inflate.total_in(), taken),
        made: since(inflate.total_out(), made),
        is_end: status == flate2::Status::StreamEnd,
    })
}

fn read_header(source: &mut impl BufRead) -> io::Result<()> {
    let mut head = [0; 10];
    source.read_exact(&mut head)?;
    let flags = head[3];
    if !head.starts_with(&MAGIC) || flags & RESERVED != 0 {
        return Err(wrong("a gzip member does not begin with a header".to_owned()));
    }
    if flags & EXTRA != 0 {
        let mut length = [0; 2];
        source.read_exact(&mut length)?;
        pass(source, u16::from_le_bytes(length).into())?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            // At the end of the stream the sum is missing, too.
            source.skip_until(0)?;
        }
    }
    pass(source, if flags & HEADER_CRC != 0 { 2 } else { 0 })
}

fn pass(source: &mut impl Read, bytes: u64) -> io::Result<()> {
    match io::copy(&mut source.take(bytes), &mut io::sink())? {
        passed if passed == bytes => Ok(()),
        _ => Err(incomplete("gzip member")),
    }
}

fn corrupt() -> io::Error {
    wrong("a gzip member holds no deflate stream".to_owned())
}
