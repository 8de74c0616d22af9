//! The operations of the prior transaction: its commit, and the acknowledgements queued behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;

use client::{AppendFuture, OpError, OpFuture};
use proto::protocol::AppendResponse;

use super::core::Stage;

/// A durable step of the prior transaction.
#[derive(Debug)]
pub enum Durable {
    /// Its commit.
    Commit,
    /// One of its acknowledgements.
    Ack(AckEnd),
}

/// Where an acknowledgement was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckEnd {
    /// The journal.
    pub journal: Arc<str>,
    /// End of the append, unless it was of a recovered acknowledgement.
    pub end: Option<i64>,
}

/// An acknowledgement under way.
pub enum Ack {
    /// Of a transaction of this process.
    Append(Arc<str>, AppendFuture),
    /// Of the checkpoint that was recovered.
    Recovered(Arc<str>, OpFuture),
}

/// See the module.
pub struct Prior {
    commit: OpFuture,
    acks: Vec<Ack>,
    /// Offsets through which its checkpoint reads, by source.
    pub read_through: BTreeMap<Arc<str>, i64>,
    /// Producers in its checkpoint.
    pub producers: usize,
    /// Where its acknowledgements were appended.
    pub published: Vec<AckEnd>,
}

impl Prior {
    /// A transaction whose commit was started.
    pub fn new(
        commit: OpFuture,
        acks: Vec<Ack>,
        read_through: BTreeMap<Arc<str>, i64>,
        producers: usize,
    ) -> Prior {
        Prior { commit, acks, read_through, producers, published: Vec::new() }
    }

    /// Its commit.
    pub fn commit(&self) -> &OpFuture {
        &self.commit
    }

    /// Acknowledgements under way.
    pub fn acks(&self) -> usize {
        self.acks.len()
    }

    /// The next step, if it is durable.
    pub fn poll(&mut self, stage: Stage) -> Poll<Result<Durable, PriorError>> {
        match stage {
            Stage::Complete => Poll::Pending,
            Stage::Committing => match self.commit.try_result() {
                None => Poll::Pending,
                Some(Ok(())) => Poll::Ready(Ok(Durable::Commit)),
                Some(Err(error)) => Poll::Ready(Err(PriorError::Commit(error))),
            },
            Stage::Acknowledging(_) => {
                let resolved = self.acks.iter().enumerate().find_map(|(i, ack)| Some((i, ack.try_result()?)));
                match resolved {
                    None => Poll::Pending,
                    Some((index, result)) => {
                        self.acks.swap_remove(index);
                        Poll::Ready(result.map(Durable::Ack).map_err(PriorError::Ack))
                    }
                }
            }
        }
    }

    /// Waits until [`Prior::poll`] is worth calling again. Never ends if nothing is under way.
    pub async fn changed(&self, stage: Stage) {
        match (stage, self.acks.first()) {
            (Stage::Committing, _) => drop(self.commit.clone().await),
            (Stage::Acknowledging(_), Some(Ack::Append(_, append))) => drop(append.clone().await),
            (Stage::Acknowledging(_), Some(Ack::Recovered(_, op))) => drop(op.clone().await),
            (Stage::Acknowledging(_), None) | (Stage::Complete, _) => std::future::pending().await,
        }
    }
}

/// Which operation of the prior transaction failed.
#[derive(Debug)]
pub enum PriorError {
    /// Its commit.
    Commit(OpError),
    /// One of its acknowledgements.
    Ack(OpError),
}

impl Ack {
    fn try_result(&self) -> Option<Result<AckEnd, OpError>> {
        match self {
            Ack::Append(journal, append) => {
                let end = |response: Arc<AppendResponse>| response.commit.as_ref().map(|commit| commit.end);
                let result = append.try_result()?;
                Some(result.map(|response| AckEnd { journal: Arc::clone(journal), end: end(response) }))
            }
            Ack::Recovered(journal, op) => {
                Some(op.try_result()?.map(|()| AckEnd { journal: Arc::clone(journal), end: None }))
            }
        }
    }
}
