//! The fragments that a replica knows of: those of its own spools, and those that its journal's stores hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fragment::Fragment;
use fragment::index::{Index, Local, RemoteSet};
use proto::JournalName;
use tokio::sync::oneshot;

use crate::spool::LocalFile;

/// Number of the uploads that a replica has heard of. A listing which began at an epoch shows every upload up to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epoch(Arc<AtomicU64>);

impl Epoch {
    /// The epoch of a listing that begins now.
    pub(crate) fn current(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The epoch of one more upload.
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The outcome of a listing of one of the journal's stores.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) found: Found,
    /// Every store of the journal was listed since the replica started.
    pub(super) is_complete: bool,
    /// Told once the outcome is published.
    pub(super) applied: oneshot::Sender<()>,
}

/// What a listing found.
#[derive(Debug)]
pub(super) enum Found {
    /// All fragments of all stores, and which of them was listed from its beginning, if one was.
    All { remote: RemoteSet, listed: Option<StoreListed> },
    /// Fragments which are to be added.
    More(RemoteSet),
}

/// A store that was listed from its beginning.
#[derive(Debug)]
pub(super) struct StoreListed {
    pub(super) store: Arc<str>,
    /// The epoch at which the listing began.
    pub(super) epoch: u64,
    /// Uploads up to that epoch which are in the store although the listing did not show them.
    pub(super) missed: Vec<Fragment>,
}

/// Uploads that no listing can be relied upon to contain, by epoch. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploads(Arc<Vec<(u64, Fragment)>>);

impl Uploads {
    /// Those which a listing of `store` that began at `epoch` should show.
    pub(super) fn due<'a>(&'a self, store: &'a str, epoch: u64) -> impl Iterator<Item = &'a Fragment> {
        let is_due = move |(number, upload): &&(u64, Fragment)| {
            *number <= epoch && upload.backing_store.as_deref() == Some(store)
        };
        self.0.iter().filter(is_due).map(|(_, upload)| upload)
    }

    pub(super) fn contain(&self, fragment: &Fragment) -> bool {
        self.0.iter().any(|(_, upload)| (upload.begin, upload.end) == (fragment.begin, fragment.end))
    }

    fn push(&mut self, epoch: u64, upload: Fragment) {
        Arc::make_mut(&mut self.0).push((epoch, upload));
    }

    /// Forgets those which the listing has shown, or which are no longer there.
    fn on_listed(&mut self, listed: &StoreListed) {
        let is_settled = |(number, upload): &(u64, Fragment)| {
            *number <= listed.epoch
                && upload.backing_store.as_deref() == Some(&*listed.store)
                && !listed.missed.contains(upload)
        };
        if self.0.iter().any(is_settled) {
            Arc::make_mut(&mut self.0).retain(|upload| !is_settled(upload));
        }
    }
}

/// The index of a journal, as its owner changes it.
pub(super) struct Fragments {
    index: Arc<Index<LocalFile>>,
    first_listing_done: bool,
    uploads: Uploads,
    epoch: Epoch,
}

impl Fragments {
    pub(super) fn new(journal: JournalName, epoch: Epoch) -> Fragments {
        let index = Arc::new(Index::new(journal));
        Fragments { index, first_listing_done: false, uploads: Uploads::default(), epoch }
    }

    /// The index, to be published.
    pub(super) fn index(&self) -> &Arc<Index<LocalFile>> {
        &self.index
    }

    /// The uploads which a listing may lack, to be published.
    pub(super) fn uploads(&self) -> &Uploads {
        &self.uploads
    }

    /// Whether every store was listed once.
    pub(super) fn first_listing_done(&self) -> bool {
        self.first_listing_done
    }

    /// Adds a committed fragment of a spool.
    pub(super) fn insert_local(&mut self, fragment: Fragment, file: LocalFile) {
        // What is stored already, or a smaller self of this fragment, need not be kept.
        drop(Arc::make_mut(&mut self.index).insert_local(fragment, file));
    }

    /// Adds an uploaded fragment. Returns the files which it makes superfluous.
    pub(super) fn on_stored(&mut self, fragment: Fragment) -> Vec<LocalFile> {
        self.uploads.push(self.epoch.next(), fragment.clone());
        files(Arc::make_mut(&mut self.index).insert_remote(fragment))
    }

    /// Takes what a listing found. Returns the files which it makes superfluous.
    pub(super) fn on_listed(&mut self, found: Found, is_complete: bool) -> Vec<LocalFile> {
        self.first_listing_done |= is_complete;
        let index = Arc::make_mut(&mut self.index);
        match found {
            Found::More(more) => files(index.extend_remote(&more)),
            Found::All { remote, listed } => {
                if let Some(listed) = listed {
                    self.uploads.on_listed(&listed);
                }
                let mut covered = files(index.replace_remote(remote));
                for (_, upload) in self.uploads.0.iter() {
                    covered.extend(files(index.insert_remote(upload.clone())));
                }
                covered
            }
        }
    }
}

fn files(locals: Vec<Arc<Local<LocalFile>>>) -> Vec<LocalFile> {
    locals.iter().map(|local| local.file.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use fragment::Codec;
    use fragment::index::RemoteSetBuilder;

    use super::*;
    use crate::spool::{OsDisk, SpoolDisk};

    const STORE: &str = "file:///";

    fn journal() -> JournalName {
        JournalName::parse("a/journal").unwrap()
    }

    fn local(begin: i64, end: i64) -> Fragment {
        Fragment { end, ..Fragment::empty(journal(), begin, Codec::None) }
    }

    fn stored(begin: i64, end: i64) -> Fragment {
        Fragment { mod_time: 9, backing_store: Some(STORE.into()), ..local(begin, end) }
    }

    fn remote(fragments: &[(i64, i64)]) -> RemoteSet {
        let mut remote = RemoteSetBuilder::default();
        fragments.iter().for_each(|(begin, end)| remote.push(stored(*begin, *end)));
        remote.build()
    }

    fn all(store: &str, epoch: u64, fragments: &[(i64, i64)]) -> Found {
        let listed = StoreListed { store: store.into(), epoch, missed: Vec::new() };
        Found::All { remote: remote(fragments), listed: Some(listed) }
    }

    #[test]
    fn an_upload_outlives_a_listing_that_began_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path: PathBuf = dir.path().join(name);
            LocalFile::new(OsDisk.create(&path).unwrap(), path, 0)
        };
        let mut fragments = Fragments::new(journal(), Epoch::default());
        fragments.insert_local(local(0, 10), file("one"));
        fragments.insert_local(local(10, 20), file("two"));
        assert!(!fragments.first_listing_done());
        assert!(fragments.on_listed(all(STORE, 0, &[]), false).is_empty());
        assert!(!fragments.first_listing_done(), "another store is still to be listed");
        assert!(fragments.on_listed(all(STORE, 0, &[]), true).is_empty());
        assert!(fragments.first_listing_done());

        assert_eq!(fragments.on_stored(stored(0, 10))[0].path(), dir.path().join("one"));
        let span = |fragments: &Fragments| (fragments.index().begin(), fragments.index().end());
        assert!(
            fragments.on_listed(all(STORE, 0, &[]), true).is_empty(),
            "it may have begun before the upload"
        );
        assert!(
            fragments.on_listed(all("file:///other/", 1, &[]), true).is_empty(),
            "it is of another store"
        );
        assert_eq!(span(&fragments), (0, 20));

        let due = |fragments: &Fragments, store, epoch| fragments.uploads().due(store, epoch).count();
        assert_eq!((due(&fragments, STORE, 0), due(&fragments, STORE, 1)), (0, 1));
        assert_eq!(due(&fragments, "file:///other/", 1), 0);
        let missed = vec![stored(0, 10)];
        let listed = StoreListed { store: STORE.into(), epoch: 1, missed };
        let late = Found::All { remote: remote(&[]), listed: Some(listed) };
        assert!(fragments.on_listed(late, true).is_empty(), "it is there, though it was not listed");
        assert_eq!((span(&fragments), due(&fragments, STORE, 1)), ((0, 20), 1));

        let released = fragments.on_listed(all(STORE, 1, &[(10, 20)]), true);
        assert_eq!(released[0].path(), dir.path().join("two"));
        assert_eq!(span(&fragments), (10, 20), "the first was removed from the store");
        assert!(fragments.on_listed(Found::More(remote(&[(20, 30)])), true).is_empty());
        assert_eq!(span(&fragments), (10, 30));
    }
}
