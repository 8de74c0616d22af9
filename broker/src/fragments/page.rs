//! One page of ListFragments (journal protocol §9.3), from an index.

use fragment::Fragment;
use fragment::index::Index;
use proto::protocol::FragmentsRequest;

/// Fragments per page unless the request says otherwise.
pub const PAGE_LIMIT_DEFAULT: i32 = 1000;

/// A page of fragments.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The fragments, in order.
    pub fragments: Vec<Fragment>,
    /// Where the next page begins; zero if there is none.
    pub next_page_token: i64,
}

/// The page that a validated request asks for. Its end of modification time is inclusive, as with other brokers, and
/// local fragments show only when there is none.
pub fn page<L: Clone>(index: &Index<L>, request: &FragmentsRequest) -> Page {
    let limit = usize::try_from(request.page_limit).unwrap_or(0);
    let mut fragments = Vec::new();
    for entry in index.entries_from(request.next_page_token) {
        if fragments.len() >= limit {
            return Page { fragments, next_page_token: entry.fragment.begin };
        }
        if is_selected(entry.fragment.mod_time, request) {
            fragments.push(entry.fragment);
        }
    }
    Page { fragments, next_page_token: 0 }
}

fn is_selected(mod_time: i64, request: &FragmentsRequest) -> bool {
    let is_local = mod_time == 0;
    let is_too_old = !is_local && mod_time < request.begin_mod_time;
    let is_too_new = request.end_mod_time != 0 && (is_local || mod_time > request.end_mod_time);
    !(is_too_old || is_too_new)
}

#[cfg(test)]
mod tests {
    use fragment::{Codec, Sum};
    use proto::JournalName;

    use super::*;

    fn fragment(begin: i64, end: i64, mod_time: i64) -> Fragment {
        let journal = JournalName::parse("a/journal").unwrap();
        Fragment { sum: Sum([1; 20]), end, mod_time, ..Fragment::empty(journal, begin, Codec::None) }
    }

    fn index() -> Index<()> {
        let mut index = Index::new(JournalName::parse("a/journal").unwrap());
        let remote = [fragment(0, 10, 100), fragment(10, 20, 200), fragment(20, 30, 300)];
        drop(index.replace_remote(remote.into_iter().collect()));
        drop(index.insert_local(fragment(30, 40, 0), ()));
        index
    }

    fn begins(request: FragmentsRequest) -> (Vec<i64>, i64) {
        let limit = if request.page_limit == 0 { 1000 } else { request.page_limit };
        let page = page(&index(), &FragmentsRequest { page_limit: limit, ..request });
        (page.fragments.iter().map(|f| f.begin).collect(), page.next_page_token)
    }

    #[test]
    fn pages_follow_one_another() {
        let first = FragmentsRequest { page_limit: 3, ..Default::default() };
        assert_eq!(begins(first.clone()), (vec![0, 10, 20], 30));
        assert_eq!(begins(FragmentsRequest { next_page_token: 30, ..first }), (vec![30], 0));
        // A token need not be the begin of a fragment.
        assert_eq!(begins(FragmentsRequest { next_page_token: 11, ..Default::default() }), (vec![20, 30], 0));
    }

    #[test]
    fn a_full_page_that_is_the_last_says_so() {
        assert_eq!(
            begins(FragmentsRequest { page_limit: 4, ..Default::default() }),
            (vec![0, 10, 20, 30], 0)
        );
    }

    #[test]
    fn modification_times_select() {
        let request =
            |begin, end| FragmentsRequest { begin_mod_time: begin, end_mod_time: end, ..Default::default() };
        assert_eq!(begins(request(200, 0)), (vec![10, 20, 30], 0));
        assert_eq!(begins(request(0, 200)), (vec![0, 10], 0));
        assert_eq!(begins(request(150, 250)), (vec![10], 0));
        let limited = FragmentsRequest { page_limit: 1, ..request(150, 250) };
        // What is left out of a page does not count, but the page ends where the next fragment begins.
        assert_eq!(begins(limited), (vec![10], 20));
    }
}
