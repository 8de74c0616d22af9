//! The chunker: writes streams of chunks, and verifies the sum of each (see [`run`]).

mod cli;
mod config;
mod generator;
mod progress;
mod run;
mod verifier;
mod worker;

pub use cli::main;
pub use config::{ChunkerArgs, ProgressMode, RunArgs};
pub use progress::{Progress, Totals};
pub use run::{RunError, run, shard_of};
pub use verifier::Fault;
