//! The manifest of a spool file: what makes its content an adoptable fragment after the process that wrote it died.
//!
//! A spool file is a *head* (whose spool this is), a ring of [`MANIFEST_SLOTS`] *slots*, and from [`CONTENT_AT`] on the
//! fragment's content. Each commit writes one checksummed record, of about a hundred bytes, into the next slot: span,
//! SHA-1 of the content through it, codec, time of the first append, registers. Content and record share a file so that one
//! `fdatasync` covers both, and a ring is rewritten in place so that the sync finds its blocks allocated.
//!
//! The adopting reader takes the newest record whose content has the record's sum. A torn record fails its checksum, and
//! a record that reached the disk ahead of its content fails its sum; either way an older slot holds the commit before
//! it. At most `MANIFEST_SLOTS - 2` commits may therefore be written and not yet synced: the last synced one must
//! keep its slot.
//!
//! Layout, all numbers big-endian; every field is stored:
//!
//! ```text
//! head    magic "COURANT SPOOL v2" | crc32c u32 of the rest | body length u32 | incarnation u64 | create revision i64
//!         | journal name
//! slot    crc32c u32 of the rest | body length u32 | sequence u64 | begin i64 | end i64 | sum 20 bytes | codec u8
//!         | first append, Unix nanoseconds i64, -1 if none | synchronised at, etcd revision i64
//!         | registers, an encoded LabelSet
//! ```

use std::time::Duration;

use prost::Message;
use proto::JournalName;
use proto::protocol::LabelSet;

use crate::{Codec, Fragment, Sum};

const MAGIC: &[u8; 16] = b"COURANT SPOOL v2";
/// Bytes of a record before its body: checksum and body length.
const FRAME_BYTES: usize = 8;
/// Bytes of a commit's body before its registers.
const COMMIT_FIXED_BYTES: usize = 8 + 8 + 8 + 20 + 1 + 8 + 8;
/// Bytes kept for the head.
const HEAD_BYTES: usize = SLOT_BYTES;

/// Bytes kept for a slot. Mostly a hole: a record without large registers occupies one block.
pub const SLOT_BYTES: usize = 64 << 10;
/// Slots of the ring.
pub const MANIFEST_SLOTS: u64 = 8;
/// Position of the fragment's first byte in the file.
pub const CONTENT_AT: u64 = HEAD_BYTES as u64 + MANIFEST_SLOTS * SLOT_BYTES as u64;
/// Bytes that are read of a record at first: the whole head, and a whole record unless its registers are large.
pub const RECORD_PREFIX_BYTES: usize = 1 << 10;
/// Most bytes that the registers of a journal may encode to.
pub const REGISTERS_BYTES_MAX: usize = SLOT_BYTES - FRAME_BYTES - COMMIT_FIXED_BYTES;

/// Whose spool a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The journal.
    pub journal: JournalName,
    /// Tells apart the lives of an etcd that lost its data: revisions of different ones say nothing about each other.
    pub incarnation: u64,
    /// Revision at which the journal's specification was created. A journal that was deleted and made again is another
    /// journal, and does not adopt the spools of its former self.
    pub create_revision: i64,
}

/// One commit of a spool.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// Number of the commit within its file, from zero; it decides the slot.
    pub sequence: u64,
    /// The committed fragment; local, without path postfix.
    pub fragment: Fragment,
    /// Registers as of the commit.
    pub registers: LabelSet,
    /// Time of the fragment's first commit, since the Unix epoch.
    pub first_append: Option<Duration>,
    /// Revision of the route over which the replicas last agreed on the spool; zero if they never did. Whoever adopts the
    /// spool learns from it whether the others have gone on without it.
    pub synced_at: i64,
}

/// The decoded front of a spool file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Whose it is.
    pub head: Head,
    /// Readable commits, newest first. Never empty.
    pub commits: Vec<Commit>,
    /// Why other slots, which are not blank, could not be read.
    pub torn: Vec<ManifestError>,
}

/// Why the front of a file is not the manifest of a spool, or a commit cannot be written into one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The file does not begin as a spool file.
    #[error("not a spool file: it begins with {found:?} (expected {MAGIC:?})")]
    Magic {
        /// At most sixteen bytes from the file's begin.
        found: Vec<u8>,
    },
    /// A record is cut off.
    #[error("{record}: cut off after {found} bytes (expected {expected})")]
    Short {
        /// `head`, or the slot.
        record: String,
        /// Bytes that there are.
        found: usize,
        /// Bytes that the record needs.
        expected: usize,
    },
    /// A record's bytes are not those that were written.
    #[error("{record}: checksum {found:08x} (expected {expected:08x})")]
    Checksum {
        /// `head`, or the slot.
        record: String,
        /// Checksum of the bytes.
        found: u32,
        /// Checksum in the record.
        expected: u32,
    },
    /// A field of a record has a value that nothing writes.
    #[error("{record}: {field}: {found}")]
    Field {
        /// `head`, or the slot.
        record: String,
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        found: String,
    },
    /// No slot holds a readable commit.
    #[error("no slot of the spool's manifest holds a commit ({})", first_of(.torn))]
    NoCommit {
        /// What the slots hold instead; blank slots are left out.
        torn: Vec<ManifestError>,
    },
    /// Registers too large to be recorded.
    #[error("registers of {found} bytes are too large (expected at most {REGISTERS_BYTES_MAX})")]
    Registers {
        /// Encoded size, in bytes.
        found: usize,
    },
}

fn first_of(torn: &[ManifestError]) -> String {
    torn.first().map_or_else(|| "all are blank".to_owned(), ToString::to_string)
}

impl Head {
    /// The bytes for the begin of a file.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let mut body = self.incarnation.to_be_bytes().to_vec();
        body.extend(self.create_revision.to_be_bytes());
        body.extend_from_slice(self.journal.as_str().as_bytes());
        bytes.extend(frame(&body));
        bytes
    }

    /// Reads the begin of a file.
    ///
    /// # Errors
    /// If it is not the head of a spool file.
    pub fn decode(bytes: &[u8]) -> Result<Head, ManifestError> {
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| ManifestError::Magic { found: bytes[..bytes.len().min(MAGIC.len())].to_vec() })?;
        let record = || "head".to_owned();
        let mut body = Fields { body: unframe(record, rest)?, record: &record };
        let incarnation = u64::from_be_bytes(body.take()?);
        let create_revision = i64::from_be_bytes(body.take()?);
        let journal = str::from_utf8(body.body).map_err(|err| body.wrong("journal name", err))?;
        let journal = JournalName::parse(journal).map_err(|err| body.wrong("journal name", err))?;
        Ok(Head { journal, incarnation, create_revision })
    }
}

impl Commit {
    /// Position in the file of this commit's record.
    pub fn slot_at(&self) -> u64 {
        slot_at(self.sequence)
    }

    /// The record for the commit's slot.
    ///
    /// # Errors
    /// If the registers are larger than [`REGISTERS_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        let registers_len = self.registers.encoded_len();
        if registers_len > REGISTERS_BYTES_MAX {
            return Err(ManifestError::Registers { found: registers_len });
        }
        let Fragment { begin, end, sum, codec, .. } = &self.fragment;
        let nanos = self.first_append.map_or(-1, |at| i64::try_from(at.as_nanos()).unwrap_or(i64::MAX));
        let mut body = Vec::with_capacity(COMMIT_FIXED_BYTES + registers_len);
        body.extend(self.sequence.to_be_bytes());
        body.extend(begin.to_be_bytes());
        body.extend(end.to_be_bytes());
        body.extend(sum.0);
        body.push(*codec as u8);
        body.extend(nanos.to_be_bytes());
        body.extend(self.synced_at.to_be_bytes());
        self.registers.encode(&mut body).expect("a Vec grows");
        Ok(frame(&body))
    }

    /// Reads the slot numbered `slot` of a file of `journal`. `None` if it was never written.
    ///
    /// # Errors
    /// If the slot holds something else than a whole record.
    pub fn decode(journal: &JournalName, slot: u64, bytes: &[u8]) -> Result<Option<Commit>, ManifestError> {
        if bytes.iter().take(FRAME_BYTES).all(|byte| *byte == 0) {
            return Ok(None);
        }
        let record = || format!("slot {slot}");
        let mut body = Fields { body: unframe(record, bytes)?, record: &record };
        let sequence = u64::from_be_bytes(body.take()?);
        if sequence % MANIFEST_SLOTS != slot {
            return Err(body.wrong("sequence", format!("{sequence} belongs into another slot")));
        }
        let (begin, end) = (i64::from_be_bytes(body.take()?), i64::from_be_bytes(body.take()?));
        if begin < 0 || begin > end {
            return Err(body.wrong("span", format!("{begin}..{end}")));
        }
        let sum = Sum(body.take()?);
        let [codec] = body.take()?;
        let codec = Codec::try_from(i32::from(codec)).map_err(|err| body.wrong("codec", err))?;
        let nanos = i64::from_be_bytes(body.take()?);
        let first_append = u64::try_from(nanos).ok().map(Duration::from_nanos);
        if first_append.is_none() && begin != end {
            return Err(body.wrong("first append", format!("{nanos}, of a fragment with content")));
        }
        let synced_at = i64::from_be_bytes(body.take()?);
        let registers = LabelSet::decode(body.body).map_err(|err| body.wrong("registers", err))?;
        let fragment = Fragment { end, sum, ..Fragment::empty(journal.clone(), begin, codec) };
        Ok(Some(Commit { sequence, fragment, registers, first_append, synced_at }))
    }
}

impl Manifest {
    /// Reads the begin of a file, and of each of its slots in order, as far as the file reaches. At least
    /// [`RECORD_PREFIX_BYTES`] of each are wanted, and of a slot as many as [`record_length`] says.
    ///
    /// # Errors
    /// If the head cannot be read, or no slot can. Single torn slots are not an error.
    pub fn decode(head: &[u8], slots: &[Vec<u8>]) -> Result<Manifest, ManifestError> {
        let head = Head::decode(head)?;
        let (mut commits, mut torn) = (Vec::new(), Vec::new());
        for (slot, bytes) in (0..MANIFEST_SLOTS).zip(slots) {
            match Commit::decode(&head.journal, slot, bytes) {
                Ok(Some(commit)) => commits.push(commit),
                Ok(None) => {}
                Err(err) => torn.push(err),
            }
        }
        if commits.is_empty() {
            return Err(ManifestError::NoCommit { torn });
        }
        commits.sort_by_key(|commit| std::cmp::Reverse(commit.sequence));
        Ok(Manifest { head, commits, torn })
    }
}

/// Position in the file of the slot numbered `slot`.
pub fn slot_at(slot: u64) -> u64 {
    HEAD_BYTES as u64 + slot % MANIFEST_SLOTS * SLOT_BYTES as u64
}

/// Bytes of the record that begins with `prefix`, by what it says itself; at most those of a slot.
pub fn record_length(prefix: &[u8]) -> usize {
    let length =
        prefix.get(4..FRAME_BYTES).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    (length as usize).saturating_add(FRAME_BYTES).min(SLOT_BYTES)
}

/// Checksum, length and body.
fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(u32::try_from(body.len()).expect("records fit their slot").to_be_bytes());
    bytes.extend_from_slice(body);
    let checksum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// The body of a framed record; bytes after it are ignored, since a slot keeps the tail of what it held before.
fn unframe(record: impl Fn() -> String, bytes: &[u8]) -> Result<&[u8], ManifestError> {
    let short = |expected| ManifestError::Short { record: record(), found: bytes.len(), expected };
    let (checksum, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| short(FRAME_BYTES))?;
    let (length, body) = rest.split_first_chunk::<4>().ok_or_else(|| short(FRAME_BYTES))?;
    let length = u32::from_be_bytes(*length) as usize;
    let body = body.get(..length).ok_or_else(|| short(length.saturating_add(FRAME_BYTES)))?;
    let (found, expected) = (crc32c::crc32c(&rest[..4 + length]), u32::from_be_bytes(*checksum));
    if found != expected {
        return Err(ManifestError::Checksum { record: record(), found, expected });
    }
    Ok(body)
}

/// Takes fields off the front of a record's body.
struct Fields<'a> {
    body: &'a [u8],
    record: &'a dyn Fn() -> String,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let (field, rest) = self.body.split_first_chunk::<N>().ok_or_else(|| ManifestError::Short {
            record: (self.record)(),
            found: self.body.len(),
            expected: N,
        })?;
        self.body = rest;
        Ok(*field)
    }

    fn wrong(&self, field: &'static str, found: impl ToString) -> ManifestError {
        ManifestError::Field { record: (self.record)(), field, found: found.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn journal() -> JournalName {
        JournalName::parse("a/journal").unwrap()
    }

    fn commit(sequence: u64, content: &[u8]) -> Commit {
        let end = 100 + i64::try_from(content.len()).unwrap();
        let fragment =
            Fragment { end, sum: Sum::of(content), ..Fragment::empty(journal(), 100, Codec::Snappy) };
        Commit {
            sequence,
            fragment,
            registers: LabelSet::from_pairs([("author", "one")]),
            first_append: Some(Duration::new(1_500_000_000, 7)),
            synced_at: 11,
        }
    }

    fn head() -> Vec<u8> {
        Head { journal: journal(), incarnation: 77, create_revision: 42 }.encode()
    }

    fn slots(commits: &[Commit]) -> Vec<Vec<u8>> {
        let mut slots = vec![vec![0; 200]; 8];
        for commit in commits {
            let (slot, record) = (&mut slots[commit.sequence as usize % 8], commit.encode().unwrap());
            slot[..record.len()].copy_from_slice(&record);
        }
        slots
    }

    #[test]
    fn records_have_their_stored_form() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        expect!["434f5552414e542053504f4f4c2076326690d60a00000019000000000000004d000000000000002a612f6a6f75726e616c"]
            .assert_eq(&hex(&Head { journal: journal(), incarnation: 77, create_revision: 42 }.encode()));
        expect!["e8953adb0000004c00000000000000090000000000000064000000000000006a8843d7f92416211de9ebb963ff4ce281259328780414d1120d7b160007000000000000000b0a0d0a06617574686f7212036f6e65"].assert_eq(&hex(&commit(9, b"foobar").encode().unwrap()));
    }

    #[test]
    fn the_newest_commits_come_first_and_the_ring_forgets_the_oldest() {
        let commits: Vec<_> =
            (0..11).map(|sequence| commit(sequence, &[b'x'; 11][..sequence as usize])).collect();
        let manifest = Manifest::decode(&head(), &slots(&commits)).unwrap();
        assert_eq!(manifest.head, Head { journal: journal(), incarnation: 77, create_revision: 42 });
        let newest_first: Vec<_> = commits[3..].iter().rev().cloned().collect();
        assert_eq!(manifest.commits, newest_first);
        assert_eq!(manifest.torn, []);
    }

    #[test]
    fn a_torn_record_gives_way_to_the_one_before() {
        let mut slots = slots(&[commit(0, b"abc"), commit(1, b"abcdef")]);
        slots[1][30] ^= 1;
        let manifest = Manifest::decode(&head(), &slots).unwrap();
        assert_eq!(manifest.commits, [commit(0, b"abc")]);
        assert!(manifest.torn[0].to_string().starts_with("slot 1: checksum "), "{:?}", manifest.torn);
    }

    #[test]
    fn errors_name_the_record_and_what_was_found() {
        let of = |head: &[u8]| Manifest::decode(head, &slots(&[])).unwrap_err().to_string();
        expect!["no slot of the spool's manifest holds a commit (all are blank)"].assert_eq(&of(&head()));
        expect!["head: cut off after 3 bytes (expected 8)"].assert_eq(&of(&head()[..19]));
        assert!(of(b"hello").starts_with("not a spool file"));
        assert!(of(b"").starts_with("not a spool file"));
        let large = LabelSet::from_pairs([("name", "v".repeat(SLOT_BYTES))]);
        let large = Commit { registers: large, ..commit(0, b"") };
        expect!["registers of 65550 bytes are too large (expected at most 65467)"]
            .assert_eq(&large.encode().unwrap_err().to_string());
        let wrong = Commit { first_append: None, ..commit(1, b"x") }.encode().unwrap();
        expect!["slot 1: first append: -1, of a fragment with content"]
            .assert_eq(&Commit::decode(&journal(), 1, &wrong).unwrap_err().to_string());
        expect!["slot 2: sequence: 1 belongs into another slot"]
            .assert_eq(&Commit::decode(&journal(), 2, &wrong).unwrap_err().to_string());
    }

    proptest! {
        #[test]
        fn commits_round_trip(
            sequence: u64, begin in 0..i64::MAX / 2, len in 0..1_i64 << 40, sum: [u8; 20], codec in 0..5_usize,
            nanos in proptest::option::of(0..i64::MAX as u64), synced_at: i64, values in proptest::collection::vec("[a-z]{0,9}", 0..4),
        ) {
            let first_append = nanos.map(Duration::from_nanos);
            let len = if first_append.is_none() { 0 } else { len };
            let codec = Codec::ALL[codec];
            let fragment = Fragment { end: begin + len, sum: Sum(sum), ..Fragment::empty(journal(), begin, codec) };
            let registers = values.iter().map(|value| ("name", value)).collect();
            let commit = Commit { sequence, fragment, registers, first_append, synced_at };
            let decoded = Commit::decode(&journal(), sequence % MANIFEST_SLOTS, &commit.encode().unwrap());
            prop_assert_eq!(decoded, Ok(Some(commit)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), flips in proptest::collection::vec((0..400_usize, any::<u8>()), 0..8),
        ) {
            drop(Manifest::decode(&bytes, &[]));
            drop(Commit::decode(&journal(), 0, &bytes));
            prop_assert!(record_length(&bytes) <= SLOT_BYTES);
            let mut record = commit(8, b"foobar").encode().unwrap();
            let mut framed = frame(&bytes);
            let mut head = head();
            for (at, bits) in flips {
                for target in [&mut record, &mut framed, &mut head] {
                    let at = at % target.len();
                    target[at] ^= bits;
                }
            }
            drop(Commit::decode(&journal(), 0, &record));
            drop(Commit::decode(&journal(), 0, &framed));
            drop(Manifest::decode(&head, &[record]));
        }
    }
}
