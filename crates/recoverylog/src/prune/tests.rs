use super::*;
use crate::testing::*;
use crate::{Fnode, Recording};
use bytes::Bytes;
use proptest::prelude::*;
use proto::recoverylog::{FnodeSegments, Segment};

/// `(first_seq, last_seq, first_offset, last_offset, log)` of a segment.
type Part<'a> = (i64, i64, i64, i64, &'a str);
/// `(fnode, segments)` of a file.
type File<'a> = (i64, &'a [Part<'a>]);

fn hints(log: &str, nodes: &[File<'_>]) -> FsmHints {
    let segment = |&(first_seq_no, last_seq_no, first_offset, last_offset, log): &Part<'_>| Segment {
        author: 7,
        first_seq_no,
        first_offset,
        last_seq_no,
        last_offset,
        log: log.to_owned(),
        ..Segment::default()
    };
    let live_nodes = nodes.iter().map(|(fnode, segments)| FnodeSegments {
        fnode: *fnode,
        segments: segments.iter().map(segment).collect(),
    });
    FsmHints { log: log.to_owned(), live_nodes: live_nodes.collect(), properties: Vec::new() }
}

/// Which of the fragments of 100 bytes each, up to 1000, are kept of `log`; and one which is still written.
fn kept(needed: &Needed, log: &str) -> String {
    let log = journal(log);
    let mut text: String =
        (0..10).map(|i| if needed.needs(&log, i * 100, i * 100 + 100) { '#' } else { '.' }).collect();
    assert!(needed.needs(&log, 1000, 0), "what is still written is kept");
    text.push_str(&needed.kept_whole(&log).map_or(String::new(), |why| format!(" {why}")));
    text
}

#[test]
fn fragments_which_overlap_a_segment_or_follow_the_last_are_kept() {
    let log = journal("a/log");
    let rows: [(&[File<'_>], &str); 6] = [
        (&[(1, &[(1, 1, 0, 1, "")])], "##########"),
        (&[(5, &[(5, 9, 300, 350, "")])], "...#######"),
        // The segment's bounds are half-open, and so are the fragments'.
        (&[(5, &[(5, 9, 200, 400, "")]), (20, &[(20, 21, 800, 801, "")])], "..##....##"),
        (&[(5, &[(5, 9, 199, 401, "")]), (20, &[(20, 21, 801, 900, "")])], ".####...##"),
        // An end which is not known is none.
        (&[(5, &[(5, 9, 500, 0, "")]), (20, &[(20, 21, 900, 0, "")])], ".....#####"),
        (&[(20, &[(20, 21, 1000, 0, "")])], ".........."),
    ];
    for (nodes, expected) in rows {
        let mut needed = Needed::default();
        needed.add(&log, "primary", StoredHints::Found(&hints("a/log", nodes)));
        assert_eq!(kept(&needed, "a/log"), expected, "{nodes:?}");
    }
}

#[test]
fn every_stored_hints_protect_what_they_speak_of() {
    let log = journal("a/log");
    let mut needed = Needed::default();
    needed.add(&log, "primary", StoredHints::Found(&hints("a/log", &[(50, &[(50, 60, 700, 720, "")])])));
    assert_eq!(kept(&needed, "a/log"), ".......###");
    // A backup which is older than the primary's.
    let backup = hints("a/log", &[(5, &[(5, 9, 100, 150, "")]), (20, &[(20, 29, 800, 820, "")])]);
    needed.add(&log, "backup.0", StoredHints::Found(&backup));
    assert_eq!(kept(&needed, "a/log"), ".#.....###");
    // A primary's which is older than the backups, as it was never renewed.
    needed.add(&log, "backup.1", StoredHints::Found(&hints("a/log", &[(3, &[(3, 4, 350, 360, "")])])));
    assert_eq!(kept(&needed, "a/log"), ".#.#######");
}

#[test]
fn forks_protect_the_logs_they_came_from() {
    let fork = hints("b/log", &[(5, &[(5, 9, 300, 350, "a/log")]), (70, &[(70, 71, 400, 410, "")])]);
    let own = hints("a/log", &[(60, &[(60, 61, 800, 810, "")])]);
    let mut needed = Needed::default();
    needed.add(&journal("b/log"), "b", StoredHints::Found(&fork));
    assert_eq!(kept(&needed, "a/log"), "########## it is the log of no shard");
    needed.add(&journal("a/log"), "a", StoredHints::Found(&own));
    assert_eq!((kept(&needed, "a/log"), kept(&needed, "b/log")), ("...#....##".into(), "....######".into()));
}

#[test]
fn what_is_not_known_is_kept() {
    let log = journal("a/log");
    let good = hints("a/log", &[(50, &[(50, 60, 700, 720, "")])]);
    let with = |place: &str, stored: StoredHints<'_>| {
        let mut needed = Needed::default();
        needed.add(&log, "primary", StoredHints::Found(&good));
        needed.add(
            &journal("b/log"),
            "b",
            StoredHints::Found(&hints("b/log", &[(1, &[(1, 2, 900, 0, "")])])),
        );
        needed.add(&log, place, stored);
        (kept(&needed, "a/log"), kept(&needed, "b/log"))
    };
    let (whole, b) = ("##########".to_owned(), ".........#".to_owned());
    assert_eq!(
        with("backup.0", StoredHints::Missing),
        (format!("{whole} hints are not stored yet: backup.0"), b.clone())
    );
    assert_eq!(
        with("backup.0", StoredHints::Found(&hints("a/log", &[]))),
        (format!("{whole} hints speak of no files: backup.0"), b)
    );
    // These may speak of every log.
    let unreadable = format!("{whole} hints cannot be read, and may speak of any log: backup.0");
    let contradictory = hints("a/log", &[(9, &[(8, 9, 0, 10, "")])]);
    let of_another_log = hints("c/log", &[(1, &[(1, 2, 0, 10, "")])]);
    for stored in
        [StoredHints::Unreadable, StoredHints::Found(&contradictory), StoredHints::Found(&of_another_log)]
    {
        assert_eq!(with("backup.0", stored), (unreadable.clone(), unreadable.clone()));
    }
    let needed = Needed::default();
    assert_eq!(kept(&needed, "a/log"), format!("{whole} it is the log of no shard"));
}

/// What the property test does to a shard, and to another one which was forked from it.
#[derive(Clone, Debug)]
enum Change {
    Create(usize),
    Append(usize, u8),
    Remove(usize),
    HandOff,
    /// The primary stores its hints; at most of the two shards.
    Store(bool),
    /// A recovery stores its hints as the first of two backups.
    Recover(bool),
    /// The second shard begins with what the first one has.
    Fork,
}

const PATHS: [&str; 5] = ["/a", "/b", "/c", "/d", "/e"];

fn any_change() -> impl Strategy<Value = Change> {
    let path = || 0usize..PATHS.len();
    prop_oneof![
        4 => path().prop_map(Change::Create),
        8 => (path(), 1u8..60).prop_map(|(p, n)| Change::Append(p, n)),
        3 => path().prop_map(Change::Remove),
        1 => Just(Change::HandOff),
        2 => any::<bool>().prop_map(Change::Store),
        2 => any::<bool>().prop_map(Change::Recover),
        1 => Just(Change::Fork),
    ]
}

struct Shard {
    log: MemoryLog,
    primary: Option<FsmHints>,
    backups: [Option<FsmHints>; 2],
}

impl Shard {
    fn new(log: MemoryLog) -> Shard {
        Shard { log, primary: None, backups: [None, None] }
    }

    /// A shard which goes on with the files of this one, in a log of its own.
    fn fork(&self, name: &str) -> Shard {
        let recording = Recording::new(self.log.recording.fsm().clone(), author(900), journal(name), 0);
        let mut log = MemoryLog { recording, bytes: Vec::new(), files: self.log.files.clone() };
        log.recording.fork(&mut log.bytes).unwrap();
        log.commit();
        Shard::new(log)
    }

    /// Of the files as they are; right after a fork there are none that could be stored.
    fn hints(&self) -> Option<FsmHints> {
        self.log.recording.build_hints().ok()
    }

    fn stored(&self) -> impl Iterator<Item = Option<&FsmHints>> {
        [&self.primary, &self.backups[0], &self.backups[1]].into_iter().map(Option::as_ref)
    }

    fn change(&mut self, change: &Change, authors: &mut u32) {
        let links = self.log.recording.fsm().links().clone();
        let at = |path: usize| -> Option<Fnode> { links.get(PATHS[path]).copied() };
        match change {
            Change::Create(path) => drop(self.log.create(PATHS[*path])),
            Change::Append(path, length) => {
                if let Some(fnode) = at(*path) {
                    self.log.append(fnode, &vec![*length; usize::from(*length)]);
                }
            }
            Change::Remove(path) if at(*path).is_some() => self.log.remove(PATHS[*path]),
            Change::HandOff => {
                *authors += 1;
                self.log.hand_off(*authors);
            }
            Change::Store(_) => self.primary = self.hints().or(self.primary.take()),
            Change::Recover(_) => {
                if let Some(hints) = self.hints() {
                    self.backups[1] = self.backups[0].replace(hints);
                }
            }
            Change::Remove(_) | Change::Fork => {}
        }
    }
}

proptest! {
    /// Whatever two shards do which share history, and whenever their hints were stored: from every one of the stored
    /// hints the pruned logs give the directory that the whole ones do.
    #[test]
    fn every_stored_hints_recover_from_pruned_logs(
        changes in prop::collection::vec((any::<bool>(), any_change()), 1..150),
        fragment in 20usize..200,
        chunk in 1usize..300,
    ) {
        let mut first = Shard::new(MemoryLog::new("a/log", 1));
        let mut second: Option<Shard> = None;
        let mut authors = 1;
        for (is_second, change) in &changes {
            let is_second = match change {
                Change::Fork if second.is_none() => {
                    second = Some(first.fork("b/log"));
                    continue;
                }
                Change::Store(is_second) | Change::Recover(is_second) => *is_second,
                _ => *is_second,
            };
            let shard = if is_second { second.as_mut().unwrap_or(&mut first) } else { &mut first };
            shard.change(change, &mut authors);
        }

        let shards: Vec<&Shard> = [Some(&first), second.as_ref()].into_iter().flatten().collect();
        let mut needed = Needed::default();
        for shard in &shards {
            // Places without hints would keep the log whole; nothing is to be read from them here.
            for hints in shard.stored().flatten() {
                needed.add(shard.log.recording.log(), "some", StoredHints::Found(hints));
            }
        }
        let whole: BTreeMap<JournalName, Bytes> = shards.iter().flat_map(|shard| shard.log.logs()).collect();
        let mut pruned = whole.clone();
        for (log, bytes) in &mut pruned {
            let mut left = bytes.to_vec();
            for begin in (0..left.len()).step_by(fragment) {
                let end = (begin + fragment).min(left.len());
                if !needed.needs(log, begin as i64, end as i64) {
                    left[begin..end].fill(0xee);
                }
            }
            *bytes = left.into();
        }
        // Hints of no files are of a whole log, which is kept; that of a fork has no beginning to be played from.
        let stored = shards.iter().flat_map(|shard| shard.stored()).flatten();
        for hints in stored.filter(|hints| !hints.live_nodes.is_empty()) {
            let (expected, fsm) = play(hints, &whole, chunk).unwrap();
            let (found, pruned_fsm) = play(hints, &pruned, chunk).unwrap();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(pruned_fsm, fsm);
        }
    }
}
