//! Concurrent appenders in a closed loop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use proto::protocol::{AppendRequest, AppendResponse, Status};
use runtime::config::duration_within;
use runtime::{BoxError, Clock, Entropy};
use sha1::{Digest, Sha1};

use super::report::{Latency, Report, histogram};
use super::target::{Client, Target};
use super::{CommonArgs, size_within};

/// Content bytes of one message of the stream.
const CHUNK_BYTES: usize = 1 << 20;
/// Shortest run.
const DURATION_MIN: Duration = Duration::from_millis(1);
/// Longest wait for a new journal to take its first append.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two tries of the first append.
const READY_PAUSE: Duration = Duration::from_millis(50);

/// Options of `courant bench append`.
#[derive(Debug, Args)]
pub struct AppendArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Payload of one append, at most 1 GiB. The clients share it in memory.
    #[arg(long, default_value = "1KiB", value_parser = size_within(0..=1 << 30), value_name = "SIZE")]
    size: u64,
    /// Journals over which the clients spread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10000))]
    journals: u32,
    /// How long to run, unless --bytes ends the run sooner.
    #[arg(long, default_value = "10s", value_parser = duration_within(DURATION_MIN..), value_name = "DURATION")]
    duration: Duration,
    /// Stop after this many bytes.
    #[arg(long, value_parser = size_within(1..=u64::MAX), value_name = "SIZE")]
    bytes: Option<u64>,
    /// Do not compare the checksums that the broker answers.
    #[arg(long)]
    no_verify: bool,
}

/// What the appenders share.
struct Shared {
    clock: Clock,
    payload: Bytes,
    /// SHA-1 of the payload, unless answers are taken as they come.
    sum: Option<[u8; 20]>,
    deadline: runtime::Instant,
    bytes_left: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
}

/// Runs the benchmark.
pub async fn run(args: &AppendArgs) -> Result<Report, BoxError> {
    if let Some(bytes) = args.bytes
        && bytes < args.size
    {
        let size = args.size;
        return Err(format!("--bytes: {bytes} B are less than one append (expected {size} B or more)").into());
    }
    let connections = args.common.connections();
    let target = Target::prepare(&args.common.broker, connections, args.journals).await?;
    target.check_listed().await?;
    let mut payload = vec![0; usize::try_from(args.size)?];
    Entropy::system().fill(&mut payload);
    let sum = (!args.no_verify).then(|| <[u8; 20]>::from(Sha1::digest(&payload)));
    let clock = Clock::system();
    for journal in &target.journals {
        first_append(&target, journal, &clock).await?;
    }
    let began = clock.now();
    let shared = Arc::new(Shared {
        payload: payload.into(),
        sum,
        deadline: began + args.duration,
        bytes_left: AtomicU64::new(args.bytes.unwrap_or(u64::MAX)),
        latencies: Mutex::new(histogram()),
        clock: clock.clone(),
    });
    let appenders = (0..args.common.clients).map(|client| {
        let journal = target.journals[client as usize % target.journals.len()].clone();
        appender(target.client(client), journal, shared.clone())
    });
    let tasks = runtime::TaskGroup::new("bench");
    let results = spread(&tasks, appenders).await;
    let seconds = (clock.now() - began).as_secs_f64();
    for result in results {
        result.map_err(|error| format!("{}: {error}", target.address()))?;
    }
    if !args.common.keep {
        target.remove().await?;
    }
    let latencies = shared.latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let operations = latencies.len();
    let bytes = operations * args.size;
    Ok(Report {
        benchmark: "append",
        broker: target.address().to_owned(),
        clients: args.common.clients,
        connections,
        journals: args.journals,
        size: args.size,
        operations,
        bytes,
        seconds,
        operations_per_second: operations as f64 / seconds,
        bytes_per_second: bytes as f64 / seconds,
        latency_of: "acknowledgement",
        latency_us: Latency::from(&*latencies),
    })
}

/// Runs the futures as tasks of their own, so that they share all threads, and gathers what they return.
pub async fn spread<T: Send + 'static>(
    tasks: &runtime::TaskGroup,
    futures: impl Iterator<Item = impl Future<Output = Result<T, BoxError>> + Send + 'static>,
) -> Vec<Result<T, BoxError>> {
    let mut receivers = Vec::new();
    for future in futures {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        receivers.push(receiver);
        tasks.spawn("client", runtime::OnError::Log, async move {
            // The receiver is gone only if the benchmark was given up.
            drop(sender.send(future.await));
            Ok(())
        });
    }
    let gather = receivers.into_iter().map(async |receiver| match receiver.await {
        Ok(result) => result,
        Err(_) => Err("a client's task ended early".into()),
    });
    futures::future::join_all(gather).await
}

async fn appender(mut client: Client, journal: String, shared: Arc<Shared>) -> Result<(), BoxError> {
    let size = shared.payload.len() as u64;
    loop {
        let began = shared.clock.now();
        let take = |left: u64| left.checked_sub(size);
        let left = shared.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if began >= shared.deadline || left.is_err() {
            return Ok(());
        }
        let response = append(&mut client, &journal, &shared.payload).await?;
        check(&response, size, shared.sum)?;
        let micros = u64::try_from((shared.clock.now() - began).as_micros())?;
        shared.latencies.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros.max(1));
    }
}

/// One append: the opening message, content, and the empty message that commits.
pub async fn append(client: &mut Client, journal: &str, content: &Bytes) -> Result<AppendResponse, BoxError> {
    let opening = AppendRequest { journal: journal.to_owned(), ..Default::default() };
    let content = content.clone();
    let chunks = (0..content.len()).step_by(CHUNK_BYTES).map(move |begin| AppendRequest {
        content: content.slice(begin..content.len().min(begin + CHUNK_BYTES)),
        ..Default::default()
    });
    let stream = std::iter::once(opening).chain(chunks).chain(std::iter::once(AppendRequest::default()));
    Ok(client.append(futures::stream::iter(stream)).await?.into_inner())
}

/// An answer must name this append's length and checksum.
fn check(response: &AppendResponse, size: u64, sum: Option<[u8; 20]>) -> Result<(), BoxError> {
    if response.status() != Status::Ok {
        return Err(format!("Append answered {}", response.status().as_str_name()).into());
    }
    let commit = response.commit.as_ref().ok_or("Append answered OK without a commit")?;
    if i64::try_from(size) != Ok(commit.end - commit.begin) {
        return Err(format!("appended {size} bytes, acknowledged [{}, {})", commit.begin, commit.end).into());
    }
    let found = commit.sum.as_ref().map(|sum| sum.digest());
    match sum {
        Some(sum) if found != Some(sum) => {
            Err(format!("the checksum of [{}, {}) is wrong", commit.begin, commit.end).into())
        }
        _ => Ok(()),
    }
}

/// An empty append, tried until the journal has its primary.
pub async fn first_append(target: &Target, journal: &str, clock: &Clock) -> Result<(), BoxError> {
    let deadline = clock.now() + READY_LIMIT;
    loop {
        let outcome = append(&mut target.client(0), journal, &Bytes::new()).await;
        match outcome {
            Ok(response) if response.status() == Status::Ok => return Ok(()),
            Ok(response) if clock.now() > deadline => {
                let status = response.status().as_str_name();
                return Err(format!("{}: {journal} still answers {status}", target.address()).into());
            }
            Err(error) if clock.now() > deadline => return Err(error),
            Ok(_) | Err(_) => clock.sleep(READY_PAUSE).await,
        }
    }
}
