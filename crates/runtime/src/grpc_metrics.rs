//! Counts the calls of a gRPC server, under the names of go-grpc-prometheus.
//!
//! Calls of methods which the protocol has are counted: when they start, by each message that comes and goes, and when they
//! are over, with their code and duration. One whose caller goes away is over with `Canceled`. Methods that do not exist are
//! not, so that nobody can make series.

mod frames;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};
use tonic::Code;
use tonic::service::Routes;

use crate::grpc::code_name;
use crate::{Clock, Instant, Metrics};
use frames::Frames;

/// Labels of a method.
const METHOD: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
/// Labels of a method with its outcome.
const OUTCOME: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
/// Upper bounds of durations, seconds.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The same routes, whose calls of `service` are counted. Its methods are there from the beginning.
///
/// # Panics
/// If the protocol has no such service: names of services are fixed in the source.
pub fn counted(routes: Routes, service: &str, metrics: &Metrics, clock: &Clock) -> Routes {
    let service = crate::json_gateway::service(service).expect("the protocol has the service");
    let server = Arc::new(Server::new(&service, metrics, clock.clone()));
    Routes::from(routes.into_axum_router().layer(middleware::from_fn_with_state(server, count)))
}

struct Server {
    clock: Clock,
    /// By path of the URL.
    methods: BTreeMap<String, Method>,
    handled: IntCounterVec,
}

#[derive(Clone)]
struct Method {
    labels: [String; 3],
    started: IntCounter,
    received: IntCounter,
    sent: IntCounter,
    seconds: Histogram,
}

impl Server {
    fn new(service: &ServiceDescriptor, metrics: &Metrics, clock: Clock) -> Server {
        let counter =
            |name: &str, help: &str| metrics.counter_vec(&format!("grpc_server_{name}_total"), help, &METHOD);
        let all = Families {
            started: counter("started", "Calls that were started."),
            received: counter("msg_received", "Messages of calls that came in."),
            sent: counter("msg_sent", "Messages of calls that went out."),
            seconds: metrics.histogram_vec(
                "grpc_server_handling_seconds",
                "Duration of calls, up to their end.",
                &METHOD,
                &SECONDS,
            ),
        };
        let methods = service.methods().map(|method| {
            (format!("/{}/{}", service.full_name(), method.name()), all.of(service.full_name(), &method))
        });
        Server {
            clock,
            methods: methods.collect(),
            handled: metrics.counter_vec(
                "grpc_server_handled_total",
                "Calls that are over, by code.",
                &OUTCOME,
            ),
        }
    }

    fn begin(&self, method: &Method) -> Call {
        method.started.inc();
        Call {
            method: method.clone(),
            handled: self.handled.clone(),
            clock: self.clock.clone(),
            began: self.clock.now(),
            code: Code::Cancelled,
        }
    }
}

struct Families {
    started: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    seconds: HistogramVec,
}

impl Families {
    fn of(&self, service: &str, method: &MethodDescriptor) -> Method {
        let labels = [kind(method).to_owned(), service.to_owned(), method.name().to_owned()];
        Method {
            started: self.started.with_label_values(&labels),
            received: self.received.with_label_values(&labels),
            sent: self.sent.with_label_values(&labels),
            seconds: self.seconds.with_label_values(&labels),
            labels,
        }
    }
}

fn kind(method: &MethodDescriptor) -> &'static str {
    match (method.is_client_streaming(), method.is_server_streaming()) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    }
}

async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let Some(method) = server.methods.get(request.uri().path()) else { return next.run(request).await };
    let mut call = server.begin(method);
    let received = method.received.clone();
    let request = request
        .map(|inner| Body::new(Counted { inner, frames: Frames::default(), messages: received, call: None }));
    let response = next.run(request).await;
    // A call without messages ends with its headers.
    call.note(response.headers());
    let sent = method.sent.clone();
    response.map(|inner| {
        Body::new(Counted { inner, frames: Frames::default(), messages: sent, call: Some(call) })
    })
}

/// A call that is not over, or is over when this is dropped.
struct Call {
    method: Method,
    handled: IntCounterVec,
    clock: Clock,
    began: Instant,
    /// What it is over with, unless trailers tell otherwise.
    code: Code,
}

impl Call {
    /// Notes the code, if the headers or trailers have one.
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Code::from_bytes(code.as_bytes());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.clock.now().saturating_duration_since(self.began);
        self.method.seconds.observe(took.as_secs_f64());
        let [kind, service, method] = &self.method.labels;
        self.handled.with_label_values(&[kind.as_str(), service, method, code_name(self.code)]).inc();
    }
}

/// A body whose messages are counted.
struct Counted {
    inner: Body,
    frames: Frames,
    messages: IntCounter,
    /// The call which is over with this body.
    call: Option<Call>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if let Some(data) = frame.data_ref() {
                let begun = self.frames.begun_in(data);
                self.messages.inc_by(begun);
            } else if let (Some(trailers), Some(mut call)) = (frame.trailers_ref(), self.call.take()) {
                call.note(trailers);
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use proto::protocol::journal_client::JournalClient;
    use proto::protocol::{ListRequest, ListResponse, ReadRequest};

    use super::*;

    /// Answers a list with two messages, everything else with an error.
    async fn answer(request: Request) -> Response {
        use prost_reflect::prost::Message;
        if !request.uri().path().ends_with("/List") {
            return tonic::Status::not_found("no").into_http();
        }
        let message = ListResponse::default().encode_to_vec();
        let mut framed = vec![0];
        framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend_from_slice(&message);
        let data = Bytes::from([framed.clone(), framed].concat());
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        let frames = [Ok(Frame::data(data)), Ok::<_, std::convert::Infallible>(Frame::trailers(trailers))];
        let mut response = Response::new(Body::new(Script(frames.into_iter().collect())));
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        response
    }

    struct Script(std::collections::VecDeque<Result<Frame<Bytes>, std::convert::Infallible>>);

    impl HttpBody for Script {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    #[tokio::test]
    async fn calls_are_counted_by_method_and_outcome() {
        let metrics = Metrics::new();
        let routes = Routes::from(axum::Router::new().fallback(answer));
        let routes = counted(routes, "protocol.Journal", &metrics, &Clock::system());
        let mut client = JournalClient::new(routes);
        let mut listed = client.list(ListRequest::default()).await.unwrap().into_inner();
        while listed.message().await.unwrap().is_some() {}
        client.read(ReadRequest::default()).await.unwrap_err();
        drop(client.list(ListRequest::default()).await.unwrap());
        let text = metrics.render();
        let list = r#"grpc_method="List",grpc_service="protocol.Journal",grpc_type="server_stream""#;
        let read = r#"grpc_method="Read",grpc_service="protocol.Journal",grpc_type="server_stream""#;
        let append = r#"grpc_method="Append",grpc_service="protocol.Journal",grpc_type="client_stream""#;
        for line in [
            format!("grpc_server_started_total{{{list}}} 2"),
            format!("grpc_server_started_total{{{append}}} 0"),
            format!("grpc_server_msg_sent_total{{{list}}} 2"),
            format!(r#"grpc_server_handled_total{{grpc_code="OK",{list}}} 1"#),
            format!(r#"grpc_server_handled_total{{grpc_code="Canceled",{list}}} 1"#),
            format!(r#"grpc_server_handled_total{{grpc_code="NotFound",{read}}} 1"#),
            format!("grpc_server_handling_seconds_count{{{read}}} 1"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
