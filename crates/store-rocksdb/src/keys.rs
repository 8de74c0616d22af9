//! The keys of a store which are the framework's own, and the ordered encoding of their values (consumer protocol §4.10).
//!
//! The checkpoint is one key. Beside it each journal's offset has a key of its own, which older readers know; they are
//! written along with the checkpoint, and read where there is none. All begin with a zero byte, so applications whose
//! keys do not are safe from them.

use proto::consumer::{Checkpoint, checkpoint::Source};
use std::collections::BTreeMap;

/// Marks a string of an ordered encoding.
const STRING: u8 = 0x12;
/// Ends a string. A zero byte within one is followed by [`ESCAPED_ZERO`].
const END: [u8; 2] = [0x00, 0x01];
const ESCAPED_ZERO: u8 = 0xff;

/// Value of a one-byte integer of zero.
const SMALL_ZERO: u8 = 136;
/// Largest integer of one byte.
const SMALL_MAX: u64 = 109;
/// An integer of `n` bytes begins with this plus `n`.
const LENGTH_ZERO: u8 = 245;

/// A stored offset which cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored offset {key:02x?} = {value:02x?}: {problem}")]
pub struct MarkError {
    key: Box<[u8]>,
    value: Box<[u8]>,
    problem: &'static str,
}

/// The key of the checkpoint.
pub(crate) fn checkpoint_key() -> Vec<u8> {
    let mut key = vec![0];
    put_string(b"checkpoint", &mut key);
    key
}

/// Whether a key is one of these.
pub(crate) fn is_reserved(key: &[u8]) -> bool {
    key.first() == Some(&0) && (key == checkpoint_key() || key.starts_with(&marks_prefix()))
}

/// What the keys of all journals' offsets begin with.
pub(crate) fn marks_prefix() -> Vec<u8> {
    let mut key = vec![0];
    put_string(b"mark", &mut key);
    key.push(STRING);
    key
}

/// The keys and values of the offsets which a checkpoint has read through.
pub(crate) fn marks(checkpoint: &Checkpoint) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    checkpoint.sources.iter().map(|(journal, source)| {
        let mut key = marks_prefix();
        key.pop(); // The prefix ends with the marker of the string to come.
        put_string(journal.as_bytes(), &mut key);
        // Offsets are never negative; were one, then it could only be read as none.
        (key, encode_offset(u64::try_from(source.read_through).unwrap_or(0)))
    })
}

/// The checkpoint which stored offsets stand for.
pub(crate) fn checkpoint_of_marks<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    marks: impl Iterator<Item = (K, V)>,
) -> Result<Checkpoint, MarkError> {
    let mut sources = BTreeMap::new();
    for (key, value) in marks {
        let (key, value) = (key.as_ref(), value.as_ref());
        let error = |problem| MarkError { key: key.into(), value: value.into(), problem };
        let journal = decode_mark_key(key).ok_or_else(|| error("the key has no journal name"))?;
        let read_through = decode_offset(value).ok_or_else(|| error("the value is no offset"))?;
        sources.insert(journal, Source { read_through, ..Source::default() });
    }
    Ok(Checkpoint { sources, ..Checkpoint::default() })
}

fn put_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(STRING);
    for byte in text {
        out.push(*byte);
        if *byte == 0 {
            out.push(ESCAPED_ZERO);
        }
    }
    out.extend_from_slice(&END);
}

fn decode_mark_key(key: &[u8]) -> Option<String> {
    let escaped = key.strip_prefix(marks_prefix().as_slice())?.strip_suffix(&END)?;
    let (mut text, mut bytes) = (Vec::new(), escaped.iter());
    while let Some(byte) = bytes.next() {
        text.push(*byte);
        if *byte == 0 && bytes.next() != Some(&ESCAPED_ZERO) {
            return None;
        }
    }
    String::from_utf8(text).ok()
}

fn encode_offset(offset: u64) -> Vec<u8> {
    if offset <= SMALL_MAX {
        return vec![SMALL_ZERO + offset as u8];
    }
    let bytes = offset.to_be_bytes();
    let skipped = offset.leading_zeros() as usize / 8;
    let mut value = vec![LENGTH_ZERO + (bytes.len() - skipped) as u8];
    value.extend_from_slice(&bytes[skipped..]);
    value
}

/// Decodes an offset, which is not negative.
fn decode_offset(value: &[u8]) -> Option<i64> {
    let (first, rest) = value.split_first()?;
    if let Some(small) = first.checked_sub(SMALL_ZERO).filter(|small| u64::from(*small) <= SMALL_MAX) {
        return rest.is_empty().then_some(i64::from(small));
    }
    let length = usize::from(first.checked_sub(LENGTH_ZERO)?);
    if rest.len() != length || length > 8 {
        return None;
    }
    let offset = rest.iter().fold(0u64, |offset, byte| (offset << 8) | u64::from(*byte));
    i64::try_from(offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checkpoint(sources: &[(&str, i64)]) -> Checkpoint {
        let source = |(journal, read_through): &(&str, i64)| {
            ((*journal).to_owned(), Source { read_through: *read_through, ..Source::default() })
        };
        Checkpoint { sources: sources.iter().map(source).collect(), ..Checkpoint::default() }
    }

    #[test]
    fn keys_and_values_equal_the_vectors() {
        assert_eq!(checkpoint_key(), b"\x00\x12checkpoint\x00\x01");
        let found: Vec<_> = marks(&checkpoint(&[("a/b", 1234)])).collect();
        assert_eq!(found, [(b"\x00\x12mark\x00\x01\x12a/b\x00\x01".to_vec(), vec![0xf7, 0x04, 0xd2])]);
        for (offset, value) in [
            (0, vec![136]),
            (109, vec![245]),
            (110, vec![246, 110]),
            (256, vec![247, 1, 0]),
            (1 << 40, vec![251, 1, 0, 0, 0, 0, 0]),
        ] {
            assert_eq!(encode_offset(offset), value);
            assert_eq!(decode_offset(&value), Some(offset as i64));
        }
    }

    #[test]
    fn stored_offsets_are_a_checkpoint() {
        let before = checkpoint(&[("a/b", 0), ("a/c", 109), ("odd\0name", i64::MAX)]);
        assert_eq!(checkpoint_of_marks(marks(&before)), Ok(before));
    }

    #[test]
    fn odd_keys_and_values_are_errors() {
        let prefixed = |rest: &[u8]| [&marks_prefix(), rest].concat();
        for (key, value) in [
            (prefixed(b"a/b"), vec![136]),
            (prefixed(b"a\x00b\x00\x01"), vec![136]),
            (prefixed(b"\xff\x00\x01"), vec![136]),
            (prefixed(b"a/b\x00\x01"), vec![]),
            (prefixed(b"a/b\x00\x01"), vec![135]),
            (prefixed(b"a/b\x00\x01"), vec![136, 0]),
            (prefixed(b"a/b\x00\x01"), vec![247, 1]),
            (prefixed(b"a/b\x00\x01"), vec![253, 255, 255, 255, 255, 255, 255, 255, 255]),
        ] {
            assert!(checkpoint_of_marks([(key, value)].into_iter()).is_err());
        }
    }

    proptest! {
        #[test]
        fn offsets_round_trip(offset in 0..i64::MAX) {
            prop_assert_eq!(decode_offset(&encode_offset(offset as u64)), Some(offset));
        }

        #[test]
        fn random_keys_and_values_do_not_panic(key: Vec<u8>, value: Vec<u8>) {
            let prefixed = [marks_prefix(), key.clone()].concat();
            let _ = checkpoint_of_marks([(key, value.clone()), (prefixed, value)].into_iter());
        }
    }
}
