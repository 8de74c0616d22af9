//! The mirror: a task that keeps a decoded copy of everything under a prefix, and publishes it.
//!
//! It loads the prefix at one revision, then watches from the next one, so it misses nothing and sees nothing twice.
//! Responses are gathered for a short while and applied as one batch; each batch is published as a new snapshot through a
//! watch channel. When the connection fails the watch is restarted where it ended. When the history it needs was
//! compacted away, the prefix is read anew and [`KeySpace::loads`] grows. What a sound etcd cannot have sent ends the
//! task with an error, and with it the group it runs in: the process must not act on a picture that may be wrong. So
//! does an etcd that came back with other data; a watch would wait for its next revisions as if nothing had happened.
//!
//! The prefix is watched with a slash at its end, so that other clusters below the same path are not seen.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use etcd_client::{WatchResponse, WatchStream};
use proto::{MemberId, Revision};
use runtime::backoff::Backoff;
use runtime::{BoxError, OnError, TaskGroup};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::batch::{self, Batch, MirrorFault};
use crate::client::Etcd;
use crate::error::EtcdError;
use crate::keys::{AssignmentKey, KeyPrefix};
use crate::seen::DataLost;
use crate::space::{Applied, KeySpace, Schema};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits between attempts to watch. The first restarts are at once: most streams end because a server went away.
const WATCH_BACKOFF: &[Duration] = &[ms(0), ms(0), ms(5), ms(50), ms(100), ms(250), ms(500), ms(1000)];

/// How long a wait for a revision goes on before etcd is asked whether anything under the prefix lies before it.
const ASK_AFTER: &[Duration] = &[ms(50), ms(100), ms(250), ms(500), ms(1000)];

/// The mirror's task has ended, so the revision that was waited for will not be seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the mirror of {prefix} stopped at revision {at}, before revision {awaited}")]
pub struct MirrorStopped {
    prefix: String,
    at: Revision,
    awaited: Revision,
}

/// Why a mirror has stopped: its fault, if it had one, and else because its tasks were cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhyStopped(Option<MirrorFault>);

impl fmt::Display for WhyStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(fault) => write!(f, "the mirror of etcd stopped: {fault}"),
            None => f.write_str("the mirror of etcd stopped"),
        }
    }
}

/// A live, decoded copy of the keys under a prefix. Cheap to clone; clones share it.
pub struct Mirror<S: Schema> {
    shared: Arc<Shared<S>>,
    space: watch::Receiver<Arc<KeySpace<S>>>,
    progress: watch::Receiver<Revision>,
}

struct Shared<S> {
    schema: S,
    prefix: KeyPrefix,
    etcd: Etcd,
    /// Why the task ended by itself. Set before anybody can notice that it has.
    fault: OnceLock<MirrorFault>,
}

impl<S: Schema> Clone for Mirror<S> {
    fn clone(&self) -> Self {
        Mirror {
            shared: Arc::clone(&self.shared),
            space: self.space.clone(),
            progress: self.progress.clone(),
        }
    }
}

impl<S: Schema> Mirror<S> {
    /// Reads everything under `prefix` at revision `at` (the newest, if zero) and keeps following it in a task of
    /// `tasks`. Changes are gathered for `watch_delay` before they are shown.
    ///
    /// # Errors
    /// If the prefix cannot be read. Later failures end the task: see [`MirrorFault`].
    pub async fn load(
        etcd: &Etcd,
        prefix: &KeyPrefix,
        at: Revision,
        schema: S,
        watch_delay: Duration,
        tasks: &TaskGroup,
    ) -> Result<Mirror<S>, EtcdError> {
        let shared =
            Arc::new(Shared { schema, prefix: prefix.clone(), etcd: etcd.clone(), fault: OnceLock::new() });
        let space = shared.read(at).await?;
        let resume = space.revision();
        let (space_sender, space) = watch::channel(Arc::new(space));
        let (progress_sender, progress) = watch::channel(resume);
        let mirror = Mirror { shared: Arc::clone(&shared), space, progress };
        let driver = Driver {
            shared,
            watch_delay,
            space: space_sender,
            progress: progress_sender,
            resume,
            backoff: Backoff::new(WATCH_BACKOFF),
            token: tasks.token().clone(),
        };
        tasks.spawn("mirror etcd", OnError::CancelGroup, driver.run());
        Ok(mirror)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<KeySpace<S>> {
        Arc::clone(&self.space.borrow())
    }

    /// Follows the snapshots. The sender is gone once the mirror's task has ended.
    pub fn subscribe(&self) -> watch::Receiver<Arc<KeySpace<S>>> {
        let mut receiver = self.space.clone();
        receiver.mark_changed();
        receiver
    }

    /// Waits for a snapshot which reflects every change up to `revision`, also if that revision changed nothing under
    /// this prefix.
    ///
    /// # Errors
    /// If the mirror has stopped.
    pub async fn wait_for(&self, revision: Revision) -> Result<Arc<KeySpace<S>>, MirrorStopped> {
        let (mut space, mut progress) = (self.space.clone(), self.progress.clone());
        let mut ask_after = Backoff::new(ASK_AFTER);
        let clock = self.shared.etcd.clock();
        loop {
            let current = Arc::clone(&space.borrow_and_update());
            // Progress is published after the snapshot that it is about, so it is read first.
            if current.revision() >= revision || *progress.borrow_and_update() >= revision {
                return Ok(self.snapshot());
            }
            let alive = tokio::select! {
                biased;
                changed = space.changed() => changed.is_ok(),
                changed = progress.changed() => changed.is_ok(),
                () = clock.sleep(ask_after.next()) => {
                    // On the heap: requests to etcd are large, and every request to a broker would keep room for one.
                    if Box::pin(self.shared.is_unchanged_through(&current, revision)).await {
                        return Ok(current);
                    }
                    true
                }
            };
            if !alive {
                let (prefix, at) = (self.shared.prefix.to_string(), current.revision());
                return Err(MirrorStopped { prefix, at, awaited: revision });
            }
        }
    }

    /// Why the mirror has stopped, for whoever notices that it has.
    pub fn why_stopped(&self) -> WhyStopped {
        WhyStopped(self.shared.fault.get().cloned())
    }

    /// The client that the mirror uses.
    pub fn etcd(&self) -> &Etcd {
        &self.shared.etcd
    }

    /// How values are decoded.
    pub fn schema(&self) -> &S {
        &self.shared.schema
    }

    /// The mirrored prefix.
    pub fn prefix(&self) -> &KeyPrefix {
        &self.shared.prefix
    }

    /// Key of an item.
    pub fn item_key(&self, id: &str) -> String {
        self.shared.prefix.item(id)
    }

    /// Key of a member.
    pub fn member_key(&self, id: &MemberId) -> String {
        self.shared.prefix.member(id)
    }

    /// Key of an assignment.
    pub fn assignment_key(&self, key: &AssignmentKey) -> String {
        self.shared.prefix.assignment(key)
    }
}

impl<S: Schema> fmt::Debug for Mirror<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.space.borrow().revision();
        f.debug_struct("Mirror").field("prefix", &self.shared.prefix).field("revision", &revision).finish()
    }
}

impl<S: Schema> Shared<S> {
    async fn read(&self, at: Revision) -> Result<KeySpace<S>, EtcdError> {
        let (kvs, header) = self.etcd.range_raw(&self.prefix.watched(), at).await?;
        let (space, skipped) = batch::load(kvs, header, &self.schema, &self.prefix);
        log_skipped(&skipped);
        Ok(space)
    }

    /// Whether `space` is also the state at `through`. That is so if no key that exists now was written after the
    /// space's revision, and none has gone: then the set of keys is the same, and so is each of them. (A progress
    /// request on the watch stream would be cheaper, but servers before etcd 3.4.25 answer it ahead of changes which
    /// they have yet to send.)
    async fn is_unchanged_through(&self, space: &KeySpace<S>, through: Revision) -> bool {
        match self.etcd.changed_since(&self.prefix.watched(), space.revision()).await {
            Ok((changed, keys, at)) => {
                changed == 0 && usize::try_from(keys) == Ok(space.raw_keys()) && at >= through
            }
            Err(error) => {
                tracing::debug!(prefix = %self.prefix, %error, "cannot ask whether a revision has been seen");
                false
            }
        }
    }
}

fn log_skipped(skipped: &[Applied]) {
    for skipped in skipped {
        if let Applied::Undecodable { key, error, previous_kept } = skipped {
            let key = String::from_utf8_lossy(key);
            tracing::error!(%key, %error, previous_kept, "ignoring an etcd key that does not decode");
        }
    }
}

/// How one attempt to watch ended.
enum Ended {
    /// The group is being cancelled.
    Stopped,
    /// The watch may be opened again where it ended.
    Interrupted(String),
    /// The changes that come next are no longer kept.
    Compacted,
    /// The mirror cannot go on.
    Fault(MirrorFault),
}

struct Driver<S: Schema> {
    shared: Arc<Shared<S>>,
    watch_delay: Duration,
    space: watch::Sender<Arc<KeySpace<S>>>,
    progress: watch::Sender<Revision>,
    /// Every change up to here has been applied.
    resume: Revision,
    backoff: Backoff,
    token: CancellationToken,
}

impl<S: Schema> Driver<S> {
    async fn run(mut self) -> Result<(), BoxError> {
        let token = self.token.clone();
        loop {
            let ended = tokio::select! {
                biased;
                () = token.cancelled() => Ended::Stopped,
                ended = self.watch_once() => ended,
            };
            let prefix = &self.shared.prefix;
            match ended {
                Ended::Stopped => return Ok(()),
                Ended::Fault(fault) => return Err(self.fail(fault)),
                Ended::Interrupted(reason) => {
                    tracing::debug!(%prefix, %reason, "etcd watch was interrupted (will restart)");
                }
                Ended::Compacted => {
                    tracing::warn!(%prefix, resume = %self.resume, "etcd history was compacted; reading it anew");
                    match self.reload().await {
                        Ok(Ok(())) => {}
                        Ok(Err(fault)) => return Err(self.fail(fault)),
                        Err(error) => tracing::warn!(%error, "cannot read etcd anew (will retry)"),
                    }
                }
            }
            let wait = self.backoff.next();
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                () = self.shared.etcd.clock().sleep(wait) => {}
            }
        }
    }

    fn fail(&self, fault: MirrorFault) -> BoxError {
        let error = format!("mirror of {}: {fault}", self.shared.prefix).into();
        self.shared.fault.get_or_init(|| fault);
        error
    }

    async fn watch_once(&mut self) -> Ended {
        let mut stream = match self.open().await {
            Ok(stream) => stream,
            Err(error) => return ended_by(error),
        };
        let mut batch = Batch::default();
        let ended = self.follow(&mut stream, &mut batch).await;
        // What was received is sound even if the stream then failed.
        self.publish(batch);
        ended
    }

    async fn open(&self) -> Result<WatchStream, EtcdError> {
        let (etcd, prefix) = (&self.shared.etcd, self.shared.prefix.watched());
        // Nothing is stored there; the answer shows whether the server has the data that was seen.
        etcd.get(&prefix).await?;
        etcd.watch(&prefix, self.resume).await
    }

    async fn follow(&mut self, stream: &mut WatchStream, batch: &mut Batch) -> Ended {
        let clock = self.shared.etcd.clock().clone();
        let mut apply_at = None;
        loop {
            let timer = async {
                match apply_at {
                    Some(at) => clock.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = timer => {
                    self.publish(std::mem::take(batch));
                    apply_at = None;
                }
                message = stream.message() => match message {
                    Ok(Some(response)) => match self.received(response, batch) {
                        Some(ended) => return ended,
                        None if self.watch_delay.is_zero() || batch.is_empty() => {
                            self.publish(std::mem::take(batch));
                        }
                        None => apply_at = apply_at.or_else(|| Some(clock.now() + self.watch_delay)),
                    },
                    Ok(None) => return Ended::Interrupted("the stream ended".to_owned()),
                    Err(error) => return ended_by(EtcdError::from_client("watch", error)),
                }
            }
        }
    }

    fn received(&mut self, response: WatchResponse, batch: &mut Batch) -> Option<Ended> {
        let response = response.0;
        if response.compact_revision != 0 {
            return Some(Ended::Compacted);
        }
        if response.canceled {
            return Some(Ended::Fault(MirrorFault::WatchRefused(response.cancel_reason)));
        }
        let expected = self.space.borrow().header().cluster_id;
        if response.created {
            // Its revision is that of the server, which may not have sent all changes before it.
            let found = response.header.unwrap_or_default().cluster_id;
            let changed = found != expected;
            return changed.then(|| Ended::Fault(DataLost::ClusterChanged { expected, found }.into()));
        }
        self.backoff.reset();
        batch.push(response, expected, self.resume).err().map(Ended::Fault)
    }

    fn publish(&mut self, batch: Batch) {
        let progress = self.resume.max(batch.progress());
        if !batch.is_empty() {
            let current = Arc::clone(&self.space.borrow());
            let (next, skipped) = batch.apply(&current, &self.shared.schema, &self.shared.prefix);
            log_skipped(&skipped);
            self.space.send_replace(Arc::new(next));
        }
        self.resume = progress;
        self.shared.etcd.seen().note(progress);
        self.progress.send_if_modified(|shown| std::mem::replace(shown, progress) != progress);
    }

    async fn reload(&mut self) -> Result<Result<(), MirrorFault>, EtcdError> {
        let mut space = self.shared.read(Revision::NONE).await?;
        let (loads, expected) = {
            let current = self.space.borrow();
            (current.loads() + 1, current.header().cluster_id)
        };
        let found = space.header().cluster_id;
        if found != expected {
            return Ok(Err(DataLost::ClusterChanged { expected, found }.into()));
        }
        space.set_loads(loads);
        self.resume = space.revision();
        self.space.send_replace(Arc::new(space));
        self.progress.send_replace(self.resume);
        Ok(Ok(()))
    }
}

fn ended_by(error: EtcdError) -> Ended {
    if error.is_compacted() {
        Ended::Compacted
    } else if let Some(lost) = error.data_lost() {
        Ended::Fault(lost.clone().into())
    } else if matches!(error.code(), Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated) {
        Ended::Fault(MirrorFault::WatchRefused(error.to_string()))
    } else {
        Ended::Interrupted(error.to_string())
    }
}
