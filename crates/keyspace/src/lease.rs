//! Leases: a process's proof of life.
//!
//! A task renews the lease three times within its time to live, over whatever connection works. The lease counts as
//! lost when the server says that it is gone, or when its whole time has passed since the last renewal which succeeded
//! was *sent*: from then on the server may have deleted the lease's keys, and others may act on that. So `lost` never
//! comes later than the server's own expiry, as long as this process runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use runtime::backoff::Backoff;
use runtime::{Instant, OnError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::client::Etcd;
use crate::error::EtcdError;

const RENEW_BACKOFF: &[Duration] = &[
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];

/// A lease that is kept alive until it is revoked or lost. Cheap to clone. Dropping every clone does not end it.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    id: i64,
    ttl: Duration,
    etcd: Etcd,
    lost: watch::Receiver<bool>,
    /// Ends the renewals.
    stop: CancellationToken,
}

pub(crate) async fn grant(etcd: &Etcd, ttl: Duration) -> Result<Lease, EtcdError> {
    let sent = etcd.clock().now();
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
    let mut client = etcd.raw();
    let response = etcd.call("grant lease".to_owned(), client.lease_grant(seconds, None)).await?;
    let ttl = Duration::from_secs(u64::try_from(response.ttl()).unwrap_or(0));
    let (lost_sender, lost) = watch::channel(false);
    let inner =
        Inner { id: response.id(), ttl, etcd: etcd.clone(), lost, stop: etcd.tasks().token().child_token() };
    let lease = Lease { inner: Arc::new(inner) };
    let renewer = Renewer {
        id: lease.id(),
        ttl,
        etcd: etcd.clone(),
        deadline: sent + ttl,
        stream: None,
        backoff: Backoff::new(RENEW_BACKOFF),
    };
    let stop = lease.inner.stop.clone();
    etcd.tasks().spawn("keep lease alive", OnError::Log, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            reason = renewer.run() => {
                tracing::warn!(lease = response.id(), %reason, "etcd lease is lost");
                lost_sender.send_replace(true);
            }
        }
        Ok(())
    });
    Ok(lease)
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
        *self.inner.lost.borrow()
    }

    /// Completes when the lease is lost; never after a [`Lease::revoke`].
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut lost = self.inner.lost.clone();
        async move {
            if lost.wait_for(|lost| *lost).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
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
    deadline: Instant,
    stream: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    backoff: Backoff,
}

impl Renewer {
    /// Runs until the lease is lost; the result says why.
    async fn run(mut self) -> String {
        let pace = self.ttl / 3;
        let clock = self.etcd.clock().clone();
        clock.sleep(pace).await;
        loop {
            let sent = clock.now();
            let limit = self.deadline.min(sent + pace);
            let wait = match clock.timeout_at(limit, self.renew()).await {
                Ok(Ok(true)) => {
                    self.deadline = sent + self.ttl;
                    self.backoff.reset();
                    pace
                }
                Ok(Ok(false)) => return "it expired or was revoked".to_owned(),
                Ok(Err(error)) => {
                    tracing::debug!(lease = self.id, %error, "cannot renew etcd lease (will retry)");
                    self.stream = None;
                    self.backoff.next()
                }
                Err(_) => {
                    self.stream = None;
                    Duration::ZERO
                }
            };
            clock.sleep_until(self.deadline.min(clock.now() + wait)).await;
            if clock.now() >= self.deadline {
                return format!("it could not be renewed within {:?}", self.ttl);
            }
        }
    }

    /// One renewal; false if the lease no longer exists.
    async fn renew(&mut self) -> Result<bool, EtcdError> {
        let failed = |e| EtcdError::from_client("keep lease alive", e);
        let Some((keeper, stream)) = &mut self.stream else {
            // Opening the stream sends the first renewal and awaits its answer.
            return match self.etcd.raw().lease_keep_alive(self.id).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    Ok(true)
                }
                Err(error) => match failed(error) {
                    error if error.code() == Code::NotFound => Ok(false),
                    error => Err(error),
                },
            };
        };
        keeper.keep_alive().await.map_err(failed)?;
        match stream.message().await.map_err(failed)? {
            Some(response) => Ok(response.ttl() > 0),
            None => Err(EtcdError::new("keep lease alive", Code::Unavailable, "the stream ended")),
        }
    }
}
