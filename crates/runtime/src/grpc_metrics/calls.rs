//! What is counted of calls of gRPC, on either side, and the bodies which are watched for it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};
use tonic::Code;

use super::frames::Frames;
use crate::grpc::code_name;
use crate::{Clock, Instant, Metrics};

/// Labels of a method.
const METHOD: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];
/// Labels of a method with its outcome.
const OUTCOME: [&str; 4] = ["grpc_type", "grpc_service", "grpc_method", "grpc_code"];
/// Upper bounds of durations, seconds.
const SECONDS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The calls of a server or a client.
#[derive(Debug)]
pub(super) struct Calls {
    clock: Clock,
    /// By path of the URL.
    methods: BTreeMap<String, Arc<Method>>,
}

#[derive(Debug)]
pub(super) struct Method {
    labels: [String; 3],
    started: IntCounter,
    pub(super) received: IntCounter,
    pub(super) sent: IntCounter,
    seconds: Histogram,
    handled: IntCounterVec,
}

impl Calls {
    /// Calls of the methods of `services`, as `side`: `server` or `client`.
    ///
    /// # Panics
    /// If the protocol has no such service: names of services are fixed in the source.
    pub(super) fn new(side: &str, services: &[&str], metrics: &Metrics, clock: &Clock) -> Calls {
        let name = |rest: &str| format!("grpc_{side}_{rest}");
        let counter = |rest: &str, help: &str| metrics.counter_vec(&name(rest), help, &METHOD);
        let all = Families {
            started: counter("started_total", "Calls that were started."),
            received: counter("msg_received_total", "Messages of calls that came in."),
            sent: counter("msg_sent_total", "Messages of calls that went out."),
            seconds: metrics.histogram_vec(
                &name("handling_seconds"),
                "Duration of calls, up to their end.",
                &METHOD,
                &SECONDS,
            ),
            handled: metrics.counter_vec(&name("handled_total"), "Calls that are over, by code.", &OUTCOME),
        };
        let service = |name| crate::json_gateway::service(name).expect("the protocol has the service");
        let methods = services.iter().flat_map(|name| all.of_service(&service(name))).collect();
        Calls { clock: clock.clone(), methods }
    }

    /// The method which requests of this path call, if it is one of those that are counted.
    pub(super) fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(path)
    }

    pub(super) fn begin(&self, method: &Arc<Method>) -> Call {
        method.started.inc();
        let (clock, began) = (self.clock.clone(), self.clock.now());
        Call { method: Arc::clone(method), clock, began, code: Code::Cancelled }
    }
}

struct Families {
    started: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    seconds: HistogramVec,
    handled: IntCounterVec,
}

impl Families {
    /// The methods of a service, by path.
    fn of_service(&self, service: &ServiceDescriptor) -> Vec<(String, Arc<Method>)> {
        let path = |method: &MethodDescriptor| format!("/{}/{}", service.full_name(), method.name());
        let methods = service.methods();
        methods.map(|method| (path(&method), Arc::new(self.of(service.full_name(), &method)))).collect()
    }

    fn of(&self, service: &str, method: &MethodDescriptor) -> Method {
        let labels = [kind(method).to_owned(), service.to_owned(), method.name().to_owned()];
        Method {
            started: self.started.with_label_values(&labels),
            received: self.received.with_label_values(&labels),
            sent: self.sent.with_label_values(&labels),
            seconds: self.seconds.with_label_values(&labels),
            handled: self.handled.clone(),
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

/// A call that is not over, or is over when this is dropped.
pub(super) struct Call {
    method: Arc<Method>,
    clock: Clock,
    began: Instant,
    /// What it is over with, unless trailers tell otherwise.
    code: Code,
}

impl Call {
    /// Notes the code, if the headers or trailers have one.
    pub(super) fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Code::from_bytes(code.as_bytes());
        }
    }

    /// Ends the call with this code.
    pub(super) fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.clock.now().saturating_duration_since(self.began);
        self.method.seconds.observe(took.as_secs_f64());
        let Method { labels: [kind, service, method], handled, .. } = &*self.method;
        handled.with_label_values(&[kind.as_str(), service, method, code_name(self.code)]).inc();
    }
}

/// A body whose messages are counted.
pub(super) struct Counted<B: Body> {
    inner: B,
    frames: Frames,
    messages: IntCounter,
    /// The call which is over with this body.
    call: Option<Call>,
    /// What a call is over with whose body fails, if that tells.
    code_of: fn(&B::Error) -> Option<Code>,
}

impl<B: Body> Counted<B> {
    /// Counts in `messages`.
    pub(super) fn new(inner: B, messages: &IntCounter) -> Counted<B> {
        let messages = messages.clone();
        Counted { inner, frames: Frames::default(), messages, call: None, code_of: |_| None }
    }

    /// The same as the answer of `call`.
    pub(super) fn ends(self, call: Call, code_of: fn(&B::Error) -> Option<Code>) -> Counted<B> {
        Counted { call: Some(call), code_of, ..self }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let begun = self.frames.begun_in(data);
                    self.messages.inc_by(begun);
                } else if let (Some(trailers), Some(mut call)) = (frame.trailers_ref(), self.call.take()) {
                    call.note(trailers);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                if let (Some(code), Some(call)) = ((self.code_of)(error), self.call.take()) {
                    call.end(code);
                }
            }
            Poll::Ready(None) | Poll::Pending => {}
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
