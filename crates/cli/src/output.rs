//! Standard output, and the formats which results are printed in.

use crate::table::Table;
use crate::terminal;
use recoverylog::{Deleted, Mode};
use runtime::BoxError;
use std::error::Error;
use std::io::{self, Write};

/// How listings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// Specifications which can be edited and applied.
    Yaml,
    /// JSON with the names of the protocol, one object a line.
    Json,
    /// The listing in protobuf's text format.
    Proto,
}

/// Writes a result, whole or with an error.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes a table, no wider than the terminal.
pub fn print_table(table: &Table) -> io::Result<()> {
    print(&table.render(terminal::columns()))
}

/// Whether `error` means that nobody reads standard output any more.
pub fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Reads a whole file, or standard input if the path is `-`. Refuses more than `bytes_max`.
pub async fn read_text(path: &str, bytes_max: u64) -> Result<String, BoxError> {
    use tokio::io::AsyncReadExt;
    let fail = |what: &str, e: &dyn std::fmt::Display| -> BoxError { format!("{what} {path:?}: {e}").into() };
    let mut bytes = Vec::new();
    let outcome = if path == "-" {
        tokio::io::stdin().take(bytes_max + 1).read_to_end(&mut bytes).await
    } else {
        let file = tokio::fs::File::open(path).await.map_err(|e| fail("opening", &e))?;
        file.take(bytes_max + 1).read_to_end(&mut bytes).await
    };
    outcome.map_err(|e| fail("reading", &e))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("{path:?} is larger than {bytes_max} bytes").into());
    }
    String::from_utf8(bytes).map_err(|e| fail("reading", &e))
}

/// Bytes with a binary unit: `512 B`, `1.5 KiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // What would round to 1024.0 of a unit is 1.0 of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `count` things: `1 journal`, `2 journals`.
pub fn count_text(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// What pruning did, or would do: `deleted 1 of 3 fragments (1.0 KiB of 3.0 MiB)`.
pub fn deleted_text(fragments: Deleted, mode: Mode) -> String {
    let Deleted { listed, listed_bytes, deleted, deleted_bytes } = fragments;
    let verb = if mode == Mode::DryRun { "would delete" } else { "deleted" };
    let listed = count_text(usize::try_from(listed).unwrap_or(usize::MAX), "fragment");
    format!("{verb} {deleted} of {listed} ({} of {})", bytes_text(deleted_bytes), bytes_text(listed_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
        assert_eq!((count_text(1, "shard"), count_text(0, "shard")), ("1 shard".into(), "0 shards".into()));
    }

    #[test]
    fn a_broken_pipe_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);
        assert!(is_broken_pipe(&Outer(io::ErrorKind::BrokenPipe.into())));
        assert!(!is_broken_pipe(&Outer(io::ErrorKind::NotFound.into())));
    }
}
