//! Messages of a journal, as they were committed: each once, and only those of acknowledged transactions.

use crate::client::JournalClient;
use crate::uncommitted::{IterError, NewMessage, UncommittedReader};
use message::sequencer::ReplayError;
use message::{Envelope, Message, Sequencer, Step};
use proto::protocol::ReadRequest;

/// Why there is no committed message (now).
#[derive(Debug, thiserror::Error)]
pub enum CommittedError {
    /// The end of what was asked for.
    #[error(transparent)]
    End(IterError),
    /// The journal could not be read.
    #[error("reading uncommitted message: {0}")]
    Uncommitted(IterError),
    /// A transaction could not be read again.
    #[error("reading committed message: replay reader: {0}")]
    ReplayReader(IterError),
    /// What was read again is not what was read before.
    #[error("reading committed message: {0}")]
    Replay(ReplayError),
}

impl CommittedError {
    /// Whether this is the end of what was asked for, rather than a failure.
    pub fn is_eof(&self) -> bool {
        matches!(self, CommittedError::End(error) if error.is_eof())
    }
}

/// Reads the committed messages of one journal.
pub struct CommittedReader<M> {
    reader: UncommittedReader<M>,
    sequencer: Sequencer<M>,
    replay: Option<UncommittedReader<M>>,
}

impl<M: Message> CommittedReader<M> {
    /// A reader of `request`, which begins at a frame, over a sequencer: usually a new one, or one which continues from a
    /// checkpoint whose `read_through` is the request's offset.
    pub fn new(
        client: JournalClient,
        request: ReadRequest,
        new_message: NewMessage<M>,
        sequencer: Sequencer<M>,
    ) -> CommittedReader<M> {
        let reader = UncommittedReader::new(client, request, new_message);
        CommittedReader { reader, sequencer, replay: None }
    }

    /// The sequencer: what it would checkpoint counts the message which was returned last as not processed.
    pub fn sequencer(&mut self) -> &mut Sequencer<M> {
        &mut self.sequencer
    }

    /// The reader of uncommitted messages below.
    pub fn uncommitted(&self) -> &UncommittedReader<M> {
        &self.reader
    }

    /// The next committed message; acknowledgements are messages too. Cancel safe: a call which is dropped while it waits
    /// loses nothing.
    pub async fn next(&mut self) -> Result<Envelope<M>, CommittedError> {
        loop {
            match self.sequencer.step() {
                Step::Exposed => {
                    if let Some(envelope) = self.sequencer.take_dequeued() {
                        return Ok(envelope);
                    }
                }
                Step::NeedReplay => self.replay_one().await?,
                Step::Done => {
                    let envelope = self.reader.next().await.map_err(|error| match error {
                        error @ IterError::End(_) => CommittedError::End(error),
                        error => CommittedError::Uncommitted(error),
                    })?;
                    self.sequencer.queue(envelope);
                }
            }
        }
    }

    /// Offers the sequencer one message of the replay, or its end.
    async fn replay_one(&mut self) -> Result<(), CommittedError> {
        let Some(range) = self.sequencer.replay_range() else { return Ok(()) };
        let replay = self.replay.get_or_insert_with(|| self.reader.replay(range.begin, range.end));
        match replay.next().await {
            Ok(envelope) => self.sequencer.offer(envelope).map_err(CommittedError::Replay),
            Err(error) if error.is_eof() => {
                self.replay = None;
                self.sequencer.end_replay();
                Ok(())
            }
            Err(error) => Err(CommittedError::ReplayReader(error)),
        }
    }
}
