//! Callers of the application's own API need the right token, at every member of the group.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::num::NonZeroU8;
use std::time::Duration;

use auth::{AUTHORIZATION, Capability, Claims, Keys};
use runtime::Clock;
use testkit::{TestBroker, TestConsumer};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use word_count::WordCount;
use word_count::proto::n_gram_client::NGramClient;
use word_count::proto::{PublishRequest, QueryRequest, QueryResponse};

const LIMIT: Duration = Duration::from_secs(60);
const KEY: &str = "c2VjcmV0";
const TEXT: &str = "How now, brown cow?";
/// How a token selects the journals that texts are published to.
const DELTAS: &str = "app.gazette.dev/message-type=word_count.NGramCount";

fn token(key: &str, capability: Capability, selector: &str, lifetime: i64) -> String {
    let expires = Clock::system().unix_seconds() + lifetime;
    let selector = selector.parse().unwrap();
    Keys::parse(key).unwrap().sign(&Claims { capability, selector, expires, ..Claims::default() })
}

fn request<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// Code and text of a failure.
type Refusal = (Code, String);

async fn publish(member: &TestConsumer, token: Option<&str>) -> Result<(), Refusal> {
    let mut client = NGramClient::new(runtime::grpc::channel(member.endpoint()).unwrap());
    let outcome = client.publish(request(PublishRequest { text: TEXT.to_owned() }, token)).await;
    outcome.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
}

/// How a call is answered whose message never comes.
async fn never_asked(member: &TestConsumer, path: &'static str) -> Status {
    let mut client = Grpc::new(runtime::grpc::channel(member.endpoint()).unwrap());
    client.ready().await.unwrap();
    let never = Request::new(tokio_stream::pending());
    let codec = ProstCodec::<QueryRequest, QueryResponse>::default();
    let call = client.streaming(never, PathAndQuery::from_static(path), codec);
    Clock::system().timeout(LIMIT, call).await.expect("it is answered").unwrap_err()
}

/// How often the n-grams which came back were counted, together.
async fn query(
    member: &TestConsumer,
    prefix: &str,
    shard: &str,
    token: Option<&str>,
) -> Result<u64, Refusal> {
    let mut client = NGramClient::new(runtime::grpc::channel(member.endpoint()).unwrap());
    let query = QueryRequest { header: None, prefix: prefix.to_owned(), shard: shard.to_owned() };
    let outcome = client.query(request(query, token)).await;
    outcome
        .map(|answer| answer.into_inner().grams.iter().map(|gram| gram.count).sum())
        .map_err(|status| (status.code(), status.message().to_owned()))
}

fn refused<T>(reason: &str) -> Result<T, Refusal> {
    Err((Code::Unauthenticated, reason.to_owned()))
}

/// Whoever has no right token is refused, whatever they ask for.
async fn check_refusals(member: &TestConsumer) {
    for (token, reason) in [
        (None, "missing or empty Authorization token"),
        (Some(token("b3RoZXI=", Capability::ALL, "", 60)), "verifying Authorization: signature is invalid"),
        (Some(token(KEY, Capability::ALL, "", -60)), "verifying Authorization: token is expired"),
        (
            Some("nonsense".to_owned()),
            "verifying Authorization: token is malformed, or not signed with HS256 or HS384",
        ),
    ] {
        let token = token.as_deref();
        assert_eq!(publish(member, token).await, refused(reason));
        for shard in ["", "shard-000", "no-such"] {
            assert_eq!(query(member, "how now", shard, token).await, refused(reason), "{shard:?}");
        }
    }
    for path in ["/word_count.NGram/Publish", "/word_count.NGram/Query"] {
        let status = never_asked(member, path).await;
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unauthenticated, "missing or empty Authorization token")
        );
    }
    let reads = token(KEY, Capability::from_bits(!Capability::APPEND.bits()), "", 60);
    let needs = "authorization is missing required APPEND capability";
    assert_eq!(publish(member, Some(&reads)).await, refused(needs));
    let appends = token(KEY, Capability::from_bits(!Capability::READ.bits()), "", 60);
    let needs = "authorization is missing required READ capability";
    assert_eq!(query(member, "how now", "", Some(&appends)).await, refused(needs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_need_a_token_which_allows_and_reaches_what_they_ask_for() {
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(include_str!("../journals.yaml")).await.unwrap();
    let start = || {
        TestConsumer::start_with(&broker, WordCount::new(NonZeroU8::new(2).unwrap()), |options| {
            options.auth_keys = Some(Keys::parse(KEY).unwrap());
        })
    };
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    first.create_shards(include_str!("../shards.yaml")).await.unwrap();
    let append = token(KEY, Capability::APPEND, DELTAS, 60);
    for member in [&first, &second] {
        check_refusals(member).await;
        let some = token(KEY, Capability::APPEND, "name=examples/word-count/deltas/part-000", 60);
        assert_eq!(
            publish(member, Some(&some)).await,
            refused("not authorized to examples/word-count/deltas/part-001")
        );
        publish(member, Some(&append)).await.unwrap();
    }
    first.wait_for_shards().await.unwrap();

    // Each shard is served by one of the two. The other one asks it, with a token of its own.
    let shards = ["shard-000", "shard-001", "shard-002", "shard-003"];
    let mut counted = 0;
    for shard in shards {
        let own = token(KEY, Capability::READ, &format!("id={shard}"), 60);
        let others = token(KEY, Capability::READ, &format!("id!={shard}"), 60);
        let found = query(&first, "", shard, Some(&own)).await.unwrap();
        assert_eq!(query(&second, "", shard, Some(&own)).await.unwrap(), found);
        counted += found;
        for member in [&first, &second] {
            // What the token does not select is as what does not exist.
            let hidden = query(member, "", shard, Some(&others)).await;
            assert_eq!(hidden, Err((Code::Unavailable, format!("shard {shard}: SHARD_NOT_FOUND"))));
            let missing = query(member, "", "no-such", Some(&own)).await;
            assert_eq!(missing, Err((Code::Unavailable, "shard no-such: SHARD_NOT_FOUND".to_owned())));
        }
    }
    // Only those who may have published: START how, how now, now brown, brown cow, cow END, END END, each twice.
    assert_eq!(counted, 12);

    let all = token(KEY, Capability::READ, "", 60);
    assert_eq!(query(&second, "how now", "", Some(&all)).await.unwrap(), 2);
    let none = token(KEY, Capability::READ, "id=no-such", 60);
    let (code, text) = query(&second, "how now", "", Some(&none)).await.unwrap_err();
    assert_eq!(code, Code::NotFound);
    assert!(text.starts_with("no shard reads examples/word-count/deltas/part-"), "{text}");
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    broker.stop().await.unwrap();
}
