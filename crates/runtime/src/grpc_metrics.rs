//! Counts the calls of a gRPC server, and those of a client, under the names of go-grpc-prometheus.
//!
//! Calls of methods which the protocol has are counted: when they start, by each message that comes and goes, and when they
//! are over, with their code and duration. One whose caller goes away is over with `Canceled`. Methods that do not exist are
//! not, so that nobody can make series.

mod calls;
mod client;
mod frames;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tonic::service::Routes;

use crate::{Clock, Metrics};
use calls::{Calls, Counted};
pub use client::{ClientCalls, CountedChannel};

/// The same routes, whose calls of `service` are counted. Its methods are there from the beginning.
///
/// # Panics
/// If the protocol has no such service: names of services are fixed in the source.
pub fn counted(routes: Routes, service: &str, metrics: &Metrics, clock: &Clock) -> Routes {
    let calls = Arc::new(Calls::new("server", &[service], metrics, clock));
    Routes::from(routes.into_axum_router().layer(middleware::from_fn_with_state(calls, count)))
}

async fn count(State(calls): State<Arc<Calls>>, request: Request, next: Next) -> Response {
    let Some(method) = calls.method(request.uri().path()) else { return next.run(request).await };
    let mut call = calls.begin(method);
    let request = request.map(|inner| Body::new(Counted::new(inner, &method.received)));
    let response = next.run(request).await;
    // A call without messages ends with its headers.
    call.note(response.headers());
    response.map(|inner| Body::new(Counted::new(inner, &method.sent).ends(call, |_| None)))
}

#[cfg(test)]
mod tests {
    use proto::protocol::journal_client::JournalClient;
    use proto::protocol::{ListRequest, ListResponse, ReadRequest};

    use axum::body::HttpBody;
    use bytes::Bytes;
    use http::HeaderMap;
    use hyper::body::Frame;
    use std::pin::Pin;
    use std::task::{Context, Poll};

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
