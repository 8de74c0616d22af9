//! Command line of the chunker.

use std::time::Duration;

use clap::value_parser;
use runtime::config::{BrokerClientArgs, DebugArgs, LogArgs, duration_within};

/// Workers of one process: each has appends under way, and streams in memory.
const WORKERS_MAX: u64 = 4096;
/// Shortest wait for a sum.
const DELAY_MIN: Duration = Duration::from_millis(1);

/// Options of a run.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Chunker")]
pub struct ChunkerArgs {
    /// Zone of this process: brokers of the same zone are preferred.
    #[arg(
        id = "chunker.zone",
        long = "chunker.zone",
        env = "CHUNKER_ZONE",
        value_name = "ZONE",
        default_value = "local"
    )]
    pub zone: String,
    /// Streams of each worker. Negative: without end, until SIGTERM or SIGINT.
    #[arg(id = "chunker.streams", long = "chunker.streams", value_name = "COUNT", default_value_t = -1, allow_hyphen_values = true)]
    pub streams: i64,
    /// Chunks with data of each stream.
    #[arg(id = "chunker.chunks", long = "chunker.chunks", value_name = "COUNT", default_value_t = 100)]
    pub chunks: u64,
    /// Workers, each of which writes streams and waits for their sums by itself.
    #[arg(id = "chunker.workers", long = "chunker.workers", value_name = "COUNT", default_value_t = 4,
        value_parser = value_parser!(u64).range(1..=WORKERS_MAX))]
    pub workers: u64,
    /// The longest wait for an expected sum before the run fails.
    #[arg(id = "chunker.delay", long = "chunker.delay", value_name = "DURATION", default_value = "30s",
        value_parser = duration_within(DELAY_MIN..))]
    pub delay: Duration,
    /// How progress is shown on standard error. `auto`: a live line if that is a terminal.
    #[arg(
        id = "chunker.progress",
        long = "chunker.progress",
        value_name = "MODE",
        value_enum,
        default_value = "auto"
    )]
    pub progress: ProgressMode,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// A live line on a terminal, else nothing.
    Auto,
    /// Lines which programs can read.
    Plain,
    /// Nothing.
    None,
}

/// Everything that `chunker run` takes.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// What to write and to verify.
    #[command(flatten)]
    pub chunker: ChunkerArgs,
    /// Where brokers are.
    #[command(flatten)]
    pub broker: BrokerClientArgs,
    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
    /// Diagnostics.
    #[command(flatten)]
    pub debug: DebugArgs,
}

impl ChunkerArgs {
    /// Streams of each worker; `None` is without end.
    pub fn streams(&self) -> Option<u64> {
        u64::try_from(self.streams).ok()
    }
}
