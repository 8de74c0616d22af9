//! The persister: completed fragments on their way from local disk to their journal's store (journal protocol §7.2).
//!
//! Each completed spool has a task, which uploads its content to the first store of the journal's specification; the store
//! compresses and verifies it, on threads of its own and away from the commit path. A failure is tried again, for as long
//! as the process lives; the spool stays on disk and is served meanwhile, and a process that ends before it succeeds
//! leaves it to the next one. Only a fragment that was seen in its store loses its spool. A replica that is not the primary
//! gives the primary a minute, or until it is gone, and then mostly finds the fragment there.
//!
//! Where a fragment is stored depends only on its content, its specification and the time of its first append, which the
//! spool's manifest keeps: whoever tries again finds what an earlier attempt has stored.
//!
//! A journal without stores keeps its fragments on local disk, and is served from there.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fragment::Fragment;
use fragment::postfix::{Context, Template, TemplateError};
use proto::protocol::JournalSpec;
use runtime::backoff::Backoff;
use runtime::prometheus::IntCounter;
use runtime::{CancellationToken, Clock, Entropy, OnError, TaskGroup};
use stores::{StoreError, Stores};
use tokio::sync::{Semaphore, watch};

use crate::spool::{CompletedSpool, LocalFile, SpoolDisk};

/// Fragments of a broker that are compressed and uploaded to one store at a time. Each store has its own share: one that hangs
/// must not keep fragments from the others.
const UPLOADS_TO_STORE_MAX: usize = 8;
/// Waits after failures; the last one repeats.
const RETRY_WAITS: &[Duration] = &[
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// Time between two lines of the log about what a drain waits for.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Part of a wait by which it varies, so that the fragments of a broker do not return to a failing store together.
const RETRY_JITTER: f64 = 0.2;

/// Time after which a replica that is not the primary uploads a fragment too: by then the primary has.
const REPLICA_UPLOADS_AFTER: Duration = Duration::from_secs(60);

/// When the first attempt to upload a fragment is made.
pub(crate) enum Begin {
    /// At once: this broker is the journal's primary, or nobody else may have the fragment.
    Now,
    /// Once the primary had its time, or once it is gone, which the token tells.
    AfterPrimary(CancellationToken),
}

/// Told of a stored fragment. False if nobody keeps an index of the journal any more.
type Stored = Box<dyn FnOnce(Fragment) -> bool + Send>;

/// Uploads the completed fragments of a broker. Cheap to clone.
#[derive(Clone)]
pub struct Persister {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    clock: Clock,
    entropy: Entropy,
    tasks: TaskGroup,
    stores: Stores,
    disk: Arc<dyn SpoolDisk>,
    /// By store.
    uploads: Arc<Mutex<BTreeMap<Arc<str>, Arc<Semaphore>>>>,
    persisted: IntCounter,
    /// Fragments that have a store and are not in it.
    pending: watch::Sender<usize>,
    /// Fires when the process begins to end: whoever waits to try again does so at once.
    draining: CancellationToken,
}

/// An attempt to persist a fragment failed.
#[derive(Debug, thiserror::Error)]
enum PersistError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("evaluating path_postfix_template {template:?}: {source}")]
    Postfix { template: String, source: TemplateError },
}

impl Persister {
    /// A persister whose tasks are a child group of `tasks`.
    pub(crate) fn new(
        clock: &Clock,
        entropy: &Entropy,
        tasks: &TaskGroup,
        stores: &Stores,
        disk: &Arc<dyn SpoolDisk>,
        persisted: IntCounter,
    ) -> Persister {
        Persister {
            inner: Arc::new(Inner {
                clock: clock.clone(),
                entropy: entropy.clone(),
                tasks: tasks.child("persist"),
                stores: stores.clone(),
                disk: Arc::clone(disk),
                uploads: Arc::default(),
                persisted,
                pending: watch::Sender::new(0),
                draining: CancellationToken::new(),
            }),
        }
    }

    /// The same persister with its tasks in a child group of `tasks`.
    pub(crate) fn within(&self, tasks: &TaskGroup) -> Persister {
        Persister { inner: Arc::new(Inner { tasks: tasks.child("persist"), ..Inner::clone(&self.inner) }) }
    }

    /// Persists a completed spool, in a task of its own, and then calls `stored`; if that returns false, the
    /// spool's file loses its name here. `abandon` ends it: the journal is no more.
    pub(crate) fn submit(
        &self,
        spool: CompletedSpool,
        begin: Begin,
        spec: watch::Receiver<Arc<JournalSpec>>,
        abandon: CancellationToken,
        stored: Stored,
    ) {
        let inner = Arc::clone(&self.inner);
        let gone = self.inner.tasks.token().clone();
        // Counted here, so that a drain which begins before the task does waits for it.
        let pending = Pending::new(&inner.pending);
        self.inner.tasks.spawn("fragment", OnError::Log, async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = abandon.cancelled() => {}
                () = async {
                    inner.await_primary(begin).await;
                    inner.persist(&spool, spec, pending, stored).await;
                } => {}
            }
            Ok(())
        });
    }

    /// Waits until every fragment that has a store is in it, for at most `limit`, and then ends what is left. Tells the log what
    /// it waits for. Returns how many fragments stay on local disk; the next process uploads them.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.inner.draining.cancel();
        let clock = &self.inner.clock;
        let (deadline, mut pending) = (clock.now() + limit, self.inner.pending.subscribe());
        let mut next_report = clock.now();
        loop {
            let left = *pending.borrow_and_update();
            let now = clock.now();
            if left == 0 || now >= deadline {
                self.inner.tasks.cancel();
                return left;
            }
            if now >= next_report {
                tracing::info!(fragments = left, within = ?(deadline - now), "waiting for uploads of fragments");
                next_report = now + REPORT_INTERVAL;
            }
            // An error cannot come, as this holds the sender.
            drop(clock.timeout_at(deadline.min(next_report), pending.changed()).await);
        }
    }
}

/// Counts a fragment as pending while it lives.
struct Pending(watch::Sender<usize>);

impl Pending {
    fn new(pending: &watch::Sender<usize>) -> Pending {
        pending.send_modify(|pending| *pending += 1);
        Pending(pending.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.send_modify(|pending| *pending -= 1);
    }
}

impl Inner {
    /// Tries until the fragment is stored, and then tells of it.
    async fn persist(
        &self,
        spool: &CompletedSpool,
        mut spec: watch::Receiver<Arc<JournalSpec>>,
        pending: Pending,
        stored: Stored,
    ) {
        let (mut backoff, mut pending) = (Backoff::new(RETRY_WAITS), Some(pending));
        loop {
            let current = Arc::clone(&spec.borrow_and_update());
            if current.fragment().stores.is_empty() {
                pending = None;
                if spec.changed().await.is_err() {
                    // The replica is gone, and with it whoever could give the journal a store.
                    std::future::pending::<()>().await;
                }
                continue;
            }
            let _pending = pending.get_or_insert_with(|| Pending::new(&self.pending));
            let error = match self.attempt_stores(spool, &current).await {
                Ok(fragment) => return self.on_stored(fragment, spool.file.clone(), stored).await,
                Err(error) => error,
            };
            let Fragment { journal, begin, end, .. } = &spool.completed.fragment;
            tracing::warn!(%journal, begin, end, %error, "failed to persist Spool (will retry)");
            self.wait(&mut backoff, &mut spec).await;
        }
    }

    /// Waits before the first attempt; not while the process ends.
    async fn await_primary(&self, begin: Begin) {
        let Begin::AfterPrimary(gone) = begin else { return };
        tokio::select! {
            biased;
            () = self.draining.cancelled() => {}
            () = gone.cancelled() => {}
            () = self.clock.sleep(self.entropy.jitter(REPLICA_UPLOADS_AFTER, RETRY_JITTER)) => {}
        }
    }

    /// Waits to try again: for the backoff, for a newer specification, or for the process to begin to end.
    async fn wait(&self, backoff: &mut Backoff, spec: &mut watch::Receiver<Arc<JournalSpec>>) {
        let wait = self.entropy.jitter(backoff.next(), RETRY_JITTER);
        let is_draining = self.draining.is_cancelled();
        tokio::select! {
            biased;
            // With short waits again: not much time is left.
            () = self.draining.cancelled(), if !is_draining => backoff.reset(),
            Ok(()) = spec.changed() => {}
            () = self.clock.sleep(wait) => {}
        }
    }

    /// Tries the first store. While the process ends, a store that refuses this process gives way to the next one: better
    /// there than nowhere.
    async fn attempt_stores(
        &self,
        spool: &CompletedSpool,
        spec: &JournalSpec,
    ) -> Result<Fragment, PersistError> {
        let urls = &spec.fragment().stores;
        let mut next = 0;
        loop {
            let outcome = self.attempt(spool, spec, &urls[next]).await;
            let is_refused = matches!(&outcome, Err(PersistError::Store(error)) if error.is_auth());
            next += 1;
            if !is_refused || !self.draining.is_cancelled() || next == urls.len() {
                return outcome;
            }
        }
    }

    async fn attempt(
        &self,
        spool: &CompletedSpool,
        spec: &JournalSpec,
        url: &str,
    ) -> Result<Fragment, PersistError> {
        let uploads = self.uploads_to(url);
        let _upload = uploads.acquire().await.expect("it is never closed");
        let fragment = placed(spool, spec, url)?;
        let store = self.stores.get(url)?;
        if !store.exists(&fragment).await? {
            let (begin, file) = (fragment.begin, spool.file.clone());
            let open = move || -> io::Result<Box<dyn Read + Send>> {
                Ok(Box::new(SpoolReader { file: file.clone(), offset: begin }))
            };
            store.put(&fragment, Arc::new(open)).await?;
        }
        Ok(Fragment { mod_time: self.clock.unix_seconds(), ..fragment })
    }

    fn uploads_to(&self, url: &str) -> Arc<Semaphore> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uploads.get(url) {
            return Arc::clone(known);
        }
        let new = Arc::new(Semaphore::new(UPLOADS_TO_STORE_MAX));
        uploads.insert(url.into(), Arc::clone(&new));
        new
    }

    async fn on_stored(&self, fragment: Fragment, file: LocalFile, stored: Stored) {
        self.persisted.inc();
        tracing::debug!(journal = %fragment.journal, path = fragment.content_path(), "persisted fragment");
        if stored(fragment) {
            return;
        }
        let (disk, removed) = (Arc::clone(&self.disk), file.clone());
        let remove = move || removed.remove(&*disk);
        if let Err(err) = self.tasks.spawn_blocking("remove spool", remove).await {
            tracing::warn!(spool = %file.path().display(), error = %err, "failed to remove a stored spool");
        }
    }
}

/// The fragment as it is to be stored at `url`.
fn placed(spool: &CompletedSpool, spec: &JournalSpec, url: &str) -> Result<Fragment, PersistError> {
    let completed = &spool.completed;
    let text = &spec.fragment().path_postfix_template;
    let context = Context {
        fragment: &completed.fragment.to_proto(),
        first_append_time: Some(completed.first_append),
        registers: &completed.registers,
        spec,
    };
    let path_postfix = Template::parse(text)
        .and_then(|template| template.eval(&context))
        .map_err(|source| PersistError::Postfix { template: text.clone(), source })?;
    Ok(Fragment { path_postfix, backing_store: Some(url.into()), ..completed.fragment.clone() })
}

/// The content of a spool from an offset on. What follows the fragment's end is not to be asked for.
struct SpoolReader {
    file: LocalFile,
    offset: i64,
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.offset, buffer)?;
        self.offset += i64::try_from(read).expect("a buffer is shorter than i64::MAX");
        Ok(read)
    }
}
