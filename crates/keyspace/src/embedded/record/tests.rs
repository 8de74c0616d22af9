use std::time::Duration;

use proptest::prelude::*;

use super::super::store::tests::{any_write, check_invariants, contents, put};
use super::super::store::{Span, WatchSpec, Write};
use super::*;

const NOW: Duration = Duration::ZERO;
const IDENTITY: Identity = Identity { cluster_id: 7, member_id: 8, raft_term: 2 };

/// A file with a snapshot of a store after `before`, then a frame for each of `after` which had an effect; the store
/// after each frame, with the length of the file then.
fn file_of(before: &[Write], after: &[Write]) -> (Vec<u8>, Vec<(usize, Store)>) {
    let mut store = Store::new();
    for write in before {
        let _ = store.apply(write, NOW);
    }
    let (mut file, mut number) = snapshot(IDENTITY, &store);
    let mut states = vec![(file.len(), store.clone())];
    for write in after {
        if let Ok((_, effects)) = store.apply(write, NOW)
            && !effects.is_empty()
        {
            file.extend(effects_frame(number, &effects));
            number += 1;
            states.push((file.len(), store.clone()));
        }
    }
    (file, states)
}

/// Two stores answer alike, now and in the past.
fn assert_same(found: &Store, expected: &Store) {
    assert_eq!((found.revision(), found.compacted()), (expected.revision(), expected.compacted()));
    for revision in 1..=expected.revision() {
        assert_eq!(contents(found, revision), contents(expected, revision), "revision {revision}");
    }
    let all = WatchSpec { span: Span::parse(&[0], &[0]), no_put: false, no_delete: false, prev_kv: true };
    let from = expected.compacted() + 1;
    assert_eq!(found.events(&all, from, usize::MAX), expected.events(&all, from, usize::MAX));
    assert_eq!(found.leases().collect::<Vec<_>>(), expected.leases().collect::<Vec<_>>());
    assert_eq!(found.bytes(), expected.bytes());
}

#[test]
fn a_file_begins_with_the_magic_line_and_frames_have_fixed_headers() {
    let (file, number) = snapshot(IDENTITY, &Store::new());
    assert_eq!(&file[..16], b"courant-etcd-1\n\0");
    assert_eq!(number, 1);
    let payload = &file[16 + FRAME_HEADER_BYTES..];
    assert_eq!(file[16..20], u32::try_from(payload.len()).unwrap().to_le_bytes());
    assert_eq!(file[20..28], 0u64.to_le_bytes());
    assert_eq!(file[28..32], crc32c::crc32c(payload).to_le_bytes());
    assert_eq!(file[32..36], crc32c::crc32c(&file[16..32]).to_le_bytes());
}

#[test]
fn damage_in_the_middle_is_refused_and_located() {
    let puts: Vec<Write> = (0..4).map(|n| Write::Put(put("k", &n.to_string(), 0))).collect();
    let (file, states) = file_of(&[], &puts);
    let ends: Vec<usize> = states.iter().map(|(end, _)| *end).collect();
    // The frame between the first and the second state is damaged at each of its bytes in turn.
    for at in ends[0]..ends[1] {
        let mut damaged = file.clone();
        damaged[at] ^= 0x40;
        let error = load(&damaged, NOW).unwrap_err();
        assert_eq!(error.offset, ends[0], "byte {at}: {error}");
    }
    // The last frame cannot be told from a torn one.
    let mut torn = file.clone();
    torn[ends[3] + 5] ^= 0x40;
    let loaded = load(&torn, NOW).unwrap();
    assert_eq!((loaded.length, loaded.store.revision()), (ends[3], 4));
    // Nor can zeros, which some file systems leave after a loss of power.
    let mut zeros = file[..ends[3]].to_vec();
    zeros.resize(file.len(), 0);
    assert_eq!(load(&zeros, NOW).unwrap().length, ends[3]);
    // A frame that was left out is noticed.
    let skipped = [&file[..ends[1]], &file[ends[2]..]].concat();
    assert_eq!(load(&skipped, NOW).unwrap_err().what, "frame 3 where frame 2 was expected");
}

#[test]
fn an_incomplete_snapshot_is_refused() {
    let (file, _) = file_of(&[Write::Put(put("k", "v", 0))], &[]);
    for length in 0..file.len() {
        assert!(load(&file[..length], NOW).is_err(), "{length}");
    }
    assert!(load(&file, NOW).is_ok());
}

#[test]
fn opening_again_changes_the_term_only() {
    let (mut file, number) = snapshot(IDENTITY, &Store::new());
    let next = Identity { raft_term: 3, ..IDENTITY };
    file.extend(identity_frame(number, next));
    assert_eq!(load(&file, NOW).unwrap().identity, next);
}

proptest! {
    #[test]
    fn every_prefix_of_the_file_holds_what_was_acknowledged_by_then(
        before in prop::collection::vec(any_write(), 0..30),
        after in prop::collection::vec(any_write(), 0..12),
    ) {
        let (file, states) = file_of(&before, &after);
        for length in states[0].0..=file.len() {
            let (end, expected) = states.iter().rev().find(|(end, _)| *end <= length).unwrap();
            let loaded = load(&file[..length], NOW).unwrap();
            prop_assert_eq!(loaded.length, *end);
            prop_assert_eq!(loaded.identity, IDENTITY);
            assert_same(&loaded.store, expected);
        }
    }

    #[test]
    fn a_snapshot_holds_the_whole_state(writes in prop::collection::vec(any_write(), 0..60)) {
        let mut store = Store::new();
        for write in &writes {
            let _ = store.apply(write, NOW);
        }
        let (file, next_number) = snapshot(IDENTITY, &store);
        let loaded = load(&file, NOW).unwrap();
        prop_assert_eq!((loaded.length, loaded.next_number), (file.len(), next_number));
        assert_same(&loaded.store, &store);
        check_invariants(&loaded.store);
    }

    #[test]
    fn mutated_files_do_not_panic(
        writes in prop::collection::vec(any_write(), 0..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut file, _) = file_of(&writes[..writes.len() / 2], &writes[writes.len() / 2..]);
        for (at, byte) in flips {
            let at = at.index(file.len());
            file[at] = byte;
        }
        file.truncate(cut.index(file.len()) + 1);
        let _ = load(&file, NOW);
    }

    /// Checksums keep most damage from the decoder, so it gets payloads of its own.
    #[test]
    fn sound_frames_with_any_entries_do_not_panic(
        writes in prop::collection::vec(any_write(), 0..20),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
        shuffled in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (whole, _) = file_of(&writes[..writes.len() / 2], &writes[writes.len() / 2..]);
        // Frames of a sound file in any order, between random ones.
        let mut frames: Vec<Vec<u8>> = payloads;
        let (mut offset, mut number, mut known) = (MAGIC.len(), 0, Vec::new());
        while let Some(payload) = next_frame(&whole, offset, number).unwrap() {
            known.push(whole[payload.clone()].to_vec());
            (offset, number) = (payload.end, number + 1);
        }
        frames.extend(shuffled.iter().map(|index| known[index.index(known.len())].clone()));
        let mut file = MAGIC.to_vec();
        for (number, payload) in frames.iter().enumerate() {
            let mut header = Vec::new();
            header.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            header.extend((number as u64).to_le_bytes());
            header.extend(crc32c::crc32c(payload).to_le_bytes());
            header.extend(crc32c::crc32c(&header).to_le_bytes());
            file.extend(header);
            file.extend(payload);
        }
        let _ = load(&file, NOW);
    }
}
