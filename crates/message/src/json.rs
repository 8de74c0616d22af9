//! Newline-delimited JSON, encoded as Go's default encoder does: `<`, `>`, `&`, U+2028 and U+2029 are escaped, and numbers
//! are written without a needless fraction, so that equal messages have equal bytes whoever wrote them.

use crate::MessageError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{CompactFormatter, Formatter};
use std::io::{self, Write};

/// Appends a document and a line feed to `out`. On error, `out` is as before.
pub fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), MessageError> {
    let start = out.len();
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, GoFormatter);
    if let Err(error) = value.serialize(&mut serializer) {
        out.truncate(start);
        return Err(error.into());
    }
    out.push(b'\n');
    Ok(())
}

/// Decodes one document. White space around it is ignored.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, MessageError> {
    Ok(serde_json::from_slice(payload)?)
}

/// Implements [`Message`](crate::Message) for a type whose messages are lines of JSON, and are not framed otherwise. The type
/// is `Serialize`, `Deserialize` and `Default`, and its field `uuid` is a [`Uuid`](crate::Uuid). An acknowledgement is the
/// default with a UUID.
///
/// ```
/// use message::{Framing, Message, Uuid};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Note {
///     uuid: Uuid,
///     text: String,
/// }
///
/// message::json_message!(Note);
///
/// let mut line = Vec::new();
/// Note { text: "hello".to_owned(), ..Note::default() }.encode(Framing::Json, &mut line)?;
/// assert_eq!(line, b"{\"uuid\":\"00000000-0000-0000-0000-000000000000\",\"text\":\"hello\"}\n");
/// # Ok::<(), message::MessageError>(())
/// ```
#[macro_export]
macro_rules! json_message {
    ($type:ty) => {
        impl $crate::Message for $type {
            fn uuid(&self) -> $crate::Uuid {
                self.uuid
            }

            fn set_uuid(&mut self, uuid: $crate::Uuid) {
                self.uuid = uuid;
            }

            fn new_acknowledgement(&self, _: &$crate::JournalName) -> Self {
                <Self as ::std::default::Default>::default()
            }

            fn encode(
                &self,
                framing: $crate::Framing,
                out: &mut ::std::vec::Vec<u8>,
            ) -> ::std::result::Result<(), $crate::MessageError> {
                match framing {
                    $crate::Framing::Json => $crate::json::encode(self, out),
                    other => ::std::result::Result::Err($crate::MessageError::Framing(other)),
                }
            }

            fn decode(
                &mut self,
                framing: $crate::Framing,
                payload: &[u8],
            ) -> ::std::result::Result<(), $crate::MessageError> {
                match framing {
                    $crate::Framing::Json => *self = $crate::json::decode(payload)?,
                    other => return ::std::result::Result::Err($crate::MessageError::Framing(other)),
                }
                ::std::result::Result::Ok(())
            }
        }
    };
}

/// Compact, with the escapes and numbers of Go's encoder.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((index, escape, len)) = next_escape(rest) {
            writer.write_all(&rest.as_bytes()[..index])?;
            writer.write_all(escape)?;
            rest = &rest[index + len..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_f64<W: Write + ?Sized>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_float(writer, value.abs() < 1e-6 || value.abs() >= 1e21, value == 0.0, &value)
    }

    fn write_f32<W: Write + ?Sized>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        write_float(writer, value.abs() < 1e-6 || value.abs() >= 1e21, value == 0.0, &value)
    }

    fn write_null<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.write_null(writer)
    }
}

/// The first character which Go escapes and JSON does not require to be: its index, its escape and its length in bytes.
fn next_escape(text: &str) -> Option<(usize, &'static [u8], usize)> {
    let bytes = text.as_bytes();
    let ascii = memchr::memchr3(b'<', b'>', b'&', bytes);
    let separator = memchr::memchr_iter(0xe2, &bytes[..ascii.unwrap_or(bytes.len())])
        .find(|&index| matches!(bytes.get(index + 1..index + 3), Some([0x80, 0xa8 | 0xa9])));
    if let Some(index) = separator {
        return Some((index, if bytes[index + 2] == 0xa8 { b"\\u2028" } else { b"\\u2029" }, 3));
    }
    let index = ascii?;
    let escape: &[u8] = match bytes[index] {
        b'<' => b"\\u003c",
        b'>' => b"\\u003e",
        _ => b"\\u0026",
    };
    Some((index, escape, 1))
}

/// Go writes the shortest digits that round-trip, and an exponent only for very small and very large values.
fn write_float<W, F>(writer: &mut W, exponent: bool, zero: bool, value: &F) -> io::Result<()>
where
    W: Write + ?Sized,
    F: std::fmt::Display + std::fmt::LowerExp,
{
    if !exponent || zero {
        return write!(writer, "{value}");
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, power)) if !power.starts_with('-') => write!(writer, "{digits}e+{power}"),
        // Go keeps two digits of small exponents, as "1e-07", and then removes the zero.
        _ => writer.write_all(text.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded<T: Serialize>(value: T) -> String {
        let mut out = Vec::new();
        encode(&value, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            encoded("<a href=\"x\">&\u{2028}é\u{2029}\u{2030}\n"),
            "\"\\u003ca href=\\\"x\\\"\\u003e\\u0026\\u2028é\\u2029\u{2030}\\n\"\n"
        );
    }

    #[test]
    fn floats_are_written_as_go_does() {
        for (value, text) in [
            (1.0, "1\n"),
            (0.0, "0\n"),
            (-0.5, "-0.5\n"),
            (1e21, "1e+21\n"),
            (1e20, "100000000000000000000\n"),
            (1.5e-7, "1.5e-7\n"),
            (1e-6, "0.000001\n"),
        ] {
            assert_eq!(encoded(value), text);
        }
        assert_eq!(encoded(0.1f32), "0.1\n");
    }

    #[test]
    fn a_failed_encoding_leaves_nothing_behind() {
        let mut out = b"before".to_vec();
        let unordered = std::collections::BTreeMap::from([(vec![1], "key is no string")]);
        assert!(encode(&("partly", unordered), &mut out).is_err());
        assert_eq!(out, b"before");
    }
}
