//! Writes the acknowledgements of a recovered checkpoint again (consumer protocol §3.2).
//!
//! The process before may have died between its commit and them. Repeating an acknowledgement is harmless; and it rolls
//! back what that process published after its last commit.

use std::sync::Arc;

use bytes::Bytes;
use client::{JournalClient, OpError, OpFuture};
use proto::consumer::Checkpoint;
use proto::protocol::{AppendRequest, Status};
use runtime::OnError;

use super::prior::{Ack, Prior};
use crate::shard::Shard;

/// The recovered checkpoint as a prior transaction: its commit is durable, its acknowledgements are under way.
pub fn acknowledge(shard: &Shard, checkpoint: &Checkpoint) -> Prior {
    let acks = checkpoint.ack_intents.iter().map(|(journal, intent)| {
        let journal: Arc<str> = journal.as_str().into();
        let (promise, op) = OpFuture::pair();
        let (client, token) = (shard.client().clone(), shard.token().clone());
        let (target, intent) = (Arc::clone(&journal), intent.clone());
        shard.tasks().spawn("recovered acknowledgement", OnError::Log, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => promise.resolve(Err(OpError::Cancelled)),
                outcome = append(&client, &target, intent) => promise.resolve(outcome),
            }
            Ok(())
        });
        Ack::Recovered(journal, op)
    });
    let acks = acks.collect();
    let read_through =
        checkpoint.sources.iter().map(|(journal, state)| (Arc::from(journal.as_str()), state.read_through));
    let producers = checkpoint.sources.values().map(|state| state.producers.len()).sum();
    Prior::new(OpFuture::resolved(Ok(())), acks, read_through.collect(), producers)
}

async fn append(client: &JournalClient, journal: &str, intent: Bytes) -> Result<(), OpError> {
    let request = AppendRequest { journal: journal.to_owned(), ..AppendRequest::default() };
    match client.append(request, intent).await {
        Ok(_) => Ok(()),
        Err(error) if error.status() == Some(Status::JournalNotFound) => {
            tracing::warn!(
                journal,
                "a journal of the recovered checkpoint no longer exists; its acknowledgement is dropped"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
