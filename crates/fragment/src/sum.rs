//! SHA-1 digests of content.

use std::fmt;

use proto::protocol::Sha1Sum;
use sha1::{Digest, Sha1};

/// SHA-1 digest of uncompressed content. All zero ([`Sum::ZERO`]) stands for "no content", which is what an empty
/// fragment carries (it is not the digest of zero bytes).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sum(pub [u8; 20]);

impl Sum {
    /// The sum of an empty fragment.
    pub const ZERO: Sum = Sum([0; 20]);

    /// Digest of `content`.
    pub fn of(content: &[u8]) -> Sum {
        Sum(Sha1::digest(content).into())
    }

    /// The digest which `hasher` has reached.
    pub fn finish(hasher: Sha1) -> Sum {
        Sum(hasher.finalize().into())
    }

    /// Whether this is [`Sum::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Sum::ZERO
    }

    /// Reads exactly 40 hexadecimal digits of either case.
    pub fn from_hex(text: &str) -> Option<Sum> {
        let digits = text.as_bytes();
        if digits.len() != 40 {
            return None;
        }
        let nibble = |digit: u8| (digit as char).to_digit(16);
        let mut sum = Sum::ZERO;
        for (byte, pair) in sum.0.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).expect("two nibbles fit a byte");
        }
        Some(sum)
    }
}

/// Forty lower-case hexadecimal digits.
impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Digest bytes 0–7, 8–15 and 16–19 are read big-endian (journal protocol §2.3).
impl From<Sum> for Sha1Sum {
    fn from(sum: Sum) -> Sha1Sum {
        let part = |at: usize| u64::from_be_bytes(sum.0[at..at + 8].try_into().expect("eight bytes"));
        let part3 = u32::from_be_bytes(sum.0[16..].try_into().expect("four bytes"));
        Sha1Sum { part1: part(0), part2: part(8), part3 }
    }
}

impl From<&Sha1Sum> for Sum {
    fn from(sum: &Sha1Sum) -> Sum {
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&sum.part1.to_be_bytes());
        digest[8..16].copy_from_slice(&sum.part2.to_be_bytes());
        digest[16..].copy_from_slice(&sum.part3.to_be_bytes());
        Sum(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOOBAR: &str = "8843d7f92416211de9ebb963ff4ce28125932878";

    #[test]
    fn hex_round_trips_and_accepts_either_case() {
        assert_eq!(Sum::of(b"foobar").to_string(), FOOBAR);
        assert_eq!(Sum::from_hex(FOOBAR), Some(Sum::of(b"foobar")));
        assert_eq!(Sum::from_hex(&FOOBAR.to_uppercase()), Some(Sum::of(b"foobar")));
        for bad in ["", "88", &FOOBAR[1..], "g843d7f92416211de9ebb963ff4ce28125932878", &"é".repeat(20)] {
            assert_eq!(Sum::from_hex(bad), None, "{bad}");
        }
    }

    #[test]
    fn wire_parts_are_big_endian_and_round_trip() {
        let wire = Sha1Sum::from(Sum::of(b"foobar"));
        assert_eq!(
            (wire.part1, wire.part2, wire.part3),
            (0x8843_d7f9_2416_211d, 0xe9eb_b963_ff4c_e281, 0x2593_2878)
        );
        assert_eq!(Sum::from(&wire), Sum::of(b"foobar"));
        assert!(Sum::from(&Sha1Sum::default()).is_zero());
    }
}
