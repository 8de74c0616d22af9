//! `make bench`: Courant's speed as ratios within one run, on the machine it runs on.
//!
//! Each comparison alternates its two sides over several rounds and reports medians, so that a noisy neighbour disturbs
//! both. The output is the table that docs/benchmarks.md records.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use client::{ClientOptions, JournalClient, ShardClient};
use message::{Clock as MessageClock, Flags, Framing, Message, ProducerId, Uuid};
use proto::consumer::StatRequest;
use proto::protocol::AppendRequest;
use runtime::{BoxError, Clock, Entropy, TaskGroup};
use stream_sum::{Chunk, StreamId};
use tests::cluster::{Cluster, ClusterOptions, served_endpoint};
use tests::process::{Launch, Process, binary};
use tests::{historical, idle, measure};

/// Rounds of a comparison.
const ROUNDS_MAX: u64 = 1000;
/// Length of the shortest measurement.
const DURATION_MIN: Duration = Duration::from_millis(1);

fn counts(bounds: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(bounds)
}

/// Measures Courant on this machine.
#[derive(Parser)]
struct Args {
    /// Measure only this.
    #[command(subcommand)]
    only: Option<Only>,
    /// Rounds of each comparison.
    #[arg(long, default_value_t = 5, value_parser = counts(1..=ROUNDS_MAX))]
    rounds: usize,
    /// Length of each measurement.
    #[arg(long, default_value = "5s", value_parser = runtime::config::duration_within(DURATION_MIN..))]
    duration: Duration,
    /// Messages that the summer reads. They are held in memory.
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    messages: u64,
}

/// Measurements which can be made alone.
#[derive(Clone, Copy, clap::Subcommand)]
enum Only {
    /// What idle shards cost one consumer process.
    Shards {
        /// How many.
        #[arg(long, default_value_t = 500, value_parser = counts(1..=100_000))]
        count: usize,
    },
    /// What idle journals cost one broker process.
    Journals {
        /// How many: they are compared with a tenth of them.
        #[arg(long, default_value_t = 10_000, value_parser = counts(10..=100_000))]
        count: usize,
    },
    /// Reads of stored fragments, against the standard tools.
    Historical {
        /// Fragments of 256 MiB of each codec.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=64))]
        fragments: u64,
        /// Rounds, of which the median counts.
        #[arg(long, default_value_t = 3, value_parser = counts(1..=ROUNDS_MAX))]
        rounds: usize,
    },
    /// How long a shard stands still when its primary is killed.
    Failover {
        /// How often.
        #[arg(long, default_value_t = 20, value_parser = counts(1..=ROUNDS_MAX))]
        rounds: usize,
    },
}

/// Longest wait for one measurement beyond its duration.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("bench failed: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), BoxError> {
    match args.only {
        Some(Only::Shards { count }) => return measure::shards(count).await,
        Some(Only::Journals { count }) => return idle::report(count).await,
        Some(Only::Historical { fragments, rounds }) => return historical::report(fragments, rounds).await,
        Some(Only::Failover { rounds }) => return measure::failover(rounds).await,
        None => {}
    }
    println!("| comparison | measured | against | ratio | aim |");
    println!("|---|---|---|---|---|");
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    large_appends(args, &cluster).await?;
    group_commit(args, &cluster).await?;
    drop(cluster);
    summer(args).await?;
    println!();
    historical::report(2, args.rounds.min(3)).await?;
    println!("\n| consumers | measured | |\n|---|---|---|");
    measure::failover(20).await?;
    measure::shards(500).await?;
    println!();
    idle::report(10_000).await
}

/// One measurement of `courant bench append`: (operations per second, bytes per second, p99 in microseconds).
async fn bench_append(
    cluster: &Cluster,
    address: &str,
    duration: Duration,
    args: &[&str],
) -> Result<(f64, f64, u64), BoxError> {
    let duration = format!("--duration={}", runtime::config::format_duration(duration));
    let address = format!("--broker.address={address}");
    let fixed = ["bench", "append", "--format=json", &duration, &address];
    let all = fixed.into_iter().chain(args.iter().copied());
    let launch = Launch::new("courant bench", binary("courant"), all, cluster.dir());
    let mut bench = Process::start(&launch, cluster.tasks())?;
    let status = bench.wait_exit(LIMIT).await?;
    if !status.success() {
        return Err(bench.error(format!("ended with {status}")).into());
    }
    let report: serde_json::Value = serde_json::from_str(&bench.stdout())?;
    let number = |name: &str| report[name].as_f64().ok_or_else(|| format!("no {name} in {report}"));
    let p99 = report["latency_us"]["p99"].as_u64().ok_or("no p99")?;
    Ok((number("operations_per_second")?, number("bytes_per_second")?, p99))
}

/// Appends of 1 MiB to one journal, as a share of a server which only counts bytes.
async fn large_appends(args: &Args, cluster: &Cluster) -> Result<(), BoxError> {
    let tasks = TaskGroup::new("noop");
    let none: [&str; 0] = [];
    let launch = Launch::new("noop-broker", binary("noop-broker"), none, cluster.dir());
    let mut noop = Process::start(&launch, &tasks)?;
    let ceiling = noop.wait_line("serving on", LIMIT, served_endpoint).await?;
    for clients in ["1", "4"] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let load = ["--size=1MiB", "--clients", clients];
        for _ in 0..args.rounds {
            let unverified = [&load[..], &["--no-verify"]].concat();
            theirs.push(bench_append(cluster, &ceiling, args.duration, &unverified).await?.1);
            ours.push(bench_append(cluster, &cluster.broker_address(), args.duration, &unverified).await?.1);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        row(
            &format!("1 MiB appends, one journal, {clients} clients, against a no-op gRPC server"),
            &format!("{:.0} MB/s", ours / 1e6),
            &format!("{:.0} MB/s", theirs / 1e6),
            ours / theirs,
            "≥ 0.5",
        );
    }
    noop.kill().await?;
    Ok(())
}

/// 64 appenders of 256 bytes on one journal, against one such appender.
async fn group_commit(args: &Args, cluster: &Cluster) -> Result<(), BoxError> {
    let (mut many, mut one) = (Vec::new(), Vec::new());
    let address = cluster.broker_address();
    for _ in 0..args.rounds {
        one.push(bench_append(cluster, &address, args.duration, &["--size=256", "--clients=1"]).await?.0);
        many.push(bench_append(cluster, &address, args.duration, &["--size=256", "--clients=64"]).await?.0);
    }
    let (many, one) = (median(many), median(one));
    row(
        "256 B appends, one journal, 64 appenders against 1",
        &format!("{many:.0}/s"),
        &format!("{one:.0}/s"),
        many / one,
        "≥ 20",
    );
    Ok(())
}

/// Messages per second of a summer, against a loop which only decodes them.
async fn summer(args: &Args) -> Result<(), BoxError> {
    let clock = Clock::system();
    let content = chunks(args.messages);
    let (mut measured, mut ceiling) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.min(3) {
        ceiling.push(decode_all(&content, args.messages, &clock)?);
        measured.push(sum_all(&content, args.messages, &clock).await?);
    }
    let (measured, ceiling) = (median(measured), median(ceiling));
    row(
        "summer, one shard, against a loop that decodes the same JSON",
        &format!("{measured:.0} messages/s"),
        &format!("{ceiling:.0} messages/s"),
        measured / ceiling,
        "≥ 0.3",
    );
    Ok(())
}

/// Newline-delimited chunks of 100-chunk streams, eight of them interleaved, as the chunker writes them.
fn chunks(count: u64) -> Bytes {
    const STREAMS: u64 = 8;
    const CHUNKS: i64 = 100;
    let entropy = Entropy::system();
    let producer = ProducerId::from_random([3, 1, 4, 1, 5, 9]);
    let mut out = Vec::new();
    let mut streams: Vec<(StreamId, i64)> = Vec::new();
    for index in 0..count {
        let slot = (index % STREAMS) as usize;
        if slot == streams.len() {
            streams.push((StreamId([0; 16]), CHUNKS + 1));
        }
        if streams[slot].1 > CHUNKS {
            let mut id = [0; 16];
            entropy.fill(&mut id);
            streams[slot] = (StreamId(id), 0);
        }
        let (id, seq_no) = &mut streams[slot];
        *seq_no += 1;
        let mut data = vec![0; if *seq_no > CHUNKS { 0 } else { 32 }];
        entropy.fill(&mut data);
        let uuid = Uuid::build(producer, MessageClock((index + 1) * 160), Flags::OUTSIDE_TXN);
        let chunk = Chunk { uuid, id: *id, seq_no: *seq_no, data };
        chunk.encode(Framing::Json, &mut out).expect("a chunk encodes");
    }
    out.into()
}

/// Decodes every message and does nothing with it.
fn decode_all(content: &Bytes, messages: u64, clock: &Clock) -> Result<f64, BoxError> {
    let began = clock.now();
    let mut count = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let mut chunk = Chunk::default();
        chunk.decode(Framing::Json, line)?;
        count += u64::from(std::hint::black_box(&chunk).seq_no > 0);
    }
    assert_eq!(count, messages);
    Ok(messages as f64 / (clock.now() - began).as_secs_f64())
}

/// Lets a new summer read them all, from a journal that holds them already.
async fn sum_all(content: &Bytes, messages: u64, clock: &Clock) -> Result<f64, BoxError> {
    const JOURNAL: &str = "examples/stream-sum/chunks/part-000";
    const SHARD: &str = "chunks-part-000";
    const BATCH_BYTES: usize = 4 << 20;
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    cluster.apply_stream_sum_journals().await?;
    let options = || ClientOptions::new(cluster.tasks().clone());
    let journals = JournalClient::new(&cluster.broker_address(), options())?;
    for begin in (0..content.len()).step_by(BATCH_BYTES) {
        let batch = content.slice(begin..content.len().min(begin + BATCH_BYTES));
        let request = AppendRequest { journal: JOURNAL.to_owned(), ..Default::default() };
        journals.append(request, batch).await?;
    }
    let head = content.len() as i64;
    let options = ClientOptions::new(cluster.tasks().clone());
    cluster.start_summer(0).await?;
    let shards = ShardClient::new(cluster.summer_address(0), options)?;
    cluster.apply_stream_sum_shards().await?;
    cluster.wait_shards_primary(0, 1, LIMIT).await?;
    let began = clock.now();
    let stat = StatRequest {
        shard: SHARD.to_owned(),
        read_through: [(JOURNAL.to_owned(), head)].into(),
        ..Default::default()
    };
    clock.timeout(LIMIT, shards.stat(stat)).await??;
    Ok(messages as f64 / (clock.now() - began).as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(what: &str, measured: &str, against: &str, ratio: f64, aim: &str) {
    println!("| {what} | {measured} | {against} | {ratio:.2} | {aim} |");
}
