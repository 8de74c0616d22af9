//! The append state machine: forming groups and committing them to a spool. Without a disk or a network, and with the
//! fragment's running SHA-1.

use std::hint::black_box;
use std::time::Duration;

use broker::bench::{Admission, GroupFormer, Known, Offer, Terms, Wants};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fragment::spool::{RollPolicy, Spool};
use proto::JournalName;
use proto::protocol::{JournalSpec, LabelSelector, LabelSet, journal_spec};

const NOW: Duration = Duration::from_secs(1_500_000_000);
/// Where each round begins: behind the journal's first fragment, whose appends stand alone.
const BEGIN: i64 = 1 << 20;

struct Journal {
    spool: Spool,
    terms: Terms,
    policy: RollPolicy,
}

fn journal() -> Journal {
    let fragment = journal_spec::Fragment { length: 1 << 40, compression_codec: 4, ..Default::default() };
    let spec = JournalSpec { fragment: Some(fragment), ..Default::default() };
    let mut spool = Spool::new(JournalName::parse("bench/journal").expect("a valid name"));
    let registers = LabelSet::from_pairs([("author", "one")]);
    let begin = fragment::Fragment::empty(spool.fragment().journal.clone(), BEGIN, fragment::Codec::Snappy);
    drop(spool.propose(&begin, &registers, NOW));
    Journal { spool, terms: Terms::of(&spec), policy: RollPolicy::of(&spec) }
}

/// Forms one group of all offers, applies `content` for each, and commits.
fn commit(journal: &mut Journal, offers: &[Offer<'_>], content: &[u8]) {
    let known = Known { begin: 0, end: journal.spool.fragment().end, last_mod_time: 0 };
    let mut former = GroupFormer::new(&journal.spool, known, &journal.terms, &journal.policy, NOW);
    for offer in offers {
        let admission = former.offer(offer);
        assert!(matches!(admission, Admission::Joined(_)), "{admission:?}");
        drop(black_box(admission));
    }
    let group = former.finish().expect("appends joined it");
    for _ in offers {
        journal.spool.content(journal.spool.uncommitted(), content).expect("it continues");
    }
    drop(black_box(journal.spool.propose(&journal.spool.extended(), &group.registers, NOW)));
}

fn benches(c: &mut Criterion) {
    let fenced =
        Wants { check_registers: Some(LabelSelector::include([("author", "one")])), ..Wants::default() };
    let union = LabelSet::from_pairs([("author", "one")]);
    let mut group = c.benchmark_group("append");
    for (name, appends, bytes, wants) in [
        ("one of 256 B", 1, 256, Wants::default()),
        ("64 of 256 B", 64, 256, Wants::default()),
        ("64 of 256 B, fenced", 64, 256, fenced.clone()),
        ("one of 1 MiB", 1, 1 << 20, Wants::default()),
    ] {
        let content = vec![7; bytes];
        let union_registers = wants.check_registers.as_ref().map(|_| &union);
        let length = i64::try_from(bytes).expect("small");
        let offer = Offer { wants, length, union_registers, ..Offer::default() };
        let offers = vec![offer; appends];
        let mut journal = journal();
        group.throughput(Throughput::Elements(appends as u64));
        group.bench_function(name, |b| b.iter(|| commit(&mut journal, &offers, &content)));
    }
    group.finish();
}

criterion_group!(append, benches);
criterion_main!(append);
