use proptest::prelude::*;

use super::*;

const CODECS: [Codec; 3] = [Codec::Gzip, Codec::Zstandard, Codec::Snappy];

/// `blocks` blocks with 1000 bytes of content each, the last one with 7, stored as 10, 11, 12 … bytes.
fn written(blocks: u32) -> Written {
    let blocks = (0..blocks).map(|n| (10 + n % 100, if n + 1 == blocks { 7 } else { 1000 })).collect();
    Written { blocks }
}

/// An index after so many bytes of blocks, and the content of those.
fn file(codec: Codec, blocks: u32) -> (Vec<u8>, u64, u64) {
    let written = written(blocks);
    let sum = |part: fn(&(u32, u32)) -> u32| written.blocks.iter().map(|b| u64::from(part(b))).sum::<u64>();
    let index = written.index(codec);
    let stored = sum(|block| block.0) + index.len() as u64;
    (index, stored, sum(|block| block.1))
}

#[test]
fn golden_indexes_of_two_blocks() {
    let written = Written { blocks: vec![(0x100, 0x10_0000), (0x20, 5)] };
    let zstd = b"\x5e\x2a\x4d\x18\x19\0\0\0\
        \x00\x01\0\0\x00\x00\x10\0\x20\0\0\0\x05\0\0\0\
        \x02\0\0\0\0\xb1\xea\x92\x8f";
    assert_eq!(written.index(Codec::Zstandard), zstd);
    let shared = b"\x00\x01\0\0\x20\0\0\0\x02\0\0\0\x00\x00\x10\0\x02\xdc\x10\xbaCourSeek";
    let gzip = written.index(Codec::Gzip);
    assert_eq!(gzip[..16], *b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x20\0Co\x1c\0");
    assert_eq!(gzip[16..44], *shared, "{:02x?}", &gzip[16..44]);
    assert_eq!(gzip[44..], *b"\x03\0\0\0\0\0\0\0\0\0");
    let snappy = written.index(Codec::Snappy);
    assert_eq!((&snappy[..4], &snappy[4..]), (&b"\xc0\x1c\0\0"[..], &shared[..]));
}

#[test]
fn one_block_needs_no_index() {
    for codec in Codec::ALL {
        assert!(written(1).index(codec).is_empty(), "{codec}");
    }
    assert!(written(2).index(Codec::GzipOffload).is_empty() && written(2).index(Codec::None).is_empty());
}

#[test]
fn indexes_of_any_length_round_trip() {
    for codec in CODECS {
        for blocks in [2, 3, 8191, 8192, 8193, 16384, 16385, 40_000] {
            let (index, stored, content) = file(codec, blocks);
            let Tail::Index(read) = SeekIndex::read(codec, &index, stored, content) else {
                panic!("{codec}: an index of {blocks} blocks is not found");
            };
            let last = read.block(blocks as usize - 1).unwrap();
            assert_eq!((last.content.end, last.stored.end), (content, read.stored_end()));
            assert_eq!(read.block_at(0).unwrap(), read.block(0).unwrap());
            assert_eq!(read.block_at(1000).unwrap().stored, 10..21);
            assert_eq!(read.block_at(content - 1).unwrap(), last);
            assert_eq!((read.block_at(content), read.block(blocks as usize)), (None, None));
            // What precedes it in the file is not looked at, and what is missing is asked for.
            let longer = [&b"before"[..], &index].concat();
            assert_eq!(SeekIndex::read(codec, &longer, stored, content), Tail::Index(read));
            let short = SeekIndex::read(codec, &index[1..], stored, content);
            assert_eq!(short, Tail::Longer(index.len() as u64), "{codec}, {blocks}");
        }
    }
}

#[test]
fn chunks_and_extra_fields_are_short_enough_for_every_decoder() {
    // golang/snappy refuses chunks above 76490 bytes; an extra field ends at 65535.
    assert!(PART_BLOCKS * 4 + TRAILER_BYTES + 4 <= usize::from(u16::MAX));
    assert!(written(16384).index(Codec::Zstandard).len() as u64 <= INDEX_BYTES_MAX / 8 + 100);
    assert!(written(8192).index(Codec::Gzip).len() as u64 <= TAIL_BYTES);
}

#[test]
fn an_index_that_does_not_account_for_the_file_is_none() {
    for codec in CODECS {
        let (index, stored, content) = file(codec, 5);
        for (stored, content) in [
            (stored + 1, content),
            (stored - 1, content),
            (stored, content + 1000),
            (stored, content - 8),
            (0, content),
            (stored, 0),
            (u64::MAX, u64::MAX),
        ] {
            let read = SeekIndex::read(codec, &index, stored, content);
            assert_eq!(read, Tail::Nothing, "{codec}: {stored}, {content}");
        }
        for other in Codec::ALL.into_iter().filter(|other| *other != codec) {
            assert_eq!(SeekIndex::read(other, &index, stored, content), Tail::Nothing, "{codec} as {other}");
        }
    }
}

#[test]
fn tables_of_other_writers_are_read() {
    // With checksums, which are passed over.
    let mut table = ZSTD_FRAME.to_le_bytes().to_vec();
    table.extend(33u32.to_le_bytes());
    for (stored, content) in [(50u32, 300u32), (60, 400)] {
        table.extend([stored.to_le_bytes(), content.to_le_bytes(), [1, 2, 3, 4]].concat());
    }
    table.extend([&2u32.to_le_bytes()[..], &[0x80], &ZSTD_MAGIC.to_le_bytes()].concat());
    let stored = 110 + table.len() as u64;
    let Tail::Index(index) = SeekIndex::read(Codec::Zstandard, &table, stored, 700) else {
        panic!("no index")
    };
    assert_eq!(index.block_at(300).unwrap(), Block { number: 1, content: 300..700, stored: 50..110 });
    // Reserved bits mean a format which is not known.
    let descriptor = table.len() - 5;
    table[descriptor] |= 0x04;
    assert_eq!(SeekIndex::read(Codec::Zstandard, &table, stored, 700), Tail::Nothing);
}

#[test]
fn blocks_that_would_take_too_much_memory_are_not_used() {
    let max = u32::try_from(BLOCK_CONTENT_BYTES_MAX).unwrap();
    for (blocks, is_used) in [
        ([(9, max), (9, max)], true),
        ([(9, max + 1), (9, max + 1)], false),
        ([(2 * max, max), (9, max)], true),
        ([(2 * max + 1, max), (9, max)], false),
        ([(9, max), (0, max)], false),
    ] {
        let written = Written { blocks: blocks.to_vec() };
        for codec in CODECS {
            let index = written.index(codec);
            let stored = index.len() as u64 + u64::from(blocks[0].0) + u64::from(blocks[1].0);
            let content = 2 * u64::from(blocks[0].1);
            let read = SeekIndex::read(codec, &index, stored, content);
            assert_eq!(matches!(read, Tail::Index(_)), is_used, "{codec} {blocks:?}");
        }
    }
}

#[test]
fn absurd_counts_ask_for_nothing() {
    for codec in CODECS {
        let (mut index, stored, content) = file(codec, 5);
        let count_at = match codec {
            Codec::Zstandard => index.len() - ZSTD_FOOT_BYTES,
            Codec::Gzip => index.len() - GZIP_END.len() - TRAILER_BYTES,
            _ => index.len() - TRAILER_BYTES,
        };
        for count in [0, 4, 6, 1000, u32::MAX] {
            index[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
            match SeekIndex::read(codec, &index, stored, content) {
                Tail::Nothing => {}
                Tail::Longer(bytes) => {
                    assert!(index.len() as u64 <= bytes && bytes <= stored, "{codec} {count}: {bytes}")
                }
                index => panic!("{codec} {count}: {index:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn noise_and_mutations_do_not_panic_nor_pass_unless_they_add_up(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        (at, xor) in (any::<prop::sample::Index>(), 1u8..),
        blocks in 2u32..40,
    ) {
        for codec in CODECS {
            let (mut index, stored, content) = file(codec, blocks);
            let _ = SeekIndex::read(codec, &noise, noise.len() as u64, 10);
            let at = at.index(index.len());
            index[at] ^= xor;
            if let Tail::Index(read) = SeekIndex::read(codec, &index, stored, content) {
                // Only checksums of others, which are not used, could have changed.
                prop_assert!(false, "{codec}: byte {at} is not looked at: {read:?}");
            }
        }
    }
}
