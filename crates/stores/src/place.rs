//! The seam between a store and where its objects are: an `object_store` implementation and what that trait leaves out.

use std::time::Duration;

use fragment::Codec;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{Attributes, ObjectStore};

use crate::error::PlaceError;

/// An object found by listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its key, relative to the store's root.
    pub(crate) key: String,
    /// Unix seconds of its last modification.
    pub(crate) mod_time: i64,
}

/// What came from a signed URL.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// Status of the HTTP response.
    pub(crate) status: u16,
    /// Its body, or why it could not be read.
    pub(crate) content: Result<Vec<u8>, String>,
}

/// Where a store's objects are. Keys are relative to the store's root and already rewritten.
pub(crate) trait Place: Send + Sync {
    /// The operations on single objects. A `put` is atomic and, once it returns, durable.
    fn objects(&self) -> &dyn ObjectStore;

    /// The path of `key`, if it is one that can be used without leaving the root. May block.
    fn locate(&self, key: &str) -> Result<Path, PlaceError>;

    /// Every object whose key starts with `prefix`, without those whose upload is not complete: in no order that can be
    /// relied upon, though stores which keep one use it.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, PlaceError>> {
        self.list_after(prefix, None)
    }

    /// [`Place::list`] of the objects whose keys are greater than `after`, byte by byte. It is a whole key, which need
    /// not exist.
    fn list_after(&self, prefix: &str, after: Option<&str>)
    -> BoxStream<'static, Result<Listed, PlaceError>>;

    /// A URL from which others can read `key` for as long as `ttl`.
    fn sign<'a>(&'a self, key: &'a str, ttl: Duration) -> BoxFuture<'a, Result<String, PlaceError>>;

    /// Fetches a URL which [`Place::sign`] made and which begins with `http`, without any credentials; a little more than
    /// `bytes_max` of it suffices. Errors are texts which do not show the signature.
    fn fetch<'a>(&'a self, url: &'a str, _bytes_max: usize) -> BoxFuture<'a, Result<Fetched, String>> {
        async move { Err(format!("{url} is not fetched by HTTP")) }.boxed()
    }

    /// What is noted beside an object of `codec`.
    fn attributes(&self, _codec: Codec) -> Attributes {
        Attributes::new()
    }

    /// Whether reads which fail were already tried again when they return.
    fn retries_reads(&self) -> bool {
        false
    }

    /// Bytes of each part in which large objects are uploaded.
    fn part_bytes(&self) -> usize;
}
