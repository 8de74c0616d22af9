//! What a replica publishes.

use std::sync::Arc;

use fragment::Fragment;
use fragment::index::{Answer, Index, Query};
use fragment::spool::Spool;
use proto::Revision;
use proto::protocol::{LabelSet, Route};

use super::fragments::Uploads;
use crate::append::Known;
use crate::spool::LocalFile;

/// The state of a replica as its readers and appenders see it. Published after every settled group, so that what it shows
/// is what all replicas have committed. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IndexView {
    /// The fragments of the journal.
    pub index: Arc<Index<LocalFile>>,
    /// Whether the journal's stores were listed since the replica started: until then stored fragments may be missing.
    pub first_listing_done: bool,
    /// What was uploaded and may be missing in the next listing.
    pub(super) uploads: Uploads,
    /// Whether the replica knows the journal's end even so: it has adopted spools that hold everything acknowledged.
    pub(crate) is_end_known: bool,
    /// The state that appends are judged against before they are read; `None` until the replicas agreed once.
    pub(crate) head: Option<Head>,
}

/// The end of a journal.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// First offset of the spool's fragment.
    pub(crate) begin: i64,
    /// Offset at which the next append begins.
    pub(crate) end: i64,
    /// The journal's registers.
    pub(crate) registers: Arc<LabelSet>,
    /// The route that the pipeline is synchronised over, if there is a pipeline.
    pub(crate) route: Option<Arc<Route>>,
    /// Revision of the route over which the replicas agreed.
    pub(crate) synced_at: Revision,
}

impl Head {
    pub(crate) fn of(spool: &Spool, route: Option<Arc<Route>>, synced_at: Revision) -> Head {
        let fragment = spool.fragment();
        let registers = Arc::new(spool.registers().clone());
        Head { begin: fragment.begin, end: fragment.end, registers, route, synced_at }
    }
}

impl IndexView {
    /// That of a replica which has just started.
    pub(super) fn of(index: Arc<Index<LocalFile>>) -> IndexView {
        IndexView {
            index,
            first_listing_done: false,
            uploads: Uploads::default(),
            is_end_known: false,
            head: None,
        }
    }

    /// Whether this replica has uploaded the fragment, and no listing has shown it since.
    pub(crate) fn is_unlisted(&self, fragment: &Fragment) -> bool {
        self.uploads.contain(fragment)
    }

    /// The span of the fragments, for judging an append.
    pub(crate) fn known(&self) -> Known {
        known(&self.index)
    }
}

/// The span of the fragments of `index`.
pub(super) fn known(index: &Index<LocalFile>) -> Known {
    let (begin, end) = (index.begin(), index.end());
    let last =
        Query { offset: end.saturating_sub(1).max(0), begin_mod_time: 0, now_unix: 0, jump_age_seconds: 0 };
    let last_mod_time = match index.query(&last) {
        Answer::Found(found) => found.entry.fragment.mod_time,
        Answer::NotYet(_) => 0,
    };
    Known { begin, end, last_mod_time }
}
