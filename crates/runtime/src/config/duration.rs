//! Durations as Go writes them: `1m30s`, `20ms`, `1.5h`.

use std::time::Duration;

/// A text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid duration {text:?}: {problem}; expected for example 1m30s or 20ms")]
pub struct DurationError {
    text: String,
    problem: &'static str,
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Parses a sequence of decimal numbers with units (`ns`, `us`, `ms`, `s`, `m`, `h`). A bare `0` needs no unit.
///
/// # Errors
/// A missing or unknown unit, no number, a negative value, or more than Go's limit of about 292 years.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let fail = |problem| DurationError { text: text.to_owned(), problem };
    if text.starts_with('-') {
        return Err(fail("negative"));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(fail("empty"));
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (term, after) = parse_term(rest).map_err(fail)?;
        nanos = nanos.saturating_add(term);
        rest = after;
    }
    match i64::try_from(nanos) {
        Ok(nanos) => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Err(_) => Err(fail("too long")),
    }
}

/// One number and its unit, in nanoseconds, and what follows.
fn parse_term(text: &str) -> Result<(u128, &str), &'static str> {
    let end_of_number = text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end_of_number);
    let end_of_unit = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end_of_unit);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return Err("no number");
    }
    if fraction.contains('.') {
        return Err("more than one point");
    }
    let scale: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3600 * NANOS_PER_SECOND,
        "" => return Err("missing unit"),
        _ => return Err("unknown unit"),
    };
    let whole: u128 = match whole {
        "" => 0,
        digits => digits.parse::<u64>().map_err(|_| "too long")?.into(),
    };
    let mut nanos = whole * scale;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos += u128::from(digit - b'0') * place;
    }
    Ok((nanos, rest))
}

/// The shortest text of Go for this duration: `0s`, `1.5s`, `1h0m0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 1_000)),
        1_000_000..NANOS_PER_SECOND => format!("{}ms", decimal(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / (60 * NANOS_PER_SECOND);
            let seconds = decimal(nanos % (60 * NANOS_PER_SECOND), NANOS_PER_SECOND);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

fn decimal(value: u128, unit: u128) -> String {
    let (whole, rest) = (value / unit, value % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let text = format!("{whole}.{rest:0width$}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_durations_agree() {
        for (text, nanos, canonical) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1m", 60_000_000_000, "1m0s"),
            ("24h", 86_400_000_000_000, "24h0m0s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("20ms", 20_000_000, "20ms"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("+5s", 5_000_000_000, "5s"),
            (".5s", 500_000_000, "500ms"),
            ("5.s", 5_000_000_000, "5s"),
            ("1h15m30.918s", 4_530_918_000_000, "1h15m30.918s"),
            ("12us", 12_000, "12µs"),
            ("12.34µs", 12_340, "12.34µs"),
            ("7ns", 7, "7ns"),
        ] {
            let got = parse_duration(text).unwrap();
            assert_eq!(got.as_nanos(), nanos, "{text}");
            assert_eq!(format_duration(got), canonical);
            assert_eq!(parse_duration(canonical), Ok(got));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, problem) in [
            ("", "empty"),
            ("3", "missing unit"),
            ("-3s", "negative"),
            ("s", "no number"),
            (".s", "no number"),
            ("1.2.3s", "more than one point"),
            ("3 s", "unknown unit"),
            ("3d", "unknown unit"),
            ("1ä", "unknown unit"),
            ("9999999999h", "too long"),
            ("99999999999999999999s", "too long"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
