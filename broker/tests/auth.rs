//! Access tokens over real connections (journal protocol §13): what is refused, what is hidden, and when requests end.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use std::sync::OnceLock;
use std::time::Duration;

use auth::{AUTHORIZATION, Authorizer, Capability, Claims, Keys};
use bytes::Bytes;
use client::{AppendService, ClientOptions, JournalClient, RetryReader, WatchedList};
use futures::StreamExt;
use proto::protocol::{
    AppendRequest, ApplyRequest, CompressionCodec, Fragment, FragmentStoreHealthRequest, FragmentsRequest,
    Header, LabelSelector, LabelSet, ListRequest, ReadRequest, ReplicateRequest, Route, Status,
};
use runtime::{Clock, ClockSteering, TaskGroup};
use support::cluster::{Cluster, NAME};
use support::{Fixture, delete, eventually, journal, names, upsert, within};
use tempfile::TempDir;
use tonic::{Code, Request};

const KEY: &str = "c2VjcmV0";
const OTHER_KEY: &str = "b3RoZXI=";
const HOUR: Duration = Duration::from_secs(3600);
const MISSING: &str = "no/such";

const RPCS: [(&str, Capability); 7] = [
    ("List", Capability::LIST),
    ("Apply", Capability::APPLY),
    ("Read", Capability::READ),
    ("Append", Capability::APPEND),
    ("Replicate", Capability::REPLICATE),
    ("ListFragments", Capability::READ),
    ("FragmentStoreHealth", Capability::READ),
];

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

/// A token of an hour, as `adjust` has it.
fn token(key: &str, clock: &Clock, adjust: impl FnOnce(&mut Claims)) -> String {
    let now = clock.unix_seconds();
    let mut claims = Claims {
        capability: Capability::ALL,
        selector: LabelSelector::everything(),
        expires: now + 3600,
        issued: Some(now),
        ..Claims::default()
    };
    adjust(&mut claims);
    keys(key).sign(&claims)
}

fn on(name: &str) -> LabelSelector {
    LabelSelector::include([("name", name)])
}

fn request<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// What a request came to: its status and what its header says, or the code and the text of its failure.
type Outcome = Result<(Status, Option<Route>), (Code, String)>;

/// A broker with a key, and a clock that the test moves.
struct It {
    fixture: Fixture,
    clock: Clock,
    steering: ClockSteering,
    all: String,
}

impl It {
    /// With two journals which have a label and content.
    async fn start() -> It {
        let (clock, steering) = Clock::steered();
        let dir = TempDir::with_prefix("courant-auth-").unwrap();
        let broker_clock = clock.clone();
        let fixture = Fixture::start_in(dir, |options| {
            options.auth_keys = Some(keys(KEY));
            options.clock = broker_clock;
        })
        .await;
        let all = token(KEY, &clock, |claims| claims.expires += 1_000_000);
        let mut it = It { fixture, clock, steering, all };
        for (name, team) in [("a/one", "red"), ("a/two", "blue")] {
            let spec = proto::protocol::JournalSpec {
                labels: Some(LabelSet::from_pairs([("team", team)])),
                ..journal(name)
            };
            let apply = ApplyRequest { changes: vec![upsert(spec, 0)] };
            let applied = within(it.fixture.client.apply(request(apply, Some(&it.all)))).await.unwrap();
            assert_eq!(applied.into_inner().status(), Status::Ok);
            let all = it.all.clone();
            eventually("it takes appends", async || {
                (it.call("Append", name, Some(&all)).await.unwrap().0 == Status::Ok).then_some(())
            })
            .await;
        }
        it
    }

    fn token(&self, adjust: impl FnOnce(&mut Claims)) -> String {
        token(KEY, &self.clock, adjust)
    }

    /// Makes a request of one kind, about one journal.
    async fn call(&mut self, rpc: &str, journal: &str, token: Option<&str>) -> Outcome {
        let outcome = within(self.try_call(rpc, journal, token)).await;
        outcome.map_err(|status| (status.code(), status.message().to_owned()))
    }

    async fn try_call(
        &mut self,
        rpc: &str,
        name: &str,
        token: Option<&str>,
    ) -> Result<(Status, Option<Route>), tonic::Status> {
        let client = &mut self.fixture.client;
        let journal = name.to_owned();
        let route = |header: Option<Header>| header.and_then(|header| header.route);
        Ok(match rpc {
            "List" => {
                let list = ListRequest { selector: Some(on(name)), ..Default::default() };
                let first = client.list(request(list, token)).await?.into_inner().message().await?.unwrap();
                let found = if first.journals.is_empty() { Status::JournalNotFound } else { first.status() };
                (found, route(first.header))
            }
            "Apply" => {
                // Deletes it, if it has a revision that it cannot have.
                let apply = ApplyRequest { changes: vec![delete(name, 1 << 40)] };
                let applied = client.apply(request(apply, token)).await?.into_inner();
                (applied.status(), route(applied.header))
            }
            "Read" => {
                let read = ReadRequest { journal, offset: -1, ..Default::default() };
                let first = client.read(request(read, token)).await?.into_inner().message().await?.unwrap();
                (first.status(), route(first.header))
            }
            "Append" => {
                let opening = AppendRequest { journal, ..Default::default() };
                let messages = futures::stream::iter([opening, AppendRequest::default()]);
                let appended = client.append(request(messages, token)).await?.into_inner();
                (appended.status(), route(appended.header))
            }
            "Replicate" => {
                let compression_codec = CompressionCodec::Snappy.into();
                let proposal =
                    Some(Fragment { journal: journal.clone(), compression_codec, ..Default::default() });
                let etcd = client.list(request(ListRequest::default(), Some(&self.all))).await?;
                let etcd = etcd.into_inner().message().await?.unwrap().header.unwrap().etcd.unwrap();
                let opening = ReplicateRequest {
                    header: Some(Header::unrouted(None, etcd)),
                    deprecated_journal: journal,
                    proposal,
                    registers: Some(LabelSet::default()),
                    acknowledge: true,
                    ..Default::default()
                };
                let messages = futures::stream::iter([opening]);
                let first =
                    client.replicate(request(messages, token)).await?.into_inner().message().await?.unwrap();
                (first.status(), route(first.header))
            }
            "ListFragments" => {
                let fragments = FragmentsRequest { journal, ..Default::default() };
                let listed = client.list_fragments(request(fragments, token)).await?.into_inner();
                (listed.status(), route(listed.header))
            }
            _ => {
                let fragment_store = "file:///".to_owned();
                let health = FragmentStoreHealthRequest { fragment_store, ..Default::default() };
                let checked = client.fragment_store_health(request(health, token)).await?.into_inner();
                (checked.status(), route(checked.header))
            }
        })
    }
}

#[tokio::test]
async fn every_request_needs_a_token_which_allows_it() {
    let mut it = It::start().await;
    let all = it.all.clone();
    let wrong = token(OTHER_KEY, &it.clock, |_| {});
    let expired = it.token(|claims| claims.expires -= 2 * 3600);
    let early = it.token(|claims| claims.not_before = claims.issued.map(|now| now + 60));
    for (rpc, required) in RPCS {
        let lacking = Capability::from_bits(!required.bits());
        let lacking = it.token(|claims| claims.capability = lacking);
        let name = match required {
            Capability::LIST => "LIST",
            Capability::APPLY => "APPLY",
            Capability::READ => "READ",
            Capability::APPEND => "APPEND",
            _ => "REPLICATE",
        };
        for (token, error) in [
            (None, "missing or empty Authorization token".to_owned()),
            (
                Some("nonsense"),
                "verifying Authorization: token is malformed, or not signed with HS256 or HS384".to_owned(),
            ),
            (Some(&wrong), "verifying Authorization: signature is invalid".to_owned()),
            (Some(&expired), "verifying Authorization: token is expired".to_owned()),
            (Some(&early), "verifying Authorization: token is not valid yet".to_owned()),
            (Some(&lacking), format!("authorization is missing required {name} capability")),
        ] {
            // Whether there is such a journal makes no difference.
            for journal in ["a/one", MISSING] {
                let outcome = it.call(rpc, journal, token).await;
                assert_eq!(outcome, Err((Code::Unauthenticated, error.clone())), "{rpc} {journal}");
            }
        }
        let bare = it.token(|claims| claims.capability = required);
        for token in [&bare, &all] {
            let outcome = it.call(rpc, "a/one", Some(token)).await;
            assert!(outcome.is_ok(), "{rpc}: {outcome:?}");
        }
    }
    it.fixture.stop().await;
}

/// The answer to a request which has these headers, and a body that never comes.
async fn without_body(
    client: &reqwest::Client,
    url: String,
    headers: &[(&str, String)],
) -> reqwest::Response {
    let never = futures::stream::pending::<Result<Bytes, std::convert::Infallible>>();
    let mut request = client.post(url).body(reqwest::Body::wrap_stream(never));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    within(request.send()).await.unwrap()
}

#[tokio::test]
async fn who_may_not_do_it_is_refused_before_the_body_has_come() {
    let it = It::start().await;
    let endpoint = it.fixture.broker.endpoint();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let grpc = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let bearer = |lacking: Capability| {
        let token = it.token(|claims| claims.capability = Capability::from_bits(!lacking.bits()));
        (AUTHORIZATION, format!("Bearer {token}"))
    };
    for (rpc, required) in RPCS {
        let url = format!("{endpoint}/protocol.Journal/{rpc}");
        let mut headers =
            vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())];
        let refused = without_body(&grpc, url.clone(), &headers).await;
        assert_eq!(refused.headers()["grpc-status"], "16", "{rpc}");
        let reason = refused.headers()["grpc-message"].to_str().unwrap().replace("%20", " ");
        assert_eq!(reason, "missing or empty Authorization token", "{rpc}");
        headers.push(bearer(required));
        let refused = without_body(&grpc, url, &headers).await;
        assert_eq!(refused.headers()["grpc-status"], "16", "{rpc}");
    }
    for (path, required) in [("/v1/journals/list", Capability::LIST), ("/v1/journals/read", Capability::READ)]
    {
        for headers in [vec![], vec![bearer(required)]] {
            for client in [&http, &grpc] {
                let refused = without_body(client, format!("{endpoint}{path}"), &headers).await;
                assert_eq!(refused.status(), reqwest::StatusCode::UNAUTHORIZED, "{path}");
                assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            }
        }
    }
    it.fixture.stop().await;
}

#[tokio::test]
async fn what_a_token_does_not_reach_does_not_exist() {
    let mut it = It::start().await;
    let one = it.token(|claims| claims.selector = on("a/one"));
    let red = it.token(|claims| claims.selector = LabelSelector::include([("team", "red")]));
    let below = it.token(|claims| claims.selector = LabelSelector::include([("prefix", "a/o")]));
    for token in [&one, &red, &below] {
        for rpc in ["Read", "Append", "ListFragments", "Replicate", "List"] {
            let seen = it.call(rpc, "a/one", Some(token)).await.unwrap();
            assert_ne!(seen.0, Status::JournalNotFound, "{rpc}");
            let hidden = it.call(rpc, "a/two", Some(token)).await.unwrap();
            assert_eq!(hidden, (Status::JournalNotFound, Some(Route::unrouted())), "{rpc}");
            assert_eq!(hidden, it.call(rpc, MISSING, Some(token)).await.unwrap(), "{rpc}");
        }
        // All of the header, but for what it says of etcd.
        let client = &mut it.fixture.client;
        let mut headers = Vec::new();
        for name in ["a/two", MISSING] {
            let opening = AppendRequest { journal: name.to_owned(), ..Default::default() };
            let messages = futures::stream::iter([opening, AppendRequest::default()]);
            let appended = client.append(request(messages, Some(token))).await.unwrap().into_inner();
            headers.push(Header { etcd: None, ..appended.header.clone().unwrap() });
            assert!(appended.commit.is_none() && appended.registers.is_none());
        }
        assert_eq!(headers[0], headers[1]);
        let refused = |name: &str| Err((Code::Unauthenticated, format!("not authorized to {name}")));
        assert_eq!(it.call("Apply", "a/two", Some(token)).await, refused("a/two"));
        assert_eq!(it.call("Apply", MISSING, Some(token)).await, refused(MISSING));
    }
    // A journal is deleted by its name, whatever labels it has.
    let failed = Status::EtcdTransactionFailed;
    assert_eq!(it.call("Apply", "a/one", Some(&one)).await.unwrap().0, failed);
    assert_eq!(it.call("Apply", "a/one", Some(&below)).await.unwrap().0, failed);
    assert!(it.call("Apply", "a/one", Some(&red)).await.is_err());
    // A store is told of to those who see a journal of it.
    let other = it.token(|claims| claims.selector = on("b/one"));
    assert_eq!(it.call("FragmentStoreHealth", "", Some(&one)).await.unwrap().0, Status::Ok);
    let hidden = it.call("FragmentStoreHealth", "", Some(&other)).await.unwrap();
    assert_eq!(hidden.0, Status::FragmentStoreUnhealthy);
    it.fixture.stop().await;
}

#[tokio::test]
async fn a_watch_shows_journals_which_begin_and_cease_to_be_visible() {
    let mut it = It::start().await;
    let (all, red) =
        (it.all.clone(), it.token(|claims| claims.selector = LabelSelector::include([("team", "red")])));
    let watch = request(ListRequest { watch: true, ..Default::default() }, Some(&red));
    let mut watch = within(it.fixture.client.list(watch)).await.unwrap().into_inner();
    for (team, expected) in [("red", &["a/one"][..]), ("red", &["a/one", "a/two"]), ("blue", &["a/one"])] {
        if expected.len() == 2 || team == "blue" {
            let labels = Some(LabelSet::from_pairs([("team", team)]));
            let spec = proto::protocol::JournalSpec { labels, ..journal("a/two") };
            let apply = ApplyRequest { changes: vec![upsert(spec, -1)] };
            within(it.fixture.client.apply(request(apply, Some(&all)))).await.unwrap();
        }
        // Routes are news, too.
        loop {
            let page = within(watch.message()).await.unwrap().unwrap();
            if page.header.as_ref().is_some_and(|header| header.etcd.is_some_and(|etcd| etcd.revision > 0))
                && names(&page.journals) == expected
            {
                break;
            }
        }
    }
    it.fixture.stop().await;
}

#[tokio::test]
async fn requests_end_when_their_token_does() {
    let mut it = It::start().await;
    let token = it.token(|_| {});
    let client = &mut it.fixture.client;
    let read = ReadRequest { journal: "a/one".to_owned(), block: true, ..Default::default() };
    let mut read = within(client.read(request(read, Some(&token)))).await.unwrap().into_inner();
    let watch = request(ListRequest { watch: true, ..Default::default() }, Some(&token));
    let mut watch = within(client.list(watch)).await.unwrap().into_inner();
    while within(watch.message()).await.unwrap().is_some_and(|page| !page.journals.is_empty()) {}

    let (messages, sent) = tokio::sync::mpsc::channel(8);
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let opening = AppendRequest { journal: "a/one".to_owned(), ..Default::default() };
    messages.send(opening).await.unwrap();
    let content = Bytes::from(vec![b'x'; 200_000]);
    messages.send(AppendRequest { content, ..Default::default() }).await.unwrap();
    let mut other = client.clone();
    let append_request = request(sent, Some(&token));
    let append = async {
        let outcome = within(other.append(append_request)).await;
        drop(messages);
        outcome
    };
    let expire = async {
        // A stream which is answered has been verified.
        assert!(futures::poll!(Box::pin(watch.message())).is_pending());
        it.steering.advance(HOUR);
        // Streams end cleanly, so that readers go on with another token.
        while within(watch.message()).await.unwrap().is_some() {}
        while within(read.message()).await.unwrap().is_some() {}
    };
    let (appended, ()) = futures::join!(append, expire);
    let refused = appended.unwrap_err();
    let is_expired = match refused.code() {
        Code::DeadlineExceeded => refused.message().contains("the access token of this request has expired"),
        // It had not even begun.
        Code::Unauthenticated => refused.message().contains("token is expired"),
        _ => false,
    };
    assert!(is_expired, "{refused:?}");
    let all = it.all.clone();
    let read = ReadRequest { journal: "a/one".to_owned(), offset: -1, ..Default::default() };
    let head =
        within(it.fixture.client.read(request(read, Some(&all)))).await.unwrap().into_inner().message().await;
    assert_eq!(head.unwrap().unwrap().write_head, 0, "nothing was committed");
    it.fixture.stop().await;
}

#[tokio::test]
async fn readers_go_on_when_their_token_expires() {
    let it = It::start().await;
    let tasks = TaskGroup::new("clients");
    let options = ClientOptions {
        authorizer: Authorizer::signing(keys(KEY)),
        clock: it.clock.clone(),
        ..ClientOptions::new(tasks.clone())
    };
    let client = JournalClient::new(it.fixture.broker.endpoint(), options).unwrap();
    let append = AppendRequest { journal: "a/one".to_owned(), ..Default::default() };
    let read = ReadRequest { journal: "a/one".to_owned(), block: true, ..Default::default() };
    let mut reader = RetryReader::new(client.clone(), read);
    let mut expected = Vec::new();
    for round in 0..3 {
        let content = format!("round {round}\n").into_bytes();
        expected.extend_from_slice(&content);
        within(client.append(append.clone(), content.into())).await.unwrap();
        // Content of a call which has ended, or of the next one: in either case all of it, in order.
        let mut found = Vec::new();
        let from = reader.offset();
        while from + i64::try_from(found.len()).unwrap() < i64::try_from(expected.len()).unwrap() {
            found.extend_from_slice(&within(reader.next()).await.unwrap().bytes);
        }
        assert_eq!(found, expected[usize::try_from(from).unwrap()..]);
        assert!(futures::poll!(Box::pin(reader.next())).is_pending());
        it.steering.advance(HOUR);
    }
    tasks.cancel();
    it.fixture.stop().await;
}

#[tokio::test]
async fn clients_give_up_when_they_are_refused() {
    let it = It::start().await;
    let tasks = TaskGroup::new("clients");
    let reader_token = it.token(|claims| claims.capability = Capability::READ);
    for authorizer in [Authorizer::none(), Authorizer::bearer(&reader_token).unwrap()] {
        let may_read = format!("{authorizer:?}").contains("token");
        let options =
            ClientOptions { authorizer, clock: it.clock.clone(), ..ClientOptions::new(tasks.clone()) };
        let client = JournalClient::new(it.fixture.broker.endpoint(), options).unwrap();
        let append = AppendRequest { journal: "a/one".to_owned(), ..Default::default() };
        let refused = within(client.append(append.clone(), "x".into())).await.unwrap_err();
        assert!(refused.is_unauthenticated(), "{refused}");
        assert!(refused.to_string().contains("check the auth keys or the auth token"), "{refused}");
        let service = AppendService::new(client.clone(), tasks.clone());
        let mut slot = service.start_append(append, Vec::new());
        let write = |buffer: &mut Vec<u8>| {
            buffer.push(b'x');
            Ok::<_, std::convert::Infallible>(())
        };
        slot.write_with(write).unwrap();
        let appended = within(slot.release()).await.unwrap_err().to_string();
        assert!(appended.contains("Unauthenticated"), "{appended}");
        let watch = WatchedList::start(client.clone(), LabelSelector::everything(), &tasks).unwrap();
        let watched = within(watch.ready()).await.unwrap_err().to_string();
        assert!(watched.contains("Unauthenticated"), "{watched}");
        let read = ReadRequest { journal: "a/one".to_owned(), ..Default::default() };
        let read = within(RetryReader::new(client, read).next()).await.unwrap_err().to_string();
        assert_eq!(read.contains("Unauthenticated"), !may_read, "{read}");
    }
    tasks.cancel();
    it.fixture.stop().await;
}

/// The clock of the brokers of a cluster.
static CLOCK: OnceLock<(Clock, ClockSteering)> = OnceLock::new();

fn client_of(fixture: &Fixture, tasks: &TaskGroup) -> JournalClient {
    let (clock, _) = CLOCK.get_or_init(Clock::steered);
    let authorizer = Authorizer::signing(keys(KEY));
    let options = ClientOptions { authorizer, clock: clock.clone(), ..ClientOptions::new(tasks.clone()) };
    JournalClient::new(fixture.broker.endpoint(), options).unwrap()
}

/// Replicate streams which have ended, of all brokers.
async fn ended_streams(cluster: &mut Cluster) -> u64 {
    let mut ended = 0;
    for index in 0..cluster.brokers.len() {
        let metrics = cluster.at(index).http("/debug/metrics").await;
        let series = metrics.lines().filter(|line| line.contains("{operation=\"Replicate\",status=\"ok\"}"));
        let values =
            series.filter_map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()));
        ended += values.sum::<f64>() as u64;
    }
    ended
}

#[tokio::test]
async fn brokers_authorize_themselves_and_renew_their_streams() {
    let mut cluster = Cluster::start_with(3, |_, options| {
        options.auth_keys = Some(keys(KEY));
        options.clock = CLOCK.get_or_init(Clock::steered).0.clone();
    })
    .await;
    let tasks = TaskGroup::new("clients");
    let clients: Vec<_> = (0..3).map(|index| client_of(cluster.at(index), &tasks)).collect();
    let spec = proto::protocol::JournalSpec { replication: 3, ..journal(NAME) };
    clients[0].apply(ApplyRequest { changes: vec![upsert(spec, 0)] }).await.unwrap();
    let opening = AppendRequest { journal: NAME.to_owned(), ..Default::default() };
    let mut expected = Vec::new();
    let steering = &CLOCK.get_or_init(Clock::steered).1;
    for round in 0..3 {
        // Each broker, primary or not, takes appends, and serves reads and listings.
        for (index, reader) in clients.iter().enumerate() {
            let (clock, _) = CLOCK.get_or_init(Clock::steered);
            let content = format!("{round} by way of {index}\n").into_bytes();
            let messages = [
                opening.clone(),
                AppendRequest { content: content.clone().into(), ..Default::default() },
                AppendRequest::default(),
            ];
            expected.extend_from_slice(&content);
            let append = token(KEY, clock, |claims| claims.selector = on(NAME));
            eventually("the first append finds replicas", async || {
                let messages = futures::stream::iter(messages.clone());
                let client = &mut cluster.at(index).client;
                let appended = within(client.append(request(messages, Some(&append)))).await.unwrap();
                match appended.into_inner().status() {
                    Status::Ok => Some(()),
                    status if round == 0 => {
                        assert_ne!(status, Status::JournalNotFound);
                        None
                    }
                    status => panic!("{status:?}"),
                }
            })
            .await;
            let read = ReadRequest {
                journal: NAME.to_owned(),
                end_offset: i64::try_from(expected.len()).unwrap(),
                block: true,
                ..Default::default()
            };
            let client = &mut cluster.at(index).client;
            let stream = within(client.read(request(read, Some(&append)))).await.unwrap().into_inner();
            let responses: Vec<_> = within(stream.map(Result::unwrap).collect()).await;
            assert_eq!(support::content(&responses), expected);
            let request = FragmentsRequest { journal: NAME.to_owned(), ..Default::default() };
            assert!(!reader.fragments(request).await.unwrap().fragments.is_empty());
        }
        // Two streams of the primary, and nobody is told: they are renewed before their hour is over.
        let before = ended_streams(&mut cluster).await;
        steering.advance(HOUR * 5 / 6);
        eventually("streams are renewed", async || {
            (ended_streams(&mut cluster).await >= before + 2).then_some(())
        })
        .await;
    }
    tasks.cancel();
}
