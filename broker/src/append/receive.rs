//! The client's stream, from the opening message to its end (journal protocol §5.1, §5.5, §5.7).

use std::sync::Arc;

use futures::{Stream, StreamExt};
use proto::Validate;
use proto::protocol::{AppendRequest, Status};
use runtime::{CancellationToken, Clock, TaskGroup};

use super::content::{Content, ContentBuffer};
use super::failure::Failure;
use crate::flow::{Chunk, Flow, Rates, TICK};
use crate::replica::Replica;

/// A complete append stream.
#[derive(Clone)]
pub(super) struct Received {
    /// Its content.
    pub(super) content: Arc<Content>,
    /// Chunks, with the one that commits.
    pub(super) total_chunks: i64,
    /// Chunks that flow control withheld.
    pub(super) delayed_chunks: i64,
}

/// What a stream of content came to.
pub(super) enum Reception {
    /// It was committed by its client.
    Complete(Received),
    /// It carries content where none is allowed, and is read no further.
    NotAllowed,
}

/// A message of a stream after its first.
enum Part {
    Content(bytes::Bytes),
    Commit,
}

/// Reads an append stream under flow control.
pub(super) struct Receiver<'a> {
    pub(super) replica: &'a Replica,
    pub(super) rates: Rates,
    pub(super) clock: &'a Clock,
    pub(super) tasks: &'a TaskGroup,
    /// Lifts the maximum rate once it fires.
    pub(super) invalidated: &'a CancellationToken,
    /// Whether the stream may carry content.
    pub(super) may_carry_content: bool,
}

impl Receiver<'_> {
    /// Reads `stream` to its end into `buffer`.
    pub(super) async fn run<S>(self, stream: &mut S, mut buffer: ContentBuffer) -> Result<Reception, Failure>
    where
        S: Stream<Item = Result<AppendRequest, tonic::Status>> + Unpin,
    {
        let mut flow = Flow::new(self.rates, &mut self.replica.bucket(), self.replica.age(self.clock));
        loop {
            let content = match self.next(stream, &mut flow).await? {
                None => return Err(Failure::Stream("unexpected EOF".to_owned())),
                Some(Part::Commit) => break,
                Some(Part::Content(_)) if !self.may_carry_content => return Ok(Reception::NotAllowed),
                Some(Part::Content(content)) => content,
            };
            self.take(&mut flow, content.len()).await?;
            if let Err(content) = buffer.push(content) {
                let spill = move || buffer.spill(&content).map(|()| buffer);
                buffer = self.tasks.spawn_blocking("spill append", spill).await?;
                flow.excuse(self.replica.age(self.clock));
            }
        }
        self.take(&mut flow, 0).await?;
        if self.next(stream, &mut flow).await?.is_some() {
            return Err(Failure::Stream("expected EOF after empty Content chunk".to_owned()));
        }
        Ok(Reception::Complete(Received {
            content: Arc::new(buffer.finish()),
            total_chunks: flow.total_chunks(),
            delayed_chunks: flow.delayed_chunks(),
        }))
    }

    /// The next message, while time passes.
    async fn next<S>(&self, stream: &mut S, flow: &mut Flow) -> Result<Option<Part>, Failure>
    where
        S: Stream<Item = Result<AppendRequest, tonic::Status>> + Unpin,
    {
        loop {
            let tick = self.clock.now() + TICK;
            tokio::select! {
                biased;
                message = stream.next() => return message.map(part_of).transpose(),
                () = self.clock.sleep_until(tick) => {
                    flow.tick(&mut self.replica.bucket(), self.replica.age(self.clock))?;
                }
            }
        }
    }

    /// Counts a chunk, and waits until it is paid for.
    async fn take(&self, flow: &mut Flow, bytes: usize) -> Result<(), Failure> {
        let mut chunk = flow.chunk(bytes, &mut self.replica.bucket(), self.replica.age(self.clock))?;
        while chunk == Chunk::Withheld {
            tokio::select! {
                biased;
                () = self.invalidated.cancelled() => flow.lift_max(),
                () = self.clock.sleep(TICK) => {}
            }
            chunk = flow.tick(&mut self.replica.bucket(), self.replica.age(self.clock))?;
        }
        Ok(())
    }
}

fn part_of(message: Result<AppendRequest, tonic::Status>) -> Result<Part, Failure> {
    let message = message.map_err(Failure::Client)?;
    message.validate().map_err(|err| Failure::Stream(err.to_string()))?;
    if !message.journal.is_empty() {
        Err(Failure::Stream("expected Content chunk".to_owned()))
    } else if message.content.is_empty() {
        Ok(Part::Commit)
    } else {
        Ok(Part::Content(message.content))
    }
}

/// Reads the opening message.
pub(super) async fn opening<S>(stream: &mut S) -> Result<AppendRequest, Failure>
where
    S: Stream<Item = Result<AppendRequest, tonic::Status>> + Unpin,
{
    let message = stream.next().await.ok_or(Failure::NoRequest)?.map_err(Failure::Client)?;
    message.validate().map_err(Failure::Invalid)?;
    Ok(message)
}

/// The status of content where none is allowed.
pub(super) const CONTENT_REFUSED: Status = Status::NotAllowed;
