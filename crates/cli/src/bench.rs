//! `courant bench`: loads a broker over the journal protocol alone, so that it measures any broker which speaks it.
//!
//! `append` drives concurrent appenders in a closed loop, each awaiting its acknowledgement before the next append.
//! `read` first fills a journal, then reads it back whole with concurrent readers, and compares checksums.

mod append;
mod read;
mod report;
mod target;

use crate::output::bytes_text;
use clap::{Args, Subcommand};
use runtime::BoxError;
use runtime::config::BrokerClientArgs;
use std::ops::RangeInclusive;

/// Options of `courant bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure appends: throughput, and the latency of acknowledgements.
    #[command(after_help = "Example:\n  courant bench append --clients 64 --size 256B --duration 10s\n  \
                            courant bench append --size 1MiB --bytes 4GiB --format json")]
    Append(append::AppendArgs),
    /// Measure reads of one journal from its start to its head.
    #[command(after_help = "Example:\n  courant bench read --clients 4 --bytes 1GiB")]
    Read(read::ReadArgs),
}

/// Connections of a run.
const CONNECTIONS_MAX: u32 = 1024;

/// What both benchmarks need to know.
#[derive(Debug, Args)]
struct CommonArgs {
    #[command(flatten)]
    broker: BrokerClientArgs,
    /// Concurrent clients.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    clients: u32,
    /// Connections that the clients share [default: one for each 16 clients].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(CONNECTIONS_MAX)))]
    connections: Option<u32>,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = report::Format::Text)]
    format: report::Format,
    /// Leave the journals of the benchmark in place.
    #[arg(long)]
    keep: bool,
}

impl CommonArgs {
    fn connections(&self) -> u32 {
        self.connections.unwrap_or_else(|| self.clients.div_ceil(16).min(CONNECTIONS_MAX))
    }
}

/// Runs the chosen benchmark.
///
/// # Errors
/// If the broker cannot be reached, refuses a request, or answers with a wrong span or checksum.
pub async fn run(args: BenchArgs) -> Result<(), BoxError> {
    let report = match &args.command {
        Command::Append(args) => append::run(args).await?,
        Command::Read(args) => read::run(args).await?,
    };
    let format = match &args.command {
        Command::Append(args) => args.common.format,
        Command::Read(args) => args.common.format,
    };
    crate::output::print(&format!("{}\n", report.render(format)?))?;
    Ok(())
}

/// A parser of options: as [`parse_size`], of sizes within `range`.
fn size_within(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let size = parse_size(text)?;
        if range.contains(&size) {
            return Ok(size);
        }
        let [size, start, end] = [size, *range.start(), *range.end()].map(bytes_text);
        Err(format!("{size} is not between {start} and {end}"))
    }
}

/// Parses a size in bytes: `4096`, `64KiB`, `1MiB`, `2GiB`, `256B`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("unknown unit {other:?}; expected B, KiB, MiB or GiB")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a size; expected e.g. 64KiB"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

#[cfg(test)]
mod tests {
    use super::{parse_size, size_within};

    #[test]
    fn sizes_carry_binary_units() {
        assert_eq!(parse_size("256"), Ok(256));
        assert_eq!(parse_size("256B"), Ok(256));
        assert_eq!(parse_size("64KiB"), Ok(65536));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert!(parse_size("KiB").is_err());
        assert!(parse_size("1MB").unwrap_err().contains("unknown unit"));
        assert!(parse_size("99999999999GiB").unwrap_err().contains("too large"));
        for not in ["NaN", "-1", "1.5MiB", ""] {
            assert!(parse_size(not).is_err(), "{not}");
        }
    }

    #[test]
    fn sizes_out_of_bounds_are_told_of_them() {
        let parse = size_within(1..=1 << 30);
        assert_eq!((parse("1"), parse("1GiB")), (Ok(1), Ok(1 << 30)));
        assert_eq!(parse("0"), Err("0 B is not between 1 B and 1.0 GiB".to_owned()));
        assert_eq!(parse("64GiB"), Err("64.0 GiB is not between 1 B and 1.0 GiB".to_owned()));
    }
}
