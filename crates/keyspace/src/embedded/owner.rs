//! The task that owns the store.
//!
//! It takes what is waiting in its queue, applies it in order, makes all effects durable with one write and one sync,
//! publishes the new state, and only then answers. Reads use the published state, so nobody sees what could still be
//! lost. If the disk refuses the write, the state before it is restored and the requests fail; if it is unknown what the
//! disk holds, the task ends, and with it the process.

use std::sync::Arc;
use std::time::Duration;

use runtime::{BoxError, Clock, Instant, TaskGroup};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::log::{AppendError, Log};
use super::record::Identity;
use super::store::{Effect, Store, StoreError, Write, Written};

/// Most requests made durable by one sync.
const BATCH_REQUESTS_MAX: usize = 1024;
/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(250);
/// When the ticks stand still for longer than this, the process itself did not run, and leases get that time back.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("{0}")]
    Refused(#[from] StoreError),
    /// The request was not carried out, since the disk refused it.
    #[error("{0}")]
    Disk(Arc<str>),
}

pub(crate) struct Request {
    pub(crate) write: Write,
    pub(crate) reply: oneshot::Sender<Result<Written, WriteError>>,
    /// The request's share of the memory that requests may take.
    pub(crate) permit: OwnedSemaphorePermit,
}

pub(crate) struct Owner {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) log: Log,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) published: watch::Sender<Arc<Store>>,
    pub(crate) clock: Clock,
    /// The store's time is counted from here.
    pub(crate) epoch: Instant,
    pub(crate) tasks: TaskGroup,
}

type Reply = (oneshot::Sender<Result<Written, WriteError>>, Result<Written, WriteError>);

impl Owner {
    pub(crate) async fn run(mut self) -> Result<(), BoxError> {
        let token = self.tasks.token().clone();
        let mut batch = Vec::new();
        let mut ticked = self.clock.now();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                count = self.requests.recv_many(&mut batch, BATCH_REQUESTS_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    self = self.commit(std::mem::take(&mut batch)).await?;
                }
                () = self.clock.sleep_until(ticked + TICK) => {}
            }
            let now = self.clock.now();
            if now >= ticked + TICK {
                let paused = (now - ticked).saturating_sub(TICK);
                ticked = now;
                self = self.tick(paused).await?;
            }
        }
    }

    async fn commit(mut self, batch: Vec<Request>) -> Result<Owner, BoxError> {
        let before = self.store.clone();
        let now = self.clock.now() - self.epoch;
        let (mut effects, mut replies): (Vec<Effect>, Vec<Reply>) = (Vec::new(), Vec::new());
        let mut permits = Vec::with_capacity(batch.len());
        for Request { write, reply, permit } in batch {
            let outcome = self.store.apply(&write, now).map(|(written, caused)| {
                effects.extend(caused);
                written
            });
            replies.push((reply, outcome.map_err(WriteError::from)));
            permits.push(permit);
        }
        self = self.persist(effects, before, &mut replies).await?;
        for (reply, outcome) in replies {
            // A client that is gone does not want its answer.
            let _ = reply.send(outcome);
        }
        Ok(self)
    }

    /// Makes effects durable and publishes the state, or restores the state `before` and turns every answer into a
    /// failure.
    async fn persist(
        mut self,
        mut effects: Vec<Effect>,
        before: Store,
        replies: &mut [Reply],
    ) -> Result<Owner, BoxError> {
        if let Some(revision) = self.store.surplus_history() {
            effects.extend(self.store.forget(revision));
        }
        if !effects.is_empty() {
            let mut log = self.log;
            let append = self.tasks.spawn_blocking("append to the embedded etcd's log", move || {
                let outcome = log.append(&effects);
                (log, outcome)
            });
            let (log, outcome) = append.await;
            self.log = log;
            match outcome {
                Ok(()) => {}
                Err(AppendError::Refused(error)) => {
                    tracing::error!(%error, "the embedded etcd cannot write");
                    self.store = before;
                    let text: Arc<str> = error.to_string().into();
                    for (_, outcome) in replies.iter_mut() {
                        *outcome = Err(WriteError::Disk(Arc::clone(&text)));
                    }
                }
                Err(AppendError::Unknown(error)) => return Err(error.into()),
            }
        }
        self.published.send_replace(Arc::new(self.store.clone()));
        Ok(if self.log.is_surplus() { self.rotate().await } else { self })
    }

    async fn rotate(mut self) -> Owner {
        let (log, store, identity) = (self.log, self.store.clone(), self.identity);
        let rotate =
            self.tasks.spawn_blocking("rotate the embedded etcd's log", move || log.rotate(identity, &store));
        let (log, outcome) = rotate.await;
        self.log = log;
        if let Err(error) = outcome {
            tracing::error!(%error, "cannot rotate the embedded etcd's log (will retry)");
        }
        self
    }

    /// Ends the leases whose time is over. `paused` is how long this task has not run when it should have.
    async fn tick(mut self, paused: Duration) -> Result<Owner, BoxError> {
        if paused > PAUSE_MIN {
            tracing::warn!(?paused, "the embedded etcd did not run for a while; leases get that time back");
            self.store.extend_leases(paused);
        }
        let expired = self.store.expired(self.clock.now() - self.epoch);
        if expired.is_empty() {
            return Ok(self);
        }
        tracing::info!(leases = ?expired, "leases expired");
        let before = self.store.clone();
        let mut effects = Vec::new();
        for id in expired {
            let write = Write::Revoke(id);
            if let Ok((_, caused)) = self.store.apply(&write, Duration::ZERO) {
                effects.extend(caused);
            }
        }
        self.persist(effects, before, &mut []).await
    }
}
