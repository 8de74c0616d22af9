//! Content which this replica lacks, from a replica that has it.
//!
//! A broker that has just become a replica holds what was appended since, and learns from the stores what came before. In
//! between lies content which the other replicas hold and have not stored yet, or not for long enough to have been
//! listed here. A read of such content is relayed from one of them, up to where this replica can go on. A peer which is
//! asked so serves what it holds, and never asks others in turn: the request names it.

use auth::Capability;
use proto::Canonical;
use proto::protocol::process_spec::Id;
use proto::protocol::{Fragment, Header, ReadRequest, ReadResponse, Route, Status};
use runtime::backoff::Backoff;
use runtime::{CancellationToken, Clock, Instant};
use std::time::Duration;
use tonic::Streaming;

use crate::peers::Peers;

/// How long a peer may take to say whether it has content.
const ANSWER_MAX: Duration = Duration::from_secs(5);

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Waits before peers are asked again for the same content.
const ASK_AGAIN: &[Duration] = &[s(1), s(1), s(2), s(5), s(10), s(30)];

/// Who else may have content.
pub(super) struct Elsewhere {
    peers: Peers,
    clock: Clock,
    request: ReadRequest,
    header: Header,
    others: Vec<Id>,
    asked: Option<Asked>,
    backoff: Backoff,
}

/// The last question.
struct Asked {
    offset: i64,
    /// Whether all others answered that they do not have it.
    is_nowhere: bool,
    /// When to ask anew.
    again: Instant,
}

/// What a peer is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// All that it has or can get from the stores.
    All,
    /// What is in its spools.
    Spool,
}

/// What peers say of content.
pub(super) enum Held {
    /// One of them sends it.
    By(Box<Relay>),
    /// No other replica has it.
    Nowhere,
    /// None has it of those that could be asked, and there are others.
    Unknown,
}

impl Elsewhere {
    /// The other members of the route of `header`, which names this broker. Nobody, if the request must not be passed on.
    pub(super) fn new(peers: Peers, clock: Clock, request: &ReadRequest, header: &Header) -> Elsewhere {
        let may_ask = !request.do_not_proxy && request.header.is_none();
        let route = header.route.as_ref().filter(|_| may_ask);
        let members = route.map_or(&[][..], |route| &route.members);
        let others = members.iter().filter(|id| Some(*id) != header.process()).cloned().collect();
        Elsewhere {
            peers,
            clock,
            request: request.clone(),
            header: header.clone(),
            others,
            asked: None,
            backoff: Backoff::new(ASK_AGAIN),
        }
    }

    /// Asks the other replicas for the content at `offset`, up to `until`; for the same offset not again and again, but
    /// after a while.
    pub(super) async fn ask(&mut self, offset: i64, until: i64) -> Held {
        match &self.asked {
            _ if self.others.is_empty() => return Held::Nowhere,
            Some(asked) if asked.offset == offset => {
                if self.clock.now() < asked.again {
                    return if asked.is_nowhere { Held::Nowhere } else { Held::Unknown };
                }
            }
            _ => self.backoff.reset(),
        }
        let mut is_nowhere = true;
        let mut relay = None;
        for id in &self.others {
            match self.clock.timeout(ANSWER_MAX, self.ask_one(id, offset, until, Asking::All)).await {
                Ok(Ok(Some(found))) => {
                    (relay, is_nowhere) = (Some(found), false);
                    break;
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(journal = self.request.journal, offset, %error, "cannot ask a replica");
                    is_nowhere = false;
                }
                Err(_elapsed) => is_nowhere = false,
            }
        }
        let again = self.clock.now() + self.backoff.next();
        self.asked = Some(Asked { offset, is_nowhere, again });
        match relay {
            Some(relay) => Held::By(Box::new(relay)),
            None if is_nowhere => Held::Nowhere,
            None => Held::Unknown,
        }
    }

    /// What a spool of another replica has of the content at `offset`, up to `until`: what is stored is not asked for.
    pub(super) async fn ask_spools(&self, offset: i64, until: i64) -> Option<Box<Relay>> {
        for id in &self.others {
            let asked = self.ask_one(id, offset, until, Asking::Spool);
            match self.clock.timeout(ANSWER_MAX, asked).await {
                Ok(Ok(Some(relay))) => return Some(Box::new(relay)),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::debug!(journal = self.request.journal, offset, %error, "cannot ask a replica");
                }
            }
        }
        None
    }

    /// When to ask anew for the content at `offset`; None if nobody was asked for it.
    pub(super) fn again_at(&self, offset: i64) -> Option<Instant> {
        self.asked.as_ref().filter(|asked| asked.offset == offset).map(|asked| asked.again)
    }

    async fn ask_one(
        &self,
        id: &Id,
        offset: i64,
        until: i64,
        asking: Asking,
    ) -> Result<Option<Relay>, Box<dyn std::error::Error + Send + Sync>> {
        let unrouted = Route::unrouted();
        let route = self.header.route.as_ref().unwrap_or(&unrouted);
        let endpoint = route.endpoint_of(id).ok_or("its endpoint is not known")?;
        let mut client = self.peers.journal_client(endpoint)?;
        let end_offset =
            if self.request.end_offset == 0 { until } else { until.min(self.request.end_offset) };
        let header = Header { process_id: Some(id.clone()), ..self.header.clone() }.canonical();
        let request = ReadRequest {
            header: Some(header),
            offset,
            end_offset,
            block: false,
            do_not_proxy: asking == Asking::Spool,
            ..self.request.clone()
        };
        let request = self.peers.request(request, Capability::READ, &self.request.journal);
        let mut responses = client.read(request).await?.into_inner();
        let Some(first) = responses.message().await? else { return Ok(None) };
        let is_sent = |fragment: &Fragment| asking == Asking::All || fragment.backing_store.is_empty();
        let has_it = first.status() == Status::Ok
            && first.offset == offset
            && first.fragment.as_ref().is_some_and(is_sent);
        Ok(has_it.then(|| Relay { first: Some(first), responses, offset }))
    }
}

/// A peer's answer.
pub(super) struct Relay {
    first: Option<ReadResponse>,
    responses: Streaming<ReadResponse>,
    offset: i64,
}

impl Relay {
    /// Offset after what was relayed.
    pub(super) fn offset(&self) -> i64 {
        self.offset
    }

    /// The next response; None when the peer has sent all, fails, or goes on elsewhere than where its content ended.
    pub(super) async fn next(&mut self, stopped: &CancellationToken) -> Option<ReadResponse> {
        let response = match self.first.take() {
            Some(first) => first,
            None => tokio::select! {
                biased;
                () = stopped.cancelled() => return None,
                response = self.responses.message() => response.ok().flatten()?,
            },
        };
        if response.status() != Status::Ok || response.offset != self.offset {
            return None;
        }
        self.offset += i64::try_from(response.content.len()).expect("a message is smaller than its limit");
        Some(ReadResponse { header: None, ..response })
    }
}

#[cfg(test)]
mod tests {
    use client::testing::StubBroker;
    use proto::protocol::header::Etcd;
    use runtime::TaskGroup;

    use super::*;
    use crate::fixtures::member;

    const JOURNAL: &str = "a/journal";

    /// Asks as member `me` of a route with members at these endpoints besides.
    fn elsewhere(endpoints: &[&str], request: ReadRequest) -> Elsewhere {
        let ids = ["me", "one", "two"].map(|suffix| member(suffix).to_proto());
        let mine = std::iter::once("http://me.invalid").chain(endpoints.iter().copied());
        let route = Route {
            members: ids[..=endpoints.len()].to_vec(),
            primary: 0,
            endpoints: mine.map(str::to_owned).collect(),
        };
        let etcd = Etcd { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
        let header = Header::routed(ids[0].clone(), route, etcd);
        Elsewhere::new(Peers::default(), Clock::system(), &request, &header)
    }

    fn request() -> ReadRequest {
        ReadRequest { journal: JOURNAL.to_owned(), block: true, ..Default::default() }
    }

    async fn relayed(held: Held) -> (Vec<u8>, i64) {
        let Held::By(mut relay) = held else { panic!("no replica has it") };
        let (mut content, token) = (Vec::new(), CancellationToken::new());
        while let Some(response) = relay.next(&token).await {
            assert!(response.header.is_none());
            content.extend_from_slice(&response.content);
        }
        (content, relay.offset())
    }

    #[tokio::test]
    async fn content_comes_from_the_replica_which_has_it() {
        let tasks = TaskGroup::new("test");
        let [empty, full] =
            [StubBroker::start(&tasks).await.unwrap(), StubBroker::start(&tasks).await.unwrap()];
        empty.set_content(JOURNAL, 50, b"");
        full.set_content(JOURNAL, 0, b"0123456789");
        let mut it = elsewhere(&[empty.endpoint(), full.endpoint()], request());
        assert_eq!(relayed(it.ask(3, 8).await).await, (b"34567".to_vec(), 8));
        let asked = full.reads().remove(0);
        assert_eq!((asked.offset, asked.end_offset, asked.block), (3, 8, false));
        assert_eq!(asked.header.unwrap().process_id, Some(member("two").to_proto()));
        let bounded = ReadRequest { end_offset: 5, ..request() };
        let mut it = elsewhere(&[full.endpoint()], bounded);
        assert_eq!(relayed(it.ask(0, 8).await).await, (b"01234".to_vec(), 5));
        tasks.cancel();
    }

    #[tokio::test]
    async fn spools_are_asked_for_what_they_have_and_not_for_what_is_stored() {
        let tasks = TaskGroup::new("test");
        let broker = StubBroker::start(&tasks).await.unwrap();
        broker.set_content(JOURNAL, 0, b"0123456789");
        let it = elsewhere(&[broker.endpoint()], request());
        let relay = it.ask_spools(3, 8).await.expect("it is in a spool");
        assert_eq!(relayed(Held::By(relay)).await, (b"34567".to_vec(), 8));
        assert!(broker.reads().remove(0).do_not_proxy);
        assert!(it.ask_spools(10, 12).await.is_none());
        tasks.cancel();
    }

    #[tokio::test]
    async fn what_nobody_has_is_told_from_what_is_not_known() {
        let tasks = TaskGroup::new("test");
        let broker = StubBroker::start(&tasks).await.unwrap();
        broker.set_content(JOURNAL, 50, b"later");
        let mut it = elsewhere(&[broker.endpoint()], request());
        assert!(matches!(it.ask(0, 60).await, Held::Nowhere));
        assert!(it.again_at(0).is_some() && it.again_at(1).is_none());
        assert!(matches!(it.ask(0, 60).await, Held::Nowhere), "the answer is remembered");
        assert_eq!(broker.reads().len(), 1);
        assert!(matches!(it.ask(50, 55).await, Held::By(_)));

        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let gone = format!("http://{gone}");
        assert!(matches!(elsewhere(&[&gone, broker.endpoint()], request()).ask(0, 60).await, Held::Unknown));
        assert!(matches!(elsewhere(&[""], request()).ask(0, 60).await, Held::Unknown));
        for alone in [
            ReadRequest { do_not_proxy: true, ..request() },
            ReadRequest { header: Some(Header::default()), ..request() },
        ] {
            assert!(matches!(elsewhere(&[&gone], alone).ask(0, 60).await, Held::Nowhere));
        }
        tasks.cancel();
    }
}
