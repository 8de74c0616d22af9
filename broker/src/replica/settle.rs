//! Which of the written groups are settled: durable, and acknowledged by every replica. Pure.
//!
//! Groups settle in the order in which they were written, since each one's answers hold only if the ones before it do.

use std::collections::VecDeque;

/// Written groups that are not settled yet, each with what is to be done about it then.
#[derive(Debug)]
pub(super) struct Ledger<T> {
    waiting: VecDeque<(u64, T)>,
    written: u64,
    synced: u64,
    acknowledged: u64,
}

impl<T> Ledger<T> {
    pub(super) fn new() -> Ledger<T> {
        Ledger { waiting: VecDeque::new(), written: 0, synced: 0, acknowledged: 0 }
    }

    /// A group was written, and must be synced and acknowledged.
    pub(super) fn write(&mut self, group: T) {
        self.written += 1;
        self.waiting.push_back((self.written, group));
    }

    /// Something is to be done once all groups written so far are settled.
    pub(super) fn follow(&mut self, group: T) {
        self.waiting.push_back((self.written, group));
    }

    /// Number of the last group written.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether groups wait for a sync.
    pub(super) fn lacks_sync(&self) -> bool {
        self.synced < self.written
    }

    /// Whether groups wait for acknowledgements.
    pub(super) fn lacks_acknowledgement(&self) -> bool {
        self.acknowledged < self.written
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Groups that are written and not settled.
    pub(super) fn unsettled(&self) -> u64 {
        self.written - self.settled()
    }

    /// Everything that waits, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, group)| group)
    }

    /// Groups that no sync has covered.
    pub(super) fn unsynced(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().filter(|(number, _)| *number > self.synced).map(|(_, group)| group)
    }

    /// Groups up to number `written` are durable.
    pub(super) fn on_synced(&mut self, written: u64) {
        assert!(written <= self.written, "only what was written is synced");
        self.synced = self.synced.max(written);
    }

    /// All replicas acknowledged one more group.
    pub(super) fn on_acknowledged(&mut self) {
        assert!(self.lacks_acknowledgement(), "only what was written is acknowledged");
        self.acknowledged += 1;
    }

    /// Takes what is settled.
    pub(super) fn take_settled(&mut self) -> Vec<T> {
        let settled = self.settled();
        let count = self.waiting.iter().take_while(|(number, _)| *number <= settled).count();
        self.waiting.drain(..count).map(|(_, group)| group).collect()
    }

    /// Takes everything: nothing will settle it any more, and nothing is waited for.
    pub(super) fn abandon(&mut self) -> Vec<T> {
        self.synced = self.written;
        self.acknowledged = self.written;
        self.take_settled()
    }

    fn settled(&self) -> u64 {
        self.synced.min(self.acknowledged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_settles_once_it_is_synced_and_acknowledged() {
        let mut ledger = Ledger::new();
        ledger.write("a");
        ledger.follow("after a");
        ledger.write("b");
        assert_eq!(ledger.take_settled(), [""; 0]);
        ledger.on_acknowledged();
        ledger.on_acknowledged();
        assert_eq!((ledger.take_settled(), ledger.unsettled()), (vec![], 2));
        ledger.on_synced(1);
        assert_eq!(ledger.unsynced().collect::<Vec<_>>(), [&"b"]);
        assert_eq!((ledger.take_settled(), ledger.unsettled()), (vec!["a", "after a"], 1));
        ledger.on_synced(2);
        assert_eq!(ledger.take_settled(), ["b"]);
        assert!(ledger.is_empty());
    }

    #[test]
    fn what_follows_nothing_settles_at_once() {
        let mut ledger = Ledger::new();
        ledger.follow("refusal");
        assert_eq!(ledger.take_settled(), ["refusal"]);
    }

    #[test]
    fn abandoned_groups_are_not_waited_for() {
        let mut ledger = Ledger::new();
        ledger.write("a");
        ledger.write("b");
        ledger.on_acknowledged();
        assert_eq!(ledger.abandon(), ["a", "b"]);
        assert!(!ledger.lacks_sync() && !ledger.lacks_acknowledgement());
        ledger.on_synced(1);
        assert_eq!(ledger.unsettled(), 0);
    }
}
