//! The two messages of stream-sum, as JSON lines, and the checksum which folds one into the other.
//!
//! A stream is a random id and a run of chunks with consecutive numbers; an empty chunk ends it. Its sum is the CRC-64/XZ
//! of the data of all its chunks. Shapes (names are stored, so they are fixed):
//!
//! ```text
//! {"UUID":"…","ID":[16 numbers],"SeqNo":1,"Data":"base64"}     data is null when empty
//! {"UUID":"…","ID":[16 numbers],"SeqNo":101,"Value":123}
//! ```

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use message::Uuid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::crc64::crc64;

/// A random name of a stream.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId(pub [u8; 16]);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A piece of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Chunk {
    /// Stamped by the publisher.
    #[serde(rename = "UUID")]
    pub uuid: Uuid,
    /// The stream.
    #[serde(rename = "ID")]
    pub id: StreamId,
    /// Position in the stream: one, two, …
    pub seq_no: i64,
    /// Content. Empty ends the stream.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Vec<u8>,
}

/// The checksum of a stream, so far or at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Sum {
    /// Stamped by the publisher; zero while the stream goes on.
    #[serde(rename = "UUID")]
    pub uuid: Uuid,
    /// The stream.
    #[serde(rename = "ID")]
    pub id: StreamId,
    /// Position of the last chunk that was folded in.
    pub seq_no: i64,
    /// CRC-64/XZ of the data so far.
    pub value: u64,
}

/// What a chunk did to its sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    /// More chunks follow.
    Open,
    /// It was the last one.
    Done,
}

/// A chunk which cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It is of another stream.
    #[error("invalid chunk.ID ({found}; expected {expected})")]
    Id {
        /// Of the chunk.
        found: StreamId,
        /// Of the sum.
        expected: StreamId,
    },
    /// A chunk before it is missing, or it was folded in already.
    #[error("invalid chunk.SeqNo ({found} of stream {id}; expected {expected})")]
    SeqNo {
        /// The stream.
        id: StreamId,
        /// Of the chunk.
        found: i64,
        /// The one that follows.
        expected: i64,
    },
}

impl Sum {
    /// The sum of a stream without chunks.
    pub fn of_stream(id: StreamId) -> Sum {
        Sum { id, ..Sum::default() }
    }

    /// Folds the next chunk in.
    ///
    /// # Errors
    /// If the chunk is not the next one of this stream. The sum is then as before.
    pub fn update(&mut self, chunk: &Chunk) -> Result<Updated, UpdateError> {
        if chunk.id != self.id {
            return Err(UpdateError::Id { found: chunk.id, expected: self.id });
        }
        let expected = self.seq_no.saturating_add(1);
        if chunk.seq_no != expected {
            return Err(UpdateError::SeqNo { id: self.id, found: chunk.seq_no, expected });
        }
        self.seq_no = chunk.seq_no;
        self.value = crc64(self.value, &chunk.data);
        Ok(if chunk.data.is_empty() { Updated::Done } else { Updated::Open })
    }
}

fn to_base64<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    if data.is_empty() {
        serializer.serialize_none()
    } else {
        serializer.serialize_str(&STANDARD.encode(data))
    }
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Visitor;
    impl serde::de::Visitor<'_> for Visitor {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("base64 text or null")
        }

        fn visit_unit<E>(self) -> Result<Vec<u8>, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            STANDARD.decode(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_any(Visitor)
}

message::json_message!(Chunk);
message::json_message!(Sum);

#[cfg(test)]
mod tests {
    use message::{Framing, Message};
    use proptest::prelude::*;

    use super::*;

    const ID: StreamId = StreamId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]);

    fn encoded(message: &impl Message) -> String {
        let mut out = Vec::new();
        message.encode(Framing::Json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_chunk_has_its_golden_shape() {
        let uuid: Uuid = "0000000a-0000-1000-8000-010203040506".parse().unwrap();
        let chunk = Chunk { uuid, id: ID, seq_no: 1, data: b"battery".to_vec() };
        assert_eq!(
            encoded(&chunk),
            "{\"UUID\":\"0000000a-0000-1000-8000-010203040506\",\
             \"ID\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,255],\"SeqNo\":1,\"Data\":\"YmF0dGVyeQ==\"}\n"
        );
        assert_eq!(
            encoded(&Chunk::default()),
            "{\"UUID\":\"00000000-0000-0000-0000-000000000000\",\
             \"ID\":[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],\"SeqNo\":0,\"Data\":null}\n"
        );
    }

    #[test]
    fn a_sum_has_its_golden_shape() {
        let sum = Sum { uuid: Uuid::default(), id: ID, seq_no: 101, value: u64::MAX };
        assert_eq!(
            encoded(&sum),
            "{\"UUID\":\"00000000-0000-0000-0000-000000000000\",\
             \"ID\":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,255],\"SeqNo\":101,\"Value\":18446744073709551615}\n"
        );
    }

    #[test]
    fn updates_follow_the_vectors() {
        let chunk = |seq_no, data: &[u8]| Chunk { id: ID, seq_no, data: data.to_vec(), ..Chunk::default() };
        let mut sum = Sum::of_stream(ID);
        assert_eq!(sum.update(&chunk(1, b"battery")), Ok(Updated::Open));
        assert_eq!((sum.seq_no, sum.value), (1, 0x2be5_5fc6_6a38_1c84));
        assert_eq!(sum.update(&chunk(2, b" horse")), Ok(Updated::Open));
        assert_eq!((sum.seq_no, sum.value), (2, 0xae76_3109_c119_2ed6));
        let before = sum.clone();
        let again = sum.update(&chunk(2, b" horse")).unwrap_err();
        assert_eq!(again, UpdateError::SeqNo { id: ID, found: 2, expected: 3 });
        let foreign = sum.update(&Chunk { seq_no: 3, ..Chunk::default() }).unwrap_err();
        assert_eq!(foreign, UpdateError::Id { found: StreamId::default(), expected: ID });
        assert_eq!(sum, before);
        assert_eq!(sum.update(&chunk(3, b"")), Ok(Updated::Done));
        assert_eq!((sum.seq_no, sum.value), (3, 0xae76_3109_c119_2ed6));
    }

    proptest! {
        #[test]
        fn messages_round_trip(id: [u8; 16], uuid: [u8; 16], seq_no: i64, value: u64, data: Vec<u8>) {
            let (id, uuid) = (StreamId(id), Uuid(uuid));
            let chunk = Chunk { uuid, id, seq_no, data };
            let mut read = Chunk::default();
            read.decode(Framing::Json, encoded(&chunk).as_bytes()).unwrap();
            prop_assert_eq!(read, chunk);
            let sum = Sum { uuid, id, seq_no, value };
            let mut read = Sum::default();
            read.decode(Framing::Json, encoded(&sum).as_bytes()).unwrap();
            prop_assert_eq!(read, sum);
        }

        #[test]
        fn other_bytes_are_an_error_and_no_panic(bytes: Vec<u8>, cut in 0usize..200, flip: u8) {
            let _ = Chunk::default().decode(Framing::Json, &bytes);
            let mut text = encoded(&Chunk { data: bytes, ..Chunk::default() }).into_bytes();
            let at = cut % text.len();
            text[at] ^= flip;
            let _ = Chunk::default().decode(Framing::Json, &text);
            let _ = Sum::default().decode(Framing::Json, &text[..at]);
        }
    }
}
