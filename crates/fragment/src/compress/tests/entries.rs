//! Entries that decompressors note.

use std::cell::Cell;

use super::*;

const CONTENT_BYTES: usize = 2 * ENTRY_SPACING_BYTES as usize + 2_654_321;

/// How streams are cut into members, frames or chunks by those who write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    /// This project, without the index.
    Blocks,
    /// A tool which is given all of it at once.
    OneStream,
    /// A writer that begins anew for each batch.
    Batches,
}

fn content() -> &'static [u8] {
    static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| all_words(CONTENT_BYTES));
    &CONTENT
}

fn one_stream(codec: Codec, content: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Zstandard => zstd::stream::encode_all(content, 1).unwrap(),
        Codec::Snappy => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(content).unwrap();
            encoder.into_inner().unwrap()
        }
        _ => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn write(codec: Codec, writer: Writer) -> Vec<u8> {
    match writer {
        Writer::Blocks => {
            let mut compressor = Compressor::new(codec, Some(1), Vec::new()).unwrap();
            compressor.write_all(content()).unwrap();
            compressor.finish().unwrap()
        }
        Writer::OneStream => one_stream(codec, content()),
        Writer::Batches => content().chunks(1_234_567).flat_map(|batch| one_stream(codec, batch)).collect(),
    }
}

/// Reads everything, and what was noted on the way.
fn note(codec: Codec, stored: &[u8], noting: Noting) -> Vec<Entry> {
    let mut reader =
        Decompressor::noting(codec, io::Cursor::new(stored), noting, CONTENT_BYTES as u64).unwrap();
    let (mut entries, mut read) = (Vec::new(), Vec::new());
    while (&mut reader).take(300_000).read_to_end(&mut read).unwrap() > 0 {
        entries.extend(reader.take_entries());
    }
    assert!(read == content(), "{codec} noting {noting:?}");
    entries
}

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::GzipOffload, Codec::Zstandard, Codec::Snappy];

#[test]
fn entries_are_noted_where_the_format_has_them() {
    for codec in CODECS {
        for writer in [Writer::Blocks, Writer::OneStream, Writer::Batches] {
            let stored = write(codec, writer);
            for noting in [Noting::Beginnings, Noting::Everywhere] {
                let entries = note(codec, &stored, noting);
                let is_gzip = matches!(codec, Codec::Gzip | Codec::GzipOffload);
                let is_single =
                    writer == Writer::OneStream || (codec, writer) == (Codec::GzipOffload, Writer::Blocks);
                let expected = match codec {
                    // A frame, or a member of which nothing within is noted.
                    Codec::Zstandard if is_single => 0,
                    _ if is_gzip && is_single && noting == Noting::Beginnings => 0,
                    _ => 2,
                };
                assert_eq!(entries.len(), expected, "{codec} {writer:?} {noting:?}: {entries:?}");
                let mut before = 0;
                for entry in &entries {
                    let gap = entry.content - before;
                    assert!(gap >= ENTRY_SPACING_BYTES, "{codec} {writer:?} {noting:?}: {entries:?}");
                    assert!(gap < ENTRY_SPACING_BYTES + 1_300_000, "{codec} {writer:?}: {entries:?}");
                    assert!(entry.memory_bytes() < 48 << 10);
                    before = entry.content;
                }
            }
        }
    }
}

/// A reader which says how far it was read.
struct Counted<'a>(&'a [u8], &'a Cell<u64>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get() + read as u64);
        Ok(read)
    }
}

impl SkipRead for Counted<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.0 = &self.0[(bytes as usize).min(self.0.len())..];
        Ok(())
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn streams_are_entered_and_go_on_as_from_the_beginning(at in prop::collection::vec(any::<prop::sample::Index>(), 3)) {
        for codec in CODECS {
            for writer in [Writer::Blocks, Writer::OneStream, Writer::Batches] {
                let stored = write(codec, writer);
                let entries = note(codec, &stored, Noting::Everywhere);
                for at in &at {
                    let offset = at.index(CONTENT_BYTES) as u64;
                    let Some(entry) = entries.iter().rfind(|entry| entry.content <= offset) else { continue };
                    let fetched = Cell::new(0);
                    let rest = Counted(&stored[entry.stored as usize..], &fetched);
                    let mut reader = Decompressor::enter(codec, rest, entry, CONTENT_BYTES as u64).unwrap();
                    reader.pass_over(offset - entry.content).unwrap();
                    let mut read = vec![0; 100_000.min(CONTENT_BYTES - offset as usize)];
                    reader.read_exact(&mut read).unwrap();
                    prop_assert!(
                        read == content()[offset as usize..][..read.len()],
                        "{} {:?} at {} from {:?}", codec, writer, offset, entry
                    );
                    // What was fetched is what lies between, and what is read ahead.
                    let between = offset - entry.content + read.len() as u64;
                    prop_assert!(between <= ENTRY_SPACING_BYTES + 2_600_000);
                    prop_assert!(fetched.get() <= between + between / 100 + (256 << 10));
                    // The rest is right too, checksums of what was entered in the middle included.
                    let mut rest = Vec::new();
                    reader.read_to_end(&mut rest).unwrap();
                    prop_assert!(rest == content()[offset as usize + read.len()..]);
                    // It goes on noting what was not known yet.
                    let after: Vec<u64> = entries.iter().map(|one| one.content).filter(|one| *one > entry.content).collect();
                    let found: Vec<u64> = reader.take_entries().iter().map(|one| one.content).collect();
                    prop_assert_eq!(after.len(), found.len(), "{} {:?}", codec, writer);
                }
            }
        }
    }
}

#[test]
fn what_is_damaged_after_an_entry_is_an_error() {
    for codec in [Codec::Gzip, Codec::Snappy] {
        let mut stored = write(codec, Writer::OneStream);
        let entries = note(codec, &stored, Noting::Everywhere);
        let entry = entries.last().unwrap();
        // The last bit of the checksum of the whole for gzip; of content for snappy.
        let at = stored.len() - 5;
        stored[at] ^= 1;
        let rest = &stored[entry.stored as usize..];
        let mut reader = Decompressor::enter(codec, rest, entry, CONTENT_BYTES as u64).unwrap();
        assert!(reader.read_to_end(&mut Vec::new()).is_err(), "{codec}");
        for length in [rest.len() - 1, rest.len() / 2] {
            let mut reader =
                Decompressor::enter(codec, &rest[..length], entry, CONTENT_BYTES as u64).unwrap();
            assert!(
                reader.read_to_end(&mut Vec::new()).is_err(),
                "{codec}, {length} bytes of {}",
                rest.len()
            );
        }
    }
}

#[test]
fn headers_of_gzip_may_hold_anything() {
    let deflate = &FOREIGN_GZIP[10..];
    let with =
        |flags: u8, fields: &[u8]| [&[0x1f, 0x8b, 8, flags, 1, 2, 3, 4, 0, 3], fields, deflate].concat();
    for (flags, fields) in [
        (0, &b""[..]),
        (1, b""),
        (4, b"\x03\x00abc"),
        (8, b"a name\0"),
        (16, b"a comment\0"),
        (2, b"cc"),
        (31, b"\x00\x00name\0comment\0cc"),
    ] {
        for noting in [Noting::Beginnings, Noting::Everywhere] {
            let stored = with(flags, fields).repeat(2);
            let mut content = String::new();
            Decompressor::noting(Codec::Gzip, &stored[..], noting, 32)
                .unwrap()
                .read_to_string(&mut content)
                .unwrap();
            assert_eq!(content, "hello, fragment\nhello, fragment\n", "flags {flags}");
        }
    }
    for (flags, fields) in [(32, &b""[..]), (128, b""), (4, b"\xff\xff"), (8, b"no end")] {
        let stored = with(flags, fields);
        let stored = if flags == 8 { &stored[..16] } else { &stored[..] };
        assert!(decompress(Codec::Gzip, stored).is_err(), "flags {flags}");
    }
}
