//! Reads which begin in the middle.

mod entries;

use std::io::Write;
use std::sync::atomic::Ordering;

use fragment::Sum;
use fragment::compress::Compressor;
use runtime::Entropy;

use super::*;
use crate::Store;
use crate::store::tests::memory::{self, Faults};
use crate::store::tests::{file_store, fragment_of, plant, read, source};

const SEEKABLE: [Codec; 3] = [Codec::Gzip, Codec::Zstandard, Codec::Snappy];
const BEGIN: i64 = 1000;

/// Bytes which compress somewhat, differently in each block.
fn content(bytes: usize) -> Vec<u8> {
    let entropy = Entropy::seeded(bytes as u64);
    let mut content = vec![0; bytes];
    entropy.fill(&mut content);
    for (n, block) in content.chunks_mut(BLOCK_BYTES).enumerate() {
        block.iter_mut().step_by(2 + n % 3).for_each(|byte| *byte = b' ');
    }
    content
}

fn compressed(codec: Codec, level: u32, content: &[u8]) -> Vec<u8> {
    let mut compressor = Compressor::new(codec, Some(level), Vec::new()).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

/// Where the blocks of a file end.
fn index_at(codec: Codec, stored: &[u8], content: usize) -> usize {
    match SeekIndex::read(codec, stored, stored.len() as u64, content as u64) {
        Tail::Index(index) => index.stored_end() as usize,
        other => panic!("{codec} has no index: {other:?}"),
    }
}

/// What others write of the content: no index, and of gzip a single member.
fn foreign(codec: Codec, content: &[u8]) -> Vec<u8> {
    if codec == Codec::Gzip {
        return compressed(Codec::GzipOffload, 6, content);
    }
    let mut stored = compressed(codec, 3, content);
    stored.truncate(index_at(codec, &stored, content.len()));
    stored
}

fn fragment(codec: Codec, content: &[u8]) -> Fragment {
    fragment_of("a/journal", BEGIN, codec, content)
}

/// Requests and bytes that the read of everything from `skip` on takes.
async fn cost(
    store: &Store,
    faults: &Faults,
    fragment: &Fragment,
    skip: usize,
    right: &[u8],
) -> (usize, u64) {
    faults.requests.lock().unwrap().clear();
    faults.asked_bytes.store(0, Ordering::SeqCst);
    let found = read(store, fragment, BEGIN + skip as i64).await.unwrap();
    assert!(found == right[skip..], "{} from {skip}: {} bytes", fragment.codec, found.len());
    (faults.requests.lock().unwrap().len(), faults.asked_bytes.load(Ordering::SeqCst))
}

/// A store in memory, which was found healthy, and so makes no requests of its own.
async fn memory_store() -> (Store, Faults) {
    let faults = Faults::default();
    let store = memory::store(faults.clone());
    store.checked_health().await;
    (store, faults)
}

/// Randomness of a test, whose seed is printed, so that a failure can be repeated.
fn seeded() -> Entropy {
    let given = std::env::var_os("COURANT_SEED").map(|seed| seed.to_str().unwrap().parse().unwrap());
    let seed = given.unwrap_or_else(|| Entropy::system().u64());
    println!("repeat with COURANT_SEED={seed}");
    Entropy::seeded(seed)
}

#[tokio::test]
async fn a_deep_read_asks_for_the_end_and_then_for_what_it_needs() {
    let right = content(6 * BLOCK_BYTES + 99);
    for codec in SEEKABLE {
        let (store, faults) = memory_store().await;
        let fragment = fragment(codec, &right);
        store.put(&fragment, source(&right)).await.unwrap();
        let skip = 5 * BLOCK_BYTES + BLOCK_BYTES / 2;
        let (requests, bytes) = cost(&store, &faults, &fragment, skip, &right).await;
        let most = TAIL_BYTES + (2 * BLOCK_BYTES) as u64;
        assert!(requests == 2 && bytes < most, "{codec}: {requests} requests for {bytes} bytes");
        // What the end said is known now.
        let (requests, bytes) = cost(&store, &faults, &fragment, 6 * BLOCK_BYTES + 98, &right).await;
        assert!(requests == 1 && bytes < 200, "{codec}: {requests} requests for {bytes} bytes");
        // Near the beginning there is nothing to gain.
        assert_eq!(cost(&store, &faults, &fragment, 10, &right).await.0, 1);
    }
}

#[tokio::test]
async fn ends_are_found_where_a_store_cannot_give_them() {
    let right = content(3 * BLOCK_BYTES);
    let (store, faults) = memory_store().await;
    faults.knows_no_ends.store(true, Ordering::SeqCst);
    let fragment = fragment(Codec::Zstandard, &right);
    store.put(&fragment, source(&right)).await.unwrap();
    let (requests, bytes) = cost(&store, &faults, &fragment, 2 * BLOCK_BYTES + 1, &right).await;
    assert!(requests == 4 && bytes < (BLOCK_BYTES as u64) + 2 * TAIL_BYTES, "{requests}, {bytes}");
}

#[tokio::test]
async fn reads_from_random_offsets_are_the_content() {
    let entropy = seeded();
    let right = content(4 * BLOCK_BYTES + 4321);
    let (_root, files) = file_store();
    let (memory, _) = memory_store().await;
    for store in [files, memory] {
        for codec in Codec::ALL {
            for is_foreign in [false, true] {
                let fragment = fragment(codec, &right);
                match (is_foreign, SEEKABLE.contains(&codec)) {
                    (true, true) => plant(&store, &fragment, &foreign(codec, &right)).await,
                    (true, false) => continue,
                    (false, _) => store.put(&fragment, source(&right)).await.unwrap(),
                }
                for _ in 0..6 {
                    let skip = entropy.below(right.len() as u64) as usize;
                    let found = read(&store, &fragment, BEGIN + skip as i64).await.unwrap();
                    assert!(found == right[skip..], "{codec} from {skip}, foreign: {is_foreign}");
                }
            }
        }
    }
}

#[tokio::test]
async fn chunks_of_snappy_are_passed_over_without_an_index() {
    let right = content(4 * BLOCK_BYTES);
    let (root, store) = file_store();
    let fragment = fragment(Codec::Snappy, &right);
    let mut stored = foreign(Codec::Snappy, &right);
    // What is passed over is not looked at, so this does not show; what is read is.
    stored[100] ^= 1;
    plant(&store, &fragment, &stored).await;
    let found = read(&store, &fragment, BEGIN + 3 * BLOCK_BYTES as i64 + 5).await.unwrap();
    assert!(found == right[3 * BLOCK_BYTES + 5..]);
    let error = read(&store, &fragment, BEGIN).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    drop(root);
}

#[tokio::test]
async fn an_index_that_lies_costs_time_but_no_truth() {
    let right = content(4 * BLOCK_BYTES);
    let (_root, store) = file_store();
    let fragment = fragment(Codec::Zstandard, &right);
    let stored = compressed(Codec::Zstandard, 3, &right);
    let table = index_at(Codec::Zstandard, &stored, right.len()) + 8;
    // The sizes of the first two blocks change places, so that the sums are right.
    let mut lying = stored.clone();
    lying[table..table + 8].copy_from_slice(&stored[table + 8..table + 16]);
    lying[table + 8..table + 16].copy_from_slice(&stored[table..table + 8]);
    assert_ne!(lying, stored);
    plant(&store, &fragment, &lying).await;
    for skip in [BLOCK_BYTES, BLOCK_BYTES + 7, 3 * BLOCK_BYTES] {
        let found = read(&store, &fragment, BEGIN + skip as i64).await.unwrap();
        assert!(found == right[skip..], "from {skip}");
    }
}

#[tokio::test]
async fn a_corrupt_block_is_an_error_and_those_after_it_are_read() {
    let right = content(5 * BLOCK_BYTES);
    let (_root, store) = file_store();
    for codec in SEEKABLE {
        let fragment = fragment(codec, &right);
        let mut stored = compressed(codec, 3, &right);
        let Tail::Index(index) = SeekIndex::read(codec, &stored, stored.len() as u64, right.len() as u64)
        else {
            panic!("{codec} has no index");
        };
        let block = index.block(3).unwrap();
        stored[(block.stored.start + block.stored.end) as usize / 2] ^= 1;
        plant(&store, &fragment, &stored).await;
        for skip in [0, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 1] {
            let error = read(&store, &fragment, BEGIN + skip as i64).await.unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{codec} from {skip}: {error}");
            assert!(error.to_string().contains(&fragment.content_path()), "{error}");
        }
        let found = read(&store, &fragment, BEGIN + 4 * BLOCK_BYTES as i64).await.unwrap();
        assert!(found == right[4 * BLOCK_BYTES..], "{codec}");
    }
}

#[tokio::test]
async fn an_object_that_was_written_anew_is_entered_by_its_new_index() {
    let right = content(4 * BLOCK_BYTES);
    let (memory, _) = memory_store().await;
    let (_root, files) = file_store();
    for store in [memory, files] {
        for codec in [Codec::Gzip, Codec::Zstandard] {
            let fragment = fragment(codec, &right);
            for level in [1, 9, 1, 9] {
                plant(&store, &fragment, &compressed(codec, level, &right)).await;
                for skip in [3 * BLOCK_BYTES, 2 * BLOCK_BYTES + 5] {
                    let found = read(&store, &fragment, BEGIN + skip as i64).await.unwrap();
                    assert!(found == right[skip..], "{codec} from {skip} at level {level}");
                }
            }
        }
    }
}

#[tokio::test]
async fn objects_which_expand_without_bound_are_errors_that_name_them() {
    let zeros = vec![0; 64 << 20];
    let claimed = &zeros[..3 * BLOCK_BYTES];
    let (_root, store) = file_store();
    for codec in [Codec::Gzip, Codec::Zstandard, Codec::Snappy, Codec::GzipOffload] {
        let fragment = Fragment { sum: Sum::of(claimed), ..fragment(codec, claimed) };
        plant(&store, &fragment, &compressed(codec, 3, &zeros)).await;
        for skip in [0, 2 * BLOCK_BYTES + 1] {
            let error = read(&store, &fragment, BEGIN + skip as i64).await.unwrap_err().to_string();
            assert!(error.contains("did not read EOF at expected Fragment.End"), "{codec}: {error}");
            assert!(error.contains(&fragment.content_path()), "{codec}: {error}");
        }
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_leaves_nothing_behind() {
    let right = content(4 * BLOCK_BYTES);
    let (_root, store) = file_store();
    let fragment = fragment(Codec::Gzip, &right);
    store.put(&fragment, source(&right)).await.unwrap();
    for skip in [0, 2 * BLOCK_BYTES as i64] {
        let mut chunks = store.open(&fragment, BEGIN + skip).await.unwrap();
        for _ in 0..6 {
            futures::StreamExt::next(&mut chunks).await.unwrap().unwrap();
        }
        drop(chunks);
        // Its last step ends by itself.
        store.remove(&fragment).await.unwrap();
        store.put(&fragment, source(&right)).await.unwrap();
    }
}
