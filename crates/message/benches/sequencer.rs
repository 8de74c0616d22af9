//! How fast messages are sequenced: transactions of interleaved producers, from the ring alone.
#![allow(missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use message::{Clock, Envelope, Flags, Framing, Message, MessageError, ProducerId, Sequencer, Step, Uuid};
use proto::JournalName;
use std::hint::black_box;
use std::sync::Arc;

#[derive(Clone)]
struct Bare(Uuid);

impl Message for Bare {
    fn uuid(&self) -> Uuid {
        self.0
    }
    fn set_uuid(&mut self, uuid: Uuid) {
        self.0 = uuid;
    }
    fn new_acknowledgement(&self, _: &JournalName) -> Bare {
        Bare(Uuid::default())
    }
    fn encode(&self, framing: Framing, _: &mut Vec<u8>) -> Result<(), MessageError> {
        Err(MessageError::Framing(framing))
    }
    fn decode(&mut self, framing: Framing, _: &[u8]) -> Result<(), MessageError> {
        Err(MessageError::Framing(framing))
    }
}

const MESSAGES: u64 = 10_000;

/// Producers write one message each by turns, and all acknowledge after each hundred turns.
fn journal(producers: u64) -> Vec<Envelope<Bare>> {
    let name: Arc<str> = "bench/journal".into();
    let envelope = |at: u64| {
        let flags = if (at / producers) % 100 == 99 { Flags::ACK_TXN } else { Flags::CONTINUE_TXN };
        let uuid = Uuid::build(ProducerId([1, 0, 0, 0, 0, (at % producers) as u8]), Clock(100 + at), flags);
        let begin = at as i64 * 100;
        Envelope { journal: name.clone(), begin, end: begin + 100, message: Bare(uuid) }
    };
    (0..MESSAGES).map(envelope).collect()
}

fn sequence(c: &mut Criterion) {
    let mut group = c.benchmark_group("sequence");
    group.throughput(Throughput::Elements(MESSAGES));
    for producers in [1, 8] {
        let journal = journal(producers);
        group.bench_function(format!("{producers} producers"), |b| {
            let setup = || (Sequencer::new(Vec::new(), 8192, usize::MAX), journal.clone());
            b.iter_batched(
                setup,
                |(mut sequencer, journal)| {
                    for envelope in journal {
                        if sequencer.queue(envelope).commits() {
                            while sequencer.step() == Step::Exposed {
                                black_box(sequencer.dequeued());
                            }
                        }
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, sequence);
criterion_main!(benches);
