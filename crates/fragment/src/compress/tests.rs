use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

mod entries;

/// Codecs of which files can be entered in the middle.
const SEEKABLE: [Codec; 3] = [Codec::Gzip, Codec::Zstandard, Codec::Snappy];

fn compress(codec: Codec, content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, None, Vec::new()).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

fn decompress(codec: Codec, stored: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    // A hostile stream may expand a thousandfold: ask for no more than a test needs.
    Decompressor::new(codec, stored)?.take(1 << 20).read_to_end(&mut content)?;
    Ok(content)
}

/// "hello, fragment\n" as another implementation of gzip wrote it.
const FOREIGN_GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\xd7\x51\x48\x2b\x4a\x4c\xcf\x4d\xcd\x2b\xe1\x02\x00\x96\x23\x85\x01\x10\x00\x00\x00";

#[test]
fn content_round_trips_at_every_level() {
    let content: Vec<u8> = (0..300_000u32).flat_map(|i| (i % 977).to_le_bytes()).collect();
    for codec in Codec::ALL {
        let stored = compress(codec, &content);
        assert!(codec == Codec::None || stored.len() < content.len(), "{codec}");
        assert!(decompress(codec, &stored).unwrap() == content[..1 << 20], "{codec}");
        for level in [0, 1, 9, 999] {
            let mut compressor = Compressor::new(codec, Some(level), Vec::new()).unwrap();
            compressor.write_all(b"some content").unwrap();
            let stored = compressor.finish().unwrap();
            assert_eq!(decompress(codec, &stored).unwrap(), b"some content", "{codec} at level {level}");
        }
    }
}

#[test]
fn concatenated_gzip_members_are_one_content() {
    let stored: Vec<u8> =
        [&b"one, "[..], b"", b"two, ", b"three"].iter().flat_map(|c| compress(Codec::Gzip, c)).collect();
    assert_eq!(decompress(Codec::Gzip, &stored).unwrap(), b"one, two, three");
    assert_eq!(
        decompress(Codec::Gzip, &FOREIGN_GZIP.repeat(2)).unwrap(),
        b"hello, fragment\nhello, fragment\n"
    );
    let frames: Vec<u8> =
        [&b"one, "[..], b"two"].iter().flat_map(|c| compress(Codec::Zstandard, c)).collect();
    assert_eq!(decompress(Codec::Zstandard, &frames).unwrap(), b"one, two");
}

#[test]
fn snappy_is_the_framing_format() {
    assert!(compress(Codec::Snappy, b"content").starts_with(b"\xff\x06\x00\x00sNaPpY"));
    assert!(compress(Codec::Gzip, b"content").starts_with(b"\x1f\x8b\x08"));
    assert_eq!(compress(Codec::GzipOffload, b"content")[..3], compress(Codec::Gzip, b"content")[..3]);
    assert!(compress(Codec::Zstandard, b"content").starts_with(b"\x28\xb5\x2f\xfd"));
    assert_eq!(compress(Codec::None, b"content"), b"content");
}

#[test]
fn truncated_and_foreign_streams_are_errors() {
    for codec in [Codec::Gzip, Codec::Zstandard, Codec::Snappy, Codec::GzipOffload] {
        let stored = compress(codec, &[7; 100_000]);
        let truncated = decompress(codec, &stored[..stored.len() - 1]);
        assert!(truncated.map_or(true, |content| content.len() < 100_000), "{codec}");
        assert!(decompress(codec, b"these bytes are of no codec at all").is_err(), "{codec}");
    }
}

#[test]
fn windows_beyond_the_limit_are_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(ZSTD_WINDOW_LOG_MAX + 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.write_all(b"content").unwrap();
    assert!(decompress(Codec::Zstandard, &encoder.finish().unwrap()).is_err());
}

/// Content which compresses somewhat, and differs everywhere.
fn words(bytes: usize) -> Vec<u8> {
    static WORDS: LazyLock<Vec<u8>> = LazyLock::new(|| all_words(8 << 20));
    WORDS[..bytes].to_vec()
}

fn all_words(bytes: usize) -> Vec<u8> {
    let mut state = 7u64;
    let mut word = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40).to_string() + " "
    };
    let mut content = Vec::new();
    while content.len() < bytes {
        content.extend(word().bytes());
    }
    content.truncate(bytes);
    content
}

/// The index of a file which has several blocks.
fn index_of(codec: Codec, stored: &[u8], content: usize) -> SeekIndex {
    match SeekIndex::read(codec, stored, stored.len() as u64, content as u64) {
        Tail::Index(index) => index,
        other => panic!("{codec}: {content} bytes of content have no index: {other:?}"),
    }
}

/// A random test's configuration, whose seed is printed, so that a failure can be repeated.
pub(super) fn config(cases: u32) -> ProptestConfig {
    let given = std::env::var_os("COURANT_SEED").map(|seed| seed.to_str().unwrap().parse().unwrap());
    let seed = given.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("repeat with COURANT_SEED={seed}");
    let rng_seed = RngSeed::Fixed(seed);
    ProptestConfig { cases, rng_seed, failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn every_block_is_the_content_that_the_index_says() {
    for codec in SEEKABLE {
        for bytes in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 17] {
            let content = words(bytes);
            let stored = compress(codec, &content);
            let mut read = Vec::new();
            Decompressor::new(codec, &stored[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == content, "{codec}: {bytes} bytes differ when read from the beginning");
            if bytes <= BLOCK_BYTES {
                let none = SeekIndex::read(codec, &stored, stored.len() as u64, bytes as u64);
                assert_eq!(none, Tail::Nothing, "{codec}: {bytes}");
                assert!(decode_block(codec, &stored, bytes).unwrap() == content, "{codec}: {bytes}");
                continue;
            }
            let index = index_of(codec, &stored, bytes);
            let mut joined = Vec::new();
            for block in (0..).map_while(|number| index.block(number)) {
                let stored = &stored[block.stored.start as usize..block.stored.end as usize];
                let length = (block.content.end - block.content.start) as usize;
                joined.extend(decode_block(codec, stored, length).unwrap());
                for wrong in [length - 1, length + 1] {
                    assert!(decode_block(codec, stored, wrong).is_err(), "{codec}: {wrong} for {length}");
                }
                assert!(decode_block(codec, &stored[..stored.len() - 1], length).is_err(), "{codec}");
                assert!(decode_block(codec, &[stored, b"x"].concat(), length).is_err(), "{codec}");
            }
            assert!(joined == content, "{codec}: {bytes} bytes differ when read by blocks");
        }
    }
}

#[test]
fn blocks_and_their_index_cost_little() {
    let content = words(8 << 20);
    let whole = compress(Codec::GzipOffload, &content).len();
    let blocks = compress(Codec::Gzip, &content).len();
    assert!(blocks < whole + whole / 100, "{blocks} bytes in blocks, {whole} in one member");
}

#[test]
fn a_block_which_would_expand_without_bound_is_refused() {
    for codec in SEEKABLE {
        let bomb = compress(codec, &vec![0; 64 << 20]);
        assert!(bomb.len() < 4 << 20, "{codec}");
        let error = decode_block(codec, &bomb, BLOCK_BYTES).unwrap_err();
        assert!(!error.to_string().is_empty());
        // A reader of the whole gets no more than it asks for.
        let mut content = vec![1; 1000];
        Decompressor::new(codec, &bomb[..]).unwrap().read_exact(&mut content).unwrap();
        assert_eq!(content, [0; 1000]);
    }
    // A frame that claims an exabyte of content and a window of 2 GiB.
    let frame = b"\x28\xb5\x2f\xfd\xc0\xa8\xff\xff\xff\xff\xff\xff\xff\x0f\x01\x00\x00";
    assert!(decode_block(Codec::Zstandard, frame, BLOCK_BYTES).is_err());
    assert!(decompress(Codec::Zstandard, frame).is_err());
}

#[test]
fn chunks_that_lie_about_their_length_are_refused() {
    let with = |chunk: &[u8]| [&b"\xff\x06\x00\x00sNaPpY"[..], chunk].concat();
    for (case, chunk) in [
        ("holds 4 GiB", &b"\x00\x0a\x00\x00crc!\xff\xff\xff\xff\x0f\x00"[..]),
        ("holds a number without end", b"\x00\x0a\x00\x00crc!\xff\xff\xff\xff\xff\xff"),
        ("says nothing", b"\x00\x02\x00\x00cr"),
        ("is longer than any", b"\x01\xff\xff\xff"),
        ("is longer than the stream", b"\x01\x10\x00\x00crc!"),
        ("holds too much", &[&b"\x01\x05\x00\x01"[..], &[0; 65541]].concat()),
        ("is of no known type", b"\x02\x01\x00\x00x"),
    ] {
        assert!(decompress(Codec::Snappy, &with(chunk)).is_err(), "{case}");
        assert!(decode_block(Codec::Snappy, &with(chunk), 100).is_err(), "{case}");
        let stored = io::Cursor::new(with(chunk));
        assert!(Decompressor::new(Codec::Snappy, stored).unwrap().pass_over(1 << 40).is_err(), "{case}");
    }
    let stored = io::Cursor::new(b"not snappy at all");
    assert!(Decompressor::new(Codec::Snappy, stored).unwrap().pass_over(5).is_err());
}

impl<B: AsRef<[u8]>> SkipRead for io::Cursor<B> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        self.set_position(self.position() + bytes);
        Ok(())
    }
}

/// A snappy stream as others write it: chunks of any length, streams joined, and chunks to be skipped between.
fn foreign_snappy(content: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stored = Vec::new();
    let mut rest = content;
    for cut in cuts {
        let (part, after) = rest.split_at((*cut).min(rest.len()));
        let mut encoder = snap::write::FrameEncoder::new(&mut stored);
        for piece in part.chunks(1 + cut / 3) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        drop(encoder);
        stored.extend_from_slice(b"\xfe\x03\x00\x00pad\x90\x00\x00\x00");
        rest = after;
    }
    snap::write::FrameEncoder::new(&mut stored).write_all(rest).unwrap();
    stored
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn content_can_be_entered_at_any_offset(blocks in 1usize..4, rest in 1usize..BLOCK_BYTES, at: prop::sample::Index) {
        let content = words(blocks * BLOCK_BYTES + rest);
        let offset = at.index(content.len());
        for codec in SEEKABLE {
            let stored = compress(codec, &content);
            let index = index_of(codec, &stored, content.len());
            let block = index.block_at(offset as u64).unwrap();
            prop_assert!(block.content.contains(&(offset as u64)));
            // The rest of the file from there is a stream of the format.
            let mut read = Vec::new();
            let from = &stored[block.stored.start as usize..];
            Decompressor::new(codec, from).unwrap().read_to_end(&mut read).unwrap();
            prop_assert!(read == content[block.content.start as usize..], "{} at {}", codec, offset);
        }
    }

    #[test]
    fn content_is_passed_over_to_any_offset(
        bytes in 200_000usize..500_000,
        cuts in prop::collection::vec(1usize..90_000, 0..4),
        steps in prop::collection::vec(0usize..200_000, 0..5),
    ) {
        let content = words(bytes);
        for codec in Codec::ALL {
            let stored = if codec == Codec::Snappy { foreign_snappy(&content, &cuts) } else { compress(codec, &content) };
            let mut reader = Decompressor::new(codec, io::Cursor::new(stored)).unwrap();
            let (mut at, mut buffer) = (0, [0; 1000]);
            for step in &steps {
                let step = *step.min(&(content.len() - at));
                reader.pass_over(step as u64).unwrap();
                at += step;
                let read = reader.read(&mut buffer).unwrap();
                prop_assert!(buffer[..read] == content[at..at + read], "{} at {}", codec, at);
                at += read;
            }
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).unwrap();
            prop_assert!(rest == content[at..], "{} from {} with {:?}", codec, at, cuts);
            prop_assert!(reader.pass_over(1).is_err() || codec == Codec::None);
        }
    }
}

proptest! {
    #[test]
    fn random_and_mutated_streams_do_not_panic(
        content in prop::collection::vec(any::<u8>(), 0..2000),
        noise in prop::collection::vec(any::<u8>(), 0..300),
        (at, xor) in (any::<prop::sample::Index>(), 1u8..),
    ) {
        for codec in Codec::ALL {
            let mut stored = compress(codec, &content);
            prop_assert_eq!(&decompress(codec, &stored).unwrap(), &content);
            let _ = decompress(codec, &noise);
            if !stored.is_empty() {
                let at = at.index(stored.len());
                stored[at] ^= xor;
                let _ = decompress(codec, &stored);
                let _ = decompress(codec, &stored[..at]);
            }
        }
    }
}
