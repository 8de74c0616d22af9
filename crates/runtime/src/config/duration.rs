//! Durations of options, as Go writes them: `1m30s`, `20ms`, `1.5h`.

use std::ops::{Bound, RangeBounds};
use std::time::Duration;

use proto::{Invalid, duration};

/// Parses a duration which is not negative.
///
/// # Errors
/// If the text is malformed, negative, or longer than about 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, Invalid> {
    let nanos = duration::parse_go(text)?;
    let nanos =
        u64::try_from(nanos).map_err(|_| Invalid::new(format!("invalid duration {text:?} (negative)")))?;
    Ok(Duration::from_nanos(nanos))
}

/// A parser of options: as [`parse_duration`], of durations within `range`.
pub fn duration_within(
    range: impl RangeBounds<Duration> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<Duration, Invalid> + Clone + Send + Sync + 'static {
    let bounds = bounds_text(&range);
    move |text| {
        let duration = parse_duration(text)?;
        match range.contains(&duration) {
            true => Ok(duration),
            false => Err(Invalid::new(format!("{} is not {bounds}", format_duration(duration)))),
        }
    }
}

fn bounds_text(range: &impl RangeBounds<Duration>) -> String {
    let text = |bound: Bound<&Duration>| match bound {
        Bound::Included(duration) | Bound::Excluded(duration) => Some(format_duration(*duration)),
        Bound::Unbounded => None,
    };
    match (text(range.start_bound()), text(range.end_bound())) {
        (Some(start), Some(end)) => format!("between {start} and {end}"),
        (Some(start), None) => format!("{start} or more"),
        (None, Some(end)) => format!("{end} or less"),
        (None, None) => "a duration".to_owned(),
    }
}

/// The text of Go for this duration: `0s`, `1.5s`, `1h0m0s`.
pub fn format_duration(duration: Duration) -> String {
    duration::format_go(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_durations_agree() {
        for (text, millis, canonical) in
            [("0", 0, "0s"), ("1m30s", 90_000, "1m30s"), ("1.5h", 5_400_000, "1h30m0s"), ("20ms", 20, "20ms")]
        {
            let got = parse_duration(text).unwrap();
            assert_eq!(got, Duration::from_millis(millis));
            assert_eq!(format_duration(got), canonical);
        }
        for text in ["", "3", "-3s", "3 s", "9999999999h"] {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("invalid duration {text:?}")), "{error}");
        }
    }

    #[test]
    fn a_duration_out_of_bounds_is_told_of_them() {
        const SECOND: Duration = Duration::from_secs(1);
        let error =
            |parse: &dyn Fn(&str) -> Result<Duration, Invalid>, text| parse(text).unwrap_err().to_string();
        let parse = duration_within(SECOND..=60 * SECOND);
        assert_eq!(parse("1m"), Ok(60 * SECOND));
        assert_eq!(error(&parse, "0s"), "0s is not between 1s and 1m0s");
        assert_eq!(error(&parse, "2562047h"), "2562047h0m0s is not between 1s and 1m0s");
        assert!(error(&parse, "-1s").starts_with("invalid duration"));
        assert_eq!(error(&duration_within(SECOND..), "999ms"), "999ms is not 1s or more");
        assert_eq!(error(&duration_within(..=SECOND), "1001ms"), "1.001s is not 1s or less");
    }
}
