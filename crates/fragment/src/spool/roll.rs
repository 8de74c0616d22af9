//! When a primary leaves the current fragment for a new one (journal protocol §7.1).

use std::time::Duration;

use proto::protocol::JournalSpec;

use super::Spool;
use crate::{Codec, Fragment};

/// What a journal's specification says about the size and age of fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollPolicy {
    /// A fragment longer than this, in bytes, is left before the next append. Fragments overshoot by one commit.
    pub length: i64,
    /// Codec of new fragments.
    pub codec: Codec,
    /// Fragments end where multiples of this interval since the Unix epoch do. At least a second.
    pub flush_interval: Option<Duration>,
}

impl RollPolicy {
    /// The policy of `spec`. An unknown codec, which validation refuses, counts as none.
    pub fn of(spec: &JournalSpec) -> RollPolicy {
        let fragment = spec.fragment.as_ref();
        RollPolicy {
            length: fragment.map_or(0, |fragment| fragment.length),
            codec: fragment.and_then(|f| Codec::try_from(f.compression_codec).ok()).unwrap_or(Codec::None),
            flush_interval: fragment
                .and_then(|f| f.flush_interval.as_ref())
                .and_then(|d| u64::try_from(d.seconds).ok())
                .filter(|seconds| *seconds != 0)
                .map(Duration::from_secs),
        }
    }

    /// Whether a fragment that grew to `length` bytes is full.
    pub fn is_full(&self, length: i64) -> bool {
        length > self.length
    }

    fn is_flush_due(&self, first_append: Option<Duration>, now: Duration) -> bool {
        let (Some(interval), Some(first)) = (self.flush_interval, first_append) else { return false };
        first.as_secs() / interval.as_secs() != now.as_secs() / interval.as_secs()
    }
}

/// The proposal with which the next append begins: the spool's fragment, or an empty one which it rolls to. `roll_to` asks
/// for a roll to that offset (the current end, or one further on) unless the fragment already begins there.
pub fn next_proposal(spool: &Spool, roll_to: Option<i64>, policy: &RollPolicy, now: Duration) -> Fragment {
    let current = spool.fragment();
    let rolls = current.is_empty()
        || policy.is_full(current.len())
        || roll_to.is_some_and(|offset| offset != current.begin)
        || policy.is_flush_due(spool.first_append(), now);
    if !rolls {
        return current.clone();
    }
    let at = roll_to.map_or(current.end, |offset| offset.max(current.end));
    Fragment::empty(current.journal.clone(), at, policy.codec)
}
