//! A span for each gRPC request, from its arrival until the last of its answer is sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Frame;
use tower::ServiceExt;
use tracing::{Instrument, Span, field};

use crate::trace;

/// Answers a request.
pub(super) async fn call<B>(router: Router, request: Request<B>) -> Result<Response, Infallible>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    let span = span_of(&request);
    if span.is_disabled() {
        return router.oneshot(request).await;
    }
    let response = router.oneshot(request).instrument(span.clone()).await?;
    Ok(response.map(|body| Body::new(Answer { body, span })))
}

/// The span of a request, none for plain HTTP. Whoever answers may record the journal.
fn span_of<B>(request: &Request<B>) -> Span {
    if !super::is_grpc(request) {
        return Span::none();
    }
    let method = request.uri().path().rsplit('/').next().unwrap_or_default();
    let span = tracing::info_span!(
        target: trace::TARGET, parent: None, "request", otel.name = method, otel.kind = "server",
        journal = field::Empty);
    trace::adopt(&span, request.headers());
    span
}

/// The body of an answer, which ends the span.
struct Answer {
    body: Body,
    span: Span,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Answer { body, span } = &mut *self;
        let _within = span.enter();
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
