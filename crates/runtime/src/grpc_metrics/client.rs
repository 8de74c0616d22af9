//! Counts the calls of a client: a layer around its channel.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

use super::calls::{Calls, Counted};
use crate::{Clock, Metrics};

/// Where the calls of a process to others are counted. Cheap to clone; clones count together.
#[derive(Clone, Debug, Default)]
pub struct ClientCalls(Option<Arc<Calls>>);

impl ClientCalls {
    /// Counts the calls of `services` in `metrics`. Their methods are there from the beginning.
    ///
    /// # Panics
    /// If the protocol has no such service: names of services are fixed in the source.
    pub fn new(services: &[&str], metrics: &Metrics, clock: &Clock) -> ClientCalls {
        ClientCalls(Some(Arc::new(Calls::new("client", services, metrics, clock))))
    }

    /// Counts nothing.
    pub fn uncounted() -> ClientCalls {
        ClientCalls::default()
    }

    /// The same channel, whose calls are counted here.
    pub fn over(&self, channel: Channel) -> CountedChannel {
        CountedChannel { channel, calls: self.clone() }
    }
}

/// A channel whose calls are counted. Its errors are those which a client of the channel itself would have.
#[derive(Clone, Debug)]
pub struct CountedChannel {
    channel: Channel,
    calls: ClientCalls,
}

impl Service<http::Request<Body>> for CountedChannel {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Status>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.channel.poll_ready(cx).map_err(status)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let calls = self.calls.0.as_deref();
        let Some((calls, method)) =
            calls.and_then(|calls| Some((calls, calls.method(request.uri().path())?)))
        else {
            return self.channel.call(request).map(|outcome| outcome.map_err(status)).boxed();
        };
        let (mut call, received) = (calls.begin(method), method.received.clone());
        let request = request.map(|inner| Body::new(Counted::new(inner, &method.sent)));
        let outcome = self.channel.call(request);
        async move {
            match outcome.await.map_err(status) {
                Ok(response) => {
                    // A call without messages ends with its headers.
                    call.note(response.headers());
                    let code_of = |status: &Status| -> Option<Code> { Some(status.code()) };
                    Ok(response.map(|inner| Body::new(Counted::new(inner, &received).ends(call, code_of))))
                }
                Err(status) => {
                    call.end(status.code());
                    Err(status)
                }
            }
        }
        .boxed()
    }
}

/// As tonic makes it of what a channel fails with.
fn status(error: tonic::transport::Error) -> Status {
    Status::from_error(error.into())
}
