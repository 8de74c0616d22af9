//! stream-sum: the proof that sums are exact.
//!
//! `chunker` writes interleaved streams of random chunks into partitioned journals. [`Summer`], a consumer application,
//! folds the checksum of each stream and publishes it when the stream ends. The chunker holds each published sum against
//! the one it knows: every stream must get exactly one sum, the right one, in time; whatever is killed meanwhile.

pub mod chunker;
mod crc64;
mod message;
mod rows;
mod summer;

pub use crate::message::{Chunk, StreamId, Sum, UpdateError, Updated};
pub use rows::StoreLabelError;
pub use summer::{Summer, SummerStore};

/// Label of the journals which hold chunks.
pub const CHUNK_TYPE: &str = "stream_sum.Chunk";
/// The journal which holds sums.
pub const SUMS_JOURNAL: &str = "examples/stream-sum/sums";
