//! Compression and decompression of a fragment, in blocks and as one stream. Prints what the blocks cost.

use std::hint::black_box;
use std::io::{self, Read, Write};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::Compression;
use fragment::Codec;
use fragment::compress::{Compressor, Decompressor, Entry, Noting, SkipRead, gzip_members};

const BYTES: usize = 32 << 20;

/// Messages in JSON, as journals hold them: most of each is like the one before, and some of it is random.
fn content() -> Vec<u8> {
    let mut content = Vec::with_capacity(BYTES + 300);
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 16
    };
    while content.len() < BYTES {
        let (a, b, c) = (random(), random(), random());
        let line = format!(
            "{{\"uuid\":\"{a:012x}-11ef-8{:03x}-{b:012x}\",\"user\":\"user-{}\",\"path\":\"/items/{}/parts/{}\",\"took_ms\":{},\"ok\":true}}\n",
            c % 4096,
            c % 5000,
            a % 300,
            b % 40,
            c % 900
        );
        content.extend_from_slice(line.as_bytes());
    }
    content.truncate(BYTES);
    content
}

fn in_blocks(codec: Codec, content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, None, Vec::new()).expect("the level is known");
    compressor.write_all(content).expect("memory can be written");
    compressor.finish().expect("memory can be written")
}

fn as_one_stream(codec: Codec, content: &[u8]) -> Vec<u8> {
    fn write(content: &[u8], to: &mut impl Write) {
        content.chunks(256 << 10).for_each(|part| to.write_all(part).expect("memory can be written"));
    }
    match codec {
        Codec::Zstandard => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 0).expect("the level is known");
            encoder.include_checksum(true).expect("it can be");
            write(content, &mut encoder);
            encoder.finish().expect("memory can be written")
        }
        Codec::Snappy => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            write(content, &mut encoder);
            encoder.into_inner().expect("memory can be written")
        }
        _ => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
            write(content, &mut encoder);
            encoder.finish().expect("memory can be written")
        }
    }
}

fn decompress(codec: Codec, stored: &[u8], buffer: &mut [u8]) {
    let mut content = Decompressor::new(codec, stored).expect("it begins well");
    while content.read(buffer).expect("it is whole") > 0 {
        black_box(&buffer);
    }
}

/// Stored bytes in memory.
struct Stored<'a>(&'a [u8]);

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl SkipRead for Stored<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.0.len());
        self.0 = &self.0[skipped..];
        Ok(())
    }
}

/// Passes over all but the last byte, and returns where the stream can be entered.
fn pass_over(codec: Codec, stored: &[u8]) -> Vec<Entry> {
    let length = BYTES as u64;
    let mut content =
        Decompressor::noting(codec, Stored(stored), Noting::Everywhere, length).expect("it begins well");
    content.pass_over(length - 1).expect("it is whole");
    content.take_entries()
}

/// Goes from an entry to the last byte.
fn enter(codec: Codec, stored: &[u8], entry: &Entry) {
    let (length, at) = (BYTES as u64, usize::try_from(entry.stored).expect("it is in memory"));
    let mut content =
        Decompressor::enter(codec, Stored(&stored[at..]), entry, length).expect("it was entered before");
    content.pass_over(length - 1 - entry.content).expect("it is whole");
}

fn codecs(criterion: &mut Criterion) {
    let content = content();
    let mut buffer = vec![0; 1 << 20];
    for codec in [Codec::Gzip, Codec::Zstandard, Codec::Snappy] {
        let (blocks, one) = (in_blocks(codec, &content), as_one_stream(codec, &content));
        let more = blocks.len() as f64 / one.len() as f64 - 1.0;
        println!(
            "{codec}: {BYTES} bytes become {} in blocks, {} as one stream: {:+.2} %",
            blocks.len(),
            one.len(),
            more * 100.0
        );
        let mut group = criterion.benchmark_group(codec.to_string());
        group.sample_size(10).throughput(Throughput::Bytes(BYTES as u64));
        group.bench_function("compress blocks", |b| b.iter(|| in_blocks(codec, &content)));
        group.bench_function("compress one stream", |b| b.iter(|| as_one_stream(codec, &content)));
        group.bench_function("decompress blocks", |b| b.iter(|| decompress(codec, &blocks, &mut buffer)));
        group.bench_function("decompress one stream", |b| b.iter(|| decompress(codec, &one, &mut buffer)));
        group.bench_function("pass over one stream", |b| b.iter(|| pass_over(codec, &one)));
        if let Some(entry) = pass_over(codec, &one).last() {
            group.bench_function("enter one stream", |b| b.iter(|| enter(codec, &one, entry)));
        }
        if codec == Codec::Gzip {
            let members: Vec<u8> =
                content.chunks(1 << 20).flat_map(|batch| as_one_stream(codec, batch)).collect();
            group.bench_function("search members", |b| {
                b.iter(|| gzip_members(&members[..], BYTES as u64).expect("memory can be read"));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, codecs);
criterion_main!(benches);
