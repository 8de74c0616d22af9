//! SHA-1 digests in their wire form: three big-endian integers.

use crate::protocol::Sha1Sum;
use std::fmt::Write;

impl Sha1Sum {
    /// The sum of "no content", which is not the SHA-1 of the empty string.
    pub const ZERO: Sha1Sum = Sha1Sum { part1: 0, part2: 0, part3: 0 };

    /// Wire form of a digest.
    pub fn from_digest(digest: [u8; 20]) -> Sha1Sum {
        let part =
            |begin: usize, end: usize| digest[begin..end].iter().fold(0_u64, |n, b| n << 8 | u64::from(*b));
        Sha1Sum { part1: part(0, 8), part2: part(8, 16), part3: part(16, 20) as u32 }
    }

    /// The digest.
    pub fn digest(&self) -> [u8; 20] {
        let mut digest = [0; 20];
        digest[..8].copy_from_slice(&self.part1.to_be_bytes());
        digest[8..16].copy_from_slice(&self.part2.to_be_bytes());
        digest[16..].copy_from_slice(&self.part3.to_be_bytes());
        digest
    }

    /// Whether this denotes "no content".
    pub fn is_zero(&self) -> bool {
        *self == Sha1Sum::ZERO
    }

    /// Forty lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        self.digest().iter().fold(String::with_capacity(40), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
            hex
        })
    }
}
