//! The fragments that a replica knows of: those of its own spools, and those that its journal's stores hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fragment::Fragment;
use fragment::index::{Index, Local, RemoteSet};
use proto::JournalName;

use crate::spool::LocalFile;

/// Number of the uploads that a replica has heard of. A listing which began at an epoch shows every upload up to it.
pub(super) type Epoch = Arc<AtomicU64>;

/// The outcome of a listing of the journal's stores.
#[derive(Debug)]
pub(super) struct Listing {
    /// What the stores hold.
    pub(super) remote: RemoteSet,
    /// The epoch at which the listing began.
    pub(super) epoch: u64,
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

    /// Whether the stores were listed once.
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
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed) + 1;
        self.uploads.push((epoch, fragment.clone()));
        files(Arc::make_mut(&mut self.index).insert_remote(fragment))
    }

    /// Takes a listing in place of the last one. Returns the files which it makes superfluous.
    pub(super) fn on_listed(&mut self, listing: Listing) -> Vec<LocalFile> {
        self.first_listing_done = true;
        self.uploads.retain(|(epoch, _)| *epoch > listing.epoch);
        let index = Arc::make_mut(&mut self.index);
        let mut covered = files(index.replace_remote(listing.remote));
        for (_, upload) in &self.uploads {
            covered.extend(files(index.insert_remote(upload.clone())));
        }
        covered
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

    fn journal() -> JournalName {
        JournalName::parse("a/journal").unwrap()
    }

    fn local(begin: i64, end: i64) -> Fragment {
        Fragment { end, ..Fragment::empty(journal(), begin, Codec::None) }
    }

    fn stored(begin: i64, end: i64) -> Fragment {
        Fragment { mod_time: 9, backing_store: Some("file:///".into()), ..local(begin, end) }
    }

    fn listing(epoch: u64, fragments: &[(i64, i64)]) -> Listing {
        let mut remote = RemoteSetBuilder::default();
        fragments.iter().for_each(|(begin, end)| remote.push(stored(*begin, *end)));
        Listing { remote: remote.build(), epoch }
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
        assert!(fragments.on_listed(listing(0, &[])).is_empty());
        assert!(fragments.first_listing_done());

        assert_eq!(fragments.on_stored(stored(0, 10))[0].path(), dir.path().join("one"));
        assert!(fragments.on_listed(listing(0, &[])).is_empty(), "it may have begun before the upload");
        assert_eq!((fragments.index().begin(), fragments.index().end()), (0, 20));

        let released = fragments.on_listed(listing(1, &[(10, 20)]));
        assert_eq!(released[0].path(), dir.path().join("two"));
        assert_eq!(
            (fragments.index().begin(), fragments.index().end()),
            (10, 20),
            "the first was removed from the store"
        );
    }
}
