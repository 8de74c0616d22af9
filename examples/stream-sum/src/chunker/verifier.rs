//! Holds every sum that was published against what it must be: once per stream, right, and in time.
//!
//! A stream is *opened*, later *expected* (its last chunk is about to be published), then *verified* by its sum. Sums of
//! unknown streams belong to other jobs. Ids of verified streams are kept, to notice a sum that comes twice: the last
//! [`VERIFIED_MAX`] of them, so that an endless run has an end of memory. Pure: time is an argument.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::JournalName;

use crate::{StreamId, Sum};

/// Verified streams whose duplicates are noticed.
pub const VERIFIED_MAX: usize = 1 << 20;

/// Waits at which a warning is due, in milliseconds.
const WARNINGS_MS: &[u64] =
    &[100, 250, 500, 1_000, 2_000, 4_000, 6_000, 8_000, 10_000, 15_000, 20_000, 25_000, 30_000, 35_000];

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The sum is wrong.
    #[error("mis-matched sum! stream {id} of journal {journal}: found {found}, expected {expected}")]
    Mismatch {
        /// The stream.
        id: StreamId,
        /// Which holds its chunks.
        journal: JournalName,
        /// What was published.
        found: Value,
        /// What the chunks sum up to.
        expected: Value,
    },
    /// The sum came before the last chunk was published.
    #[error("mis-matched sum! stream {id} of journal {journal} has not ended: found {found}")]
    Premature {
        /// The stream.
        id: StreamId,
        /// Which holds its chunks.
        journal: JournalName,
        /// What was published.
        found: Value,
    },
    /// The sum was published again.
    #[error("duplicate sum! stream {id} was verified before: found {found}")]
    Duplicate {
        /// The stream.
        id: StreamId,
        /// What was published.
        found: Value,
    },
    /// The sum did not come.
    #[error(
        "timeout waiting for expected sum: stream {id} of journal {journal} after {waited:?}, expected {expected}"
    )]
    Timeout {
        /// The stream.
        id: StreamId,
        /// Which holds its chunks.
        journal: JournalName,
        /// Since its last chunk was published.
        waited: Duration,
        /// What the chunks sum up to.
        expected: Value,
    },
}

impl Fault {
    /// The journal which holds the chunks of the stream, where it is known.
    pub fn journal(&self) -> Option<&JournalName> {
        match self {
            Fault::Mismatch { journal, .. }
            | Fault::Premature { journal, .. }
            | Fault::Timeout { journal, .. } => Some(journal),
            Fault::Duplicate { .. } => None,
        }
    }
}

/// What a sum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Of the last chunk.
    pub seq_no: i64,
    /// Checksum.
    pub value: u64,
}

impl From<&Sum> for Value {
    fn from(sum: &Sum) -> Value {
        Value { seq_no: sum.seq_no, value: sum.value }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#018x} after {} chunks", self.value, self.seq_no)
    }
}

/// What a published sum means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is of another job.
    Foreign,
    /// It is what was expected, for the first time.
    Verified,
}

/// A wait that grows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The stream.
    pub id: StreamId,
    /// Which holds its chunks.
    pub journal: JournalName,
    /// Since its last chunk was published.
    pub waited: Duration,
}

#[derive(Debug)]
struct Expected {
    value: Value,
    journal: JournalName,
    since: Duration,
    warnings: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    delay: Duration,
    open: BTreeMap<StreamId, JournalName>,
    expected: BTreeMap<StreamId, Expected>,
    verified: BTreeSet<StreamId>,
    verified_order: VecDeque<StreamId>,
    longest_wait: Duration,
}

impl Verifier {
    /// A verifier which waits at most `delay` for an expected sum.
    pub fn new(delay: Duration) -> Verifier {
        Verifier {
            delay,
            open: BTreeMap::new(),
            expected: BTreeMap::new(),
            verified: BTreeSet::new(),
            verified_order: VecDeque::new(),
            longest_wait: Duration::ZERO,
        }
    }

    /// A stream begins; its chunks go to `journal`. Before its first chunk is published.
    pub fn open(&mut self, id: StreamId, journal: JournalName) {
        self.open.insert(id, journal);
    }

    /// A stream that was opened ends with this sum. Before its last chunk is published.
    pub fn expect(&mut self, sum: &Sum, now: Duration) {
        let journal = self.open.remove(&sum.id).expect("a stream is opened before it ends");
        self.expected.insert(sum.id, Expected { value: sum.into(), journal, since: now, warnings: 0 });
    }

    /// A sum was published, and seen at `now`.
    ///
    /// # Errors
    /// If it is wrong, early, or came before.
    pub fn saw(&mut self, sum: &Sum, now: Duration) -> Result<Seen, Fault> {
        let (id, found) = (sum.id, Value::from(sum));
        if let Some(expected) = self.expected.remove(&id) {
            if expected.value != found {
                return Err(Fault::Mismatch {
                    id,
                    journal: expected.journal,
                    found,
                    expected: expected.value,
                });
            }
            self.longest_wait = self.longest_wait.max(now.saturating_sub(expected.since));
            self.remember(id);
            return Ok(Seen::Verified);
        }
        if let Some(journal) = self.open.get(&id) {
            return Err(Fault::Premature { id, journal: journal.clone(), found });
        }
        if self.verified.contains(&id) {
            return Err(Fault::Duplicate { id, found });
        }
        Ok(Seen::Foreign)
    }

    /// Warnings which are due at `now`.
    ///
    /// # Errors
    /// If a sum was awaited for too long.
    pub fn tick(&mut self, now: Duration) -> Result<Vec<Warning>, Fault> {
        let mut warnings = Vec::new();
        for (id, expected) in &mut self.expected {
            let waited = now.saturating_sub(expected.since);
            if waited >= self.delay {
                let (journal, expected) = (expected.journal.clone(), expected.value);
                return Err(Fault::Timeout { id: *id, journal, waited, expected });
            }
            let due = WARNINGS_MS.partition_point(|ms| Duration::from_millis(*ms) <= waited);
            if due > expected.warnings {
                expected.warnings = due;
                warnings.push(Warning { id: *id, journal: expected.journal.clone(), waited });
            }
        }
        Ok(warnings)
    }

    /// The longest wait for any sum since this was last asked: of those which came, and of those which are awaited.
    pub fn take_longest_wait(&mut self, now: Duration) -> Duration {
        let waits = self.expected.values().map(|expected| now.saturating_sub(expected.since));
        let longest = waits.fold(self.longest_wait, Duration::max);
        self.longest_wait = Duration::ZERO;
        longest
    }

    fn remember(&mut self, id: StreamId) {
        if self.verified_order.len() == VERIFIED_MAX
            && let Some(oldest) = self.verified_order.pop_front()
        {
            self.verified.remove(&oldest);
        }
        self.verified.insert(id);
        self.verified_order.push_back(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Duration = Duration::from_secs(3);

    fn sum(id: u8, seq_no: i64, value: u64) -> Sum {
        Sum { id: StreamId([id; 16]), seq_no, value, ..Sum::default() }
    }

    /// Streams 1 (expected at one second) and 2 (open).
    fn verifier() -> Verifier {
        let journal = JournalName::parse("chunks/part-001").unwrap();
        let mut verifier = Verifier::new(Duration::from_secs(30));
        verifier.open(StreamId([1; 16]), journal.clone());
        verifier.open(StreamId([2; 16]), journal);
        verifier.expect(&sum(1, 11, 77), Duration::from_secs(1));
        verifier
    }

    #[test]
    fn an_expected_sum_verifies_once() {
        let mut verifier = verifier();
        assert_eq!(verifier.saw(&sum(3, 1, 1), SEEN), Ok(Seen::Foreign));
        assert_eq!(verifier.saw(&sum(1, 11, 77), SEEN), Ok(Seen::Verified));
        let again = verifier.saw(&sum(1, 11, 77), SEEN).unwrap_err();
        assert!(matches!(again, Fault::Duplicate { .. }), "{again}");
    }

    #[test]
    fn a_wrong_sum_is_a_mismatch() {
        for wrong in [sum(1, 11, 78), sum(1, 10, 77)] {
            let fault = verifier().saw(&wrong, SEEN).unwrap_err();
            assert!(matches!(fault, Fault::Mismatch { .. }), "{fault}");
            assert!(fault.to_string().contains("stream 01010101"), "{fault}");
            assert!(fault.to_string().contains("journal chunks/part-001"), "{fault}");
        }
    }

    #[test]
    fn a_sum_of_an_open_stream_is_premature() {
        let fault = verifier().saw(&sum(2, 3, 5), SEEN).unwrap_err();
        assert!(matches!(fault, Fault::Premature { .. }), "{fault}");
    }

    #[test]
    fn the_longest_wait_is_of_sums_which_came_and_which_are_awaited() {
        let mut verifier = verifier();
        assert_eq!(verifier.take_longest_wait(Duration::from_secs(2)), Duration::from_secs(1));
        verifier.saw(&sum(1, 11, 77), Duration::from_secs(5)).unwrap();
        assert_eq!(verifier.take_longest_wait(Duration::from_secs(9)), Duration::from_secs(4));
        assert_eq!(verifier.take_longest_wait(Duration::from_secs(9)), Duration::ZERO);
    }

    #[test]
    fn warnings_grow_until_the_delay_is_over() {
        let mut verifier = verifier();
        let mut warned = Vec::new();
        for ms in (1000..31_000).step_by(50) {
            let warnings = verifier.tick(Duration::from_millis(ms)).unwrap();
            warned.extend(warnings.iter().map(|warning| warning.waited.as_millis() as u64));
        }
        assert_eq!(warned, WARNINGS_MS[..12]);
        let fault = verifier.tick(Duration::from_secs(31)).unwrap_err();
        assert!(matches!(fault, Fault::Timeout { .. }), "{fault}");
    }
}
