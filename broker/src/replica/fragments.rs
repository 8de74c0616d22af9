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
    /// All fragments of all stores, where `listed` is the store that was listed from its beginning, if one was, at this epoch.
    All { remote: RemoteSet, listed: Option<(Arc<str>, u64)> },
    /// Fragments which are to be added.
    More(RemoteSet),
}

/// The index of a journal, as its owner changes it.
pub(super) struct Fragments {
    index: Arc<Index<LocalFile>>,
    first_listing_done: bool,
    /// Uploads that no listing can be relied upon to contain, by epoch.
    uploads: Vec<(u64, Fragment)>,
    epoch: Epoch,
}

impl Fragments {
    pub(super) fn new(journal: JournalName, epoch: Epoch) -> Fragments {
        let index = Arc::new(Index::new(journal));
        Fragments { index, first_listing_done: false, uploads: Vec::new(), epoch }
    }

    /// The index, to be published.
    pub(super) fn index(&self) -> &Arc<Index<LocalFile>> {
        &self.index
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
        self.uploads.push((self.epoch.next(), fragment.clone()));
        files(Arc::make_mut(&mut self.index).insert_remote(fragment))
    }

    /// Takes what a listing found. Returns the files which it makes superfluous.
    pub(super) fn on_listed(&mut self, found: Found, is_complete: bool) -> Vec<LocalFile> {
        self.first_listing_done |= is_complete;
        let index = Arc::make_mut(&mut self.index);
        match found {
            Found::More(more) => files(index.extend_remote(&more)),
            Found::All { remote, listed } => {
                if let Some((store, epoch)) = listed {
                    let is_shown = |upload: &Fragment| upload.backing_store.as_deref() == Some(&*store);
                    self.uploads.retain(|(number, upload)| *number > epoch || !is_shown(upload));
                }
                let mut covered = files(index.replace_remote(remote));
                for (_, upload) in &self.uploads {
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
        Found::All { remote: remote(fragments), listed: Some((store.into(), epoch)) }
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

        let released = fragments.on_listed(all(STORE, 1, &[(10, 20)]), true);
        assert_eq!(released[0].path(), dir.path().join("two"));
        assert_eq!(span(&fragments), (10, 20), "the first was removed from the store");
        assert!(fragments.on_listed(Found::More(remote(&[(20, 30)])), true).is_empty());
        assert_eq!(span(&fragments), (10, 30));
    }
}
