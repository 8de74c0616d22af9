//! Executes the effects of the transaction loop, and feeds it what happens (consumer protocol §3).

use std::task::Poll;

use client::{OpError, OpFuture, Publisher};
use message::sequencer::{Pruning, Step};
use message::{Envelope, Message, QueueOutcome, Sequencer};
use runtime::{CancellationToken, Clock, Instant, trace};
use tracing::{Instrument, Span, field};

use super::commit::{self, Parts};
use super::core::{Effect, Event, Queued, Stage, Time, Trigger, TxnLoop, Wants};
use super::heads::Heads;
use super::prior::{Durable, Prior};
use super::pump::Sources;
use super::ready::{Ready, ready_of, until_cancelled};
use super::replay::Replay;
use super::{LoopError, settings};
use crate::shard::Shard;
use crate::{Application, Consumed};

/// Bytes of appends under way, beyond which a transaction takes no further message.
const PUBLISH_BYTES_MAX: u64 = 128 << 20;

/// Messages per look at what else is ready.
const LOOK_EVERY: u32 = 16;

/// One run of the loop of a shard.
pub(super) struct Driver<'a, A: Application> {
    pub app: &'a A,
    pub shard: &'a Shard,
    pub store: &'a mut A::Store,
    pub publisher: &'a mut Publisher,
    pub clock: &'a Clock,
    pub publish_clock_delta: std::time::Duration,
    pub started: Instant,
    pub core: TxnLoop,
    pub prior: Prior,
    pub sequencer: Sequencer<A::Message>,
    pub sources: Sources<A::Message>,
    pub replay: Replay<A::Message>,
    pub heads: Heads,
    pub token: CancellationToken,
    pub cede: CancellationToken,
    pub has_ceded: bool,
    /// The time of the last look at it.
    pub time: Time,
    pub turn: u32,
    /// Of the running transaction, and of the one before it until that is complete.
    pub span: Span,
    pub prior_span: Span,
}

impl<A: Application> Driver<'_, A> {
    /// Runs until the shard is given up and its transactions are complete.
    pub async fn run(mut self) -> Result<(), LoopError> {
        let outcome = self.run_loop().await;
        if let Err(error) = &outcome
            && self.core.has_begun()
        {
            let failed = OpFuture::resolved(Err(OpError::failed(error.to_string())));
            self.app.finished_txn(self.shard, self.store, failed).await;
        }
        outcome
    }

    async fn run_loop(&mut self) -> Result<(), LoopError> {
        loop {
            let wants = self.core.wants(self.sequencer.has_pending());
            let ready = match self.poll(&wants)? {
                Some(ready) => ready,
                None if wants.block => self.wait(&wants).await?,
                None => Ready::Event(Event::Idle),
            };
            let event = match ready {
                Ready::Again => continue,
                Ready::Event(event) => event,
                Ready::Durable(Durable::Commit) => Event::PriorCommitted,
                Ready::Durable(Durable::Ack(ack)) => {
                    self.prior.published.push(ack);
                    Event::PriorAcked
                }
                Ready::Envelope(envelope) => Event::Queued(self.queue(envelope).await?),
            };
            if self.execute(event).await? {
                return Ok(());
            }
        }
    }

    /// The time, read anew.
    fn now(&mut self) -> Time {
        self.time = self.clock.now() - self.started;
        self.time
    }

    /// The first source of events, in their order, which is ready.
    ///
    /// While messages are ready, the others are looked at with every [`LOOK_EVERY`]th of them: a look costs more than a
    /// message does.
    fn poll(&mut self, wants: &Wants) -> Result<Option<Ready<A::Message>>, LoopError> {
        self.turn = self.turn.wrapping_add(1);
        if self.turn.is_multiple_of(LOOK_EVERY)
            && let Some(ready) = self.poll_others(wants)?
        {
            return Ok(Some(ready));
        }
        if wants.trigger {
            if self.sequencer.dequeued().is_some() {
                return Ok(Some(Ready::Event(Event::Ready(Trigger::Message))));
            }
            if let Some(incoming) = self.sources.poll() {
                return ready_of(incoming).map(Some);
            }
        }
        self.poll_others(wants)
    }

    /// The first source of events other than messages which is ready.
    fn poll_others(&mut self, wants: &Wants) -> Result<Option<Ready<A::Message>>, LoopError> {
        self.time = self.clock.now() - self.started;
        if self.token.is_cancelled() {
            return Err(LoopError::Cancelled);
        }
        if !self.has_ceded && self.cede.is_cancelled() {
            self.has_ceded = true;
            return Ok(Some(Ready::Event(Event::Stop)));
        }
        if wants.prior != Stage::Complete
            && let Poll::Ready(durable) = self.prior.poll(wants.prior)
        {
            return Ok(Some(Ready::Durable(durable?)));
        }
        let is_due = wants.timer.is_some_and(|deadline| self.time >= deadline);
        Ok(is_due.then_some(Ready::Event(Event::Tick)))
    }

    async fn wait(&mut self, wants: &Wants) -> Result<Ready<A::Message>, LoopError> {
        let timer = async {
            match wants.timer {
                Some(deadline) => self.clock.sleep_until(self.started + deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(LoopError::Cancelled),
            () = self.cede.cancelled(), if !self.has_ceded => Ok(Ready::Again),
            () = self.prior.changed(wants.prior) => Ok(Ready::Again),
            () = timer => Ok(Ready::Again),
            incoming = self.sources.next(), if wants.trigger => ready_of(incoming),
        }
    }

    /// Queues a message that was read, and exposes the first one which that commits.
    async fn queue(&mut self, envelope: Envelope<A::Message>) -> Result<Queued, LoopError> {
        let (flags, end) = (envelope.message.uuid().flags(), envelope.end);
        self.heads.on_read(&envelope.journal, end, envelope.message.uuid().clock());
        let outcome = self.sequencer.queue(envelope);
        self.heads.count(flags, outcome);
        if outcome.commits() {
            self.advance().await?;
            return Ok(Queued::Committed);
        }
        Ok(match outcome {
            QueueOutcome::ContinueBeginSpan | QueueOutcome::ContinueExtendSpan => Queued::Pending,
            _ => Queued::Ignored,
        })
    }

    /// Exposes the next committed message, if there is one. What the journal must be read again for is read.
    async fn advance(&mut self) -> Result<(), LoopError> {
        loop {
            match self.sequencer.step() {
                Step::Exposed | Step::Done => return Ok(()),
                Step::NeedReplay => {
                    let replayed = tokio::select! {
                        biased;
                        () = self.token.cancelled() => return Err(LoopError::Cancelled),
                        replayed = self.replay.feed(&mut self.sequencer) => replayed,
                    };
                    replayed.map_err(LoopError::Replay)?;
                }
            }
        }
    }

    /// Takes one event, and executes what follows from it. True once the loop has finished.
    async fn execute(&mut self, event: Event) -> Result<bool, LoopError> {
        let mut effect = self.core.step(self.time, event)?;
        loop {
            effect = match effect {
                Effect::None => return Ok(false),
                Effect::Finished => return Ok(true),
                Effect::Begin(trigger) => {
                    self.span = transaction_span(self.shard);
                    let begun = self.app.begin_txn(self.shard, self.store);
                    until_cancelled(&self.token, begun).await?.map_err(LoopError::Begin)?;
                    let publish_clock = self.clock.unix_now() + self.publish_clock_delta;
                    self.shard.clock().update(publish_clock);
                    let now = self.now();
                    self.core.step(now, Event::Began(trigger))?
                }
                Effect::Process(Trigger::Message) => self.consume().await?,
                Effect::Commit => {
                    let acks = self.commit().await?;
                    let next = settings(&self.shard.spec());
                    let now = self.now();
                    self.core.step(now, Event::CommitStarted { acks, next })?
                }
                Effect::Completed(completed) => {
                    self.prior_span.record("messages", completed.messages);
                    self.prior_span.record("bytes", completed.bytes);
                    self.prior_span = Span::none();
                    self.heads.on_completed(self.shard, &completed, &mut self.prior);
                    Effect::None
                }
                Effect::RaisePrior => {
                    if let Some((journal, end)) = self.heads.last_read() {
                        self.prior.read_through.insert(journal, end);
                    }
                    Effect::None
                }
                Effect::RaiseNow => {
                    self.heads.raise_now(self.shard);
                    Effect::None
                }
            };
        }
    }

    async fn consume(&mut self) -> Result<Effect, LoopError> {
        let envelope = self.sequencer.dequeued().expect("a message is ready");
        let bytes = u64::try_from(envelope.end - envelope.begin).unwrap_or(0);
        let consumed = self.app.consume_message(self.shard, self.store, envelope, self.publisher);
        // Most transactions are not traced, and this is done for each message.
        let consumed = match self.span.is_disabled() {
            true => until_cancelled(&self.token, consumed).await,
            false => until_cancelled(&self.token, consumed.instrument(self.span.clone())).await,
        };
        let consumed = consumed?.map_err(LoopError::Consume)?;
        match consumed {
            Consumed::Done => self.advance().await?,
            Consumed::Defer => return Ok(self.core.step(self.time, Event::Deferred)?),
        }
        let effect = self.core.step(self.time, Event::Consumed { bytes })?;
        if self.shard.appends().buffered_bytes() > PUBLISH_BYTES_MAX {
            return Ok(self.core.step(self.time, Event::Saturated)?);
        }
        Ok(effect)
    }

    /// Ends the running transaction (consumer protocol §3.5). Gives the number of acknowledgements queued behind it.
    async fn commit(&mut self) -> Result<usize, LoopError> {
        let finalized = self.app.finalize_txn(self.shard, self.store, self.publisher);
        let finalized = finalized.instrument(self.span.clone());
        until_cancelled(&self.token, finalized).await?.map_err(LoopError::Finalize)?;
        let pruning = Pruning {
            horizon: commit::PRODUCER_HORIZON,
            unix_now: self.clock.unix_now(),
            running: self.now(),
        };
        let states = self.sequencer.checkpoint(pruning);
        let parts = Parts::new(states, self.publisher.build_ack_intents().map_err(LoopError::Intents)?);
        self.prior_span = std::mem::replace(&mut self.span, Span::none());
        let start = || parts.start(self.shard, self.store, self.publisher);
        self.prior = self.prior_span.in_scope(start)?;
        self.app.finished_txn(self.shard, self.store, self.prior.commit().clone()).await;
        Ok(self.prior.acks())
    }
}

/// From the beginning of a transaction until its acknowledgements are durable.
fn transaction_span(shard: &Shard) -> Span {
    let (messages, bytes) = (field::Empty, field::Empty);
    tracing::info_span!(target: trace::TARGET, parent: None, "transaction", shard = %shard.id(), messages, bytes)
}
