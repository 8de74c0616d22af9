//! Compression codecs of stored fragments, as enumerated by the protocol.

use std::fmt;

use proto::protocol::CompressionCodec;

/// How the bytes of a stored fragment are compressed. The numbers are those of the wire and are stored in journal
/// specifications and spool manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The content itself.
    None = 1,
    /// One or more concatenated gzip members.
    Gzip = 2,
    /// A Zstandard stream.
    Zstandard = 3,
    /// The snappy framing format.
    Snappy = 4,
    /// One gzip member, stored with `Content-Encoding: gzip`, which the store may decompress when read.
    GzipOffload = 5,
}

/// A codec number that the protocol does not know, or INVALID (zero).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "compression codec {0} is not known (expected 1 NONE, 2 GZIP, 3 ZSTANDARD, 4 SNAPPY or 5 GZIP_OFFLOAD_DECOMPRESSION)"
)]
pub struct UnknownCodec(pub i32);

impl Codec {
    /// Every codec, in order of number.
    pub const ALL: [Codec; 5] =
        [Codec::None, Codec::Gzip, Codec::Zstandard, Codec::Snappy, Codec::GzipOffload];

    /// Suffix with which names of this codec are written (journal protocol §10.1). Empty for
    /// [`Codec::GzipOffload`], since the store presents such a fragment decompressed.
    pub fn suffix(self) -> &'static str {
        match self {
            Codec::None => ".raw",
            Codec::Gzip => ".gz",
            Codec::Zstandard => ".zst",
            Codec::Snappy => ".sz",
            Codec::GzipOffload => "",
        }
    }

    /// The codec of a name's suffix (its last `.` and what follows, or empty), in any case and with the longer forms.
    pub fn from_suffix(suffix: &str) -> Option<Codec> {
        let is = |accepted: &[&str]| accepted.iter().any(|one| one.eq_ignore_ascii_case(suffix));
        match suffix {
            _ if is(&[".raw"]) => Some(Codec::None),
            _ if is(&[".gz", ".gzip"]) => Some(Codec::Gzip),
            _ if is(&[".zst", ".zstandard"]) => Some(Codec::Zstandard),
            _ if is(&[".sz", ".snappy"]) => Some(Codec::Snappy),
            _ if is(&["", ".gzod"]) => Some(Codec::GzipOffload),
            _ => None,
        }
    }

    /// The wire's enumeration value.
    pub fn to_proto(self) -> CompressionCodec {
        match self {
            Codec::None => CompressionCodec::None,
            Codec::Gzip => CompressionCodec::Gzip,
            Codec::Zstandard => CompressionCodec::Zstandard,
            Codec::Snappy => CompressionCodec::Snappy,
            Codec::GzipOffload => CompressionCodec::GzipOffloadDecompression,
        }
    }

    /// Number of the wire's enumeration.
    pub fn number(self) -> i32 {
        self as i32
    }
}

/// From the number of the wire's enumeration.
impl TryFrom<i32> for Codec {
    type Error = UnknownCodec;

    fn try_from(number: i32) -> Result<Codec, UnknownCodec> {
        Codec::ALL.into_iter().find(|codec| codec.number() == number).ok_or(UnknownCodec(number))
    }
}

/// The protocol's name of the codec.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_proto().as_str_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_suffixes_round_trip() {
        for codec in Codec::ALL {
            assert_eq!(Codec::try_from(codec.number()), Ok(codec));
            assert_eq!(codec.to_proto() as i32, codec.number());
            assert_eq!(Codec::from_suffix(codec.suffix()), Some(codec));
        }
        for number in [0, -1, 6, i32::MAX] {
            assert_eq!(Codec::try_from(number), Err(UnknownCodec(number)));
        }
    }

    #[test]
    fn longer_suffixes_are_accepted_in_any_case() {
        let cases = [
            (".RAW", Some(Codec::None)),
            (".gzip", Some(Codec::Gzip)),
            (".ZstandarD", Some(Codec::Zstandard)),
            (".Snappy", Some(Codec::Snappy)),
            (".gzod", Some(Codec::GzipOffload)),
            (".bz2", None),
            (".", None),
            ("raw", None),
        ];
        for (suffix, codec) in cases {
            assert_eq!(Codec::from_suffix(suffix), codec, "{suffix}");
        }
    }
}
