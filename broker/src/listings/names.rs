//! Whose file a listed key is, when names of journals lie within one another. Pure.
//!
//! Nothing forbids that `foo/bar` and `foo/bar/part-0` are both journals of one store. The directory of the first then holds
//! that of the second, whose files look like the first one's own under a path postfix `part-0`. Only the names of the journals
//! which exist tell them apart: a file belongs to the journal with the longest name of which its path is below (journal
//! protocol §10.1).

use std::collections::BTreeSet;
use std::sync::Arc;

/// Names of journals below one directory, relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamesBelow(BTreeSet<Arc<str>>);

impl NamesBelow {
    /// Of all `names`, which are in order from `directory` on, those below it.
    pub fn of<'a>(directory: &str, names: impl Iterator<Item = &'a str>) -> NamesBelow {
        let prefix = format!("{directory}/");
        // Names such as `foo/bar-2` come between `foo/bar` and `foo/bar/part-0`.
        let below = names
            .take_while(|name| name.starts_with(directory))
            .filter_map(|name| name.strip_prefix(&prefix));
        NamesBelow(below.map(Arc::from).collect())
    }

    /// Adds a name.
    pub(crate) fn insert(&mut self, name: &str) {
        if !self.0.contains(name) {
            self.0.insert(name.into());
        }
    }

    /// The longest name which the directory at `path` is of, or is below.
    pub(crate) fn owner_of(&self, path: &str) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        let mut name = path;
        loop {
            if let Some(found) = self.0.get(name) {
                return Some(found);
            }
            name = &name[..name.rfind('/')?];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_longest_name_that_it_is_below() {
        let all = [
            "foo/bar",
            "foo/bar-2",
            "foo/bar/part-0",
            "foo/bar/part-0/deep",
            "foo/bar/part-1",
            "foo/barn",
            "foz",
        ];
        let names = NamesBelow::of("foo/bar", all.into_iter());
        for (path, owner) in [
            ("", None),
            ("date=1", None),
            ("part-00", None),
            ("part-0", Some("part-0")),
            ("part-0/date=1/hour=2", Some("part-0")),
            ("part-0/deep", Some("part-0/deep")),
            ("part-0/deeper", Some("part-0")),
            ("part-1/part-0", Some("part-1")),
        ] {
            assert_eq!(names.owner_of(path), owner, "{path}");
        }
        assert_eq!(NamesBelow::of("foo/barn", all[5..].iter().copied()), NamesBelow::default());
        assert_eq!(NamesBelow::of("foo", all.into_iter()).owner_of("bar-2/x"), Some("bar-2"));
    }
}
