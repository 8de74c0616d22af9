//! The persister: completed fragments on their way from local disk to their journal's store (journal protocol §7.2).
//!
//! Each completed spool has a task, which uploads its content to the first store of the journal's specification; the store
//! compresses and verifies it, on threads of its own and away from the commit path. A failure is tried again, for as long
//! as the process lives; the spool stays on disk and is served meanwhile, and a process that ends before it succeeds
//! leaves it to the next one. Only a fragment that was seen in its store loses its spool; one that an attempt finds there
//! before it has stored it is read back first, since nobody may have done that yet. A replica that is not the primary gives
//! the primary a minute, or until it is gone, and then mostly finds the fragment there.
//!
//! Where a fragment is stored depends only on its content, its specification and the time of its first append, which the
//! spool's manifest keeps and which all replicas have from their primary: whoever tries again, here or elsewhere, finds what an
//! earlier attempt has stored. What the index knows to be stored already, under whichever name, is not stored again.
//!
//! Each attempt goes by the journal's current specification, also once its replica has left this broker. Fragments of a
//! journal that is no more are dropped. A journal without stores keeps its fragments on local disk, and is served from there.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fragment::Fragment;
use fragment::postfix::{Context, Template, TemplateError};
use futures::TryStreamExt;
use proto::protocol::JournalSpec;
use proto::{JournalName, Revision};
use runtime::backoff::Backoff;
use runtime::{CancellationToken, Clock, Entropy, OnError, TaskGroup};
use stores::{Health, Store, StoreError, Stores};
use tokio::sync::{Semaphore, watch};

use crate::replica::{Held, ReplicaMetrics};
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

/// When the first attempt to upload a fragment is made.
pub(crate) enum Begin {
    /// At once: this broker is the journal's primary, or nobody else may have the fragment.
    Now,
    /// Once the primary had its time, or once it is gone, which the token tells.
    AfterPrimary(CancellationToken),
}

/// Told of a stored fragment. False if nobody keeps an index of the journal any more.
type Stored = Box<dyn FnOnce(Fragment) -> bool + Send>;

/// The specification of the journal whose item was created at a revision; `None` if there is none any more.
pub type SpecOf = Arc<dyn Fn(&JournalName, Revision) -> Option<Arc<JournalSpec>> + Send + Sync>;

/// A completed spool on its way to its store.
pub(crate) struct Upload {
    /// The spool.
    pub(crate) spool: CompletedSpool,
    /// When the first attempt is made.
    pub(crate) begin: Begin,
    /// Revision at which the journal's item came into being.
    pub(crate) create_revision: Revision,
    /// The journal's specification, for as long as its replica is here.
    pub(crate) spec: watch::Receiver<Arc<JournalSpec>>,
    /// Whether the stores are known to hold the spool's content.
    pub(crate) is_stored: Box<dyn Fn() -> bool + Send + Sync>,
    /// Ends it: the journal is no more.
    pub(crate) abandon: CancellationToken,
    /// Called once the fragment is stored. If it returns false, the spool's file loses its name here.
    pub(crate) stored: Stored,
}

/// Uploads the completed fragments of a broker. Cheap to clone.
#[derive(Clone)]
pub struct Persister {
    inner: Arc<Inner>,
}

/// What a [`Persister`] is made of.
#[derive(Clone)]
pub(crate) struct PersisterParts {
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    /// Uploads run in a child of it.
    pub(crate) tasks: TaskGroup,
    pub(crate) stores: Stores,
    pub(crate) disk: Arc<dyn SpoolDisk>,
    pub(crate) spec_of: SpecOf,
    /// Time for the primary to store a fragment before other replicas do.
    pub(crate) replica_upload: Duration,
    /// Counts fragments that are stored, and that are not.
    pub(crate) metrics: ReplicaMetrics,
}

#[derive(Clone)]
struct Inner {
    parts: PersisterParts,
    /// By store.
    uploads: Arc<Mutex<BTreeMap<Arc<str>, Arc<Semaphore>>>>,
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
    /// A persister whose tasks are a child group of `parts.tasks`.
    pub(crate) fn new(parts: PersisterParts) -> Persister {
        let tasks = parts.tasks.child("persist");
        Persister {
            inner: Arc::new(Inner {
                parts: PersisterParts { tasks, ..parts },
                uploads: Arc::default(),
                pending: watch::Sender::new(0),
                draining: CancellationToken::new(),
            }),
        }
    }

    /// The same persister with its tasks in a child group of `tasks`.
    pub(crate) fn within(&self, tasks: &TaskGroup) -> Persister {
        let mut inner = Inner::clone(&self.inner);
        inner.parts.tasks = tasks.child("persist");
        Persister { inner: Arc::new(inner) }
    }

    /// Persists a completed spool, in a task of its own.
    pub(crate) fn submit(&self, upload: Upload) {
        let inner = Arc::clone(&self.inner);
        let gone = inner.parts.tasks.token().clone();
        // Counted here, so that a drain which begins before the task does waits for it.
        let pending = Pending::new(&inner, &upload.spool);
        self.inner.parts.tasks.spawn("fragment", OnError::Log, async move {
            let abandon = upload.abandon.clone();
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = abandon.cancelled() => {}
                () = inner.persist(upload, pending) => {}
            }
            Ok(())
        });
    }

    /// Waits until every fragment that has a store is in it, for at most `limit`, and then ends what is left. Tells the log what
    /// it waits for. Returns how many fragments stay on local disk; the next process uploads them.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.inner.draining.cancel();
        let clock = &self.inner.parts.clock;
        let (deadline, mut pending) = (clock.now() + limit, self.inner.pending.subscribe());
        let mut next_report = clock.now();
        loop {
            let left = *pending.borrow_and_update();
            let now = clock.now();
            if left == 0 || now >= deadline {
                self.inner.parts.tasks.cancel();
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
struct Pending {
    pending: watch::Sender<usize>,
    _backlog: Held<2>,
}

impl Pending {
    fn new(persister: &Inner, spool: &CompletedSpool) -> Pending {
        persister.pending.send_modify(|pending| *pending += 1);
        let backlog = persister.parts.metrics.backlog(spool.completed.fragment.len());
        Pending { pending: persister.pending.clone(), _backlog: backlog }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.pending.send_modify(|pending| *pending -= 1);
    }
}

impl Inner {
    /// Tries until the fragment is stored, and then tells of it.
    async fn persist(&self, mut upload: Upload, pending: Pending) {
        let is_verified = self.await_primary(&upload.begin).await;
        let (mut backoff, mut pending) = (Backoff::new(RETRY_WAITS), Some(pending));
        loop {
            let file = upload.spool.file.clone();
            let current = self.current_spec(&mut upload);
            let Fragment { journal, begin, end, .. } = &upload.spool.completed.fragment;
            let Some(spec) = current else {
                tracing::info!(%journal, begin, end, "dropped a fragment of a journal that is no more");
                return self.remove(file).await;
            };
            if spec.fragment().stores.is_empty() {
                pending = None;
                self.await_stores(&mut upload.spec).await;
                continue;
            }
            if (upload.is_stored)() {
                tracing::debug!(%journal, begin, end, "the stores hold a fragment already");
                return self.remove(file).await;
            }
            let _pending = pending.get_or_insert_with(|| Pending::new(self, &upload.spool));
            let error = match self.attempt_stores(&upload.spool, &spec, is_verified).await {
                Ok(fragment) => return self.on_stored(fragment, file, upload.stored).await,
                Err(error) => error,
            };
            tracing::warn!(%journal, begin, end, %error, "failed to persist Spool (will retry)");
            self.wait(&mut backoff, &mut upload.spec, &spec.fragment().stores[0]).await;
        }
    }

    /// The journal's specification, from its replica if that is still here; `None` if there is no such journal any more.
    fn current_spec(&self, upload: &mut Upload) -> Option<Arc<JournalSpec>> {
        match upload.spec.has_changed() {
            Ok(_) => Some(Arc::clone(&upload.spec.borrow_and_update())),
            Err(_) => (self.parts.spec_of)(&upload.spool.completed.fragment.journal, upload.create_revision),
        }
    }

    /// Waits before the first attempt; not while the process ends. Returns whether the primary has had the time to store the
    /// fragment, and to verify it.
    async fn await_primary(&self, begin: &Begin) -> bool {
        let Begin::AfterPrimary(gone) = begin else { return false };
        let wait = self.parts.entropy.jitter(self.parts.replica_upload, RETRY_JITTER);
        tokio::select! {
            biased;
            () = self.draining.cancelled() => false,
            () = gone.cancelled() => false,
            () = self.parts.clock.sleep(wait) => true,
        }
    }

    /// Waits until the journal may have been given a store.
    async fn await_stores(&self, spec: &mut watch::Receiver<Arc<JournalSpec>>) {
        if spec.changed().await.is_err() {
            let wait = RETRY_WAITS.last().copied().unwrap_or_default();
            self.parts.clock.sleep(self.parts.entropy.jitter(wait, RETRY_JITTER)).await;
        }
    }

    /// Waits to try again: for the backoff, for a newer specification, for the store to recover, or for the process to begin
    /// to end.
    async fn wait(&self, backoff: &mut Backoff, spec: &mut watch::Receiver<Arc<JournalSpec>>, url: &str) {
        let wait = self.parts.entropy.jitter(backoff.next(), RETRY_JITTER);
        let is_draining = self.draining.is_cancelled();
        tokio::select! {
            biased;
            // With short waits again: not much time is left.
            () = self.draining.cancelled(), if !is_draining => backoff.reset(),
            Ok(()) = spec.changed() => {}
            () = self.recovery_of(url) => {}
            () = self.parts.clock.sleep(wait) => {}
        }
    }

    /// Waits until the store at `url`, which is not healthy now, is found so.
    async fn recovery_of(&self, url: &str) {
        if let Ok(store) = self.parts.stores.get(url) {
            let mut health = store.health();
            drop(store);
            let is_failing = matches!(*health.borrow(), Health::Unhealthy(_));
            if is_failing && health.wait_for(|health| *health == Health::Healthy).await.is_ok() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Tries the first store. While the process ends, a store that refuses this process gives way to the next one: better
    /// there than nowhere.
    async fn attempt_stores(
        &self,
        spool: &CompletedSpool,
        spec: &JournalSpec,
        is_verified: bool,
    ) -> Result<Fragment, PersistError> {
        let urls = &spec.fragment().stores;
        let mut next = 0;
        loop {
            let outcome = self.attempt(spool, spec, &urls[next], is_verified).await;
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
        is_verified: bool,
    ) -> Result<Fragment, PersistError> {
        let uploads = self.uploads_to(url);
        let _upload = uploads.acquire().await.expect("it is never closed");
        let fragment = placed(spool, spec, url)?;
        let store = self.parts.stores.get(url)?;
        let is_there =
            store.exists(&fragment).await? && (is_verified || reads_back(&store, &fragment).await?);
        if !is_there {
            let (begin, file) = (fragment.begin, spool.file.clone());
            let open = move || -> io::Result<Box<dyn Read + Send>> {
                Ok(Box::new(SpoolReader { file: file.clone(), offset: begin }))
            };
            store.put(&fragment, Arc::new(open)).await?;
        }
        Ok(Fragment { mod_time: self.parts.clock.unix_seconds(), ..fragment })
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
        self.parts.metrics.persisted.inc();
        tracing::debug!(journal = %fragment.journal, path = fragment.content_path(), "persisted fragment");
        if !stored(fragment) {
            self.remove(file).await;
        }
    }

    /// Takes the name of a file that is not needed any more. Whoever reads it has it open.
    async fn remove(&self, file: LocalFile) {
        let (disk, removed) = (Arc::clone(&self.parts.disk), file.clone());
        let remove = move || removed.remove(&*disk);
        if let Err(err) = self.parts.tasks.spawn_blocking("remove spool", remove).await {
            tracing::warn!(spool = %file.path().display(), error = %err, "failed to remove a spool that is not needed");
        }
    }
}

/// Whether the stored fragment is what it should be. What is not is stored again in its place.
async fn reads_back(store: &Store, fragment: &Fragment) -> Result<bool, StoreError> {
    let read = async {
        let content = store.open(fragment, fragment.begin).await?;
        content.try_for_each(async |_| Ok(())).await
    };
    match read.await {
        Ok(()) => Ok(true),
        Err(error @ StoreError::Corrupt { .. }) => {
            tracing::error!(%error, "a stored fragment is not what its name says, and is stored again");
            Ok(false)
        }
        Err(error) => Err(error),
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
