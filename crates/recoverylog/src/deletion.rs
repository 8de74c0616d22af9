//! Deletes the stored fragments of a log which are not needed. What is needed the caller says, by [`crate::prune`].

use std::collections::BTreeMap;

use fragment::Fragment;
use futures::StreamExt;
use proto::JournalName;
use stores::{StoreError, Stores};

/// Fragments of a log which are deleted at once.
const DELETIONS_AT_ONCE: usize = 32;
/// Fragments which are deleted between two listings, so that the memory which they take is bounded. A dry run looks no
/// further.
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

impl std::ops::AddAssign for Deleted {
    fn add_assign(&mut self, other: Deleted) {
        self.listed += other.listed;
        self.listed_bytes += other.listed_bytes;
        self.deleted += other.deleted;
        self.deleted_bytes += other.deleted_bytes;
    }
}

/// Whether to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Deletes.
    Delete,
    /// Only counts.
    DryRun,
}

/// Deletes the fragments of `log`, in its stores at `urls`, of which `needs` is false, from the beginning on; `each` is told
/// of every one. The last fragment of the log stays, needed or not: it tells where the log ends, should all brokers have
/// lost their disks. Goes on with the other stores if one fails.
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
    loop {
        let pass = Pass::list(stores, log, urls, &needs, &mut errors).await;
        if total.listed == 0 {
            (total.listed, total.listed_bytes) = (pass.listed, pass.listed_bytes);
        }
        let is_last = pass.due.len() < DELETIONS_MAX || mode == Mode::DryRun;
        let before = errors.len();
        let removals = futures::stream::iter(pass.into_due()).map(|fragment| async move {
            let url = fragment.backing_store.as_deref().unwrap_or_default();
            let removed = match mode {
                Mode::DryRun => Ok(()),
                Mode::Delete => match stores.get(url) {
                    Ok(store) => store.remove(&fragment).await,
                    Err(error) => Err(error),
                },
            };
            (removed, fragment)
        });
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
            return (total, errors);
        }
    }
}

/// What a listing of all stores found.
#[derive(Default)]
struct Pass {
    listed: u64,
    listed_bytes: u64,
    /// End of the last fragment, in bytes.
    end: i64,
    /// In the order in which they are deleted: by begin, then by name and store.
    due: BTreeMap<(i64, String, String), Fragment>,
}

impl Pass {
    async fn list(
        stores: &Stores,
        log: &JournalName,
        urls: &[String],
        needs: &impl Fn(&Fragment) -> bool,
        errors: &mut Vec<StoreError>,
    ) -> Pass {
        let mut pass = Pass::default();
        for url in urls {
            let listed = match stores.get(url) {
                Ok(store) => store.list_each(log, |fragment| pass.add(fragment, url, needs)).await,
                Err(error) => Err(error),
            };
            // Some are not known then, but those which are can go.
            errors.extend(listed.err());
        }
        pass
    }

    fn add(&mut self, fragment: Fragment, url: &str, needs: &impl Fn(&Fragment) -> bool) {
        self.listed += 1;
        self.listed_bytes += bytes_of(&fragment);
        self.end = self.end.max(fragment.end);
        if self.due.len() < DELETIONS_MAX && !needs(&fragment) {
            self.due.insert((fragment.begin, fragment.content_path(), url.to_owned()), fragment);
        }
    }

    fn into_due(self) -> impl Iterator<Item = Fragment> {
        let end = self.end;
        self.due.into_values().filter(move |fragment| fragment.end < end)
    }
}

fn bytes_of(fragment: &Fragment) -> u64 {
    u64::try_from(fragment.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
