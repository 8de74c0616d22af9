use std::os::unix::fs::PermissionsExt;

use super::super::store::Write;
use super::super::store::tests::{contents, put};
use super::*;

const NOW: Duration = Duration::ZERO;
const FRESH: Identity = Identity { cluster_id: 7, member_id: 8, raft_term: 2 };

fn write(log: &mut Log, store: &mut Store, key: &str, value: &str) {
    let (_, effects) = store.apply(&Write::Put(put(key, value, 0)), NOW).unwrap();
    log.append(&effects).unwrap();
}

fn only_log(dir: &Path) -> PathBuf {
    let [sequence] = sequences(dir).unwrap()[..] else { panic!("expected one log in {dir:?}") };
    log_path(dir, sequence)
}

#[test]
fn what_was_appended_is_there_when_the_directory_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, identity, mut store) = open(dir.path(), FRESH, NOW).unwrap();
    assert_eq!(identity, FRESH);
    for n in 0..10 {
        write(&mut log, &mut store, "k", &n.to_string());
    }
    drop(log);
    let other = Identity { cluster_id: 1, member_id: 1, raft_term: 1 };
    let (_log, identity, found) = open(dir.path(), other, NOW).unwrap();
    assert_eq!(identity, Identity { raft_term: 3, ..FRESH }, "the identity stays and the term grows");
    assert_eq!((found.revision(), contents(&found, 5)), (11, contents(&store, 5)));
}

#[test]
fn a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, ..) = open(dir.path(), FRESH, NOW).unwrap();
    let error = open(dir.path(), FRESH, NOW).unwrap_err();
    assert!(matches!(error, LogError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("LOCK\" is in use by another process"), "{error}");
}

#[test]
fn a_torn_end_is_dropped_at_every_byte_and_writing_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, mut store) = open(dir.path(), FRESH, NOW).unwrap();
    for n in 0..3 {
        write(&mut log, &mut store, "k", &n.to_string());
    }
    drop(log);
    let path = only_log(dir.path());
    let whole = fs::read(&path).unwrap();
    let mut ends = Vec::new();
    for length in (0..=whole.len()).rev() {
        match record::load(&whole[..length], NOW) {
            Ok(loaded) if loaded.length == length => ends.push(length),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    assert_eq!(ends.len(), 4, "three puts after a snapshot");
    for length in ends[3]..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let acknowledged = ends.iter().filter(|end| **end <= length).count() - 1;
        let (mut log, _, mut found) = open(dir.path(), FRESH, NOW).unwrap();
        assert_eq!(found.revision(), 1 + i64::try_from(acknowledged).unwrap(), "cut at {length}");
        write(&mut log, &mut found, "after", "");
        drop(log);
        let (_log, _, again) = open(dir.path(), FRESH, NOW).unwrap();
        assert_eq!(contents(&again, 0), contents(&found, 0), "cut at {length}");
    }
}

#[test]
fn damage_names_the_file_and_the_offset() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, mut store) = open(dir.path(), FRESH, NOW).unwrap();
    let snapshot = log.length;
    for n in 0..3 {
        write(&mut log, &mut store, "k", &n.to_string());
    }
    drop(log);
    let path = only_log(dir.path());
    let mut content = fs::read(&path).unwrap();
    let at = usize::try_from(snapshot).unwrap() + 22;
    content[at] ^= 1;
    fs::write(&path, content).unwrap();
    let text = open(dir.path(), FRESH, NOW).unwrap_err().to_string();
    assert!(text.contains("0000000000000001.log"), "{text}");
    assert!(text.contains(&format!("damaged at offset {snapshot}")), "{text}");
}

#[test]
fn rotation_keeps_the_state_and_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, identity, mut store) = open(dir.path(), FRESH, NOW).unwrap();
    for n in 0..5 {
        write(&mut log, &mut store, "k", &n.to_string());
    }
    let (mut log, outcome) = log.rotate(identity, &store);
    outcome.unwrap();
    write(&mut log, &mut store, "after", "");
    drop(log);
    // What a crash in the middle of a rotation leaves behind.
    fs::write(dir.path().join("0000000000000003.tmp"), "half").unwrap();
    fs::write(dir.path().join("0000000000000000.log"), "old").unwrap();
    let (_log, identity, found) = open(dir.path(), FRESH, NOW).unwrap();
    assert_eq!(identity.raft_term, 3);
    assert_eq!(contents(&found, 0), contents(&store, 0));
    assert_eq!(contents(&found, 3), contents(&store, 3));
    assert!(only_log(dir.path()).ends_with("0000000000000002.log"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the log and the lock");
}

#[test]
fn a_refused_write_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _, mut store) = open(dir.path(), FRESH, NOW).unwrap();
    write(&mut log, &mut store, "k", "v");
    // A file that is open for reading only refuses both the write and the cut which should undo it.
    let writable = std::mem::replace(&mut log.file, File::open(&log.path).unwrap());
    let (_, effects) = store.clone().apply(&Write::Put(put("lost", "", 0)), NOW).unwrap();
    assert!(matches!(log.append(&effects), Err(AppendError::Unknown(_))));
    log.file = writable;
    write(&mut log, &mut store, "after", "");
    drop(log);
    let (_log, _, found) = open(dir.path(), FRESH, NOW).unwrap();
    assert_eq!(contents(&found, 0), contents(&store, 0));
}

#[test]
fn an_unusable_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let text = open(&file, FRESH, NOW).unwrap_err().to_string();
    assert!(text.contains("create directory") && text.contains("file"), "{text}");
}
