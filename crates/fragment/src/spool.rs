//! The spool: the fragment of a journal that one replica is building, as a pure state machine (journal protocol §6.4).
//!
//! Content is applied first and is *uncommitted*: the spool counts and hashes it, and its driver writes it to the
//! spool's file at the position which the spool names. A *proposal* then decides: it extends the fragment over the
//! uncommitted bytes (commit), names the fragment as it was (rollback), or names an empty fragment further on (roll, which
//! completes the current one). Every replica of a journal applies the same messages, so that equal proposals mean equal
//! content. The spool keeps the SHA-1 state of the last commit, so that undoing uncommitted bytes costs nothing.
//!
//! A spool never reads a clock or a file: the time comes with a proposal, and what must be done about files comes back as
//! an [`Applied`]. Its driver must write content before it applies the proposal that commits it.

mod manifest;
mod roll;

use std::time::Duration;

use proto::JournalName;
use proto::protocol::LabelSet;
use sha1::{Digest, Sha1};

pub use manifest::{
    CONTENT_AT, Commit, Head, MANIFEST_SLOTS, Manifest, ManifestError, RECORD_PREFIX_BYTES,
    REGISTERS_BYTES_MAX, SLOT_BYTES, record_length, slot_at,
};
pub use roll::{RollPolicy, next_proposal};

use crate::{Codec, Fragment, Sum};

/// One replica's spool: a fragment under construction, its registers, and bytes that are not committed yet.
#[derive(Clone, Debug)]
pub struct Spool {
    fragment: Fragment,
    registers: LabelSet,
    uncommitted: i64,
    /// Over the fragment and the uncommitted bytes.
    running: Sha1,
    /// Over the fragment alone.
    committed: Sha1,
    first_append: Option<Duration>,
}

/// A content message does not continue the uncommitted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid ContentDelta ({found}; expected {expected})")]
pub struct DeltaMismatch {
    /// The message's delta, in bytes since the last commit.
    pub found: i64,
    /// Uncommitted bytes of the spool.
    pub expected: i64,
}

/// A fragment to which no more content is added.
#[derive(Clone, Debug, PartialEq)]
pub struct Completed {
    /// The fragment. Never empty.
    pub fragment: Fragment,
    /// Registers as of its last commit.
    pub registers: LabelSet,
    /// Time of its first commit, since the Unix epoch.
    pub first_append: Duration,
}

/// What a proposal did to the spool.
#[must_use]
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The spool rolled to an empty fragment, before the outcome was decided.
    pub rolled: Option<Rolled>,
    /// How the proposal compares with the spool.
    pub outcome: Outcome,
}

/// The spool left its fragment for an empty one.
#[derive(Clone, Debug, PartialEq)]
pub struct Rolled {
    /// The former fragment, unless it was empty.
    pub completed: Option<Completed>,
    /// Uncommitted bytes that were dropped.
    pub dropped: i64,
}

/// Whether replicas agree after a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The proposal is what was committed already. This many uncommitted bytes were undone.
    Unchanged {
        /// Bytes undone.
        undone: i64,
    },
    /// The uncommitted bytes are committed now.
    Committed {
        /// Their number.
        bytes: i64,
    },
    /// The proposal is not of this spool's content. Uncommitted bytes stay.
    Mismatch,
}

impl Spool {
    /// An empty spool of a journal without history: offset zero, no registers.
    pub fn new(journal: JournalName) -> Spool {
        Spool::restore(Fragment::empty(journal, 0, Codec::None), LabelSet::default(), Sha1::new(), None)
    }

    /// A spool as it was at its last commit: `hash` is over exactly the content of `fragment`.
    ///
    /// # Panics
    /// If `fragment` is not local, or has content without a time of its first commit.
    pub fn restore(
        fragment: Fragment,
        registers: LabelSet,
        hash: Sha1,
        first_append: Option<Duration>,
    ) -> Spool {
        assert!(fragment.backing_store.is_none() && fragment.mod_time == 0, "a spool is local: {fragment:?}");
        assert!(fragment.is_empty() || first_append.is_some(), "content has a first commit: {fragment:?}");
        Spool { fragment, registers, uncommitted: 0, running: hash.clone(), committed: hash, first_append }
    }

    /// The fragment as of the last commit.
    pub fn fragment(&self) -> &Fragment {
        &self.fragment
    }

    /// The registers as of the last commit.
    pub fn registers(&self) -> &LabelSet {
        &self.registers
    }

    /// Time of the fragment's first commit, since the Unix epoch.
    pub fn first_append(&self) -> Option<Duration> {
        self.first_append
    }

    /// Bytes applied since the last commit.
    pub fn uncommitted(&self) -> i64 {
        self.uncommitted
    }

    /// Where the next content goes, in bytes from the fragment's begin.
    pub fn position(&self) -> i64 {
        self.fragment.len() + self.uncommitted
    }

    /// Adds uncommitted bytes. `delta` is the number of uncommitted bytes before these.
    ///
    /// # Errors
    /// If `delta` is anything else: a message was lost or doubled.
    pub fn content(&mut self, delta: i64, bytes: &[u8]) -> Result<(), DeltaMismatch> {
        if delta != self.uncommitted {
            return Err(DeltaMismatch { found: delta, expected: self.uncommitted });
        }
        self.running.update(bytes);
        self.uncommitted += i64::try_from(bytes.len()).expect("a slice is shorter than i64::MAX");
        Ok(())
    }

    /// The proposal which commits all content applied so far.
    pub fn extended(&self) -> Fragment {
        let sum = match self.position() {
            0 => Sum::ZERO,
            _ => Sum::finish(self.running.clone()),
        };
        Fragment { end: self.fragment.end + self.uncommitted, sum, ..self.fragment.clone() }
    }

    /// Forgets the uncommitted bytes, and returns how many there were.
    pub fn undo(&mut self) -> i64 {
        self.running = self.committed.clone();
        std::mem::take(&mut self.uncommitted)
    }

    /// The empty fragment which `proposal` makes the spool roll to first, if it does.
    pub fn rolls_to(&self, proposal: &Fragment) -> Option<Fragment> {
        let is_roll = proposal.end > self.fragment.end + self.uncommitted
            || (proposal.end == self.fragment.end && proposal.is_empty());
        is_roll.then(|| Fragment::empty(self.fragment.journal.clone(), proposal.end, proposal.codec))
    }

    /// How a proposal which makes the spool roll no more compares with it.
    pub fn compare(&self, proposal: &Fragment, registers: &LabelSet) -> Outcome {
        if self.fragment == *proposal && self.registers == *registers {
            Outcome::Unchanged { undone: self.uncommitted }
        } else if self.uncommitted != 0 && self.extended() == *proposal {
            Outcome::Committed { bytes: self.uncommitted }
        } else {
            Outcome::Mismatch
        }
    }

    /// Applies a proposal with its registers at `now`, a time since the Unix epoch.
    pub fn propose(&mut self, proposal: &Fragment, registers: &LabelSet, now: Duration) -> Applied {
        let rolled = self.rolls_to(proposal).map(|empty| self.roll(empty, registers));
        Applied { rolled, outcome: self.decide(proposal, registers, now) }
    }

    fn roll(&mut self, empty: Fragment, registers: &LabelSet) -> Rolled {
        let dropped = self.undo();
        let end = empty.end;
        let fragment = std::mem::replace(&mut self.fragment, empty);
        let first_append = self.first_append.take().unwrap_or_default();
        let completed = (!fragment.is_empty()).then(|| Completed {
            fragment: fragment.clone(),
            registers: self.registers.clone(),
            first_append,
        });
        if end > fragment.end {
            self.registers = registers.clone();
        }
        self.running = Sha1::new();
        self.committed = Sha1::new();
        Rolled { completed, dropped }
    }

    fn decide(&mut self, proposal: &Fragment, registers: &LabelSet, now: Duration) -> Outcome {
        let outcome = self.compare(proposal, registers);
        match outcome {
            Outcome::Unchanged { .. } => {
                self.undo();
            }
            Outcome::Committed { .. } => {
                self.fragment = proposal.clone();
                self.registers = registers.clone();
                self.committed = self.running.clone();
                self.first_append.get_or_insert(now);
                self.uncommitted = 0;
            }
            Outcome::Mismatch => {}
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
