//! Buckets and containers as places of objects.
//!
//! What S3, Google and Azure have in common: keys below a prefix, listing page by page, uploads in parts which are given
//! up when nobody waits for them any more, and URLs which others can fetch. Requests are tried again by the store, page
//! by page and part by part, and not also by the client beneath; only the reading of content goes on by itself where it
//! broke off, which a store cannot do for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fragment::Codec;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use http::Method;
use object_store::client::{HttpClient, HttpRequestBody};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, BackoffConfig, ClientOptions, CopyOptions, GetOptions, GetResult, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    RetryConfig, UploadPart,
};
use runtime::{Clock, OnError, TaskGroup};

use crate::StoreTimes;
use crate::error::PlaceError;
use crate::place::{Fetched, Listed, Place};
use crate::retry::Retries;

/// Longest key, in bytes, of every vendor.
const KEY_BYTES_MAX: usize = 1024;
/// Each part of an upload: the least that S3 takes, of which it takes at most 10,000.
const PART_BYTES: usize = 5 << 20;
/// How often the reading of an object may go on where it broke off, and for how long after it began.
const RESUMPTIONS_MAX: usize = 3;
const RESUMPTION_LIMIT: Duration = Duration::from_secs(10 * 60);

/// How a client of a vendor waits for answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Short requests.
    Requests,
    /// Reading content.
    Reads,
    /// Writing it.
    Uploads,
}

impl Purpose {
    pub(crate) fn options(self, plain_http: bool, times: &StoreTimes) -> ClientOptions {
        let answer = if self == Purpose::Uploads { times.upload_answer } else { times.answer };
        let options = ClientOptions::new().with_allow_http(plain_http).with_timeout_disabled();
        options.with_connect_timeout(times.connect).with_read_timeout(answer)
    }

    pub(crate) fn retries(self) -> RetryConfig {
        match self {
            Purpose::Requests | Purpose::Uploads => {
                RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
            }
            Purpose::Reads => RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: Duration::from_millis(100),
                    max_backoff: Duration::from_secs(2),
                    base: 4.0,
                },
                max_retries: RESUMPTIONS_MAX,
                retry_timeout: RESUMPTION_LIMIT,
            },
        }
    }
}

/// The clients of one bucket. Their paths are those of whole keys.
pub(crate) struct Clients {
    /// For [`Purpose::Requests`].
    pub(crate) requests: Arc<dyn ObjectStore>,
    /// For [`Purpose::Reads`].
    pub(crate) reads: Arc<dyn ObjectStore>,
    /// For [`Purpose::Uploads`].
    pub(crate) uploads: Box<dyn Uploads>,
    pub(crate) pages: Arc<dyn PaginatedListStore>,
    pub(crate) signer: Arc<dyn Signer>,
    /// How a key is given to `signer`.
    pub(crate) signed_path: fn(&str) -> String,
    /// Fetches what was signed.
    pub(crate) fetcher: HttpClient,
}

/// Makes objects.
#[async_trait]
pub(crate) trait Uploads: fmt::Debug + Send + Sync {
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult>;

    async fn put_multipart(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>>;
}

/// Makes objects with one client.
#[derive(Debug)]
pub(crate) struct Whole<T>(pub(crate) Arc<T>);

#[async_trait]
impl<T: ObjectStore> Uploads for Whole<T> {
    async fn put(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }
}

/// The part of a bucket below a prefix.
pub(crate) struct CloudPlace {
    clients: Arc<Clients>,
    objects: CloudObjects,
    /// Prefix of all keys: empty or ending in a slash.
    root: String,
    /// Time for one page of a listing.
    page_limit: Duration,
    clock: Clock,
    retries: Retries,
}

impl CloudPlace {
    pub(crate) fn new(
        clients: Clients,
        root: &str,
        page_limit: Duration,
        (clock, retries, tasks): (Clock, Retries, TaskGroup),
    ) -> CloudPlace {
        let (clients, root) = (Arc::new(clients), root.to_owned());
        let objects =
            CloudObjects { clients: clients.clone(), root: root.clone(), retries: retries.clone(), tasks };
        CloudPlace { clients, objects, root, page_limit, clock, retries }
    }
}

impl Place for CloudPlace {
    fn objects(&self) -> &dyn ObjectStore {
        &self.objects
    }

    fn locate(&self, key: &str) -> Result<Path, PlaceError> {
        let length = self.root.len() + key.len();
        if length > KEY_BYTES_MAX {
            return Err(PlaceError::Name(format!(
                "it is {length} bytes long (expected at most {KEY_BYTES_MAX})"
            )));
        }
        if key.is_empty() || key.starts_with('/') || key.ends_with('/') {
            return Err(PlaceError::Name("it has an empty element".to_owned()));
        }
        Path::parse(key).map_err(|error| PlaceError::Name(error.to_string()))
    }

    fn list_after(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxStream<'static, Result<Listed, PlaceError>> {
        let listing = Listing {
            clients: self.clients.clone(),
            prefix: format!("{}{prefix}", self.root),
            after: after.map(|after| format!("{}{after}", self.root)),
            root_bytes: self.root.len(),
            page_limit: self.page_limit,
            clock: self.clock.clone(),
            retries: self.retries.clone(),
        };
        let pages = stream::try_unfold(Some((listing, None)), |state| async move {
            let Some((listing, token)) = state else { return Ok::<_, PlaceError>(None) };
            let (page, next) = listing.page(token).await?;
            Ok(Some((page, next.map(|token| (listing, Some(token))))))
        });
        pages.map_ok(|page| stream::iter(page.into_iter().map(Ok))).try_flatten().boxed()
    }

    fn sign<'a>(&'a self, key: &'a str, ttl: Duration) -> BoxFuture<'a, Result<String, PlaceError>> {
        async move {
            let located = self.locate(key)?;
            let path = Path::parse((self.clients.signed_path)(&format!("{}{located}", self.root)))
                .map_err(|error| PlaceError::Name(error.to_string()))?;
            Ok(self.clients.signer.signed_url(Method::GET, &path, ttl).await?.to_string())
        }
        .boxed()
    }

    fn fetch<'a>(&'a self, url: &'a str, bytes_max: usize) -> BoxFuture<'a, Result<Fetched, String>> {
        async move {
            // Errors tell people what went wrong, and are not to tell them the signature.
            let secret = url.split_once('?').map_or("", |(_, query)| query);
            let text = |error: &dyn fmt::Display| {
                let text = error.to_string();
                if secret.is_empty() { text } else { text.replace(secret, "…") }
            };
            let request = http::Request::get(url).body(HttpRequestBody::empty()).map_err(|e| text(&e))?;
            let response = self.clients.fetcher.execute(request).await.map_err(|error| text(&error))?;
            let status = response.status().as_u16();
            let mut chunks = response.into_body().bytes_stream();
            let mut content = Ok(Vec::new());
            while let Ok(read) = &mut content
                && read.len() <= bytes_max
                && let Some(chunk) = chunks.next().await
            {
                match chunk {
                    Ok(chunk) => read.extend_from_slice(&chunk[..chunk.len().min(bytes_max + 1)]),
                    Err(error) => content = Err(text(&error)),
                }
            }
            Ok(Fetched { status, content })
        }
        .boxed()
    }

    fn attributes(&self, codec: Codec) -> Attributes {
        match codec {
            Codec::GzipOffload => Attributes::from_iter([(Attribute::ContentEncoding, "gzip")]),
            _ => Attributes::new(),
        }
    }

    fn part_bytes(&self) -> usize {
        PART_BYTES
    }

    fn retries_reads(&self) -> bool {
        true
    }
}

/// A listing on its way.
struct Listing {
    clients: Arc<Clients>,
    prefix: String,
    after: Option<String>,
    root_bytes: usize,
    page_limit: Duration,
    clock: Clock,
    retries: Retries,
}

impl Listing {
    /// One page, and the token of the next.
    async fn page(&self, token: Option<String>) -> Result<(Vec<Listed>, Option<String>), PlaceError> {
        let mut attempt = 0;
        let page = loop {
            let options = PaginatedListOptions {
                offset: self.after.clone(),
                page_token: token.clone(),
                ..PaginatedListOptions::default()
            };
            let page = self.clients.pages.list_paginated(Some(&self.prefix), options);
            let error = match self.clock.timeout(self.page_limit, page).await {
                Ok(Ok(page)) => break page,
                Ok(Err(error)) => PlaceError::from(error),
                Err(elapsed) => PlaceError::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)),
            };
            if !error.is_transient() || !self.retries.wait(attempt).await {
                return Err(error);
            }
            attempt += 1;
        };
        let objects = page.result.objects.into_iter().filter_map(|object| self.listed(object)).collect();
        Ok((objects, page.page_token))
    }

    /// The entry of `object`, if it is asked for. (Not every server begins after a key when it is told to.)
    fn listed(&self, object: ObjectMeta) -> Option<Listed> {
        let key = object.location.as_ref();
        let is_wanted =
            key.starts_with(&self.prefix) && self.after.as_ref().is_none_or(|after| *key > **after);
        // An empty object by which tools remember a directory: its key ended in a slash.
        let is_directory = object.size == 0 && !key.rsplit('/').next().unwrap_or_default().contains('-');
        let entry =
            || Listed { key: key[self.root_bytes..].to_owned(), mod_time: object.last_modified.timestamp() };
        (is_wanted && !is_directory).then(entry)
    }
}

/// The objects below the root.
#[derive(Clone)]
struct CloudObjects {
    clients: Arc<Clients>,
    root: String,
    retries: Retries,
    tasks: TaskGroup,
}

impl CloudObjects {
    fn full(&self, path: &Path) -> Result<Path> {
        Ok(Path::parse(format!("{}{path}", self.root))?)
    }

    fn not_here(&self, operation: &str) -> object_store::Error {
        object_store::Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() }
    }
}

impl fmt::Debug for CloudObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CloudObjects").field(&self.clients.requests).field(&self.root).finish()
    }
}

impl fmt::Display for CloudObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} below {:?}", self.clients.requests, self.root)
    }
}

#[async_trait]
impl ObjectStore for CloudObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.clients.uploads.put(&self.full(location)?, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let opts = opts.with_retry_policy(Arc::new(self.retries.clone()));
        let upload = self.clients.uploads.put_multipart(&self.full(location)?, opts).await?;
        Ok(Box::new(Guarded { upload: Some(upload), tasks: self.tasks.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let client = if options.head { &self.clients.requests } else { &self.clients.reads };
        client.get_opts(&self.full(location)?, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let locations = locations.map(move |location| this.full(&location?)).boxed();
        self.clients.requests.delete_stream(locations)
    }

    fn list(&self, _prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        // `Place::list_after` lists: prefixes of keys need not be directories.
        let error = self.not_here("list");
        stream::once(async move { Err(error) }).boxed()
    }

    async fn list_with_delimiter(&self, _prefix: Option<&Path>) -> Result<ListResult> {
        Err(self.not_here("list_with_delimiter"))
    }

    async fn copy_opts(&self, _from: &Path, _to: &Path, _options: CopyOptions) -> Result<()> {
        Err(self.not_here("copy"))
    }
}

/// An upload which is given up if it is dropped before it is complete: what was sent so far would be kept, and paid for,
/// by the store.
#[derive(Debug)]
struct Guarded {
    /// There until it is complete or given up.
    upload: Option<Box<dyn MultipartUpload>>,
    tasks: TaskGroup,
}

const OPEN: &str = "a part follows neither completion nor abortion";

#[async_trait]
impl MultipartUpload for Guarded {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.as_mut().expect(OPEN).put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.as_mut().expect(OPEN).complete().await?;
        self.upload = None;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        upload.abort().await
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        self.tasks.spawn("abort upload", OnError::Log, async move {
            upload.abort().await?;
            Ok(())
        });
    }
}
