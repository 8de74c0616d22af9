//! A chunker that runs until it is told to finish, and what it has verified.

use std::str::FromStr;
use std::time::Duration;

use runtime::BoxError;

use crate::cluster::Cluster;
use crate::fleet::{Fleet, Quirk};
use crate::process::{Process, ProcessError};

/// Longest wait for one more line of progress.
const LINE_LIMIT: Duration = Duration::from_secs(30);

/// How long a chunker of one machine waits for a sum.
const DELAY: Duration = Duration::from_secs(60);

/// A running chunker.
pub struct Load {
    chunker: Process,
    verified: u64,
    waited: Duration,
    last_wait: Option<Duration>,
    lines: u64,
}

/// What a finished chunker reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Streams whose sum was right.
    pub streams: u64,
    /// Chunks published.
    pub chunks: u64,
    /// Sums that were wrong.
    pub mismatches: u64,
    /// Sums that came more than once.
    pub duplicates: u64,
}

impl Totals {
    /// Adds those of another chunker.
    pub fn add(&mut self, other: &Totals) {
        self.streams += other.streams;
        self.chunks += other.chunks;
        self.mismatches += other.mismatches;
        self.duplicates += other.duplicates;
    }
}

impl Load {
    /// Starts a chunker of endless streams on one machine.
    pub fn start(cluster: &Cluster, workers: u64, chunks: u64) -> Result<Load, ProcessError> {
        let args = arguments(workers, chunks, DELAY);
        Ok(Load::of(cluster.start_chunker(&args.each_ref().map(String::as_str))?))
    }

    /// Starts a chunker of endless streams on a fleet. It fails if it waits for a sum for as long as `delay`.
    pub fn start_on(
        fleet: &mut Fleet,
        workers: u64,
        chunks: u64,
        delay: Duration,
        quirk: &Quirk,
    ) -> Result<Load, BoxError> {
        let args = arguments(workers, chunks, delay);
        Ok(Load::of(fleet.start_chunker(&args.each_ref().map(String::as_str), quirk)?))
    }

    /// A chunker which was started with `--chunker.progress=plain`.
    pub fn of(chunker: Process) -> Load {
        Load { chunker, verified: 0, waited: Duration::ZERO, last_wait: None, lines: 0 }
    }

    /// Reads what the chunker has reported since the last time.
    fn update(&mut self) {
        for line in self.chunker.lines_since(&mut self.lines) {
            if let Some(count) = field(&line, "progress: ", "streams_verified") {
                self.verified = count;
            }
            if let Some(seconds) = field::<f64>(&line, "progress: ", "waited") {
                let wait = Duration::from_secs_f64(seconds.max(0.0));
                (self.waited, self.last_wait) = (self.waited.max(wait), Some(wait));
            }
        }
    }

    /// Streams verified, as of the last progress line.
    pub fn verified(&mut self) -> u64 {
        self.update();
        self.verified
    }

    /// The longest time that any sum was waited for since this was last asked.
    pub fn take_longest_wait(&mut self) -> Duration {
        self.update();
        std::mem::take(&mut self.waited)
    }

    /// The longest wait for a sum that the last progress line tells.
    pub fn last_wait(&mut self) -> Option<Duration> {
        self.update();
        self.last_wait
    }

    /// An error if the chunker has ended.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        match self.chunker.ended() {
            None => Ok(()),
            Some(status) => Err(self.chunker.error(format!("ended by itself with {status}"))),
        }
    }

    /// Waits until at least `count` streams are verified.
    pub async fn wait_verified(&mut self, count: u64, limit: Duration) -> Result<(), ProcessError> {
        let reached =
            |line: &str| field::<u64>(line, "progress: ", "streams_verified").filter(|seen| *seen >= count);
        self.verified = self.chunker.wait_line(&format!("{count} streams verified"), limit, reached).await?;
        Ok(())
    }

    /// Asks the chunker to finish its open streams, and waits for its verdict.
    pub async fn finish(mut self, limit: Duration) -> Result<Totals, ProcessError> {
        let status = self.chunker.terminate(limit + LINE_LIMIT).await?;
        let out = self.chunker.stdout();
        let line = out.lines().find(|line| line.starts_with("verified: ")).unwrap_or_default();
        let value = |name| field(line, "verified: ", name);
        let counts = [value("streams"), value("chunks"), value("mismatches"), value("duplicates")];
        match (status.success(), counts) {
            (true, [Some(streams), Some(chunks), Some(mismatches), Some(duplicates)]) => {
                Ok(Totals { streams, chunks, mismatches, duplicates })
            }
            _ => Err(self.chunker.error(format!("finished with {status} and said {out:?}"))),
        }
    }
}

fn arguments(workers: u64, chunks: u64, delay: Duration) -> [String; 4] {
    [
        "--chunker.streams=-1".to_owned(),
        format!("--chunker.chunks={chunks}"),
        format!("--chunker.workers={workers}"),
        format!("--chunker.delay={}", runtime::config::format_duration(delay)),
    ]
}

/// The number `name=N` of a line that starts with `prefix`.
fn field<T: FromStr>(line: &str, prefix: &str, name: &str) -> Option<T> {
    let fields = line.strip_prefix(prefix)?;
    fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
