//! The fragment index at 100,000 stored fragments: taking a listing, inserting at the end and in the middle, answering
//! reads, publishing snapshots.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fragment::index::{Index, Query, RemoteSet};
use fragment::{Codec, Fragment, Sum};
use proto::JournalName;

const FRAGMENTS: i64 = 100_000;
const LENGTH: i64 = 1 << 20;

fn fragments() -> Vec<Fragment> {
    let journal = JournalName::parse("bench/journal").expect("a valid name");
    let stored = |i: i64| Fragment {
        end: (i + 1) * LENGTH,
        sum: Sum::of(&i.to_le_bytes()),
        backing_store: Some("file:///".into()),
        mod_time: i + 1,
        ..Fragment::empty(journal.clone(), i * LENGTH, Codec::Snappy)
    };
    (0..FRAGMENTS).map(stored).collect()
}

fn index() -> Index<()> {
    let fragments = fragments();
    let mut index = Index::new(fragments[0].journal.clone());
    assert!(index.replace_remote(fragments.into_iter().collect()).is_empty());
    index
}

fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("index_100k");
    group.sample_size(20);
    let listed = fragments();
    group.bench_function("take_listing", |b| {
        b.iter_batched(|| listed.clone(), RemoteSet::from_iter, BatchSize::LargeInput);
    });
    let mut index = index();
    let spool = |end: i64| Fragment {
        end: index_end() + end,
        ..Fragment::empty(listed[0].journal.clone(), index_end(), Codec::Snappy)
    };
    let mut end = 0;
    group.bench_function("insert_local_commit", |b| {
        b.iter(|| {
            end += 256;
            index.insert_local(spool(end), ())
        });
    });
    group.bench_function("insert_remote_in_the_middle", |b| {
        let middle = listed[listed.len() / 2].clone();
        b.iter(|| index.insert_remote(middle.clone()));
    });
    let mut offset = 0;
    group.bench_function("query", |b| {
        b.iter(|| {
            offset = (offset + 7 * LENGTH + 13) % index_end();
            black_box(index.query(&Query { offset, begin_mod_time: 0, now_unix: 1, jump_age_seconds: 1 }))
        });
    });
    group.bench_function("publish_snapshot", |b| b.iter(|| black_box(index.clone())));
    group.finish();
}

fn index_end() -> i64 {
    FRAGMENTS * LENGTH
}

criterion_group!(all, benches);
criterion_main!(all);
