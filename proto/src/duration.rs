//! Durations: their wire form, and their text form as users of Go tools know it (`1m30s`, `20ms`).
//!
//! Go holds a duration as signed 64-bit nanoseconds; a wire duration outside of that range is invalid everywhere.

use crate::invalid::{Invalid, ensure};
use std::time::Duration;

/// The wire form.
pub use prost_types::Duration as WireDuration;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
/// Units of the text form, longest first, in nanoseconds.
const UNITS: [(&str, i64); 8] = [
    ("h", 3600 * NANOS_PER_SECOND),
    ("ms", 1_000_000),
    ("m", 60 * NANOS_PER_SECOND),
    ("us", 1000),
    ("µs", 1000),
    ("μs", 1000),
    ("ns", 1),
    ("s", NANOS_PER_SECOND),
];

/// The duration in nanoseconds; zero if absent. Errors if it is malformed or does not fit.
pub fn to_nanos(duration: Option<&prost_types::Duration>) -> Result<i64, Invalid> {
    let Some(d) = duration else { return Ok(0) };
    let nanos = i64::from(d.nanos);
    let same_sign = d.seconds == 0 || nanos == 0 || (d.seconds < 0) == (nanos < 0);
    ensure!(nanos.abs() < NANOS_PER_SECOND && same_sign, "malformed duration ({}s, {nanos}ns)", d.seconds);
    let total = d.seconds.checked_mul(NANOS_PER_SECOND).and_then(|n| n.checked_add(nanos));
    total.ok_or_else(|| Invalid::new(format!("duration out of range ({}s)", d.seconds)))
}

/// The wire form of `nanos`.
pub fn from_nanos(nanos: i64) -> prost_types::Duration {
    let remainder = i32::try_from(nanos % NANOS_PER_SECOND).expect("a remainder of 10^9 fits");
    prost_types::Duration { seconds: nanos / NANOS_PER_SECOND, nanos: remainder }
}

/// The duration, or zero where it is absent, negative or malformed (validation refuses those where they matter).
pub fn to_std(duration: Option<&prost_types::Duration>) -> Duration {
    Duration::from_nanos(to_nanos(duration).ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// The wire form of `duration`, saturating at what fits (292 years).
pub fn from_std(duration: Duration) -> prost_types::Duration {
    from_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

/// Prints nanoseconds in Go's form: `1h2m3.5s`, `20ms`, `0s`.
pub fn format_go(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let magnitude = nanos.unsigned_abs();
    let fraction = |unit: u64, digits: usize, suffix: &str| {
        let (whole, part) = (magnitude % (60 * NANOS_PER_SECOND as u64) / unit, magnitude % unit);
        let part = format!("{part:0digits$}");
        let part = part.trim_end_matches('0');
        if part.is_empty() || digits == 0 {
            format!("{whole}{suffix}")
        } else {
            format!("{whole}.{part}{suffix}")
        }
    };
    match magnitude {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{magnitude}ns"),
        1_000..1_000_000 => format!("{sign}{}", fraction(1_000, 3, "µs")),
        1_000_000..1_000_000_000 => format!("{sign}{}", fraction(1_000_000, 6, "ms")),
        _ => {
            let seconds = fraction(NANOS_PER_SECOND as u64, 9, "s");
            let minutes = magnitude / (60 * NANOS_PER_SECOND as u64);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Parses Go's form into nanoseconds: an optional sign, then numbers with units, as in `1h30m` or `-1.5s`; or `0`.
pub fn parse_go(text: &str) -> Result<i64, Invalid> {
    let invalid = || Invalid::new(format!("invalid duration {text:?} (expected a form like 1m30s or 20ms)"));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, after) = rest.split_at(number_end);
        let (name, unit) = UNITS.iter().find(|(name, _)| after.starts_with(name)).ok_or_else(invalid)?;
        total += scale(number, *unit).ok_or_else(invalid)?;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = &after[name.len()..];
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

/// `number` × `unit`, where the number may have a fraction.
fn scale(number: &str, unit: i64) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || whole.len() > 18 {
        return None;
    }
    let mut nanos = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? } * i128::from(unit);
    let mut place = i128::from(unit) * 1_000_000_000;
    for digit in fraction.bytes().take(18) {
        place /= 10;
        nanos += place * i128::from(digit.checked_sub(b'0').filter(|d| *d < 10)?) / 1_000_000_000;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_table() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (20_000_000, "20ms"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (245_001_000_000, "4m5.001s"),
            (18_000_000_000_000 + 367_001_000_000, "5h6m7.001s"),
            (86_400_000_000_000, "24h0m0s"),
            (-90_000_000_000, "-1m30s"),
            (i64::MAX, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(format_go(nanos), text);
            assert_eq!(parse_go(text), Ok(nanos), "{text}");
        }
        for (text, nanos) in [
            ("0", 0),
            ("1h", 3_600_000_000_000),
            ("+.5s", 500_000_000),
            ("1.5us", 1500),
            ("90m", 5_400_000_000_000),
        ] {
            assert_eq!(parse_go(text), Ok(nanos), "{text}");
        }
        for text in [
            "",
            "-",
            "1",
            "s",
            ".s",
            "1x",
            "1m2",
            "1..2s",
            "99999999h99999999h",
            "9999999999999999999s",
            "1 s",
        ] {
            assert!(parse_go(text).unwrap_err().to_string().starts_with("invalid duration"), "{text}");
        }
    }

    #[test]
    fn wire_form() {
        let wire = |seconds, nanos| prost_types::Duration { seconds, nanos };
        assert_eq!(to_nanos(None), Ok(0));
        assert_eq!(to_nanos(Some(&wire(-1, -500_000_000))), Ok(-1_500_000_000));
        assert_eq!(to_std(Some(&wire(-1, 0))), Duration::ZERO);
        assert_eq!(to_std(Some(&wire(1, 5))), Duration::new(1, 5));
        for bad in [wire(1, -1), wire(-1, 1), wire(0, 1_000_000_000), wire(i64::MAX, 0), wire(0, i32::MIN)] {
            assert!(to_nanos(Some(&bad)).is_err(), "{bad:?}");
        }
        assert_eq!(from_std(Duration::MAX), from_nanos(i64::MAX));
    }

    proptest! {
        #[test]
        fn both_forms_round_trip(nanos in any::<i64>()) {
            prop_assume!(nanos != i64::MIN);
            prop_assert_eq!(parse_go(&format_go(nanos)), Ok(nanos));
            prop_assert_eq!(to_nanos(Some(&from_nanos(nanos))), Ok(nanos));
        }

        #[test]
        fn any_text_parses_or_errs(text in "[-+0-9.hmsnuµ ]{0,30}") {
            let _ = parse_go(&text);
        }
    }
}
