//! One store: the operations of brokers on the fragments of journals.

use std::sync::Arc;
use std::time::Duration;

use fragment::Fragment;
use fragment::compress::Levels;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use proto::JournalName;
use runtime::{CancellationToken, Clock, Elapsed, Entropy, Instant, OnError, TaskGroup};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::DropGuard;

use crate::content::{self, ContentStream};
use crate::error::PlaceError;
use crate::health::{self, Health, HealthState};
use crate::index_cache::IndexCache;
use crate::listing::ListingParser;
use crate::location::Location;
use crate::operation::{Operation, StoreMetrics};
use crate::place::{Listed, Place};
use crate::retry::Retries;
use crate::upload::{self, Content, Source};
use crate::{StoreError, StoreTimes};

/// Operations other than uploads which a store is asked for at once; more wait. Reading the content of an object that
/// was opened is not one of them.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 64;
/// Uploads to a store at once; more wait. Each holds at most three parts in memory.
pub const UPLOADS_IN_FLIGHT_MAX: usize = 16;
/// What a delete probe writes, and where.
const PROBE_NAME: &str = ".gazette-delete-probe";
const PROBE_CONTENT: &[u8] = b"gazette-delete-probe\n";

/// A fragment store. Cheap to clone; clones are the same store.
///
/// Operations which fail for want of the store are tried a few times before they return. All may be cancelled by
/// dropping their future; none leaves a partial object.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

/// What the clones of a store, and its health checks, share.
pub(crate) struct Shared {
    pub(crate) url: Arc<str>,
    pub(crate) location: Location,
    pub(crate) place: Arc<dyn Place>,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    levels: Levels,
    pub(crate) times: StoreTimes,
    pub(crate) metrics: StoreMetrics,
    pub(crate) health: Arc<HealthState>,
    pub(crate) stop: CancellationToken,
    /// What is known of where objects can be entered.
    pub(crate) indexes: Arc<IndexCache>,
    pub(crate) tasks: TaskGroup,
    _stops_health_checks: DropGuard,
    retries: Retries,
    requests: Semaphore,
    uploads: Semaphore,
}

impl Store {
    /// A store at `place`, whose health checks begin at once.
    pub(crate) fn start(
        url: Arc<str>,
        location: Location,
        place: Arc<dyn Place>,
        (clock, entropy, tasks): (Clock, Entropy, TaskGroup),
        (levels, times): (Levels, StoreTimes),
        metrics: StoreMetrics,
    ) -> Store {
        let stop = tasks.token().child_token();
        let shared = Arc::new(Shared {
            url,
            location,
            place,
            retries: Retries::new(clock.clone(), entropy.clone()),
            clock,
            entropy,
            levels,
            times,
            metrics,
            health: Arc::new(HealthState::new()),
            stop: stop.clone(),
            _stops_health_checks: stop.drop_guard(),
            indexes: Arc::default(),
            tasks: tasks.clone(),
            requests: Semaphore::new(REQUESTS_IN_FLIGHT_MAX),
            uploads: Semaphore::new(UPLOADS_IN_FLIGHT_MAX),
        });
        let checked = Arc::downgrade(&shared);
        tasks.spawn("store health", OnError::Log, async move {
            health::run(checked).await;
            Ok(())
        });
        Store { shared }
    }

    /// The URL, exactly as the journal's specification spells it.
    pub fn url(&self) -> &Arc<str> {
        &self.shared.url
    }

    /// Whether others than the caller hold this store.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.shared) > 1
    }

    /// The store's health, now and as it changes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.known.subscribe()
    }

    /// The store's health once its first check has completed.
    pub async fn checked_health(&self) -> Health {
        let mut health = self.health();
        let known = health.wait_for(|health| *health != Health::Unknown).await;
        known.map_or(Health::Unknown, |health| health.clone())
    }

    /// The stored fragments of `journal`. Files whose names are not of fragments are passed over with a log line.
    pub async fn list(&self, journal: &JournalName) -> Result<Vec<Fragment>, StoreError> {
        let mut fragments = Vec::new();
        self.list_each(journal, |fragment| fragments.push(fragment)).await?;
        Ok(fragments)
    }

    /// [`Store::list`] without holding all fragments at once: `each` is called for every one, in no particular order.
    /// If the listing fails it may have been called for some, and is not called for them again.
    pub async fn list_each(
        &self,
        journal: &JournalName,
        each: impl FnMut(Fragment),
    ) -> Result<(), StoreError> {
        self.list_each_after(journal, None, each).await
    }

    /// [`Store::list_each`] of the files whose keys, relative to the journal's directory, are greater than `after`, byte
    /// by byte: those of one directory come in the order of their names with every kind of store but `file`. S3, Google
    /// and Azure begin there; a file store passes over directories which are before it, and reads all others.
    pub async fn list_each_after(
        &self,
        journal: &JournalName,
        after: Option<&str>,
        mut each: impl FnMut(Fragment),
    ) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let prefix = shared.location.rewrite(&format!("{journal}/"));
        let mut parser = ListingParser::new(journal, &prefix, &shared.url);
        let after = after.map(|after| format!("{prefix}{after}"));
        let each = |listed: Listed| {
            parser.parse(&listed.key, listed.mod_time).into_iter().for_each(&mut each);
            true
        };
        shared.list_keys(&prefix, after.as_deref(), each).await
    }

    /// Every file below `directory`, with its path relative to it and the Unix seconds of its last modification, in no
    /// particular order. `each` says whether to go on; one that says no ends the listing without an error. Paths are as the store
    /// has them, which is rewritten if it rewrites.
    pub async fn list_directory(
        &self,
        directory: &str,
        mut each: impl FnMut(&str, i64) -> bool,
    ) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let prefix = shared.location.rewrite(&format!("{directory}/"));
        let each = |listed: Listed| match listed.key.strip_prefix(&prefix) {
            Some(path) => each(path, listed.mod_time),
            None => true,
        };
        shared.list_keys(&prefix, None, each).await
    }

    /// Whether the file of `fragment` is stored.
    pub async fn exists(&self, fragment: &Fragment) -> Result<bool, StoreError> {
        let path = fragment.content_path();
        let shared = &*self.shared;
        let outcome = shared.attempt(Operation::Exists, &path, shared.times.request, |path| {
            async move { Ok(shared.place.objects().head(&path).await?) }.boxed()
        });
        match outcome.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stores the content of `fragment`, compressed by its codec at the level that the process is configured with, and reads
    /// it back. When this returns, the object is complete, durable, and known to hold the fragment's content.
    ///
    /// # Errors
    /// [`StoreError::Content`] if `source` does not give the fragment's content: nothing is stored then. An object which
    /// does not read back as it should is removed, and reported as [`StoreError::Corrupt`].
    pub async fn put(&self, fragment: &Fragment, source: Source) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let content = Content::of(fragment, shared.levels.of(fragment.codec), source);
        let limit = shared.times.upload * u32::try_from(1 + (content.length >> 30)).unwrap_or(u32::MAX);
        let path = fragment.content_path();
        let _permit = shared.uploads.acquire().await.expect("the semaphore is never closed");
        let written = shared.attempt_upload(&path, limit, &content).await?;
        shared.metrics.put_bytes(fragment.codec, written);
        shared.indexes.forget(&path);
        let verified = match shared.clock.timeout(limit, self.read_back(fragment)).await {
            Ok(verified) => verified,
            Err(Elapsed) => Err(shared.timed_out(Operation::Get, &path, limit)),
        };
        if let Err(error @ StoreError::Corrupt { .. }) = &verified {
            tracing::error!(%error, "a fragment does not read back as it was stored, and is removed");
            self.remove(fragment).await?;
        }
        verified
    }

    /// The content of `fragment` from `offset` on, which is within it, after its first step was read. What is read from the
    /// fragment's beginning, or from near it, has been checked against the fragment's SHA-1 when the stream ends without an error.
    pub async fn open(&self, fragment: &Fragment, offset: i64) -> Result<ContentStream, StoreError> {
        let shared = &*self.shared;
        let path = fragment.content_path();
        if !(fragment.begin..=fragment.end).contains(&offset) {
            return Err(StoreError::Offset { store: shared.url.clone(), path, offset });
        }
        if offset == fragment.end {
            return Ok(stream::empty().boxed());
        }
        content::open(&self.shared, fragment, offset).await
    }

    /// A URL from which the file of `fragment` can be read for as long as `ttl`. Of a file store it is
    /// `file://` and the path below the file root.
    pub async fn signed_url(&self, fragment: &Fragment, ttl: Duration) -> Result<String, StoreError> {
        let shared = &*self.shared;
        let started = shared.clock.now();
        let path = fragment.content_path();
        let key = shared.location.rewrite(&path);
        let limit = shared.times.request;
        let outcome = match shared.clock.timeout(limit, shared.place.sign(&key, ttl)).await {
            Ok(outcome) => outcome.map_err(|error| error.of(Operation::SignGet, &shared.url, &path)),
            Err(Elapsed) => Err(shared.timed_out(Operation::SignGet, &path, limit)),
        };
        // Signing may need no answer from the store, and says nothing about its health.
        shared.metrics.operation(Operation::SignGet, outcome.is_ok(), shared.clock.now() - started);
        outcome
    }

    /// Deletes the file of `fragment`. That there is none is not an error.
    pub async fn remove(&self, fragment: &Fragment) -> Result<(), StoreError> {
        let path = fragment.content_path();
        let shared = &*self.shared;
        let outcome = shared.attempt(Operation::Remove, &path, shared.times.request, |path| {
            async move { Ok(shared.place.objects().delete(&path).await?) }.boxed()
        });
        match outcome.await {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    /// Finds out whether objects under `prefix` may be deleted, by writing and deleting one (journal protocol §9.4).
    ///
    /// # Errors
    /// The text with which the request is answered.
    pub async fn probe_delete(&self, prefix: &str) -> Result<(), String> {
        let shared = &*self.shared;
        let name = format!("{prefix}{PROBE_NAME}");
        let deadline = shared.clock.now() + shared.times.check;
        let step =
            |step: &'static str, operation, outcome: Result<Result<(), PlaceError>, Elapsed>| match outcome {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => {
                    Err(format!("delete-probe {step} failed: {}", error.of(operation, &shared.url, &name)))
                }
                Err(elapsed) => Err(format!("delete-probe {step} failed: {elapsed}")),
            };
        let put = async {
            let path = shared.locate(&shared.location.rewrite(&name)).await?;
            shared.place.objects().put(&path, PROBE_CONTENT.into()).await?;
            Ok(())
        };
        step("PUT", Operation::Put, shared.clock.timeout_at(deadline, put).await)?;
        let delete = async {
            let path = shared.locate(&shared.location.rewrite(&name)).await?;
            Ok(shared.place.objects().delete(&path).await?)
        };
        step("DELETE", Operation::Remove, shared.clock.timeout_at(deadline, delete).await)
    }

    /// Reads all of `fragment`, which checks it.
    async fn read_back(&self, fragment: &Fragment) -> Result<(), StoreError> {
        let content = self.open(fragment, fragment.begin).await?;
        content.try_for_each(async |_| Ok(())).await
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.shared.url).finish()
    }
}

impl Shared {
    /// The path of `key`, found on a blocking thread, since a file store looks at its directories.
    pub(crate) async fn locate(&self, key: &str) -> Result<Path, PlaceError> {
        let (place, key) = (self.place.clone(), key.to_owned());
        self.tasks.spawn_blocking("locate object", move || place.locate(&key)).await
    }

    /// Runs `work` on the located `path` until it succeeds, fails for good, or has failed too often. (The futures of
    /// async closures are not known to be `Send`, hence the box.)
    pub(crate) async fn attempt<'a, T>(
        &'a self,
        operation: Operation,
        path: &'a str,
        limit: Duration,
        work: impl Fn(Path) -> BoxFuture<'a, Result<T, PlaceError>>,
    ) -> Result<T, StoreError> {
        let _permit = self.requests.acquire().await.expect("the semaphore is never closed");
        let (key, work) = (&self.location.rewrite(path), &work);
        self.with_retries(operation, path, limit, || async move {
            let located = self.locate(key).await.map_err(|error| error.of(operation, &self.url, path))?;
            work(located).await.map_err(|error| error.of(operation, &self.url, path))
        })
        .await
    }

    /// Every key with this prefix, after `after`, until `each` says that it is enough.
    async fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        mut each: impl FnMut(Listed) -> bool,
    ) -> Result<(), StoreError> {
        let _permit = self.requests.acquire().await.expect("the semaphore is never closed");
        let started = self.clock.now();
        let mut seen = 0;
        let outcome = async {
            let mut listing = self.place.list_after(prefix, after);
            let limit = self.times.list_step;
            loop {
                match self.clock.timeout(limit, listing.try_next()).await {
                    Ok(Ok(Some(listed))) => {
                        seen += 1;
                        if !each(listed) {
                            return Ok(());
                        }
                    }
                    Ok(Ok(None)) => return Ok(()),
                    Ok(Err(error)) => return Err(error.of(Operation::List, &self.url, prefix)),
                    Err(Elapsed) => return Err(self.timed_out(Operation::List, prefix, limit)),
                }
            }
        }
        .await;
        self.saw(Operation::List, &outcome, started);
        self.metrics.listed(seen);
        outcome
    }

    async fn attempt_upload(
        &self,
        path: &str,
        limit: Duration,
        content: &Content,
    ) -> Result<u64, StoreError> {
        let key = &self.location.rewrite(path);
        self.with_retries(Operation::Put, path, limit, || async move {
            let located =
                self.locate(key).await.map_err(|error| error.of(Operation::Put, &self.url, path))?;
            let uploaded = upload::upload(&*self.place, &located, content.clone(), &self.tasks).await;
            uploaded.map_err(|error| error.of(&self.url, path))
        })
        .await
    }

    async fn with_retries<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        operation: Operation,
        path: &str,
        limit: Duration,
        work: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let mut attempt = 0;
        let retries_itself = operation == Operation::Get && self.place.retries_reads();
        loop {
            let started = self.clock.now();
            let outcome = match self.clock.timeout(limit, work()).await {
                Ok(outcome) => outcome,
                Err(Elapsed) => Err(self.timed_out(operation, path, limit)),
            };
            self.saw(operation, &outcome, started);
            match &outcome {
                Err(error @ StoreError::Failed { .. }) if !retries_itself => {
                    tracing::debug!(%error, attempt, "store operation failed");
                }
                _ => return outcome,
            }
            if !self.retries.wait(attempt).await {
                return outcome;
            }
            attempt += 1;
        }
    }

    /// Counts the operation, and lets its outcome bear upon the store's health. That there is no such object is an
    /// answer like any other.
    fn saw<T>(&self, operation: Operation, outcome: &Result<T, StoreError>, started: Instant) {
        let succeeded = outcome.as_ref().map_or_else(StoreError::is_not_found, |_| true);
        self.metrics.operation(operation, succeeded, self.clock.now() - started);
        let of_store = outcome.as_ref().is_err_and(StoreError::is_of_store);
        self.health.saw(succeeded, of_store);
    }

    fn timed_out(&self, operation: Operation, path: &str, limit: Duration) -> StoreError {
        StoreError::TimedOut { operation, store: self.url.clone(), path: path.to_owned(), limit }
    }
}

#[cfg(test)]
pub(crate) mod tests;
