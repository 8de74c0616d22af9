//! The decision table: what a message means, given what is known of its producer (journal messages §2.7).

use crate::{Clock, Flags};

/// What became of a queued message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueOutcome {
    /// A duplicate of a message outside of transactions. Ignored.
    OutsideAlreadyAcked,
    /// A message outside of transactions: committed.
    OutsideCommit,
    /// A duplicate of a message of an acknowledged transaction. Ignored.
    ContinueAlreadyAcked,
    /// A duplicate of a message of the open transaction. Ignored.
    ContinueTxnClockLarger,
    /// Opens a transaction.
    ContinueBeginSpan,
    /// Continues the open transaction.
    ContinueExtendSpan,
    /// Rolls the producer's open transaction back, or repeats an acknowledgement.
    AckRollback,
    /// Acknowledges a transaction without messages: committed.
    AckEmpty,
    /// Acknowledges a transaction whose messages are all in the ring: committed.
    AckCommitRing,
    /// Acknowledges a transaction of which messages must be read again: committed, and needs a replay.
    AckCommitReplay,
}

impl QueueOutcome {
    /// Whether messages are now committed: the caller must step through them before it queues another.
    pub fn commits(self) -> bool {
        use QueueOutcome::*;
        matches!(self, OutsideCommit | AckEmpty | AckCommitRing | AckCommitReplay)
    }

    /// The outcome as a label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            QueueOutcome::OutsideAlreadyAcked => "outsideAlreadyAcked",
            QueueOutcome::OutsideCommit => "outsideCommit",
            QueueOutcome::ContinueAlreadyAcked => "continueAlreadyAcked",
            QueueOutcome::ContinueTxnClockLarger => "continueRingClockLarger",
            QueueOutcome::ContinueBeginSpan => "continueBeginSpan",
            QueueOutcome::ContinueExtendSpan => "continueExtendSpan",
            QueueOutcome::AckRollback => "ackRollback",
            QueueOutcome::AckEmpty => "ackEmpty",
            QueueOutcome::AckCommitRing => "ackCommitRing",
            QueueOutcome::AckCommitReplay => "ackCommitReplay",
        }
    }
}

/// What is known of a producer in a journal when its next message arrives.
pub(super) struct Known {
    /// Clock of the last acknowledged message.
    pub min_clock: Clock,
    /// Largest clock which was queued.
    pub max_clock: Clock,
    /// Where the open transaction begins.
    pub begin: Option<i64>,
    /// Where the part of the open transaction which is in the ring begins.
    pub ring_begin: Option<i64>,
}

/// Decides by flags, which are one of the three values, and clock.
pub(super) fn decide(known: &Known, flags: Flags, clock: Clock) -> QueueOutcome {
    use QueueOutcome::*;
    match flags {
        Flags::CONTINUE_TXN if clock <= known.min_clock => ContinueAlreadyAcked,
        Flags::CONTINUE_TXN if clock <= known.max_clock => ContinueTxnClockLarger,
        Flags::CONTINUE_TXN if known.begin.is_none() => ContinueBeginSpan,
        Flags::CONTINUE_TXN => ContinueExtendSpan,
        Flags::ACK_TXN if clock <= known.min_clock => AckRollback,
        Flags::ACK_TXN if known.begin.is_none() => AckEmpty,
        Flags::ACK_TXN if known.begin != known.ring_begin => AckCommitReplay,
        Flags::ACK_TXN => AckCommitRing,
        _ if clock <= known.min_clock => OutsideAlreadyAcked,
        _ => OutsideCommit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table() {
        use QueueOutcome::*;
        let (outside, cont, ack) = (Flags::OUTSIDE_TXN, Flags::CONTINUE_TXN, Flags::ACK_TXN);
        // (flags, clock, begin, ring begin) with acknowledged clock 10 and largest queued clock 20.
        for (flags, clock, begin, ring_begin, expected) in [
            (outside, 9, None, None, OutsideAlreadyAcked),
            (outside, 10, None, None, OutsideAlreadyAcked),
            (outside, 11, None, None, OutsideCommit),
            (outside, 11, Some(5), Some(5), OutsideCommit),
            (Flags(7), 11, None, None, OutsideCommit),
            (cont, 10, Some(5), Some(5), ContinueAlreadyAcked),
            (cont, 11, Some(5), Some(5), ContinueTxnClockLarger),
            (cont, 20, Some(5), Some(5), ContinueTxnClockLarger),
            (cont, 21, None, None, ContinueBeginSpan),
            (cont, 21, Some(5), None, ContinueExtendSpan),
            (ack, 9, Some(5), Some(5), AckRollback),
            (ack, 10, None, None, AckRollback),
            (ack, 11, None, None, AckEmpty),
            (ack, 11, Some(5), Some(5), AckCommitRing),
            (ack, 21, Some(5), Some(6), AckCommitReplay),
            (ack, 21, Some(5), None, AckCommitReplay),
        ] {
            let known = Known { min_clock: Clock(10), max_clock: Clock(20), begin, ring_begin };
            assert_eq!(
                decide(&known, flags, Clock(clock)),
                expected,
                "{flags:?} {clock} {begin:?} {ring_begin:?}"
            );
        }
    }
}
