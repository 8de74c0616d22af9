//! Why a playback cannot go on. Each error names the log and the place in it.

use crate::Author;
use crate::fsm::ApplyError;
use crate::hints::HintsError;
use crate::segment::Segment;
use proto::{Invalid, JournalName};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of a log which were not seen, so that an operation may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// Nothing was applied yet, and hints do not say where to begin.
    Beginning,
    /// Bytes which are no operation.
    Desync {
        /// Where they begin.
        offset: i64,
    },
    /// Offsets which the log does not have.
    Gap {
        /// The first one.
        from: i64,
        /// The next one which exists.
        to: i64,
    },
}

/// Why a playback failed. None of these leaves a directory behind.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PlayError {
    /// The hints cannot be used.
    #[error(transparent)]
    Hints(#[from] HintsError),
    /// The directory cannot be played into.
    #[error("playing a recovery log: {0}")]
    Directory(#[from] Invalid),
    /// The log ends before the hints say that it does.
    #[error("max write-head of {} is {head}, vs hinted segment ({segment}); possible data loss", .segment.log)]
    ShortLog {
        /// What the hints speak of.
        segment: Box<Segment>,
        /// Where the log ends.
        head: i64,
    },
    /// The log was read up to its end without all that the hints speak of.
    #[error(
        "read {log} to its end at {offset} without finding operation {next_seq_no} of the hinted segment ({segment}); possible data loss"
    )]
    UnusedHints {
        /// The log.
        log: JournalName,
        /// Up to where it was read.
        offset: i64,
        /// The operation which should have come.
        next_seq_no: i64,
        /// What the hints speak of.
        segment: Box<Segment>,
    },
    /// What the hints speak of is no longer in the log.
    #[error("{} has nothing from {from} to {to}, which the hinted segment needs ({segment}); possible data loss", .segment.log)]
    JumpOverHints {
        /// The first offset which the log does not have.
        from: i64,
        /// The next one which it has.
        to: i64,
        /// What the hints speak of.
        segment: Box<Segment>,
    },
    /// The log has a gap within an operation.
    #[error("{log} goes on at {to} within an operation at {from}; possible data loss")]
    TornByJump {
        /// The log.
        log: JournalName,
        /// Where the next byte should have been.
        from: i64,
        /// Where it was.
        to: i64,
    },
    /// The log ends within an operation.
    #[error("{log} ends at {head} within the operation at {offset}; possible data loss")]
    TornOp {
        /// The log.
        log: JournalName,
        /// Where the operation, or what was not read of it, begins.
        offset: i64,
        /// Where the log ends.
        head: i64,
    },
    /// An operation was lost.
    #[error("{0}")]
    BrokenChain(Box<BrokenChain>),
    /// A frame holds what no recorder writes.
    #[error("{log} at {offset}: {cause}")]
    BadOp {
        /// The log.
        log: JournalName,
        /// Where it is.
        offset: i64,
        /// What is wrong with it.
        cause: String,
    },
    /// The hand-off was appended, and is not in the log.
    #[error(
        "the hand-off of author {author} to {log} was acknowledged to end at {end}, but is not there; possible data loss"
    )]
    LostHandoff {
        /// The log.
        log: JournalName,
        /// Who should have taken over.
        author: Author,
        /// Where the hand-off should end.
        end: i64,
    },
    /// Others kept writing although they were fenced.
    #[error("{log} still has other writers after {handoffs} hand-offs")]
    ContendedHandoff {
        /// The log.
        log: JournalName,
        /// How many were appended.
        handoffs: u32,
    },
    /// A file cannot be rebuilt.
    #[error("{action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: Arc<std::io::Error>,
    },
    /// A log cannot be read.
    #[error("reading {log} at {offset}: {cause}")]
    Read {
        /// The log.
        log: JournalName,
        /// Where the read began.
        offset: i64,
        /// What the client says.
        cause: String,
    },
    /// A log cannot be appended to, to learn its head or to take it over.
    #[error("{action} {log}: {cause}")]
    Append {
        /// What was tried.
        action: &'static str,
        /// The log.
        log: JournalName,
        /// What the client says.
        cause: String,
    },
    /// The player was stopped.
    #[error("playback was cancelled")]
    Cancelled,
}

impl PlayError {
    /// Whether the player was stopped, rather than that something is wrong.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, PlayError::Cancelled)
    }

    /// Whether the log lacks operations which were once in it.
    pub fn is_data_loss(&self) -> bool {
        use PlayError::*;
        matches!(
            self,
            ShortLog { .. }
                | UnusedHints { .. }
                | JumpOverHints { .. }
                | TornByJump { .. }
                | TornOp { .. }
                | BrokenChain(_)
                | LostHandoff { .. }
        )
    }
}

/// An operation which shows that one before it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenChain {
    /// The log.
    pub log: JournalName,
    /// Where the operation begins which does not apply.
    pub offset: i64,
    /// Its sequence number.
    pub seq_no: i64,
    /// Who wrote it.
    pub author: Author,
    /// The sequence number which should have come.
    pub expected_seq_no: i64,
    /// Why it does not apply.
    pub error: ApplyError,
    /// What was skipped before it.
    pub doubt: Option<Doubt>,
}

impl fmt::Display for BrokenChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BrokenChain { log, offset, seq_no, author, expected_seq_no, error, doubt } = self;
        write!(
            f,
            "operation {seq_no} of author {author} in {log} at {offset} does not follow what was played"
        )?;
        write!(f, " ({error}; expected operation {expected_seq_no}")?;
        match doubt {
            None => f.write_str(")")?,
            Some(Doubt::Beginning) => f.write_str(", and nothing was played before)")?,
            Some(Doubt::Desync { offset }) => write!(f, ", and bytes at {offset} are no operation)")?,
            Some(Doubt::Gap { from, to }) => write!(f, ", and the log has nothing from {from} to {to})")?,
        }
        f.write_str("; possible data loss")
    }
}
