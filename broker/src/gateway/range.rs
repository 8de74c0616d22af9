//! The `Range` of a request (RFC 9110 §14): which bytes of a journal it is for. Pure.
//!
//! A range that makes no sense, several ranges, and units other than bytes are passed over, as the RFC has it.

use http::HeaderMap;
use http::header::{IF_RANGE, RANGE};

/// Bytes that are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ByteRange {
    /// From an offset, up to an end if there is one. Not empty.
    Span {
        /// Offset of the first byte.
        begin: i64,
        /// Offset after the last one.
        end: Option<i64>,
    },
    /// The last so many bytes.
    Last(i64),
}

impl ByteRange {
    /// The range that a request asks for. One on a condition is not looked at: a journal has nothing to compare it with.
    pub(super) fn of(headers: &HeaderMap) -> Option<ByteRange> {
        if headers.contains_key(IF_RANGE) {
            return None;
        }
        let (first, last) = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
        match (first, last) {
            ("", count) => Some(ByteRange::Last(number(count)?)),
            (begin, "") => Some(ByteRange::Span { begin: number(begin)?, end: None }),
            (begin, last) => {
                let (begin, end) = (number(begin)?, number(last)?.saturating_add(1));
                (begin < end).then_some(ByteRange::Span { begin, end: Some(end) })
            }
        }
    }
}

/// A number of digits alone. One that is larger than any offset is the largest.
fn number(digits: &str) -> Option<i64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_has_it() {
        let span = |begin, end| Some(ByteRange::Span { begin, end });
        for (text, expected) in [
            ("bytes=0-0", span(0, Some(1))),
            ("bytes=5-99", span(5, Some(100))),
            ("bytes=5-", span(5, None)),
            ("bytes=-7", Some(ByteRange::Last(7))),
            ("bytes=0-99999999999999999999", span(0, Some(i64::MAX))),
            ("bytes=5-4", None),
            ("bytes=1-2,4-5", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes= 1-2", None),
            ("lines=1-2", None),
            ("bytes", None),
        ] {
            let headers = HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
            assert_eq!(ByteRange::of(&headers), expected, "{text}");
        }
        let conditional = [(RANGE, "bytes=1-2".parse().unwrap()), (IF_RANGE, "\"x\"".parse().unwrap())];
        assert_eq!(ByteRange::of(&HeaderMap::from_iter(conditional)), None);
    }
}
