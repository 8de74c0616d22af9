//! A set of spans in which no span is contained in another one.
//!
//! The fragments of a journal may repeat and overlap: replicas upload their own rolls of the same content, and larger
//! fragments may be written over smaller ones later. Of two spans where one contains the other only the larger is worth
//! keeping; spans which merely overlap are both kept (journal protocol §10.2). Begins and ends then ascend together, so
//! that every question is a binary search.
//!
//! The spans are kept in chunks which clones of a set share. A clone costs one reference count, and a change of a set
//! with clones copies one chunk and the list of chunks, not the spans: a set of a million is published after every
//! commit.
//!
//! Pure: no I/O, no clock.

use std::cmp::Reverse;
use std::sync::Arc;

/// Spans of one chunk, at most.
const CHUNK_SPANS_MAX: usize = 512;
/// Chunks between two times that a vector which is taken apart gives memory back.
const CHUNKS_PER_SHRINK: usize = 64;

/// Something which spans `begin()..end()`. Both must stay the same while it is in a [`CoverSet`].
pub trait Span {
    /// First offset.
    fn begin(&self) -> i64;
    /// Offset after the last.
    fn end(&self) -> i64;
    /// Of equal ranges which are added together the one of the highest rank is kept.
    fn rank(&self) -> u64 {
        0
    }
}

impl<T: Span> Span for Arc<T> {
    fn begin(&self) -> i64 {
        (**self).begin()
    }

    fn end(&self) -> i64 {
        (**self).end()
    }

    fn rank(&self) -> u64 {
        (**self).rank()
    }
}

/// What became of a span offered to [`CoverSet::insert`].
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub enum Insertion<T> {
    /// It is in the set now, in place of the spans it contains or equals.
    Added {
        /// The spans it replaced, ascending.
        displaced: Vec<T>,
    },
    /// It is empty or within a larger span of the set, and is handed back.
    Ignored(T),
}

/// Some spans which follow one another, at least one.
#[derive(Debug)]
struct Chunk<T> {
    /// That of the first span.
    begin: i64,
    spans: Arc<Vec<T>>,
}

impl<T> Clone for Chunk<T> {
    fn clone(&self) -> Chunk<T> {
        Chunk { begin: self.begin, spans: Arc::clone(&self.spans) }
    }
}

impl<T: Span> Chunk<T> {
    fn new(spans: Vec<T>) -> Chunk<T> {
        Chunk { begin: spans[0].begin(), spans: Arc::new(spans) }
    }
}

/// Spans in order of begin and, equally, of end. Cheap to clone.
#[derive(Debug)]
pub struct CoverSet<T> {
    chunks: Arc<Vec<Chunk<T>>>,
    len: usize,
}

impl<T> Clone for CoverSet<T> {
    fn clone(&self) -> CoverSet<T> {
        CoverSet { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<T> Default for CoverSet<T> {
    fn default() -> CoverSet<T> {
        CoverSet { chunks: Arc::default(), len: 0 }
    }
}

impl<T: Span + Clone> CoverSet<T> {
    /// Applies the insertion rule to `span`: the larger wins, and of equal ranges the newer.
    /// Costs a chunk and, if the set has clones, the list of chunks.
    pub fn insert(&mut self, span: T) -> Insertion<T> {
        if span.begin() >= span.end() {
            return Insertion::Ignored(span);
        }
        if let Some(before) = self.last_at(span.begin())
            && before.end() >= span.end()
            && (before.begin(), before.end()) != (span.begin(), span.end())
        {
            return Insertion::Ignored(span);
        }
        let (at, first) = self.position(|other| other < span.begin());
        let displaced = self.take_contained(at, first, span.end());
        self.len = self.len + 1 - displaced.len();
        self.place(at, first, span);
        Insertion::Added { displaced }
    }

    /// Takes out the spans from `first` of chunk `at` on which end at or before `end`. Chunk `at` stays, if it is empty.
    fn take_contained(&mut self, at: usize, first: usize, end: i64) -> Vec<T> {
        let mut displaced = Vec::new();
        let (mut chunk, mut from) = (at, first);
        while let Some(spans) = self.chunks.get(chunk).map(|chunk| &chunk.spans[from..]) {
            let contained = spans.iter().take_while(|other| other.end() <= end).count();
            let is_last = contained < spans.len();
            if contained > 0 {
                let chunks = Arc::make_mut(&mut self.chunks);
                displaced.extend(Arc::make_mut(&mut chunks[chunk].spans).drain(from..from + contained));
                match chunks[chunk].spans.first().map(Span::begin) {
                    Some(begin) => chunks[chunk].begin = begin,
                    None if chunk != at => {
                        chunks.remove(chunk);
                        continue;
                    }
                    None => {}
                }
            }
            if is_last {
                break;
            }
            (chunk, from) = (chunk + 1, 0);
        }
        displaced
    }

    /// Puts `span` before the one at `first` of chunk `at`.
    fn place(&mut self, mut at: usize, mut first: usize, span: T) {
        let chunks = Arc::make_mut(&mut self.chunks);
        if chunks.is_empty() || (at + 1 == chunks.len() && first == CHUNK_SPANS_MAX) {
            // What grows at its end leaves full chunks behind.
            chunks.push(Chunk::new(vec![span]));
            return;
        }
        if chunks[at].spans.len() == CHUNK_SPANS_MAX {
            let upper = Arc::make_mut(&mut chunks[at].spans).split_off(CHUNK_SPANS_MAX / 2);
            chunks.insert(at + 1, Chunk::new(upper));
            if first > CHUNK_SPANS_MAX / 2 {
                (at, first) = (at + 1, first - CHUNK_SPANS_MAX / 2);
            }
        }
        let begin = span.begin();
        let spans = Arc::make_mut(&mut chunks[at].spans);
        if spans.len() == spans.capacity() {
            spans.reserve_exact(spans.len().max(4).min(CHUNK_SPANS_MAX - spans.len()));
        }
        spans.insert(first, span);
        if first == 0 {
            chunks[at].begin = begin;
        }
    }

    /// Takes out the spans of which `take` is true, ascending.
    pub fn extract(&mut self, take: impl Fn(&T) -> bool) -> Vec<T> {
        if !self.iter().any(&take) {
            return Vec::new();
        }
        let (taken, left) = self.iter().cloned().partition(take);
        *self = CoverSet::from_ordered(left);
        taken
    }
}

impl<T: Span> CoverSet<T> {
    /// How many spans there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first span.
    pub fn first(&self) -> Option<&T> {
        self.chunks.first()?.spans.first()
    }

    /// Lowest offset of any span; zero of an empty set.
    pub fn begin(&self) -> i64 {
        self.first().map_or(0, T::begin)
    }

    /// Highest end of any span; zero of an empty set.
    pub fn end(&self) -> i64 {
        self.chunks.last().and_then(|chunk| chunk.spans.last()).map_or(0, T::end)
    }

    /// The span which begins last at or before `offset`. If any span covers `offset` this one does, and reaches
    /// furthest; it may also end before.
    pub fn last_at(&self, offset: i64) -> Option<&T> {
        let (at, next) = self.position(|begin| begin <= offset);
        self.chunks.get(at)?.spans[..next].last()
    }

    /// The first span which begins after `offset`.
    pub fn first_after(&self, offset: i64) -> Option<&T> {
        let (at, next) = self.position(|begin| begin <= offset);
        let within = self.chunks.get(at)?.spans.get(next);
        within.or_else(|| self.chunks.get(at + 1)?.spans.first())
    }

    /// Every span which covers `offset`, descending.
    pub fn covering(&self, offset: i64) -> impl Iterator<Item = &T> {
        let (at, next) = self.position(|begin| begin <= offset);
        let last = self.chunks.get(at).map(|chunk| &chunk.spans[..next]).unwrap_or_default();
        let before =
            self.chunks[..at.min(self.chunks.len())].iter().rev().flat_map(|chunk| chunk.spans.iter().rev());
        // Ends descend with begins, so that the first which does not reach the offset is followed by none which does.
        last.iter().rev().chain(before).take_while(move |span| span.end() > offset)
    }

    /// Whether every offset of `begin..end` is in some span, alone or jointly.
    pub fn covers(&self, begin: i64, end: i64) -> bool {
        let mut covered = begin;
        while covered < end {
            match self.last_at(covered) {
                Some(span) if span.end() > covered => covered = span.end(),
                _ => return false,
            }
        }
        true
    }

    /// The spans, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.spans.iter())
    }

    /// The spans which begin at or after `begin`, ascending.
    pub fn iter_from(&self, begin: i64) -> impl Iterator<Item = &T> {
        let (at, first) = self.position(|other| other < begin);
        let skipped = move |n: usize| if n == 0 { first } else { 0 };
        let chunks = self.chunks[at..].iter().enumerate();
        chunks.flat_map(move |(n, chunk)| chunk.spans[skipped(n)..].iter())
    }

    /// The set of spans which are in order, none within another one. Never holds much more memory than `spans` does.
    fn from_ordered(mut spans: Vec<T>) -> CoverSet<T> {
        let len = spans.len();
        let mut chunks = Vec::with_capacity(len.div_ceil(CHUNK_SPANS_MAX));
        while !spans.is_empty() {
            let rest = (spans.len() - 1) / CHUNK_SPANS_MAX * CHUNK_SPANS_MAX;
            chunks.push(Chunk::new(spans.drain(rest..).collect()));
            if chunks.len().is_multiple_of(CHUNKS_PER_SHRINK) {
                spans.shrink_to_fit();
            }
        }
        chunks.reverse();
        CoverSet { chunks: Arc::new(chunks), len }
    }

    /// Chunk and position of the first span which is not `before`, within or at the end of the chunk that holds the last one which
    /// is.
    fn position(&self, before: impl Fn(i64) -> bool) -> (usize, usize) {
        let at = self.chunks.partition_point(|chunk| before(chunk.begin)).saturating_sub(1);
        let spans = self.chunks.get(at).map(|chunk| &chunk.spans[..]).unwrap_or_default();
        (at, spans.partition_point(|span| before(span.begin())))
    }
}

/// See the conversion from a vector.
impl<T: Span> FromIterator<T> for CoverSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(spans: I) -> CoverSet<T> {
        CoverSet::from(spans.into_iter().collect::<Vec<T>>())
    }
}

/// Inserts every span, those of equal ranges in order of rank, in O(n log n) and within the memory of the vector.
impl<T: Span> From<Vec<T>> for CoverSet<T> {
    fn from(mut spans: Vec<T>) -> CoverSet<T> {
        spans.retain(|span| span.begin() < span.end());
        // Containers before what they contain. A stable sort would need half as much memory again.
        spans.sort_unstable_by_key(|span| (span.begin(), Reverse(span.end()), span.rank()));
        spans.dedup_by(|next, kept| {
            if (next.begin(), next.end()) == (kept.begin(), kept.end()) {
                std::mem::swap(next, kept);
            }
            next.end() <= kept.end()
        });
        CoverSet::from_ordered(spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    /// A span with a tag, which tells newer from older ones of the same range.
    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Tagged(i64, i64, usize);

    impl Span for Tagged {
        fn begin(&self) -> i64 {
            self.0
        }

        fn end(&self) -> i64 {
            self.1
        }

        fn rank(&self) -> u64 {
            self.2 as u64
        }
    }

    fn set(spans: &[(i64, i64)]) -> CoverSet<Tagged> {
        spans.iter().enumerate().map(|(tag, &(begin, end))| Tagged(begin, end, tag)).collect()
    }

    fn show<'a>(spans: impl IntoIterator<Item = &'a Tagged>) -> String {
        spans
            .into_iter()
            .map(|Tagged(begin, end, _)| format!("{begin}..{end} "))
            .collect::<String>()
            .trim()
            .to_owned()
    }

    /// Inserts each of `offered` on its own into the set 100..200 200..300 300..400 400..500.
    fn check(offered: &[(i64, i64)], expected: Expect) {
        let mut text = String::new();
        for &(begin, end) in offered {
            let mut set = set(&[(100, 200), (200, 300), (300, 400), (400, 500)]);
            let outcome = match set.insert(Tagged(begin, end, 99)) {
                Insertion::Ignored(_) => "ignored".to_owned(),
                Insertion::Added { displaced } => format!("[{}] -> {}", show(&displaced), show(set.iter())),
            };
            text += &format!("{begin}..{end}: {outcome}\n");
        }
        expected.assert_eq(&text);
    }

    #[test]
    fn contained_and_empty_spans_are_ignored() {
        check(
            &[(150, 150), (110, 190), (100, 199), (101, 200), (400, 499), (401, 500)],
            expect![[r#"
                150..150: ignored
                110..190: ignored
                100..199: ignored
                101..200: ignored
                400..499: ignored
                401..500: ignored
            "#]],
        );
    }

    #[test]
    fn equal_and_larger_spans_replace() {
        check(
            &[(100, 200), (400, 500), (100, 300), (50, 450), (199, 401), (300, 501), (0, 1000), (100, 500)],
            expect![[r#"
                100..200: [100..200] -> 100..200 200..300 300..400 400..500
                400..500: [400..500] -> 100..200 200..300 300..400 400..500
                100..300: [100..200 200..300] -> 100..300 300..400 400..500
                50..450: [100..200 200..300 300..400] -> 50..450 400..500
                199..401: [200..300 300..400] -> 100..200 199..401 400..500
                300..501: [300..400 400..500] -> 100..200 200..300 300..501
                0..1000: [100..200 200..300 300..400 400..500] -> 0..1000
                100..500: [100..200 200..300 300..400 400..500] -> 100..500
            "#]],
        );
    }

    #[test]
    fn overlaps_and_neighbours_are_kept() {
        check(
            &[(50, 100), (50, 150), (150, 250), (450, 550), (500, 600), (700, 800)],
            expect![[r#"
                50..100: [] -> 50..100 100..200 200..300 300..400 400..500
                50..150: [] -> 50..150 100..200 200..300 300..400 400..500
                150..250: [] -> 100..200 150..250 200..300 300..400 400..500
                450..550: [] -> 100..200 200..300 300..400 400..500 450..550
                500..600: [] -> 100..200 200..300 300..400 400..500 500..600
                700..800: [] -> 100..200 200..300 300..400 400..500 700..800
            "#]],
        );
    }

    #[test]
    fn lookups_around_overlaps_and_holes() {
        let set = set(&[(100, 200), (150, 250), (300, 400)]);
        assert_eq!((set.begin(), set.end()), (100, 400));
        let last = |offset| set.last_at(offset).map(|span| span.0);
        assert_eq!(
            [99, 100, 149, 150, 260, 300, 999].map(last),
            [None, Some(100), Some(100), Some(150), Some(150), Some(300), Some(300)]
        );
        let covering = |offset| set.covering(offset).map(|span| span.0).collect::<Vec<_>>();
        assert_eq!(
            [99, 149, 150, 200, 399, 400].map(covering),
            [vec![], vec![100], vec![150, 100], vec![150], vec![300], vec![]]
        );
        let after = |offset| set.first_after(offset).map(|span| span.0);
        assert_eq!([0, 100, 299, 300].map(after), [Some(100), Some(150), Some(300), None]);
        for (begin, end, covered) in [
            (100, 250, true),
            (99, 101, false),
            (120, 251, false),
            (300, 400, true),
            (200, 350, false),
            (7, 7, true),
        ] {
            assert_eq!(set.covers(begin, end), covered, "{begin}..{end}");
        }
    }

    fn spans() -> impl Strategy<Value = Vec<Tagged>> {
        prop::collection::vec((0..40i64, 0..12i64), 0..40).prop_map(|spans| {
            spans.into_iter().enumerate().map(|(tag, (begin, len))| Tagged(begin, begin + len, tag)).collect()
        })
    }

    /// The rule, word for word.
    fn naive(spans: &[Tagged]) -> Vec<Tagged> {
        let within = |a: &Tagged, b: &Tagged| b.0 <= a.0 && a.1 <= b.1;
        let mut kept: Vec<Tagged> = Vec::new();
        for span in spans.iter().filter(|span| span.0 < span.1) {
            if kept.iter().any(|other| within(span, other) && (other.0, other.1) != (span.0, span.1)) {
                continue;
            }
            kept.retain(|other| !within(other, span));
            kept.push(span.clone());
        }
        kept.sort_by_key(|span| span.0);
        kept
    }

    fn all(set: &CoverSet<Tagged>) -> Vec<Tagged> {
        set.iter().cloned().collect()
    }

    /// What every set promises of its chunks.
    fn check_chunks(set: &CoverSet<Tagged>) {
        assert_eq!(set.len(), set.iter().count());
        for chunk in set.chunks.iter() {
            assert!(!chunk.spans.is_empty() && chunk.spans.len() <= CHUNK_SPANS_MAX);
            assert_eq!(chunk.begin, chunk.spans[0].0);
        }
        assert!(all(set).windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
    }

    proptest! {
        #[test]
        fn one_by_one_and_in_bulk_agree_with_the_rule(spans in spans()) {
            let expected = naive(&spans);
            let mut one_by_one = CoverSet::default();
            for span in &spans {
                let _ = one_by_one.insert(span.clone());
            }
            check_chunks(&one_by_one);
            prop_assert_eq!(all(&one_by_one), &expected[..]);
            let in_bulk = CoverSet::from(spans);
            prop_assert_eq!(all(&in_bulk), &expected[..]);
        }

        #[test]
        fn covers_is_a_question_about_each_offset(spans in spans(), begin in 0..50i64, len in 0..20i64) {
            let inside = |offset| spans.iter().any(|span| span.0 <= offset && offset < span.1);
            let expected = (begin..begin + len).all(inside);
            prop_assert_eq!(CoverSet::from(spans.clone()).covers(begin, begin + len), expected);
        }
    }

    /// Spans of length 10 at the given tens, which neighbour and never contain one another.
    fn tens(of: impl Iterator<Item = i64>) -> Vec<Tagged> {
        of.map(|ten| Tagged(ten * 10, ten * 10 + 10, 0)).collect()
    }

    const MANY: i64 = 5 * CHUNK_SPANS_MAX as i64 + 7;

    #[test]
    fn chunks_fill_split_and_merge() {
        let ascending = tens(0..MANY);
        let expected = CoverSet::from(ascending.clone());
        // Every seventh first, so that the others go between them; and one after the other.
        let stride = tens((0..7).flat_map(|first| (first..MANY).step_by(7)));
        for spans in [ascending.clone(), stride, tens((0..MANY).rev())] {
            let mut set = CoverSet::default();
            for span in spans {
                assert!(matches!(set.insert(span), Insertion::Added { displaced } if displaced.is_empty()));
            }
            check_chunks(&set);
            assert_eq!(all(&set), ascending);
        }
        assert_eq!(expected.chunks.len(), 6, "in bulk, chunks are full");
        let from = |begin| expected.iter_from(begin).map(|span| span.0).next();
        assert_eq!(
            [0, 1, 5119, 5120, 9_999_999].map(from),
            [Some(0), Some(10), Some(5120), Some(5120), None]
        );
        for offset in [0, 9, 10, 5119, 5120, 5129] {
            assert_eq!(expected.last_at(offset).unwrap().0, offset / 10 * 10);
            assert_eq!(expected.first_after(offset).unwrap().0, offset / 10 * 10 + 10);
        }

        // One which contains what three chunks hold takes their place.
        let mut set = expected.clone();
        let large = Tagged(1005, MANY * 10 - 1005, 1);
        let Insertion::Added { displaced } = set.insert(large.clone()) else { panic!("it is larger") };
        assert_eq!(displaced, tens(101..MANY - 101));
        check_chunks(&set);
        assert_eq!((set.len(), set.last_at(20_000)), (203, Some(&large)));
        assert!(set.covers(0, MANY * 10));
        check_chunks(&expected);
        assert_eq!(all(&expected), ascending, "a clone is not changed");
        assert_eq!(set.extract(|span| span.0 % 20 == 0).len(), 102);
        check_chunks(&set);
    }

    #[test]
    fn a_lookup_asks_as_often_as_a_binary_search() {
        let set = CoverSet::from(tens(0..1 << 17));
        for offset in [0, 5, 655_355, 1_310_719] {
            let asked = std::cell::Cell::new(0);
            set.position(|begin| {
                asked.set(asked.get() + 1);
                begin <= offset
            });
            assert!(asked.get() <= 17 + 3, "{} questions for {offset}", asked.get());
        }
    }

    #[test]
    fn a_change_of_a_set_with_clones_copies_one_chunk() {
        let mut set = CoverSet::from(tens(0..MANY));
        let published = set.clone();
        let _ = set.insert(Tagged(MANY * 10, MANY * 10 + 10, 1));
        let _ = set.insert(Tagged(15, 25, 1));
        let shared = |chunk: &Chunk<Tagged>| {
            published.chunks.iter().any(|other| Arc::ptr_eq(&other.spans, &chunk.spans))
        };
        assert_eq!(
            set.chunks.iter().filter(|chunk| !shared(chunk)).count(),
            3,
            "two halves of the first, and the last"
        );
    }
}
