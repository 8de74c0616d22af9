//! Revisions of the etcd store.

use std::fmt;

/// A revision of the etcd store, or the modification revision of one key. Zero is "none", or "absent" in a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// No revision; the key does not exist.
    pub const NONE: Revision = Revision(0);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Revision {
        Revision(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<i64> for Revision {
    fn from(revision: i64) -> Self {
        Revision(revision)
    }
}
