//! When a transaction begins, goes on, commits and completes: the loop of a shard as a pure state machine
//! (consumer protocol §3.2–3.5).
//!
//! There are at most two transactions: the *running* one, which consumes, and the *prior* one, whose commit and
//! acknowledgements become durable meanwhile. The driver asks [`TxnLoop::wants`] which sources of events matter now,
//! takes the first that is ready (prior, timer, ready message, next read: in this order) and feeds it to
//! [`TxnLoop::step`], which answers with the one effect to execute. Every source is offered at each step, also while
//! messages are ready, so that a busy shard sees its prior transaction complete without delay.
//!
//! What it must never do: let the running transaction commit before the prior one is durable and acknowledged, end a
//! transaction which has not begun, or count time by itself. Contract violations of the driver are bugs and panic.

use std::time::Duration;

/// Time since the loop began.
pub type Time = Duration;

/// What the specification of the shard says of transactions, sampled when one starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A transaction is held open for at least this long.
    pub min: Duration,
    /// A transaction stops to consume after this long.
    pub max: Duration,
    /// Hold a transaction open while messages which it read await their acknowledgement.
    pub wait_for_ack: bool,
}

/// What may begin a transaction, or extend a running one. Whatever it is, it counts: a transaction with one trigger has
/// begun and commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// A committed message, exposed by the sequencer.
    Message,
}

/// What queueing a read message did to the sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It completed a sequence: committed messages are ready.
    Committed,
    /// It extends a sequence that awaits its acknowledgement.
    Pending,
    /// It is a duplicate or a roll-back: the journal is read through its end, and nothing becomes ready.
    Ignored,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The store commit of the prior transaction is durable.
    PriorCommitted,
    /// One acknowledgement of the prior transaction is durable.
    PriorAcked,
    /// The deadline of [`Wants::timer`] has passed.
    Tick,
    /// A message was read and queued.
    Queued(Queued),
    /// There is nothing more to read, for now: finish what was begun.
    Drained,
    /// The shard is to be given up: commit what was consumed as soon as may be, and begin nothing more.
    Stop,
    /// A trigger is ready to be processed.
    Ready(Trigger),
    /// The application's begin hook returned.
    Began(Trigger),
    /// The application consumed a trigger of this many bytes.
    Consumed {
        /// Length of its frame.
        bytes: u64,
    },
    /// The application wants the trigger to open the next transaction instead.
    Deferred,
    /// What the transaction publishes is not written out fast enough: it is to take no further triggers.
    Saturated,
    /// Nothing is ready although the loop does not wait ([`Wants::block`] is false).
    Idle,
    /// The commit was started.
    CommitStarted {
        /// Acknowledgements that were queued behind it.
        acks: usize,
        /// Settings of the transaction which now starts.
        next: Settings,
    },
}

/// What the driver executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Call the application's begin hook, then feed [`Event::Began`].
    Begin(Trigger),
    /// Let the application process the trigger, then feed [`Event::Consumed`] or [`Event::Deferred`].
    Process(Trigger),
    /// Finalize, checkpoint, start the commit and queue the acknowledgements, then feed [`Event::CommitStarted`].
    Commit,
    /// The prior transaction is durable and acknowledged: publish its progress.
    Completed(Completed),
    /// Publish the read-through offset together with the prior transaction, when that completes.
    RaisePrior,
    /// Publish the read-through offset at once: no transaction will.
    RaiseNow,
    /// Every transaction is complete and nothing is left to read.
    Finished,
}

/// A violation of the contract by the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A transaction cannot consist of nothing.
    #[error("consumer transaction is empty, but application deferred the first message")]
    DeferredFirst,
}

/// Durations of the phases of a completed transaction, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// Triggers that were consumed.
    pub messages: u64,
    /// Sum of their bytes.
    pub bytes: u64,
    /// From the preparation of its predecessor until it began.
    pub not_running: Duration,
    /// Until it had no more to do, or was not allowed to.
    pub consuming: Duration,
    /// Until its predecessor let it commit.
    pub stalled: Duration,
    /// Until its commit was started.
    pub preparing: Duration,
    /// Until its commit was durable.
    pub committing: Duration,
    /// Until its acknowledgements were durable.
    pub acknowledging: Duration,
}

/// Sources of events which matter to the loop now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// What of the prior transaction is awaited.
    pub prior: Stage,
    /// The armed deadline.
    pub timer: Option<Time>,
    /// Whether triggers are taken: first one that is ready, else the next read.
    pub trigger: bool,
    /// Wait until something is ready. Otherwise [`Event::Idle`] tells that nothing is.
    pub block: bool,
}

/// How far the prior transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its commit is under way.
    Committing,
    /// Its commit is durable; this many acknowledgements are under way (at least one).
    Acknowledging(usize),
    /// Done.
    Complete,
}

#[derive(Debug)]
struct Running {
    settings: Settings,
    /// When its predecessor's commit was started.
    predecessor_prepared: Time,
    began: Option<Time>,
    timer: Option<Time>,
    min_elapsed: bool,
    max_elapsed: bool,
    reading: bool,
    drained: bool,
    stalled: Option<Time>,
    /// Set once its commit is being prepared.
    preparing: Option<Time>,
    messages: u64,
    bytes: u64,
}

impl Running {
    fn new(settings: Settings, now: Time) -> Running {
        Running {
            settings,
            predecessor_prepared: now,
            began: None,
            timer: None,
            min_elapsed: false,
            max_elapsed: false,
            reading: true,
            drained: false,
            stalled: None,
            preparing: None,
            messages: 0,
            bytes: 0,
        }
    }
}

#[derive(Debug)]
struct Prior {
    stage: Stage,
    acks: usize,
    prepared: Time,
    committed: Time,
    /// Complete but for its last two phases.
    completed: Completed,
}

/// The loop. See the module.
#[derive(Debug)]
pub struct TxnLoop {
    running: Running,
    prior: Prior,
    stopping: bool,
}

impl TxnLoop {
    /// A loop which starts behind a pseudo-transaction: the recovered checkpoint, whose commit is durable and whose
    /// `recovered_acks` acknowledgements are written again.
    pub fn new(now: Time, settings: Settings, recovered_acks: usize) -> TxnLoop {
        TxnLoop {
            running: Running::new(settings, now),
            prior: Prior {
                stage: Stage::Committing,
                acks: recovered_acks,
                prepared: now,
                committed: now,
                completed: Completed::default(),
            },
            stopping: false,
        }
    }

    /// What to wait for. `pending` says whether the sequencer holds sequences which await their acknowledgement.
    pub fn wants(&self, pending: bool) -> Wants {
        let running = &self.running;
        Wants {
            prior: self.prior.stage,
            timer: running.timer,
            trigger: running.reading,
            block: self.blocks(pending),
        }
    }

    /// True once a trigger has begun the running transaction.
    pub fn has_begun(&self) -> bool {
        self.running.began.is_some()
    }

    /// Takes one event at time `now`, which never decreases.
    pub fn step(&mut self, now: Time, event: Event) -> Result<Effect, StepError> {
        assert!(
            self.running.preparing.is_none() || matches!(event, Event::CommitStarted { .. }),
            "{event:?} while a commit is being prepared"
        );
        match event {
            Event::PriorCommitted => Ok(self.on_prior_committed(now)),
            Event::PriorAcked => Ok(self.on_prior_acked(now)),
            Event::Tick => Ok(self.on_tick(now)),
            Event::Queued(queued) => Ok(self.on_queued(queued)),
            Event::Drained => {
                self.running.reading = false;
                self.running.drained = true;
                Ok(Effect::None)
            }
            Event::Stop => {
                self.stopping = true;
                self.running.reading = false;
                self.running.drained = true;
                Ok(Effect::None)
            }
            Event::Ready(trigger) => Ok(self.on_ready(trigger)),
            Event::Began(trigger) => Ok(self.on_began(now, trigger)),
            Event::Consumed { bytes } => Ok(self.on_consumed(bytes)),
            Event::Deferred => self.on_deferred(),
            Event::Saturated => {
                self.running.reading = false;
                Ok(Effect::None)
            }
            Event::Idle => Ok(self.on_idle(now)),
            Event::CommitStarted { acks, next } => Ok(self.on_commit_started(now, acks, next)),
        }
    }

    fn blocks(&self, pending: bool) -> bool {
        let running = &self.running;
        if self.prior.stage != Stage::Complete {
            return true;
        }
        if running.began.is_none() {
            return !running.drained;
        }
        let too_short = !running.min_elapsed && !self.stopping;
        let awaits_ack = running.settings.wait_for_ack && running.reading && !running.max_elapsed && pending;
        too_short || awaits_ack
    }

    fn on_prior_committed(&mut self, now: Time) -> Effect {
        let prior = &mut self.prior;
        assert_eq!(prior.stage, Stage::Committing, "a commit completes once");
        prior.committed = now;
        prior.completed.committing = now - prior.prepared;
        prior.stage = Stage::Acknowledging(prior.acks);
        if prior.acks == 0 { self.complete_prior(now) } else { Effect::None }
    }

    fn on_prior_acked(&mut self, now: Time) -> Effect {
        let Stage::Acknowledging(left) = self.prior.stage else {
            panic!("an acknowledgement completes after its commit, not in stage {:?}", self.prior.stage);
        };
        assert!(left > 0, "an acknowledgement completes once");
        self.prior.stage = Stage::Acknowledging(left - 1);
        if left == 1 { self.complete_prior(now) } else { Effect::None }
    }

    fn complete_prior(&mut self, now: Time) -> Effect {
        self.prior.stage = Stage::Complete;
        self.prior.completed.acknowledging = now - self.prior.committed;
        Effect::Completed(self.prior.completed)
    }

    fn on_tick(&mut self, now: Time) -> Effect {
        let running = &mut self.running;
        let began = running.began.expect("the timer is armed when a transaction begins");
        running.min_elapsed = true;
        let end = began + running.settings.max;
        if now < end {
            running.timer = Some(end);
            return Effect::None;
        }
        running.timer = None;
        running.max_elapsed = true;
        running.reading = false;
        if self.prior.stage != Stage::Complete {
            running.stalled = Some(now);
        }
        Effect::None
    }

    fn on_queued(&mut self, queued: Queued) -> Effect {
        match queued {
            Queued::Committed | Queued::Pending => Effect::None,
            // The running transaction will report the offset.
            Queued::Ignored if self.running.began.is_some() => Effect::None,
            Queued::Ignored if self.prior.stage != Stage::Complete => Effect::RaisePrior,
            Queued::Ignored => Effect::RaiseNow,
        }
    }

    fn on_ready(&mut self, trigger: Trigger) -> Effect {
        assert!(self.running.reading, "{trigger:?} was not wanted");
        if self.running.began.is_none() { Effect::Begin(trigger) } else { Effect::Process(trigger) }
    }

    fn on_began(&mut self, now: Time, trigger: Trigger) -> Effect {
        assert!(self.running.began.is_none(), "a transaction begins once");
        self.running.began = Some(now);
        self.running.timer = Some(now + self.running.settings.min);
        Effect::Process(trigger)
    }

    fn on_consumed(&mut self, bytes: u64) -> Effect {
        assert!(self.running.began.is_some(), "a transaction begins before it consumes");
        self.running.messages += 1;
        self.running.bytes += bytes;
        Effect::None
    }

    fn on_deferred(&mut self) -> Result<Effect, StepError> {
        if self.running.messages == 0 {
            return Err(StepError::DeferredFirst);
        }
        self.running.reading = false;
        Ok(Effect::None)
    }

    fn on_idle(&mut self, now: Time) -> Effect {
        assert_eq!(self.prior.stage, Stage::Complete, "a transaction waits for the prior one");
        if self.running.began.is_none() {
            assert!(self.running.drained, "an empty transaction ends only when nothing is left to read");
            return Effect::Finished;
        }
        self.running.timer = None;
        self.running.preparing = Some(now);
        Effect::Commit
    }

    fn on_commit_started(&mut self, now: Time, acks: usize, next: Settings) -> Effect {
        let (Some(preparing), Some(began)) = (self.running.preparing, self.running.began) else {
            panic!("a commit starts after it was asked for");
        };
        assert_eq!(self.prior.stage, Stage::Complete, "one commit at a time");
        let mut starting = Running::new(next, now);
        starting.reading = !self.stopping;
        starting.drained = self.stopping;
        let ended = std::mem::replace(&mut self.running, starting);
        let stalled = ended.stalled.unwrap_or(preparing);
        self.prior = Prior {
            stage: Stage::Committing,
            acks,
            prepared: now,
            committed: now,
            completed: Completed {
                messages: ended.messages,
                bytes: ended.bytes,
                not_running: began - ended.predecessor_prepared,
                consuming: stalled - began,
                stalled: preparing - stalled,
                preparing: now - preparing,
                ..Completed::default()
            },
        };
        Effect::None
    }
}

#[cfg(test)]
mod tests;
