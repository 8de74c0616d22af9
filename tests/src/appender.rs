//! Appenders which remember what they were told: the histories that [`history`](crate::history) checks.
//!
//! Each content is appended by RPCs of its own, to a journal that only appenders write. An attempt is *acknowledged* (with a
//! span), *refused* (a status: no effect), or of *unknown* outcome (the RPC broke). After an unknown outcome some contents
//! are tried again, as an at-least-once client would, and others are left as they are. An attempt which fails is followed by
//! one at another broker.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auth::{Capability, Grant};
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{AppendRequest, AppendResponse, ReadRequest, Status};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime::{BoxError, CancellationToken, Clock, Instant, OnError, TaskGroup};
use sha1::{Digest, Sha1};
use tonic::Code;
use tonic::transport::Channel;

use crate::caller::Caller;
use crate::history::{Append, HEAD, History, Span, Sum, WriteHead};

/// Longest an attempt may take before its outcome counts as unknown.
const APPEND_LIMIT: Duration = Duration::from_secs(20);
/// Longest a broker may take to tell its write head.
const HEAD_LIMIT: Duration = Duration::from_secs(2);
/// Pause after a failed attempt, so that a broker which is down is not hammered.
const FAILED_PAUSE: Duration = Duration::from_millis(50);
/// Pause between two looks at the brokers' write heads.
const HEAD_PAUSE: Duration = Duration::from_millis(500);
/// Attempts of one content.
const ATTEMPTS_MAX: u32 = 100;
const CONTENT_MAX: usize = 2000;

/// What appenders do.
#[derive(Clone, Debug)]
pub struct AppenderOptions {
    /// URLs of the brokers that they know.
    pub brokers: Vec<String>,
    /// What they append to.
    pub journals: Vec<String>,
    /// How many there are of each journal.
    pub per_journal: usize,
    /// Pause after an acknowledged append.
    pub pause: Duration,
    /// Of content, lengths and choices.
    pub seed: u64,
    /// As whom they come.
    pub caller: Caller,
}

/// Running appenders.
pub struct Appenders {
    tasks: TaskGroup,
    stop: CancellationToken,
    shared: Arc<Shared>,
}

/// The histories so far.
struct Shared {
    options: AppenderOptions,
    clock: Clock,
    began: Instant,
    next: AtomicU64,
    histories: Mutex<BTreeMap<String, History>>,
    /// By journal, when an append was last acknowledged.
    acknowledged: Mutex<BTreeMap<String, Duration>>,
}

impl Appenders {
    /// Starts them.
    pub fn start(options: AppenderOptions) -> Result<Appenders, BoxError> {
        let (tasks, stop, clock) = (TaskGroup::new("appenders"), CancellationToken::new(), Clock::system());
        let began = clock.now();
        let histories = options.journals.iter().map(|journal| (journal.clone(), History::default()));
        let histories = Mutex::new(histories.collect());
        let (next, acknowledged) = (AtomicU64::new(0), Mutex::default());
        let shared = Arc::new(Shared { options, clock, began, next, histories, acknowledged });
        for journal in &shared.options.journals {
            for index in 0..shared.options.per_journal {
                let rng = StdRng::seed_from_u64(shared.options.seed.wrapping_add(index as u64));
                let appender = Appender::new(journal, index, rng, shared.clone())?;
                tasks.spawn("appender", OnError::CancelGroup, appender.run(stop.clone()));
            }
        }
        for broker in &shared.options.brokers {
            let client = JournalClient::new(shared.options.caller.channel(broker)?);
            let watch = watch_heads(broker.clone(), client, shared.clone(), stop.clone());
            tasks.spawn("write heads", OnError::CancelGroup, watch);
        }
        Ok(Appenders { tasks, stop, shared })
    }

    /// Since they were started.
    pub fn elapsed(&self) -> Duration {
        self.shared.elapsed()
    }

    /// Whether every journal has had an append acknowledged since then.
    pub fn all_acknowledged_since(&self, since: Duration) -> bool {
        self.stalled_since(since).is_empty()
    }

    /// Journals without an append that was acknowledged since then.
    pub fn stalled_since(&self, since: Duration) -> Vec<String> {
        let acknowledged = self.shared.acknowledged.lock().expect("no appender panics");
        let is_stalled = |journal: &&String| acknowledged.get(*journal).is_none_or(|last| *last <= since);
        self.shared.options.journals.iter().filter(is_stalled).cloned().collect()
    }

    /// Lets each appender end its current append, and gives the histories by journal.
    pub async fn stop(self) -> Result<BTreeMap<String, History>, BoxError> {
        self.stop.cancel();
        self.tasks.join().await?;
        Ok(std::mem::take(&mut *self.shared.histories.lock().expect("no appender panics")))
    }
}

impl Shared {
    fn elapsed(&self) -> Duration {
        self.clock.now() - self.began
    }

    fn record(&self, journal: &str, add: impl FnOnce(&mut History)) {
        let mut histories = self.histories.lock().expect("no appender panics");
        add(histories.get_mut(journal).expect("every journal has a history"));
    }
}

struct Appender {
    journal: String,
    brokers: Vec<JournalClient<Channel>>,
    /// The broker that is asked next.
    broker: usize,
    rng: StdRng,
    shared: Arc<Shared>,
}

/// What an attempt came to.
enum Outcome {
    Acknowledged(Span),
    Refused,
    Unknown,
}

impl Appender {
    fn new(journal: &str, index: usize, rng: StdRng, shared: Arc<Shared>) -> Result<Appender, BoxError> {
        let mut brokers = Vec::new();
        for url in &shared.options.brokers {
            brokers.push(JournalClient::new(shared.options.caller.channel(url)?));
        }
        Ok(Appender { journal: journal.to_owned(), broker: index % brokers.len(), brokers, rng, shared })
    }

    async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let clock = self.shared.clock.clone();
        while !stop.is_cancelled() {
            let number = self.shared.next.fetch_add(1, Ordering::Relaxed);
            let append = self.append(number, &stop).await?;
            self.shared.record(&self.journal, |history| history.appends.push(append));
            clock.sleep(self.shared.options.pause).await;
        }
        Ok(())
    }

    /// Appends one content, trying again by chance after an unknown outcome and always after a refusal.
    async fn append(&mut self, number: u64, stop: &CancellationToken) -> Result<Append, BoxError> {
        let content = content(number, &mut self.rng);
        let sum = Sum::from(Sha1::digest(&content));
        let tries_again = self.rng.random_bool(0.5);
        let began = self.shared.elapsed();
        let mut append = Append { number, sum, began, ended: began, unknown_attempts: 0, acknowledged: None };
        for _ in 0..ATTEMPTS_MAX {
            let outcome = self.attempt(&content, &sum).await?;
            append.ended = self.shared.elapsed();
            match outcome {
                Outcome::Acknowledged(span) => {
                    append.acknowledged = Some(span);
                    let mut last = self.shared.acknowledged.lock().expect("no appender panics");
                    last.insert(self.journal.clone(), append.began);
                    break;
                }
                Outcome::Refused => {}
                Outcome::Unknown => append.unknown_attempts += 1,
            }
            self.broker = (self.broker + 1) % self.brokers.len();
            self.shared.clock.sleep(FAILED_PAUSE).await;
            if stop.is_cancelled() || (append.unknown_attempts > 0 && !tries_again) {
                break;
            }
        }
        Ok(append)
    }

    async fn attempt(&mut self, content: &[u8], sum: &Sum) -> Result<Outcome, BoxError> {
        let opening = AppendRequest { journal: self.journal.clone(), ..Default::default() };
        let chunk = AppendRequest { content: content.to_vec().into(), ..Default::default() };
        let stream = futures::stream::iter([opening, chunk, AppendRequest::default()]);
        let grant = Grant::journal(Capability::APPEND, &self.journal);
        let request = self.shared.options.caller.request(stream, grant);
        let call = self.brokers[self.broker].append(request);
        match self.shared.clock.timeout(APPEND_LIMIT, call).await {
            Ok(Ok(response)) => outcome(&response.into_inner(), content, sum),
            Ok(Err(status)) if is_denied(&status) => {
                Err(format!("{}: an append with a sound token was denied: {status}", self.journal).into())
            }
            Ok(Err(_)) | Err(_) => Ok(Outcome::Unknown),
        }
    }
}

/// Whether a broker does not let the caller do what it asks for.
fn is_denied(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// What a response says; an error if it acknowledges something else than was sent.
fn outcome(response: &AppendResponse, content: &[u8], sum: &Sum) -> Result<Outcome, BoxError> {
    if response.status() != Status::Ok {
        return Ok(Outcome::Refused);
    }
    let commit = response.commit.as_ref().ok_or("an acknowledgement without a commit")?;
    let answered = commit.sum.as_ref().ok_or("a commit without a checksum")?.digest();
    if answered != *sum || commit.end - commit.begin != content.len() as i64 {
        return Err(format!("an append was acknowledged as {commit:?}, which is not its own").into());
    }
    Ok(Outcome::Acknowledged(Span { begin: commit.begin, end: commit.end }))
}

/// Head (number and length) and random letters.
fn content(number: u64, rng: &mut StdRng) -> Vec<u8> {
    let length = rng.random_range(HEAD..CONTENT_MAX);
    let mut content = format!("{number:016x}{length:08x}").into_bytes();
    content.extend((HEAD..length).map(|_| rng.random_range(b'a'..=b'z')));
    content
}

/// Notes the write heads that a broker tells of the journals which it has.
async fn watch_heads(
    broker: String,
    mut client: JournalClient<Channel>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    while !stop.is_cancelled() {
        for journal in &shared.options.journals {
            let head = shared
                .clock
                .timeout(HEAD_LIMIT, write_head(&mut client, journal, &shared.options.caller))
                .await;
            if let Ok(Some(offset)) = head {
                let head = WriteHead { broker: broker.clone(), offset };
                shared.record(journal, |history| history.write_heads.push(head));
            }
        }
        shared.clock.sleep(HEAD_PAUSE).await;
    }
    Ok(())
}

/// The write head of a replica; `None` if the broker has none, or does not answer.
async fn write_head(client: &mut JournalClient<Channel>, journal: &str, caller: &Caller) -> Option<i64> {
    let request =
        ReadRequest { journal: journal.to_owned(), offset: -1, do_not_proxy: true, ..Default::default() };
    let request = caller.request(request, Grant::journal(Capability::READ, journal));
    let response = client.read(request).await.ok()?.into_inner().message().await.ok()??;
    // A replica that was just assigned has not listed its store yet, and tells zero.
    let is_told = matches!(response.status(), Status::Ok | Status::OffsetNotYetAvailable);
    (is_told && response.write_head > 0).then_some(response.write_head)
}
