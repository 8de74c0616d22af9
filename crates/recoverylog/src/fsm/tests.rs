use super::ApplyError::*;
use super::*;
use crate::Author;
use proptest::prelude::*;
use proto::recoverylog::Segment as ProtoSegment;

const LOG: &str = "a/recovery/log";

fn log() -> JournalName {
    JournalName::parse(LOG).unwrap()
}

/// Applies operations whose payload is the decimal number of the operation, which fixes the checksums. The number is
/// also the operation's first offset.
struct Script {
    fsm: Fsm,
    applied: i64,
}

impl Script {
    fn new(hints: &FsmHints) -> Script {
        Script { fsm: Fsm::new(hints).unwrap(), applied: 0 }
    }

    fn starting_at(hints: &FsmHints, seq_no: i64, checksum: u32) -> Script {
        let mut script = Script::new(hints);
        (script.fsm.next_seq_no, script.fsm.next_checksum) = (seq_no, checksum);
        script
    }

    fn apply(&mut self, seq_no: i64, checksum: u32, author: u32, action: Action) -> Result<(), ApplyError> {
        self.applied += 1;
        let op = Op { seq_no, checksum, author: Author::new(author).unwrap(), action };
        let span = Span { log: &log(), first_offset: self.applied, last_offset: self.applied + 1 };
        let before = self.fsm.clone();
        let outcome = self.fsm.apply(&op, self.applied.to_string().as_bytes(), span);
        if !matches!(outcome, Ok(()) | Err(NotTracked)) {
            assert_eq!(self.fsm, before, "a refused operation changes nothing");
        }
        outcome
    }

    fn create(&mut self, seq_no: i64, checksum: u32, author: u32, path: &str) -> Result<(), ApplyError> {
        self.apply(seq_no, checksum, author, Action::Create { path: path.into() })
    }

    fn link(&mut self, seq_no: i64, sum: u32, author: u32, fnode: i64, path: &str) -> Result<(), ApplyError> {
        self.apply(seq_no, sum, author, Action::Link { fnode: Fnode(fnode), path: path.into() })
    }

    fn unlink(
        &mut self,
        seq_no: i64,
        sum: u32,
        author: u32,
        fnode: i64,
        path: &str,
    ) -> Result<(), ApplyError> {
        self.apply(seq_no, sum, author, Action::Unlink { fnode: Fnode(fnode), path: path.into() })
    }

    fn write(&mut self, seq_no: i64, checksum: u32, author: u32, fnode: i64) -> Result<(), ApplyError> {
        self.apply(seq_no, checksum, author, Action::Write { fnode: Fnode(fnode), offset: 0, length: 0 })
    }

    fn property(
        &mut self,
        seq_no: i64,
        sum: u32,
        author: u32,
        path: &str,
        content: &str,
    ) -> Result<(), ApplyError> {
        self.apply(seq_no, sum, author, Action::Property { path: path.into(), content: content.into() })
    }

    fn next(&self) -> u32 {
        self.fsm.next_checksum
    }

    fn links(&self) -> Vec<(&str, i64)> {
        self.fsm.links.iter().map(|(path, fnode)| (path.as_str(), fnode.0)).collect()
    }

    fn nodes(&self) -> Vec<FnodeSegments> {
        self.fsm.build_hints(&log()).live_nodes
    }
}

fn empty() -> FsmHints {
    FsmHints { log: LOG.into(), ..FsmHints::default() }
}

fn segment(author: u32, seqs: (i64, i64), offsets: (i64, i64), first_checksum: u32) -> ProtoSegment {
    ProtoSegment {
        author,
        first_seq_no: seqs.0,
        first_offset: offsets.0,
        first_checksum,
        last_seq_no: seqs.1,
        last_offset: offsets.1,
        log: String::new(),
    }
}

fn node(fnode: i64, segments: Vec<ProtoSegment>) -> FnodeSegments {
    FnodeSegments { fnode, segments }
}

fn property(path: &str, content: &str) -> Property {
    Property { path: path.into(), content: content.into() }
}

#[test]
fn without_segments_the_first_operation_is_number_one() {
    let mut s = Script::new(&empty());
    assert_eq!(s.create(1, 0, 100, "/path/A"), Ok(()));
    assert_eq!(s.link(2, 0x90f599e3, 100, 1, "/path/B"), Ok(()));
    assert_eq!((s.fsm.next_seq_no(), s.fsm.next_checksum(), s.fsm.last_log()), (3, 0x7355c460, &log()));
    assert!(Fsm::new(&FsmHints::default()).is_err());
}

#[test]
fn hints_say_where_to_begin() {
    let mut hints = FsmHints {
        live_nodes: vec![node(42, vec![segment(100, (42, 43), (1234, 0), 0xfeedbeef)])],
        properties: vec![property("/IDENTITY", "foo-bar-baz")],
        ..empty()
    };
    let mut s = Script::new(&hints);
    s.applied = 1234;
    assert_eq!(s.fsm.hinted_segments().next().unwrap().first_offset, 1234);
    assert_eq!((s.fsm.next_seq_no(), s.next()), (42, 0xfeedbeef));
    assert_eq!(s.fsm.properties()["/IDENTITY"], "foo-bar-baz");

    assert_eq!(s.create(41, 0xfeedbeef, 100, "/path/A"), Err(WrongSeqNo));
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/path/A"), Ok(()));
    assert!(s.fsm.has_unused_hints());
    assert_eq!(s.link(43, 0xc132d1d7, 100, 42, "/path/B"), Ok(()));
    assert!(!s.fsm.has_unused_hints());

    // The given offsets were bounds; now they are known.
    let segment = &mut hints.live_nodes[0].segments[0];
    (segment.first_offset, segment.last_offset) = (1236, 1238);
    assert_eq!(s.fsm.build_hints(&log()), hints);
}

#[test]
fn files_are_created_at_unused_paths() {
    let hints = FsmHints { properties: vec![property("/property/path", "content")], ..empty() };
    let mut s = Script::starting_at(&hints, 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/path/A"), Ok(()));
    assert_eq!(s.create(43, 0x2d28e063, 100, "/another/path"), Ok(()));
    assert_eq!(s.create(44, 0xf11e2261, 100, "/path/A"), Err(LinkExists));
    assert_eq!(s.create(44, 0xf11e2261, 100, "/property/path"), Err(PropertyExists));
    assert_eq!(s.create(44, 0xf11e2261, 100, "/path/B"), Ok(()));

    assert_eq!(s.links(), [("/another/path", 43), ("/path/A", 42), ("/path/B", 44)]);
    assert_eq!(
        s.nodes(),
        [
            node(42, vec![segment(100, (42, 42), (1, 2), 0xfeedbeef)]),
            node(43, vec![segment(100, (43, 43), (2, 3), 0x2d28e063)]),
            node(44, vec![segment(100, (44, 44), (5, 6), 0xf11e2261)]),
        ]
    );
}

fn two_hinted_files() -> FsmHints {
    FsmHints {
        live_nodes: vec![
            node(42, vec![segment(100, (42, 100), (1234, 0), 0xfeedbeef)]),
            node(44, vec![segment(100, (44, 100), (1234, 0), 0xf11e2261)]),
        ],
        ..empty()
    }
}

#[test]
fn files_which_are_not_hinted_are_not_tracked() {
    let mut s = Script::starting_at(&two_hinted_files(), 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/path/A"), Ok(()));
    assert_eq!(s.create(43, 0x2d28e063, 100, "/another/path"), Err(NotTracked));
    assert_eq!(s.create(44, 0xf11e2261, 100, "/final/path"), Ok(()));
    assert_eq!(s.links(), [("/final/path", 44), ("/path/A", 42)]);
    assert_eq!(
        s.nodes(),
        [
            node(42, vec![segment(100, (42, 42), (1, 2), 0xfeedbeef)]),
            node(44, vec![segment(100, (44, 44), (3, 4), 0xf11e2261)]),
        ]
    );
    // The last hinted file exists, and the hints still go on: what is created within them is gone at their end.
    assert_eq!(s.create(45, s.next(), 100, "/gone/later"), Err(NotTracked));
    assert_eq!(s.write(46, s.next(), 100, 45), Err(NotTracked));
}

#[test]
fn a_hinted_file_must_be_created() {
    let mut s = Script::starting_at(&two_hinted_files(), 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/path/A"), Ok(()));
    assert_eq!(s.write(43, s.next(), 100, 42), Ok(()));
    assert_eq!(s.write(44, s.next(), 100, 42), Err(ExpectedHintedFnode));
}

/// Author 1 creates two files, removes the second one after its last write to the first, and hands off to author 2.
#[test]
fn a_file_removed_between_hinted_segments_stays_gone() {
    let mut s = Script::new(&empty());
    assert_eq!(s.create(1, 0, 1, "/kept"), Ok(()));
    assert_eq!(s.create(2, s.next(), 1, "/gone"), Ok(()));
    assert_eq!(s.write(3, s.next(), 1, 1), Ok(()));
    assert_eq!(s.unlink(4, s.next(), 1, 2, "/gone"), Ok(()));
    assert_eq!(s.apply(5, s.next(), 2, Action::Nothing), Ok(()));
    assert_eq!(s.write(6, s.next(), 2, 1), Ok(()));
    let hints = s.fsm.build_hints(&log());

    let mut replayed = Script::new(&hints);
    assert_eq!(replayed.create(1, 0, 1, "/kept"), Ok(()));
    assert_eq!(replayed.create(2, replayed.next(), 1, "/gone"), Err(NotTracked));
    assert_eq!(replayed.write(3, replayed.next(), 1, 1), Ok(()));
    replayed.applied = 5; // The removal and the hand-off are not hinted, and need not be read.
    assert_eq!(replayed.write(6, replayed.next(), 2, 1), Ok(()));
    assert_eq!(replayed.fsm, s.fsm);
}

#[test]
fn files_are_linked_at_unused_paths() {
    let mut s = Script::starting_at(&empty(), 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/existing/path"), Ok(()));
    assert_eq!(s.create(43, 0x2d28e063, 100, "/source/path"), Ok(()));
    assert_eq!(s.link(44, 0xf11e2261, 100, 42, "/target/one"), Ok(()));
    assert_eq!(s.property(45, 0xe292e757, 100, "/property/path", "content"), Ok(()));

    assert_eq!(s.link(46, 0x2009a120, 100, 43, "/existing/path"), Err(LinkExists));
    assert_eq!(s.link(46, 0x2009a120, 100, 15, "/existing/path"), Err(LinkExists));
    assert_eq!(s.link(46, 0x2009a120, 100, 44, "/property/path"), Err(PropertyExists));
    assert_eq!(s.link(46, 0x2009a120, 100, 15, "/target/two"), Err(NotTracked));
    assert_eq!(s.link(47, 0xc8dac550, 200, 43, "/target/two"), Ok(()));

    assert_eq!(
        s.links(),
        [("/existing/path", 42), ("/source/path", 43), ("/target/one", 42), ("/target/two", 43)]
    );
    assert_eq!(
        s.nodes(),
        [
            node(42, vec![segment(100, (42, 44), (1, 4), 0xfeedbeef)]),
            node(
                43,
                vec![segment(100, (43, 43), (2, 3), 0x2d28e063), segment(200, (47, 47), (9, 10), 0xc8dac550)]
            ),
        ]
    );
    assert_eq!(s.fsm.properties()["/property/path"], "content");
}

#[test]
fn files_live_until_their_last_link_is_gone() {
    let mut s = Script::starting_at(&empty(), 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/path/A"), Ok(()));
    assert_eq!(s.create(43, 0x2d28e063, 100, "/another/path"), Ok(()));
    assert_eq!(s.link(44, 0xf11e2261, 200, 43, "/link/one"), Ok(()));
    assert_eq!(s.unlink(45, 0xe292e757, 200, 43, "/does/not/exist"), Err(NoSuchLink));
    assert_eq!(s.unlink(45, 0xe292e757, 200, 42, "/another/path"), Err(NoSuchLink));
    assert_eq!(s.unlink(45, 0xe292e757, 200, 15, "/some/path"), Err(NotTracked));
    assert_eq!(s.unlink(46, 0xc132d1d7, 200, 43, "/another/path"), Ok(()));
    assert_eq!(s.links(), [("/link/one", 43), ("/path/A", 42)]);
    let first = node(42, vec![segment(100, (42, 42), (1, 2), 0xfeedbeef)]);
    let second = node(
        43,
        vec![segment(100, (43, 43), (2, 3), 0x2d28e063), segment(200, (44, 46), (3, 8), 0xf11e2261)],
    );
    assert_eq!(s.nodes(), [first.clone(), second]);

    assert_eq!(s.unlink(47, 0xb18cc99a, 200, 43, "/link/one"), Ok(()));
    assert_eq!((s.links(), s.nodes()), (vec![("/path/A", 42)], vec![first]));
    assert!(!s.fsm.is_live(Fnode(43)));

    assert_eq!(s.create(48, 0x11bc1ac9, 300, "/other/path"), Ok(()));
    assert_eq!(s.unlink(49, 0xa102803e, 300, 42, "/path/A"), Ok(()));
    assert_eq!(s.links(), [("/other/path", 48)]);
    assert_eq!(s.nodes(), [node(48, vec![segment(300, (48, 48), (9, 10), 0x11bc1ac9)])]);

    assert_eq!(s.unlink(50, 0xa40daee4, 400, 48, "/other/path"), Ok(()));
    assert_eq!((s.links(), s.fsm.build_hints(&log())), (vec![], empty()));
}

#[test]
fn properties_are_not_at_paths_of_files() {
    let hints = FsmHints { properties: vec![property("/a/property", "content")], ..empty() };
    let mut s = Script::starting_at(&hints, 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/a/path"), Ok(()));
    assert_eq!(s.property(43, 0x2d28e063, 100, "/another/property", "other-content"), Ok(()));
    assert_eq!(s.property(44, 0xf11e2261, 100, "/a/path", "bad"), Err(LinkExists));
    let found: Vec<_> = s.fsm.properties().iter().map(|(p, c)| (p.as_str(), c.as_str())).collect();
    assert_eq!(found, [("/a/property", "content"), ("/another/property", "other-content")]);
}

#[test]
fn writes_extend_segments() {
    let mut s = Script::starting_at(&empty(), 42, 0xfeedbeef);
    assert_eq!(s.create(42, 0xfeedbeef, 100, "/path/A"), Ok(()));
    assert_eq!(s.write(43, 0x2d28e063, 100, 42), Ok(()));
    assert_eq!(s.write(44, 0xf11e2261, 100, 42), Ok(()));
    assert_eq!(s.write(45, 0xe292e757, 100, 15), Err(NotTracked));
    assert_eq!(s.write(46, 0x2009a120, 100, 42), Ok(()));
    assert_eq!(s.nodes(), [node(42, vec![segment(100, (42, 46), (1, 6), 0xfeedbeef)])]);
}

#[test]
fn only_hinted_authors_are_followed_while_hints_remain() {
    let hinted = vec![
        node(
            42,
            vec![
                segment(100, (42, 42), (2, 3), 0),
                segment(200, (44, 44), (5, 6), 0),
                segment(300, (45, 45), (8, 9), 0),
            ],
        ),
        node(46, vec![segment(400, (46, 47), (11, 13), 0)]),
    ];
    let mut s = Script::new(&FsmHints { live_nodes: hinted.clone(), ..empty() });

    assert_eq!(s.create(42, 0, 666, "/evil/path"), Err(NotHintedAuthor));
    assert_eq!(s.create(42, 0, 100, "/good/path"), Ok(()));
    assert_eq!(s.write(43, s.next(), 100, 42), Err(NotHintedAuthor));
    assert_eq!(s.write(43, s.next(), 200, 15), Err(WrongSeqNo));
    assert_eq!(s.write(44, 0, 200, 42), Ok(())); // The checksum was taken from the hints.
    assert_eq!(s.write(45, s.next(), 200, 42), Err(NotHintedAuthor));
    assert_eq!(s.write(45, s.next(), 666, 42), Err(NotHintedAuthor));
    assert_eq!(s.write(45, 0, 300, 42), Ok(()));
    assert_eq!(s.write(46, s.next(), 300, 42), Err(NotHintedAuthor));
    assert_eq!(s.write(46, s.next(), 666, 42), Err(NotHintedAuthor));
    assert_eq!(s.create(46, 0, 400, "/another/path"), Ok(()));
    assert_eq!(s.write(47, s.next(), 400, 46), Ok(()));
    assert_eq!(s.nodes(), hinted);

    // Now anyone may go on.
    assert_eq!(s.unlink(48, s.next(), 666, 42, "/good/path"), Ok(()));
    assert_eq!(s.write(49, s.next(), 666, 46), Ok(()));
    assert_eq!(
        s.nodes(),
        [node(46, vec![segment(400, (46, 47), (11, 13), 0), segment(666, (49, 49), (14, 15), 0x1cab6124)])]
    );
}

/// What a plain file system would hold after the accepted operations.
#[derive(Default)]
struct Model {
    files: BTreeMap<String, i64>,
}

/// What to do, to which two paths, and whether a new author takes over before.
fn any_operation() -> impl Strategy<Value = (u8, usize, usize, bool)> {
    (0u8..5, 0usize..6, 0usize..6, prop::bool::weighted(0.1))
}

const PATHS: [&str; 6] = ["/a", "/b", "/c/d", "/e", "/f", "/g"];

/// Picks the operation which `kind` and two paths mean in the present state of the model.
fn choose(model: &Model, kind: u8, first: usize, second: usize) -> Action {
    let existing = model.files.iter().nth(first % model.files.len().max(1));
    match (kind, existing) {
        (0, _) | (_, None) => Action::Create { path: PATHS[second].into() },
        (1, Some((_, fnode))) => Action::Link { fnode: Fnode(*fnode), path: PATHS[second].into() },
        (2, Some((path, fnode))) => Action::Unlink { fnode: Fnode(*fnode), path: path.clone() },
        (3, Some((_, fnode))) => Action::Write { fnode: Fnode(*fnode), offset: 0, length: 0 },
        _ => Action::Nothing,
    }
}

proptest! {
    /// The links are those of a plain model, and hints taken at any moment, played over the whole history, lead to the
    /// same state: whatever happened before and after they were taken.
    #[test]
    fn hints_of_any_moment_rebuild_the_state(
        script in prop::collection::vec(any_operation(), 1..60), at: prop::sample::Index
    ) {
        let (mut fsm, mut model, mut history) = (Fsm::new(&empty()).unwrap(), Model::default(), Vec::new());
        let (mut hints, mut author) = (empty(), 1);
        let hints_at = at.index(script.len());
        for (index, (kind, first, second, handoff)) in script.into_iter().enumerate() {
            author += u32::from(handoff);
            let action = choose(&model, kind, first, second);
            let op = Op { seq_no: fsm.next_seq_no, checksum: fsm.next_checksum, author: Author::new(author).unwrap(), action };
            let mut frame = Vec::new();
            let begin = op.encode(&mut frame);
            let offset = 100 * index as i64;
            let span = Span { log: &log(), first_offset: offset, last_offset: offset + 50 };
            if fsm.apply(&op, &frame[begin..], span).is_ok() {
                match &op.action {
                    Action::Create { path } => { model.files.insert(path.clone(), op.seq_no); }
                    Action::Link { fnode, path } => { model.files.insert(path.clone(), fnode.0); }
                    Action::Unlink { path, .. } => { model.files.remove(path); }
                    _ => {}
                }
                history.push((op, frame[begin..].to_vec(), offset));
            }
            if index == hints_at {
                hints = fsm.build_hints(&log());
            }
            let links: BTreeMap<_, _> = fsm.links.iter().map(|(path, fnode)| (path.clone(), fnode.0)).collect();
            prop_assert_eq!(&links, &model.files);
        }
        let mut replayed = Fsm::new(&hints).unwrap();
        for (op, payload, offset) in &history {
            let span = Span { log: &log(), first_offset: *offset, last_offset: offset + 50 };
            let _ = replayed.apply(op, payload, span);
        }
        prop_assert_eq!(replayed, fsm);
    }
}
