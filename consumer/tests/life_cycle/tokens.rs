//! Access tokens of the Shard service (consumer protocol §1.5).

use std::time::Duration;

use auth::{AUTHORIZATION, Authorizer, Capability, Claims, Keys};
use client::{ClientOptions, ShardClient};
use proto::consumer::shard_client::ShardClient as Rpc;
use proto::consumer::{
    ApplyRequest, GetHintsRequest, ListRequest, StatRequest, Status, UnassignRequest, apply_request,
};
use proto::protocol::{LabelSelector, Route};
use reqwest::{Client, Response, StatusCode};
use runtime::Clock;
use tonic::transport::Channel;
use tonic::{Code, Request};

use crate::app::Counter;
use crate::fixture::{Fixture, WITH_LOG, is_primary, wait_for};

const LIMIT: Duration = Duration::from_secs(60);
const KEY: &str = "c2VjcmV0";

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

fn token(key: &str, capability: Capability, selector: &str, lifetime: i64) -> String {
    let now = Clock::system().unix_seconds();
    let selector = selector.parse::<LabelSelector>().unwrap();
    keys(key).sign(&Claims { capability, selector, expires: now + lifetime, ..Claims::default() })
}

/// The status and the route of a request's answer, or its failure.
async fn call(
    rpc: &mut Rpc<Channel>,
    what: &str,
    shard: &str,
    token: Option<&str>,
) -> Result<(Status, Option<Route>), (Code, String)> {
    fn request<T>(message: T, token: Option<&str>) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = token {
            request.metadata_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        request
    }
    let id = shard.to_owned();
    let outcome = match what {
        "Stat" => {
            let stat = StatRequest { shard: id, ..StatRequest::default() };
            rpc.stat(request(stat, token)).await.map(|answer| {
                let answer = answer.into_inner();
                (answer.status(), answer.header.and_then(|header| header.route))
            })
        }
        "GetHints" => {
            let hints = GetHintsRequest { shard: id, ..GetHintsRequest::default() };
            rpc.get_hints(request(hints, token)).await.map(|answer| (answer.into_inner().status(), None))
        }
        "List" => rpc.list(request(ListRequest::default(), token)).await.map(|answer| {
            let is_listed = !answer.into_inner().shards.is_empty();
            (if is_listed { Status::Ok } else { Status::ShardNotFound }, None)
        }),
        "Apply" => {
            // Deletes it, if it has a revision that it cannot have.
            let (delete, expect_mod_revision) = (id, 1 << 40);
            let change =
                apply_request::Change { expect_mod_revision, delete, ..apply_request::Change::default() };
            let apply = ApplyRequest { changes: vec![change], ..ApplyRequest::default() };
            rpc.apply(request(apply, token)).await.map(|answer| (answer.into_inner().status(), None))
        }
        _ => {
            let unassign = UnassignRequest { shards: vec![id], dry_run: true, ..UnassignRequest::default() };
            rpc.unassign(request(unassign, token)).await.map(|answer| (answer.into_inner().status(), None))
        }
    };
    outcome.map_err(|status| (status.code(), status.message().to_owned()))
}

/// The answer to a request which has these headers, and a body that never comes.
async fn without_body(client: &Client, url: String, headers: &[(&str, String)]) -> Response {
    let never = futures::stream::pending::<Result<Vec<u8>, std::convert::Infallible>>();
    let mut request = client.post(url).body(reqwest::Body::wrap_stream(never));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    Clock::system().timeout(LIMIT, request.send()).await.expect("it is answered").unwrap()
}

#[tokio::test]
async fn who_may_not_do_it_is_refused_before_the_body_has_come() {
    let fixture = Fixture::start().await;
    let with_keys = |options: &mut consumer::ConsumerOptions| options.auth_keys = Some(keys(KEY));
    let member = fixture.member_with(&Counter::default(), with_keys).await;
    let endpoint = member.endpoint();
    let http = Client::builder().no_proxy().build().unwrap();
    let grpc = Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let bearer = |lacking: Capability| {
        let token = token(KEY, Capability::from_bits(!lacking.bits()), "", 60);
        (AUTHORIZATION, format!("Bearer {token}"))
    };
    for (method, required) in [
        ("Stat", Capability::READ),
        ("GetHints", Capability::READ),
        ("List", Capability::LIST),
        ("Apply", Capability::APPLY),
        ("Unassign", Capability::APPLY),
    ] {
        let mut headers =
            vec![("content-type", "application/grpc".to_owned()), ("te", "trailers".to_owned())];
        let url = format!("{endpoint}/consumer.Shard/{method}");
        let refused = without_body(&grpc, url.clone(), &headers).await;
        assert_eq!(refused.headers()["grpc-status"], "16", "{method}");
        headers.push(bearer(required));
        let refused = without_body(&grpc, url, &headers).await;
        assert_eq!(refused.headers()["grpc-status"], "16", "{method}");
    }
    for (path, required) in [("/v1/shards/list", Capability::LIST), ("/v1/shards/stat", Capability::READ)] {
        for headers in [vec![], vec![bearer(required)]] {
            for client in [&http, &grpc] {
                let refused = without_body(client, format!("{endpoint}{path}"), &headers).await;
                assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
            }
        }
    }
    member.stop().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn the_shard_service_checks_tokens_and_proxies_with_its_own() {
    let fixture = Fixture::start().await;
    let app = Counter::default();
    let with_keys = |options: &mut consumer::ConsumerOptions| options.auth_keys = Some(keys(KEY));
    let first = fixture.member_with(&app, with_keys).await;
    let options = ClientOptions {
        authorizer: Authorizer::signing(keys(KEY)),
        ..ClientOptions::new(fixture.tasks.clone())
    };
    let shards = ShardClient::new(first.endpoint(), options).unwrap();
    fixture.create(&shards, WITH_LOG).await;
    wait_for(&shards, is_primary).await;
    let second = fixture.member_with(&app, with_keys).await;

    let mut rpc = Rpc::new(runtime::grpc::channel(first.endpoint()).unwrap());
    for (what, required, name) in [
        ("Stat", Capability::READ, "READ"),
        ("GetHints", Capability::READ, "READ"),
        ("List", Capability::LIST, "LIST"),
        ("Apply", Capability::APPLY, "APPLY"),
        ("Unassign", Capability::APPLY, "APPLY"),
    ] {
        let lacking = Capability::from_bits(!required.bits());
        for (token, error) in [
            (None, "missing or empty Authorization token".to_owned()),
            (
                Some(token("b3RoZXI=", Capability::ALL, "", 60)),
                "verifying Authorization: signature is invalid".to_owned(),
            ),
            (
                Some(token(KEY, Capability::ALL, "", -60)),
                "verifying Authorization: token is expired".to_owned(),
            ),
            (
                Some(token(KEY, lacking, "", 60)),
                format!("authorization is missing required {name} capability"),
            ),
        ] {
            for shard in ["counter", "no-such"] {
                let refused = call(&mut rpc, what, shard, token.as_deref()).await;
                assert_eq!(refused, Err((Code::Unauthenticated, error.clone())), "{what}");
            }
        }
        let own = token(KEY, required, "id=counter", 60);
        let expected = if what == "Apply" { Status::EtcdTransactionFailed } else { Status::Ok };
        assert_eq!(call(&mut rpc, what, "counter", Some(&own)).await.unwrap().0, expected, "{what}");
        let other = token(KEY, required, "id=others", 60);
        let hidden = call(&mut rpc, what, "counter", Some(&other)).await;
        match required {
            Capability::APPLY => {
                assert_eq!(hidden, Err((Code::Unauthenticated, "not authorized to counter".to_owned())));
            }
            _ => {
                assert_eq!(hidden.as_ref().unwrap().0, Status::ShardNotFound, "{what}");
                assert_eq!(hidden, call(&mut rpc, what, "no-such", Some(&other)).await, "{what}");
            }
        }
    }
    // Asked of the process which does not have the shard.
    let mut rpc = Rpc::new(runtime::grpc::channel(second.endpoint()).unwrap());
    let own = token(KEY, Capability::READ, "id=counter", 60);
    let (status, route) = call(&mut rpc, "Stat", "counter", Some(&own)).await.unwrap();
    assert_eq!((status, route.unwrap().members.is_empty()), (Status::Ok, false));
    second.stop().await.unwrap();
    first.stop().await.unwrap();
    fixture.stop().await;
}
