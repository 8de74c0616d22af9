//! A chunker that runs until it is told to finish, and what it has verified.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::process::{Process, ProcessError};

/// Longest wait for one more line of progress.
const LINE_LIMIT: Duration = Duration::from_secs(30);

/// A running chunker.
pub struct Load {
    chunker: Process,
    verified: u64,
}

/// What a finished chunker reported.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// Streams whose sum was right.
    pub streams: u64,
    /// Sums that were wrong.
    pub mismatches: u64,
    /// Sums that came more than once.
    pub duplicates: u64,
}

impl Load {
    /// Starts a chunker of endless streams.
    pub fn start(cluster: &Cluster, workers: u64, chunks: u64) -> Result<Load, ProcessError> {
        let args = [
            "--chunker.streams=-1".to_owned(),
            format!("--chunker.chunks={chunks}"),
            format!("--chunker.workers={workers}"),
            "--chunker.delay=60s".to_owned(),
        ];
        let chunker = cluster.start_chunker(&args.each_ref().map(String::as_str))?;
        Ok(Load { chunker, verified: 0 })
    }

    /// Streams verified, as of the last progress line.
    pub fn verified(&mut self) -> u64 {
        let lines = self.chunker.stderr_tail();
        if let Some(count) =
            lines.lines().rev().find_map(|line| field(line, "progress: ", "streams_verified"))
        {
            self.verified = count;
        }
        self.verified
    }

    /// Waits until at least `count` streams are verified.
    pub async fn wait_verified(&mut self, count: u64, limit: Duration) -> Result<(), ProcessError> {
        let reached =
            |line: &str| field(line, "progress: ", "streams_verified").filter(|seen| *seen >= count);
        self.verified = self.chunker.wait_line(&format!("{count} streams verified"), limit, reached).await?;
        Ok(())
    }

    /// Asks the chunker to finish its open streams, and waits for its verdict.
    pub async fn finish(mut self, limit: Duration) -> Result<Totals, ProcessError> {
        let status = self.chunker.terminate(limit + LINE_LIMIT).await?;
        let out = self.chunker.stdout();
        let line = out.lines().find(|line| line.starts_with("verified: ")).unwrap_or_default();
        let value = |name| field(line, "verified: ", name);
        match (status.success(), value("streams"), value("mismatches"), value("duplicates")) {
            (true, Some(streams), Some(mismatches), Some(duplicates)) => {
                Ok(Totals { streams, mismatches, duplicates })
            }
            _ => Err(self.chunker.error(format!("finished with {status} and said {out:?}"))),
        }
    }
}

/// The number `name=N` of a line that starts with `prefix`.
fn field(line: &str, prefix: &str, name: &str) -> Option<u64> {
    let fields = line.strip_prefix(prefix)?;
    fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
