//! Connections to other brokers, one for each endpoint, and the choice among the brokers of a route.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use auth::{Authorizer, Capability, Grant};
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{Header, Route};
use runtime::grpc_metrics::{ClientCalls, CountedChannel};
use runtime::tls::ClientTls;
use runtime::{BoxError, Clock, Instant, grpc, trace};
use tonic::Request;

/// Connections that are kept. Clusters are smaller; beyond it, connections are made anew rather than kept for ever.
const CONNECTIONS_MAX: usize = 1024;
/// How long a broker which could not be reached is asked last.
const AVOID_FAILED: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Connection {
    channel: CountedChannel,
    failed: Option<Instant>,
}

#[derive(Debug)]
struct Inner {
    zone: String,
    clock: Clock,
    /// What this broker asks others as.
    authorizer: Authorizer,
    tls: ClientTls,
    calls: ClientCalls,
    connections: Mutex<BTreeMap<String, Connection>>,
    /// Counts choices, which spreads them.
    choices: AtomicUsize,
}

/// Connections to other brokers. Cheap to clone; clones share them.
#[derive(Debug, Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

impl Default for Peers {
    fn default() -> Peers {
        let calls = ClientCalls::uncounted();
        Peers::near("", &Clock::system(), Authorizer::none(), ClientTls::default(), calls)
    }
}

impl Peers {
    /// Connections of a broker in `zone`, whose requests `authorizer` authorizes: brokers of this zone are preferred. `tls` is
    /// for endpoints of `https`. Calls are counted in `calls`.
    pub fn near(
        zone: &str,
        clock: &Clock,
        authorizer: Authorizer,
        tls: ClientTls,
        calls: ClientCalls,
    ) -> Peers {
        let inner = Inner {
            zone: zone.to_owned(),
            clock: clock.clone(),
            authorizer,
            tls,
            calls,
            connections: Mutex::default(),
            choices: AtomicUsize::new(0),
        };
        Peers { inner: Arc::new(inner) }
    }

    /// A client of the broker at `endpoint`. Connects when first used. Must be called within a runtime.
    ///
    /// # Errors
    /// If the endpoint is malformed.
    pub fn journal_client(&self, endpoint: &str) -> Result<JournalClient<CountedChannel>, BoxError> {
        let mut connections = self.connections();
        let channel = match connections.get(endpoint) {
            Some(connection) => connection.channel.clone(),
            None => {
                let channel = self.inner.calls.over(grpc::secure_channel(endpoint, &self.inner.tls)?);
                if connections.len() >= CONNECTIONS_MAX {
                    connections.clear();
                }
                let connection = Connection { channel, failed: None };
                connections.entry(endpoint.to_owned()).or_insert(connection).channel.clone()
            }
        };
        Ok(JournalClient::new(channel).max_decoding_message_size(grpc::MAX_MESSAGE_RECV_SERVER))
    }

    /// A request of `message`, with the context of the current span, and with a token of this broker's own which allows `capability` on `journal` for an hour.
    pub fn request<T>(&self, message: T, capability: Capability, journal: &str) -> Request<T> {
        let grant = Grant::journal(capability, journal);
        self.inner.authorizer.authorize(trace::request(message), grant, self.inner.clock.unix_now())
    }

    /// Whether requests to peers stand only until their token expires.
    pub fn signs(&self) -> bool {
        self.inner.authorizer.signs()
    }

    /// A client of the process which `header` names or, if it names none, of the best member of its route.
    ///
    /// # Errors
    /// If the route has no endpoint for it.
    pub fn client_of(&self, header: &Header) -> Result<JournalClient<CountedChannel>, BoxError> {
        let best = self.candidates(header).into_iter().next();
        self.journal_client(best.ok_or(NO_ENDPOINT)?)
    }

    /// Calls the process which `header` names or, if it names none, the members of its route, the best first, until one of
    /// them can be reached. Returns its endpoint with the answer.
    ///
    /// # Errors
    /// If the route has no endpoint, none can be reached, or the one that was reached answers with an error.
    pub async fn ask<T, F>(
        &self,
        header: &Header,
        call: impl Fn(JournalClient<CountedChannel>) -> F,
    ) -> Result<(String, T), BoxError>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let mut failure: BoxError = NO_ENDPOINT.into();
        for endpoint in self.candidates(header) {
            match call(self.journal_client(endpoint)?).await {
                Ok(answer) => return Ok((endpoint.to_owned(), answer)),
                Err(status) if is_connection(&status) => {
                    self.note_failed(endpoint);
                    failure = status.into();
                }
                Err(status) => return Err(status.into()),
            }
        }
        Err(failure)
    }

    /// Notes that a broker could not be reached, or that the connection to it was lost: others are asked first for a while.
    pub fn note_failed(&self, endpoint: &str) {
        let now = self.inner.clock.now();
        if let Some(connection) = self.connections().get_mut(endpoint) {
            connection.failed = Some(now);
        }
    }

    /// The endpoints that may be asked on behalf of `header`, the best first.
    fn candidates<'h>(&self, header: &'h Header) -> Vec<&'h str> {
        let Some(route) = &header.route else { return Vec::new() };
        if let Some(id) = header.process() {
            return route.endpoint_of(id).into_iter().collect();
        }
        let (now, connections) = (self.inner.clock.now(), self.connections());
        let failed = |endpoint: &str| {
            let failed = connections.get(endpoint).and_then(|connection| connection.failed);
            failed.is_some_and(|failed| now.saturating_duration_since(failed) < AVOID_FAILED)
        };
        let choice = self.inner.choices.fetch_add(1, Ordering::Relaxed);
        order(route, &self.inner.zone, failed, choice)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<String, Connection>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_ENDPOINT: &str = "no broker of the journal's route has a known endpoint";

/// Whether a call failed because of the connection: this side made the status, and its source is the transport's error.
pub fn is_connection(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The endpoints of a route's members: those which did not fail lately first, of these the ones of `zone` first, and
/// equals in an order that changes with `choice`.
fn order<'r>(route: &'r Route, zone: &str, failed: impl Fn(&str) -> bool, choice: usize) -> Vec<&'r str> {
    let mut members: Vec<_> = (0..route.members.len())
        .filter_map(|index| Some((index, route.endpoint_at(index)?)))
        .map(|(index, endpoint)| {
            let turn = index.wrapping_add(choice) % route.members.len();
            ((failed(endpoint), route.members[index].zone != zone, turn), endpoint)
        })
        .collect();
    members.sort_unstable();
    members.into_iter().map(|(_, endpoint)| endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::member;
    use proto::protocol::process_spec::Id;

    #[tokio::test]
    async fn a_header_names_the_peer_or_leaves_the_choice() {
        let peers = Peers::default();
        let mut route = Route::unrouted();
        let header = |id, route: &Route| Header::routed(id, route.clone(), Default::default());
        assert!(peers.client_of(&header(Default::default(), &route)).is_err());
        route.members = vec![member("one").to_proto(), member("two").to_proto()];
        route.endpoints = vec![String::new(), "http://localhost:2".to_owned()];
        peers.client_of(&header(Default::default(), &route)).unwrap();
        peers.client_of(&header(member("two").to_proto(), &route)).unwrap();
        assert!(peers.client_of(&header(member("one").to_proto(), &route)).is_err());
        assert_eq!(peers.connections().len(), 1);
    }

    #[test]
    fn the_nearest_that_work_come_first() {
        let id = |(zone, suffix): (&str, &str)| Id { zone: zone.to_owned(), suffix: suffix.to_owned() };
        let route = Route {
            members: [("x", "1"), ("y", "2"), ("y", "3"), ("z", "4")].map(id).to_vec(),
            primary: 0,
            endpoints: ["http://1", "http://2", "http://3", ""].map(str::to_owned).to_vec(),
        };
        let healthy = |_: &str| false;
        let orders = [0, 1, 2, 3].map(|choice| order(&route, "y", healthy, choice));
        assert!(orders.iter().all(|order| order.len() == 3 && order[2] == "http://1"), "{orders:?}");
        assert!(orders.iter().any(|order| order[0] == "http://2"), "{orders:?}");
        assert!(orders.iter().any(|order| order[0] == "http://3"), "{orders:?}");
        let failed = |endpoint: &str| endpoint != "http://1";
        assert_eq!(order(&route, "y", failed, 0)[0], "http://1");
        let elsewhere: std::collections::BTreeSet<_> =
            (0..4).map(|choice| order(&route, "w", healthy, choice)[0]).collect();
        assert_eq!(elsewhere.len(), 3);
    }

    #[tokio::test]
    async fn the_next_is_asked_where_one_cannot_be_reached() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let calls = ClientCalls::uncounted();
        let peers = Peers::near("y", &Clock::system(), Authorizer::none(), ClientTls::default(), calls);
        let route = Route {
            members: vec![
                Id { zone: "y".to_owned(), suffix: "gone".to_owned() },
                Id { zone: "z".to_owned(), suffix: "far".to_owned() },
            ],
            primary: 0,
            endpoints: vec![format!("http://{gone}"), "http://far".to_owned()],
        };
        let header = Header::routed(Id::default(), route, Default::default());
        // The first cannot be reached indeed; nobody listens where the second is said to be, either.
        let asked = Mutex::new(0);
        let call = |mut client: JournalClient<CountedChannel>| {
            let first = std::mem::replace(&mut *asked.lock().unwrap(), 1) == 0;
            async move {
                if first {
                    client.list(proto::protocol::ListRequest::default()).await.map(|_| 0)
                } else {
                    Ok(7)
                }
            }
        };
        assert_eq!(peers.ask(&header, call).await.unwrap(), ("http://far".to_owned(), 7));
        assert_eq!(peers.candidates(&header)[0], "http://far", "the other one failed");
    }
}
