//! Reads of what is stored, through a broker: their throughput as a share of what the standard tools need to read and
//! decompress the same files, and how soon content comes from deep within a fragment.
//!
//! One broker stores a journal of each codec and is started anew, so that nothing is left to be read from spools. Client and
//! broker share the machine, as the tool and nobody do.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use client::{ClientOptions, JournalClient};
use fragment::Codec;
use proto::protocol::{AppendRequest, ReadRequest};
use runtime::{BoxError, Clock, Entropy};

use crate::cluster::{Cluster, ClusterOptions};

/// Bytes of content in one fragment.
const FRAGMENT_BYTES: u64 = 256 << 20;
/// Those of `file://` stores, in the order of their names.
const CODECS: [Codec; 4] = [Codec::Gzip, Codec::None, Codec::Snappy, Codec::Zstandard];
/// Bytes of one append.
const BATCH_BYTES: u64 = 4 << 20;
/// Longest wait for the broker to store everything when it is stopped.
const STORED_LIMIT: Duration = Duration::from_secs(600);
/// Longest wait for a broker that was started anew to serve a journal.
const SERVED_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two attempts.
const POLL: Duration = Duration::from_millis(50);

/// Prints a table of reading `fragments` fragments of each codec, by the median of `rounds`.
///
/// # Errors
/// If a process or a request fails, or less is read than was written.
pub async fn report(fragments: u64, rounds: usize) -> Result<(), BoxError> {
    let mut cluster = Cluster::start(ClusterOptions::default()).await?;
    apply(&cluster).await?;
    let length = fragments * FRAGMENT_BYTES;
    for codec in CODECS {
        fill(&cluster, codec, length).await?;
    }
    let mut broker = cluster.broker.take().ok_or("the broker runs")?;
    broker.terminate(STORED_LIMIT).await?;
    cluster.start_broker().await?;

    println!(
        "| stored as | bytes stored | broker | tool | ratio | aim | first content from the end of a fragment |"
    );
    println!("|---|---|---|---|---|---|---|");
    for codec in CODECS {
        await_readable(&cluster, codec).await?;
        let files = files(&cluster, codec)?;
        let stored: u64 = files.iter().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum();
        let depth = first_content(&cluster, codec, rounds).await?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            theirs.push(length as f64 / tool_seconds(codec, &files)?);
            ours.push(length as f64 / read_seconds(&cluster, codec, length).await?);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let aim = if codec == Codec::None { "–" } else { "≥ 0.8" };
        println!(
            "| {codec} | {} MiB of {} MiB | {:.0} MB/s | {:.0} MB/s | {:.2} | {aim} | {:.0} ms |",
            stored >> 20,
            length >> 20,
            ours / 1e6,
            theirs / 1e6,
            ours / theirs,
            depth.as_secs_f64() * 1e3,
        );
    }
    Ok(())
}

fn journal(codec: Codec) -> String {
    format!("historical/{codec}")
}

/// Creates the journals.
async fn apply(cluster: &Cluster) -> Result<(), BoxError> {
    let mut yaml = "name: historical/\nreplication: 1\nchildren:\n".to_owned();
    for codec in CODECS {
        writeln!(
            yaml,
            "  - {{name: {}, fragment: {{length: {FRAGMENT_BYTES}, compression_codec: {codec}, \
             refresh_interval: 60s, stores: ['file:///']}}}}",
            journal(codec)
        )?;
    }
    let path = cluster.dir().join("historical.yaml");
    std::fs::write(&path, yaml)?;
    cluster.courant(&["journals", "apply", &format!("--specs={}", path.display())]).await?;
    Ok(())
}

/// Appends `length` bytes of messages in JSON, much of each of which is like the one before.
async fn fill(cluster: &Cluster, codec: Codec, length: u64) -> Result<(), BoxError> {
    let client = client(cluster)?;
    let entropy = Entropy::seeded(5);
    for _ in 0..length / BATCH_BYTES {
        let mut batch = String::with_capacity(BATCH_BYTES as usize + 300);
        while batch.len() < BATCH_BYTES as usize {
            let (a, b) = (entropy.u64(), entropy.u64());
            writeln!(
                batch,
                "{{\"uuid\":\"{a:016x}-{b:016x}\",\"user\":\"user-{}\",\"path\":\"/items/{}/parts/{}\",\"took_ms\":{},\"ok\":true}}",
                a % 5000,
                b % 300,
                a % 40,
                b % 900
            )?;
        }
        batch.truncate(BATCH_BYTES as usize);
        let request = AppendRequest { journal: journal(codec), ..Default::default() };
        client.append(request, Bytes::from(batch)).await?;
    }
    Ok(())
}

fn client(cluster: &Cluster) -> Result<JournalClient, BoxError> {
    let options = ClientOptions::new(cluster.tasks().clone());
    Ok(JournalClient::new(&cluster.broker_address(), options)?)
}

/// The stored files of the journal, in order.
fn files(cluster: &Cluster, codec: Codec) -> Result<Vec<PathBuf>, BoxError> {
    let directory = cluster.data_dir().join("fragments").join(journal(codec));
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    Ok(files)
}

/// Waits until the broker that was started anew serves the journal.
async fn await_readable(cluster: &Cluster, codec: Codec) -> Result<(), BoxError> {
    let (client, clock) = (client(cluster)?, Clock::system());
    let deadline = clock.now() + SERVED_LIMIT;
    loop {
        let request = ReadRequest { journal: journal(codec), ..Default::default() };
        match client.read(request).next().await {
            Ok(_) => return Ok(()),
            Err(error) if clock.now() > deadline => return Err(error.into()),
            Err(_) => clock.sleep(POLL).await,
        }
    }
}

/// Reads the whole journal through the broker.
async fn read_seconds(cluster: &Cluster, codec: Codec, length: u64) -> Result<f64, BoxError> {
    let (client, clock) = (client(cluster)?, Clock::system());
    let end_offset = i64::try_from(length)?;
    let began = clock.now();
    let mut reader = client.read(ReadRequest { journal: journal(codec), end_offset, ..Default::default() });
    while reader.offset() < end_offset {
        reader.next().await?;
    }
    Ok((clock.now() - began).as_secs_f64())
}

/// Longest time until the first content came from near the end of a fragment.
async fn first_content(cluster: &Cluster, codec: Codec, rounds: usize) -> Result<Duration, BoxError> {
    let (client, clock) = (client(cluster)?, Clock::system());
    let mut longest = Duration::ZERO;
    for round in 1..=rounds {
        let offset = i64::try_from(FRAGMENT_BYTES)? - 1000 * i64::try_from(round)?;
        let request = ReadRequest { journal: journal(codec), offset, ..Default::default() };
        let began = clock.now();
        client.read(request).next().await?;
        longest = longest.max(clock.now() - began);
    }
    Ok(longest)
}

/// Lets the standard tool decompress the files to nowhere, one after the other.
fn tool_seconds(codec: Codec, files: &[PathBuf]) -> Result<f64, BoxError> {
    let (clock, mut seconds) = (Clock::system(), 0.0);
    for file in files {
        let mut tool = tool(codec)?;
        tool.stdin(std::fs::File::open(file)?).stdout(Stdio::null());
        let began = clock.now();
        let status = tool.status().map_err(|error| format!("the tool of {codec}: {error}"))?;
        seconds += (clock.now() - began).as_secs_f64();
        if !status.success() {
            return Err(format!("the tool of {codec} fails on {}", file.display()).into());
        }
    }
    Ok(seconds)
}

fn tool(codec: Codec) -> Result<Command, BoxError> {
    let with = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args);
        command
    };
    Ok(match codec {
        Codec::None => with("cat", &[]),
        Codec::Gzip | Codec::GzipOffload => with("gzip", &["-dc"]),
        Codec::Zstandard => with("zstd", &["-dqc"]),
        Codec::Snappy => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python-snappy.sh");
            let output = Command::new(script).stderr(Stdio::inherit()).output()?;
            let python = String::from_utf8(output.stdout)?;
            let decompress =
                "import snappy, sys; snappy.stream_decompress(sys.stdin.buffer, sys.stdout.buffer)";
            with(python.trim(), &["-c", decompress])
        }
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
