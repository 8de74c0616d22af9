//! Deletes the stored fragments of a log which are not needed. What is needed the caller says, by [`crate::prune`].

use std::collections::BTreeMap;

use fragment::Fragment;
use futures::StreamExt;
use proto::JournalName;
use stores::{Store, StoreError, Stores};

/// Fragments of a log which are deleted at once.
const DELETIONS_AT_ONCE: usize = 32;
/// Fragments which are deleted between two listings of a store, so that the memory which they take is bounded.
const DELETIONS_MAX: usize = 100_000;

/// What was found and deleted. A fragment which several stores hold counts for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Fragments found.
    pub listed: u64,
    /// Their content, in bytes.
    pub listed_bytes: u64,
    /// Fragments deleted; with [`Mode::DryRun`] those which would be.
    pub deleted: u64,
    /// Their content, in bytes.
    pub deleted_bytes: u64,
}

/// Whether to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deletes.
    Delete,
    /// Only counts.
    DryRun,
}

/// Deletes all fragments of `log`, in its stores at `urls`, of which `needs` is false; `each` is told of every one. Goes on
/// with the next store if one fails.
///
/// # Errors
/// What failed, beside what was done. To repeat does no harm.
pub async fn delete_unneeded(
    stores: &Stores,
    log: &JournalName,
    urls: &[String],
    mode: Mode,
    needs: impl Fn(&Fragment) -> bool,
    mut each: impl FnMut(&Fragment),
) -> (Deleted, Vec<StoreError>) {
    let (mut total, mut errors) = (Deleted::default(), Vec::new());
    for url in urls {
        let found = match stores.get(url) {
            Ok(store) => delete_of(&store, log, mode, &needs, &mut each, &mut errors).await,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        total.listed += found.listed;
        total.listed_bytes += found.listed_bytes;
        total.deleted += found.deleted;
        total.deleted_bytes += found.deleted_bytes;
    }
    (total, errors)
}

async fn delete_of(
    store: &Store,
    log: &JournalName,
    mode: Mode,
    needs: &impl Fn(&Fragment) -> bool,
    each: &mut impl FnMut(&Fragment),
    errors: &mut Vec<StoreError>,
) -> Deleted {
    let mut total = Deleted::default();
    loop {
        let (mut found, mut due) = (Deleted::default(), BTreeMap::new());
        let listed = store.list_each(log, |fragment| {
            found.listed += 1;
            found.listed_bytes += bytes_of(&fragment);
            if needs(&fragment) {
                return;
            }
            match mode {
                Mode::DryRun => {
                    found.deleted += 1;
                    found.deleted_bytes += bytes_of(&fragment);
                    each(&fragment);
                }
                Mode::Delete if due.len() < DELETIONS_MAX => {
                    due.insert((fragment.begin, fragment.content_path()), fragment);
                }
                Mode::Delete => {}
            }
        });
        if let Err(error) = listed.await {
            // Some are not known, but those that are can go.
            errors.push(error);
        }
        let is_last = due.len() < DELETIONS_MAX;
        if total.listed == 0 {
            (total.listed, total.listed_bytes) = (found.listed, found.listed_bytes);
        }
        total.deleted += found.deleted;
        total.deleted_bytes += found.deleted_bytes;
        let before = errors.len();
        let removals = futures::stream::iter(due.into_values())
            .map(|fragment| async move { (store.remove(&fragment).await, fragment) });
        let mut removals = removals.buffered(DELETIONS_AT_ONCE);
        while let Some((removed, fragment)) = removals.next().await {
            match removed {
                Ok(()) => {
                    total.deleted += 1;
                    total.deleted_bytes += bytes_of(&fragment);
                    each(&fragment);
                }
                Err(error) => {
                    // Those which follow would most likely fail as well.
                    errors.push(error);
                    break;
                }
            }
        }
        if is_last || errors.len() > before {
            return total;
        }
    }
}

fn bytes_of(fragment: &Fragment) -> u64 {
    u64::try_from(fragment.len()).unwrap_or(0)
}
