//! What a token allows: a mask of bits, which go over the wire as they are (journal protocol §13.1).

use std::fmt;
use std::ops::BitOr;

/// Bits with a name, as they are stored in tokens.
const NAMED: [(Capability, &str); 5] = [
    (Capability::LIST, "LIST"),
    (Capability::APPLY, "APPLY"),
    (Capability::READ, "READ"),
    (Capability::APPEND, "APPEND"),
    (Capability::REPLICATE, "REPLICATE"),
];

/// A set of capabilities. Applications may use the bits from 65536 on for their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capability(u32);

impl Capability {
    /// Nothing.
    pub const NONE: Capability = Capability(0);
    /// Listing journals or shards.
    pub const LIST: Capability = Capability(2);
    /// Changing the specifications of journals or shards.
    pub const APPLY: Capability = Capability(4);
    /// Reading journals, and the state of shards.
    pub const READ: Capability = Capability(8);
    /// Appending to journals.
    pub const APPEND: Capability = Capability(16);
    /// Replicating journals, as brokers do among themselves.
    pub const REPLICATE: Capability = Capability(32);
    /// Everything, bits of applications included.
    pub const ALL: Capability = Capability(u32::MAX);

    /// The set of these bits.
    pub const fn from_bits(bits: u32) -> Capability {
        Capability(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The capability of this name, in any case: one of LIST, APPLY, READ, APPEND, REPLICATE, ALL.
    pub fn named(name: &str) -> Option<Capability> {
        let named = NAMED.iter().chain(&[(Capability::ALL, "ALL")]);
        named
            .into_iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(capability, _)| *capability)
    }

    /// Whether this has every bit of `required`.
    pub const fn has(self, required: Capability) -> bool {
        self.0 & required.0 == required.0
    }

    /// The name of the first named capability which `required` has and this lacks.
    pub(crate) fn first_missing(self, required: Capability) -> Option<&'static str> {
        let is_missing = |bit: Capability| required.has(bit) && !self.has(bit);
        NAMED.iter().find(|(bit, _)| is_missing(*bit)).map(|(_, name)| *name)
    }
}

impl BitOr for Capability {
    type Output = Capability;

    fn bitor(self, other: Capability) -> Capability {
        Capability(self.0 | other.0)
    }
}

/// In binary, as error texts have it.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:b}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_protocol() {
        let bits = NAMED.map(|(capability, name)| (name, capability.bits()));
        assert_eq!(bits, [("LIST", 2), ("APPLY", 4), ("READ", 8), ("APPEND", 16), ("REPLICATE", 32)]);
        assert_eq!(Capability::ALL.bits(), 4_294_967_295);
        assert_eq!(Capability::named("append"), Some(Capability::APPEND));
        assert_eq!(Capability::named("ALL"), Some(Capability::ALL));
        assert_eq!(Capability::named("WRITE"), None);
    }

    #[test]
    fn the_first_missing_bit_is_named() {
        let both = Capability::LIST | Capability::READ;
        assert!(both.has(Capability::READ) && both.has(Capability::NONE) && !both.has(Capability::APPLY));
        assert_eq!(both.first_missing(Capability::READ | Capability::APPEND), Some("APPEND"));
        assert_eq!(Capability::NONE.first_missing(both), Some("LIST"));
        assert_eq!(both.first_missing(Capability::from_bits(1 << 16)), None);
        assert_eq!(both.to_string(), "1010");
    }
}
