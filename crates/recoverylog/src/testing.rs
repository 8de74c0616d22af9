//! What the tests of this crate share: logs made up in memory.

use crate::op::{Fnode, Op};
use crate::recording::Recording;
use crate::replay::drive;
use crate::step::FileOp;
use crate::{Author, Fsm, PlayError, Playback};
use bytes::Bytes;
use message::{Split, fixed};
use proto::JournalName;
use proto::recoverylog::FsmHints;
use std::collections::BTreeMap;

/// Files by path, as a played directory or a model of one has them.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn journal(name: &str) -> JournalName {
    JournalName::parse(name).unwrap()
}

pub(crate) fn author(id: u32) -> Author {
    Author::new(id).unwrap()
}

pub(crate) fn empty_hints(log: &JournalName) -> FsmHints {
    FsmHints { log: String::from(log), ..FsmHints::default() }
}

pub(crate) fn empty_fsm(log: &JournalName) -> Fsm {
    Fsm::new(&empty_hints(log)).unwrap()
}

/// The operations of a well-formed log.
pub(crate) fn decode_all(mut log: &[u8]) -> Vec<Op> {
    let mut ops = Vec::new();
    while !log.is_empty() {
        let Split::Frame { consumed, payload } = fixed::split(log, true) else {
            panic!("not a frame: {log:?}")
        };
        let op = Op::decode(&log[payload]).unwrap();
        log = &log[consumed + op.bytes_after_frame() as usize..];
        ops.push(op);
    }
    ops
}

/// A recorder of a directory in memory, and the log it writes.
pub(crate) struct MemoryLog {
    pub(crate) recording: Recording,
    pub(crate) bytes: Vec<u8>,
    pub(crate) files: BTreeMap<Fnode, Vec<u8>>,
}

impl MemoryLog {
    pub(crate) fn new(name: &str, id: u32) -> MemoryLog {
        let log = journal(name);
        let recording = Recording::new(empty_fsm(&log), author(id), log, 0);
        MemoryLog { recording, bytes: Vec::new(), files: BTreeMap::new() }
    }

    /// Goes on by another author after what this one wrote. As after a hand-off, which writes the no-op.
    pub(crate) fn hand_off(&mut self, id: u32) {
        let mut fsm = self.recording.fsm().clone();
        let op = Op {
            seq_no: fsm.next_seq_no(),
            checksum: fsm.next_checksum(),
            author: author(id),
            action: crate::Action::Nothing,
        };
        let begin = op.encode(&mut self.bytes);
        let log = self.recording.log().clone();
        let span = crate::Span { log: &log, first_offset: 0, last_offset: 0 };
        fsm.apply(&op, &self.bytes[begin..], span).unwrap();
        self.recording = Recording::new(fsm, author(id), log, self.bytes.len() as i64);
    }

    pub(crate) fn create(&mut self, path: &str) -> Fnode {
        let fnode = self.recording.create(path.into(), &mut self.bytes).unwrap();
        self.files.insert(fnode, Vec::new());
        self.commit();
        fnode
    }

    pub(crate) fn write(&mut self, fnode: Fnode, offset: usize, data: &[u8]) {
        self.recording.write_at(fnode, offset as u64, data.len(), &mut self.bytes).unwrap();
        self.bytes.extend_from_slice(data);
        if !data.is_empty() {
            let file = self.files.get_mut(&fnode).unwrap();
            file.resize(file.len().max(offset + data.len()), 0);
            file[offset..][..data.len()].copy_from_slice(data);
        }
        self.commit();
    }

    pub(crate) fn append(&mut self, fnode: Fnode, data: &[u8]) {
        self.write(fnode, self.files[&fnode].len(), data);
    }

    pub(crate) fn remove(&mut self, path: &str) {
        self.recording.remove(path.into(), &mut self.bytes).unwrap();
        self.commit();
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        self.recording.rename(from.into(), to.into(), None, &mut self.bytes).unwrap();
        self.commit();
    }

    pub(crate) fn link(&mut self, from: &str, to: &str) {
        self.recording.link(from, to.into(), &mut self.bytes).unwrap();
        self.commit();
    }

    /// The end of an append.
    pub(crate) fn commit(&mut self) {
        self.recording.on_committed(self.recording.last_seq_no(), self.bytes.len() as i64);
    }

    pub(crate) fn hints(&self) -> FsmHints {
        self.recording.build_hints().unwrap()
    }

    /// The directory as it is now.
    pub(crate) fn dir(&self) -> Files {
        dir_of(self.recording.fsm(), &self.files)
    }

    pub(crate) fn logs(&self) -> BTreeMap<JournalName, Bytes> {
        logs(&[(self.recording.log().as_str(), &self.bytes)])
    }
}

pub(crate) fn logs(logs: &[(&str, &[u8])]) -> BTreeMap<JournalName, Bytes> {
    logs.iter().map(|(name, bytes)| (journal(name), Bytes::copy_from_slice(bytes))).collect()
}

fn dir_of(fsm: &Fsm, files: &BTreeMap<Fnode, Vec<u8>>) -> Files {
    fsm.links().iter().map(|(path, fnode)| (path.clone(), files[fnode].clone())).collect()
}

/// Re-enacts in memory, and is strict about it.
pub(crate) fn apply_in_memory(files: &mut BTreeMap<Fnode, Vec<u8>>, file_ops: Vec<FileOp>) {
    for file_op in file_ops {
        match file_op {
            FileOp::Create(fnode) => assert!(files.insert(fnode, Vec::new()).is_none(), "{fnode:?} exists"),
            FileOp::Remove(fnode) => assert!(files.remove(&fnode).is_some(), "{fnode:?} does not exist"),
            FileOp::Write { fnode, offset, data } => {
                let file = files.get_mut(&fnode).expect("written files exist");
                let (begin, end) = (offset as usize, offset as usize + data.len());
                file.resize(file.len().max(end), 0);
                file[begin..end].copy_from_slice(&data);
            }
        }
    }
}

/// Plays logs to their heads in memory.
pub(crate) fn play(
    hints: &FsmHints,
    logs: &BTreeMap<JournalName, Bytes>,
    chunk_bytes: usize,
) -> Result<(Files, Fsm), PlayError> {
    let mut files = BTreeMap::new();
    let fsm = drive(Playback::new(Fsm::new(hints)?), logs, chunk_bytes, |file_ops| {
        apply_in_memory(&mut files, file_ops);
        Ok(())
    })?;
    let live: Vec<_> = fsm.live_nodes().collect();
    assert_eq!(files.keys().copied().collect::<Vec<_>>(), live, "staged files are the live ones");
    Ok((dir_of(&fsm, &files), fsm))
}
