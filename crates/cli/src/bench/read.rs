//! Readers of one journal, from its start to its head, compared with what was appended.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use proto::protocol::{ReadRequest, Status};
use runtime::{BoxError, Clock, Entropy};
use sha1::{Digest, Sha1};

use super::append::{append, first_append, spread};
use super::report::{Latency, Report, histogram};
use super::target::{Client, Target};
use super::{CommonArgs, size_within};

/// Payload of each append that fills the journal.
const FILL_BYTES: usize = 1 << 20;

/// Options of `courant bench read`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Length of the journal, at most 1 TiB.
    #[arg(long, default_value = "256MiB", value_parser = size_within(1..=1 << 40), value_name = "SIZE")]
    bytes: u64,
}

/// Runs the benchmark.
pub async fn run(args: &ReadArgs) -> Result<Report, BoxError> {
    let connections = args.common.connections();
    let target = Target::prepare(&args.common.broker, connections, 1).await?;
    let clock = Clock::system();
    let journal = target.journals[0].clone();
    first_append(&target, &journal, &clock).await?;
    let sum = fill(&target, &journal, args.bytes).await?;

    let gaps = Arc::new(Mutex::new(histogram()));
    let began = clock.now();
    let readers = (0..args.common.clients).map(|client| {
        let (client, journal, clock) = (target.client(client), journal.clone(), clock.clone());
        let (bytes, gaps) = (args.bytes, Arc::clone(&gaps));
        async move { reader(client, &journal, bytes, sum, &clock, &gaps).await }
    });
    let tasks = runtime::TaskGroup::new("bench");
    let results = spread(&tasks, readers).await;
    let seconds = (clock.now() - began).as_secs_f64();
    for result in results {
        result.map_err(|error| format!("{}: {error}", target.address()))?;
    }
    if !args.common.keep {
        target.remove().await?;
    }
    let bytes = args.bytes * u64::from(args.common.clients);
    let gaps = gaps.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        benchmark: "read",
        broker: target.address().to_owned(),
        clients: args.common.clients,
        connections,
        journals: 1,
        size: bytes / gaps.len().max(1),
        operations: gaps.len(),
        bytes,
        seconds,
        operations_per_second: gaps.len() as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        latency_of: "the next message",
        latency_us: Latency::from(&*gaps),
    })
}

/// Appends `bytes` of random content and gives its SHA-1.
async fn fill(target: &Target, journal: &str, bytes: u64) -> Result<[u8; 20], BoxError> {
    let mut block = vec![0; FILL_BYTES];
    Entropy::system().fill(&mut block);
    let block = Bytes::from(block);
    let mut hash = Sha1::new();
    let mut left = bytes;
    while left > 0 {
        let length = usize::try_from(left.min(FILL_BYTES as u64))?;
        let content = block.slice(..length);
        hash.update(&content);
        let response = append(&mut target.client(0), journal, &content).await?;
        if response.status() != Status::Ok {
            return Err(
                format!("{}: Append answered {}", target.address(), response.status().as_str_name()).into()
            );
        }
        left -= length as u64;
    }
    Ok(hash.finalize().into())
}

/// Reads the journal's first `bytes` and adds the times between messages to `gaps`.
async fn reader(
    mut client: Client,
    journal: &str,
    bytes: u64,
    sum: [u8; 20],
    clock: &Clock,
    gaps: &Mutex<Histogram<u64>>,
) -> Result<(), BoxError> {
    let end = i64::try_from(bytes)?;
    let request =
        ReadRequest { journal: journal.to_owned(), end_offset: end, block: true, ..Default::default() };
    let mut stream = client.read(request).await?.into_inner();
    let (mut hash, mut next, mut last) = (Sha1::new(), 0, clock.now());
    while let Some(message) = stream.message().await? {
        if message.status() != Status::Ok {
            return Err(format!("Read answered {} at {next}", message.status().as_str_name()).into());
        }
        if message.content.is_empty() {
            continue;
        }
        if message.offset != next {
            return Err(format!("read offset {} where {next} was expected", message.offset).into());
        }
        next += message.content.len() as i64;
        hash.update(&message.content);
        let now = clock.now();
        let gap = u64::try_from((now - last).as_micros())?.max(1);
        gaps.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(gap);
        last = now;
    }
    if next != end {
        return Err(format!("the read ended at {next} where {end} was expected").into());
    }
    if <[u8; 20]>::from(hash.finalize()) != sum {
        return Err("what was read is not what was appended".into());
    }
    Ok(())
}
