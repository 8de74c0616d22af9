//! The fragments of one journal, and which of them answers a read.
//!
//! An [`Index`] is the union of the *remote* fragments found by the latest listing of the journal's stores and of the
//! *local* fragments of this broker's spools, as far as the remote ones do not cover them, alone or jointly (journal
//! protocol §10.2). Questions see the one cover set which both make up: what lies within a single other fragment is
//! hidden. Cloning an index is cheap (remote fragments are shared), so that its owner can publish a snapshot after every
//! commit and readers never wait.
//!
//! A journal may have a million stored fragments. A [`RemoteSet`] therefore keeps 44 bytes of each, and shares store
//! URLs and path postfixes; a [`Fragment`] is put together when it is asked for. Snapshots share what has not changed.
//!
//! Pure: no I/O, no clock. The time is an argument of [`Index::query`], whose answer says when time alone would change it.

mod remote;

use std::sync::Arc;

use proto::JournalName;

use crate::{CoverSet, Fragment, Insertion, Span};

use remote::Stored;
pub use remote::{RemoteSet, RemoteSetBuilder};

/// Unless it is configured otherwise, a read jumps over a hole in the middle of the index once the fragment after it is
/// older than this, in seconds.
pub const OFFSET_JUMP_AGE_SECONDS: i64 = 6 * 60 * 60;

/// A fragment of a local spool, with the file `L` it can be read from.
#[derive(Clone, Debug)]
pub struct Local<L> {
    /// Its description. Modification time zero, no backing store.
    pub fragment: Fragment,
    /// Its content.
    pub file: L,
}

impl<L> Span for Local<L> {
    fn begin(&self) -> i64 {
        self.fragment.begin
    }

    fn end(&self) -> i64 {
        self.fragment.end
    }
}

/// A fragment of the index, and its file if it is local.
#[derive(Clone, Debug)]
pub struct Entry<L> {
    /// Its description.
    pub fragment: Fragment,
    /// Its content, of a local fragment.
    pub file: Option<L>,
}

/// A question to [`Index::query`].
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Offset to read from. Negative: the end of the index.
    pub offset: i64,
    /// Skip stored fragments which were modified before this Unix time, in seconds. Zero skips none.
    pub begin_mod_time: i64,
    /// The present Unix time, in seconds.
    pub now_unix: i64,
    /// A hole is jumped over once the stored fragment after it is older than this, in seconds. By the protocol
    /// [`OFFSET_JUMP_AGE_SECONDS`].
    pub jump_age_seconds: i64,
}

/// An answer of [`Index::query`].
#[derive(Clone, Debug)]
pub enum Answer<L> {
    /// A fragment covers the offset.
    Found(Found<L>),
    /// None does. Ask again when the index changes.
    NotYet(NotYet),
}

/// The fragment which answers a read.
#[derive(Clone, Debug)]
pub struct Found<L> {
    /// Of the fragments which cover the offset, the one which reaches furthest.
    pub entry: Entry<L>,
    /// The offset asked for, or one further on where content is missing or skipped.
    pub offset: i64,
    /// End of the index.
    pub write_head: i64,
}

/// Where a read has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYet {
    /// The offset asked for, or one further on where content was skipped.
    pub offset: i64,
    /// End of the index.
    pub write_head: i64,
    /// Unix time, in seconds, at which the answer changes even if the index does not: a hole becomes old enough to be
    /// jumped over.
    pub retry_at_unix: Option<i64>,
}

/// The fragments of one journal. See the module's documentation.
#[derive(Debug)]
pub struct Index<L> {
    journal: JournalName,
    remote: RemoteSet,
    local: CoverSet<Arc<Local<L>>>,
}

impl<L> Clone for Index<L> {
    fn clone(&self) -> Index<L> {
        Index { journal: self.journal.clone(), remote: self.remote.clone(), local: self.local.clone() }
    }
}

/// A fragment of either set, before it is put together.
#[derive(Debug)]
enum View<'a, L> {
    Local(&'a Arc<Local<L>>),
    Remote(&'a Stored),
}

impl<L> Clone for View<'_, L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L> Copy for View<'_, L> {}

impl<L> View<'_, L> {
    fn mod_time(&self) -> i64 {
        match self {
            View::Local(_) => 0,
            View::Remote(stored) => stored.mod_time(),
        }
    }
}

impl<L> Span for View<'_, L> {
    fn begin(&self) -> i64 {
        match self {
            View::Local(local) => local.begin(),
            View::Remote(stored) => stored.begin(),
        }
    }

    fn end(&self) -> i64 {
        match self {
            View::Local(local) => local.end(),
            View::Remote(stored) => stored.end(),
        }
    }
}

impl<L: Clone> Index<L> {
    /// An index of `journal` without fragments.
    pub fn new(journal: JournalName) -> Index<L> {
        Index { journal, remote: RemoteSet::default(), local: CoverSet::default() }
    }

    /// The journal of all fragments.
    pub fn journal(&self) -> &JournalName {
        &self.journal
    }

    /// Adds a fragment of a local spool. It is ignored if it is empty, stored already, or within a local fragment.
    pub fn insert_local(&mut self, fragment: Fragment, file: L) -> Insertion<Arc<Local<L>>> {
        assert_eq!(fragment.journal, self.journal, "a fragment belongs to the index of its own journal");
        let local = Arc::new(Local { fragment, file });
        if self.remote.covers(local.begin(), local.end()) {
            return Insertion::Ignored(local);
        }
        self.local.insert(local)
    }

    /// Takes the outcome of a new listing in place of the last one. Returns the local fragments which it covers: they
    /// have left the index, and their files are free once their last reader is done.
    #[must_use = "the files of covered fragments are to be released"]
    pub fn replace_remote(&mut self, remote: RemoteSet) -> Vec<Arc<Local<L>>> {
        self.remote = remote;
        self.extract_covered()
    }

    /// Adds one fragment which was just stored, ahead of the next listing. Returns the local fragments now covered, as
    /// [`Index::replace_remote`] does.
    #[must_use = "the files of covered fragments are to be released"]
    pub fn insert_remote(&mut self, fragment: Fragment) -> Vec<Arc<Local<L>>> {
        assert_eq!(fragment.journal, self.journal, "a fragment belongs to the index of its own journal");
        self.remote.insert(fragment);
        self.extract_covered()
    }

    /// Adds what a listing found which did not look at everything. Returns the local fragments now covered, as
    /// [`Index::replace_remote`] does.
    #[must_use = "the files of covered fragments are to be released"]
    pub fn extend_remote(&mut self, found: &RemoteSet) -> Vec<Arc<Local<L>>> {
        found.fragments(&self.journal).for_each(|fragment| self.remote.insert(fragment));
        self.extract_covered()
    }

    /// Lowest offset of any fragment; zero if there are none.
    pub fn begin(&self) -> i64 {
        match (self.remote.spans.first(), self.local.first()) {
            (Some(remote), Some(local)) => remote.begin().min(local.begin()),
            (Some(remote), None) => remote.begin(),
            (None, Some(local)) => local.begin(),
            (None, None) => 0,
        }
    }

    /// Highest end of any fragment, which is the write head as far as this index knows; zero if there are none.
    pub fn end(&self) -> i64 {
        self.remote.end().max(self.local.end())
    }

    /// Whether there are no fragments.
    pub fn is_empty(&self) -> bool {
        self.remote.is_empty() && self.local.is_empty()
    }

    /// The local fragments, ascending.
    pub fn locals(&self) -> impl Iterator<Item = &Arc<Local<L>>> {
        self.local.iter()
    }

    /// The stored fragments of the latest listing.
    pub fn remote(&self) -> &RemoteSet {
        &self.remote
    }

    /// Answers a read (journal protocol §8.3): the covering fragment which reaches furthest. Offsets before the first
    /// stored fragment, and those in a hole before a stored fragment older than `jump_age_seconds`, are jumped over, as are stored fragments modified before `begin_mod_time`.
    pub fn query(&self, query: &Query) -> Answer<L> {
        let write_head = self.end();
        let mut offset = if query.offset < 0 { write_head } else { query.offset };
        loop {
            let view = match self.covering(offset).map_or_else(|| self.beyond_hole(offset, query), Ok) {
                Ok(view) => view,
                Err(retry_at_unix) => return Answer::NotYet(NotYet { offset, write_head, retry_at_unix }),
            };
            if view.mod_time() != 0 && view.mod_time() < query.begin_mod_time {
                offset = view.end();
                continue;
            }
            let offset = offset.max(view.begin());
            return Answer::Found(Found { entry: self.entry(view), offset, write_head });
        }
    }

    /// Every fragment of either set which covers `offset`, those which reach furthest first: what a read may turn to if
    /// one of them cannot be read.
    pub fn all_covering(&self, offset: i64) -> Vec<Entry<L>> {
        let local = self.local.covering(offset).map(View::Local);
        let remote = self.remote.spans.covering(offset).map(View::Remote);
        let mut views: Vec<View<'_, L>> = local.chain(remote).collect();
        views.sort_by_key(|view| std::cmp::Reverse(view.end()));
        views.into_iter().map(|view| self.entry(view)).collect()
    }

    /// The fragments of the cover set which begin at or after `begin`, ascending.
    pub fn entries_from(&self, begin: i64) -> impl Iterator<Item = Entry<L>> + '_ {
        let mut remote = self.remote.spans.iter_from(begin).peekable();
        let mut local = self.local.iter_from(begin).peekable();
        let before = |end: Option<i64>| end.unwrap_or(i64::MIN);
        let mut covered_to = begin.checked_sub(1).map_or(i64::MIN, |before_begin| {
            let remote = self.remote.spans.last_at(before_begin).map(Span::end);
            before(remote).max(before(self.local.last_at(before_begin).map(Span::end)))
        });
        std::iter::from_fn(move || {
            loop {
                let view = first_of(
                    local.peek().copied().map(View::Local),
                    remote.peek().copied().map(View::Remote),
                )?;
                match view {
                    View::Local(_) => drop(local.next()),
                    View::Remote(_) => drop(remote.next()),
                }
                if view.end() > covered_to {
                    covered_to = view.end();
                    return Some(self.entry(view));
                }
            }
        })
    }

    fn extract_covered(&mut self) -> Vec<Arc<Local<L>>> {
        let remote = &self.remote;
        self.local.extract(|local| remote.covers(local.begin(), local.end()))
    }

    /// Of the fragments covering `offset`, the one which reaches furthest.
    fn covering(&self, offset: i64) -> Option<View<'_, L>> {
        let local = self.local.last_at(offset).map(View::Local);
        let remote = self.remote.spans.last_at(offset).map(View::Remote);
        let further = match (local, remote) {
            (Some(local), Some(remote)) => {
                // Of those which reach equally far, the one which begins first contains the other.
                let key = |view: View<'_, L>| (view.end(), std::cmp::Reverse(view.begin()));
                Some(if key(local) >= key(remote) { local } else { remote })
            }
            (local, remote) => local.or(remote),
        };
        further.filter(|view| view.end() > offset)
    }

    /// The fragment after the hole at `offset`, if a read may jump there; otherwise the time at which it may.
    fn beyond_hole(&self, offset: i64, query: &Query) -> Result<View<'_, L>, Option<i64>> {
        let local = self.local.first_after(offset).map(View::Local);
        let remote = self.remote.spans.first_after(offset).map(View::Remote);
        let next = first_of(local, remote).filter(|view| view.mod_time() != 0).ok_or(None)?;
        let old_enough = next.mod_time().saturating_add(query.jump_age_seconds).saturating_add(1);
        if next.begin() == self.begin() || query.now_unix >= old_enough {
            Ok(next)
        } else {
            Err(Some(old_enough))
        }
    }

    fn entry(&self, view: View<'_, L>) -> Entry<L> {
        match view {
            View::Local(local) => Entry { fragment: local.fragment.clone(), file: Some(local.file.clone()) },
            View::Remote(stored) => {
                Entry { fragment: self.remote.fragment(&self.journal, stored), file: None }
            }
        }
    }
}

/// The one which begins first; of those which begin together the larger, which contains the other; then the local one.
fn first_of<'a, L>(local: Option<View<'a, L>>, remote: Option<View<'a, L>>) -> Option<View<'a, L>> {
    match (local, remote) {
        (Some(local), Some(remote)) => {
            let key = |view: View<'_, L>| (view.begin(), std::cmp::Reverse(view.end()));
            Some(if key(local) <= key(remote) { local } else { remote })
        }
        (local, remote) => local.or(remote),
    }
}

#[cfg(test)]
mod tests;
