//! How fast frames are split from a buffer, and how fast small JSON messages are decoded.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use message::{Decoder, Framing, Split, Uuid, csv, fixed, json};
use serde::{Deserialize, Serialize};
use std::hint::black_box;

#[derive(Serialize, Deserialize)]
struct Reading {
    #[serde(rename = "UUID")]
    uuid: Uuid,
    sensor: u32,
    celsius: f64,
}

const FRAMES: u64 = 1000;

fn buffer(framing: Framing) -> Vec<u8> {
    let mut out = Vec::new();
    for sensor in 0..FRAMES as u32 {
        match framing {
            Framing::Json => {
                let reading = Reading { uuid: Uuid::default(), sensor, celsius: 21.5 };
                json::encode(&reading, &mut out).expect("readings are plain");
            }
            Framing::Fixed => fixed::encode_payload(&[0; 60], &mut out).expect("payloads are small"),
            Framing::Csv => csv::encode(&[Uuid::default().to_string().as_str(), "sensor", "21.5"], &mut out),
        }
    }
    out
}

/// Splits all frames and hands their payloads to `each`.
fn split_all(framing: Framing, buffer: &[u8], mut each: impl FnMut(&[u8])) {
    let (mut decoder, mut at) = (Decoder::new(framing), 0);
    while let Split::Frame { consumed, payload } = decoder.split(&buffer[at..], true) {
        each(&buffer[at..][payload]);
        at += consumed;
    }
}

fn split(c: &mut Criterion) {
    let mut group = c.benchmark_group("split");
    group.throughput(Throughput::Elements(FRAMES));
    for framing in [Framing::Json, Framing::Fixed, Framing::Csv] {
        let buffer = buffer(framing);
        group.bench_function(framing.content_type(), |b| {
            b.iter(|| split_all(framing, &buffer, |payload| _ = black_box(payload)));
        });
    }
    group.finish();
}

fn decode_json(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(FRAMES));
    let buffer = buffer(Framing::Json);
    group.bench_function("json", |b| {
        b.iter(|| {
            split_all(Framing::Json, &buffer, |payload| {
                _ = black_box(json::decode::<Reading>(payload).expect("what was encoded"));
            });
        });
    });
    group.finish();
}

criterion_group!(benches, split, decode_json);
criterion_main!(benches);
