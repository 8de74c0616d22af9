//! Serving FragmentStoreHealth (journal protocol §9.4).
//!
//! Only stores which a journal names are contacted, and only where a journal's fragments may be is an object written and
//! deleted: a request must not make this broker open connections to, or write objects at, a place of the caller's choosing.

use proto::Canonical;
use proto::protocol::{
    FragmentStoreHealthRequest, FragmentStoreHealthResponse, Header, JournalSpec, LabelSelector, Status,
};
use stores::Stores;

use crate::key_space::KeySpace;

/// Answers a validated request. Only journals which `visible` selects count.
pub async fn serve(
    stores: &Stores,
    key_space: &KeySpace,
    visible: &LabelSelector,
    header: Header,
    request: &FragmentStoreHealthRequest,
) -> FragmentStoreHealthResponse {
    let (status, store_health_error) = match check(stores, key_space, visible, request).await {
        Ok(()) => (Status::Ok, String::new()),
        Err(problem) => (Status::FragmentStoreUnhealthy, problem),
    };
    FragmentStoreHealthResponse { status: status as i32, header: Some(header), store_health_error }
        .canonical()
}

async fn check(
    stores: &Stores,
    key_space: &KeySpace,
    visible: &LabelSelector,
    request: &FragmentStoreHealthRequest,
) -> Result<(), String> {
    let (url, prefix) = (&request.fragment_store, &request.check_delete_prefix);
    let mut journals = journals_of(key_space, visible, url).peekable();
    if journals.peek().is_none() {
        return Err(format!("fragment store {url} is not checked: no journal names it"));
    }
    if request.check_delete && !journals.any(|journal| may_be_probed(prefix, journal)) {
        return Err(format!(
            "delete-probe below {prefix:?} of fragment store {url} is not made: no journal of that store is there"
        ));
    }
    drop(journals);
    let store = stores.get(url).map_err(|e| e.to_string())?;
    store.checked_health().await.result()?;
    if request.check_delete {
        store.probe_delete(&request.check_delete_prefix).await?;
    }
    Ok(())
}

/// Names of the visible journals whose specifications name the store.
fn journals_of<'a>(
    key_space: &'a KeySpace,
    visible: &'a LabelSelector,
    url: &'a str,
) -> impl Iterator<Item = &'a str> {
    let names_it = move |spec: &JournalSpec| {
        spec.fragment().stores.iter().any(|store| store == url) && visible.matches(&spec.labels_with_name())
    };
    key_space.items().values().filter(move |item| names_it(&item.value)).map(|item| item.value.name.as_str())
}

/// Whether a probe below `prefix` is at the directory of `journal`, above it or below it.
fn may_be_probed(prefix: &str, journal: &str) -> bool {
    let directory = format!("{journal}/");
    directory.starts_with(prefix) || prefix.starts_with(&directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_where_journals_are() {
        for (prefix, expected) in [
            ("", true),
            ("a/", true),
            ("a/journal/", true),
            ("a/journal/date=1/", true),
            ("a/journal", true),
            ("b/", false),
            ("a/journals/", false),
            ("a/other/", false),
        ] {
            assert_eq!(may_be_probed(prefix, "a/journal"), expected, "{prefix}");
        }
    }
}
