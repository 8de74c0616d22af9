//! A delta as a message, and a count as it is stored: an unsigned varint of seven bits a byte. Pure.

use ::message::{Framing, Message, MessageError, Uuid, fixed};
use ::proto::JournalName;

use crate::proto::NGramCount;

/// Bytes of the longest count.
const COUNT_BYTES_MAX: usize = 10;

/// A stored value which is not a count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored value {0:02x?} is not a count")]
pub struct CountError(Vec<u8>);

pub(crate) fn encode_count(count: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(COUNT_BYTES_MAX);
    ::prost::encoding::encode_varint(count, &mut value);
    value
}

pub(crate) fn decode_count(value: &[u8]) -> Result<u64, CountError> {
    let mut rest = value;
    match ::prost::encoding::decode_varint(&mut rest) {
        Ok(count) if rest.is_empty() => Ok(count),
        _ => Err(CountError(value.to_vec())),
    }
}

impl Message for NGramCount {
    fn uuid(&self) -> Uuid {
        self.uuid.as_slice().try_into().map_or(Uuid::default(), Uuid)
    }

    fn set_uuid(&mut self, uuid: Uuid) {
        self.uuid = uuid.0.to_vec();
    }

    fn new_acknowledgement(&self, _journal: &JournalName) -> NGramCount {
        NGramCount::default()
    }

    fn encode(&self, framing: Framing, out: &mut Vec<u8>) -> Result<(), MessageError> {
        match framing {
            Framing::Fixed => fixed::encode(self, out),
            other => Err(MessageError::Framing(other)),
        }
    }

    fn decode(&mut self, framing: Framing, payload: &[u8]) -> Result<(), MessageError> {
        match framing {
            Framing::Fixed => *self = fixed::decode(payload)?,
            other => return Err(MessageError::Framing(other)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_varints() {
        for (count, value) in [
            (0, vec![0]),
            (127, vec![0x7f]),
            (128, vec![0x80, 1]),
            (300, vec![0xac, 2]),
            (u64::MAX, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(encode_count(count), value);
            assert_eq!(decode_count(&value), Ok(count));
        }
        for value in [&[][..], &[0x80], &[1, 1], &[0xff; 11]] {
            assert_eq!(decode_count(value), Err(CountError(value.to_vec())));
        }
    }

    #[test]
    fn a_delta_has_its_golden_bytes() {
        let uuid: Uuid = "0000000a-0000-1000-8000-010203040506".parse().unwrap();
        let mut delta = NGramCount { n_gram: "how now".to_owned(), count: 1, ..NGramCount::default() };
        assert_eq!(delta.uuid(), Uuid::default());
        delta.set_uuid(uuid);
        let mut frame = Vec::new();
        Message::encode(&delta, Framing::Fixed, &mut frame).unwrap();
        let mut expected = vec![0x66, 0x33, 0x93, 0x36, 29, 0, 0, 0, 0x0a, 16];
        expected.extend_from_slice(&uuid.0);
        expected.extend_from_slice(b"\x12\x07how now\x18\x01");
        assert_eq!(frame, expected);
        let mut read = NGramCount::default();
        Message::decode(&mut read, Framing::Fixed, &frame[8..]).unwrap();
        assert_eq!((read.uuid(), &read), (uuid, &delta));
        assert!(Message::encode(&delta, Framing::Json, &mut frame).is_err());
        assert!(Message::decode(&mut read, Framing::Fixed, b"\xff").is_err());
    }
}
