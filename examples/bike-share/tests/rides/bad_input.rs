//! Lines which are no rides, and requests which are none.

use auth::{Capability, Claims, Keys};
use bike_share::BikeShare;
use proto::consumer::{ApplyRequest, ListRequest, ShardSpec, apply_request};
use reqwest::{Client, StatusCode};
use runtime::Clock;
use serde_json::{Value, json};
use store_postgres::PostgresOptions;
use testkit::{TestBroker, TestConsumer};

use crate::world::*;

const SHARD: &str = "cycles-part-002";
const JOURNAL: &str = "examples/bike-share/rides/part-002";
/// In SQLite.
const SHARDS: &str = "
common: {recovery_log_prefix: examples/bike-share/recovery-logs, hint_prefix: /gazette/hints}
shards: [{id: cycles-part-002, sources: [{journal: examples/bike-share/rides/part-002}]}]
";

fn app() -> BikeShare {
    // There is none, and no shard which needs it.
    BikeShare::new(PostgresOptions::parse("host=/nowhere").unwrap())
}

async fn start() -> (TestBroker, TestConsumer) {
    let broker = TestBroker::start().await.unwrap();
    let member = TestConsumer::start(&broker, app()).await.unwrap();
    (broker, member)
}

/// Bikes whose rides are in the journal of the shard.
fn bikes(rides: &Rides) -> impl Iterator<Item = u64> {
    (1..).filter(|bike| rides.journal(*bike) == JOURNAL)
}

/// The shard's specification, its revision, and why it failed, if it did.
async fn listed(member: &TestConsumer) -> (ShardSpec, i64, Option<String>) {
    let list = member.shards().list(ListRequest::default()).await.unwrap();
    let shard = list.shards.into_iter().next().unwrap();
    let error = shard.status.iter().flat_map(|status| &status.errors).next().cloned();
    (shard.spec.unwrap(), shard.mod_revision, error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_which_are_no_rides_are_passed_over_and_lines_which_are_no_records_fail_the_shard() {
    let (broker, member) = start().await;
    broker.create_journals(JOURNALS).await.unwrap();
    member.create_shards(SHARDS).await.unwrap();
    let rides = Rides::new(&broker).await;
    let bike = bikes(&rides).next().unwrap();

    rides.publish(bike, ride(bike, 0)).await;
    for (column, text) in [(2, "yesterday"), (3, ""), (5, "zero \0"), (12, "bike"), (12, "-1")] {
        rides.publish(bike, ride_with(bike, 1, column, text)).await;
    }
    // Columns which nobody reads may hold anything.
    rides.publish(bike, ride_with(bike, 1, 14, "\"\r\n,'; DROP TABLE rides; -- é")).await;
    member.wait_for_shards().await.unwrap();
    assert_eq!(rides_of(&member, bike).await, expected_rides(2));

    // Where a record ends is not known behind a line which is none: the shard says where that is.
    let begin = broker.head(JOURNAL).await.unwrap();
    rides.append(JOURNAL, b"no,\"record\n").await;
    let end = broker.head(JOURNAL).await.unwrap();
    rides.publish(bike, ride(bike, 2)).await;
    let error = loop {
        if let (_, _, Some(error)) = listed(&member).await {
            break error;
        }
    };
    assert!(error.contains(&format!("framing.Unmarshal(offset {begin}): ")), "{error}");

    // An operator lets it go on behind the line.
    let (mut spec, expect_mod_revision, _) = listed(&member).await;
    spec.sources[0].min_offset = end;
    let change = apply_request::Change { expect_mod_revision, upsert: Some(spec), ..Default::default() };
    member.shards().apply(ApplyRequest { changes: vec![change], ..Default::default() }).await.unwrap();
    member.wait_for_primary(SHARD).await.unwrap();
    member.wait_for_shards().await.unwrap();
    assert_eq!(rides_of(&member, bike).await, expected_rides(3));
    member.stop().await.unwrap();
    broker.stop().await.unwrap();
}

/// The text of a refusal.
async fn refused(member: &TestConsumer, path: &str, headers: &[(&str, &str)]) -> String {
    let answer = get(member, path, headers).await;
    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT, "{path}: {answer:?}");
    answer.text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_which_cannot_be_served_say_why() {
    let (broker, member) = start().await;
    let said = refused(&member, "/api/bikes?id=1", &[]).await;
    assert_eq!(said, "journals of bike_share.Ride: empty ListResponse\n");
    broker.create_journals(JOURNALS).await.unwrap();
    let rides = Rides::new(&broker).await;
    let bike = bikes(&rides).next().unwrap();
    let path = format!("/api/bikes?id={bike}");
    // The member watches the journals.
    while refused(&member, &path, &[]).await.contains("empty ListResponse") {}
    assert_eq!(refused(&member, &path, &[]).await, format!("no shard reads {JOURNAL}\n"));

    member.create_shards(SHARDS).await.unwrap();
    for (path, expected) in [
        ("/api/bikes", "expected ?id=N, N being the number of a bike\n"),
        ("/api/bikes?bike=7", "expected ?id=N, N being the number of a bike\n"),
        ("/api/bikes?id=", "id is \"\"; expected the number of a bike\n"),
        ("/api/bikes?id=seven", "id is \"seven\"; expected the number of a bike\n"),
    ] {
        assert_eq!(refused(&member, path, &[]).await, expected, "{path}");
    }
    assert_eq!(get(&member, "/api/trikes?id=7", &[]).await.status, StatusCode::NOT_FOUND);
    let posted = Client::builder().no_proxy().build().unwrap().post(format!("{}{path}", member.endpoint()));
    assert_eq!(posted.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    // Nobody has seen the bike.
    assert_eq!(rides_of(&member, bike).await, Vec::<Value>::new());
    member.stop().await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_passed_on_once_to_the_process_which_its_header_names() {
    let (broker, member) = start().await;
    broker.create_journals(JOURNALS).await.unwrap();
    member.create_shards(SHARDS).await.unwrap();
    let other = TestConsumer::start(&broker, app()).await.unwrap();
    let rides = Rides::new(&broker).await;
    let bike = bikes(&rides).next().unwrap();
    rides.publish(bike, ride(bike, 0)).await;
    other.wait_for_shards().await.unwrap();
    let path = format!("/api/bikes?id={bike}");

    // Both answers are those of the primary.
    let resolved = get(&member, &path, &[]).await.header("x-header").to_owned();
    let asked = get(&other, &path, &[]).await;
    assert_eq!((asked.rides(), asked.header("x-shard-id")), (expected_rides(1), SHARD));
    let process = |header: &str| serde_json::from_str::<Value>(header).unwrap()["process_id"].clone();
    assert_eq!(process(asked.header("x-header")), process(&resolved));

    assert_eq!(get(&member, &path, &[("X-ProxyHeader", &resolved)]).await.rides(), expected_rides(1));
    let said = refused(&other, &path, &[("X-ProxyHeader", &resolved)]).await;
    assert!(said.starts_with("proxied request ProcessId doesn't match our own"), "{said}");
    // It goes no further.
    let mut header: Value = serde_json::from_str(&resolved).unwrap();
    let me = other.consumer().id();
    header["process_id"] = json!({"zone": &*me.zone, "suffix": &*me.suffix});
    let said = refused(&other, &path, &[("X-ProxyHeader", &header.to_string())]).await;
    assert_eq!(said, format!("shard {SHARD}: NOT_SHARD_PRIMARY\n"));

    header["etcd"]["cluster_id"] = json!(7);
    for (header, expected) in [
        ("", "x-proxyheader: EOF while parsing"),
        ("{}", "x-proxyheader: "),
        ("[7]", "x-proxyheader: "),
        (header.to_string().as_str(), "proxied request Etcd ClusterId doesn't match our own"),
    ] {
        let said = refused(&member, &path, &[("X-ProxyHeader", header)]).await;
        assert!(said.starts_with(expected), "{header:?}: {said}");
    }
    other.stop().await.unwrap();
    member.stop().await.unwrap();
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_need_a_token_which_reaches_the_shard() {
    const KEY: &str = "c2VjcmV0";
    let token = |key: &str, capability, selector: &str| {
        let expires = Clock::system().unix_seconds() + 60;
        let selector = selector.parse().unwrap();
        let claims = Claims { capability, selector, expires, ..Claims::default() };
        format!("Bearer {}", Keys::parse(key).unwrap().sign(&claims))
    };
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(JOURNALS).await.unwrap();
    let start = || {
        TestConsumer::start_with(&broker, app(), |options| {
            options.auth_keys = Some(Keys::parse(KEY).unwrap())
        })
    };
    let (first, second) = (start().await.unwrap(), start().await.unwrap());
    first.create_shards(SHARDS).await.unwrap();
    let rides = Rides::new(&broker).await;
    let bike = bikes(&rides).next().unwrap();
    rides.publish(bike, ride(bike, 0)).await;
    let path = format!("/api/bikes?id={bike}");

    let good = token(KEY, Capability::READ, &format!("id={SHARD}"));
    let others = token(KEY, Capability::READ, "id=another");
    // One of them is the primary. The other one asks it, with a token of its own.
    for member in [&first, &second] {
        member.wait_for_shards().await.unwrap();
        for (refused, reason) in [
            (&[][..], "missing or empty Authorization token"),
            (&[("Authorization", &*token(KEY, Capability::APPEND, ""))], "required READ capability"),
            (&[("Authorization", &*token("b3RoZXI=", Capability::ALL, ""))], "signature is invalid"),
        ] {
            let answer = get(member, &path, refused).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert!(answer.text.contains(reason), "{answer:?}");
        }
        // What the token does not select does not exist.
        let said = refused(member, &path, &[("Authorization", &others)]).await;
        assert_eq!(said, format!("no shard reads {JOURNAL}\n"));
        assert_eq!(get(member, &path, &[("Authorization", &good)]).await.rides(), expected_rides(1));
    }
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    broker.stop().await.unwrap();
}
