//! Serving FragmentStoreHealth (journal protocol §9.4).
//!
//! Only stores which a journal names are contacted: a request must not make this broker open connections to, or write
//! objects at, a place of the caller's choosing.

use proto::Canonical;
use proto::protocol::{FragmentStoreHealthRequest, FragmentStoreHealthResponse, Header, Status};
use stores::Stores;

use crate::key_space::KeySpace;

/// Answers a validated request.
pub async fn serve(
    stores: &Stores,
    key_space: &KeySpace,
    header: Header,
    request: &FragmentStoreHealthRequest,
) -> FragmentStoreHealthResponse {
    let (status, store_health_error) = match check(stores, key_space, request).await {
        Ok(()) => (Status::Ok, String::new()),
        Err(problem) => (Status::FragmentStoreUnhealthy, problem),
    };
    FragmentStoreHealthResponse { status: status as i32, header: Some(header), store_health_error }
        .canonical()
}

async fn check(
    stores: &Stores,
    key_space: &KeySpace,
    request: &FragmentStoreHealthRequest,
) -> Result<(), String> {
    let url = &request.fragment_store;
    if !is_named(key_space, url) {
        return Err(format!("fragment store {url} is not checked: no journal names it"));
    }
    let store = stores.get(url).map_err(|e| e.to_string())?;
    store.checked_health().await.result()?;
    if request.check_delete {
        store.probe_delete(&request.check_delete_prefix).await?;
    }
    Ok(())
}

fn is_named(key_space: &KeySpace, url: &str) -> bool {
    key_space.items().values().any(|item| item.value.fragment().stores.iter().any(|store| store == url))
}
