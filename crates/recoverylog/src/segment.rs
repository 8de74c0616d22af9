//! Segments: which parts of which logs hold the operations of live files (consumer protocol §4.3).
//!
//! A segment is a run of operations by one author within one log. A [`SegmentSet`] is ordered by sequence number and
//! merges what overlaps or adjoins; segments which contradict each other are an error, since no one history has them.

use crate::Author;
use proto::recoverylog::Segment as ProtoSegment;
use proto::{Invalid, JournalName};
use std::fmt;

/// A run of operations by one author within one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Who wrote them.
    pub author: Author,
    /// Sequence number of the first operation, from one.
    pub first_seq_no: i64,
    /// Offset in the log at or before which the first operation begins, in bytes.
    pub first_offset: i64,
    /// Checksum of the history before the first operation.
    pub first_checksum: u32,
    /// Sequence number of the last operation, inclusive.
    pub last_seq_no: i64,
    /// Offset in the log at or after which the last operation ends, in bytes; zero is unknown.
    pub last_offset: i64,
    /// The log.
    pub log: JournalName,
}

/// Why segments are not of one history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {a} vs {b}")]
pub struct SegmentError {
    rule: &'static str,
    a: Box<Segment>,
    b: Box<Segment>,
}

/// What became of two segments.
#[derive(Debug, PartialEq, Eq)]
enum Reduced {
    Merged(Segment),
    Apart,
}

impl Segment {
    /// Parses a segment; one without a log is of `default_log`.
    pub fn parse(segment: &ProtoSegment, default_log: &JournalName) -> Result<Segment, Invalid> {
        let s = segment;
        let ensure = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(Invalid::new(rule)) };
        let author = Author::new(s.author)?;
        ensure(s.first_seq_no > 0, "invalid FirstSeqNo (expected > 0)")?;
        ensure(s.first_offset >= 0, "invalid FirstOffset (expected >= 0)")?;
        ensure(s.last_seq_no >= s.first_seq_no, "invalid LastSeqNo (expected >= FirstSeqNo)")?;
        // The sequence number after the last one must be one, too.
        ensure(s.last_seq_no < i64::MAX, "invalid LastSeqNo (expected < 2^63 - 1)")?;
        ensure(
            s.last_offset == 0 || s.last_offset > s.first_offset,
            "invalid LastOffset (expected > FirstOffset)",
        )?;
        let log = match s.log.as_str() {
            "" => default_log.clone(),
            name => JournalName::parse(name).map_err(|e| e.within("Log"))?,
        };
        ensure(
            s.log.is_empty() || log != *default_log,
            "invalid Log (expected none where it equals the hints' log)",
        )?;
        Ok(Segment {
            author,
            first_seq_no: s.first_seq_no,
            first_offset: s.first_offset,
            first_checksum: s.first_checksum,
            last_seq_no: s.last_seq_no,
            last_offset: s.last_offset,
            log,
        })
    }

    /// The message of this segment within hints of `hints_log`.
    pub fn to_proto(&self, hints_log: &JournalName) -> ProtoSegment {
        ProtoSegment {
            author: self.author.id(),
            first_seq_no: self.first_seq_no,
            first_offset: self.first_offset,
            first_checksum: self.first_checksum,
            last_seq_no: self.last_seq_no,
            last_offset: self.last_offset,
            log: if self.log == *hints_log { String::new() } else { String::from(&self.log) },
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Segment { author, first_seq_no, last_seq_no, log, first_offset, last_offset, .. } = self;
        write!(
            f,
            "operations {first_seq_no}..={last_seq_no} of author {author} in {log} at {first_offset}.."
        )?;
        if *last_offset == 0 { Ok(()) } else { write!(f, "{last_offset}") }
    }
}

/// Segments of strictly increasing sequence numbers which do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentSet {
    segments: Vec<Segment>,
}

impl SegmentSet {
    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The segments in order.
    pub fn into_segments(self) -> Vec<Segment> {
        self.segments
    }

    /// Adds a segment, merging it with its neighbours. On error the set is unchanged.
    pub fn add(&mut self, segment: Segment) -> Result<(), SegmentError> {
        let at = self.segments.partition_point(|s| !comes_first(&segment, s));
        let (mut begin, mut end, mut merged) = (at, at, segment);
        while begin > 0 {
            let Reduced::Merged(both) = reduce(&self.segments[begin - 1], &merged)? else { break };
            (begin, merged) = (begin - 1, both);
        }
        while end < self.segments.len() {
            let Reduced::Merged(both) = reduce(&merged, &self.segments[end])? else { break };
            (end, merged) = (end + 1, both);
        }
        self.segments.splice(begin..end, [merged]);
        Ok(())
    }

    /// The segments of `log` which overlap its bytes `begin..end`. The segments of one log adjoin in the set.
    pub fn intersect(&self, log: &JournalName, begin: i64, end: i64) -> &[Segment] {
        let first =
            self.segments.iter().position(|s| s.log == *log && (s.last_offset == 0 || s.last_offset > begin));
        let Some(first) = first else { return &[] };
        let overlapping =
            self.segments[first..].iter().take_while(|s| s.log == *log && s.first_offset < end).count();
        &self.segments[first..first + overlapping]
    }
}

/// Whether `a` is before `b` in the order that reduction and the set have: by first, and then the larger one first.
fn comes_first(a: &Segment, b: &Segment) -> bool {
    (a.first_seq_no, -a.last_seq_no) < (b.first_seq_no, -b.last_seq_no)
}

/// Merges two segments which overlap or adjoin, in either order, by the rules of consumer protocol §4.3 in their order.
fn reduce(a: &Segment, b: &Segment) -> Result<Reduced, SegmentError> {
    let (a, b) = if comes_first(b, a) { (b, a) } else { (a, b) };
    let ensure = |holds: bool, rule: &'static str| {
        if holds {
            Ok(())
        } else {
            Err(SegmentError { rule, a: Box::new(a.clone()), b: Box::new(b.clone()) })
        }
    };
    let same_log = a.log == b.log;
    let starts_earlier = a.first_seq_no < b.first_seq_no;

    ensure(
        !starts_earlier || !same_log || a.first_offset <= b.first_offset,
        "expected monotonic FirstOffset",
    )?;
    ensure(
        !starts_earlier || a.last_offset != 0 || b.last_offset == 0,
        "expected preceding Segment to also include LastOffset",
    )?;
    ensure(
        a.last_offset != 0 || same_log,
        "Segment cannot use a different log where preceding Segment.LastOffset is zero",
    )?;
    let b_ends_too_soon =
        a.last_seq_no <= b.last_seq_no && b.last_offset != 0 && b.last_offset < a.last_offset;
    let a_ends_too_soon =
        a.last_seq_no >= b.last_seq_no && a.last_offset != 0 && a.last_offset < b.last_offset;
    ensure(!same_log || !(b_ends_too_soon || a_ends_too_soon), "expected monotonic LastOffset")?;
    ensure(starts_earlier || a.first_checksum == b.first_checksum, "expected FirstChecksum equality")?;

    let after_a = a.last_seq_no.saturating_add(1);
    let same_run = a.author == b.author && same_log;
    if after_a < b.first_seq_no || (after_a == b.first_seq_no && !same_run) {
        return Ok(Reduced::Apart);
    }
    ensure(a.author == b.author, "expected Segment Author equality")?;
    ensure(same_log, "expected Segment Log equality")?;

    let mut merged = a.clone();
    if !starts_earlier {
        merged.first_offset = a.first_offset.max(b.first_offset);
    }
    if b.last_seq_no > a.last_seq_no || (b.last_seq_no == a.last_seq_no && a.last_offset == 0) {
        (merged.last_seq_no, merged.last_offset) = (b.last_seq_no, b.last_offset);
    }
    Ok(Reduced::Merged(merged))
}

#[cfg(test)]
mod tests;
