//! Objects without an index: of the first read it is remembered where the next one can begin.

use std::sync::LazyLock;

use super::*;
use crate::store::tests::indexes;

const SPACING: usize = ENTRY_SPACING_BYTES as usize;
const CONTENT_BYTES: usize = 2 * SPACING + 3_333_333;
/// Members, frames and streams of a writer that begins anew for each batch.
const BATCH_BYTES: usize = 700_000;

fn right() -> &'static [u8] {
    static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| content(CONTENT_BYTES));
    &CONTENT
}

fn one_stream(codec: Codec, content: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Zstandard => {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap()
        }
        // Chunks of one stream or of several are alike.
        Codec::Snappy => foreign(Codec::Snappy, content),
        _ => compressed(Codec::GzipOffload, 1, content),
    }
}

fn batches(codec: Codec) -> Vec<u8> {
    right().chunks(BATCH_BYTES).flat_map(|batch| one_stream(codec, batch)).collect()
}

/// Where the object is entered by a read from `skip` on, in stored and in content bytes.
fn entered(store: &Store, fragment: &Fragment, skip: usize) -> (u64, u64) {
    let known = indexes(store).get(&fragment.content_path()).expect("something was learned");
    known.entry_at(skip as u64).map_or((0, 0), |entry| (entry.stored, entry.content))
}

/// Reads from `skip` on, which must fetch what is stored from an entry near it on, and nothing else.
async fn read_near(store: &Store, faults: &Faults, fragment: &Fragment, skip: usize, size: usize) {
    let (stored, content) = entered(store, fragment, skip);
    let decompressed_first = skip as u64 - content;
    assert!(decompressed_first < ENTRY_SPACING_BYTES + 1_000_000, "{}: {content}, {skip}", fragment.codec);
    let (requests, bytes) = cost(store, faults, fragment, skip, right()).await;
    assert_eq!((requests, bytes), (1, size as u64 - stored), "{} from {skip}", fragment.codec);
}

#[tokio::test]
async fn the_second_deep_read_begins_near_its_offset() {
    let entropy = seeded();
    for (codec, stored) in [
        (Codec::Gzip, one_stream(Codec::Gzip, right())),
        (Codec::Gzip, batches(Codec::Gzip)),
        (Codec::GzipOffload, one_stream(Codec::GzipOffload, right())),
        (Codec::Zstandard, batches(Codec::Zstandard)),
        (Codec::Snappy, one_stream(Codec::Snappy, right())),
    ] {
        let (store, faults) = memory_store().await;
        let fragment = fragment(codec, right());
        plant(&store, &fragment, &stored).await;
        let skip = CONTENT_BYTES - 1000;
        let (requests, bytes) = cost(&store, &faults, &fragment, skip, right()).await;
        assert!(requests <= 2 && bytes >= stored.len() as u64, "{codec}: {requests}, {bytes}");
        for _ in 0..3 {
            let skip = BLOCK_BYTES + entropy.below((CONTENT_BYTES - BLOCK_BYTES) as u64) as usize;
            read_near(&store, &faults, &fragment, skip, stored.len()).await;
        }
        read_near(&store, &faults, &fragment, skip, stored.len()).await;
        assert!(entered(&store, &fragment, skip).1 >= 2 * ENTRY_SPACING_BYTES, "{codec}");
    }
}

#[tokio::test]
async fn members_of_a_file_are_passed_over_without_an_index() {
    let (_root, store) = file_store();
    let fragment = fragment(Codec::Gzip, right());
    let mut stored = batches(Codec::Gzip);
    // What is passed over is not looked at, so this does not show; what is read is.
    stored[1000] ^= 1;
    plant(&store, &fragment, &stored).await;
    for skip in [SPACING + BATCH_BYTES, CONTENT_BYTES - 1] {
        let found = read(&store, &fragment, BEGIN + skip as i64).await.unwrap();
        assert!(found == right()[skip..], "from {skip}");
        assert!(skip as u64 - entered(&store, &fragment, skip).1 < ENTRY_SPACING_BYTES + BATCH_BYTES as u64);
    }
    for skip in [0, BLOCK_BYTES] {
        let error = read(&store, &fragment, BEGIN + skip as i64).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "from {skip}: {error}");
    }
}

#[tokio::test]
async fn any_read_leaves_what_the_next_one_needs() {
    for (codec, stored) in [
        (Codec::Gzip, batches(Codec::Gzip)),
        (Codec::GzipOffload, one_stream(Codec::GzipOffload, right())),
        (Codec::Zstandard, batches(Codec::Zstandard)),
        (Codec::Snappy, one_stream(Codec::Snappy, right())),
    ] {
        let (store, faults) = memory_store().await;
        let fragment = fragment(codec, right());
        plant(&store, &fragment, &stored).await;
        cost(&store, &faults, &fragment, 0, right()).await;
        let skip = CONTENT_BYTES - 1;
        let (stored_at, content_at) = entered(&store, &fragment, skip);
        assert!(content_at >= 2 * ENTRY_SPACING_BYTES, "{codec}: {content_at}");
        let (requests, bytes) = cost(&store, &faults, &fragment, skip, right()).await;
        // The end is looked at once: what is there might be more exact.
        let end = if codec == Codec::GzipOffload { 0 } else { TAIL_BYTES };
        assert!(
            requests <= 2 && bytes == stored.len() as u64 - stored_at + end,
            "{codec}: {requests}, {bytes}"
        );
    }
}

#[tokio::test]
async fn what_is_stored_here_for_stores_to_decompress_can_be_entered_at_once() {
    let (store, faults) = memory_store().await;
    let fragment = fragment(Codec::GzipOffload, right());
    store.put(&fragment, source(right())).await.unwrap();
    // It was learned when the object was read back.
    let (stored_at, _) = entered(&store, &fragment, CONTENT_BYTES - 1);
    assert!(stored_at > 0);
    let (requests, bytes) = cost(&store, &faults, &fragment, CONTENT_BYTES - 1, right()).await;
    let near = bytes < compressed(Codec::GzipOffload, 6, &right()[2 * SPACING - BLOCK_BYTES..]).len() as u64;
    assert!(requests == 1 && near, "{requests} requests for {bytes} bytes");
}

#[tokio::test]
async fn a_single_frame_of_zstandard_is_decompressed_from_its_beginning() {
    let (store, faults) = memory_store().await;
    let fragment = fragment(Codec::Zstandard, right());
    let stored = one_stream(Codec::Zstandard, right());
    plant(&store, &fragment, &stored).await;
    for requests in [2, 1] {
        let found = cost(&store, &faults, &fragment, CONTENT_BYTES - 1000, right()).await;
        let end = if requests == 2 { TAIL_BYTES } else { 0 };
        assert_eq!(found, (requests, stored.len() as u64 + end));
    }
}

#[tokio::test]
async fn entries_of_an_object_that_was_written_anew_are_forgotten() {
    let (store, faults) = memory_store().await;
    let fragment = fragment(Codec::GzipOffload, right());
    for level in [1, 6, 1] {
        plant(&store, &fragment, &compressed(Codec::GzipOffload, level, right())).await;
        for _ in 0..2 {
            cost(&store, &faults, &fragment, CONTENT_BYTES - 1000, right()).await;
        }
        let skip = CONTENT_BYTES - 1000;
        assert!(entered(&store, &fragment, skip).1 >= 2 * ENTRY_SPACING_BYTES);
    }
}

#[tokio::test]
async fn an_object_that_is_damaged_is_an_error_whatever_was_known_of_it() {
    let (store, _) = memory_store().await;
    let whole = fragment(Codec::GzipOffload, right());
    let mut damaged = one_stream(Codec::GzipOffload, right());
    let last = damaged.len() - 6;
    damaged[last] ^= 1;
    plant(&store, &whole, &damaged).await;
    for _ in 0..2 {
        let error = read(&store, &whole, BEGIN + CONTENT_BYTES as i64 - 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&whole.content_path()), "{error}");
    }
}
