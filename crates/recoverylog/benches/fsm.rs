//! What the state machine and its pure neighbours cost per operation.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use proto::JournalName;
use proto::recoverylog::FsmHints;
use recoverylog::{Author, Fnode, Fsm, Op, Playback, Recording, Span};
use std::collections::BTreeMap;
use std::hint::black_box;

const OPERATIONS: u64 = 10_000;

fn log() -> JournalName {
    JournalName::parse("bench/log").expect("the name is valid")
}

fn fsm() -> Fsm {
    Fsm::new(&FsmHints { log: String::from(&log()), ..FsmHints::default() }).expect("the hints are valid")
}

fn recording() -> Recording {
    Recording::new(fsm(), Author::new(1).expect("not zero"), log(), 0)
}

/// Records a store at work: files are created, written to, and removed when they are old.
fn record(recording: &mut Recording, out: &mut Vec<u8>) {
    let mut newest = Fnode(0);
    for number in 0..OPERATIONS {
        let recorded = match number % 100 {
            0 => recording.create(format!("/{number:06}.sst"), out).map(|fnode| newest = fnode),
            1 if number > 1000 => recording.remove(format!("/{:06}.sst", number - 1001), out),
            _ => recording.write_at(newest, number * 64, 0, out),
        };
        recorded.expect("operations are consistent");
    }
}

fn bench(criterion: &mut Criterion) {
    let (mut recorded, mut bytes) = (recording(), Vec::new());
    record(&mut recorded, &mut bytes);
    let hints = recorded.fsm().build_hints(&log());

    let mut group = criterion.benchmark_group("recovery log");
    group.throughput(Throughput::Elements(OPERATIONS));
    group.bench_function("record", |b| {
        b.iter_batched_ref(
            || (recording(), Vec::with_capacity(bytes.len())),
            |(recording, out)| record(recording, out),
            BatchSize::LargeInput,
        );
    });

    let operations = split(&bytes);
    group.bench_function("apply", |b| {
        let log = log();
        b.iter_batched_ref(
            fsm,
            |fsm| {
                for (op, payload) in &operations {
                    let span = Span { log: &log, first_offset: 0, last_offset: 0 };
                    fsm.apply(black_box(op), payload, span).expect("the log is consistent");
                }
            },
            BatchSize::LargeInput,
        );
    });

    for (name, hints) in
        [("play", FsmHints { live_nodes: vec![], ..hints.clone() }), ("play with hints", hints)]
    {
        group.bench_function(name, |b| {
            let content = Bytes::from(bytes.clone());
            b.iter_batched_ref(
                || Playback::new(Fsm::new(&hints).expect("the hints are valid")),
                |playback| {
                    playback
                        .on_heads(BTreeMap::from([(log(), content.len() as i64)]))
                        .expect("the log is whole");
                    playback.on_chunk(0, content.clone()).expect("the log is consistent")
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// The operations of a log without written bytes.
fn split(mut log: &[u8]) -> Vec<(Op, Vec<u8>)> {
    let mut operations = Vec::new();
    while let message::Split::Frame { consumed, payload } = message::fixed::split(log, true) {
        let payload = log[payload].to_vec();
        operations.push((Op::decode(&payload).expect("a recorded operation"), payload));
        log = &log[consumed..];
    }
    operations
}

criterion_group!(benches, bench);
criterion_main!(benches);
