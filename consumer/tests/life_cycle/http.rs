//! Shards as JSON over HTTP, and what any gRPC client can ask.

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;

const ORIGIN: &str = "https://app.example";

async fn post(http: &Client, url: &str, body: &Value) -> Response {
    http.post(url).header("origin", ORIGIN).body(body.to_string()).send().await.unwrap()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn shards_are_listed_and_looked_at_as_json() {
    let fixture = Fixture::start().await;
    let allow = |options: &mut consumer::ConsumerOptions| options.allow_origin = vec![ORIGIN.to_owned()];
    let member = fixture.member_with(&Counter::default(), allow).await;
    let shards = fixture.shards(&member);
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let end = fixture.publish(&["a"]).await;
    stat(&shards, end).await.unwrap();

    let http = Client::builder().no_proxy().build().unwrap();
    let list = format!("{}/v1/shards/list", member.endpoint());
    let listed = post(&http, &list, &json!({})).await;
    assert_eq!(listed.headers()["access-control-allow-origin"], ORIGIN);
    assert_eq!(listed.headers()["content-type"], "application/json");
    let listed = json_of(listed).await;
    assert_eq!(listed["status"], "OK");
    let shard = &listed["shards"][0];
    assert_eq!((&shard["spec"]["id"], &shard["spec"]["hintBackups"]), (&json!("counter"), &json!(2)));
    assert_eq!((&shard["spec"]["disable"], &shard["spec"]["maxTxnDuration"]), (&json!(false), &json!("1s")));
    assert_eq!((&shard["status"][0]["code"], &shard["route"]["primary"]), (&json!("PRIMARY"), &json!(0)));

    let url = format!("{}/v1/shards/stat", member.endpoint());
    let looked_at =
        json_of(post(&http, &url, &json!({"shard": "counter", "readThrough": {KEYS: end}})).await).await;
    assert_eq!(
        (&looked_at["status"], &looked_at["readThrough"][KEYS]),
        (&json!("OK"), &json!(end.to_string()))
    );
    let missing = json_of(post(&http, &url, &json!({"shard": "no-such-shard"})).await).await;
    assert_eq!(missing["status"], "SHARD_NOT_FOUND");

    let refused = post(&http, &url, &json!({"shard": "a#b"})).await;
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let refused = json_of(refused).await;
    assert_eq!((&refused["code"], &refused["error"]), (&json!(2), &refused["message"]));
    assert_eq!(http.get(&list).send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
    let elsewhere = http.get(format!("{}/v1/shards", member.endpoint())).send().await.unwrap();
    assert_eq!(elsewhere.status(), StatusCode::NOT_FOUND);

    let mut health = HealthClient::new(runtime::grpc::channel(member.endpoint()).unwrap());
    let request = HealthCheckRequest { service: "consumer.Shard".to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    // Whoever may ask without a token asks briefly.
    let long = HealthCheckRequest { service: "x".repeat(64 << 10) };
    assert_eq!(health.check(long).await.unwrap_err().code(), tonic::Code::OutOfRange);
    let (stopped, told) = tokio::join!(member.stop(), watch.message());
    stopped.unwrap();
    assert_eq!(told.unwrap().unwrap().status(), ServingStatus::NotServing);
    fixture.stop().await;
}
