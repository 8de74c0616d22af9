//! Why a recorder cannot go on.

use crate::Author;
use crate::recording::{Recording, RecordingError};
use client::OpError;
use proto::{Invalid, JournalName};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a recorder cannot go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// Another process took over the log. This one must stop.
    #[error(
        "recorder {author} of {log} is fenced, since another process took over the recovery log: {cause}"
    )]
    Fenced {
        /// The log.
        log: JournalName,
        /// Who recorded.
        author: Author,
        /// The refused append.
        #[source]
        cause: OpError,
    },
    /// An append to the log failed.
    #[error("recording to {log}: {cause}")]
    Append {
        /// The log.
        log: JournalName,
        /// The failed append.
        #[source]
        cause: OpError,
    },
    /// The log was seen to be longer than it is now.
    #[error("{log} ended at {head} and now has an append at {begin}..{end}; possible data loss")]
    WentBack {
        /// The log.
        log: JournalName,
        /// Where it ended.
        head: i64,
        /// Where the newer append begins.
        begin: i64,
        /// Where it ends.
        end: i64,
    },
    /// The operation contradicts what was recorded.
    #[error("recording to {log}: {cause}")]
    Operation {
        /// The log.
        log: JournalName,
        /// What is wrong.
        #[source]
        cause: RecordingError,
    },
    /// A path is outside of the directory, or the directory is none.
    #[error("recording: {0}")]
    Path(#[from] Invalid),
    /// A file which is kept as a property cannot be read.
    #[error("reading property {path:?}: {cause}")]
    Property {
        /// The local file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: Arc<io::Error>,
    },
    /// There are no hints yet which a reader would accept: nothing was recorded in this log so far.
    #[error("{log} holds no operation of a live file yet, so there are no hints")]
    NoHintsYet {
        /// The log.
        log: JournalName,
    },
}

impl RecordError {
    /// Whether another process took over the log.
    pub fn is_fenced(&self) -> bool {
        matches!(self, RecordError::Fenced { .. })
    }

    pub(crate) fn of_append(recording: &Recording, cause: OpError) -> RecordError {
        let log = recording.log().clone();
        match cause.is_fenced() {
            true => RecordError::Fenced { log, author: recording.author(), cause },
            false => RecordError::Append { log, cause },
        }
    }
}

impl From<RecordError> for OpError {
    fn from(error: RecordError) -> OpError {
        OpError::failed(error)
    }
}
