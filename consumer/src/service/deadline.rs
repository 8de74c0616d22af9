//! The deadline which a caller sends with its request (gRPC's `grpc-timeout`). Pure.

use std::time::Duration;

/// Parses at most eight digits and a unit. What is not that is as if nothing was sent.
pub fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// How long the answer may take: a little less than the caller waits, so that the reason arrives, and at most `limit`.
pub fn wait(caller: Option<Duration>, limit: Duration) -> Duration {
    caller.map_or(limit, |caller| (caller - caller / 10).min(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit() {
        for (text, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("10S", Some(Duration::from_secs(10))),
            ("99999999m", Some(Duration::from_millis(99_999_999))),
            ("5u", Some(Duration::from_micros(5))),
            ("7n", Some(Duration::from_nanos(7))),
            ("", None),
            ("S", None),
            ("5", None),
            ("-5S", None),
            ("123456789S", None),
            ("5é", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        let limit = Duration::from_secs(60);
        assert_eq!(wait(None, limit), limit);
        assert_eq!(wait(Some(Duration::from_secs(10)), limit), Duration::from_secs(9));
        assert_eq!(wait(Some(Duration::from_secs(100)), limit), limit);
    }
}
