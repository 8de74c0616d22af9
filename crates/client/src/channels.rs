//! One connection per endpoint, shared by everything in the process, closed when it is not used for a while.

use crate::client::ClientOptions;
use crate::error::ClientError;
use runtime::grpc_metrics::{ClientCalls, CountedChannel};
use runtime::tls::ClientTls;
use runtime::{Clock, Instant};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A connection which is not asked for this long is closed, once its running calls end.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a broker which failed is avoided, if there is another one.
const AVOID_FAILED: Duration = Duration::from_secs(5);

struct Pooled {
    channel: CountedChannel,
    used: Instant,
    failed: Option<Instant>,
}

/// The connections of a process.
#[derive(Clone)]
pub(crate) struct Channels {
    pool: Arc<Mutex<BTreeMap<String, Pooled>>>,
    clock: Clock,
    tls: ClientTls,
    calls: ClientCalls,
}

impl Channels {
    /// Of a client of `service`.
    pub(crate) fn new(options: &ClientOptions, service: &str) -> Channels {
        let (clock, tls) = (options.clock.clone(), options.tls.clone());
        let calls = |metrics| ClientCalls::new(&[service], metrics, &clock);
        let calls = options.metrics.as_ref().map_or_else(ClientCalls::uncounted, calls);
        Channels { pool: Arc::default(), clock, tls, calls }
    }

    /// The connection to an endpoint. It is established when it is first used.
    pub(crate) fn get(&self, endpoint: &str) -> Result<CountedChannel, ClientError> {
        let now = self.clock.now();
        let mut pool = self.lock();
        if let Some(pooled) = pool.get_mut(endpoint) {
            pooled.used = now;
            return Ok(pooled.channel.clone());
        }
        pool.retain(|_, pooled| now.saturating_duration_since(pooled.used) < IDLE_MAX);
        let channel = runtime::grpc::secure_channel(endpoint, &self.tls).map_err(|problem| {
            ClientError::Endpoint { endpoint: endpoint.to_owned(), problem: problem.to_string() }
        })?;
        let channel = self.calls.over(channel);
        pool.insert(endpoint.to_owned(), Pooled { channel: channel.clone(), used: now, failed: None });
        Ok(channel)
    }

    /// Notes that a call to an endpoint failed because of the endpoint.
    pub(crate) fn report_failed(&self, endpoint: &str) {
        let now = self.clock.now();
        if let Some(pooled) = self.lock().get_mut(endpoint) {
            pooled.failed = Some(now);
        }
    }

    /// When the endpoint failed, if that was lately.
    pub(crate) fn failed_at(&self, endpoint: &str) -> Option<Instant> {
        let now = self.clock.now();
        let failed = self.lock().get(endpoint).and_then(|pooled| pooled.failed);
        failed.filter(|failed| now.saturating_duration_since(*failed) < AVOID_FAILED)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Pooled>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
