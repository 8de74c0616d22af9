use super::*;
use crate::testing::{decode_all, empty_fsm, journal};

fn recording() -> Recording {
    let log = journal("a/log");
    Recording::new(empty_fsm(&log), Author::new(1234).unwrap(), log, 100)
}

/// What one call records, as actions.
fn actions(call: impl FnOnce(&mut Vec<u8>)) -> Vec<Action> {
    let mut out = Vec::new();
    call(&mut out);
    decode_all(&out).into_iter().map(|op| op.action).collect()
}

fn create(path: &str) -> Action {
    Action::Create { path: path.into() }
}

fn link(fnode: i64, path: &str) -> Action {
    Action::Link { fnode: Fnode(fnode), path: path.into() }
}

fn unlink(fnode: i64, path: &str) -> Action {
    Action::Unlink { fnode: Fnode(fnode), path: path.into() }
}

#[test]
fn operations_equal_the_vectors() {
    let (mut recording, mut out) = (recording(), Vec::new());
    recording.create("/path/to/file".into(), &mut out).unwrap();
    assert_eq!((out.len(), recording.fsm().next_checksum()), (32, 0x568e8e4e));
    out.clear();
    recording.remove("/path/to/file".into(), &mut out).unwrap();
    assert_eq!(recording.fsm().next_checksum(), 0x8ee45505);
    let op = &decode_all(&out)[0];
    assert_eq!((op.seq_no, op.checksum, op.author.id()), (2, 0x568e8e4e, 1234));
}

#[test]
fn each_call_records_its_operations() {
    let mut r = recording();
    assert_eq!(actions(|out| assert_eq!(r.create("/a".into(), out), Ok(Fnode(1)))), [create("/a")]);
    // Creation at a known path truncates: the file is another one from then on.
    assert_eq!(
        actions(|out| assert_eq!(r.create("/a".into(), out), Ok(Fnode(3)))),
        [unlink(1, "/a"), create("/a")]
    );
    assert_eq!(
        actions(|out| {
            r.write_at(Fnode(3), 7, 5, out).unwrap();
            out.extend_from_slice(b"bytes");
            r.write_at(Fnode(3), 12, 0, out).unwrap();
        }),
        [
            Action::Write { fnode: Fnode(3), offset: 7, length: 5 },
            Action::Write { fnode: Fnode(3), offset: 12, length: 0 }
        ]
    );
    assert_eq!(actions(|out| r.link("/a", "/b".into(), out).unwrap()), [link(3, "/b")]);
    assert_eq!(actions(|out| r.remove("/a".into(), out).unwrap()), [unlink(3, "/a")]);
    assert_eq!(
        actions(|out| r.rename("/b".into(), "/c".into(), None, out).unwrap()),
        [link(3, "/c"), unlink(3, "/b")]
    );
    assert_eq!(actions(|out| assert_eq!(r.create("/d".into(), out), Ok(Fnode(10)))), [create("/d")]);
    assert_eq!(
        actions(|out| r.rename("/d".into(), "/c".into(), None, out).unwrap()),
        [unlink(3, "/c"), link(10, "/c"), unlink(10, "/d")]
    );
}

#[test]
fn a_rename_to_a_property_path_records_its_content() {
    let mut r = recording();
    let mut out = Vec::new();
    r.create("/tmp".into(), &mut out).unwrap();
    let property = Action::Property { path: "/IDENTITY".into(), content: "id".into() };
    let rename = |r: &mut Recording, content: &str, out: &mut Vec<u8>| {
        r.rename("/tmp".into(), "/IDENTITY".into(), Some(content.into()), out)
    };
    assert_eq!(actions(|out| rename(&mut r, "id", out).unwrap()), [property, unlink(1, "/tmp")]);
    assert_eq!(r.fsm().properties()["/IDENTITY"], "id");

    r.create("/tmp".into(), &mut out).unwrap();
    assert_eq!(
        rename(&mut r, "other", &mut out).unwrap_err().to_string(),
        "rename to /IDENTITY, which is a property of other content"
    );
    assert!(is_property("/IDENTITY") && !is_property("/pageDB/IDENTITY"));
}

#[test]
fn contradictions_are_errors() {
    let (mut r, mut out) = (recording(), Vec::new());
    r.create("/a".into(), &mut out).unwrap();
    r.create("/b".into(), &mut out).unwrap();
    let before = out.len();
    for (error, text) in [
        (r.remove("/x".into(), &mut out), "remove of /x, which was not recorded"),
        (r.link("/x", "/y".into(), &mut out), "link of /x, which was not recorded"),
        (r.rename("/x".into(), "/y".into(), None, &mut out), "rename of /x, which was not recorded"),
        (r.remove("/IDENTITY".into(), &mut out), "remove of /IDENTITY, which is a property"),
        (r.create("/IDENTITY".into(), &mut out).map(drop), "create of /IDENTITY, which is a property"),
        (r.link("/a", "/IDENTITY".into(), &mut out), "link of /IDENTITY, which is a property"),
        (
            r.write_at(Fnode(1), u64::MAX, 1, &mut out),
            "write of 1 bytes at 18446744073709551615, which is out of bounds",
        ),
    ] {
        assert_eq!(error.unwrap_err().to_string(), text);
    }
    assert_eq!(out.len(), before);
    let error = r.link("/a", "/b".into(), &mut out).unwrap_err();
    assert!(matches!(error, RecordingError::Refused { error: ApplyError::LinkExists, .. }));
}

#[test]
fn a_removed_file_may_still_be_written_to() {
    let (mut r, mut out) = (recording(), Vec::new());
    let fnode = r.create("/a".into(), &mut out).unwrap();
    r.remove("/a".into(), &mut out).unwrap();
    r.write_at(fnode, 0, 0, &mut out).unwrap();
    assert_eq!(decode_all(&out).len(), 3);
}

/// `(first seq, first offset, last seq, last offset)` of each segment.
fn bounds(hints: &FsmHints) -> Vec<(i64, i64, i64, i64)> {
    let segments = hints.live_nodes.iter().flat_map(|node| &node.segments);
    segments.map(|s| (s.first_seq_no, s.first_offset, s.last_seq_no, s.last_offset)).collect()
}

#[test]
fn acknowledged_appends_bound_the_offsets_of_hints() {
    let (mut r, mut out) = (recording(), Vec::new());
    let a = r.create("/a".into(), &mut out).unwrap();
    r.on_committed(1, 131);
    assert_eq!(r.write_head(), 131);
    let b = r.create("/b".into(), &mut out).unwrap();
    r.write_at(a, 0, 0, &mut out).unwrap();
    assert_eq!(bounds(&r.build_hints().unwrap()), [(1, 100, 3, 0), (2, 131, 2, 0)]);

    r.on_committed(2, 162); // The creation of /b, and not yet the write to /a.
    assert_eq!(bounds(&r.build_hints().unwrap()), [(1, 100, 3, 0), (2, 131, 2, 162)]);
    let mut hints = r.build_hints().unwrap();
    complete_hints(&mut hints, 200);
    assert_eq!(bounds(&hints), [(1, 100, 3, 200), (2, 131, 2, 162)]);
    assert!(Fsm::new(&hints).is_ok());

    r.write_at(b, 0, 0, &mut out).unwrap();
    r.on_committed(4, 230);
    assert_eq!(bounds(&r.build_hints().unwrap()), [(1, 100, 3, 230), (2, 131, 4, 230)]);
    r.on_committed(3, 200); // An older acknowledgement changes nothing.
    assert_eq!(r.write_head(), 230);
}

#[test]
fn after_a_fork_hints_wait_for_a_live_file_in_the_new_log() {
    let (mut before, mut out) = (recording(), Vec::new());
    let fnode = before.create("/a".into(), &mut out).unwrap();
    before.on_committed(1, 131);

    let author = Author::new(5678).unwrap();
    let mut forked = Recording::new(before.fsm().clone(), author, journal("b/log"), 7);
    out.clear();
    forked.fork(&mut out).unwrap();
    assert_eq!(decode_all(&out)[0].action, Action::Nothing);
    assert_eq!(forked.build_hints(), Err(NotYet));

    forked.write_at(fnode, 0, 0, &mut out).unwrap();
    let mut hints = forked.build_hints().unwrap();
    complete_hints(&mut hints, 70);
    assert_eq!(bounds(&hints), [(1, 100, 1, 131), (3, 7, 3, 70)]);
    assert!(Fsm::new(&hints).is_ok());

    // Without a live file there is nothing by which hints could tell where the history begins.
    forked.remove("/a".into(), &mut out).unwrap();
    assert_eq!(forked.build_hints(), Err(NotYet));
    assert_eq!(recording().build_hints().map(|h| bounds(&h)), Ok(vec![]));

    // The same log is no fork, and needs no operation.
    let mut same = Recording::new(before.fsm().clone(), author, journal("a/log"), 131);
    out.clear();
    same.fork(&mut out).unwrap();
    assert!(out.is_empty());
}
