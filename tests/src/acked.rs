//! Appenders which remember what was acknowledged to them, and the check that the journal holds exactly that.
//!
//! Each append is one RPC that is never repeated, with content that no other append has. Its outcome is *acknowledged*
//! (with a span), *refused* (a status: no effect), or *unknown* (the RPC broke). An acknowledged append must be in the
//! journal once, at its span; a refused one not at all; one of unknown outcome whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::protocol::journal_client::JournalClient;
use proto::protocol::{AppendRequest, AppendResponse, ReadRequest, Status};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime::{BoxError, CancellationToken, Clock, OnError, TaskGroup};
use sha1::{Digest, Sha1};
use tonic::transport::Channel;

use crate::cluster::Cluster;

/// Longest an append may take before its outcome counts as unknown.
const APPEND_LIMIT: Duration = Duration::from_secs(20);
/// Longest the read-back may take.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// Pause after a failed append, so that a broker which is down is not hammered.
const PAUSE: Duration = Duration::from_millis(20);
/// Length of an append's head: its number in hex and its content's length in hex.
const HEAD: usize = 24;
const CONTENT_MAX: usize = 2000;

/// An acknowledged append: where it was said to lie.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// First byte.
    pub begin: i64,
    /// Exclusive.
    pub end: i64,
    /// SHA-1 of its content, as answered.
    pub sum: [u8; 20],
}

/// What became of all appends.
#[derive(Debug, Default)]
pub struct Acked {
    /// By number.
    pub acknowledged: BTreeMap<u64, Span>,
    /// Numbers of refused appends.
    pub refused: Vec<u64>,
    /// Numbers of appends whose RPC broke.
    pub unknown: Vec<u64>,
}

/// Running appenders.
pub struct Appenders {
    tasks: TaskGroup,
    stop: CancellationToken,
    acked: Arc<std::sync::Mutex<Acked>>,
}

impl Appenders {
    /// Starts `count` appenders to `journal`.
    pub fn start(cluster: &Cluster, journal: &str, count: usize, seed: u64) -> Appenders {
        let tasks = TaskGroup::new("appenders");
        let stop = CancellationToken::new();
        let acked = Arc::new(std::sync::Mutex::new(Acked::default()));
        let next = Arc::new(AtomicU64::new(0));
        for index in 0..count {
            let channel = runtime::grpc::channel(&cluster.broker_address())
                .expect("the broker's address is well-formed");
            let appender = Appender {
                client: JournalClient::new(channel),
                journal: journal.to_owned(),
                rng: StdRng::seed_from_u64(seed.wrapping_add(index as u64)),
                next: next.clone(),
                acked: acked.clone(),
                clock: Clock::system(),
            };
            let stop = stop.clone();
            tasks.spawn("appender", OnError::CancelGroup, appender.run(stop));
        }
        Appenders { tasks, stop, acked }
    }

    /// Lets each appender end its current append, and gives what became of all.
    pub async fn stop(self) -> Acked {
        self.stop.cancel();
        self.tasks.join().await.expect("appenders fail only by a wrong answer of the broker");
        std::mem::take(&mut *self.acked.lock().expect("no appender panics"))
    }
}

struct Appender {
    client: JournalClient<Channel>,
    journal: String,
    rng: StdRng,
    next: Arc<AtomicU64>,
    acked: Arc<std::sync::Mutex<Acked>>,
    clock: Clock,
}

impl Appender {
    async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        while !stop.is_cancelled() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let content = content(number, &mut self.rng);
            let sum = <[u8; 20]>::from(Sha1::digest(&content));
            let clock = self.clock.clone();
            let outcome = clock.timeout(APPEND_LIMIT, self.append(content.clone())).await;
            if !self.record(number, content.len(), sum, outcome.unwrap_or_else(|_| Err(too_late())))? {
                self.clock.sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    /// Notes what became of an append; true if it was acknowledged.
    fn record(
        &self,
        number: u64,
        length: usize,
        sum: [u8; 20],
        outcome: Result<AppendResponse, tonic::Status>,
    ) -> Result<bool, BoxError> {
        let mut acked = self.acked.lock().expect("no appender panics");
        match outcome {
            Ok(response) if response.status() == Status::Ok => {
                let span = span_of(&response)?;
                if span.sum != sum || span.end - span.begin != length as i64 {
                    return Err(format!(
                        "append {number} was acknowledged as {span:?}, which is not its own"
                    )
                    .into());
                }
                acked.acknowledged.insert(number, span);
                return Ok(true);
            }
            Ok(_) => acked.refused.push(number),
            Err(_) => acked.unknown.push(number),
        }
        Ok(false)
    }

    async fn append(&mut self, content: Vec<u8>) -> Result<AppendResponse, tonic::Status> {
        let opening = AppendRequest { journal: self.journal.clone(), ..Default::default() };
        let chunk = AppendRequest { content: content.into(), ..Default::default() };
        let stream = futures::stream::iter([opening, chunk, AppendRequest::default()]);
        Ok(self.client.append(stream).await?.into_inner())
    }
}

fn too_late() -> tonic::Status {
    tonic::Status::deadline_exceeded("the append took too long")
}

fn span_of(response: &AppendResponse) -> Result<Span, BoxError> {
    let commit = response.commit.as_ref().ok_or("an acknowledgement without a commit")?;
    let sum = commit.sum.as_ref().ok_or("a commit without a checksum")?;
    Ok(Span { begin: commit.begin, end: commit.end, sum: sum.digest() })
}

/// Head (number and length) and random letters.
fn content(number: u64, rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(HEAD..CONTENT_MAX);
    let mut content = format!("{number:016x}{length:08x}").into_bytes();
    content.extend((HEAD..length).map(|_| rng.random_range(b'a'..=b'z')));
    content
}

/// Reads the journal and compares it with what the appenders were told.
pub async fn verify_acked(cluster: &Cluster, journal: &str, acked: &Acked) -> Result<(), BoxError> {
    let end = acked.acknowledged.values().map(|span| span.end).max().ok_or("nothing was acknowledged")?;
    let bytes = cluster.clock().timeout(READ_LIMIT, read_through(cluster, journal, end)).await??;
    let mut found = BTreeMap::new();
    let mut at = 0;
    while at < bytes.len() {
        let head = bytes.get(at..at + HEAD).and_then(|head| std::str::from_utf8(head).ok());
        let head = head.ok_or_else(|| format!("offset {at}: the journal ends within an append"))?;
        let number = u64::from_str_radix(&head[..16], 16)
            .map_err(|_| format!("offset {at}: no append begins here"))?;
        let length = usize::from_str_radix(&head[16..], 16)?;
        let content =
            bytes.get(at..at + length).ok_or_else(|| format!("offset {at}: append {number} is cut"))?;
        if found.insert(number, (at as i64, <[u8; 20]>::from(Sha1::digest(content)))).is_some() {
            return Err(format!("offset {at}: append {number} is there twice").into());
        }
        at += length;
    }
    for (number, span) in &acked.acknowledged {
        match found.get(number) {
            Some((begin, sum)) if *begin == span.begin && *sum == span.sum => {}
            other => {
                return Err(format!("append {number} was acknowledged as {span:?}, found {other:?}").into());
            }
        }
    }
    if let Some(number) = acked.refused.iter().find(|number| found.contains_key(number)) {
        return Err(format!("append {number} was refused, and is there").into());
    }
    Ok(())
}

/// The journal's content from its start to `end`. A broker which has just started is given time to be assigned it.
async fn read_through(cluster: &Cluster, journal: &str, end: i64) -> Result<Vec<u8>, BoxError> {
    let mut client = JournalClient::new(runtime::grpc::channel(&cluster.broker_address())?);
    let mut bytes: Vec<u8> = Vec::new();
    loop {
        let offset = bytes.len() as i64;
        let request = ReadRequest {
            journal: journal.to_owned(),
            offset,
            block: true,
            end_offset: end,
            ..Default::default()
        };
        let mut stream = client.read(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            match response.status() {
                Status::Ok if response.content.is_empty() => {}
                Status::Ok if response.offset == bytes.len() as i64 => {
                    bytes.extend_from_slice(&response.content)
                }
                Status::Ok => {
                    let expected = bytes.len();
                    return Err(
                        format!("read offset {} where {expected} was expected", response.offset).into()
                    );
                }
                Status::InsufficientJournalBrokers | Status::NoJournalPrimaryBroker => break,
                other => {
                    return Err(format!("Read answered {} at {}", other.as_str_name(), bytes.len()).into());
                }
            }
        }
        if bytes.len() as i64 >= end {
            return Ok(bytes);
        }
        cluster.clock().sleep(PAUSE).await;
    }
}
