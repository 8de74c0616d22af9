//! Reads a part of a source again, where the sequencer no longer holds what was acknowledged.

use client::{Gap, IterError, JournalClient, NewMessage, UncommittedReader};
use message::sequencer::ReplayError;
use message::{Message, Sequencer};
use proto::protocol::ReadRequest;

use crate::metrics::ShardMetrics;

/// Why the messages of a sequence cannot be had again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFailure {
    /// The journal cannot be read.
    #[error("replay reader: {0}")]
    Read(#[from] IterError),
    /// The journal does not hold what it held.
    #[error("{0}")]
    Content(#[from] ReplayError),
}

/// Supplies a sequencer with what it needs to read again.
pub struct Replay<M> {
    client: JournalClient,
    new_message: NewMessage<M>,
    metrics: ShardMetrics,
    reader: Option<UncommittedReader<M>>,
}

impl<M: Message> Replay<M> {
    /// Nothing is read yet.
    pub fn new(client: JournalClient, new_message: NewMessage<M>, metrics: ShardMetrics) -> Replay<M> {
        Replay { client, new_message, metrics, reader: None }
    }

    /// Offers the sequencer the next message of the range that it needs, or ends the range. Cancel safe.
    ///
    /// # Errors
    /// If something of the range is gone, or differs from what was read before.
    pub async fn feed(&mut self, sequencer: &mut Sequencer<M>) -> Result<(), ReplayFailure> {
        let Some(range) = sequencer.replay_range() else { return Ok(()) };
        let reader = self.reader.get_or_insert_with(|| {
            self.metrics.replayed(&range.journal);
            let request = ReadRequest {
                journal: range.journal.to_string(),
                offset: range.begin,
                end_offset: range.end,
                block: true,
                ..ReadRequest::default()
            };
            UncommittedReader::new(self.client.clone(), request, self.new_message.clone()).with_gap(Gap::Fail)
        });
        match reader.next().await {
            Ok(envelope) => sequencer.offer(envelope)?,
            Err(error) if error.is_eof() => {
                self.reader = None;
                sequencer.end_replay();
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
