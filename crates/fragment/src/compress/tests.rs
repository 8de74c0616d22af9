use proptest::prelude::*;

use super::*;

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
