//! What is read again of a journal, and how a replay can be wrong.

use std::sync::Arc;

/// The span of a journal which must be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRange {
    /// The journal, as its messages were queued.
    pub journal: Arc<str>,
    /// First byte of the sequence.
    pub begin: i64,
    /// End of the last message which the ring lost.
    pub end: i64,
}

/// A replay which does not hold what was read before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// An envelope of another journal.
    #[error("replay of wrong journal ({found}; expected {expected})")]
    WrongJournal {
        /// Journal of the envelope.
        found: String,
        /// Journal of the replay.
        expected: String,
    },
    /// An envelope from before the replay's position.
    #[error("replay has wrong Begin ({found}; expected >= {at_least})")]
    WrongBegin {
        /// Begin of the envelope.
        found: i64,
        /// Position of the replay.
        at_least: i64,
    },
    /// An envelope which reaches past the replay.
    #[error("replay has wrong End ({found}; expected <= {at_most})")]
    WrongEnd {
        /// End of the envelope.
        found: i64,
        /// End of the replay.
        at_most: i64,
    },
}
