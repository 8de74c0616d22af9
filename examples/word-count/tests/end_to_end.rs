//! Texts are published to a group of two, queried through both, and one of them crashes.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeMap;
use std::num::NonZeroU8;

use consumer::{Application, ResolveArgs};
use testkit::{TestBroker, TestConsumer};
use tonic::Code;
use tonic::transport::Channel;
use word_count::proto::n_gram_client::NGramClient;
use word_count::proto::{PublishRequest, QueryRequest};
use word_count::{WordCount, n_grams};

const JOURNALS: &str = include_str!("../journals.yaml");
const SHARDS: &str = include_str!("../shards.yaml");
const TEXT: &str = "How now, brown cow? How now! The cow is brown; how brown the cow is.";

type Counts = BTreeMap<String, u64>;

fn app() -> WordCount {
    WordCount::new(NonZeroU8::new(2).unwrap())
}

fn client(member: &TestConsumer) -> NGramClient<Channel> {
    NGramClient::new(runtime::grpc::channel(member.endpoint()).unwrap())
}

async fn query(member: &TestConsumer, prefix: &str, shard: &str) -> Result<Counts, tonic::Status> {
    let request =
        QueryRequest { prefix: prefix.to_owned(), shard: shard.to_owned(), ..QueryRequest::default() };
    let grams = client(member).query(request).await?.into_inner().grams;
    assert!(grams.is_sorted_by(|a, b| a.n_gram < b.n_gram));
    Ok(grams.into_iter().map(|gram| (gram.n_gram, gram.count)).collect())
}

/// The counts of all shards, by way of a member.
async fn all_counts(member: &TestConsumer) -> Counts {
    let mut all = Counts::new();
    for shard in ["shard-000", "shard-001", "shard-002", "shard-003"] {
        for (n_gram, count) in query(member, "", shard).await.unwrap() {
            assert_eq!(all.insert(n_gram, count), None, "an n-gram is counted by one shard");
        }
    }
    all
}

fn expected(times: u64) -> Counts {
    let mut counts = Counts::new();
    for n_gram in n_grams(&TEXT.to_lowercase(), 2) {
        *counts.entry(n_gram).or_default() += times;
    }
    counts
}

async fn is_primary(member: &TestConsumer, shard: &str) -> bool {
    let args = ResolveArgs { shard, may_proxy: true, ..ResolveArgs::default() };
    member.consumer().resolver().resolve(args).await.unwrap().is_local
}

async fn publish(member: &TestConsumer) {
    client(member).publish(PublishRequest { text: TEXT.to_owned() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_from_every_member_and_after_a_crash() {
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(JOURNALS).await.unwrap();
    let first = TestConsumer::start(&broker, app()).await.unwrap();
    let second = TestConsumer::start(&broker, app()).await.unwrap();
    first.create_shards(SHARDS).await.unwrap();
    publish(&first).await;
    publish(&second).await;
    first.wait_for_shards().await.unwrap();

    // A shard has one primary, and is answered for by the other member, too.
    for shard in ["shard-000", "shard-001", "shard-002", "shard-003"] {
        assert_ne!(is_primary(&first, shard).await, is_primary(&second, shard).await, "{shard}");
    }
    for member in [&first, &second] {
        assert_eq!(all_counts(member).await, expected(2));
        for (n_gram, count) in expected(2) {
            // The shard is found by the n-gram, and counts those which it is a prefix of.
            assert_eq!(query(member, &n_gram, "").await.unwrap().get(&n_gram), Some(&count), "{n_gram}");
        }
        let error = query(member, "how", "shard-999").await.unwrap_err();
        assert!(error.message().contains("SHARD_NOT_FOUND"), "{error}");
    }

    // One dies; the other goes on with all shards where the last commit was.
    publish(&second).await;
    first.crash().await.unwrap();
    publish(&second).await;
    second.wait_for_shards().await.unwrap();
    assert_eq!(all_counts(&second).await, expected(4));

    // Counts outlive every process of the group.
    second.stop().await.unwrap();
    let third = TestConsumer::start(&broker, app()).await.unwrap();
    third.wait_for_shards().await.unwrap();
    assert_eq!(all_counts(&third).await, expected(4));
    third.stop().await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_which_cannot_be_served_say_why() {
    let broker = TestBroker::start().await.unwrap();
    let member = TestConsumer::start(&broker, app()).await.unwrap();
    // There is nowhere to publish to, and nobody who counts.
    let refused = client(&member).publish(PublishRequest { text: TEXT.to_owned() }).await.unwrap_err();
    assert!(refused.message().contains("empty ListResponse"), "{refused}");
    let error = query(&member, "how now", "").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    broker.create_journals(JOURNALS).await.unwrap();
    let error = loop {
        // The member watches the journals.
        let error = query(&member, "how now", "").await.unwrap_err();
        if error.code() != Code::FailedPrecondition {
            break error;
        }
    };
    assert_eq!(error.code(), Code::NotFound, "{error}");
    // A header that was made up goes nowhere.
    let header = Some(proto::protocol::Header::default());
    let request = QueryRequest { header, shard: "shard-000".to_owned(), ..QueryRequest::default() };
    let error = client(&member).query(request).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert_eq!(app().name(), "word-count");
    member.stop().await.unwrap();
    broker.stop().await.unwrap();
}
