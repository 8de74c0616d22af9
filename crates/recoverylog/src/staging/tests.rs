use super::*;
use crate::testing::*;
use bytes::Bytes;

fn write(fnode: i64, offset: u64, data: &'static [u8]) -> FileOp {
    FileOp::Write { fnode: Fnode(fnode), offset, data: Bytes::from_static(data) }
}

#[test]
fn files_are_staged_and_then_linked() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    fs::create_dir_all(target.join("old")).unwrap();
    fs::write(target.join("old/file"), "gone").unwrap();

    let mut log = MemoryLog::new("a/log", 1);
    let (a, b) = (log.create("/a"), log.create("/sub/b"));
    log.link("/a", "/sub/deeper/a");
    log.create("/tmp");
    log.recording.rename("/tmp".into(), "/IDENTITY".into(), Some("id".into()), &mut log.bytes).unwrap();

    let mut staging = Staging::prepare(&target).unwrap();
    assert!(!target.join("old").exists());
    staging
        .apply(vec![
            FileOp::Create(a),
            write(a.0, 2, b"llo"),
            FileOp::Create(b),
            FileOp::Create(Fnode(99)),
            write(a.0, 0, b"he"),
        ])
        .unwrap();
    staging.apply(vec![FileOp::Remove(Fnode(99))]).unwrap();
    staging.make_live(log.recording.fsm()).unwrap();

    for (path, content) in [("a", "hello"), ("sub/deeper/a", "hello"), ("sub/b", ""), ("IDENTITY", "id")] {
        assert_eq!(fs::read_to_string(target.join(path)).unwrap(), content, "{path}");
    }
    assert!(!target.join(STAGING_DIR).exists());
}

#[test]
fn many_files_are_not_all_open_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut staging = Staging::prepare(&dir.path().join("target")).unwrap();
    for round in 0..2 {
        for fnode in 0..2 * OPEN_FILES_MAX as i64 {
            let create = (round == 0).then_some(FileOp::Create(Fnode(fnode)));
            staging.apply(create.into_iter().chain([write(fnode, round, b"x")]).collect()).unwrap();
            assert!(staging.open.len() <= OPEN_FILES_MAX);
        }
    }
    assert_eq!(fs::read(staging.staged(Fnode(0))).unwrap(), b"xx");
}

#[test]
fn what_contradicts_the_directory_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("target");
    let mut staging = Staging::prepare(&target).unwrap();
    staging.apply(vec![FileOp::Create(Fnode(1))]).unwrap();
    for (file_op, text) in [
        (FileOp::Create(Fnode(1)), "opening "),
        (write(2, 0, b"x"), "opening "),
        (FileOp::Remove(Fnode(2)), "removing "),
    ] {
        let error = staging.apply(vec![file_op]).unwrap_err().to_string();
        assert!(error.starts_with(text) && error.contains(".fnodes"), "{error}");
    }
    // A file below a path which is a file, too.
    let mut log = MemoryLog::new("a/log", 1);
    log.create("/a");
    log.create("/a/b");
    staging.apply(vec![FileOp::Create(Fnode(2))]).unwrap();
    assert!(staging.make_live(log.recording.fsm()).is_err());
}

#[test]
fn a_directory_must_be_absolute() {
    assert!(Staging::prepare(Path::new("relative")).is_err());
}
