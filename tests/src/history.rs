//! What appenders were told about a journal, held against what the journal holds.
//!
//! Appends carry their own number and length at their head, so that a journal which only they write is a sequence that can
//! be taken apart again. The journal is read several times over: through every replica and from the files of its store;
//! each reading is a [`Copy`]. [`check`] then demands:
//!
//! - every copy has the same bytes at the same offsets, and every replica reaches the end;
//! - an acknowledged append is there at its span; no append is there more often than it was tried with an acknowledged or
//!   unknown outcome, so one that was only ever refused is not there at all;
//! - an append of unknown outcome is whole or absent, and nothing is there that nobody appended;
//! - an append that began after another was acknowledged lies behind it, and no broker's write head ever went back.
//!
//! Pure: the driver that reads the copies is `readback`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sha1::{Digest, Sha1};

/// Length of an append's head: its number in hex and its content's length in hex.
pub const HEAD: usize = 24;

/// SHA-1 of an append's content.
pub type Sum = [u8; 20];

/// Where an acknowledged append was said to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub begin: i64,
    /// Exclusive.
    pub end: i64,
}

/// One content that was appended, in one or several attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Unique in its journal.
    pub number: u64,
    /// Of its content.
    pub sum: Sum,
    /// When its first attempt began.
    pub began: Duration,
    /// When its last attempt ended.
    pub ended: Duration,
    /// Attempts whose RPC broke: each of them may have taken effect.
    pub unknown_attempts: u32,
    /// Where the attempt that was acknowledged put it. No attempt follows an acknowledged one.
    pub acknowledged: Option<Span>,
}

/// A broker's write head, as it told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteHead {
    /// Who told it.
    pub broker: String,
    /// The offset.
    pub offset: i64,
}

/// Everything that was told about one journal.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In no order.
    pub appends: Vec<Append>,
    /// In the order in which each broker told them.
    pub write_heads: Vec<WriteHead>,
}

/// One reading of a journal.
#[derive(Clone, Debug)]
pub struct Copy {
    /// Whose reading it is, for errors.
    pub source: String,
    /// Offset of the first byte.
    pub begin: i64,
    /// What was read.
    pub content: Vec<u8>,
    /// Whether it must go from offset zero to the journal's end.
    pub is_whole: bool,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are what the text of the violation says")]
pub enum Violation {
    /// Two readings have different bytes at an offset.
    Differs { source: String, reference: String, offset: i64 },
    /// A reading which must be whole is not.
    NotWhole { source: String, begin: i64, end: i64, expected: i64 },
    /// No append begins where the one before it ends.
    NoAppend { offset: i64 },
    /// The journal ends within an append.
    Cut { number: u64, offset: i64 },
    /// An append which nobody made.
    Foreign { number: u64, offset: i64 },
    /// An append has other content than was appended.
    Altered { number: u64, offset: i64 },
    /// An acknowledged append is not at its span.
    Missing { number: u64, span: Span, found: Vec<i64> },
    /// An append is there more often than it may be.
    Repeated { number: u64, times: usize, allowed: usize, offsets: Vec<i64> },
    /// An append which began after another was acknowledged lies before it.
    OutOfOrder { earlier: u64, later: u64 },
    /// A broker's write head went back.
    WentBack { broker: String, from: i64, to: i64 },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::Differs { source, reference, offset } => {
                write!(f, "offset {offset}: {source} has other bytes than {reference}")
            }
            Violation::NotWhole { source, begin, end, expected } => {
                write!(f, "{source} holds {begin}..{end} of 0..{expected}")
            }
            Violation::NoAppend { offset } => write!(f, "offset {offset}: no append begins here"),
            Violation::Cut { number, offset } => write!(f, "offset {offset}: append {number} is cut"),
            Violation::Foreign { number, offset } => {
                write!(f, "offset {offset}: nobody made append {number}")
            }
            Violation::Altered { number, offset } => {
                write!(f, "offset {offset}: append {number} has other content than was appended")
            }
            Violation::Missing { number, span, found } => {
                let Span { begin, end } = span;
                write!(f, "append {number} was acknowledged at {begin}..{end} and is found at {found:?}")
            }
            Violation::Repeated { number, times, allowed, offsets } => {
                write!(f, "append {number} is there {times} times, at {offsets:?}: at most {allowed} may be")
            }
            Violation::OutOfOrder { earlier, later } => {
                write!(f, "append {later} began after append {earlier} was acknowledged, and lies before it")
            }
            Violation::WentBack { broker, from, to } => {
                write!(f, "the write head of {broker} went back from {from} to {to}")
            }
        }
    }
}

/// What a journal that keeps its promises holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Appends that were acknowledged.
    pub acknowledged: usize,
    /// Appends of unknown outcome that are there.
    pub unknown_present: usize,
    /// Appends of unknown outcome that are absent.
    pub unknown_absent: usize,
    /// Bytes of the journal.
    pub bytes: i64,
    /// Readings that were compared.
    pub copies: usize,
}

/// Checks a journal that only the history's appenders wrote. `end` is its write head.
pub fn check(history: &History, copies: &[Copy], end: i64) -> Result<Checked, Vec<Violation>> {
    let mut violations = compare(copies, end);
    violations.extend(order(&history.appends));
    violations.extend(write_heads(&history.write_heads));
    let mut checked = Checked { bytes: end, copies: copies.len(), ..Checked::default() };
    let whole = copies.iter().filter(|copy| copy.is_whole).max_by_key(|copy| copy.content.len());
    match take_apart(whole.map_or(&[], |copy| &copy.content)) {
        Ok(found) => violations.extend(hold_against(history, &found, &mut checked)),
        Err(violation) => violations.push(violation),
    }
    if violations.is_empty() { Ok(checked) } else { Err(violations) }
}

/// Compares the readings of a journal, whatever it holds. `end` is its write head.
pub fn compare(copies: &[Copy], end: i64) -> Vec<Violation> {
    let mut violations = Vec::new();
    for copy in copies.iter().filter(|copy| copy.is_whole) {
        let copy_end = copy.begin + copy.content.len() as i64;
        if copy.begin != 0 || copy_end < end {
            let (source, begin) = (copy.source.clone(), copy.begin);
            violations.push(Violation::NotWhole { source, begin, end: copy_end, expected: end });
        }
    }
    let Some(reference) = copies.iter().filter(|copy| copy.is_whole).max_by_key(|copy| copy.content.len())
    else {
        return violations;
    };
    for copy in copies {
        if let Some(offset) = first_difference(copy, reference) {
            let (source, reference) = (copy.source.clone(), reference.source.clone());
            violations.push(Violation::Differs { source, reference, offset });
        }
    }
    violations
}

/// The first offset which both readings have with different bytes, or which lies behind the reference.
fn first_difference(copy: &Copy, reference: &Copy) -> Option<i64> {
    let begin = copy.begin.max(reference.begin);
    let copied = copy.content.get((begin - copy.begin) as usize..)?;
    let expected = reference.content.get((begin - reference.begin) as usize..).unwrap_or_default();
    let common = copied.len().min(expected.len());
    if copied[..common] == expected[..common] {
        return (copied.len() > expected.len() && !copy.is_whole).then_some(begin + common as i64);
    }
    let at = copied.iter().zip(expected).position(|(a, b)| a != b);
    at.map(|at| begin + at as i64)
}

/// One append as it was found.
struct Found {
    offset: i64,
    length: usize,
    sum: Sum,
}

/// The appends of a journal by number, in order of offsets.
fn take_apart(content: &[u8]) -> Result<BTreeMap<u64, Vec<Found>>, Violation> {
    let mut found: BTreeMap<u64, Vec<Found>> = BTreeMap::new();
    let mut at = 0;
    while at < content.len() {
        let offset = at as i64;
        let (number, length) = parse_head(&content[at..]).ok_or(Violation::NoAppend { offset })?;
        let body = content.get(at..at + length).ok_or(Violation::Cut { number, offset })?;
        let sum = Sha1::digest(body).into();
        found.entry(number).or_default().push(Found { offset, length, sum });
        at += length;
    }
    Ok(found)
}

fn parse_head(content: &[u8]) -> Option<(u64, usize)> {
    let head = std::str::from_utf8(content.get(..HEAD)?).ok()?;
    let number = u64::from_str_radix(&head[..16], 16).ok()?;
    let length = usize::from_str_radix(&head[16..], 16).ok()?;
    (length >= HEAD).then_some((number, length))
}

fn hold_against(
    history: &History,
    found: &BTreeMap<u64, Vec<Found>>,
    checked: &mut Checked,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let known: BTreeMap<u64, &Append> = history.appends.iter().map(|a| (a.number, a)).collect();
    for (&number, places) in found {
        match known.get(&number) {
            None => violations.push(Violation::Foreign { number, offset: places[0].offset }),
            Some(append) => {
                let altered = places.iter().filter(|place| place.sum != append.sum);
                violations.extend(altered.map(|place| Violation::Altered { number, offset: place.offset }));
            }
        }
    }
    for append in &history.appends {
        let places = found.get(&append.number).map_or(&[][..], Vec::as_slice);
        violations.extend(hold_append(append, places));
        match (append.acknowledged, append.unknown_attempts, places.is_empty()) {
            (Some(_), ..) => checked.acknowledged += 1,
            (None, 0, _) => {}
            (None, _, false) => checked.unknown_present += 1,
            (None, _, true) => checked.unknown_absent += 1,
        }
    }
    violations
}

/// What is wrong with the places at which one append is found.
fn hold_append(append: &Append, places: &[Found]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let number = append.number;
    let offsets: Vec<i64> = places.iter().map(|place| place.offset).collect();
    let allowed = append.unknown_attempts as usize + usize::from(append.acknowledged.is_some());
    if places.len() > allowed {
        let (times, offsets) = (places.len(), offsets.clone());
        violations.push(Violation::Repeated { number, times, allowed, offsets });
    }
    if let Some(span) = append.acknowledged {
        let is_there =
            |place: &Found| place.offset == span.begin && place.offset + place.length as i64 == span.end;
        if !places.iter().any(is_there) {
            violations.push(Violation::Missing { number, span, found: offsets });
        }
    }
    violations
}

/// Acknowledged appends lie in the order in which one was acknowledged before the other began.
fn order(appends: &[Append]) -> Vec<Violation> {
    let acknowledged = || appends.iter().filter_map(|append| Some((append, append.acknowledged?)));
    let mut by_began: Vec<_> = acknowledged().collect();
    by_began.sort_by_key(|(append, _)| append.began);
    let mut by_ended: Vec<_> = acknowledged().collect();
    by_ended.sort_by_key(|(append, _)| append.ended);
    let mut ended = by_ended.into_iter().peekable();
    let mut furthest: Option<(u64, Span)> = None;
    let mut violations = Vec::new();
    for (append, span) in by_began {
        while let Some((earlier, before)) = ended.next_if(|(earlier, _)| earlier.ended < append.began) {
            if furthest.is_none_or(|(_, furthest)| before.end > furthest.end) {
                furthest = Some((earlier.number, before));
            }
        }
        if let Some((earlier, before)) = furthest
            && span.begin < before.end
        {
            violations.push(Violation::OutOfOrder { earlier, later: append.number });
        }
    }
    violations
}

/// Each broker's write head only grows.
fn write_heads(heads: &[WriteHead]) -> Vec<Violation> {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut violations = Vec::new();
    for WriteHead { broker, offset } in heads {
        let before = last.entry(broker).or_insert(*offset);
        if *offset < *before {
            let (broker, from, to) = (broker.clone(), *before, *offset);
            violations.push(Violation::WentBack { broker, from, to });
        }
        *before = *offset;
    }
    violations
}

/// The longest time without an acknowledgement, from the first append's beginning to the last acknowledgement.
pub fn longest_stall(history: &History) -> Duration {
    let first = history.appends.iter().map(|append| append.began).min();
    let acknowledged = history.appends.iter().filter(|append| append.acknowledged.is_some());
    let mut times: Vec<Duration> = acknowledged.map(|append| append.ended).chain(first).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests;
