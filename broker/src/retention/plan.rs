//! Which stored fragments of a journal may be deleted (journal protocol §10.3, R11). Pure.
//!
//! Deleted are fragments that were stored at least the retention ago, in whichever store, also those that others cover. A
//! journal only ever loses its beginning: nothing is deleted behind a fragment that stays, so that no hole opens. The last
//! fragment stays, however old it is: a broker which has nothing else tells by it where the journal goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fragment::{Fragment, PathPostfix};
use proto::JournalName;

/// What a name in a store means, and in which order fragments are deleted: from the journal's beginning.
type Place = (i64, i64, Option<Arc<str>>, PathPostfix, String);

/// Gathers the listings of a journal's stores, all of them, and decides. Memory is bounded by the number of deletions.
#[derive(Debug)]
pub struct RetentionPlan {
    now_unix: i64,
    retention: Duration,
    deletions_max: usize,
    /// Those that are old enough, the first ones.
    expired: BTreeMap<Place, Fragment>,
    /// Lowest offset of a fragment that is not.
    unexpired_begin: i64,
    /// Highest offset, and the lowest one of fragments that reach it.
    last: Option<(i64, i64)>,
    kept: Kept,
}

/// What stays of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Fragments that were listed.
    pub listed: usize,
    /// Of these, the ones that are old enough to be deleted.
    pub expired: usize,
    /// Bytes of content of the listed ones.
    pub listed_bytes: u64,
}

impl RetentionPlan {
    /// A plan for what is as old as `retention` at `now_unix`, in seconds since 1970. At most `deletions_max` fragments are
    /// deleted, from the journal's beginning on.
    pub fn new(now_unix: i64, retention: Duration, deletions_max: usize) -> RetentionPlan {
        RetentionPlan {
            now_unix,
            retention,
            deletions_max,
            expired: BTreeMap::new(),
            unexpired_begin: i64::MAX,
            last: None,
            kept: Kept::default(),
        }
    }

    /// Takes a listed fragment into account.
    pub fn push(&mut self, fragment: Fragment) {
        self.kept.listed += 1;
        self.kept.listed_bytes += u64::try_from(fragment.len()).unwrap_or(0);
        self.last = Some(match self.last {
            Some((end, begin)) if end > fragment.end => (end, begin),
            Some((end, begin)) if end == fragment.end => (end, begin.min(fragment.begin)),
            _ => (fragment.end, fragment.begin),
        });
        let Fragment { begin, end, .. } = fragment;
        if !is_expired(&fragment, self.now_unix, self.retention) {
            self.unexpired_begin = self.unexpired_begin.min(begin);
            return;
        }
        self.kept.expired += 1;
        let store = fragment.backing_store.clone();
        let place = (begin, end, store, fragment.path_postfix.clone(), fragment.content_name());
        self.expired.insert(place, fragment);
        if self.expired.len() > self.deletions_max {
            self.expired.pop_last();
        }
    }

    /// What is to be deleted, in this order. A journal which resumes at `resumes_at` or above, as its specification says,
    /// does not need a last fragment that ends there or before.
    pub fn finish(self, resumes_at: i64) -> (Vec<Fragment>, Kept) {
        let last_begin = self.last.filter(|(end, _)| *end > resumes_at).map_or(i64::MAX, |(_, begin)| begin);
        let limit = self.unexpired_begin.min(last_begin);
        let deleted = self.expired.into_values().filter(|fragment| fragment.end <= limit);
        (deleted.collect(), self.kept)
    }
}

/// Whether a stored fragment was stored at least `retention` ago.
pub(super) fn is_expired(fragment: &Fragment, now_unix: i64, retention: Duration) -> bool {
    let age = u64::try_from(now_unix.saturating_sub(fragment.mod_time)).map(Duration::from_secs);
    fragment.mod_time > 0 && age.is_ok_and(|age| age >= retention)
}

/// Whether a file that a listing of `journal` found is of another journal, whose name begins with this one's: their stores
/// do not tell that from a path postfix. `exists` knows journals by name.
pub fn is_of_another_journal(
    journal: &JournalName,
    fragment: &Fragment,
    exists: impl Fn(&str) -> bool,
) -> bool {
    let mut name = journal.as_str().to_owned();
    fragment.path_postfix.as_str().split('/').filter(|part| !part.is_empty()).any(|part| {
        name.push('/');
        name.push_str(part);
        exists(&name)
    })
}

#[cfg(test)]
mod tests {
    use fragment::Codec;

    use super::*;

    fn journal() -> JournalName {
        JournalName::parse("a/journal").unwrap()
    }

    fn stored(begin: i64, end: i64, mod_time: i64) -> Fragment {
        let store = Some("file:///".into());
        Fragment { end, mod_time, backing_store: store, ..Fragment::empty(journal(), begin, Codec::None) }
    }

    fn in_store(store: &str, fragment: Fragment) -> Fragment {
        Fragment { backing_store: Some(store.into()), ..fragment }
    }

    /// Spans that are deleted at time 1000, with a retention of 100 seconds.
    fn deleted(fragments: Vec<Fragment>, max: usize, resumes_at: i64) -> Vec<(i64, i64)> {
        let mut plan = RetentionPlan::new(1000, Duration::from_secs(100), max);
        fragments.into_iter().for_each(|fragment| plan.push(fragment));
        plan.finish(resumes_at).0.iter().map(|fragment| (fragment.begin, fragment.end)).collect()
    }

    #[test]
    fn the_beginning_goes_and_the_last_fragment_stays() {
        for (what, fragments, expected) in [
            ("nothing is stored", vec![], vec![]),
            ("the last one", vec![stored(0, 10, 1)], vec![]),
            (
                "all are old",
                vec![stored(10, 20, 1), stored(0, 10, 1), stored(20, 30, 1)],
                vec![(0, 10), (10, 20)],
            ),
            (
                "to the second",
                vec![stored(0, 10, 900), stored(10, 20, 901), stored(20, 30, 902)],
                vec![(0, 10)],
            ),
            (
                "a young one at the beginning",
                vec![stored(0, 10, 950), stored(10, 20, 1), stored(20, 30, 1)],
                vec![],
            ),
            ("a time to come", vec![stored(0, 10, 5000), stored(10, 20, 1), stored(20, 30, 1)], vec![]),
            ("an unknown time", vec![stored(0, 10, 0), stored(10, 20, 1)], vec![]),
            (
                "what others cover",
                vec![stored(0, 5, 1), stored(0, 10, 1), stored(5, 10, 1), stored(10, 20, 1)],
                vec![(0, 5), (0, 10), (5, 10)],
            ),
            ("within a young one", vec![stored(2, 5, 1), stored(0, 10, 950), stored(10, 20, 1)], vec![]),
            ("into a young one", vec![stored(0, 10, 1), stored(5, 20, 950), stored(20, 30, 1)], vec![]),
            ("two last ones", vec![stored(0, 10, 1), stored(5, 30, 1), stored(20, 30, 1)], vec![]),
            (
                "after a hole",
                vec![stored(0, 10, 1), stored(20, 30, 1), stored(40, 50, 1)],
                vec![(0, 10), (20, 30)],
            ),
        ] {
            assert_eq!(deleted(fragments, 100, 0), expected, "{what}");
        }
    }

    #[test]
    fn a_fragment_goes_from_every_store_once_it_is_old_in_all_of_them() {
        let copies =
            |other| vec![stored(0, 10, 1), in_store("s3://b/", stored(0, 10, other)), stored(10, 20, 1)];
        assert_eq!(deleted(copies(2), 100, 0), [(0, 10), (0, 10)]);
        assert_eq!(deleted(copies(950), 100, 0), []);
    }

    #[test]
    fn a_pass_is_bounded_and_begins_at_the_beginning() {
        let many = (0..50).rev().map(|n| stored(n * 10, n * 10 + 10, 1)).collect::<Vec<_>>();
        assert_eq!(deleted(many.clone(), 3, 0), [(0, 10), (10, 20), (20, 30)]);
        let mut plan = RetentionPlan::new(1000, Duration::from_secs(100), 3);
        many.into_iter().for_each(|fragment| plan.push(fragment));
        assert_eq!(plan.finish(0).1, Kept { listed: 50, expired: 50, listed_bytes: 500 });
    }

    #[test]
    fn a_floor_stands_in_for_the_last_fragment() {
        let all = vec![stored(0, 10, 1), stored(10, 20, 1)];
        assert_eq!(deleted(all.clone(), 100, 19), [(0, 10)]);
        assert_eq!(deleted(all, 100, 20), [(0, 10), (10, 20)]);
    }

    #[test]
    fn files_of_a_journal_below_are_not_of_the_one_above() {
        let at = |postfix: &str| Fragment {
            path_postfix: PathPostfix::parse(postfix).unwrap(),
            ..stored(0, 1, 1)
        };
        let exists = |name: &str| name == "a/journal/part/0";
        for (postfix, expected) in
            [("", false), ("part", false), ("part/0", true), ("part/0/date=1", true), ("part/00", false)]
        {
            assert_eq!(is_of_another_journal(&journal(), &at(postfix), exists), expected, "{postfix}");
        }
    }
}
