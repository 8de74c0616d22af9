//! Messages in journals: UUIDs, clocks, framings, mappings, publisher and sequencer.
//!
//! Journals hold bytes; this crate gives some of them meaning. A [`Message`] carries a [`Uuid`] of its producer, a
//! [`Clock`] and transaction [`Flags`]. A [`Framing`] lays messages out one after the other. A [`PublisherCore`] stamps
//! what is written, and a [`Sequencer`] turns what is read into each producer's committed messages, exactly once.
//!
//! All of it is pure: no input or output, no time but what is passed in, nothing that waits. Drivers are in `client`
//! (readers, publishers) and `consumer` (transactions).

mod clock;
pub mod csv;
pub mod fixed;
mod framing;
pub mod json;
pub mod mapping;
mod message;
mod publisher;
pub mod sequencer;
mod uuid;

pub use crate::uuid::{Flags, ProducerId, Uuid, UuidError};
pub use clock::{Clock, ClockSource};
pub use framing::{Decoder, Framing, Split, UnknownContentType};
pub use message::{BoxError, Envelope, Message, MessageError};
#[doc(hidden)]
pub use proto::JournalName;
pub use publisher::PublisherCore;
pub use sequencer::{QueueOutcome, Sequencer, Step};
