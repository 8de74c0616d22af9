//! gRPC methods as JSON over HTTP (journal protocol §14.3, consumer protocol §1.4), in the shapes of grpc-gateway v1.
//!
//! `POST` a method's request as JSON. A method with one answer gives its message; one that streams gives a line of
//! `{"result": …}` for each. Names are in lowerCamelCase, zero values are there, 64-bit integers are text. The call is made
//! on the service itself, in this process, with the caller's `Authorization`: whoever may not call the service may not
//! call it here. The call begins before the request's body is read, which is its message: a service that refuses the caller by
//! the headers alone does so here, too, and a body that does not come in time ends with 408.
//!
//! Pages of the configured origins may call it from a browser (CORS); those of others are told nothing, which browsers take
//! for a no.

mod failure;
mod message;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures::StreamExt;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION,
    CONTENT_TYPE, ORIGIN, VARY,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use prost_reflect::{DynamicMessage, MethodDescriptor, ServiceDescriptor};
use tokio::sync::oneshot;
use tonic::service::Routes;
use tonic::{Status, Streaming};

use crate::Clock;
use message::{Messages, POOL, line_of, text_of};

/// How long the body of a request may take to come, from when the service asks for it.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(30);

const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
const ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(
    "Cache-Control, Content-Language, Content-Length, Content-Type, Expires, Last-Modified, Pragma, Authorization",
);
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A method of a service and where it is served.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Path of the URL.
    pub path: &'static str,
    /// Full name of the service.
    pub service: &'static str,
    /// Name of the method, which takes one request.
    pub method: &'static str,
}

/// Serves the methods of `rules` by calling `service`. Pages of `origins` may call them. Requests of more than
/// `request_bytes_max` are refused, and those whose body takes longer than [`BODY_WAIT_MAX`] by `clock`.
///
/// # Panics
/// If a rule names a method which the protocol does not have: rules are fixed in the source.
pub fn router(
    service: &Routes,
    rules: &[Rule],
    origins: &[String],
    request_bytes_max: usize,
    clock: &Clock,
) -> Router {
    let origins: Arc<[String]> = origins.into();
    rules.iter().fold(Router::new(), |router, rule| {
        let served = self::service(rule.service).expect("rules name services of the protocol");
        let method = served.methods().find(|method| method.name() == rule.method);
        let endpoint = Arc::new(Endpoint {
            service: service.clone(),
            method: method.expect("rules name methods of the protocol"),
            path: PathAndQuery::try_from(format!("/{}/{}", rule.service, rule.method))
                .expect("names of services and methods are plain"),
            origins: Arc::clone(&origins),
            request_bytes_max,
            clock: clock.clone(),
        });
        router.route(rule.path, any(move |request: Request| endpoint.answer(request)))
    })
}

/// A service of the protocol, by its full name.
pub(crate) fn service(name: &str) -> Option<ServiceDescriptor> {
    POOL.get_service_by_name(name)
}

/// One method.
struct Endpoint {
    service: Routes,
    method: MethodDescriptor,
    path: PathAndQuery,
    origins: Arc<[String]>,
    request_bytes_max: usize,
    clock: Clock,
}

impl Endpoint {
    async fn answer(self: Arc<Self>, request: Request) -> Response {
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = match *request.method() {
            Method::OPTIONS => StatusCode::OK.into_response(),
            Method::POST => self.call(request).await,
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        };
        if let Some(origin) = origin {
            self.allow(origin, response.headers_mut());
        }
        response
    }

    /// Says that pages of `origin` may see the answer, if they may.
    fn allow(&self, origin: HeaderValue, headers: &mut HeaderMap) {
        if self.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS);
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS);
        }
        if !self.origins.is_empty() {
            // The answer depends on it: caches must know.
            headers.insert(VARY, HeaderValue::from(ORIGIN));
        }
    }

    async fn call(self: &Arc<Self>, request: Request) -> Response {
        let (head, body) = request.into_parts();
        let (fail, mut failed) = oneshot::channel();
        let endpoint = Arc::clone(self);
        let message = async move {
            let message = endpoint.message(body).await;
            if let Err(status) = &message {
                // Nobody wants to know once the call is over.
                drop(fail.send(status.clone()));
            }
            message
        };
        let mut call = tonic::Request::new(futures::stream::once(message));
        authorize(&mut call, head.headers.get(AUTHORIZATION));
        let mut client = tonic::client::Grpc::new(self.service.clone()).max_decoding_message_size(usize::MAX);
        let messages = Messages(self.method.output());
        // One message is a stream of one, on the wire.
        let called = match client.ready().await {
            Ok(()) => client.streaming(call, self.path.clone(), messages).await,
            Err(never) => match never {},
        };
        match (called, self.method.is_server_streaming()) {
            (Ok(stream), true) => streamed(stream.into_inner()).await,
            (Ok(stream), false) => single(stream.into_inner()).await,
            (Err(status), is_streaming) => match failed.try_recv() {
                // There was no message to call with.
                Ok(reason) => failure::of_call(&reason),
                Err(_) if is_streaming => failure::of_stream(&status),
                Err(_) => failure::of_call(&status),
            },
        }
    }

    /// The request's message. An empty body is the empty message.
    async fn message(&self, body: Body) -> Result<DynamicMessage, Status> {
        let text =
            self.clock.timeout(BODY_WAIT_MAX, axum::body::to_bytes(body, self.request_bytes_max)).await;
        let text = text
            .map_err(|_| {
                Status::cancelled(format!("request body: it did not come within {BODY_WAIT_MAX:?}"))
            })?
            .map_err(|error| Status::invalid_argument(format!("request body: {error}")))?;
        if text.is_empty() {
            return Ok(DynamicMessage::new(self.method.input()));
        }
        let mut json = serde_json::Deserializer::from_slice(&text);
        let message = DynamicMessage::deserialize(self.method.input(), &mut json);
        message.and_then(|message| json.end().map(|()| message)).map_err(|error| {
            Status::invalid_argument(format!("{}: {error}", self.method.input().full_name()))
        })
    }
}

/// Gives a call the caller's `Authorization`.
pub fn authorize<T>(call: &mut tonic::Request<T>, authorization: Option<&HeaderValue>) {
    let token = authorization.and_then(|value| value.as_bytes().try_into().ok());
    if let Some(token) = token {
        call.metadata_mut().insert(AUTHORIZATION.as_str(), token);
    }
}

/// What tells the caller of a gateway to authenticate.
pub const CHALLENGE: (HeaderName, HeaderValue) =
    (http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));

/// The answer of a method that has one.
async fn single(mut stream: Streaming<DynamicMessage>) -> Response {
    let answer = async {
        let message = stream.message().await?.ok_or_else(|| Status::internal("the method gave no answer"))?;
        // How the call went is known at its end.
        stream.message().await?;
        text_of(&message)
    };
    match answer.await {
        Ok(text) => ([(CONTENT_TYPE, JSON)], text).into_response(),
        Err(status) => failure::of_call(&status),
    }
}

/// The answers of a method, each as it comes. Its first one decides about the status.
async fn streamed(mut stream: Streaming<DynamicMessage>) -> Response {
    let first = match stream.message().await {
        Ok(Some(message)) => line_of(&message),
        Ok(None) => return ([(CONTENT_TYPE, JSON)], Body::empty()).into_response(),
        Err(status) => Err(status),
    };
    let first = match first {
        Ok(line) => line,
        Err(status) => return failure::of_stream(&status),
    };
    let rest = stream.map(|message| match message.and_then(|message| line_of(&message)) {
        Ok(line) => line,
        Err(status) => failure::line_of(&status),
    });
    let lines = futures::stream::iter([first]).chain(rest).map(Ok::<_, std::convert::Infallible>);
    ([(CONTENT_TYPE, JSON)], Body::from_stream(lines)).into_response()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::body::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::server::{Listener, serve};
    use crate::{OnError, TaskGroup};

    /// The outcome of a call which gives an empty message, and then ends with this code.
    async fn called(code: &'static str) -> (StatusCode, String) {
        let service = axum::Router::new().fallback(move || async move {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
            let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
            let frames = futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>));
            let body = Body::new(http_body_util::StreamBody::new(frames));
            ([(CONTENT_TYPE, "application/grpc")], body).into_response()
        });
        let rule = Rule { path: "/stat", service: "consumer.Shard", method: "Stat" };
        let gateway = router(&Routes::from(service), &[rule], &[], 1024, &Clock::system());
        let response = gateway.oneshot(Request::post("/stat").body(Body::from("{}")).unwrap()).await.unwrap();
        let status = response.status();
        let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    /// A service which reads requests, and then fails.
    fn reads() -> axum::Router {
        axum::Router::new().fallback(|request: Request| async move {
            let codec = Messages(POOL.get_message_by_name("consumer.StatRequest").unwrap());
            let fails = service_fn(|_: tonic::Request<DynamicMessage>| async {
                Err::<tonic::Response<Result<DynamicMessage, Status>>, _>(Status::aborted("it has come"))
            });
            tonic::server::Grpc::new(codec).unary(fails, request).await
        })
    }

    /// What a server of `service` answers to a request whose body does not come, but for a blank now and then; and when it does.
    async fn stalled(path: &str, service: axum::Router) -> (String, Duration) {
        let rules = [
            Rule { path: "/stat", service: "consumer.Shard", method: "Stat" },
            Rule { path: "/read", service: "protocol.Journal", method: "Read" },
        ];
        let clock = Clock::system();
        let gateway = router(&Routes::from(service), &rules, &[], 1024, &clock);
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskGroup::new("test");
        let server = serve(listener, gateway, tasks.clone(), clock.clone(), Duration::ZERO);
        tasks.spawn("server", OnError::CancelGroup, server);

        let begun = clock.now();
        let (mut from, mut to) = TcpStream::connect(address).await.unwrap().into_split();
        let expect = "Expect: 100-continue\r\nContent-Length: 1000\r\n";
        to.write_all(format!("POST {path} HTTP/1.1\r\nHost: x\r\n{expect}\r\n").as_bytes()).await.unwrap();
        let trickle = async {
            loop {
                clock.sleep(BODY_WAIT_MAX / 4).await;
                drop(to.write_all(b" ").await);
            }
        };
        let mut answer = Vec::new();
        tokio::select! {
            biased;
            // Closing with something unread resets the connection.
            _closed = from.read_to_end(&mut answer) => {}
            () = trickle => {}
        }
        let took = clock.now() - begun;
        tasks.cancel();
        tasks.join_within(BODY_WAIT_MAX).await.unwrap();
        (String::from_utf8(answer).unwrap(), took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_body_does_not_come_in_time_is_ended() {
        for path in ["/stat", "/read"] {
            let (answer, took) = stalled(path, reads()).await;
            let asked = "HTTP/1.1 100 Continue\r\n\r\n";
            let ended = answer.strip_prefix(asked).unwrap_or_default();
            assert!(ended.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
            let text = "request body: it did not come within 30s";
            let error = serde_json::json!({"code": 1, "details": [], "error": text, "message": text});
            let shown: serde_json::Value =
                serde_json::from_str(ended.split_once("\r\n\r\n").unwrap().1).unwrap();
            assert_eq!(shown, error);
            assert!(took >= BODY_WAIT_MAX && took < 2 * BODY_WAIT_MAX, "{took:?}");
        }
    }

    #[tokio::test]
    async fn a_call_that_is_refused_by_its_headers_never_asks_for_the_body() {
        let refuses = || async { Status::unauthenticated("no token").into_http::<Body>() };
        for path in ["/stat", "/read"] {
            let (answer, _) = stalled(path, axum::Router::new().fallback(refuses)).await;
            assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
            assert!(answer.contains(r#""message":"no token""#), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_request_that_makes_no_sense_is_told_so() {
        let rule = Rule { path: "/read", service: "protocol.Journal", method: "Read" };
        let gateway = router(&Routes::from(reads()), &[rule], &[], 16, &Clock::system());
        for (body, expected) in [
            ("{\"no\": 1}", "protocol.ReadRequest: "),
            ("{}{}", "trailing characters"),
            (&*" ".repeat(17), "request body: "),
        ] {
            let request = Request::post("/read").body(Body::from(body.to_owned())).unwrap();
            let response = gateway.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            let text = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let shown: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(shown["code"], 3);
            assert!(shown["message"].as_str().unwrap().contains(expected), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_call_that_fails_after_its_message_has_failed() {
        let (status, text) = called("0").await;
        assert_eq!((status, text.contains("\"readThrough\"")), (StatusCode::OK, true), "{text}");
        let (status, text) = called("14").await;
        assert_eq!((status, text.contains("\"code\":14")), (StatusCode::SERVICE_UNAVAILABLE, true), "{text}");
    }
}
