//! What the driver of the loop finds ready, and how it awaits the application.

use futures::FutureExt;
use message::Envelope;
use runtime::{BoxError, CancellationToken};

use super::LoopError;
use super::core::Event;
use super::prior::{Durable, PriorError};
use super::pump::Incoming;

/// What is ready, or came to be.
pub enum Ready<M> {
    /// An event of the loop.
    Event(Event),
    /// A durable step of the prior transaction.
    Durable(Durable),
    /// The next message that was read.
    Envelope(Envelope<M>),
    /// Nothing yet, but looking again is worth it.
    Again,
}

/// A message, or the failure of its source.
pub fn ready_of<M>(incoming: Incoming<M>) -> Result<Ready<M>, LoopError> {
    match incoming {
        Incoming::Envelope(envelope) => Ok(Ready::Envelope(envelope)),
        Incoming::Failed(error) => Err(LoopError::Read(error)),
    }
}

/// Runs the application's future. One that completes at once costs nothing more.
pub async fn until_cancelled<T>(
    token: &CancellationToken,
    future: impl Future<Output = Result<T, BoxError>>,
) -> Result<Result<T, BoxError>, LoopError> {
    let mut future = std::pin::pin!(future);
    if let Some(outcome) = future.as_mut().now_or_never() {
        return Ok(outcome);
    }
    tokio::select! {
        biased;
        () = token.cancelled() => Err(LoopError::Cancelled),
        outcome = future => Ok(outcome),
    }
}

impl From<PriorError> for LoopError {
    fn from(error: PriorError) -> LoopError {
        match error {
            PriorError::Commit(error) => LoopError::Commit(error),
            PriorError::Ack(error) => LoopError::Ack(error),
        }
    }
}
