//! Recording: from file operations to the bytes of a log (consumer protocol §4.6).
//!
//! This is the half of a recorder which does no I/O. It sequences operations by the state machine, frames them, and keeps
//! two bounds for hints: that an operation begins at or after the last write head which was seen before, and that it
//! ends at or before the end of any append which was acknowledged after. An operation which contradicts what was recorded
//! is an error, and the recording is of no more use then: what it holds is no longer what the directory holds.

use crate::Author;
use crate::fsm::{ApplyError, Fsm, Span};
use crate::op::{Action, Fnode, Op};
use crate::path::PROPERTY_PATH;
use proto::JournalName;
use proto::recoverylog::FsmHints;
use std::collections::BTreeSet;

/// An operation which cannot be recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// Nothing was recorded at this path.
    #[error("{call} of {path}, which was not recorded")]
    UnknownPath {
        /// What was tried.
        call: &'static str,
        /// On which path.
        path: String,
    },
    /// The file of this path is kept as a value, and can only be put there by a rename.
    #[error("{call} of {path}, which is a property")]
    Property {
        /// What was tried.
        call: &'static str,
        /// On which path.
        path: String,
    },
    /// A property has another value already.
    #[error("rename to {path}, which is a property of other content")]
    PropertyChanged {
        /// On which path.
        path: String,
    },
    /// The write is out of the bounds of a file.
    #[error("write of {length} bytes at {offset}, which is out of bounds")]
    WriteBounds {
        /// Where in the file, in bytes.
        offset: u64,
        /// How much, in bytes.
        length: usize,
    },
    /// The operation contradicts those before.
    #[error("recording {action:?}: {error}")]
    Refused {
        /// What was to be recorded.
        action: Box<Action>,
        /// Why it does not apply.
        error: ApplyError,
    },
}

/// Hints of this moment would be refused by every reader: after the log was changed, no live file has an operation in
/// the new one yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet;

/// The state of a recording.
#[derive(Debug)]
pub struct Recording {
    fsm: Fsm,
    author: Author,
    log: JournalName,
    /// Largest write head which was seen, in bytes.
    write_head: i64,
    /// Whether the files began in another log.
    forked: bool,
    /// Live files of which the end of the last operation is not known.
    unsettled: BTreeSet<Fnode>,
}

impl Recording {
    /// Goes on with what `fsm` holds, as `author`, in `log` which ends at `write_head`.
    pub fn new(fsm: Fsm, author: Author, log: JournalName, write_head: i64) -> Recording {
        let forked = *fsm.last_log() != log;
        Recording { fsm, author, log, write_head, forked, unsettled: BTreeSet::new() }
    }

    /// The log which is recorded to.
    pub fn log(&self) -> &JournalName {
        &self.log
    }

    /// Who records.
    pub fn author(&self) -> Author {
        self.author
    }

    /// Largest write head which was seen, in bytes.
    pub fn write_head(&self) -> i64 {
        self.write_head
    }

    /// Sequence number of the last recorded operation.
    pub fn last_seq_no(&self) -> i64 {
        self.fsm.next_seq_no() - 1
    }

    /// The state machine.
    pub fn fsm(&self) -> &Fsm {
        &self.fsm
    }

    /// The operation which makes another log the one that is recorded to; nothing if the log stays the same.
    pub fn fork(&mut self, out: &mut Vec<u8>) -> Result<(), RecordingError> {
        if self.forked { self.record(Action::Nothing, out) } else { Ok(()) }
    }

    /// The operation which says that nothing more of this author follows, so that a successor need not wait for it. It
    /// does nothing to files, so that every reader accepts it.
    pub fn conclude(&mut self, out: &mut Vec<u8>) -> Result<(), RecordingError> {
        self.record(Action::Nothing, out)
    }

    /// A new, empty file at `path`, in place of one which is there.
    pub fn create(&mut self, path: String, out: &mut Vec<u8>) -> Result<Fnode, RecordingError> {
        refuse_property("create", &path)?;
        self.unlink_if_known(&path, out)?;
        let fnode = Fnode(self.fsm.next_seq_no());
        self.record(Action::Create { path }, out)?;
        Ok(fnode)
    }

    /// A write of `length` bytes, which the caller appends to `out`.
    pub fn write_at(
        &mut self,
        fnode: Fnode,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordingError> {
        let bounds = i64::try_from(offset).ok().zip(i64::try_from(length).ok());
        let (offset, length) = bounds
            .filter(|(offset, length)| offset.checked_add(*length).is_some())
            .ok_or(RecordingError::WriteBounds { offset, length })?;
        let action = Action::Write { fnode, offset, length };
        // RocksDB may write to a file after its last link is gone, as to its oldest log. Players do not track it either.
        self.record(action, out)
    }

    /// The removal of a path.
    pub fn remove(&mut self, path: String, out: &mut Vec<u8>) -> Result<(), RecordingError> {
        refuse_property("remove", &path)?;
        let fnode = self.known("remove", &path)?;
        self.record(Action::Unlink { fnode, path }, out)
    }

    /// Another path of a file.
    pub fn link(&mut self, from: &str, to: String, out: &mut Vec<u8>) -> Result<(), RecordingError> {
        refuse_property("link", &to)?;
        let fnode = self.known("link", from)?;
        self.record(Action::Link { fnode, path: to }, out)
    }

    /// A rename. `content` is that of the file if `to` is a property: see [`is_property`].
    pub fn rename(
        &mut self,
        from: String,
        to: String,
        content: Option<String>,
        out: &mut Vec<u8>,
    ) -> Result<(), RecordingError> {
        let fnode = self.known("rename", &from)?;
        self.unlink_if_known(&to, out)?;
        match content {
            Some(content) => {
                if self.fsm.properties().get(&to).is_some_and(|before| *before != content) {
                    return Err(RecordingError::PropertyChanged { path: to });
                }
                self.record(Action::Property { path: to, content }, out)?;
            }
            None => self.record(Action::Link { fnode, path: to }, out)?,
        }
        self.record(Action::Unlink { fnode, path: from }, out)
    }

    /// Notes that an append was acknowledged which ends at `end`, and holds operations up to `through_seq_no`.
    pub fn on_committed(&mut self, through_seq_no: i64, end: i64) {
        self.write_head = self.write_head.max(end);
        let fsm = &mut self.fsm;
        self.unsettled.retain(|fnode| !fsm.settle(*fnode, through_seq_no, end));
    }

    /// Hints of the present state. They may be used only once the operations so far are acknowledged, and
    /// [`complete_hints`] was told where those end.
    pub fn build_hints(&self) -> Result<FsmHints, NotYet> {
        match self.fsm.newest_live_log() {
            Some(log) if *log != self.log => return Err(NotYet),
            None if self.forked => return Err(NotYet),
            _ => {}
        }
        Ok(self.fsm.build_hints(&self.log))
    }

    fn known(&self, call: &'static str, path: &str) -> Result<Fnode, RecordingError> {
        let fnode = self.fsm.links().get(path).copied();
        fnode.ok_or_else(|| RecordingError::UnknownPath { call, path: path.to_owned() })
    }

    fn unlink_if_known(&mut self, path: &str, out: &mut Vec<u8>) -> Result<(), RecordingError> {
        match self.fsm.links().get(path).copied() {
            Some(fnode) => self.record(Action::Unlink { fnode, path: path.to_owned() }, out),
            None => Ok(()),
        }
    }

    fn record(&mut self, action: Action, out: &mut Vec<u8>) -> Result<(), RecordingError> {
        let (seq_no, checksum) = (self.fsm.next_seq_no(), self.fsm.next_checksum());
        let op = Op { seq_no, checksum, author: self.author, action };
        let begin = op.encode(out);
        let span = Span { log: &self.log, first_offset: self.write_head, last_offset: 0 };
        match self.fsm.apply(&op, &out[begin..], span) {
            Ok(()) => {}
            Err(ApplyError::NotTracked) if matches!(op.action, Action::Write { .. }) => return Ok(()),
            Err(error) => return Err(RecordingError::Refused { action: Box::new(op.action), error }),
        }
        match op.action {
            Action::Create { .. } => self.unsettled.insert(Fnode(seq_no)),
            Action::Link { fnode, .. } | Action::Unlink { fnode, .. } | Action::Write { fnode, .. } => {
                self.unsettled.insert(fnode)
            }
            Action::Nothing | Action::Property { .. } => false,
        };
        Ok(())
    }
}

/// Whether a file at this path is kept as a value.
pub fn is_property(path: &str) -> bool {
    path == PROPERTY_PATH
}

fn refuse_property(call: &'static str, path: &str) -> Result<(), RecordingError> {
    if is_property(path) { Err(RecordingError::Property { call, path: path.to_owned() }) } else { Ok(()) }
}

/// Fills in where operations end which were not acknowledged when `hints` were built: at or before `end`, the end of an
/// append after them.
pub fn complete_hints(hints: &mut FsmHints, end: i64) {
    for segment in hints.live_nodes.iter_mut().flat_map(|node| &mut node.segments) {
        if segment.last_offset == 0 && segment.log.is_empty() && end > segment.first_offset {
            segment.last_offset = end;
        }
    }
}

#[cfg(test)]
mod tests;
