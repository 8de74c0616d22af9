//! Requests spread over the servers of a cluster: each goes to the next one that has not failed lately.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use runtime::{Clock, Instant};
use tower::{BoxError, Service, ServiceExt};

/// How long a server that failed is passed over, while there is another one.
const AVOID_FAILED: Duration = Duration::from_secs(5);

/// See the module. Cheap to clone; clones take turns.
#[derive(Clone)]
pub(crate) struct Spread<S> {
    servers: Vec<S>,
    turns: Arc<Mutex<Turns>>,
    clock: Clock,
}

struct Turns {
    next: usize,
    /// When each server failed, if its last request did.
    failed: Vec<Option<Instant>>,
}

impl Turns {
    /// The next server which did not fail lately; if all did, the one whose failure is the oldest.
    fn take(&mut self, now: Instant) -> usize {
        let count = self.failed.len();
        let avoided = |failed: &Option<Instant>| {
            failed.filter(|failed| now.saturating_duration_since(*failed) < AVOID_FAILED)
        };
        let turns = (0..count).map(|turn| (self.next + turn) % count);
        let server = turns.min_by_key(|server| avoided(&self.failed[*server])).unwrap_or_default();
        self.next = (server + 1) % count;
        server
    }
}

impl<S> Spread<S> {
    /// Requests to `servers`, of which there is at least one.
    pub(crate) fn new(servers: Vec<S>, clock: &Clock) -> Spread<S> {
        assert!(!servers.is_empty(), "there is a server");
        let turns = Turns { next: 0, failed: vec![None; servers.len()] };
        Spread { servers, turns: Arc::new(Mutex::new(turns)), clock: clock.clone() }
    }
}

impl<S, R> Service<R> for Spread<S>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Debug + Send,
    S::Response: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Which server it will be is known with the request.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (turns, clock) = (Arc::clone(&self.turns), self.clock.clone());
        let server = turns.lock().unwrap_or_else(PoisonError::into_inner).take(clock.now());
        let service = self.servers[server].clone();
        async move {
            let outcome = service.oneshot(request).await;
            let failed = outcome.is_err().then(|| clock.now());
            turns.lock().unwrap_or_else(PoisonError::into_inner).failed[server] = failed;
            outcome.map_err(Into::into)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;

    use super::*;

    #[test]
    fn servers_take_turns_and_those_that_failed_lately_come_last() {
        let now = Clock::system().now();
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        for (failed, expected) in [
            ([None, None, None], [0, 1, 2, 0]),
            ([None, ago(1), None], [0, 2, 0, 2]),
            ([ago(5), ago(1), None], [0, 2, 0, 2]),
            ([ago(1), ago(3), ago(2)], [1, 1, 1, 1]),
        ] {
            let mut turns = Turns { next: 0, failed: failed.to_vec() };
            assert_eq!([(); 4].map(|()| turns.take(now)), expected, "{failed:?}");
        }
    }

    #[tokio::test]
    async fn what_fails_is_remembered_until_it_works_again() {
        let is_down = Arc::new(Mutex::new(true));
        let servers = (0..2).map(|server| {
            let is_down = Arc::clone(&is_down);
            service_fn(move |(): ()| {
                let fails = server == 0 && *is_down.lock().unwrap();
                std::future::ready(if fails { Err(BoxError::from("down")) } else { Ok(server) })
            })
        });
        let spread = Spread::new(servers.collect(), &Clock::system());
        let ask = || async { spread.clone().oneshot(()).await.map_err(|error| error.to_string()) };
        assert_eq!(ask().await, Err("down".to_owned()));
        assert_eq!([ask().await, ask().await, ask().await], [Ok(1), Ok(1), Ok(1)]);
        *is_down.lock().unwrap() = false;
        spread.turns.lock().unwrap().failed = vec![None, Some(Clock::system().now())];
        assert_eq!([ask().await, ask().await], [Ok(0), Ok(0)]);
    }
}
