//! When a store is listed from its beginning, and when only for what is new. Pure.
//!
//! Names of fragment files begin with their offset, so that within a directory what is new follows what is known, and a
//! listing may begin after the greatest known key. It does not find everything: files which others removed still seem to
//! be there, a replica that was held up stores what is older than the newest, and path postfixes need not grow. So a store
//! is listed from its beginning
//!
//! - the first time, and while nothing is known there;
//! - when the journal's postfix template has changed since the last time;
//! - while its keys are in disorder, which is to say that the greatest key is not that of the newest content: the template
//!   does not grow (that of an hour without its date), or the clock of a broker was ahead;
//! - when the last time is [`FULL_LISTING_INTERVALS`] refresh intervals ago;
//! - when a reader lacks content which a listing of what is new did not find.
//!
//! Each store of a journal is judged on its own.

use std::collections::BTreeMap;
use std::time::Duration;

use fragment::{Codec, Fragment, PathPostfix, Sum};

/// A store is listed from its beginning at least once in this many refresh intervals.
pub(crate) const FULL_LISTING_INTERVALS: u32 = 12;
/// Directories, those of the newest content, whose order is looked at.
const DIRECTORIES_JUDGED: usize = 64;
/// Directories that are kept account of while a store is listed. With more of them keys count as being in disorder.
const DIRECTORIES_MAX: usize = 1 << 16;

/// What the keys of a journal in a store say about where new ones will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frontier {
    /// There are none.
    Nothing,
    /// After this key, relative to the journal's directory. It is of content that begins at `begin`.
    After { key: String, begin: i64 },
    /// Anywhere.
    Disorder,
}

/// The last listing of a store from its beginning, and what was learned since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    /// When it began.
    pub(crate) full_at: Duration,
    /// The postfix template of that time.
    pub(crate) template: String,
    pub(crate) frontier: Frontier,
}

/// What bears upon the next listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// The time, since any one beginning.
    pub(crate) now: Duration,
    /// The journal's refresh interval.
    pub(crate) interval: Duration,
    /// The journal's postfix template.
    pub(crate) template: &'a str,
    /// Listings in a row which readers wanted, with this one.
    pub(crate) wants: u32,
}

/// How to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Full(Why),
    After(String),
}

/// Why a listing is from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    First,
    Template,
    Disorder,
    Due,
    Wanted,
}

/// The rule of the module's documentation.
pub(crate) fn plan(history: Option<&History>, ask: &Ask<'_>) -> Plan {
    let Some(History { full_at, template, frontier }) = history else { return Plan::Full(Why::First) };
    let key = match frontier {
        Frontier::Nothing => return Plan::Full(Why::First),
        _ if template != ask.template => return Plan::Full(Why::Template),
        Frontier::Disorder => return Plan::Full(Why::Disorder),
        Frontier::After { key, .. } => key,
    };
    if ask.now.saturating_sub(*full_at) >= ask.interval * FULL_LISTING_INTERVALS {
        Plan::Full(Why::Due)
    } else if ask.wants > 1 {
        Plan::Full(Why::Wanted)
    } else {
        Plan::After(key.clone())
    }
}

/// Gathers where the keys of one listing end. Keys may come in any order.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    directories: BTreeMap<PathPostfix, Directory>,
    are_too_many: bool,
}

/// The files of one postfix. Names order as offsets do, since they have as many digits.
#[derive(Debug)]
struct Directory {
    least: i64,
    greatest: (i64, i64, Sum, Codec),
}

impl Keys {
    /// Takes note of a listed file.
    pub(crate) fn note(&mut self, fragment: &Fragment) {
        let Fragment { begin, end, sum, codec, .. } = *fragment;
        let greatest = (begin, end, sum, codec);
        if let Some(directory) = self.directories.get_mut(&fragment.path_postfix) {
            directory.least = directory.least.min(begin);
            directory.greatest = directory.greatest.max(greatest);
        } else if self.directories.len() < DIRECTORIES_MAX {
            self.directories.insert(fragment.path_postfix.clone(), Directory { least: begin, greatest });
        } else {
            self.are_too_many = true;
        }
    }

    /// Where new keys will be, if the journal has this template. Without one they are in the journal's own directory, and
    /// other directories are of earlier templates.
    pub(crate) fn frontier(self, template: &str) -> Frontier {
        if self.are_too_many {
            return Frontier::Disorder;
        }
        let mut directories: Vec<_> = self.current(template).collect();
        directories.sort_by_key(|(_, directory)| directory.greatest.0);
        let Some(last) = directories.last() else { return Frontier::Nothing };
        let (key, begin) = (key_of(last), last.1.greatest.0);
        if directories.iter().any(|other| key_of(other) > key) {
            return Frontier::Disorder;
        }
        let judged = &directories[directories.len().saturating_sub(DIRECTORIES_JUDGED)..];
        let follows = |two: &[(&PathPostfix, &Directory)]| {
            two[0].1.greatest.0 <= two[1].1.least && key_of(&two[0]) < key_of(&two[1])
        };
        if judged.windows(2).all(follows) { Frontier::After { key, begin } } else { Frontier::Disorder }
    }

    fn current<'a>(&'a self, template: &'a str) -> impl Iterator<Item = (&'a PathPostfix, &'a Directory)> {
        self.directories.iter().filter(|(postfix, _)| !template.is_empty() || postfix.as_str().is_empty())
    }
}

fn key_of((postfix, directory): &(&PathPostfix, &Directory)) -> String {
    let (begin, end, sum, codec) = directory.greatest;
    let slash = if postfix.as_str().is_empty() { "" } else { "/" };
    format!("{postfix}{slash}{begin:016x}-{end:016x}-{sum}{}", codec.suffix())
}

impl Frontier {
    /// Takes what a listing of what is new has found.
    pub(crate) fn advance(&mut self, found: Keys, template: &str) {
        let least = found.current(template).map(|(_, directory)| directory.least).min();
        let found = found.frontier(template);
        match (&*self, &found) {
            (_, Frontier::Nothing) | (Frontier::Disorder, _) => {}
            // The greatest key was not that of the newest content.
            (Frontier::After { begin, .. }, _) if least.is_some_and(|least| least < *begin) => {
                *self = Frontier::Disorder;
            }
            _ => *self = found,
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::JournalName;

    use super::*;

    const HOURLY: &str = "hour={{ .Spool.FirstAppendTime.Format \"15\" }}";

    fn keys(files: &[(&str, i64)]) -> Keys {
        let mut keys = Keys::default();
        for (postfix, begin) in files {
            let journal = JournalName::parse("a/journal").unwrap();
            let path_postfix = PathPostfix::parse(postfix).unwrap();
            keys.note(&Fragment {
                end: begin + 16,
                path_postfix,
                ..Fragment::empty(journal, *begin, Codec::Gzip)
            });
        }
        keys
    }

    fn name(begin: i64) -> String {
        format!("{begin:016x}-{:016x}-{}.gz", begin + 16, Sum::ZERO)
    }

    fn after(postfix: &str, begin: i64) -> Frontier {
        Frontier::After { key: format!("{postfix}{}", name(begin)), begin }
    }

    #[test]
    fn a_listing_is_from_the_beginning_whenever_it_has_to_be() {
        let history = |frontier: Frontier, template: &str| {
            Some(History { full_at: Duration::from_secs(100), template: template.to_owned(), frontier })
        };
        let known = || after("", 32);
        let new = || Plan::After(name(32));
        for (what, history, now, wants, expected) in [
            ("never listed", None, 100, 0, Plan::Full(Why::First)),
            ("nothing was there", history(Frontier::Nothing, ""), 101, 0, Plan::Full(Why::First)),
            ("the next time", history(known(), ""), 110, 0, new()),
            ("the last time but one", history(known(), ""), 219, 0, new()),
            ("twelve intervals later", history(known(), ""), 220, 0, Plan::Full(Why::Due)),
            ("a clock that went back", history(known(), ""), 7, 0, new()),
            ("a reader lacks content", history(known(), ""), 111, 1, new()),
            ("which was not found", history(known(), ""), 111, 2, Plan::Full(Why::Wanted)),
            ("another template", history(known(), HOURLY), 111, 0, Plan::Full(Why::Template)),
            ("disorder", history(Frontier::Disorder, ""), 111, 0, Plan::Full(Why::Disorder)),
        ] {
            let (now, interval) = (Duration::from_secs(now), Duration::from_secs(10));
            assert_eq!(
                plan(history.as_ref(), &Ask { now, interval, template: "", wants }),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn the_frontier_is_the_greatest_key_if_that_is_of_the_newest_content() {
        let days = |begin: i64| [("date=01", begin), ("date=02", begin + 16), ("date=03", begin + 32)];
        for (what, template, files, expected) in [
            ("nothing", "", vec![], Frontier::Nothing),
            ("plain names", "", vec![("", 32), ("", 0), ("", 16)], after("", 32)),
            (
                "plain names beside those of an earlier template",
                "",
                vec![("", 64), ("date=01", 0)],
                after("", 64),
            ),
            ("only those of an earlier template", "", vec![("date=01", 0)], Frontier::Nothing),
            ("days", HOURLY, days(0).to_vec(), after("date=03/", 32)),
            ("days after plain names", HOURLY, [&[("", 0)], &days(16)[..]].concat(), after("date=03/", 48)),
            ("one directory", HOURLY, vec![("x", 16), ("x", 0)], after("x/", 16)),
            (
                "two which overlap",
                HOURLY,
                vec![("a", 0), ("a", 32), ("b", 16), ("b", 48)],
                Frontier::Disorder,
            ),
            (
                "hours of two days",
                HOURLY,
                vec![("hour=22", 0), ("hour=23", 16), ("hour=00", 32)],
                Frontier::Disorder,
            ),
            (
                "hours of the next evening",
                HOURLY,
                vec![("hour=23", 0), ("hour=00", 16), ("hour=23", 32)],
                Frontier::Disorder,
            ),
            (
                "a clock that was ahead",
                HOURLY,
                [&[("date=99", 8)], &days(0)[..]].concat(),
                Frontier::Disorder,
            ),
        ] {
            assert_eq!(keys(&files).frontier(template), expected, "{what}");
        }
    }

    #[test]
    fn what_is_new_moves_the_frontier_or_shows_disorder() {
        for (what, from, template, files, expected) in [
            ("nothing new", after("", 16), "", vec![], after("", 16)),
            ("newer content", after("", 16), "", vec![("", 48), ("", 32)], after("", 48)),
            ("an earlier template's", after("", 16), "", vec![("date=01", 0)], after("", 16)),
            (
                "a later directory",
                after("date=01/", 16),
                HOURLY,
                vec![("date=02", 32)],
                after("date=02/", 32),
            ),
            (
                "older content in a later directory",
                after("date=01/", 16),
                HOURLY,
                vec![("date=02", 0)],
                Frontier::Disorder,
            ),
            ("disorder stays", Frontier::Disorder, "", vec![("", 0)], Frontier::Disorder),
        ] {
            let mut frontier = from;
            frontier.advance(keys(&files), template);
            assert_eq!(frontier, expected, "{what}");
        }
    }

    #[test]
    fn endless_directories_are_disorder() {
        let mut keys = Keys::default();
        let journal = JournalName::parse("a/journal").unwrap();
        for n in 0..=DIRECTORIES_MAX as i64 {
            let path_postfix = PathPostfix::parse(&format!("{n:08}")).unwrap();
            keys.note(&Fragment {
                end: n + 1,
                path_postfix,
                ..Fragment::empty(journal.clone(), n, Codec::None)
            });
        }
        assert_eq!(keys.frontier(HOURLY), Frontier::Disorder);
    }
}
