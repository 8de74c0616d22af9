//! The process is killed at any byte, and the database is recovered in another directory: it holds the last commit.
//!
//! A store runs against a broker in memory, with buffers so small that flushes and compactions happen all the time. Then
//! its log is cut, as it would be had the process been killed there, each cut is played into a fresh directory, and the
//! database in it is opened. Each commit writes a few keys and its checkpoint: all of them must be of one commit, of the
//! last one which is wholly in the log.

use crate::world::*;
use bytes::Bytes;
use consumer::Store;
use message::{Split, fixed};
use proto::JournalName;
use proto::consumer::Checkpoint;
use proto::recoverylog::FsmHints;
use recoverylog::{Op, PlayError, replay};
use runtime::Entropy;
use std::collections::BTreeMap;
use std::path::Path;
use store_rocksdb::rocksdb::{DB, IteratorMode, Options};

/// Keys of which each commit sets some.
const KEYS: i64 = 20;

const LARGE_VALUE_BYTES: usize = 50_000;

/// A finished run of a store.
struct Run {
    log: Vec<u8>,
    /// Of each commit, from the first: where the log ended when it began, and when it was acknowledged.
    commits: Vec<(usize, usize)>,
    /// Hints, and where the log ended when they were built.
    hints: Vec<(usize, FsmHints)>,
    /// Where operations begin and end.
    boundaries: Vec<usize>,
}

/// The key which a commit sets besides the last one's.
fn key_of(number: i64, turn: i64) -> String {
    format!("key {:03}", (number * 7 + turn) % KEYS)
}

async fn run(commits: i64, value_bytes: usize) -> Run {
    let world = World::new().await;
    let mut store = world.store("dir", 1).await;
    let (mut spans, mut hints) = (Vec::new(), Vec::new());
    for number in 1..=commits {
        let begin = world.broker.content(LOG).len();
        for turn in 0..3 {
            // Some commits are too large for one write to the file.
            let bytes = if number % 29 == 0 { LARGE_VALUE_BYTES } else { value_bytes };
            store.put(key_of(number, turn), value_of(number, bytes));
        }
        store.put("last", number.to_string());
        commit(&mut store, number).await.unwrap();
        spans.push((begin, world.broker.content(LOG).len()));
        if number % (commits / 4).max(1) == 0 {
            let built = store.recorder().build_hints().await.unwrap();
            hints.push((world.broker.content(LOG).len(), built));
        }
    }
    let log = world.broker.content(LOG);
    tokio::task::spawn_blocking(move || store.destroy()).await.unwrap();
    let boundaries = boundaries_of(&log);
    println!("{} operations in {} bytes of log, for {commits} commits", boundaries.len() - 1, log.len());
    Run { log, commits: spans, hints, boundaries }
}

fn value_of(number: i64, bytes: usize) -> Vec<u8> {
    let mut value = format!("{number}:").into_bytes();
    value.resize(bytes.max(value.len()), b'x');
    value
}

fn boundaries_of(log: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(at) = ends.last().copied().filter(|at| *at < log.len()) {
        let Split::Frame { consumed, payload } = fixed::split(&log[at..], true) else {
            panic!("not a frame")
        };
        let op = Op::decode(&log[at..][payload]).unwrap();
        ends.push(at + consumed + usize::try_from(op.bytes_after_frame()).unwrap());
    }
    ends
}

/// What a recovered database holds: the number of its last commit, or nothing.
fn recovered(dir: &Path) -> Result<i64, String> {
    let mut options = Options::default();
    options.create_if_missing(true);
    let db = DB::open(&options, dir).map_err(|error| error.to_string())?;
    let checkpoint = db.get(b"\x00\x12checkpoint\x00\x01").unwrap();
    let checkpoint =
        <Checkpoint as prost::Message>::decode(checkpoint.unwrap_or_default().as_slice()).unwrap();
    let number = number_of(&checkpoint);

    // The keys are those of that commit, and of the last one before it which set them.
    let mut expected = BTreeMap::new();
    for before in 1..=number {
        for turn in 0..3 {
            expected.insert(key_of(before, turn), before);
        }
    }
    let mut found = BTreeMap::new();
    for entry in db.iterator(IteratorMode::Start) {
        let (key, value) = entry.unwrap();
        let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
        if key.starts_with("key ") {
            let of = value.split(':').next().unwrap().parse::<i64>().unwrap();
            found.insert(key.into_owned(), of);
        }
    }
    assert_eq!(found, expected, "of commit {number}");
    let last = text(db.get("last").unwrap()).map_or(0, |last| last.parse::<i64>().unwrap());
    assert_eq!(last, number);
    Ok(number)
}

impl Run {
    /// Plays the log as cut at `end`, which is the end of an operation, and checks what the database holds.
    fn check(&self, end: usize, hints: &FsmHints, dir: &Path) {
        self.play(end, hints, dir).unwrap();
        // What was acknowledged is there, and what had not begun is not.
        let acknowledged = self.commits.partition_point(|(_, acknowledged)| *acknowledged <= end) as i64;
        let begun = self.commits.partition_point(|(begin, _)| *begin < end) as i64;
        match recovered(dir) {
            Ok(number) => {
                assert!(
                    (acknowledged..=begun).contains(&number),
                    "cut at {end}: found commit {number}, expected {acknowledged}..={begun}"
                );
            }
            // So early that there is no database yet, and nothing that it could have held.
            Err(error) => assert!(acknowledged == 0, "cut at {end}: {error}"),
        }
    }

    fn play(&self, end: usize, hints: &FsmHints, dir: &Path) -> Result<(), PlayError> {
        let log = (JournalName::parse(LOG).unwrap(), Bytes::copy_from_slice(&self.log[..end]));
        replay(hints, &BTreeMap::from([log]), dir).map(drop)
    }

    /// The newest hints which speak of nothing beyond `end`.
    fn hints_for(&self, end: usize) -> Option<&FsmHints> {
        self.hints.iter().rfind(|(built, _)| *built <= end).map(|(_, hints)| hints)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_at_any_operation_holds_the_last_commit() {
    let run = run(90, 1200).await;
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("cut");
    for end in &run.boundaries {
        run.check(*end, &no_hints(), &dir);
        if let Some(hints) = run.hints_for(*end) {
            run.check(*end, hints, &dir);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_at_random_bytes_holds_the_last_commit() {
    const CUTS: u64 = 1000;
    let entropy = Entropy::seeded(seed());
    let run = run(400, 1500).await;
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("cut");
    for number in 0..CUTS {
        let at = usize::try_from(entropy.below(run.log.len() as u64 + 1)).unwrap();
        let whole = run.boundaries.partition_point(|end| *end <= at) - 1;
        let end = run.boundaries[whole];
        // Half of them with the newest hints, as a recovery has them; half from the beginning of the log.
        let hints = run.hints_for(end).filter(|_| number % 2 == 0).cloned().unwrap_or_else(no_hints);
        // A log which ends within an operation lost something, and is refused. Fewer than four bytes are not noticed.
        if at - end >= 4 {
            let error = run.play(at, &hints, &dir).unwrap_err();
            assert!(matches!(error, PlayError::TornOp { .. }), "cut at {at}: {error}");
            assert!(!dir.exists());
        }
        run.check(end, &hints, &dir);
    }
}

/// Hints which speak of more than the log holds never lead to an older state.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_cut_below_its_hints_is_refused() {
    let run = run(60, 1500).await;
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("cut");
    let (built, hints) = run.hints.last().unwrap();
    let last =
        hints.live_nodes.iter().flat_map(|node| &node.segments).map(|segment| segment.last_seq_no).max();
    let needed = run.boundaries[usize::try_from(last.unwrap()).unwrap()];
    for end in run.boundaries.iter().filter(|end| **end < needed) {
        let error = run.play(*end, hints, &dir).unwrap_err();
        assert!(error.is_data_loss(), "cut at {end}: {error}");
        assert!(error.to_string().contains(LOG), "{error}");
        assert!(!dir.exists());
    }
    run.check(*built, hints, &dir);
}
