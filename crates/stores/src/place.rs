//! The seam between a store and where its objects are: an `object_store` implementation and what that trait leaves out.

use std::time::Duration;

use futures::stream::BoxStream;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::error::PlaceError;

/// An object found by listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Its key, relative to the store's root.
    pub(crate) key: String,
    /// Unix seconds of its last modification.
    pub(crate) mod_time: i64,
}

/// Where a store's objects are. Keys are relative to the store's root and already rewritten.
pub(crate) trait Place: Send + Sync {
    /// The operations on single objects. A `put` is atomic and, once it returns, durable.
    fn objects(&self) -> &dyn ObjectStore;

    /// The path of `key`, if it is one that can be used without leaving the root. May block.
    fn locate(&self, key: &str) -> Result<Path, PlaceError>;

    /// Every object whose key starts with `prefix`, in no particular order, without those whose upload is not complete.
    fn list(&self, prefix: &str) -> BoxStream<'static, Result<Listed, PlaceError>>;

    /// A URL from which others can read `key` for as long as `ttl`.
    fn sign(&self, key: &str, ttl: Duration) -> Result<String, PlaceError>;

    /// Bytes of each part in which large objects are uploaded.
    fn part_bytes(&self) -> usize;
}
