//! What a benchmark found, as text for people and as one JSON object for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use runtime::BoxError;
use serde::Serialize;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object.
    Json,
}

/// Largest latency that is told apart from larger ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// An empty histogram of microseconds, three significant digits.
pub fn histogram() -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_micros()).expect("ten minutes fit");
    Histogram::new_with_bounds(1, max, 3).expect("the bounds are in order")
}

/// Outcome of one benchmark.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `append` or `read`.
    pub benchmark: &'static str,
    /// Address of the broker.
    pub broker: String,
    /// Concurrent clients.
    pub clients: u32,
    /// Connections that they shared.
    pub connections: u32,
    /// Journals that were used.
    pub journals: u32,
    /// Payload bytes of one operation.
    pub size: u64,
    /// Operations done: appends acknowledged, or content messages read.
    pub operations: u64,
    /// Payload bytes moved.
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
    /// Operations in a second.
    pub operations_per_second: f64,
    /// Payload bytes in a second.
    pub bytes_per_second: f64,
    /// What `latency_us` measures.
    pub latency_of: &'static str,
    /// Latencies in microseconds.
    pub latency_us: Latency,
}

/// Percentiles of latencies, microseconds.
#[derive(Debug, Serialize)]
pub struct Latency {
    /// Half were faster.
    pub p50: u64,
    /// One in a hundred was slower.
    pub p99: u64,
    /// One in a thousand was slower.
    pub p999: u64,
    /// The slowest.
    pub max: u64,
}

impl From<&Histogram<u64>> for Latency {
    fn from(histogram: &Histogram<u64>) -> Latency {
        Latency {
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl Report {
    /// The report in the wanted format, without a final line break.
    pub fn render(&self, format: Format) -> Result<String, BoxError> {
        if format == Format::Json {
            return Ok(serde_json::to_string(self)?);
        }
        let latency = &self.latency_us;
        Ok(format!(
            "{}: {} operations of {} in {:.2} s, {} clients on {} connections, {} journals\n\
             throughput: {:.0} operations/s, {}/s\n\
             latency of {}: p50 {}, p99 {}, p99.9 {}, max {}",
            self.benchmark,
            self.operations,
            binary(self.size as f64),
            self.seconds,
            self.clients,
            self.connections,
            self.journals,
            self.operations_per_second,
            binary(self.bytes_per_second),
            self.latency_of,
            micros(latency.p50),
            micros(latency.p99),
            micros(latency.p999),
            micros(latency.max),
        ))
    }
}

/// Bytes with a binary unit.
fn binary(bytes: f64) -> String {
    let (mut value, mut unit) = (bytes, "B");
    for next in ["KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") }
}

/// Microseconds with a readable unit.
fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}
