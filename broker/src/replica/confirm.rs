//! What a replica holds and does not show: content of which it does not know whether every replica has committed it.
//!
//! Neither readers nor stores get it. It is confirmed when the primary says so, or when the replicas agree on a spool
//! that contains it; content that is never confirmed stays on disk, where the next replica of the journal finds it.

use std::collections::VecDeque;

use super::owner::Owner;
use crate::spool::{CompletedSpool, Written};

/// Something that was written, and is not confirmed yet.
pub(super) struct Unconfirmed {
    /// End of the journal with it.
    pub(super) end: i64,
    pub(super) completed: Option<CompletedSpool>,
    written: Option<Written>,
}

/// Unconfirmed writes in order, and how far the journal is confirmed.
#[derive(Default)]
pub(super) struct Confirmation {
    waiting: VecDeque<Unconfirmed>,
    pub(super) through: i64,
}

impl Confirmation {
    /// What waits, oldest first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Unconfirmed> {
        self.waiting.iter()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take_through(&mut self, end: i64) -> Vec<Unconfirmed> {
        let count = self.waiting.iter().take_while(|unconfirmed| unconfirmed.end <= end).count();
        self.waiting.drain(..count).collect()
    }
}

impl Owner {
    /// Keeps what was written until the journal is confirmed through `end`.
    pub(super) fn hold(&mut self, end: i64, completed: Option<CompletedSpool>, written: Option<Written>) {
        if completed.is_some() || written.is_some() {
            self.confirmation.waiting.push_back(Unconfirmed { end, completed, written });
        }
    }

    /// Every replica has committed the journal through `end`: what is held up to there is shown, and stored.
    pub(super) fn confirm(&mut self, end: i64) {
        self.confirmation.through = self.confirmation.through.max(end);
        let confirmed = self.confirmation.take_through(self.confirmation.through);
        if confirmed.is_empty() {
            return;
        }
        for Unconfirmed { completed, written, .. } in confirmed {
            completed.into_iter().for_each(|completed| self.on_completed(completed));
            written.into_iter().for_each(|written| self.enter_written(written));
        }
        self.publish();
    }
}
