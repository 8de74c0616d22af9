//! Sends operations to one server and makes its answers comparable.

use std::collections::BTreeMap;
use std::time::Duration;

use etcd_client::proto as pb;
use prost::Message;
use runtime::Clock;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use crate::ops::{Op, WatchOp};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a server said, without what differs between any two servers.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// Revision of the header, zero if it was an error.
    pub revision: i64,
    pub body: Body,
}

#[derive(Debug, PartialEq)]
pub enum Body {
    Error(tonic::Code, String),
    Put(pb::PbPutResponse),
    Range(pb::PbRangeResponse),
    Delete(pb::PbDeleteResponse),
    Txn(pb::PbTxnResponse),
    Grant {
        id: i64,
        ttl: i64,
    },
    TimeToLive {
        gone: bool,
        granted: i64,
        keys: Vec<Vec<u8>>,
    },
    Leases(Vec<i64>),
    KeepAlive {
        id: i64,
        ttl: i64,
    },
    /// Responses without events, sorted, and the events of each watch.
    Watch {
        responses: Vec<(i64, bool, bool, i64, String)>,
        events: BTreeMap<i64, Vec<pb::PbEvent>>,
    },
    Done,
}

impl Answer {
    pub fn is_error(&self) -> bool {
        matches!(self.body, Body::Error(..))
    }

    /// How many events and other responses a watch was given.
    pub fn watched(&self) -> (usize, usize) {
        match &self.body {
            Body::Watch { responses, events } => (events.values().map(Vec::len).sum(), responses.len()),
            _ => (0, 0),
        }
    }
}

pub struct Server {
    name: &'static str,
    endpoint: Endpoint,
    channel: Channel,
}

impl Server {
    pub fn new(name: &'static str, endpoint: &str) -> Server {
        // The watch of everything is read at the end only. HTTP/2 bears many small messages if the window is large.
        let window = runtime::grpc::CONNECTION_WINDOW_BYTES;
        let endpoint =
            Endpoint::from_shared(endpoint.to_owned()).unwrap().initial_connection_window_size(window);
        Server { name, channel: endpoint.connect_lazy(), endpoint }
    }

    async fn unary<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(method);
        Ok(grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }

    /// Opens a stream with its first request, which etcd waits for before it answers at all. It has a connection of its
    /// own: streams are dropped when they have told enough, and a connection bears only so many resets.
    async fn stream<Q, A>(&self, method: &'static str, first: Q) -> (mpsc::Sender<Q>, Streaming<A>)
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.endpoint.connect_lazy());
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Q, A>::default();
        let (sender, requests) = mpsc::channel(8);
        sender.send(first).await.unwrap();
        let request = Request::new(ReceiverStream::new(requests));
        let response = grpc.streaming(request, PathAndQuery::from_static(method), codec).await.unwrap();
        (sender, response.into_inner())
    }

    /// Carries out `op`. A watch waits for so many events and other responses, or for all there are if that is not known.
    pub async fn answer(&mut self, op: &Op, expected: Option<(usize, usize)>) -> Answer {
        let outcome = self.outcome(op, expected).await;
        outcome.unwrap_or_else(|status| Answer {
            revision: 0,
            body: Body::Error(status.code(), status.message().to_owned()),
        })
    }

    async fn outcome(&mut self, op: &Op, expected: Option<(usize, usize)>) -> Result<Answer, Status> {
        let (header, body) = match op {
            Op::Put(request) => {
                let mut response: pb::PbPutResponse =
                    self.unary("/etcdserverpb.KV/Put", request.clone()).await?;
                (response.header.take(), Body::Put(response))
            }
            Op::Range(request) => {
                let mut response: pb::PbRangeResponse =
                    self.unary("/etcdserverpb.KV/Range", request.clone()).await?;
                (response.header.take(), Body::Range(response))
            }
            Op::Delete(request) => {
                let mut response: pb::PbDeleteResponse =
                    self.unary("/etcdserverpb.KV/DeleteRange", request.clone()).await?;
                (response.header.take(), Body::Delete(response))
            }
            Op::Txn(request) => {
                let mut response: pb::PbTxnResponse =
                    self.unary("/etcdserverpb.KV/Txn", request.clone()).await?;
                (response.header.take(), Body::Txn(response))
            }
            Op::Compact(request) => {
                let response: pb::PbCompactionResponse =
                    self.unary("/etcdserverpb.KV/Compact", *request).await?;
                (response.header, Body::Done)
            }
            Op::Grant(request) => {
                let response: pb::PbLeaseGrantResponse =
                    self.unary("/etcdserverpb.Lease/LeaseGrant", *request).await?;
                (response.header, Body::Grant { id: response.id, ttl: response.ttl })
            }
            Op::Revoke(request) => {
                let response: pb::PbLeaseRevokeResponse =
                    self.unary("/etcdserverpb.Lease/LeaseRevoke", *request).await?;
                (response.header, Body::Done)
            }
            Op::TimeToLive(request) => {
                let mut response: pb::PbLeaseTimeToLiveResponse =
                    self.unary("/etcdserverpb.Lease/LeaseTimeToLive", *request).await?;
                response.keys.sort();
                let gone = response.ttl == -1;
                assert!(gone || (response.granted_ttl - response.ttl) < 60, "{}: {response:?}", self.name);
                let body = Body::TimeToLive { gone, granted: response.granted_ttl, keys: response.keys };
                (response.header, body)
            }
            Op::Leases => {
                let request = pb::PbLeaseLeasesRequest {};
                let response: pb::PbLeaseLeasesResponse =
                    self.unary("/etcdserverpb.Lease/LeaseLeases", request).await?;
                let mut ids: Vec<i64> = response.leases.iter().map(|lease| lease.id).collect();
                ids.sort_unstable();
                (response.header, Body::Leases(ids))
            }
            Op::KeepAlive(request) => {
                let (_sender, mut responses) =
                    self.stream("/etcdserverpb.Lease/LeaseKeepAlive", *request).await;
                let response: pb::PbLeaseKeepAliveResponse = responses.message().await?.unwrap();
                (response.header, Body::KeepAlive { id: response.id, ttl: response.ttl })
            }
            Op::Watch(watches) => return Ok(self.watch(watches, expected).await),
        };
        let header = header.unwrap();
        assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0, "{}", self.name);
        Ok(Answer { revision: header.revision, body })
    }

    /// Starts all of `watches` on one stream.
    async fn watch(&self, watches: &[WatchOp], expected: Option<(usize, usize)>) -> Answer {
        let (sender, mut stream) = self.stream("/etcdserverpb.Watch/Watch", watches[0].request()).await;
        for watch in &watches[1..] {
            sender.send(watch.request()).await.unwrap();
        }
        let (mut responses, mut events) = (Vec::new(), BTreeMap::<i64, Vec<pb::PbEvent>>::new());
        let (mut revision, mut count, mut asked) = (0, 0, false);
        loop {
            // The embedded etcd tells its progress after what came before it; the real one may overtake itself.
            let complete = match expected {
                Some((e, r)) => count >= e && responses.len() >= r,
                None => responses.len() >= watches.len(),
            };
            if complete && !asked {
                asked = true;
                sender.send(progress_request()).await.unwrap();
            }
            // What does not come shows as a difference.
            let Ok(message) = Clock::system().timeout(PATIENCE, stream.message()).await else { break };
            let response: pb::PbWatchResponse = message.unwrap().expect("watches have no end");
            if response.watch_id == -1 && !response.created {
                break;
            }
            if response.created || response.canceled {
                revision = revision.max(response.header.unwrap().revision);
                let reason = response.cancel_reason;
                let compacted = response.compact_revision;
                responses.push((response.watch_id, response.created, response.canceled, compacted, reason));
            }
            count += response.events.len();
            events.entry(response.watch_id).or_default().extend(response.events);
        }
        responses.sort();
        events.retain(|_, events| !events.is_empty());
        Answer { revision, body: Body::Watch { responses, events } }
    }

    /// Watches everything from now on.
    pub async fn watch_all(&self) -> Everything {
        let (sender, mut stream) =
            self.stream("/etcdserverpb.Watch/Watch", WatchOp::everything().request()).await;
        let created: pb::PbWatchResponse = stream.message().await.unwrap().unwrap();
        assert!(created.created && !created.canceled);
        Everything { name: self.name, _sender: sender, stream, events: Vec::new() }
    }
}

fn progress_request() -> pb::PbWatchRequest {
    pb::PbWatchRequest { request_union: Some(pb::PbWatchRequestUnion::ProgressRequest(Default::default())) }
}

/// All events of a server.
pub struct Everything {
    name: &'static str,
    _sender: mpsc::Sender<pb::PbWatchRequest>,
    stream: Streaming<pb::PbWatchResponse>,
    events: Vec<pb::PbEvent>,
}

impl Everything {
    /// The events up to revision `last`, which must have one.
    pub async fn events_through(&mut self, last: i64) -> Vec<pb::PbEvent> {
        while self.events.last().and_then(|event| event.kv.as_ref()).map_or(0, |kv| kv.mod_revision) < last {
            let message = Clock::system().timeout(PATIENCE, self.stream.message()).await;
            let message = message.unwrap_or_else(|_| panic!("{}: no event of revision {last}", self.name));
            self.events.extend(message.unwrap().unwrap().events);
        }
        self.events.clone()
    }
}
