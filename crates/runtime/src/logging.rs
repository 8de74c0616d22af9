//! Logging to standard error, through `tracing`.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogArgs, LogFormat, LogLevel};

/// Libraries below us which log every frame when asked for all; they stay one step quieter.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,tower=info,tonic=info,rustls=info,tokio=info";

/// Directs the log of this process to standard error, as `args` say. A second call changes nothing.
pub fn init(args: &LogArgs) {
    let builder = fmt().with_env_filter(filter(args.level)).with_writer(std::io::stderr).with_target(false);
    let outcome = match args.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Color => builder.with_ansi(true).try_init(),
    };
    // A test harness may have installed a log of its own, which then stays.
    drop(outcome);
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
    EnvFilter::new(format!("{own},{quiet}"))
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
        }
    }
}
