//! Go's `time.Time` in UTC, as far as templates can see it: its parts, and its formatting by example layout.

use std::time::Duration;

const DAY_SECONDS: i64 = 24 * 60 * 60;
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A time of the proleptic Gregorian calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GoTime {
    unix: i64,
    nanosecond: u32,
}

/// A piece of a layout which stands for a part of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Month(Style),
    Day(Style),
    YearDay(Style),
    Hour24,
    Hour12(Style),
    Minute(Style),
    Second(Style),
    /// Four digits, or two.
    Year {
        short: bool,
    },
    Weekday {
        short: bool,
    },
    HalfDay {
        upper: bool,
    },
    /// Literal text, since UTC has one offset and one name.
    Zone(&'static str),
    /// Separator, digits, and whether trailing zeros are dropped.
    Fraction {
        separator: char,
        digits: usize,
        trims: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Zeros,
    Spaces,
    Name,
    ShortName,
}

/// Layout texts in order of precedence: of two which match, the first wins. Names of months and weekdays, years after an
/// underscore and fractions need a look at what follows, and are found by [`next_part`].
const PARTS: [(&str, Part); 36] = [
    ("MST", Part::Zone("UTC")),
    ("01", Part::Month(Style::Zeros)),
    ("02", Part::Day(Style::Zeros)),
    ("03", Part::Hour12(Style::Zeros)),
    ("04", Part::Minute(Style::Zeros)),
    ("05", Part::Second(Style::Zeros)),
    ("06", Part::Year { short: true }),
    ("002", Part::YearDay(Style::Zeros)),
    ("15", Part::Hour24),
    ("1", Part::Month(Style::Plain)),
    ("2006", Part::Year { short: false }),
    ("2", Part::Day(Style::Plain)),
    ("__2", Part::YearDay(Style::Spaces)),
    ("_2", Part::Day(Style::Spaces)),
    ("3", Part::Hour12(Style::Plain)),
    ("4", Part::Minute(Style::Plain)),
    ("5", Part::Second(Style::Plain)),
    ("PM", Part::HalfDay { upper: true }),
    ("pm", Part::HalfDay { upper: false }),
    ("-070000", Part::Zone("+000000")),
    ("-07:00:00", Part::Zone("+00:00:00")),
    ("-0700", Part::Zone("+0000")),
    ("-07:00", Part::Zone("+00:00")),
    ("-07", Part::Zone("+00")),
    ("Z070000", Part::Zone("Z")),
    ("Z07:00:00", Part::Zone("Z")),
    ("Z0700", Part::Zone("Z")),
    ("Z07:00", Part::Zone("Z")),
    ("Z07", Part::Zone("Z")),
    ("January", Part::Month(Style::Name)),
    ("Jan", Part::Month(Style::ShortName)),
    ("Monday", Part::Weekday { short: false }),
    ("Mon", Part::Weekday { short: true }),
    ("_2006", Part::Year { short: false }),
    (".", Part::Fraction { separator: '.', digits: 0, trims: false }),
    (",", Part::Fraction { separator: ',', digits: 0, trims: false }),
];

impl GoTime {
    /// Go's zero time: the first second of the year 1.
    pub(super) const ZERO: GoTime = GoTime { unix: -62_135_596_800, nanosecond: 0 };
    /// Layout of Go's `Time.String`.
    pub(super) const STRING_LAYOUT: &str = "2006-01-02 15:04:05.999999999 -0700 MST";

    /// The time at `since_epoch`. Times past the year 9999 are held at its end, so that years have four digits.
    pub(super) fn from_unix(since_epoch: Duration) -> GoTime {
        const YEAR_9999_LAST: i64 = 253_402_300_799;
        let unix = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX).min(YEAR_9999_LAST);
        GoTime { unix, nanosecond: since_epoch.subsec_nanos() }
    }

    /// Seconds since the epoch.
    pub(super) fn unix(self) -> i64 {
        self.unix
    }

    /// Nanoseconds within the second.
    pub(super) fn nanosecond(self) -> i64 {
        self.nanosecond.into()
    }

    /// Year, month from 1, and day from 1.
    fn civil(self) -> (i64, i64, i64) {
        // Years here begin in March, which puts the leap day last; an era is 400 of them.
        let days = self.unix.div_euclid(DAY_SECONDS) + 719_468;
        let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        (era * 400 + year_of_era + i64::from(month <= 2), month, day)
    }

    pub(super) fn year(self) -> i64 {
        self.civil().0
    }

    pub(super) fn month(self) -> i64 {
        self.civil().1
    }

    pub(super) fn month_name(self) -> &'static str {
        MONTHS[self.month() as usize - 1]
    }

    pub(super) fn day(self) -> i64 {
        self.civil().2
    }

    /// Day of the year, from 1.
    pub(super) fn year_day(self) -> i64 {
        let (year, month, day) = self.civil();
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334][month as usize - 1];
        before + i64::from(leap && month > 2) + day
    }

    /// Day of the week, from 0 for Sunday.
    pub(super) fn weekday(self) -> i64 {
        (self.unix.div_euclid(DAY_SECONDS) + 4).rem_euclid(7)
    }

    pub(super) fn weekday_name(self) -> &'static str {
        WEEKDAYS[self.weekday() as usize]
    }

    pub(super) fn hour(self) -> i64 {
        self.unix.rem_euclid(DAY_SECONDS) / 3600
    }

    pub(super) fn minute(self) -> i64 {
        self.unix.rem_euclid(3600) / 60
    }

    pub(super) fn second(self) -> i64 {
        self.unix.rem_euclid(60)
    }

    /// The time as `layout` shows Go's reference time, Mon Jan 2 15:04:05 MST 2006.
    pub(super) fn format(self, layout: &str) -> String {
        let mut out = String::with_capacity(layout.len() + 8);
        let mut rest = layout;
        while let Some((start, length, part)) = next_part(rest) {
            out.push_str(&rest[..start]);
            self.push_part(&mut out, part);
            rest = &rest[start + length..];
        }
        out.push_str(rest);
        out
    }

    fn push_part(self, out: &mut String, part: Part) {
        match part {
            Part::Month(Style::Name) => out.push_str(self.month_name()),
            Part::Month(Style::ShortName) => out.push_str(&self.month_name()[..3]),
            Part::Month(style) => push_number(out, self.month(), style, 2),
            Part::Day(style) => push_number(out, self.day(), style, 2),
            Part::YearDay(style) => push_number(out, self.year_day(), style, 3),
            Part::Hour24 => push_number(out, self.hour(), Style::Zeros, 2),
            Part::Hour12(style) => push_number(out, (self.hour() + 11) % 12 + 1, style, 2),
            Part::Minute(style) => push_number(out, self.minute(), style, 2),
            Part::Second(style) => push_number(out, self.second(), style, 2),
            Part::Year { short: false } => push_number(out, self.year(), Style::Zeros, 4),
            Part::Year { short: true } => push_number(out, self.year().rem_euclid(100), Style::Zeros, 2),
            Part::Weekday { short: true } => out.push_str(&self.weekday_name()[..3]),
            Part::Weekday { short: false } => out.push_str(self.weekday_name()),
            Part::HalfDay { upper } => out.push_str(match (self.hour() < 12, upper) {
                (true, true) => "AM",
                (true, false) => "am",
                (false, true) => "PM",
                (false, false) => "pm",
            }),
            Part::Zone(text) => out.push_str(text),
            Part::Fraction { separator, digits, trims } => {
                let nanoseconds = format!("{:09}", self.nanosecond);
                let shown = &nanoseconds[..digits.min(9)];
                let shown = if trims { shown.trim_end_matches('0') } else { shown };
                if !shown.is_empty() {
                    out.push(separator);
                    out.push_str(shown);
                }
            }
        }
    }
}

fn push_number(out: &mut String, number: i64, style: Style, width: usize) {
    match style {
        Style::Zeros => out.push_str(&format!("{number:0width$}")),
        Style::Spaces => out.push_str(&format!("{number:width$}")),
        _ => out.push_str(&number.to_string()),
    }
}

/// Start, length and meaning of the first part of `layout`.
fn next_part(layout: &str) -> Option<(usize, usize, Part)> {
    (0..layout.len()).filter(|&at| layout.is_char_boundary(at)).find_map(|at| {
        let rest = &layout[at..];
        let (text, part) =
            PARTS.iter().find(|(text, part)| rest.starts_with(text) && holds(*part, text, rest))?;
        Some(match part {
            // The underscore before a year is literal.
            Part::Year { .. } if text.starts_with('_') => (at + 1, text.len() - 1, *part),
            Part::Fraction { separator, .. } => {
                let digits = fraction_digits(&rest[1..])?;
                let trims = rest[1..].starts_with('9');
                (at, 1 + digits, Part::Fraction { separator: *separator, digits, trims })
            }
            _ => (at, text.len(), *part),
        })
    })
}

/// Whether `rest`, which starts with `text`, means `part`.
fn holds(part: Part, text: &str, rest: &str) -> bool {
    let after = &rest[text.len()..];
    let lower_follows = after.starts_with(|c: char| c.is_ascii_lowercase());
    match part {
        Part::Month(Style::ShortName) | Part::Weekday { short: true } => !lower_follows,
        Part::Day(Style::Spaces) => !rest.starts_with("_2006"),
        Part::Fraction { .. } => fraction_digits(after).is_some(),
        _ => true,
    }
}

/// Length of a run of `0`s or of `9`s which no other digit follows.
fn fraction_digits(text: &str) -> Option<usize> {
    let digit = text.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let after = text.trim_start_matches(digit);
    (!after.starts_with(|c: char| c.is_ascii_digit())).then_some(text.len() - after.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tue May 3 2022 04:05:06.078 UTC.
    const TIME: GoTime = GoTime { unix: 1_651_550_706, nanosecond: 78_000_000 };

    #[test]
    fn layouts_are_written_by_example() {
        let cases = [
            ("2006-01-02", "2022-05-03"),
            ("15", "04"),
            ("2006/01/02/15", "2022/05/03/04"),
            ("Mon Jan _2 15:04:05 2006", "Tue May  3 04:05:06 2022"),
            ("Monday, 02-Jan-06 15:04:05 MST", "Tuesday, 03-May-22 04:05:06 UTC"),
            ("2006-01-02T15:04:05.999999999Z07:00", "2022-05-03T04:05:06.078Z"),
            ("3:04PM 03pm 3", "4:05AM 04am 4"),
            ("January Januar Jan Janx", "May Januar May Janx"),
            ("002 __2 2 02", "123 123 3 03"),
            ("_2006 _2", "_2022  3"),
            ("05.000 05,00 05.0000000000", "06.078 06,07 06.078000000"),
            ("5.9 5.99 5.01 5.", "6 6.07 6.05 6."),
            ("-0700 -07:00 -07 -070000 Z0700", "+0000 +00:00 +00 +000000 Z"),
            ("1/4/5", "5/5/6"),
            ("hour=世15", "hour=世04"),
            ("Mont Monday Mon", "Mont Tuesday Tue"),
            ("", ""),
        ];
        for (layout, expected) in cases {
            assert_eq!(TIME.format(layout), expected, "{layout}");
        }
        assert_eq!(GoTime::ZERO.format(GoTime::STRING_LAYOUT), "0001-01-01 00:00:00 +0000 UTC");
    }

    #[test]
    fn calendar_agrees_with_counted_days() {
        let (mut year, mut month, mut day, mut year_day) = (1, 1, 1, 1);
        let mut time = GoTime::ZERO;
        while year < 2500 {
            assert_eq!(
                (time.year(), time.month(), time.day(), time.year_day()),
                (year, month, day, year_day)
            );
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let days = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            (day, year_day) = (day + 1, year_day + 1);
            if day > days[month as usize - 1] {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month, year_day) = (year + 1, 1, 1);
            }
            time.unix += DAY_SECONDS;
        }
        assert_eq!(TIME.weekday_name(), "Tuesday");
        assert_eq!(GoTime::from_unix(Duration::MAX).format("2006-01-02"), "9999-12-31");
    }
}
