//! `make demo`: a broker, two summers and a chunker as processes, two of them killed on the way, every sum verified.
//!
//! The one line on standard output is the outcome; progress goes to standard error. The exit status is 0 only if every
//! stream was summed exactly once and rightly.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use runtime::BoxError;
use tests::cluster::{Cluster, ClusterOptions};
use tests::process::Process;

/// Runs Courant on this machine and proves its sums while killing parts of it.
#[derive(Parser)]
struct Args {
    /// Streams that each worker of the chunker writes.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    streams: u64,
    /// Chunks of each stream, not counting the one that ends it.
    #[arg(long, default_value_t = 40)]
    chunks: u64,
    /// Workers of the chunker.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=1024))]
    workers: u64,
    /// Longest time the whole run may take, in seconds.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// How often the progress line is renewed.
const TICK: Duration = Duration::from_millis(250);
const SHARDS: usize = 8;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("demo failed: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<String, BoxError> {
    let mut cluster = Cluster::start(ClusterOptions { lease: "8s", ..ClusterOptions::default() }).await?;
    let began = cluster.clock().now();
    eprintln!("demo: broker on {}, data in {}", cluster.broker_address(), cluster.data_dir().display());
    for index in 0..2 {
        cluster.start_summer(index).await?;
    }
    cluster.apply_stream_sum().await?;
    eprintln!("demo: {SHARDS} shards, which keep their state in RocksDB and in SQLite in turn");
    let numbers = [
        format!("--chunker.streams={}", args.streams),
        format!("--chunker.chunks={}", args.chunks),
        format!("--chunker.workers={}", args.workers),
    ];
    let mut chunker = cluster.start_chunker(&numbers.each_ref().map(String::as_str))?;
    let mut watch = Watch::new(args.streams * args.workers, args.timeout);
    let kills = watch.follow(&mut cluster, &mut chunker).await?;
    let verified = chunker.stdout();
    let line = verified.lines().find(|line| line.starts_with("verified: "));
    let line = line.ok_or_else(|| chunker.error("ended without its line `verified: …`".to_owned()))?;
    let seconds = (cluster.clock().now() - began).as_secs_f64();
    Ok(format!("{line} kills={kills} seconds={seconds:.1}"))
}

/// What is seen of the run, and what is still to be killed.
struct Watch {
    streams: u64,
    timeout: Duration,
    bar: ProgressBar,
    progress: Progress,
    kills: u32,
    shards_up: usize,
    /// Tenths of the streams that were reported without a terminal.
    shown: u64,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    verified: u64,
    chunks: u64,
}

impl Watch {
    fn new(streams: u64, timeout: u64) -> Watch {
        let bar = ProgressBar::new(streams);
        let style = ProgressStyle::with_template(
            "{elapsed_precise} [{wide_bar}] {pos}/{len} streams verified, {msg}",
        );
        bar.set_style(style.expect("the template is well-formed"));
        Watch {
            streams,
            timeout: Duration::from_secs(timeout),
            bar,
            progress: Progress::default(),
            kills: 0,
            shards_up: 0,
            shown: 0,
        }
    }

    /// Follows the chunker to its end, killing the broker once and a summer once on the way.
    async fn follow(&mut self, cluster: &mut Cluster, chunker: &mut Process) -> Result<u32, BoxError> {
        let clock = cluster.clock();
        let deadline = clock.now() + self.timeout;
        let mut last = (clock.now(), 0);
        loop {
            if let Ok(status) = chunker.wait_exit(TICK).await {
                self.bar.finish_and_clear();
                if !status.success() {
                    return Err(chunker.error(format!("ended with {status}")).into());
                }
                return Ok(self.kills);
            }
            if let Some(progress) = chunker.stderr_tail().lines().rev().find_map(parse_progress) {
                self.progress = progress;
            }
            self.count_shards(cluster).await;
            let now = clock.now();
            let rate = (self.progress.chunks - last.1) as f64 / (now - last.0).as_secs_f64();
            last = (now, self.progress.chunks);
            self.show(rate);
            self.kill_what_is_due(cluster).await?;
            if let Some(lost) = cluster.lost_process() {
                return Err(lost.into());
            }
            if now > deadline {
                let what = format!(
                    "{} of {} streams after {:?}",
                    self.progress.verified, self.streams, self.timeout
                );
                return Err(chunker.error(what).into());
            }
        }
    }

    /// The broker is killed when a quarter of the streams is verified, a summer at six tenths.
    async fn kill_what_is_due(&mut self, cluster: &mut Cluster) -> Result<(), BoxError> {
        let verified = self.progress.verified;
        if self.kills == 0 && verified * 4 >= self.streams {
            self.say("kill -9 the broker, and start it again");
            cluster.kill_broker().await?;
            cluster.start_broker().await?;
            self.kills += 1;
        } else if self.kills == 1 && verified * 10 >= self.streams * 6 {
            self.say("kill -9 summer-1, and start it again");
            cluster.kill_summer(1).await?;
            cluster.start_summer(1).await?;
            self.kills += 1;
        }
        Ok(())
    }

    /// Counts shards whose primary is up, as the first summer that runs sees it.
    async fn count_shards(&mut self, cluster: &Cluster) {
        let running = cluster.summers.iter().position(Option::is_some);
        self.shards_up = match running {
            Some(index) => cluster.shards_primary(index).await,
            None => 0,
        };
    }

    fn show(&mut self, rate: f64) {
        let verified = self.progress.verified;
        let message =
            format!("{rate:.0} chunks/s, {}/{SHARDS} shards up, {} kills", self.shards_up, self.kills);
        self.bar.set_position(verified);
        // Without a terminal: a line for every tenth of the streams.
        let tenths = verified * 10 / self.streams;
        if self.bar.is_hidden() && tenths > self.shown {
            self.shown = tenths;
            eprintln!("demo: {verified}/{} streams verified, {message}", self.streams);
        }
        self.bar.set_message(message);
    }

    fn say(&self, what: &str) {
        let line = format!("demo: at {}/{} streams: {what}", self.progress.verified, self.streams);
        if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
    }
}

/// Numbers of a line `progress: streams_verified=N chunks=N …`.
fn parse_progress(line: &str) -> Option<Progress> {
    let fields = line.strip_prefix("progress: ")?;
    let value = |name: &str| {
        let field = fields.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        field.and_then(|text| text.parse().ok())
    };
    Some(Progress { verified: value("streams_verified")?, chunks: value("chunks")? })
}
