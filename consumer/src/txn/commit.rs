//! The end of a transaction: its checkpoint, and the order in which it becomes durable (consumer protocol §3.5).
//!
//! ```text
//! appends of the transaction ─▶ commit of the store, with checkpoint and intents ─▶ acknowledgements
//! ```
//!
//! All three are started at once, each waiting for the ones before. The acknowledgements take their place in the queues
//! of their journals now, ahead of anything that the next transaction publishes there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Publisher;
use message::sequencer::{SourceState, to_sources};
use proto::JournalName;
use proto::consumer::Checkpoint;

use super::LoopError;
use super::prior::{Ack, Prior};
use crate::Store;
use crate::shard::Shard;

/// Producers which are this much older than the newest one of their journal, and were not heard of for as long, are
/// forgotten, if nothing of them is open.
pub const PRODUCER_HORIZON: Duration = Duration::from_secs(24 * 3600);

/// What a transaction has read, and the acknowledgements it owes.
pub struct Parts {
    read_through: BTreeMap<Arc<str>, i64>,
    producers: usize,
    intents: Vec<(JournalName, Bytes)>,
    checkpoint: Checkpoint,
}

impl Parts {
    /// The parts of a transaction which ends with these states of its sources.
    pub fn new(states: Vec<SourceState>, intents: Vec<(JournalName, Bytes)>) -> Parts {
        let read_through = states
            .iter()
            .map(|state| (Arc::clone(&state.journal), state.read_through.unwrap_or(0)))
            .collect();
        let producers = states.iter().map(|state| state.producers.len()).sum();
        let ack_intents =
            intents.iter().map(|(journal, frame)| (journal.to_string(), frame.clone())).collect();
        let checkpoint = Checkpoint { sources: to_sources(states), ack_intents };
        Parts { read_through, producers, intents, checkpoint }
    }

    /// Starts the commit and queues the acknowledgements behind it.
    pub fn start<S: Store>(
        self,
        shard: &Shard,
        store: &mut S,
        publisher: &Publisher,
    ) -> Result<Prior, LoopError> {
        let log = shard.recovery_log();
        let wait_for = shard.appends().pending_except(log.as_ref().map_or("", JournalName::as_str));
        let barrier = store.start_commit(self.checkpoint, wait_for);
        if let Some(Err(error)) = barrier.try_result() {
            return Err(LoopError::Commit(error));
        }
        let acks = self.intents.iter().map(|(journal, intent)| {
            let append = publisher.append_ack_intent(journal, intent, vec![barrier.clone()]);
            Ack::Append(Arc::clone(journal.as_arc()), append)
        });
        Ok(Prior::new(barrier.clone(), acks.collect(), self.read_through, self.producers))
    }
}
