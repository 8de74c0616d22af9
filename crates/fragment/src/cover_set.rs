//! A set of spans in which no span is contained in another one.
//!
//! The fragments of a journal may repeat and overlap: replicas upload their own rolls of the same content, and larger
//! fragments may be written over smaller ones later. Of two spans where one contains the other only the larger is worth
//! keeping; spans which merely overlap are both kept (journal protocol §10.2). Begins and ends then ascend together, so
//! that every question is a binary search.
//!
//! Pure: no I/O, no clock.

/// Something which spans `begin()..end()`. Both must stay the same while it is in a [`CoverSet`].
pub trait Span {
    /// First offset.
    fn begin(&self) -> i64;
    /// Offset after the last.
    fn end(&self) -> i64;
}

impl<T: Span> Span for std::sync::Arc<T> {
    fn begin(&self) -> i64 {
        (**self).begin()
    }

    fn end(&self) -> i64 {
        (**self).end()
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

/// Spans in order of begin and, equally, of end.
#[derive(Clone, Debug)]
pub struct CoverSet<T> {
    spans: Vec<T>,
}

impl<T> Default for CoverSet<T> {
    fn default() -> CoverSet<T> {
        CoverSet { spans: Vec::new() }
    }
}

impl<T: Span> CoverSet<T> {
    /// Applies the insertion rule to `span`: the larger wins, and of equal ranges the newer.
    /// Logarithmic for a span which extends the end, linear for one in the middle.
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
        let first = self.spans.partition_point(|other| other.begin() < span.begin());
        let contained = self.spans[first..].iter().take_while(|other| other.end() <= span.end()).count();
        let displaced = self.spans.splice(first..first + contained, [span]).collect();
        Insertion::Added { displaced }
    }

    /// Lowest offset of any span; zero of an empty set.
    pub fn begin(&self) -> i64 {
        self.spans.first().map_or(0, T::begin)
    }

    /// Highest end of any span; zero of an empty set.
    pub fn end(&self) -> i64 {
        self.spans.last().map_or(0, T::end)
    }

    /// The span which begins last at or before `offset`. If any span covers `offset` this one does, and reaches
    /// furthest; it may also end before.
    pub fn last_at(&self, offset: i64) -> Option<&T> {
        self.spans[..self.spans.partition_point(|span| span.begin() <= offset)].last()
    }

    /// The first span which begins after `offset`.
    pub fn first_after(&self, offset: i64) -> Option<&T> {
        self.spans.get(self.spans.partition_point(|span| span.begin() <= offset))
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

    /// Takes out the spans of which `take` is true, ascending.
    pub fn extract(&mut self, take: impl FnMut(&mut T) -> bool) -> Vec<T> {
        self.spans.extract_if(.., take).collect()
    }

    /// The spans, ascending.
    pub fn spans(&self) -> &[T] {
        &self.spans
    }
}

/// Inserts every span, in order of iteration, in O(n log n) overall.
impl<T: Span> FromIterator<T> for CoverSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(spans: I) -> CoverSet<T> {
        let mut spans: Vec<T> = spans.into_iter().filter(|span| span.begin() < span.end()).collect();
        // Containers before what they contain; the sort is stable, so that of equal ranges the newest is last.
        spans.sort_by_key(|span| (span.begin(), std::cmp::Reverse(span.end())));
        spans.dedup_by(|next, kept| {
            if (next.begin(), next.end()) == (kept.begin(), kept.end()) {
                std::mem::swap(next, kept);
            }
            next.end() <= kept.end()
        });
        spans.shrink_to_fit();
        CoverSet { spans }
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
    }

    fn set(spans: &[(i64, i64)]) -> CoverSet<Tagged> {
        spans.iter().enumerate().map(|(tag, &(begin, end))| Tagged(begin, end, tag)).collect()
    }

    fn show(spans: &[Tagged]) -> String {
        spans
            .iter()
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
                Insertion::Added { displaced } => format!("[{}] -> {}", show(&displaced), show(&set.spans)),
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

    proptest! {
        #[test]
        fn one_by_one_and_in_bulk_agree_with_the_rule(spans in spans()) {
            let expected = naive(&spans);
            let mut one_by_one = CoverSet::default();
            for span in &spans {
                let _ = one_by_one.insert(span.clone());
            }
            prop_assert_eq!(one_by_one.spans(), &expected[..]);
            let in_bulk = CoverSet::from_iter(spans);
            prop_assert_eq!(in_bulk.spans(), &expected[..]);
        }

        #[test]
        fn covers_is_a_question_about_each_offset(spans in spans(), begin in 0..50i64, len in 0..20i64) {
            let inside = |offset| spans.iter().any(|span| span.0 <= offset && offset < span.1);
            let expected = (begin..begin + len).all(inside);
            prop_assert_eq!(CoverSet::from_iter(spans.clone()).covers(begin, begin + len), expected);
        }
    }
}
