//! The pipeline of a primary: one long-lived stream of messages to every other replica of its journal, and the
//! acknowledgements that come back (journal protocol §6).
//!
//! It has two halves. [`Scatter`] sends: it travels with the spool, so that peers see exactly the messages which the local
//! spool is applied, in the same order. [`Gather`] receives: one response of each peer for each message that asked for
//! acknowledgement, in order, any number of messages behind; and while nothing is owed it watches for the end of a peer's
//! stream. The first failure of either half is kept; a pipeline that has failed is torn down, and its journal synchronises
//! anew.
//!
//! A journal with one replica has a pipeline without peers: the same steps, to nobody.

mod sync;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::JournalName;
use proto::protocol::process_spec::Id;
use proto::protocol::{Fragment, Header, LabelSet, ReplicateRequest, ReplicateResponse, Route, Status};
use runtime::grpc;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tonic::Code;

use crate::peers::is_connection;

pub(crate) use sync::{SyncOutcome, classify};

/// A pipeline failed. What was in flight has an unknown outcome: some replicas may have committed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PipelineError {
    /// A peer could not be connected to.
    #[error("connecting to {peer}: {cause}")]
    Connect {
        /// Its id.
        peer: String,
        /// Why not.
        cause: String,
    },
    /// A peer's stream does not take messages any more.
    #[error("send to {peer}: the stream has ended")]
    Send {
        /// Its id.
        peer: String,
    },
    /// A peer's stream ended or failed.
    #[error("recv from {peer}: {cause}")]
    Receive {
        /// Its id.
        peer: String,
        /// How it ended.
        cause: String,
        /// The code of that.
        code: Code,
    },
    /// The pipeline failed while a group was still being sent.
    #[error("the pipeline was torn down")]
    TornDown,
    /// A peer did not accept a commit.
    #[error("recv from {peer}: unexpected !OK response: {status}")]
    NotOk {
        /// Its id.
        peer: String,
        /// What it said.
        status: Status,
    },
    /// A peer's answer to a synchronisation makes no sense.
    #[error("recv from {peer}: unexpected {status}: {detail}")]
    Unexpected {
        /// Its id.
        peer: String,
        /// Its status.
        status: Status,
        /// What came with it.
        detail: String,
    },
}

impl PipelineError {
    /// The code by which a client is told. A peer that died, or is on its way out, is Unavailable: the journal goes on without
    /// it, and clients of every kind try again for that code alone.
    pub(crate) fn code(&self) -> Code {
        match self {
            PipelineError::Connect { .. } | PipelineError::Send { .. } | PipelineError::TornDown => {
                Code::Unavailable
            }
            PipelineError::Receive { code, .. } => *code,
            PipelineError::NotOk { .. } | PipelineError::Unexpected { .. } => Code::Unknown,
        }
    }

    /// The stream of `id` ended with `status`; without one, it ended too soon.
    fn received(id: &Id, status: Option<&tonic::Status>) -> PipelineError {
        let (cause, code) = match status {
            None => ("unexpected EOF".to_owned(), Code::Unavailable),
            Some(status) => (grpc::chain_text(status), code_of(status)),
        };
        PipelineError::Receive { peer: print_id(id), cause, code }
    }
}

/// The code of a peer's status. One that was made on this side is of a connection which broke. That a peer refuses this
/// broker's token says nothing about the client's.
fn code_of(status: &tonic::Status) -> Code {
    match status.code() {
        _ if is_connection(status) => Code::Unavailable,
        Code::Unauthenticated | Code::PermissionDenied => Code::Unknown,
        code => code,
    }
}

pub(crate) fn print_id(id: &Id) -> String {
    format!("zone:{:?} suffix:{:?} ", id.zone, id.suffix)
}

/// Most content of one message to a peer. What a client's message could just hold, another message may not.
const CONTENT_BYTES_MAX: usize = 1 << 20;
/// Proposals that a peer may have open: acknowledgements which are not taken yet.
pub(crate) const PROPOSALS_OPEN_MAX: usize = 64;
/// Blocks below this size are copied together into one message: a message costs more than the copy.
const COPIED_BYTES_MAX: usize = 32 << 10;

/// Opens streams to peers.
pub trait PeerConnector: Send + Sync + 'static {
    /// Begins a Replicate stream of `journal` to `id`, which the route of `header` has an endpoint of.
    ///
    /// # Errors
    /// Why there cannot be one.
    fn connect(&self, journal: &JournalName, id: &Id, header: &Header) -> Result<PeerChannels, String>;

    /// How long streams may stand before others take their place; `None` is for ever.
    fn renew_after(&self) -> Option<Duration> {
        None
    }
}

/// The stream to one peer, as a [`PeerConnector`] makes it.
#[derive(Debug)]
pub struct PeerChannels {
    /// Messages to it. Its capacity bounds how far a peer may be behind.
    pub requests: mpsc::Sender<ReplicateRequest>,
    /// What it answers.
    pub responses: mpsc::Receiver<Result<ReplicateResponse, tonic::Status>>,
}

/// The sending half.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    peers: Vec<(Id, mpsc::Sender<ReplicateRequest>)>,
    /// Goes with the first message.
    opening: Option<Header>,
    /// End of the journal as far as all replicas have committed it. Goes with every proposal.
    settled_through: i64,
    failed: Option<PipelineError>,
}

/// The receiving half.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    peers: Vec<(Id, mpsc::Receiver<Result<ReplicateResponse, tonic::Status>>)>,
    /// Of the round under way, in the order of `peers`.
    partial: Vec<ReplicateResponse>,
}

/// Begins a pipeline of `journal` to every member of the header's route but `header.process_id`, which is this broker.
///
/// # Errors
/// If a peer cannot be connected to.
pub(crate) fn start(
    journal: &JournalName,
    header: &Header,
    connector: &dyn PeerConnector,
) -> Result<(Scatter, Gather), PipelineError> {
    let unrouted = Route::unrouted();
    let route = header.route.as_ref().unwrap_or(&unrouted);
    let (mut scatter, mut gather) = (Scatter::default(), Gather::default());
    for id in route.members.iter().filter(|id| header.process() != Some(id)) {
        let connected = connector.connect(journal, id, header);
        let PeerChannels { requests, responses } =
            connected.map_err(|cause| PipelineError::Connect { peer: print_id(id), cause })?;
        scatter.peers.push((id.clone(), requests));
        gather.peers.push((id.clone(), responses));
    }
    scatter.opening = Some(header.clone());
    Ok((scatter, gather))
}

impl Scatter {
    /// Whether there is nobody to send to.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// The first failure of a send.
    pub(crate) fn failed(&self) -> Option<&PipelineError> {
        self.failed.as_ref()
    }

    /// Whether `messages` can be sent without waiting for a peer.
    pub(crate) fn has_room(&self, messages: usize) -> bool {
        self.peers.iter().all(|(_, peer)| peer.is_closed() || peer.capacity() >= messages)
    }

    /// All replicas have committed the journal through `offset`. Returns whether peers are still to hear of it.
    pub(crate) fn settle_through(&mut self, offset: i64) -> bool {
        let is_news = !self.is_empty() && offset > self.settled_through;
        self.settled_through = self.settled_through.max(offset);
        is_news
    }

    /// Sends a proposal with its registers, the time at which its fragment got its first content, and the trace that it is
    /// part of. Blocks while a peer is behind; never does if there was room.
    pub(crate) fn propose(
        &mut self,
        proposal: &Fragment,
        registers: &LabelSet,
        first_append: Option<Duration>,
        acknowledge: bool,
        trace_context: Option<String>,
    ) {
        let opening = self.opening.take();
        let trace_context = trace_context.unwrap_or_default();
        let settled_through = Some(self.settled_through);
        let first_append = first_append.and_then(|at| i64::try_from(at.as_nanos()).ok());
        self.send(|id| ReplicateRequest {
            header: opening.clone().map(|header| Header { process_id: Some(id.clone()), ..header }),
            deprecated_journal: opening.as_ref().map_or_else(String::new, |_| proposal.journal.clone()),
            proposal: Some(proposal.clone()),
            registers: Some(registers.clone()),
            acknowledge,
            settled_through,
            first_append,
            trace_context: trace_context.clone(),
            ..ReplicateRequest::default()
        });
    }

    /// Sends blocks of content which follow `delta` uncommitted bytes, in messages of their own size. Blocks while a peer
    /// is behind; never does if there was room.
    pub(crate) fn content(&mut self, blocks: &[Bytes], mut delta: i64) {
        if self.is_empty() {
            return;
        }
        let mut copied = BytesMut::new();
        for block in blocks {
            if block.len() >= COPIED_BYTES_MAX {
                self.send_content(copied.split().freeze(), &mut delta);
                self.send_content(block.clone(), &mut delta);
            } else {
                if copied.len() + block.len() > CONTENT_BYTES_MAX {
                    self.send_content(copied.split().freeze(), &mut delta);
                }
                copied.extend_from_slice(block);
            }
        }
        self.send_content(copied.freeze(), &mut delta);
    }

    fn send_content(&mut self, mut rest: Bytes, delta: &mut i64) {
        while !rest.is_empty() {
            let content = rest.split_to(rest.len().min(CONTENT_BYTES_MAX));
            let message = ReplicateRequest { content, content_delta: *delta, ..ReplicateRequest::default() };
            *delta += i64::try_from(message.content.len()).expect("at most CONTENT_BYTES_MAX");
            self.send(|_| message.clone());
        }
    }

    fn send(&mut self, message: impl Fn(&Id) -> ReplicateRequest) {
        for (id, peer) in &self.peers {
            // The others still get it: a message that one peer lost is lost to it alone.
            let is_sent = match peer.try_send(message(id)) {
                Err(TrySendError::Full(message)) => peer.blocking_send(message).is_ok(),
                outcome => outcome.is_ok(),
            };
            if !is_sent && self.failed.is_none() {
                self.failed = Some(PipelineError::Send { peer: print_id(id) });
            }
        }
    }
}

impl Gather {
    /// Whether there is nobody to hear from.
    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Waits until a peer's stream ends, or brings what was not asked for, while no response is owed; for ever if none does.
    /// May be dropped and called again.
    pub(crate) async fn broken(&mut self) -> PipelineError {
        poll_fn(|cx| {
            for (id, responses) in &mut self.peers {
                let Poll::Ready(response) = responses.poll_recv(cx) else { continue };
                return Poll::Ready(match response {
                    Some(Ok(response)) => PipelineError::Unexpected {
                        peer: print_id(id),
                        status: response.status(),
                        detail: "nothing was asked".to_owned(),
                    },
                    Some(Err(status)) => PipelineError::received(id, Some(&status)),
                    None => PipelineError::received(id, None),
                });
            }
            Poll::Pending
        })
        .await
    }

    /// One response of every peer, in the order of the route. May be dropped and called again.
    ///
    /// # Errors
    /// The first peer, in that order, whose stream ended or failed.
    pub(crate) async fn round(&mut self) -> Result<Vec<(Id, ReplicateResponse)>, PipelineError> {
        while let Some((id, responses)) = self.peers.get_mut(self.partial.len()) {
            match responses.recv().await {
                Some(Ok(response)) => self.partial.push(response),
                Some(Err(status)) => return Err(PipelineError::received(id, Some(&status))),
                None => return Err(PipelineError::received(id, None)),
            }
        }
        let ids = self.peers.iter().map(|(id, _)| id.clone());
        Ok(ids.zip(std::mem::take(&mut self.partial)).collect())
    }

    /// One OK of every peer. May be dropped and called again.
    ///
    /// # Errors
    /// As [`Gather::round`], or if a peer says anything else.
    pub(crate) async fn acknowledged(&mut self) -> Result<(), PipelineError> {
        let not_ok = |(id, response): &(Id, ReplicateResponse)| {
            (response.status() != Status::Ok)
                .then(|| PipelineError::NotOk { peer: print_id(id), status: response.status() })
        };
        self.round().await?.iter().find_map(not_ok).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests;
