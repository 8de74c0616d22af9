//! Leases: a process's proof of life.
//!
//! A task renews the lease eight times within its time to live, over a connection of its own, so that nothing large is
//! ahead of it. A renewal which is not answered soon is tried again over a new connection: the old one may lead nowhere
//! without having noticed. So an etcd which is back, or can be reached again, before the lease ends is enough to keep it.
//!
//! The lease counts as lost when the server says that it is gone, or when its whole time has passed since the last renewal which succeeded
//! was *sent*: from then on the server may have deleted the lease's keys, and others may act on that. So `lost` never
//! comes later than the server's own expiry, as long as this process runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper};
use runtime::backoff::Backoff;
use runtime::{Instant, OnError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::client::Etcd;
use crate::error::EtcdError;
use crate::seen::DataLost;

/// Renewals within the time to live.
const RENEWALS: u32 = 8;
/// Shortest time that a renewal is waited for, however short the lease.
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_millis(500);

const RENEW_BACKOFF: &[Duration] = &[
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];

/// Why a lease is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseLost {
    /// etcd does not know it.
    #[error("it expired or was revoked")]
    Gone,
    /// No renewal was answered for as long as it lives.
    #[error("it could not be renewed within {0:?}")]
    NotRenewed(Duration),
    /// etcd lost its data, and the lease with it.
    #[error("{0}")]
    DataLost(DataLost),
}

/// A lease that is kept alive until it is revoked or lost. Cheap to clone. Dropping every clone does not end it.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    id: i64,
    ttl: Duration,
    etcd: Etcd,
    lost: watch::Receiver<Option<LeaseLost>>,
    expires_at: watch::Receiver<Instant>,
    /// Ends the renewals.
    stop: CancellationToken,
}

pub(crate) async fn grant(etcd: &Etcd, ttl: Duration) -> Result<Lease, EtcdError> {
    let sent = etcd.clock().now();
    let mut client = etcd.raw();
    let response = etcd.call("grant lease".to_owned(), client.lease_grant(seconds(ttl), None)).await?;
    let ttl = Duration::from_secs(u64::try_from(response.ttl()).unwrap_or(0));
    Ok(keep(etcd, response.id(), ttl, sent + ttl, ttl / RENEWALS))
}

/// Takes over a lease that a dead process was granted. `None` if it has ended, or was granted for another time than `ttl`.
pub(crate) async fn resume(etcd: &Etcd, id: i64, ttl: Duration) -> Result<Option<Lease>, EtcdError> {
    let sent = etcd.clock().now();
    let mut client = etcd.raw();
    let response = etcd.call(format!("look at lease {id}"), client.lease_time_to_live(id, None)).await?;
    let left = Duration::from_secs(u64::try_from(response.ttl()).unwrap_or(0));
    if left.is_zero() || response.granted_ttl() != seconds(ttl) {
        return Ok(None);
    }
    let ttl = Duration::from_secs(u64::try_from(response.granted_ttl()).unwrap_or(0));
    Ok(Some(keep(etcd, id, ttl, sent + left, Duration::ZERO)))
}

fn seconds(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1)
}

/// Begins to renew a lease which ends at `deadline`, after a `first` wait.
fn keep(etcd: &Etcd, id: i64, ttl: Duration, deadline: Instant, first: Duration) -> Lease {
    let (lost_sender, lost) = watch::channel(None);
    let (deadline, expires_at) = watch::channel(deadline);
    let stop = etcd.tasks().token().child_token();
    let inner = Inner { id, ttl, etcd: etcd.clone(), lost, expires_at, stop };
    let lease = Lease { inner: Arc::new(inner) };
    let renewer = Renewer {
        id,
        ttl,
        etcd: etcd.clone(),
        deadline,
        client: None,
        stream: None,
        backoff: Backoff::new(RENEW_BACKOFF),
    };
    let stop = lease.inner.stop.clone();
    // On the heap, as a renewal holds all that a connection takes.
    let renew = Box::pin(renewer.run(first));
    etcd.tasks().spawn("keep lease alive", OnError::Log, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            reason = renew => {
                tracing::warn!(lease = id, %reason, "etcd lease is lost");
                lost_sender.send_replace(Some(reason));
            }
        }
        Ok(())
    });
    lease
}

impl Lease {
    /// The id, which keys are attached to.
    pub fn id(&self) -> i64 {
        self.inner.id
    }

    /// Time to live, as granted by the server.
    pub fn ttl(&self) -> Duration {
        self.inner.ttl
    }

    /// Whether the server has, or may have, dropped the lease. Not set by [`Lease::revoke`].
    pub fn is_lost(&self) -> bool {
        self.inner.lost.borrow().is_some()
    }

    /// Whether the whole time to live has passed since the last renewal, even if this process was stopped meanwhile and has
    /// not noticed yet: others may have taken over.
    pub fn has_expired(&self) -> bool {
        self.is_lost() || self.inner.etcd.clock().now() >= *self.inner.expires_at.borrow()
    }

    /// Completes when the lease is lost, and says why; never after a [`Lease::revoke`].
    pub fn lost(&self) -> impl Future<Output = LeaseLost> + Send + 'static {
        let mut lost = self.inner.lost.clone();
        async move {
            let reason = lost.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => reason,
                None => std::future::pending().await,
            }
        }
    }

    /// No longer keeps the lease alive.
    pub(crate) fn abandon(&self) {
        self.inner.stop.cancel();
    }

    /// Gives the lease up; its keys are deleted at once. A lease that is gone already is no error.
    ///
    /// # Errors
    /// If the server cannot be reached. The lease is no longer kept alive, so it ends by itself.
    pub async fn revoke(&self) -> Result<(), EtcdError> {
        self.inner.stop.cancel();
        revoke(&self.inner.etcd, self.inner.id).await
    }
}

/// Ends the lease `id`, whoever holds it.
pub(crate) async fn revoke(etcd: &Etcd, id: i64) -> Result<(), EtcdError> {
    let mut client = etcd.raw();
    match etcd.call(format!("revoke lease {id}"), client.lease_revoke(id)).await {
        Err(error) if !error.is_lease_not_found() => Err(error),
        _ => Ok(()),
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id()).field("ttl", &self.ttl()).finish_non_exhaustive()
    }
}

struct Renewer {
    id: i64,
    ttl: Duration,
    etcd: Etcd,
    /// When the lease ends on the server at the earliest.
    deadline: watch::Sender<Instant>,
    client: Option<Client>,
    stream: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    backoff: Backoff,
}

/// What came of one renewal.
enum Renewal {
    Done,
    Gone,
}

impl Renewer {
    fn deadline(&self) -> Instant {
        *self.deadline.borrow()
    }

    /// Runs until the lease is lost.
    async fn run(mut self, first: Duration) -> LeaseLost {
        let (pace, patience) = (self.ttl / RENEWALS, (self.ttl / 6).max(ANSWER_TIMEOUT_MIN));
        let clock = self.etcd.clock().clone();
        clock.sleep(first).await;
        loop {
            let sent = clock.now();
            let limit = self.deadline().min(sent + patience);
            let wait = match clock.timeout_at(limit, self.renew()).await {
                Ok(Ok(Renewal::Done)) => {
                    self.deadline.send_replace(sent + self.ttl);
                    self.backoff.reset();
                    pace
                }
                Ok(Ok(Renewal::Gone)) => return self.why_gone().await,
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.id, %error, "cannot renew etcd lease (will retry)");
                    self.stream = None;
                    self.backoff.next()
                }
                Err(_) => {
                    tracing::debug!(
                        lease = self.id,
                        ?patience,
                        "etcd did not renew the lease (will reconnect)"
                    );
                    (self.stream, self.client) = (None, None);
                    Duration::ZERO
                }
            };
            clock.sleep_until(self.deadline().min(clock.now() + wait)).await;
            if clock.now() >= self.deadline() {
                return LeaseLost::NotRenewed(self.ttl);
            }
        }
    }

    async fn renew(&mut self) -> Result<Renewal, EtcdError> {
        let failed = |e| EtcdError::from_client("keep lease alive", e);
        let Some((keeper, stream)) = &mut self.stream else {
            let client = match &mut self.client {
                Some(client) => client,
                none => none.insert(self.etcd.reconnect().await?),
            };
            // Opening the stream sends the first renewal and awaits its answer.
            return match client.lease_keep_alive(self.id).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    Ok(Renewal::Done)
                }
                Err(error) => match failed(error) {
                    error if error.code() == Code::NotFound => Ok(Renewal::Gone),
                    error => Err(error),
                },
            };
        };
        keeper.keep_alive().await.map_err(failed)?;
        match stream.message().await.map_err(failed)? {
            Some(response) if response.ttl() > 0 => Ok(Renewal::Done),
            Some(_) => Ok(Renewal::Gone),
            None => Err(EtcdError::new("keep lease alive", Code::Unavailable, "the stream ended")),
        }
    }

    /// Whether the lease is gone alone, or all data with it. Any read tells.
    async fn why_gone(&self) -> LeaseLost {
        let clock = self.etcd.clock();
        match clock.timeout(ANSWER_TIMEOUT_MIN, self.etcd.get("lease")).await {
            Ok(Err(error)) => error.data_lost().cloned().map_or(LeaseLost::Gone, LeaseLost::DataLost),
            Ok(Ok(_)) | Err(_) => LeaseLost::Gone,
        }
    }
}
