//! Recorded operations and their checksum chain (consumer protocol §4.1, §4.2).
//!
//! An operation is one fixed frame. The frame of a write is followed by the written bytes, which are no part of it. Each
//! operation carries the checksum of all before it, computed over their bytes as they are in the log, so that an
//! operation applies to one history alone. Decoding parses: a decoded [`Op`] has an author, at most one action, and no
//! negative number. Paths are left as they are, since whether they matter is known only once the operation applies.

use crate::Author;
use message::fixed;
use proto::Invalid;
use proto::recoverylog::{Property, RecordedOp, recorded_op};

/// Most bytes of an operation's frame without the bytes that a write adds to it.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// A file, by the sequence number of the operation which created it. It stays the same through renames and links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fnode(pub i64);

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// Place in the history, from one.
    pub seq_no: i64,
    /// Checksum of the history before this operation.
    pub checksum: u32,
    /// The recorder which wrote it.
    pub author: Author,
    /// What it does.
    pub action: Action,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing: a hand-off to another author.
    Nothing,
    /// A new file, linked at a path. Its fnode is the operation's sequence number.
    Create {
        /// Where the file is linked.
        path: String,
    },
    /// Another path of a file.
    Link {
        /// The file.
        fnode: Fnode,
        /// Its additional path.
        path: String,
    },
    /// One path less of a file; without paths it is gone.
    Unlink {
        /// The file.
        fnode: Fnode,
        /// The path it loses.
        path: String,
    },
    /// Bytes written into a file: those which follow the frame.
    Write {
        /// The file.
        fnode: Fnode,
        /// Where in the file they go, in bytes.
        offset: i64,
        /// How many they are.
        length: i64,
    },
    /// A small file which is kept as a value.
    Property {
        /// Its path.
        path: String,
        /// Its content.
        content: String,
    },
}

impl Op {
    /// Decodes the payload of a frame. Unknown fields are accepted: they count in the checksum alone.
    pub fn decode(payload: &[u8]) -> Result<Op, Invalid> {
        let op: RecordedOp = fixed::decode(payload).map_err(|e| Invalid::new(e).within("RecordedOp"))?;
        Op::parse(op).map_err(|e| e.within("RecordedOp"))
    }

    fn parse(op: RecordedOp) -> Result<Op, Invalid> {
        if op.seq_no <= 0 {
            return Err(Invalid::new(format!("invalid SeqNo ({}; expected > 0)", op.seq_no)));
        }
        let author = Author::new(op.author)?;
        let actions = [
            op.create.map(|create| Action::Create { path: create.path }),
            op.link.map(|link| Action::Link { fnode: Fnode(link.fnode), path: link.path }),
            op.unlink.map(|link| Action::Unlink { fnode: Fnode(link.fnode), path: link.path }),
            op.write.map(|w| Action::Write { fnode: Fnode(w.fnode), offset: w.offset, length: w.length }),
            op.property.map(|p| Action::Property { path: p.path, content: p.content }),
        ];
        let mut actions = actions.into_iter().flatten();
        let action = actions.next().unwrap_or(Action::Nothing);
        if actions.next().is_some() {
            return Err(Invalid::new("more than one action"));
        }
        if let Action::Write { offset, length, .. } = &action {
            let valid = *offset >= 0 && *length >= 0 && offset.checked_add(*length).is_some();
            if !valid {
                return Err(Invalid::new(format!("invalid Write (offset {offset}, length {length})")));
            }
        }
        Ok(Op { seq_no: op.seq_no, checksum: op.checksum, author, action })
    }

    /// Appends the frame to `out` and returns where in `out` its payload begins.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        let mut op = RecordedOp {
            seq_no: self.seq_no,
            checksum: self.checksum,
            author: self.author.id(),
            ..RecordedOp::default()
        };
        match &self.action {
            Action::Nothing => {}
            Action::Create { path } => op.create = Some(recorded_op::Create { path: path.clone() }),
            Action::Link { fnode, path } => {
                op.link = Some(recorded_op::Link { fnode: fnode.0, path: path.clone() });
            }
            Action::Unlink { fnode, path } => {
                op.unlink = Some(recorded_op::Link { fnode: fnode.0, path: path.clone() });
            }
            Action::Write { fnode, offset, length } => {
                op.write = Some(recorded_op::Write { fnode: fnode.0, offset: *offset, length: *length });
            }
            Action::Property { path, content } => {
                op.property = Some(Property { path: path.clone(), content: content.clone() });
            }
        }
        let begin = out.len() + fixed::HEADER_LEN;
        fixed::encode(&op, out).expect("paths and properties are far smaller than a frame can be");
        begin
    }

    /// Bytes which follow the frame.
    pub fn bytes_after_frame(&self) -> u64 {
        match self.action {
            Action::Write { length, .. } => length.unsigned_abs(),
            _ => 0,
        }
    }
}

/// The checksum of a history of checksum `before` and one operation more, whose frame has this payload.
pub fn chain(before: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(before, payload)
}

#[cfg(test)]
mod tests;
