//! Streams of a primary to its peers.

use std::time::Duration;

use auth::Capability;
use proto::JournalName;
use proto::protocol::process_spec::Id;
use proto::protocol::{Header, ReplicateRequest, ReplicateResponse};
use runtime::{Clock, OnError, TaskGroup};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use crate::peers::Peers;
use crate::pipeline::{PROPOSALS_OPEN_MAX, PeerChannels, PeerConnector};

/// Messages that a peer may be behind. Each has at most a mebibyte of content.
const MESSAGES_AHEAD_MAX: usize = 16;
/// Streams are renewed well before the hour of their tokens is over.
const RENEW_AFTER: Duration = Duration::from_secs(45 * 60);
/// Time for a stream to end, once its primary has ended it.
const END_WITHIN: Duration = Duration::from_secs(5);

/// Connects to peers by gRPC, over the connections that all journals share.
pub struct GrpcConnector {
    peers: Peers,
    clock: Clock,
    tasks: TaskGroup,
}

impl GrpcConnector {
    /// Streams are tasks of `tasks`.
    pub fn new(peers: &Peers, clock: &Clock, tasks: &TaskGroup) -> GrpcConnector {
        GrpcConnector { peers: peers.clone(), clock: clock.clone(), tasks: tasks.child("replicate") }
    }
}

impl PeerConnector for GrpcConnector {
    fn connect(&self, journal: &JournalName, id: &Id, header: &Header) -> Result<PeerChannels, String> {
        let endpoint = header.route.as_ref().and_then(|route| route.endpoint_of(id));
        let endpoint = endpoint.ok_or("its endpoint is not known")?;
        let client = self.peers.journal_client(endpoint).map_err(|err| err.to_string())?;
        let (requests, messages) = mpsc::channel(MESSAGES_AHEAD_MAX);
        let messages = ReceiverStream::new(messages);
        let request = self.peers.request(messages, Capability::REPLICATE, journal.as_str());
        let (answers, responses) = mpsc::channel(PROPOSALS_OPEN_MAX);
        let (clock, stop) = (self.clock.clone(), self.tasks.token().clone());
        self.tasks.spawn("stream", OnError::Log, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = ended(&clock, &answers) => {}
                outcome = Box::pin(relay(client, request, &answers)) => if let Err(status) = outcome {
                    // An error means that the pipeline has been torn down.
                    let _ = answers.send(Err(status)).await;
                },
            }
            Ok(())
        });
        Ok(PeerChannels { requests, responses })
    }

    fn renew_after(&self) -> Option<Duration> {
        self.peers.signs().then_some(RENEW_AFTER)
    }
}

/// A moment after nobody wants answers any more: the peer had time to see the end of its stream.
async fn ended(clock: &Clock, answers: &mpsc::Sender<Result<ReplicateResponse, Status>>) {
    answers.closed().await;
    clock.sleep(END_WITHIN).await;
}

/// Sends messages until there are no more, and passes on what is answered until the peer ends.
async fn relay(
    mut client: proto::protocol::journal_client::JournalClient<runtime::grpc_metrics::CountedChannel>,
    request: Request<ReceiverStream<ReplicateRequest>>,
    answers: &mpsc::Sender<Result<ReplicateResponse, Status>>,
) -> Result<(), Status> {
    let mut responses = client.replicate(request).await?.into_inner();
    while let Some(response) = responses.message().await? {
        if answers.send(Ok(response)).await.is_err() {
            // The pipeline has ended; the peer is to see that its stream did, in order.
            while responses.message().await?.is_some() {}
            break;
        }
    }
    Ok(())
}
