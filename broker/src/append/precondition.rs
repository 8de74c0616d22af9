//! What an append requires of its journal, and what becomes of it if the journal is otherwise (journal protocol §5.3,
//! §5.4).
//!
//! [`judge`] is asked twice of an append: by its handler before content is read, against the last published state, so that
//! a hopeless append is answered at once; and by the journal's owner when the append's turn comes, against the state that
//! the appends before it leave. Only the second answer admits it.

use proto::protocol::append_request::Suspend;
use proto::protocol::journal_spec::suspend::Level;
use proto::protocol::{JournalSpec, LabelSelector, LabelSet, Status};

/// Age in seconds at which the last fragment of a journal without a flush interval counts as flushed.
const FLUSHED_AGE_SECONDS: i64 = 24 * 60 * 60;

/// What one append asks for.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// Offset at which it must begin.
    pub offset: Option<i64>,
    /// Selector that the journal's registers must match, unless they are empty.
    pub check_registers: Option<LabelSelector>,
    /// What it means for a suspended journal, or for one that should be.
    pub suspend: Suspend,
}

/// What a journal's specification says about appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether content may be appended at all.
    pub writable: bool,
    /// How far the journal is suspended.
    pub level: Level,
    /// Offset at or above which a journal resumes.
    pub suspend_offset: i64,
    /// Age in seconds at which its last fragment counts as flushed.
    pub flushed_age: i64,
}

impl Terms {
    /// The terms of `spec`. An unknown suspension level, which validation refuses, counts as none.
    pub fn of(spec: &JournalSpec) -> Terms {
        let suspend = spec.suspend.as_ref();
        let flush = spec.flush_interval().and_then(|interval| i64::try_from(interval.as_secs()).ok());
        Terms {
            writable: spec.is_writable(),
            level: suspend.and_then(|suspend| Level::try_from(suspend.level).ok()).unwrap_or(Level::None),
            suspend_offset: suspend.map_or(0, |suspend| suspend.offset),
            flushed_age: flush.unwrap_or(FLUSHED_AGE_SECONDS),
        }
    }
}

/// The span of the fragments which a broker knows of, its own spool's included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Lowest offset; zero if there are no fragments.
    pub begin: i64,
    /// Highest offset; zero if there are no fragments.
    pub end: i64,
    /// Unix seconds at which the last fragment was stored; zero if it is local.
    pub last_mod_time: i64,
}

impl Known {
    /// Whether there are no fragments.
    pub fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    fn is_dirty(&self, flushed_age: i64, now_unix: i64) -> bool {
        self.is_empty()
            || self.last_mod_time == 0
            || self.last_mod_time > now_unix.saturating_sub(flushed_age)
    }
}

/// A journal at the moment at which an append is judged.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// First offset of the spool's fragment.
    pub spool_begin: i64,
    /// Offset at which the next append begins.
    pub spool_end: i64,
    /// The journal's registers.
    pub registers: &'a LabelSet,
    /// Fragments of the journal.
    pub known: Known,
    /// Its specification's terms.
    pub terms: &'a Terms,
    /// The present, in Unix seconds.
    pub now_unix: i64,
}

/// A change of a journal's suspension, which an append brings about before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new level.
    pub level: Level,
    /// Offset at or above which the journal resumes.
    pub offset: i64,
}

/// What becomes of an append.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is admitted. If the spool's fragment does not begin at `roll_to`, it rolls there first.
    Proceed {
        /// Where the spool should begin.
        roll_to: Option<i64>,
    },
    /// All replicas must first agree on an empty fragment at `roll_to`; then it is judged again.
    Resync {
        /// An offset beyond the spool's end.
        roll_to: i64,
    },
    /// The journal's specification must first change; then the append is resolved again.
    Suspend(Transition),
    /// Its stream is read to the end, and then answered with SUSPENDED.
    DrainSuspended,
    /// It is answered with this status.
    Refuse(Status),
}

/// Judges an append. The order of the checks is part of the protocol.
pub fn judge(wants: &Wants, at: &Situation<'_>) -> Verdict {
    let max_offset = at.spool_end.max(at.known.end);
    let matches = |selector: &LabelSelector| at.registers.is_empty() || selector.matches(at.registers);
    if !wants.check_registers.as_ref().is_none_or(matches) {
        return Verdict::Refuse(Status::RegisterMismatch);
    }
    if at.spool_end < at.terms.suspend_offset {
        return Verdict::Resync { roll_to: at.terms.suspend_offset };
    }
    match wants.offset {
        None if at.spool_end != max_offset && at.terms.writable => {
            return Verdict::Refuse(Status::IndexHasGreaterOffset);
        }
        Some(offset) if offset != max_offset => return Verdict::Refuse(Status::WrongAppendOffset),
        Some(_) if at.spool_end != max_offset => return Verdict::Resync { roll_to: max_offset },
        _ => {}
    }
    if let Some(verdict) = judge_suspension(wants.suspend, at) {
        return verdict;
    }
    // The first append of a journal, or of what is left of it, gets a fragment of its own: once that is stored, a broker
    // which recovers the journal can tell that it has history.
    let is_first = at.spool_begin == at.known.begin;
    Verdict::Proceed { roll_to: is_first.then_some(at.spool_end) }
}

/// The table of suspension modes by level. `None` if the append goes on as on any journal.
fn judge_suspension(mode: Suspend, at: &Situation<'_>) -> Option<Verdict> {
    let to = |level| Some(Verdict::Suspend(Transition { level, offset: at.spool_end }));
    match (at.terms.level, mode) {
        (Level::None, Suspend::Resume | Suspend::NoResume | Suspend::Keep) => None,
        (Level::None | Level::Partial, Suspend::IfFlushed | Suspend::Now) if at.known.is_empty() => {
            to(Level::Full)
        }
        (Level::None, Suspend::Now) => to(Level::Partial),
        (Level::None, Suspend::IfFlushed) => {
            if at.known.is_dirty(at.terms.flushed_age, at.now_unix) {
                None
            } else {
                to(Level::Partial)
            }
        }
        (Level::Partial, Suspend::Resume) => to(Level::None),
        (Level::Partial, Suspend::Keep) => None,
        (Level::Partial, Suspend::IfFlushed | Suspend::Now) => Some(Verdict::DrainSuspended),
        (Level::Full, Suspend::Resume) => {
            Some(Verdict::Suspend(Transition { level: Level::None, offset: at.terms.suspend_offset }))
        }
        (Level::Partial, Suspend::NoResume) | (Level::Full, _) => Some(Verdict::Refuse(Status::Suspended)),
    }
}

/// Whether an append in this mode may carry content.
pub fn may_carry_content(mode: Suspend) -> bool {
    matches!(mode, Suspend::Resume | Suspend::NoResume)
}

/// The registers which an append leaves: subtraction first, and values of `union` win.
pub fn next_registers(
    registers: &LabelSet,
    union: Option<&LabelSet>,
    subtract: Option<&LabelSet>,
) -> LabelSet {
    let kept = match subtract {
        Some(subtract) => registers.subtract(subtract),
        None => registers.clone(),
    };
    match union {
        Some(union) => union.union(&kept),
        None => kept,
    }
}

#[cfg(test)]
mod tests;
