//! How a broker leaves (journal protocol §11.8).
//!
//! 1. It announces that it is exiting. The allocator gives its journals to others, each only once its new replica holds what
//!    the old one does. Meanwhile everything is served as before. This goes on until no journal is left, for as long as the
//!    others could take them, and until the drain timeout at most.
//! 2. It closes the replicas that are left, which ends their readers; their fragments complete and are uploaded. Where it was
//!    the only replica it records the journal's end ([`super::floor`]), so that the next broker goes on from there.
//! 3. It gives its lease back, so that others need not wait for it to expire, and waits for its uploads, all of them. What is not
//!    stored when the time is over stays in the data directory for the next process.
//! 4. It lets go of the port, which until then proxies what others serve, and of etcd.
//!
//! A broker of which a part has failed leaves as if it had died, only faster: its replicas stop where they are, and its
//! lease and its spools stay for the process that follows it. It must not complete fragments: a broker whose lease is lost may
//! hold content which the others never agreed to.

use std::time::Duration;

use keyspace::MembershipError;
use proto::{JournalName, Revision};
use runtime::backoff::Backoff;
use runtime::{BoxError, Instant};

use super::{Broker, Groups, SERVER_DRAIN, broker_spec, floor};
use crate::config::EtcdChoice;
use crate::drain::{self, Prospect};

/// Uploads may go on for at least this long once replicas are closed.
const UPLOAD_DRAIN: Duration = Duration::from_secs(10);
/// How long replicas may take to settle what is under way.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);
/// How long the recording of floors may take.
const FLOORS_LIMIT: Duration = Duration::from_secs(10);
/// How long tasks may take to notice that they are cancelled.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// Time between two lines of the log about what is waited for.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl Broker {
    /// Leaves in order: hands journals over where others can take them, for at most the drain timeout, closes the replicas,
    /// stores what they hold, and gives the lease back. Dropping the future leaves what is not done to the next process.
    ///
    /// # Errors
    /// The first failure of a part, before or while stopping. The broker has stopped nevertheless.
    pub async fn stop(mut self) -> Result<(), BoxError> {
        self.health.not_serving().await;
        let deadline = self.options.clock.now() + self.options.drain_timeout;
        if !self.has_failed() {
            Box::pin(self.hand_over(deadline)).await;
        }
        self.shell.stop.cancel();
        if !self.has_failed() {
            Box::pin(self.let_go(deadline)).await;
        }
        self.health.end().await;
        self.groups.stop().await
    }

    fn has_failed(&self) -> bool {
        self.groups.all().iter().any(|group| group.token().is_cancelled())
    }

    /// Asks the others to take this broker's journals, and waits for it as long as they could.
    async fn hand_over(&mut self, deadline: Instant) {
        let Some(announced) = self.announce_exit(deadline).await else { return };
        // Who has joined before must be known. A mirror that has ended is noticed below.
        drop(self.shell.resolver.mirror().wait_for(announced).await);
        let clock = &self.options.clock;
        let mut snapshots = self.shell.resolver.subscribe();
        let mut next_report = clock.now();
        loop {
            let prospect = drain::prospect(&snapshots.borrow_and_update(), &self.schema, &self.me);
            let now = clock.now();
            let journals = match prospect {
                Prospect::Released => return tracing::info!("other brokers have all journals"),
                Prospect::Stuck(journals) => {
                    return tracing::info!(journals, "no other broker can take the journals over");
                }
                Prospect::HandOver(journals) if now >= deadline => {
                    let timeout = self.options.drain_timeout;
                    return tracing::warn!(journals, ?timeout, "other brokers did not take over in time");
                }
                Prospect::HandOver(journals) => journals,
            };
            if now >= next_report {
                tracing::info!(journals, within = ?(deadline - now), "waiting for other brokers to take over");
                next_report = now + REPORT_INTERVAL;
            }
            tokio::select! {
                biased;
                () = self.failed() => return,
                changed = snapshots.changed() => if changed.is_err() {
                    return;
                },
                () = clock.sleep_until(deadline.min(next_report)) => {}
            }
        }
    }

    /// Tells the others that this broker is exiting. Returns the revision at which they know, or `None` if they do not.
    async fn announce_exit(&mut self, deadline: Instant) -> Option<Revision> {
        let spec = broker_spec(&self.options, &self.me, &self.endpoint, true);
        let mut backoff = Backoff::journal();
        loop {
            let error = match self.membership.update(spec.clone()).await {
                Ok(revision) => return Some(revision),
                Err(error) => error,
            };
            let is_retryable = matches!(&error, MembershipError::Etcd(error) if error.is_retryable());
            let retry_at = self.options.clock.now() + backoff.next();
            if !is_retryable || retry_at >= deadline {
                tracing::warn!(%error, "cannot announce the exit");
                return None;
            }
            tracing::warn!(%error, "cannot announce the exit (will retry)");
            tokio::select! {
                biased;
                () = self.failed() => return None,
                () = self.options.clock.sleep_until(retry_at) => {}
            }
        }
    }

    /// Closes the replicas, and gives up the membership and everything that is not stored by the time.
    async fn let_go(&self, deadline: Instant) {
        let clock = &self.options.clock;
        let replicas = self.shell.resolver.local_replicas();
        if !replicas.is_empty() {
            tracing::info!(journals = replicas.len(), "closing local journals");
        }
        let views: Vec<_> = replicas.iter().map(|r| (r.journal().clone(), r.index())).collect();
        drop(replicas);
        match clock.timeout(CLOSE_LIMIT, self.shell.resolver.stop_serving()).await {
            Ok(()) => {
                let end_of = |view: &crate::replica::IndexView| Some(view.head.as_ref()?.end);
                let ends = views.into_iter().filter_map(|(j, view)| Some((j, end_of(&view.borrow())?)));
                self.raise_floors(ends.collect()).await;
            }
            Err(_) => tracing::warn!(limit = ?CLOSE_LIMIT, "local journals did not close in time"),
        }
        // Before the member key goes away, whose absence would alarm it.
        self.groups.allocator.cancel();
        let limit = match self.options.etcd {
            // Nobody but the next process on this directory reads what is in it.
            EtcdChoice::Embedded => UPLOAD_DRAIN,
            EtcdChoice::Address(_) => deadline.saturating_duration_since(clock.now()).max(UPLOAD_DRAIN),
        };
        let (revoked, left) = futures::join!(self.membership.revoke(), self.replicas.persister.drain(limit));
        if let Err(error) = revoked {
            tracing::warn!(%error, "cannot revoke the lease; it ends by itself");
        }
        if left > 0 {
            tracing::warn!(
                fragments = left, data = %self.data_dir.path().display(),
                "fragments are not stored yet; the next process on this data directory stores them"
            );
        }
    }

    async fn raise_floors(&self, ends: Vec<(JournalName, i64)>) {
        // The journals of an embedded etcd have nowhere else to go.
        if ends.is_empty() || self.options.etcd == EtcdChoice::Embedded {
            return;
        }
        let raised = floor::raise(self.shell.resolver.mirror(), &self.me, ends);
        match self.options.clock.timeout(FLOORS_LIMIT, raised).await {
            Ok(Ok(journals)) => tracing::info!(journals, "recorded where journals go on"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot record where some journals go on"),
            Err(error) => tracing::warn!(%error, "cannot record where some journals go on"),
        }
    }
}

impl Groups {
    /// Stops everything in order. Returns the first failure, but goes on in spite of it.
    pub(super) async fn stop(&self) -> Result<(), BoxError> {
        let mut outcome = Ok(());
        for group in [&self.allocator, &self.work, &self.stores, &self.member] {
            group.cancel();
            outcome = outcome.and(group.join_within(JOIN_LIMIT).await);
        }
        // Together, since watches of the embedded etcd keep connections of the port open.
        self.etcd.cancel();
        self.server.cancel();
        outcome = outcome.and(self.server.join_within(SERVER_DRAIN + JOIN_LIMIT).await);
        outcome.and(self.etcd.join_within(JOIN_LIMIT).await)
    }
}
