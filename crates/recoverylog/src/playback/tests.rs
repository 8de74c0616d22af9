use super::*;
use crate::testing::*;
use crate::{Recording, hints};
use proptest::prelude::*;
use proto::recoverylog::FsmHints;

const CHUNK: usize = 1 << 20;

/// What the operations of a property test do to a recorded directory.
#[derive(Clone, Debug)]
enum Change {
    Create(usize),
    Append(usize, Vec<u8>),
    Overwrite(usize, usize, Vec<u8>),
    Remove(usize),
    Rename(usize, usize),
    Link(usize, usize),
    HandOff,
}

const PATHS: [&str; 6] = ["/a", "/b", "/c/d", "/c/e", "/f", "/g"];

fn any_change() -> impl Strategy<Value = Change> {
    let path = || 0usize..PATHS.len();
    let data = || prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![
        4 => path().prop_map(Change::Create),
        6 => (path(), data()).prop_map(|(p, d)| Change::Append(p, d)),
        3 => (path(), 0usize..50, data()).prop_map(|(p, o, d)| Change::Overwrite(p, o, d)),
        2 => path().prop_map(Change::Remove),
        2 => (path(), path()).prop_map(|(p, q)| Change::Rename(p, q)),
        2 => (path(), path()).prop_map(|(p, q)| Change::Link(p, q)),
        1 => Just(Change::HandOff),
    ]
}

/// Makes a change, if it is possible in the present state.
fn change(log: &mut MemoryLog, change: &Change, authors: &mut u32) {
    let links = log.recording.fsm().links().clone();
    let at = |path: usize| links.get(PATHS[path]).copied();
    match change {
        Change::Create(path) => drop(log.create(PATHS[*path])),
        Change::Append(path, data) => {
            if let Some(fnode) = at(*path) {
                log.append(fnode, data);
            }
        }
        Change::Overwrite(path, offset, data) => {
            if let Some(fnode) = at(*path) {
                log.write(fnode, *offset, data);
            }
        }
        Change::Remove(path) if at(*path).is_some() => log.remove(PATHS[*path]),
        // Renames within one file, as of two of its links, do nothing in a file system.
        Change::Rename(from, to) if at(*from).is_some() && at(*from) != at(*to) => {
            log.rename(PATHS[*from], PATHS[*to])
        }
        Change::Link(from, to) if at(*from).is_some() && at(*to).is_none() => {
            log.link(PATHS[*from], PATHS[*to])
        }
        Change::HandOff => {
            *authors += 1;
            log.hand_off(*authors);
        }
        _ => {}
    }
}

/// States of a log at the boundaries of its changes: offset, directory, and the hints of then.
type States = Vec<(usize, Files, FsmHints)>;

fn record(changes: &[Change]) -> (MemoryLog, States) {
    let mut log = MemoryLog::new("a/log", 1);
    let (mut authors, mut states) = (1, vec![(0, Files::new(), log.hints())]);
    for next in changes {
        change(&mut log, next, &mut authors);
        states.push((log.bytes.len(), log.dir(), log.hints()));
    }
    (log, states)
}

fn cut(log: &MemoryLog, at: usize) -> BTreeMap<JournalName, Bytes> {
    logs(&[("a/log", &log.bytes[..at])])
}

proptest! {
    /// With the hints of any moment, or none, playing the whole log gives the directory as it is at the end.
    #[test]
    fn playing_a_log_gives_the_recorded_directory(
        changes in prop::collection::vec(any_change(), 1..80), hints_at: prop::sample::Index, chunk in 1usize..200
    ) {
        let (log, states) = record(&changes);
        let (_, _, hints) = &states[hints_at.index(states.len())];
        for hints in [hints, &empty_hints(&journal("a/log"))] {
            let (files, fsm) = play(hints, &log.logs(), chunk).unwrap();
            prop_assert_eq!(&files, &log.dir());
            prop_assert_eq!(fsm.next_seq_no(), log.recording.fsm().next_seq_no());
            prop_assert_eq!(fsm.next_checksum(), log.recording.fsm().next_checksum());
        }
    }

    /// A log which was cut anywhere gives the directory of that moment, or says that it was cut: within an operation, or
    /// below what the hints speak of.
    #[test]
    fn a_cut_log_gives_the_directory_of_then_or_an_error(
        changes in prop::collection::vec(any_change(), 1..12), hints_at: prop::sample::Index
    ) {
        let (log, states) = record(&changes);
        let (hinted, hinted_files, hints) = &states[hints_at.index(states.len())];
        let ends = decode_boundaries(&log.bytes);
        for at in 0..=log.bytes.len() {
            // Fewer than four bytes cannot be told from bytes of no operation.
            let whole = ends.iter().rfind(|end| **end <= at && at - **end < 4);
            match play(hints, &cut(&log, at), CHUNK) {
                Ok((found, fsm)) => {
                    prop_assert!(whole.is_some(), "cut at {} within an operation", at);
                    prop_assert!(fsm.next_seq_no() > hints::last_seq_no(hints));
                    // Several operations of one change, as of a rename, are one append: a log is not cut within.
                    let state = states.iter().rfind(|(end, _, _)| Some(end) == whole);
                    // Hints know what is removed up to their moment, also where only that is cut off.
                    let same = |(_, files, _): &(_, Files, _)| *files == found || (at < *hinted && found == *hinted_files);
                    prop_assert!(state.is_none_or(same), "cut at {}", at);
                }
                Err(error) => {
                    prop_assert!(error.is_data_loss(), "{}", error);
                    prop_assert!(whole.is_none() || at < *hinted, "{}", error);
                }
            }
        }
    }

    #[test]
    fn mutated_logs_do_not_panic(
        changes in prop::collection::vec(any_change(), 1..30), hints_at: prop::sample::Index,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), chunk in 1usize..100
    ) {
        let (mut log, states) = record(&changes);
        prop_assume!(!log.bytes.is_empty());
        for (at, byte) in flips {
            let at = at.index(log.bytes.len());
            log.bytes[at] = byte;
        }
        let (_, _, hints) = &states[hints_at.index(states.len())];
        let _ = play_leniently(hints, &log.logs(), chunk);
    }

    #[test]
    fn random_bytes_do_not_panic(bytes: Vec<u8>, magic in prop::bool::ANY, chunk in 1usize..20) {
        let mut log = if magic { fixed::MAGIC.to_vec() } else { Vec::new() };
        log.extend_from_slice(&bytes);
        let _ = play_leniently(&empty_hints(&journal("a/log")), &logs(&[("a/log", &log)]), chunk);
    }

    /// Removing any one operation of a log is noticed, unless it is the last one.
    #[test]
    fn a_lost_operation_is_noticed(changes in prop::collection::vec(any_change(), 8..30), lost: prop::sample::Index, garbage in prop::bool::ANY) {
        let (log, _) = record(&changes);
        let ends = decode_boundaries(&log.bytes);
        prop_assume!(ends.len() > 2);
        let lost = lost.index(ends.len() - 2);
        let mut damaged = log.bytes.clone();
        if garbage {
            damaged[ends[lost]..ends[lost + 1]].fill(b'x');
        } else {
            damaged.drain(ends[lost]..ends[lost + 1]);
        }
        // Without a trace, operations of other authors could as well be of a branch which lost.
        let ops = decode_all(&log.bytes);
        let followed = lost.checked_sub(1).map(|before| ops[before].author);
        if garbage || followed.is_none() || ops[lost + 1..].iter().any(|op| Some(op.author) == followed) {
            let error = play(&empty_hints(&journal("a/log")), &logs(&[("a/log", &damaged)]), CHUNK).unwrap_err();
            prop_assert!(matches!(error, PlayError::BrokenChain(_)), "{}", error);
        }
    }
}

/// Where operations begin and end.
fn decode_boundaries(log: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(at) = ends.last().copied().filter(|at| *at < log.len()) {
        let Split::Frame { consumed, payload } = fixed::split(&log[at..], true) else {
            panic!("not a frame")
        };
        let op = Op::decode(&log[at..][payload]).unwrap();
        ends.push(at + consumed + op.bytes_after_frame() as usize);
    }
    ends
}

/// As [`play`], for logs which recorders did not write: what they do to files does not matter.
fn play_leniently(
    hints: &FsmHints,
    logs: &BTreeMap<JournalName, Bytes>,
    chunk: usize,
) -> Result<Fsm, PlayError> {
    crate::replay::drive(Playback::new(Fsm::new(hints)?), logs, chunk, |_| Ok(()))
}

/// Three operations on one file.
fn small_log() -> MemoryLog {
    let mut log = MemoryLog::new("a/log", 1);
    let fnode = log.create("/a");
    log.append(fnode, b"hello");
    log.append(fnode, b" world");
    log
}

fn error_of(hints: &FsmHints, log: &[u8]) -> String {
    play(hints, &logs(&[("a/log", log)]), CHUNK).unwrap_err().to_string()
}

#[test]
fn bytes_of_no_operation_are_passed_over() {
    let log = small_log();
    let mut bytes = Vec::new();
    let ends = decode_boundaries(&log.bytes);
    for pair in ends.windows(2) {
        bytes.extend_from_slice(b"\ngarbage f3\x93");
        bytes.extend_from_slice(&log.bytes[pair[0]..pair[1]]);
    }
    bytes.extend_from_slice(b"\n");
    for chunk in [1, 7, CHUNK] {
        let (files, _) = play(&empty_hints(&journal("a/log")), &logs(&[("a/log", &bytes)]), chunk).unwrap();
        assert_eq!(files, log.dir());
    }
}

#[test]
fn repeated_appends_are_passed_over() {
    let log = small_log();
    let ends = decode_boundaries(&log.bytes);
    let mut bytes = log.bytes[..ends[2]].to_vec();
    bytes.extend_from_slice(&log.bytes[ends[1]..]); // The second operation again.
    bytes.extend_from_slice(&log.bytes);
    let (files, _) = play(&empty_hints(&journal("a/log")), &logs(&[("a/log", &bytes)]), CHUNK).unwrap();
    assert_eq!(files, log.dir());
}

#[test]
fn a_log_which_lost_its_beginning_is_refused() {
    let log = small_log();
    let rest = &log.bytes[decode_boundaries(&log.bytes)[1]..];
    assert_eq!(
        error_of(&empty_hints(&journal("a/log")), rest),
        "operation 2 of author 1 in a/log at 0 does not follow what was played (wrong sequence number; expected \
         operation 1, and nothing was played before); possible data loss"
    );
}

#[test]
fn a_log_shorter_than_its_hints_is_refused() {
    let log = small_log();
    let hints = log.hints();
    let ends = decode_boundaries(&log.bytes);
    assert_eq!(
        error_of(&hints, &log.bytes[..ends[2]]),
        format!(
            "max write-head of a/log is {}, vs hinted segment (operations 1..=3 of author 1 in a/log at 0..{}); \
             possible data loss",
            ends[2], ends[3]
        )
    );
    // The same where hints do not know where the last operation ends.
    let mut unbounded = hints;
    unbounded.live_nodes[0].segments[0].last_offset = 0;
    assert_eq!(
        error_of(&unbounded, &log.bytes[..ends[2]]),
        format!(
            "read a/log to its end at {} without finding operation 3 of the hinted segment (operations 1..=3 of \
             author 1 in a/log at 0..); possible data loss",
            ends[2]
        )
    );
}

#[test]
fn a_log_cut_within_an_operation_is_refused() {
    let log = small_log();
    let ends = decode_boundaries(&log.bytes);
    let at = log.bytes.len() - 1;
    assert_eq!(
        error_of(&empty_hints(&journal("a/log")), &log.bytes[..at]),
        format!("a/log ends at {at} within the operation at {at}; possible data loss")
    );
    let at = ends[2] + 9;
    assert_eq!(
        error_of(&empty_hints(&journal("a/log")), &log.bytes[..at]),
        format!("a/log ends at {at} within the operation at {}; possible data loss", ends[2])
    );
}

#[test]
fn paths_which_leave_the_directory_are_refused() {
    for path in ["/../a", "a", "/", "/.fnodes/1"] {
        let mut recording = MemoryLog::new("a/log", 1).recording;
        let mut bytes = Vec::new();
        recording.create(path.into(), &mut bytes).unwrap();
        let error = error_of(&empty_hints(&journal("a/log")), &bytes);
        assert!(error.starts_with("a/log at 0: path is "), "{error}");
    }
}

#[test]
fn undecodable_and_oversized_operations_are_refused() {
    let hints = empty_hints(&journal("a/log"));
    let mut bytes = Vec::new();
    fixed::encode_payload(b"\xff\xff", &mut bytes).unwrap();
    assert!(error_of(&hints, &bytes).starts_with("a/log at 0: RecordedOp: "));

    let mut bytes = fixed::MAGIC.to_vec();
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(error_of(&hints, &bytes), "a/log at 0: a frame of 4294967303 bytes (expected <= 16777216)");
}

/// Two recorders which both go on from the same state, their fences broken. Hints tell which one counts.
#[test]
fn hints_tell_branches_apart() {
    let mut base = MemoryLog::new("a/log", 1);
    let fnode = base.create("/a");
    base.append(fnode, b"base");
    let mut branches: Vec<MemoryLog> = [2, 3]
        .map(|id| {
            let fsm = base.recording.fsm().clone();
            let recording = Recording::new(fsm, author(id), journal("a/log"), base.bytes.len() as i64);
            MemoryLog { recording, bytes: Vec::new(), files: base.files.clone() }
        })
        .into();
    let mut bytes = base.bytes.clone();
    for round in 0..3 {
        for branch in &mut branches {
            let own = format!(" of {} in {round}", branch.recording.author());
            branch.append(fnode, own.as_bytes());
            bytes.append(&mut branch.bytes);
            branch.recording.on_committed(branch.recording.last_seq_no(), bytes.len() as i64);
        }
    }
    for branch in &branches {
        for chunk in [5, CHUNK] {
            let (files, _) = play(&branch.hints(), &logs(&[("a/log", &bytes)]), chunk).unwrap();
            assert_eq!(files, branch.dir());
        }
    }
}

/// The second log goes on where the first one was when it was forked; the first one goes on, too.
#[test]
fn hints_lead_through_several_logs() {
    let mut first = MemoryLog::new("first/log", 1);
    let fnode = first.create("/a");
    first.append(fnode, b"one");

    let fork = Recording::new(first.recording.fsm().clone(), author(2), journal("second/log"), 3);
    let mut second = MemoryLog { recording: fork, bytes: b"old".to_vec(), files: first.files.clone() };
    let mut bytes = Vec::new();
    second.recording.fork(&mut bytes).unwrap();
    second.bytes.append(&mut bytes);
    second.append(fnode, b" two");
    first.append(fnode, b" else");

    let hints = second.hints();
    assert_eq!(hints.live_nodes[0].segments[0].log, "first/log");
    let logs = logs(&[("first/log", &first.bytes), ("second/log", &second.bytes)]);
    for chunk in [1, 13, CHUNK] {
        let (files, fsm) = play(&hints, &logs, chunk).unwrap();
        assert_eq!(files, second.dir());
        assert_eq!(fsm.last_log(), &journal("second/log"));
        assert_eq!(hints::last_seq_no(&fsm.build_hints(&journal("second/log"))), 4);
    }
    assert_eq!(Playback::new(Fsm::new(&hints).unwrap()).logs().len(), 2);
}

/// A playback of `log` which was fed all of it.
fn fed(log: &MemoryLog) -> Playback {
    let mut playback = Playback::new(empty_fsm(&journal("a/log")));
    playback.on_heads(BTreeMap::from([(journal("a/log"), log.bytes.len() as i64)])).unwrap();
    assert!(!playback.is_tailing());
    playback.on_chunk(0, Bytes::copy_from_slice(&log.bytes)).unwrap();
    playback
}

fn read(offset: usize, blocking: bool) -> Step {
    Step::Read { log: journal("a/log"), offset: offset as i64, blocking }
}

#[test]
fn a_hand_off_is_read_back() {
    let log = small_log();
    let head = log.bytes.len();
    let mut playback = fed(&log);
    assert_eq!(playback.next_step().unwrap(), read(head, true));
    assert!(playback.is_tailing());

    playback.inject_handoff(author(9));
    playback.finish_at_write_head(); // The first request counts.
    assert_eq!(playback.next_step().unwrap(), read(head, false));
    playback.on_head(0).unwrap();
    let Step::Inject { log: name, author: by, frame } = playback.next_step().unwrap() else { panic!() };
    assert_eq!((name, by), (journal("a/log"), author(9)));

    let end = head + frame.len();
    playback.on_injected(end as i64);
    assert_eq!(playback.next_step().unwrap(), read(head, true));
    playback.on_chunk(head as i64, frame.clone()).unwrap();
    assert_eq!(playback.next_step().unwrap(), Step::Complete);
    assert_eq!(playback.into_fsm().next_seq_no(), 5);
}

#[test]
fn a_lost_race_is_repeated() {
    let mut log = small_log();
    let head = log.bytes.len();
    let mut playback = fed(&log);
    playback.inject_handoff(author(9));
    playback.on_head(0).unwrap();
    let Step::Inject { frame, .. } = playback.next_step().unwrap() else { panic!() };

    // The recorder before was faster once more; the hand-off which follows fences it, but does not apply.
    log.append(Fnode(1), b"!");
    let injected_at = log.bytes.len();
    log.bytes.extend_from_slice(&frame);
    playback.on_injected(log.bytes.len() as i64);
    assert_eq!(playback.next_step().unwrap(), read(head, true));
    playback.on_chunk(head as i64, Bytes::copy_from_slice(&log.bytes[head..injected_at])).unwrap();
    assert_eq!(playback.next_step().unwrap(), read(injected_at, true));
    playback.on_chunk(injected_at as i64, frame).unwrap();

    assert_eq!(playback.next_step().unwrap(), read(log.bytes.len(), false));
    playback.on_head(0).unwrap();
    let Step::Inject { frame, .. } = playback.next_step().unwrap() else { panic!() };
    playback.on_injected((log.bytes.len() + frame.len()) as i64);
    playback.on_chunk(log.bytes.len() as i64, frame).unwrap();
    assert_eq!(playback.next_step().unwrap(), Step::Complete);
}

#[test]
fn a_hand_off_which_is_not_there_is_an_error() {
    let log = small_log();
    let head = log.bytes.len();
    let mut playback = fed(&log);
    playback.inject_handoff(author(9));
    playback.on_head(0).unwrap();
    assert!(matches!(playback.next_step().unwrap(), Step::Inject { .. }));
    playback.on_injected(head as i64 + 20);
    playback.on_chunk(head as i64, Bytes::from_static(&[b'x'; 20])).unwrap();
    let error = playback.next_step().unwrap_err();
    assert!(matches!(error, PlayError::LostHandoff { .. }), "{error}");
}

#[test]
fn a_head_which_moved_is_read_up_to() {
    let log = small_log();
    let head = log.bytes.len();
    let mut playback = fed(&log);
    playback.finish_at_write_head();
    playback.on_head(head as i64 + 100).unwrap();
    assert_eq!(playback.next_step().unwrap(), read(head, true));
    playback.on_gap(head as i64 + 100).unwrap();
    playback.on_head(head as i64 + 100).unwrap();
    assert_eq!(playback.next_step().unwrap(), Step::Complete);
}

#[test]
fn gaps_are_errors_where_something_was_in_them() {
    let log = small_log();
    let ends = decode_boundaries(&log.bytes);
    let jump_to = |hints: &FsmHints, to: i64, from: usize| {
        let mut playback = Playback::new(Fsm::new(hints)?);
        playback.on_heads(BTreeMap::from([(journal("a/log"), 1000)]))?;
        playback.on_chunk(0, Bytes::copy_from_slice(&log.bytes[..ends[1]]))?;
        playback.on_chunk(to, Bytes::copy_from_slice(&log.bytes[from..]))
    };
    let empty = empty_hints(&journal("a/log"));
    // Nothing was in the gap, as where fragments of no operation were deleted.
    assert!(jump_to(&empty, 500, ends[1]).is_ok());
    assert_eq!(
        jump_to(&empty, 500, ends[2]).unwrap_err().to_string(),
        format!(
            "operation 3 of author 1 in a/log at 500 does not follow what was played (wrong sequence number; expected \
             operation 2, and the log has nothing from {} to 500); possible data loss",
            ends[1]
        )
    );
    let error = jump_to(&log.hints(), 500, ends[1]).unwrap_err();
    assert!(matches!(error, PlayError::JumpOverHints { to: 500, .. }), "{error}");
    let error = jump_to(&empty, 3, ends[1]).unwrap_err();
    assert!(matches!(error, PlayError::TornByJump { .. }), "{error}");
}

#[test]
fn the_end_of_an_author_is_seen_but_not_their_beginning() {
    let mut log = small_log();
    log.hand_off(2);
    log.append(Fnode(1), b"more");
    let mut playback = fed(&log);
    assert!(!playback.is_concluded());

    let head = log.bytes.len();
    log.recording.conclude(&mut log.bytes).unwrap();
    playback.on_chunk(head as i64, Bytes::copy_from_slice(&log.bytes[head..])).unwrap();
    assert!(playback.is_concluded());
    // Whoever closes files may yet record what matters to nobody.
    let head = log.bytes.len();
    log.append(Fnode(1), b"late");
    playback.on_chunk(head as i64, Bytes::copy_from_slice(&log.bytes[head..])).unwrap();
    assert!(playback.is_concluded());

    let head = log.bytes.len();
    log.hand_off(3);
    playback.on_chunk(head as i64, Bytes::copy_from_slice(&log.bytes[head..])).unwrap();
    assert!(!playback.is_concluded(), "another author has begun");
    assert_eq!(play(&empty_hints(&journal("a/log")), &log.logs(), CHUNK).unwrap().0, log.dir());
}

#[test]
fn what_was_read_after_the_request_is_counted_apart() {
    let mut log = small_log();
    let operations = decode_all(&log.bytes).len() as u64;
    let mut playback = fed(&log);
    let all = Tally { operations, bytes: log.bytes.len() as u64 };
    assert_eq!(playback.tally(), (all, all), "nothing was asked for yet");

    playback.inject_handoff(author(9));
    assert_eq!(playback.tally(), (all, Tally::default()));
    let head = log.bytes.len();
    log.append(Fnode(1), b"tail");
    playback.on_chunk(head as i64, Bytes::copy_from_slice(&log.bytes[head..])).unwrap();
    let tail = Tally { operations: 1, bytes: (log.bytes.len() - head) as u64 };
    assert_eq!(playback.tally().1, tail);
}
