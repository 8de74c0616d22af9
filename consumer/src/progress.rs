//! How far a shard is: one snapshot, published after each commit. Pure.
//!
//! A source has four positions, in bytes: `read_through ≤ read_head ≤ write_head`. What lies between the first two
//! awaits the acknowledgement of its producers, and is not the consumer's to speed up; what lies between the last two is
//! unread.

use std::collections::BTreeMap;
use std::sync::Arc;

use message::Clock;
use proto::consumer::replica_status::Code;

/// Positions in one source journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceProgress {
    /// All committed messages before this offset were processed, and their transaction is durable.
    pub read_through: i64,
    /// Messages before this offset were read.
    pub read_head: i64,
    /// End of the journal, as of the last read.
    pub write_head: i64,
    /// Clock of the last message which was read.
    pub last_clock: Clock,
}

impl SourceProgress {
    /// Bytes which were not read yet.
    pub fn unread(&self) -> i64 {
        self.write_head.saturating_sub(self.read_head).max(0)
    }

    /// Bytes which were read and await the acknowledgement of their producers (or the running transaction).
    pub fn awaiting_ack(&self) -> i64 {
        self.read_head.saturating_sub(self.read_through).max(0)
    }
}

/// A snapshot. See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What the replica says of itself.
    pub status: Code,
    /// By source journal, `;meta` included.
    pub sources: BTreeMap<Arc<str>, SourceProgress>,
    /// Offset through which acknowledged outputs were published, by journal. Only of journals to which something was
    /// published since this process became primary.
    pub publish_at: BTreeMap<Arc<str>, i64>,
    /// Transactions which became durable since this process became primary.
    pub transactions: u64,
    /// Messages consumed by them.
    pub messages: u64,
    /// Bytes of those messages.
    pub bytes: u64,
}

impl Progress {
    /// The first source which is not yet read through the wanted offset. Unknown journals and offset zero want nothing.
    pub fn unmet<'a>(&self, wanted: &'a BTreeMap<String, i64>) -> Option<(&'a str, i64)> {
        let unmet = |journal: &str, offset: i64| {
            offset != 0 && self.sources.get(journal).is_some_and(|source| source.read_through < offset)
        };
        wanted
            .iter()
            .find(|(journal, offset)| unmet(journal, **offset))
            .map(|(j, offset)| (j.as_str(), *offset))
    }

    /// Read-through offsets by source.
    pub fn read_through(&self) -> BTreeMap<String, i64> {
        self.sources.iter().map(|(journal, source)| (journal.to_string(), source.read_through)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_has_two_parts() {
        let source =
            SourceProgress { read_through: 10, read_head: 30, write_head: 100, ..Default::default() };
        assert_eq!((source.unread(), source.awaiting_ack()), (70, 20));
        // A write head which was read before the last messages were is older than they are.
        let source = SourceProgress { read_through: 10, read_head: 30, write_head: 20, ..Default::default() };
        assert_eq!(source.unread(), 0);
    }

    #[test]
    fn only_sources_can_be_waited_for() {
        let mut progress = Progress::default();
        progress.sources.insert("a/source".into(), SourceProgress { read_through: 10, ..Default::default() });
        let wanted = |journal: &str, offset| BTreeMap::from([(journal.to_owned(), offset)]);
        assert_eq!(progress.unmet(&wanted("a/source", 10)), None);
        assert_eq!(progress.unmet(&wanted("a/source", 11)), Some(("a/source", 11)));
        assert_eq!(progress.unmet(&wanted("other/journal", 11)), None);
        assert_eq!(progress.unmet(&wanted("a/source", 0)), None);
    }
}
