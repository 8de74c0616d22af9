//! word-count: how often runs of N words occur in the texts that were published, with an API of its own.
//!
//! A text is published by the gRPC service `word_count.NGram`, which every process of the group serves: it splits the text
//! into n-grams, and maps each to a partition of *deltas*. [`WordCount`] folds deltas into counts, in a RocksDB for each
//! shard. A query goes to the shard which counts the n-gram, wherever that is: a process which is not its primary passes the
//! request on to the one that is.

mod api;
mod app;
mod count;
mod grams;

pub use api::NGramApi;
pub use app::{WordCount, WordCountArgs};
pub use count::CountError;
pub use grams::n_grams;

/// Label of the journals which hold deltas.
pub const DELTA_TYPE: &str = "word_count.NGramCount";

/// Messages and service of the package `word_count`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    tonic::include_proto!("word_count");
}
