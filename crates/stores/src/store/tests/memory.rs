//! A store in memory, with faults.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::*;
use crate::place::Listed;

/// What goes wrong, shared with the test which makes it go wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// So many requests to come fail.
    pub(crate) failures: Arc<AtomicUsize>,
    /// Requests are never answered.
    pub(crate) hangs: Arc<AtomicBool>,
    /// Objects are stored with their last byte changed.
    pub(crate) corrupts: Arc<AtomicBool>,
    /// Ends of objects cannot be asked for, as with Azure.
    pub(crate) knows_no_ends: Arc<AtomicBool>,
    /// Bytes that were asked for.
    pub(crate) asked_bytes: Arc<AtomicU64>,
    /// Names of requests that were made.
    pub(crate) requests: Arc<Mutex<Vec<&'static str>>>,
}

impl Faults {
    async fn meet(&self, request: &'static str) -> Result<()> {
        self.requests.lock().unwrap().push(request);
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let failures = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match failures {
            Err(_) => Ok(()),
            Ok(_) => Err(object_store::Error::Generic { store: "Memory", source: "connection reset".into() }),
        }
    }
}

/// A store whose objects are in memory.
pub(crate) fn store(faults: Faults) -> Store {
    store_with_tasks(faults, TaskGroup::new("test"))
}

pub(crate) fn store_with_tasks(faults: Faults, tasks: TaskGroup) -> Store {
    let url: Arc<str> = "file:///in/memory/".into();
    let location = Location::parse(&url, false).unwrap();
    let metrics = StoreMetrics::new(&Metrics::new(), url.clone());
    let place = Arc::new(MemoryPlace { objects: Faulty { inner: Arc::new(InMemory::new()), faults } });
    Store::start(
        url,
        location,
        place,
        (Clock::system(), Entropy::seeded(7), tasks),
        (Levels::default(), StoreTimes::default()),
        metrics,
    )
}

struct MemoryPlace {
    objects: Faulty,
}

impl Place for MemoryPlace {
    fn objects(&self) -> &dyn ObjectStore {
        &self.objects
    }

    fn locate(&self, key: &str) -> std::result::Result<Path, PlaceError> {
        Path::parse(key).map_err(|error| PlaceError::Name(error.to_string()))
    }

    fn list_after(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, std::result::Result<Listed, PlaceError>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        let listing = self
            .objects
            .list(None)
            .map_ok(|meta| Listed { key: meta.location.into(), mod_time: meta.last_modified.timestamp() });
        let wanted = move |listed: &Listed| {
            listed.key.starts_with(&prefix) && after.as_ref().is_none_or(|after| listed.key > *after)
        };
        let listing = listing.err_into().try_filter(move |listed| std::future::ready(wanted(listed)));
        listing.boxed()
    }

    fn sign<'a>(
        &'a self,
        key: &'a str,
        _ttl: Duration,
    ) -> BoxFuture<'a, std::result::Result<String, PlaceError>> {
        async move { Ok(format!("memory:{key}")) }.boxed()
    }

    fn part_bytes(&self) -> usize {
        100_000
    }
}

#[derive(Clone, Debug)]
struct Faulty {
    inner: Arc<InMemory>,
    faults: Faults,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.faults.meet("put").await?;
        if !self.faults.corrupts.load(Ordering::SeqCst) {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let mut bytes = payload.iter().flatten().copied().collect::<Vec<u8>>();
        *bytes.last_mut().unwrap() ^= 1;
        self.inner.put_opts(location, bytes.into(), opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.faults.meet("put_multipart").await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        self.faults.meet(if is_head { "head" } else { "get" }).await?;
        let is_end = matches!(options.range, Some(GetRange::Suffix(_)));
        if is_end && self.faults.knows_no_ends.load(Ordering::SeqCst) {
            return Err(object_store::Error::NotSupported { source: "suffix range".into() });
        }
        let object = self.inner.get_opts(location, options).await?;
        if !is_head {
            self.faults.asked_bytes.fetch_add(object.range.end - object.range.start, Ordering::SeqCst);
        }
        Ok(object)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let faults = self.faults.clone();
        let deleted = self.inner.delete_stream(locations);
        deleted
            .and_then(move |path| {
                let faults = faults.clone();
                async move { faults.meet("delete").await.map(|()| path) }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let faults = self.faults.clone();
        let met = stream::once(async move { faults.meet("list").await });
        let listing = self.inner.list(prefix);
        met.flat_map(move |met| stream::iter(met.err().map(Err))).chain(listing).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
