//! Which parts of recovery logs are still needed, by the stored hints of shards (consumer protocol §4.11). Pure.
//!
//! Whoever recovers a shard begins from one of its stored hints, and reads the segments which those speak of, and then on
//! to the end of the log. What no stored hints speak of is read by nobody. Hints which are stored later need nothing
//! that the ones before did not: files are added at the end of a log, and files which are gone do not come back.
//!
//! [`Needed`] is safe by construction. A log of which nothing is known is kept whole: one which no hints speak of; one
//! whose shard has a place for hints in which there are none yet; one whose hints speak of no file. And as files may
//! have begun in another log than their shard's, of which the shard was forked, hints which cannot be read may speak of
//! any log: then every log is kept.

use crate::hints::live_log_segments;
use proto::JournalName;
use proto::recoverylog::FsmHints;
use std::collections::BTreeMap;

/// What was found in a place where hints of a shard are stored.
#[derive(Clone, Copy, Debug)]
pub enum StoredHints<'a> {
    /// Nothing.
    Missing,
    /// These.
    Found(&'a FsmHints),
    /// Something which cannot be read, or was not read.
    Unreadable,
}

/// Why a log is kept whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyKept {
    /// Hints cannot be read.
    #[error("hints cannot be read, and may speak of any log: {0}")]
    Unreadable(String),
    /// A place for hints of its shard is empty.
    #[error("hints are not stored yet: {0}")]
    Missing(String),
    /// Hints of its shard say that there are no files.
    #[error("hints speak of no files: {0}")]
    NoFiles(String),
    /// No shard has this log.
    #[error("it is the log of no shard")]
    NoShard,
}

/// Bytes of a log, `begin..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    begin: i64,
    /// None is without end.
    end: Option<i64>,
}

/// What is needed of one log.
#[derive(Clone, Debug, Default)]
struct LogNeeds {
    /// Of all hints, in no order.
    parts: Vec<Part>,
    /// The log is that of a shard.
    is_of_shard: bool,
    keep_whole: Option<WhyKept>,
}

/// Which parts of logs are needed, by what has been added so far: all stored hints of *all* shards which may share
/// history with the logs in question.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    logs: BTreeMap<JournalName, LogNeeds>,
    unreadable: Option<String>,
}

impl Needed {
    /// Adds what is stored in one place for hints of the shard whose log is `log`. All of a shard's places are to be
    /// added. `place` names it in reasons.
    pub fn add(&mut self, log: &JournalName, place: &str, stored: StoredHints<'_>) {
        self.log(log).is_of_shard = true;
        let hints = match stored {
            StoredHints::Found(hints) => hints,
            StoredHints::Missing => return self.keep_whole(log, WhyKept::Missing(place.to_owned())),
            StoredHints::Unreadable => return self.add_unreadable(place),
        };
        let live = match live_log_segments(hints) {
            Ok(live) if live.log == *log => live,
            Ok(_) | Err(_) => return self.add_unreadable(place),
        };
        let segments = live.set.into_segments();
        let Some(last) = segments.len().checked_sub(1) else {
            return self.keep_whole(log, WhyKept::NoFiles(place.to_owned()));
        };
        for (index, segment) in segments.into_iter().enumerate() {
            // A player reads on from the last one to the end of the log.
            let is_open = index == last || segment.last_offset == 0;
            let part = Part { begin: segment.first_offset, end: (!is_open).then_some(segment.last_offset) };
            self.log(&segment.log).parts.push(part);
        }
    }

    /// Notes hints which exist and cannot be read, of whatever shard: nothing may be deleted.
    pub fn add_unreadable(&mut self, place: &str) {
        self.unreadable.get_or_insert_with(|| place.to_owned());
    }

    /// Why `log` is kept whole, if it is.
    pub fn kept_whole(&self, log: &JournalName) -> Option<WhyKept> {
        if let Some(place) = &self.unreadable {
            return Some(WhyKept::Unreadable(place.clone()));
        }
        match self.logs.get(log).filter(|needs| needs.is_of_shard && !needs.parts.is_empty()) {
            Some(needs) => needs.keep_whole.clone(),
            None => match self.logs.get(log).and_then(|needs| needs.keep_whole.clone()) {
                Some(why) => Some(why),
                None => Some(WhyKept::NoShard),
            },
        }
    }

    /// Whether a fragment of `log` with the bytes `begin..end` must be kept. An `end` of zero is that of a fragment which
    /// is still written.
    pub fn needs(&self, log: &JournalName, begin: i64, end: i64) -> bool {
        if self.kept_whole(log).is_some() {
            return true;
        }
        let parts = self.logs.get(log).map_or(&[][..], |needs| &needs.parts);
        let overlaps =
            |part: &Part| (part.begin < end || end == 0) && part.end.is_none_or(|part_end| part_end > begin);
        parts.is_empty() || parts.iter().any(overlaps)
    }

    fn log(&mut self, log: &JournalName) -> &mut LogNeeds {
        self.logs.entry(log.clone()).or_default()
    }

    fn keep_whole(&mut self, log: &JournalName, why: WhyKept) {
        self.log(log).keep_whole.get_or_insert(why);
    }
}

#[cfg(test)]
mod tests;
