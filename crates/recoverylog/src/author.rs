//! Authors: who wrote an operation, and the register by which a newer author fences an older one.

use proto::Invalid;
use proto::protocol::{LabelSelector, LabelSet};
use runtime::Entropy;
use std::fmt;
use std::num::NonZeroU32;

/// Name of the journal register which holds the fence.
pub const FENCE_REGISTER: &str = "author";

/// The random, never zero id of one recorder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author(NonZeroU32);

impl Author {
    /// The author of this id; zero is nobody.
    pub fn new(id: u32) -> Result<Author, Invalid> {
        NonZeroU32::new(id).map(Author).ok_or_else(|| Invalid::new("invalid Author (0; expected > 0)"))
    }

    /// A new author, uniform over all ids.
    pub fn random(entropy: &Entropy) -> Author {
        loop {
            if let Some(id) = NonZeroU32::new(entropy.u32()) {
                return Author(id);
            }
        }
    }

    /// The id, never zero.
    pub fn id(self) -> u32 {
        self.0.get()
    }

    /// The value of the fence register: the id in base 32 with digits `0-9a-v` and no padding (consumer protocol §4.2).
    pub fn fence(self) -> String {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let digits = (32 - self.id().leading_zeros()).div_ceil(5);
        (0..digits).rev().map(|at| char::from(DIGITS[(self.id() >> (5 * at)) as usize & 31])).collect()
    }

    /// The registers which an append unites to take the fence.
    pub fn take_fence(self) -> LabelSet {
        LabelSet::from_pairs([(FENCE_REGISTER, self.fence())])
    }

    /// What an append requires of the registers to hold the fence.
    pub fn check_fence(self) -> LabelSelector {
        LabelSelector::include([(FENCE_REGISTER, self.fence())])
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fence())
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Author({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_are_base_32() {
        for (id, fence) in
            [(1, "1"), (31, "v"), (32, "10"), (1234, "16i"), (1337, "19p"), (u32::MAX, "3vvvvvv")]
        {
            assert_eq!(Author::new(id).unwrap().fence(), fence);
        }
    }

    #[test]
    fn zero_is_nobody() {
        assert_eq!(Author::new(0).unwrap_err().to_string(), "invalid Author (0; expected > 0)");
    }

    #[test]
    fn random_authors_differ() {
        let entropy = Entropy::seeded(1);
        let authors: std::collections::BTreeSet<_> = (0..1000).map(|_| Author::random(&entropy)).collect();
        assert_eq!(authors.len(), 1000);
    }
}
