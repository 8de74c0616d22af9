//! A promise to whoever keeps long journals: the index of one with a million stored fragments stays below 100 MiB, also
//! while a new listing takes its place and readers still hold a snapshot; and what follows costs next to nothing.
#![allow(clippy::unwrap_used, reason = "it is a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use fragment::index::{Answer, Index, Query, RemoteSet, RemoteSetBuilder};
use fragment::{Codec, Fragment, PathPostfix, Sum};
use proto::JournalName;

const FRAGMENTS: i64 = 1_000_000;
const LENGTH: i64 = 1 << 28;
const LIMIT_BYTES: usize = 100 << 20;
/// What one more commit or upload may allocate while readers hold a snapshot.
const CHANGE_BYTES_MAX: usize = 256 << 10;

/// Counts the bytes that are allocated, and their peak.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn note(added: usize, removed: usize) {
    let now = ALLOCATED.fetch_add(added, Ordering::Relaxed) + added - removed;
    ALLOCATED.fetch_sub(removed, Ordering::Relaxed);
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(0, layout.size());
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.dealloc(pointer, layout) }
    }

    // Large blocks grow and shrink in place: the system moves their pages, and does not copy them.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The peak of `work`, above what was allocated before.
fn peak_of<T>(base: usize, work: impl FnOnce() -> T) -> (usize, T) {
    PEAK.store(ALLOCATED.load(Ordering::Relaxed), Ordering::Relaxed);
    let outcome = work();
    (PEAK.load(Ordering::Relaxed).saturating_sub(base), outcome)
}

fn stored(journal: &JournalName, store: &std::sync::Arc<str>, i: i64) -> Fragment {
    Fragment {
        end: (i + 1) * LENGTH,
        // What a sum is does not matter here, and a million of them take a while.
        sum: Sum::default(),
        backing_store: Some(store.clone()),
        mod_time: 1_700_000_000 + i,
        path_postfix: PathPostfix::parse(&format!("date={}", i / 1000)).unwrap(),
        ..Fragment::empty(journal.clone(), i * LENGTH, Codec::Snappy)
    }
}

/// A listing which comes in an order of its own, as that of a directory does.
fn listing(journal: &JournalName) -> RemoteSet {
    const STRIDE: i64 = 7_919;
    let store = "s3://bucket/prefix/".into();
    let mut builder = RemoteSetBuilder::default();
    for i in 0..FRAGMENTS {
        builder.push(stored(journal, &store, i * STRIDE % FRAGMENTS));
    }
    builder.build()
}

#[test]
fn a_million_fragments_are_replaced_within_100_mib() {
    let journal = JournalName::parse("a/journal").unwrap();
    let base = ALLOCATED.load(Ordering::Relaxed);
    let mut index: Index<()> = Index::new(journal.clone());
    assert!(index.replace_remote(listing(&journal)).is_empty());
    let held = ALLOCATED.load(Ordering::Relaxed) - base;

    let (peak, reader) = peak_of(base, || {
        let reader = index.clone();
        assert!(index.replace_remote(listing(&journal)).is_empty());
        reader
    });
    println!("index of {FRAGMENTS} fragments: {held} bytes, {peak} while it is replaced");
    assert!(peak < LIMIT_BYTES, "{peak} bytes at the peak, {held} at rest");
    assert_eq!((index.remote().len(), index.end()), (FRAGMENTS as usize, FRAGMENTS * LENGTH));
    drop(reader);

    let reader = index.clone();
    let base = ALLOCATED.load(Ordering::Relaxed);
    let upload = Fragment {
        path_postfix: PathPostfix::none(),
        ..stored(&journal, &"s3://bucket/prefix/".into(), FRAGMENTS)
    };
    let local = Fragment { end: upload.end + 9, ..Fragment::empty(journal, upload.end, Codec::Snappy) };
    let (commit, _) = peak_of(base, || index.insert_local(local, ()));
    assert!(commit < CHANGE_BYTES_MAX, "a commit allocates {commit} bytes");
    let (stored, _) = peak_of(base, || index.insert_remote(upload));
    assert!(stored < CHANGE_BYTES_MAX, "an upload allocates {stored} bytes");
    assert_eq!((reader.remote().len(), index.remote().len()), (FRAGMENTS as usize, FRAGMENTS as usize + 1));
    let query = Query { offset: 5 * LENGTH + 1, begin_mod_time: 0, now_unix: 0, jump_age_seconds: 0 };
    let Answer::Found(found) = index.query(&query) else { panic!("it is stored") };
    assert_eq!(
        (found.entry.fragment.begin, found.entry.fragment.path_postfix.as_str()),
        (5 * LENGTH, "date=0")
    );
}
