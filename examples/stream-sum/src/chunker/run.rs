//! One run of the chunker: workers write streams, and one task holds every published sum against what it must be.
//!
//! The sums journal is read from where it ended before the first chunk was written, so that no sum can be missed. A run
//! without end finishes its open streams when it is told to stop. At the end the sums journal is read to its head once
//! more, so that a sum which was published twice is noticed for the last streams too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use client::{
    AppendService, ClientError, CommittedError, CommittedReader, JournalClient, NewMessage, OpError,
    Publisher, WatchStopped, WatchedList,
};
use message::{ClockSource, Envelope, Flags, Sequencer};
use proto::JournalName;
use proto::labels;
use proto::protocol::{AppendRequest, LabelSelector, ReadRequest};
use runtime::{CancellationToken, Clock, Instant, OnError, TaskGroup};
use tokio::sync::{mpsc, oneshot};

use super::config::ChunkerArgs;
use super::generator::Generator;
use super::progress::{Progress, Totals};
use super::verifier::{Fault, Seen, Verifier};
use super::worker::{Command, Worker, WorkerError};
use crate::{CHUNK_TYPE, SUMS_JOURNAL, StreamId, Sum};

/// How often waits are looked at, and progress is shown.
const TICK: Duration = Duration::from_millis(50);
/// How often the publisher's clock follows wall time.
const CLOCK_UPDATE: Duration = Duration::from_secs(1);
/// How long there may be no journals before it is worth saying.
const NO_JOURNALS: Duration = Duration::from_secs(5);
/// Waits from which on a warning is worth a person's attention.
const WARN_FROM: Duration = Duration::from_secs(2);
/// Sums which are held until they are acknowledged, and their bytes.
const RING_MESSAGES: usize = 8192;
const RING_BYTES: usize = 8 << 20;
/// Commands of workers which wait.
const COMMANDS_MAX: usize = 256;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A sum is wrong, late, or came twice.
    #[error("{fault}{}", .fault.journal().map(|journal| format!(" (shard {})", shard_of(journal))).unwrap_or_default())]
    Fault {
        /// What is wrong.
        fault: Fault,
    },
    /// A worker cannot go on.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// The journals of chunks cannot be listed.
    #[error("listing journals of chunks: {0}")]
    List(#[from] ClientError),
    /// The journals of chunks are no longer watched.
    #[error("listing journals of chunks: {0}")]
    Watch(#[from] WatchStopped),
    /// The end of the sums cannot be learned.
    #[error("finding the end of {SUMS_JOURNAL}: {0} (are the journals of stream-sum applied?)")]
    Head(OpError),
    /// The sums cannot be read.
    #[error("reading {SUMS_JOURNAL}: {0}")]
    Read(#[from] CommittedError),
}

impl From<Fault> for RunError {
    fn from(fault: Fault) -> RunError {
        RunError::Fault { fault }
    }
}

/// The shard which sums the chunks of a journal: named by the last two elements of its path, as in shards.yaml.
pub fn shard_of(journal: &JournalName) -> String {
    let mut elements = journal.as_str().rsplit('/');
    match (elements.next(), elements.next()) {
        (Some(last), Some(before)) => format!("{before}-{last}"),
        _ => journal.to_string(),
    }
}

/// Runs the chunker. `stop` ends a run without end, once its open streams are verified, and one which waits for a broker.
///
/// # Errors
/// See [`RunError`]. Nothing is published any more then.
pub async fn run(
    client: &JournalClient,
    args: &ChunkerArgs,
    progress: &mut Progress,
    stop: &CancellationToken,
    tasks: &TaskGroup,
) -> Result<Totals, RunError> {
    let tasks = tasks.child("chunker");
    let mut run = tokio::select! {
        biased;
        () = stop.cancelled() => {
            // Nothing is published yet.
            tasks.cancel();
            return Ok(Totals::default());
        }
        run = Run::start(client, args, stop, &tasks) => run?,
    };
    let outcome = run.verify(progress).await;
    tasks.cancel();
    let (totals, now) = (run.totals(), run.elapsed());
    progress.finish(totals, run.verifier.take_longest_wait(now), now);
    outcome.map(|()| totals)
}

struct Run {
    clock: Clock,
    started: Instant,
    appends: AppendService,
    sums: CommittedReader<Sum>,
    commands: mpsc::Receiver<Command>,
    verifier: Verifier,
    waiting: BTreeMap<StreamId, oneshot::Sender<()>>,
    chunks: Arc<AtomicU64>,
    streams: u64,
}

impl Run {
    async fn start(
        client: &JournalClient,
        args: &ChunkerArgs,
        stop: &CancellationToken,
        tasks: &TaskGroup,
    ) -> Result<Run, RunError> {
        let clock = client.options().clock.clone();
        let selector = LabelSelector::include([(labels::MESSAGE_TYPE, CHUNK_TYPE)]);
        let journals = WatchedList::start(client.clone(), selector, tasks)?;
        wait_for_journals(&journals, &clock).await?;
        let appends = AppendService::new(client.clone(), tasks.child("appends"));
        let offset = head(&appends).await?;
        let sums = read_sums(client, offset);

        let publisher = Arc::new(Publisher::new(appends.clone(), Some(follow_wall_time(&clock, tasks))));
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let chunks = Arc::new(AtomicU64::new(0));
        for number in 0..args.workers {
            let worker = Worker {
                generator: Generator::new(args.streams(), args.chunks, client.options().entropy.clone()),
                publisher: Arc::clone(&publisher),
                journals: journals.clone(),
                run: sender.clone(),
                chunks: Arc::clone(&chunks),
                stop: stop.clone(),
                delay: args.delay,
                clock: clock.clone(),
                targets: BTreeMap::new(),
                in_flight: VecDeque::new(),
            };
            let token = tasks.token().clone();
            tasks.spawn(&format!("worker {number}"), OnError::Log, async move {
                tokio::select! {
                    biased;
                    () = token.cancelled() => {}
                    () = worker.run() => {}
                }
                Ok(())
            });
        }
        let (verifier, waiting) = (Verifier::new(args.delay), BTreeMap::new());
        let started = clock.now();
        Ok(Run { clock, started, appends, sums, commands, verifier, waiting, chunks, streams: 0 })
    }

    fn elapsed(&self) -> Duration {
        self.clock.now() - self.started
    }

    fn totals(&self) -> Totals {
        Totals { streams: self.streams, chunks: self.chunks.load(Ordering::Relaxed) }
    }

    /// Verifies sums until all workers are done.
    async fn verify(&mut self, progress: &mut Progress) -> Result<(), RunError> {
        let mut tick = self.clock.now() + TICK;
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command)?,
                    None => break,
                },
                () = self.clock.sleep_until(tick) => {
                    tick = self.clock.now() + TICK;
                    self.on_tick()?;
                    self.show(progress);
                }
                sum = self.sums.next() => self.on_sum(&sum?)?,
            }
        }
        self.read_to_the_end().await
    }

    fn show(&mut self, progress: &mut Progress) {
        let now = self.elapsed();
        if progress.is_due(now) {
            progress.update(self.totals(), self.verifier.take_longest_wait(now), now);
        }
    }

    fn on_command(&mut self, command: Command) -> Result<(), RunError> {
        match command {
            Command::Open(id, journal) => self.verifier.open(id, journal),
            Command::Expect(sum, verified) => {
                self.verifier.expect(&sum, self.elapsed());
                self.waiting.insert(sum.id, verified);
            }
            Command::Failed(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn on_tick(&mut self) -> Result<(), RunError> {
        for warning in self.verifier.tick(self.elapsed())? {
            let (id, journal, waited) = (warning.id, warning.journal, warning.waited);
            let shard = shard_of(&journal);
            if waited < WARN_FROM {
                tracing::info!(%id, %journal, %shard, ?waited, "delay waiting for expected sum");
            } else {
                tracing::warn!(%id, %journal, %shard, ?waited, "delay waiting for expected sum");
            }
        }
        Ok(())
    }

    fn on_sum(&mut self, sum: &Envelope<Sum>) -> Result<(), RunError> {
        if sum.message.uuid.flags() == Flags::ACK_TXN {
            return Ok(());
        }
        if self.verifier.saw(&sum.message, self.elapsed())? == Seen::Verified {
            self.streams += 1;
            if let Some(verified) = self.waiting.remove(&sum.message.id) {
                // The worker is gone if the run fails at the same time.
                let _ = verified.send(());
            }
        }
        Ok(())
    }

    /// Looks at every sum which is published by now.
    async fn read_to_the_end(&mut self) -> Result<(), RunError> {
        let end = head(&self.appends).await?;
        while self.sums.uncommitted().offset() < end {
            tokio::select! {
                biased;
                sum = self.sums.next() => self.on_sum(&sum?)?,
                // What is not acknowledged is read without being returned.
                () = self.clock.sleep(TICK) => {}
            }
        }
        Ok(())
    }
}

async fn wait_for_journals(journals: &WatchedList, clock: &Clock) -> Result<(), WatchStopped> {
    loop {
        let ready = journals.wait_until(|listing| !listing.journals.is_empty());
        match clock.timeout(NO_JOURNALS, ready).await {
            Ok(ready) => return ready.map(drop),
            Err(_) => tracing::warn!(
                message_type = CHUNK_TYPE,
                "waiting for a broker with journals of chunks (are those of stream-sum applied?)"
            ),
        }
    }
}

/// Where the sums journal ends, by an append of nothing.
async fn head(appends: &AppendService) -> Result<i64, RunError> {
    let request = AppendRequest { journal: SUMS_JOURNAL.to_owned(), ..AppendRequest::default() };
    let barrier = appends.start_append(request, Vec::new()).release();
    let response = barrier.await.map_err(RunError::Head)?;
    Ok(response.commit.as_ref().map_or(0, |commit| commit.end))
}

fn read_sums(client: &JournalClient, offset: i64) -> CommittedReader<Sum> {
    let request =
        ReadRequest { journal: SUMS_JOURNAL.to_owned(), offset, block: true, ..ReadRequest::default() };
    let new_message: NewMessage<Sum> = Arc::new(|_| Ok(Sum::default()));
    let sequencer = Sequencer::new(Vec::new(), RING_MESSAGES, RING_BYTES);
    CommittedReader::new(client.clone(), request, new_message, sequencer)
}

/// A clock which is updated every second: what is published between takes its ticks.
fn follow_wall_time(clock: &Clock, tasks: &TaskGroup) -> Arc<ClockSource> {
    let source = Arc::new(ClockSource::new());
    source.update(clock.unix_now());
    let (clock, followed, token) = (clock.clone(), Arc::clone(&source), tasks.token().clone());
    tasks.spawn("clock", OnError::Log, async move {
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                () = clock.sleep(CLOCK_UPDATE) => followed.update(clock.unix_now()),
            }
        }
    });
    source
}

#[cfg(test)]
mod tests {
    use client::ClientOptions;

    use super::super::config::ProgressMode;
    use super::*;

    #[tokio::test]
    async fn a_run_which_waits_for_a_broker_can_be_stopped() {
        let (tasks, stop) = (TaskGroup::new("test"), CancellationToken::new());
        let client = JournalClient::new("http://127.0.0.1:1", ClientOptions::new(tasks.clone())).unwrap();
        let args = ChunkerArgs {
            zone: "local".to_owned(),
            streams: -1,
            chunks: 1,
            workers: 1,
            delay: Duration::from_secs(30),
            progress: ProgressMode::None,
        };
        let mut progress = Progress::new(args.progress, None);
        let run = run(&client, &args, &mut progress, &stop, &tasks);
        let both = async { tokio::join!(run, async { stop.cancel() }).0 };
        let totals = Clock::system().timeout(Duration::from_secs(20), both).await.expect("it goes on");
        assert_eq!(totals.unwrap(), Totals::default());
    }

    #[test]
    fn shards_are_named_as_in_the_specifications() {
        let journal = JournalName::parse("examples/stream-sum/chunks/part-003").unwrap();
        assert_eq!(shard_of(&journal), "chunks-part-003");
    }
}
