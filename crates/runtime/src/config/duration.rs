//! Durations of options, as Go writes them: `1m30s`, `20ms`, `1.5h`.

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
}
