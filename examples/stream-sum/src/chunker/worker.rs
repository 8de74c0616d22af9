//! A worker of the chunker: publishes the chunks of its own streams, and after each stream waits for its sum.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::{AppendFuture, OpError, PublishError, Publisher, WatchedList};
use message::mapping::{MappingError, Target};
use proto::JournalName;
use runtime::{CancellationToken, Clock};
use tokio::sync::{mpsc, oneshot};

use super::generator::{Generated, Generator};
use crate::{StreamId, Sum};

/// Appends of a worker which may be under way.
const IN_FLIGHT_MAX: usize = 1024;

/// What workers tell the run.
pub enum Command {
    /// A stream begins; its chunks go to the journal.
    Open(StreamId, JournalName),
    /// A stream ends with this sum: say when it was verified.
    Expect(Sum, oneshot::Sender<()>),
    /// The worker cannot go on.
    Failed(WorkerError),
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// There is no journal for a stream.
    #[error("mapping stream {0}: {1}")]
    Mapping(StreamId, MappingError),
    /// A chunk cannot be published.
    #[error("stream {id} of journal {journal}: {error}")]
    Publish {
        /// The stream.
        id: StreamId,
        /// Where its chunks go.
        journal: JournalName,
        /// Why not.
        error: PublishError,
    },
    /// A chunk was not appended.
    #[error("stream {id} of journal {journal}: append failed: {error}")]
    Append {
        /// The stream.
        id: StreamId,
        /// Where its chunks go.
        journal: JournalName,
        /// Why not.
        error: OpError,
    },
    /// An append takes too long.
    #[error("stream {id} of journal {journal}: an append was not acknowledged within {waited:?}")]
    Stalled {
        /// The stream.
        id: StreamId,
        /// Where its chunks go.
        journal: JournalName,
        /// How long was waited.
        waited: Duration,
    },
}

/// See the module.
pub struct Worker {
    pub generator: Generator,
    pub publisher: Arc<Publisher>,
    pub journals: WatchedList,
    pub run: mpsc::Sender<Command>,
    pub chunks: Arc<AtomicU64>,
    pub stop: CancellationToken,
    pub delay: Duration,
    pub clock: Clock,
    /// Where the chunks of open streams go: a stream keeps its journal, also if journals are added.
    pub targets: BTreeMap<StreamId, Target>,
    pub in_flight: VecDeque<InFlight>,
}

/// An append under way.
pub struct InFlight {
    id: StreamId,
    journal: JournalName,
    append: AppendFuture,
}

impl Worker {
    /// Runs until all streams are verified, or the run has ended.
    pub async fn run(mut self) {
        if let Err(error) = self.run_streams().await {
            drop(self.run.send(Command::Failed(error)).await);
        }
    }

    async fn run_streams(&mut self) -> Result<(), WorkerError> {
        loop {
            if self.stop.is_cancelled() {
                self.generator.stop();
            }
            let Some(generated) = self.generator.next() else { break };
            if !self.publish(generated).await? {
                return Ok(());
            }
        }
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        Ok(())
    }

    /// Publishes a chunk; after the last one of a stream, waits for its sum. False if the run has ended.
    async fn publish(&mut self, generated: Generated) -> Result<bool, WorkerError> {
        let Generated { chunk, opens, ends } = generated;
        let id = chunk.id;
        if opens {
            let partitions = self.journals.partitions();
            let target = partitions.modulo(&id.0).map_err(|error| WorkerError::Mapping(id, error))?.clone();
            let open = Command::Open(id, target.journal.clone());
            self.targets.insert(id, target);
            if self.run.send(open).await.is_err() {
                return Ok(false);
            }
        }
        // The sum must be expected before it can come.
        let mut verified = None;
        if let Some(sum) = ends {
            let (sender, receiver) = oneshot::channel();
            verified = Some(receiver);
            if self.run.send(Command::Expect(sum, sender)).await.is_err() {
                return Ok(false);
            }
        }
        let target = self.targets.get(&id).expect("an open stream has a journal").clone();
        let journal = target.journal.clone();
        let published = self.publisher.publish_committed(move |_| Ok(target), chunk);
        let append =
            published.map_err(|error| WorkerError::Publish { id, journal: journal.clone(), error })?;
        self.chunks.fetch_add(1, Ordering::Relaxed);
        self.in_flight.push_back(InFlight { id, journal, append });
        while self.is_settled() || self.in_flight.len() > IN_FLIGHT_MAX {
            self.settle_one().await?;
        }
        match verified {
            None => Ok(true),
            Some(verified) => {
                self.targets.remove(&id);
                Ok(verified.await.is_ok())
            }
        }
    }

    /// Whether the oldest append has ended.
    fn is_settled(&self) -> bool {
        self.in_flight.front().is_some_and(|oldest| oldest.append.try_result().is_some())
    }

    async fn settle_one(&mut self) -> Result<(), WorkerError> {
        let Some(InFlight { id, journal, append }) = self.in_flight.pop_front() else { return Ok(()) };
        match self.clock.timeout(self.delay, append).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(WorkerError::Append { id, journal, error }),
            Err(_) => Err(WorkerError::Stalled { id, journal, waited: self.delay }),
        }
    }
}
