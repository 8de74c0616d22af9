//! What a message type supplies, and the envelope which says where a message was read.

use crate::{Framing, Uuid};
use proto::JournalName;
use std::sync::Arc;

/// Any error which can cross threads.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A type whose values are written to and read from journals.
///
/// `encode` and `decode` may support only some framings and fail for the others with [`MessageError::Framing`].
/// The helpers [`crate::json`], [`crate::fixed`] and [`crate::csv`] do the work of one framing each;
/// [`crate::json_message`] implements all of it for a type which is JSON alone.
pub trait Message: Send + Sync + 'static {
    /// The UUID of this message. The zero UUID opts out of sequencing: delivered at least once.
    fn uuid(&self) -> Uuid;

    /// Called by publishers, with a UUID that this message is to be written with.
    fn set_uuid(&mut self, uuid: Uuid);

    /// An otherwise empty message of this type, which will be stamped as the acknowledgement of a transaction in `journal`.
    fn new_acknowledgement(&self, journal: &JournalName) -> Self
    where
        Self: Sized;

    /// Called before publishing. An error leaves no bytes behind.
    fn validate(&self) -> Result<(), MessageError> {
        Ok(())
    }

    /// Appends this message to `out` as one whole frame.
    fn encode(&self, framing: Framing, out: &mut Vec<u8>) -> Result<(), MessageError>;

    /// Replaces this message, which is fresh, by the payload of a frame (see [`crate::Split::Frame`]).
    fn decode(&mut self, framing: Framing, payload: &[u8]) -> Result<(), MessageError>;
}

/// Why a message could not be validated, encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The type does not support the framing.
    #[error("messages of this type cannot be framed as {0}")]
    Framing(Framing),
    /// Not a JSON document of the type.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Not a protobuf message of the type.
    #[error("protobuf: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Not a CSV record of the type.
    #[error("{0}")]
    Csv(#[from] crate::csv::CsvError),
    /// The frame would be larger than its format allows.
    #[error("message of {0} bytes is larger than a frame can be")]
    TooLarge(usize),
    /// The message type's own objection.
    #[error("{0}")]
    Invalid(BoxError),
}

impl MessageError {
    /// A message type's own objection.
    pub fn invalid(error: impl Into<BoxError>) -> MessageError {
        MessageError::Invalid(error.into())
    }
}

/// A message and the span of the journal which held its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<M> {
    /// The journal as it was requested, `;meta` included. Readers share one allocation between their envelopes.
    pub journal: Arc<str>,
    /// Offset of the first byte of the frame.
    pub begin: i64,
    /// Offset past the last byte of the frame.
    pub end: i64,
    /// The message.
    pub message: M,
}
