//! Version 1 UUIDs, which carry a producer, its clock and the transaction flags of a message (journal messages §2.1).
//!
//! ```text
//! bytes  0..8   timestamp of the clock: time_low, time_mid, version 1 | time_hi
//! bytes  8..10  variant 10 | counter of the clock (4 bits) | flags (10 bits)
//! bytes 10..16  producer
//! ```

use crate::Clock;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A writer of messages, fresh per publisher. Its clocks increase within each journal.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub [u8; 6]);

impl ProducerId {
    /// A new producer of six random bytes. Sets the multicast bit, so that it is no machine's address.
    pub fn from_random(mut random: [u8; 6]) -> ProducerId {
        random[0] |= 0x01;
        ProducerId(random)
    }
}

impl fmt::Display for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ProducerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a message takes part in a transaction: ten bits, stored. They are values rather than a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// Committed by itself.
    pub const OUTSIDE_TXN: Flags = Flags(0x000);
    /// Pending until its producer acknowledges it.
    pub const CONTINUE_TXN: Flags = Flags(0x001);
    /// Acknowledges (or, by its clock, rolls back) what its producer wrote before.
    pub const ACK_TXN: Flags = Flags(0x002);
}

/// A version 1 UUID. The zero UUID opts a message out of sequencing. Its text is canonical: lower case, hyphenated.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Composes a UUID. Flags beyond their ten bits are cut.
    pub fn build(producer: ProducerId, clock: Clock, flags: Flags) -> Uuid {
        let time = clock.timestamp();
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&(time as u32).to_be_bytes());
        bytes[4..6].copy_from_slice(&((time >> 32) as u16).to_be_bytes());
        bytes[6..8].copy_from_slice(&(0x1000 | (time >> 48) as u16 & 0xfff).to_be_bytes());
        bytes[8..10].copy_from_slice(&(0x8000 | clock.counter() << 10 | flags.0 & 0x3ff).to_be_bytes());
        bytes[10..16].copy_from_slice(&producer.0);
        Uuid(bytes)
    }

    /// Who wrote the message.
    pub fn producer(&self) -> ProducerId {
        let b = &self.0;
        ProducerId([b[10], b[11], b[12], b[13], b[14], b[15]])
    }

    /// The producer's clock of the message.
    pub fn clock(&self) -> Clock {
        let b = &self.0;
        let low = u64::from(u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let mid = u64::from(u16::from_be_bytes([b[4], b[5]]));
        let high = u64::from(u16::from_be_bytes([b[6], b[7]]) & 0xfff);
        Clock::from_parts(high << 48 | mid << 32 | low, self.tail() >> 10 & 0xf)
    }

    /// The transaction flags of the message.
    pub fn flags(&self) -> Flags {
        Flags(self.tail() & 0x3ff)
    }

    fn tail(&self) -> u16 {
        u16::from_be_bytes([self.0[8], self.0[9]])
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        f.write_str(uuid::Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut text))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text which is not a UUID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid UUID {text:?}: {reason}")]
pub struct UuidError {
    text: String,
    reason: uuid::Error,
}

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Uuid, UuidError> {
        match uuid::Uuid::try_parse(text) {
            Ok(parsed) => Ok(Uuid(parsed.into_bytes())),
            Err(reason) => Err(UuidError { text: text.chars().take(64).collect(), reason }),
        }
    }
}

impl Serialize for Uuid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        serializer.serialize_str(uuid::Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut text))
    }
}

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Uuid;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hyphenated UUID")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uuid, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PRODUCER: ProducerId = ProducerId([1, 2, 3, 4, 5, 6]);

    #[test]
    fn golden_vectors() {
        let wall = 0x1e9c_c5f8_3fc2_f810;
        for (clock, flags, text) in [
            (160, 0, "0000000a-0000-1000-8000-010203040506"),
            (160, 1, "0000000a-0000-1000-8001-010203040506"),
            (480, 2, "0000001e-0000-1000-8002-010203040506"),
            (wall, 0, "83fc2f81-cc5f-11e9-8000-010203040506"),
            (wall + 160, 1, "83fc2f8b-cc5f-11e9-8001-010203040506"),
            (wall + 320, 2, "83fc2f95-cc5f-11e9-8002-010203040506"),
            (wall | 0xf, 2, "83fc2f81-cc5f-11e9-bc02-010203040506"),
            (wall, 682, "83fc2f81-cc5f-11e9-82aa-010203040506"),
        ] {
            let uuid = Uuid::build(PRODUCER, Clock(clock), Flags(flags));
            assert_eq!(uuid.to_string(), text);
            assert_eq!(text.parse(), Ok(uuid));
            assert_eq!((uuid.producer(), uuid.clock(), uuid.flags()), (PRODUCER, Clock(clock), Flags(flags)));
        }
    }

    #[test]
    fn it_is_a_standard_version_1_uuid() {
        let uuid = Uuid::build(PRODUCER, Clock(0x1e9c_c5f8_3fc2_f810), Flags(682));
        let standard = uuid::Uuid::from_bytes(uuid.0);
        assert_eq!(standard.get_version_num(), 1);
        assert_eq!(standard.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn producers_have_the_multicast_bit() {
        assert_eq!(ProducerId::from_random([0xaa; 6]), ProducerId([0xab, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa]));
    }

    #[test]
    fn text_which_is_no_uuid_is_an_error() {
        for text in
            ["", "nope", "0000000a-0000-1000-8000-01020304050", "0000000a-0000-1000-8000-01020304050g"]
        {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn parts_round_trip(producer: [u8; 6], clock: u64, flags in 0u16..0x400) {
            let (producer, clock, flags) = (ProducerId(producer), Clock(clock), Flags(flags));
            let uuid = Uuid::build(producer, clock, flags);
            prop_assert_eq!((uuid.producer(), uuid.clock(), uuid.flags()), (producer, clock, flags));
            prop_assert_eq!(uuid.to_string().parse(), Ok(uuid));
            let json = serde_json::to_string(&uuid).unwrap();
            prop_assert_eq!(serde_json::from_str::<Uuid>(&json).unwrap(), uuid);
        }
    }
}
