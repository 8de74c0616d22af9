//! Stored fragments: their content, and URLs by which clients fetch it themselves.

use std::time::Duration;

use fragment::Fragment;
use stores::{ContentStream, Store, StoreError, Stores};

use crate::error::ServiceError;

/// How long the URL in a read's response is good for.
const READ_URL_TTL: Duration = Duration::from_secs(60);

/// The URL of a read's response: empty for a local fragment.
///
/// # Errors
/// If the store cannot sign it.
pub async fn read_url(stores: &Stores, fragment: &Fragment) -> Result<String, ServiceError> {
    if fragment.mod_time == 0 {
        return Ok(String::new());
    }
    signed_url(stores, fragment, READ_URL_TTL).await
}

/// A URL of the fragment's object which is good for `ttl`; empty if it is not stored.
///
/// # Errors
/// If the store cannot sign it.
pub async fn signed_url(stores: &Stores, fragment: &Fragment, ttl: Duration) -> Result<String, ServiceError> {
    let Some(store) = store_of(stores, fragment)? else { return Ok(String::new()) };
    store.signed_url(fragment, ttl).await.map_err(|source| ServiceError::Content {
        action: format!("sign URL of {}", fragment.content_path()),
        source: source.into(),
    })
}

/// The decompressed content of a stored fragment from journal offset `offset` on.
///
/// # Errors
/// If the object cannot be opened.
pub async fn content(stores: &Stores, fragment: &Fragment, offset: i64) -> Result<ContentStream, StoreError> {
    let url = fragment.backing_store.as_deref().expect("a fragment which is not local is stored");
    stores.get(url)?.open(fragment, offset).await
}

fn store_of(stores: &Stores, fragment: &Fragment) -> Result<Option<Store>, ServiceError> {
    let Some(url) = fragment.backing_store.as_deref() else { return Ok(None) };
    let store = stores.get(url).map_err(|source| ServiceError::Content {
        action: format!("open store {url}"),
        source: source.into(),
    })?;
    Ok(Some(store))
}
