//! Journals over plain HTTP and as JSON, as a user meets them: with a client of HTTP/1.1, with one of HTTP/2, and byte by
//! byte.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod support;

use auth::{Capability, Claims, Keys};
use broker::{Broker, BrokerOptions};
use futures::StreamExt;
use proto::protocol::{ApplyRequest, LabelSelector};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use support::{Fixture, eventually, journal, upsert, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "a/journal";
const ORIGIN: &str = "https://app.example";

/// A broker with a journal, and a client of HTTP.
struct Gateway {
    fixture: Fixture,
    http: Client,
}

impl Gateway {
    async fn start() -> Gateway {
        Gateway::start_with(|_| {}, http1()).await
    }

    async fn start_with(adjust: impl FnOnce(&mut BrokerOptions), http: Client) -> Gateway {
        let mut fixture = Fixture::start_in(tempfile::tempdir().unwrap(), adjust).await;
        fixture.create(journal(NAME)).await;
        Gateway { fixture, http }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.fixture.broker.endpoint())
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let request = self.http.request(method, self.url(path));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        within(request.send()).await.unwrap()
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        self.send(Method::GET, path, headers).await
    }

    async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        within(self.http.put(self.url(path)).body(body).send()).await.unwrap()
    }

    async fn post(&self, path: &str, body: &str) -> Response {
        within(self.http.post(self.url(path)).body(body.to_owned()).send()).await.unwrap()
    }

    /// Sends these bytes over a connection of their own.
    async fn connect(&self, request: &str) -> tokio::net::TcpStream {
        let address = self.fixture.broker.endpoint().trim_start_matches("http://").to_owned();
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// How often reads have ended.
    async fn reads_ended(&self) -> u64 {
        let metrics = self.get("/debug/metrics", &[]).await.text().await.unwrap();
        let counted = |line: &str| line.contains("completed_totals{operation=\"Read\"");
        let counts =
            metrics.lines().filter(|line| counted(line)).map(|line| line.rsplit(' ').next().unwrap());
        counts.map(|count| count.parse::<u64>().unwrap()).sum()
    }
}

fn client() -> reqwest::ClientBuilder {
    Client::builder().no_proxy()
}

fn http1() -> Client {
    client().http1_only().build().unwrap()
}

fn http2() -> Client {
    client().http2_prior_knowledge().build().unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn what_is_put_is_what_is_got() {
    for http in [http1(), http2()] {
        let gateway = Gateway::start_with(|_| {}, http).await;
        let put = gateway.put("/a/journal", "hello ").await;
        assert_eq!(put.status(), StatusCode::NO_CONTENT);
        let sum: String = Sha1::digest(b"hello ").iter().map(|byte| format!("{byte:02x}")).collect();
        let endpoint = gateway.fixture.broker.endpoint().to_owned();
        let location = format!("{endpoint}/a/journal");
        let id = gateway.fixture.broker.id();
        let route =
            format!("members:<zone:\"{}\" suffix:\"{}\" > endpoints:\"{endpoint}\" ", id.zone, id.suffix);
        for (name, value) in [
            ("x-commit-begin", "0"),
            ("x-commit-end", "6"),
            ("x-commit-sha1-sum", sum.as_str()),
            ("x-write-head", "6"),
            ("location", location.as_str()),
        ] {
            assert_eq!(header(&put, name), Some(value), "{name}");
        }
        // HTTP/1.1 drops the space at its end.
        assert_eq!(header(&put, "x-route-token").map(str::trim_end), Some(route.trim_end()));
        gateway.put("/a/journal", "journal").await;

        let got = gateway.get("/a/journal?offset=2", &[]).await;
        assert_eq!(got.status(), StatusCode::PARTIAL_CONTENT);
        let told = "bytes 2-9223372036854775807/9223372036854775807";
        assert_eq!(header(&got, "content-range"), Some(told));
        assert_eq!(
            (header(&got, "x-write-head"), header(&got, "trailer")),
            (Some("13"), Some("x-close-error"))
        );
        assert_eq!(header(&got, "location"), Some(location.as_str()));
        assert!(header(&got, "x-fragment-name").unwrap().starts_with("0000000000000000-"));
        assert_eq!(within(got.text()).await.unwrap(), "llo journal");

        let head = gateway.send(Method::HEAD, "/a/journal", &[]).await;
        assert_eq!((head.status(), header(&head, "x-write-head")), (StatusCode::PARTIAL_CONTENT, Some("13")));
        assert_eq!(header(&head, "content-length"), None, "its body has no known length");
        gateway.fixture.stop().await;
    }
}

#[tokio::test]
async fn outcomes_have_their_status() {
    let gateway = Gateway::start().await;
    gateway.put("/a/journal", "content").await;
    for (method, path, code, text) in [
        (Method::GET, "/no/journal", 404, "JOURNAL_NOT_FOUND\n"),
        (Method::GET, "/a/journal?offset=7", 416, "OFFSET_NOT_YET_AVAILABLE\n"),
        (Method::GET, "/a/journal?offset=-1", 416, "OFFSET_NOT_YET_AVAILABLE\n"),
        (Method::PUT, "/no/journal", 500, "JOURNAL_NOT_FOUND\n"),
        (Method::DELETE, "/a/journal", 400, "unknown method: DELETE\n"),
        (
            Method::GET,
            "/a/journal?until=7",
            400,
            "unknown query argument \"until\"; expected offset, block\n",
        ),
        (
            Method::GET,
            "/a/journal?offset=x",
            400,
            "invalid value \"x\" of offset; expected a 64-bit integer\n",
        ),
        (
            Method::GET,
            "/a/journal?offset=-2",
            400,
            "invalid Offset (-2; expected -1 <= Offset <= MaxInt64)\n",
        ),
    ] {
        let response = gateway.send(method.clone(), path, &[]).await;
        assert_eq!(response.status().as_u16(), code, "{method} {path}");
        assert_eq!(within(response.text()).await.unwrap(), text, "{method} {path}");
    }
    let missing = gateway.send(Method::HEAD, "/no/journal", &[]).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    let meta = gateway.get("/a/journal;meta", &[]).await;
    assert_eq!(within(meta.text()).await.unwrap(), "content");
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn ranges_are_parts_of_a_journal() {
    let gateway = Gateway::start().await;
    gateway.put("/a/journal", "0123456789").await;
    for (range, code, told, text) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=7-", 206, "bytes 7-9/10", "789"),
        ("bytes=-2", 206, "bytes 8-9/10", "89"),
        ("bytes=-99", 206, "bytes 0-9/10", "0123456789"),
        ("bytes=8-99", 206, "bytes 8-9/10", "89"),
        ("bytes=10-", 416, "bytes */10", "OFFSET_NOT_YET_AVAILABLE\n"),
        ("bytes=-0", 416, "bytes */10", "OFFSET_NOT_YET_AVAILABLE\n"),
    ] {
        let response = gateway.get("/a/journal", &[("range", range)]).await;
        assert_eq!(response.status().as_u16(), code, "{range}");
        assert_eq!(header(&response, "content-range"), Some(told), "{range}");
        assert_eq!(response.content_length(), Some(text.len() as u64), "{range}");
        assert_eq!(within(response.text()).await.unwrap(), text, "{range}");
    }
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn a_blocking_get_follows_the_journal() {
    for http in [http1(), http2()] {
        let gateway = Gateway::start_with(|_| {}, http).await;
        gateway.put("/a/journal", "first ").await;
        let mut following = gateway.get("/a/journal?block=true", &[]).await.bytes_stream();
        assert_eq!(within(following.next()).await.unwrap().unwrap(), "first ");
        gateway.put("/a/journal", "second").await;
        assert_eq!(within(following.next()).await.unwrap().unwrap(), "second");

        // The call ends with the client.
        let ended = gateway.reads_ended().await;
        drop(following);
        eventually("the read ends", async || (gateway.reads_ended().await > ended).then_some(())).await;
        gateway.fixture.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_leaves_the_broker_alone() {
    let gateway = Gateway::start().await;
    let large = vec![7; 32 << 20];
    assert_eq!(gateway.put("/a/journal", large).await.status(), StatusCode::NO_CONTENT);
    let ended = gateway.reads_ended().await;
    let stalled = gateway.connect("GET /a/journal HTTP/1.1\r\nhost: x\r\n\r\n").await;
    within(stalled.readable()).await.unwrap();
    // What the client does not take is not read for it: the call waits.
    assert_eq!(gateway.put("/a/journal", "more").await.status(), StatusCode::NO_CONTENT);
    assert_eq!(gateway.reads_ended().await, ended);
    drop(stalled);
    eventually("the read ends", async || (gateway.reads_ended().await > ended).then_some(())).await;
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn the_trailer_tells_why_a_body_ended() {
    let gateway = Gateway::start().await;
    gateway.put("/a/journal", "content").await;
    let request = "GET /a/journal HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n";
    let mut stream = gateway.connect(request).await;
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.ends_with("0\r\nx-close-error: OFFSET_NOT_YET_AVAILABLE\r\n\r\n"), "{answer}");
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn large_bodies_are_streamed_both_ways() {
    for http in [http1(), http2()] {
        let gateway = Gateway::start_with(|_| {}, http).await;
        let content: Vec<u8> =
            (0..20 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let pieces: Vec<_> =
            content.chunks(1 << 20).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
        // Of no known length.
        let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        let put = gateway.put("/a/journal", body).await;
        assert_eq!((put.status(), header(&put, "x-commit-end")), (StatusCode::NO_CONTENT, Some("20971520")));
        let got = within(gateway.get("/a/journal", &[]).await.bytes()).await.unwrap();
        assert!(got == content, "{} bytes came", got.len());
        gateway.fixture.stop().await;
    }
}

#[tokio::test]
async fn a_put_that_breaks_off_leaves_nothing() {
    let gateway = Gateway::start().await;
    for request in [
        "PUT /a/journal HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf of it",
        "PUT /a/journal HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhalf \r\n",
    ] {
        let mut stream = gateway.connect(request).await;
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // The connection ends, with or without an answer.
        drop(within(stream.read_to_end(&mut answer)).await);
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&answer));
    }
    let put = gateway.put("/a/journal", "whole").await;
    assert_eq!((header(&put, "x-commit-begin"), header(&put, "x-commit-end")), (Some("0"), Some("5")));
    gateway.fixture.stop().await;
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn journals_are_listed_and_read_as_json() {
    for http in [http1(), http2()] {
        let gateway = Gateway::start_with(|_| {}, http).await;
        gateway.put("/a/journal", "content").await;

        let selector = json!({"include": {"labels": [{"name": "name", "value": NAME}]}});
        let listed = gateway.post("/v1/journals/list", &json!({ "selector": selector }).to_string()).await;
        assert_eq!(
            (listed.status(), header(&listed, "content-type")),
            (StatusCode::OK, Some("application/json"))
        );
        let listed = lines(&within(listed.text()).await.unwrap());
        let result = &listed[0]["result"];
        assert_eq!((&result["status"], result["journals"].as_array().unwrap().len()), (&json!("OK"), 1));
        let found = &result["journals"][0];
        let spec = &found["spec"];
        assert_eq!(
            (&spec["name"], &spec["maxAppendRate"], &spec["flags"]),
            (&json!(NAME), &json!("0"), &json!(0))
        );
        assert_eq!(spec["fragment"]["compressionCodec"], "SNAPPY");
        assert_eq!(spec["fragment"]["refreshInterval"], "1s");
        assert!(found["modRevision"].as_str().unwrap().parse::<i64>().unwrap() > 0);
        assert_eq!(found["route"]["primary"], 0);

        let request = json!({"journal": NAME, "offset": "3"}).to_string();
        let read = lines(&within(gateway.post("/v1/journals/read", &request).await.text()).await.unwrap());
        assert_eq!(read[0]["result"]["writeHead"], "7");
        assert_eq!(
            (&read[1]["result"]["offset"], &read[1]["result"]["content"]),
            (&json!("3"), &json!("dGVudA=="))
        );
        assert_eq!(read[2]["result"]["status"], "OFFSET_NOT_YET_AVAILABLE");

        // No body is an empty message.
        let all = lines(&within(gateway.post("/v1/journals/list", "").await.text()).await.unwrap());
        assert_eq!(all[0]["result"]["journals"].as_array().unwrap().len(), 1);
        gateway.fixture.stop().await;
    }
}

#[tokio::test]
async fn failures_of_the_json_gateway_are_json() {
    let gateway = Gateway::start().await;
    let refused = gateway.post("/v1/journals/read", r#"{"journal": "/a/journal"}"#).await;
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let error = &lines(&within(refused.text()).await.unwrap())[0]["error"];
    assert_eq!((&error["grpcCode"], &error["httpCode"]), (&json!(2), &json!(500)));
    assert_eq!(error["message"], "Journal: cannot begin with '/' (/a/journal)");

    for body in ["{", r#"{"what": 1}"#, r#"{"journal": 7}"#, "{} {}", "\u{0}"] {
        let refused = gateway.post("/v1/journals/read", body).await;
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{body}");
        let error: Value = serde_json::from_str(&within(refused.text()).await.unwrap()).unwrap();
        assert_eq!((&error["code"], &error["details"]), (&json!(3), &json!([])), "{body}");
        assert_eq!(error["error"], error["message"]);
    }
    let got = gateway.get("/v1/journals/list", &[]).await;
    assert_eq!(got.status(), StatusCode::METHOD_NOT_ALLOWED);
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn a_watched_list_as_json_goes_on() {
    let mut gateway = Gateway::start().await;
    let request = json!({"watch": true, "selector": {}}).to_string();
    let mut watch = gateway.post("/v1/journals/list", &request).await.bytes_stream();
    let mut seen = String::new();
    let mut await_text = async |text: &str| {
        while !seen.contains(text) {
            seen.push_str(std::str::from_utf8(&within(watch.next()).await.unwrap().unwrap()).unwrap());
        }
    };
    await_text(NAME).await;
    gateway.fixture.create(journal("another/journal")).await;
    await_text("another/journal").await;
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_the_json_gateway() {
    let allow = |options: &mut BrokerOptions| options.allow_origin = vec![ORIGIN.to_owned()];
    let gateway = Gateway::start_with(allow, http1()).await;
    for (method, path) in [(Method::OPTIONS, "/v1/journals/read"), (Method::POST, "/v1/journals/list")] {
        let allowed = gateway.send(method.clone(), path, &[("origin", ORIGIN)]).await;
        assert_eq!(allowed.status(), StatusCode::OK);
        assert_eq!(header(&allowed, "access-control-allow-origin"), Some(ORIGIN));
        assert_eq!(header(&allowed, "access-control-allow-methods"), Some("GET, POST, OPTIONS"));
        assert!(header(&allowed, "access-control-allow-headers").unwrap().ends_with("Pragma, Authorization"));
        for other in ["https://app.example:8080", "http://app.example", "null"] {
            let refused = gateway.send(method.clone(), path, &[("origin", other)]).await;
            assert_eq!(header(&refused, "access-control-allow-origin"), None, "{other}");
        }
    }
    // Journals themselves are for programs.
    let get = gateway.get("/a/journal", &[("origin", ORIGIN)]).await;
    assert_eq!(header(&get, "access-control-allow-origin"), None);
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn with_keys_the_gateways_ask_for_a_token() {
    let keys = Keys::parse("c2VjcmV0").unwrap();
    let now = runtime::Clock::system().unix_seconds();
    let token = |capability, journal| {
        let selector = LabelSelector::include([("name", journal)]);
        let expires = now + 3600;
        let claims = Claims { capability, selector, expires, issued: Some(now), ..Claims::default() };
        format!("Bearer {}", keys.sign(&claims))
    };
    let with_keys = |options: &mut BrokerOptions| options.auth_keys = Some(keys.clone());
    let mut fixture = Fixture::start_in(tempfile::tempdir().unwrap(), with_keys).await;
    let mut apply = tonic::Request::new(ApplyRequest { changes: vec![upsert(journal(NAME), 0)] });
    apply.metadata_mut().insert("authorization", token(Capability::ALL, NAME).parse().unwrap());
    within(fixture.client.apply(apply)).await.unwrap();
    let gateway = Gateway { fixture, http: http1() };

    let put = async |token: &str| {
        let put = gateway.http.put(gateway.url("/a/journal")).header("authorization", token).body("content");
        within(put.send()).await.unwrap()
    };
    let (reader, writer) = (token(Capability::READ, NAME), token(Capability::APPEND, NAME));
    eventually("the journal takes appends", async || {
        (put(&writer).await.status() == StatusCode::NO_CONTENT).then_some(())
    })
    .await;
    let got = gateway.get("/a/journal", &[("authorization", &reader)]).await;
    assert!(within(got.text()).await.unwrap().starts_with("content"));

    // Without one, with that of a writer, and with a scheme which is not known.
    let scheme = reader.replace("Bearer", "Basic");
    for headers in
        [&[][..], &[("authorization", writer.as_str())][..], &[("authorization", scheme.as_str())][..]]
    {
        let refused = gateway.get("/a/journal", headers).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(header(&refused, "www-authenticate"), Some("Bearer"));
        let refused = gateway.get("/a/journal", &[headers, &[("range", "bytes=-3")][..]].concat()).await;
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }
    assert_eq!(put(&reader).await.status(), StatusCode::UNAUTHORIZED);
    // What a token does not reach is not there.
    let other = token(Capability::READ, "another/journal");
    let missing = gateway.get("/a/journal", &[("authorization", &other)]).await;
    assert_eq!((missing.status(), header(&missing, "x-route-token")), (StatusCode::NOT_FOUND, None));

    let refused = gateway.post("/v1/journals/read", &json!({"journal": NAME}).to_string()).await;
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(header(&refused, "www-authenticate"), Some("Bearer"));
    let listed = gateway.send(Method::POST, "/v1/journals/list", &[]).await;
    assert_eq!(listed.status(), StatusCode::UNAUTHORIZED);
    let read = gateway.http.post(gateway.url("/v1/journals/read")).header("authorization", &reader);
    let read = within(read.body(json!({"journal": NAME}).to_string()).send()).await.unwrap();
    assert_eq!(lines(&within(read.text()).await.unwrap())[0]["result"]["status"], "OK");
    gateway.fixture.stop().await;
}

#[tokio::test]
async fn health_and_services_can_be_asked_for() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
    use tonic_reflection::pb::{v1, v1alpha};

    let dir = tempfile::tempdir().unwrap();
    let broker = within(Broker::start(BrokerOptions::embedded(dir.path().to_owned()))).await.unwrap();
    let channel = runtime::grpc::channel(broker.endpoint()).unwrap();
    let mut health = HealthClient::new(channel.clone());
    for (service, serving) in [("", true), ("protocol.Journal", true), ("protocol.Nothing", false)] {
        let checked = within(health.check(HealthCheckRequest { service: service.to_owned() })).await;
        let is_serving = checked.is_ok_and(|checked| checked.into_inner().status() == ServingStatus::Serving);
        assert_eq!(is_serving, serving, "{service:?}");
    }

    let ask = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let ask = v1::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let answers = within(client.server_reflection_info(futures::stream::iter([ask]))).await.unwrap();
    let answer = within(answers.into_inner().message()).await.unwrap().unwrap();
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(services)) =
        answer.message_response
    else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"protocol.Journal") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    assert!(!names.contains(&"consumer.Shard"), "{names:?}");

    let symbol = "protocol.ReadRequest".to_owned();
    let ask = v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(symbol);
    let ask = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
    let answers = within(client.server_reflection_info(futures::stream::iter([ask]))).await.unwrap();
    let answer = within(answers.into_inner().message()).await.unwrap().unwrap();
    let described = answer.message_response.unwrap();
    assert!(
        matches!(described, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)),
        "{described:?}"
    );

    // Whoever watches is told before the broker is gone.
    let watch = within(health.watch(HealthCheckRequest { service: String::new() })).await.unwrap();
    let mut watch = watch.into_inner();
    assert_eq!(within(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    let told = async {
        let told = watch.message().await.unwrap().unwrap().status();
        // The watch ends, so that it does not hold the broker up.
        (told, watch.message().await.unwrap())
    };
    let (stopped, told) = futures::join!(broker.stop(), within(told));
    stopped.unwrap();
    assert_eq!(told, (ServingStatus::NotServing, None));
}
