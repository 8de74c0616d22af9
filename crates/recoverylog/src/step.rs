//! What a playback has its driver do.

use crate::Author;
use crate::op::Fnode;
use bytes::Bytes;
use proto::JournalName;

/// What the driver does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read bytes of `log` from `offset`, and report them with [`crate::Playback::on_chunk`].
    Read {
        /// The log to read.
        log: JournalName,
        /// Where to go on, in bytes.
        offset: i64,
        /// Whether to wait for bytes. Otherwise report the lack of them with [`crate::Playback::on_head`].
        blocking: bool,
    },
    /// Append `frame` to `log` with the fence of `author`, and report its end with [`crate::Playback::on_injected`].
    Inject {
        /// The log to append to.
        log: JournalName,
        /// Who takes the fence.
        author: Author,
        /// A sequenced operation which does nothing.
        frame: Bytes,
    },
    /// All files are as they should be: [`crate::Playback::into_fsm`] says under which paths.
    Complete,
}

/// A file operation to re-enact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// An empty file which did not exist.
    Create(Fnode),
    /// Bytes of a file.
    Write {
        /// The file.
        fnode: Fnode,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is written.
        data: Bytes,
    },
    /// The end of a file.
    Remove(Fnode),
}
