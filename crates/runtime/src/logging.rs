//! Logging to standard error, and spans to a collector, through `tracing`.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::BoxError;
use crate::config::{LogArgs, LogFormat, LogLevel};
use crate::trace::{self, Exporter};

/// Libraries below us which log every frame when asked for all; they stay one step quieter.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tower=info,tonic=info,rustls=info,tokio=info";

/// The log of a process, and its traces. Dropping it exports the spans which were not exported yet.
#[must_use = "spans are exported when it is dropped"]
pub struct Logging {
    _exporter: Option<Exporter>,
}

/// Directs the log of this process, which is called `service`, to standard error, and its spans to a collector, as `args`
/// say. A second call changes nothing. Must be called within a runtime of several threads.
///
/// # Errors
/// If the collector's URL is malformed.
pub fn init(args: &LogArgs, service: &str) -> Result<Logging, BoxError> {
    let exporter = Exporter::new(&args.trace, service)?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match args.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Color => lines.with_ansi(true).boxed(),
    };
    let spans = exporter.as_ref().map(Exporter::layer);
    let subscriber = tracing_subscriber::registry().with(spans).with(lines.with_filter(filter(args.level)));
    // A test harness may have installed a log of its own, which then stays.
    drop(subscriber.try_init());
    for remark in &args.remarks {
        tracing::debug!("{remark}");
    }
    Ok(Logging { _exporter: exporter })
}

fn filter(level: LogLevel) -> EnvFilter {
    let (own, quiet) = match level {
        LogLevel::Trace => ("trace", QUIET),
        LogLevel::Debug => ("debug", QUIET),
        LogLevel::Info => ("info", ""),
        LogLevel::Warn => ("warn", ""),
        // Nothing is logged above ERROR: what ends the process is printed by its main function.
        LogLevel::Error | LogLevel::Fatal => ("error", ""),
    };
    EnvFilter::new(format!("{own},{}=off,{quiet}", trace::TARGET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_valid_filter() {
        for (level, expected) in [
            (LogLevel::Trace, "trace"),
            (LogLevel::Debug, "debug"),
            (LogLevel::Info, "info"),
            (LogLevel::Warn, "warn"),
            (LogLevel::Error, "error"),
            (LogLevel::Fatal, "error"),
        ] {
            let text = filter(level).to_string();
            assert!(text.split(',').any(|d| d == expected), "{text}");
            assert!(text.contains("courant::trace=off"), "{text}");
        }
    }
}
