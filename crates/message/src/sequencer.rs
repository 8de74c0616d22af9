//! The sequencer: turns messages as they were written into messages as they were committed (journal messages §2.7).
//!
//! Producers interleave in a journal, retry (which duplicates), crash (which leaves messages that are never
//! acknowledged), and recover (which repeats acknowledgements). The sequencer follows each producer of each journal by
//! its clocks: it drops what it has seen, holds back what is not acknowledged, and delivers an acknowledged sequence as
//! a whole, in order. Producers do not block each other.
//!
//! Held messages live in a ring of bounded size. A sequence of which the ring lost a part is read from its journal
//! again, which the caller does on demand. The protocol of use is:
//!
//! ```text
//! queue(envelope) -> outcome
//! if outcome.commits(): repeat step() ->
//!     Exposed     process dequeued(), then step() again
//!     NeedReplay  offer(the next envelope of replay_range()), or end_replay() after the last; then step() again
//!     Done        queue the next envelope
//! ```
//!
//! A checkpoint may be taken between any two of these calls. A sequencer which starts from it, and reads each journal
//! from its `read_through`, delivers exactly the messages which were not yet processed: `step` is what marks the
//! dequeued message as processed.
//!
//! It must never deliver a message twice, deliver what was rolled back, or forget an open sequence.

mod checkpoint;
mod decision;
mod pruning;
mod replay;
mod ring;

use crate::{Clock, Envelope, Flags, Message, ProducerId};
pub use checkpoint::{InvalidProducer, ProducerState, SourceState, from_sources, to_sources};
pub use decision::QueueOutcome;
use decision::{Known, decide};
pub use pruning::Pruning;
pub use replay::{ReplayError, ReplayRange};
use ring::{Ring, SlotId, bytes_of};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// `dequeued` holds the next committed message.
    Exposed,
    /// The next messages of the replay range are needed: `offer` one, or `end_replay`.
    NeedReplay,
    /// All committed messages were delivered.
    Done,
}

struct Journal {
    name: Arc<str>,
    offset: Option<i64>,
    /// Looked up, never iterated in an order that shows.
    producers: HashMap<ProducerId, usize>,
    /// The producer of the last message: runs of one producer need no lookup.
    recent: Option<(ProducerId, usize)>,
}

/// A producer of a journal, and its open sequence.
struct Producer {
    /// Clock of the last message which was acknowledged and processed: exclusive lower bound of new ones.
    min_clock: Clock,
    /// Largest clock which was queued.
    max_clock: Clock,
    /// Offset of the first message of the open sequence.
    begin: Option<i64>,
    /// The sequence's messages in the ring.
    ring_first: Option<SlotId>,
    ring_last: Option<SlotId>,
    /// Checkpoint epoch in which the sequence began; zero if there is none.
    pending_epoch: u64,
    /// Checkpoint epoch of the last message; zero if there was none.
    seen_epoch: u64,
    /// For how long the sequencer had run by the end of that epoch.
    seen: Duration,
}

impl Producer {
    fn at(clock: Clock, begin: Option<i64>) -> Producer {
        Producer {
            min_clock: clock,
            max_clock: clock,
            begin,
            ring_first: None,
            ring_last: None,
            pending_epoch: 0,
            seen_epoch: 0,
            seen: Duration::ZERO,
        }
    }
}

/// The sequence which is being delivered.
struct Emit<M> {
    journal: usize,
    producer: usize,
    /// End of the committing message.
    commit_end: i64,
    /// Next message in the ring.
    next: Option<SlotId>,
    /// End of the replay, while replaying.
    replay_end: Option<i64>,
    /// The next replayed message.
    offered: Option<Envelope<M>>,
}

/// Index of the throw-away entry for messages without clock.
const UNTRACKED: usize = 0;

/// Orders the messages of any number of journals by what was committed. Owned by one task.
pub struct Sequencer<M> {
    journals: Vec<Journal>,
    journal_ids: HashMap<Arc<str>, usize>,
    recent_journal: usize,
    producers: Vec<Producer>,
    vacant: Vec<usize>,
    ring: Ring<M>,
    emit: Option<Emit<M>>,
    dequeued: Option<Envelope<M>>,
    /// Clock of the dequeued message as it was read: the application may stamp the message anew.
    dequeued_clock: Option<Clock>,
    epoch: u64,
    pending: usize,
}

impl<M: Message> Sequencer<M> {
    /// A sequencer which continues from a checkpoint. It holds up to `ring_messages` messages (at least one) of up to
    /// `ring_bytes` journal bytes; a single larger message is held all the same.
    pub fn new(states: Vec<SourceState>, ring_messages: usize, ring_bytes: usize) -> Sequencer<M> {
        let mut sequencer = Sequencer {
            journals: Vec::new(),
            journal_ids: HashMap::new(),
            recent_journal: 0,
            producers: vec![Producer::at(Clock::ZERO, None)],
            vacant: Vec::new(),
            ring: Ring::new(ring_messages, ring_bytes),
            emit: None,
            dequeued: None,
            dequeued_clock: None,
            epoch: 1,
            pending: 0,
        };
        for state in states {
            let journal = sequencer.journal(&state.journal);
            sequencer.journals[journal].offset = state.read_through;
            for entry in state.producers {
                let index = sequencer.add_producer(Producer::at(entry.last_ack, entry.begin));
                sequencer.journals[journal].producers.insert(entry.producer, index);
            }
        }
        sequencer
    }

    /// Queues the next message of a journal. If the outcome commits, its messages must be stepped through before the
    /// next call; queueing sooner is a bug of the caller, and panics.
    pub fn queue(&mut self, envelope: Envelope<M>) -> QueueOutcome {
        assert!(self.emit.is_none(), "queued a message of {} before stepping to Done", envelope.journal);
        self.make_room(bytes_of(&envelope));

        let uuid = envelope.message.uuid();
        let clock = uuid.clock();
        let journal = self.journal(&envelope.journal);
        let (producer, outcome) = if clock == Clock::ZERO {
            self.producers[UNTRACKED] = Producer::at(Clock::ZERO, None);
            (UNTRACKED, QueueOutcome::OutsideCommit)
        } else {
            let producer = self.producer(journal, uuid.producer(), clock);
            self.producers[producer].seen_epoch = self.epoch;
            let known = self.known(producer);
            let outcome = decide(&known, uuid.flags(), clock);
            report_misuse(&known, &envelope, outcome);
            (producer, outcome)
        };
        self.apply(outcome, journal, producer, clock, envelope);
        outcome
    }

    fn apply(
        &mut self,
        outcome: QueueOutcome,
        journal: usize,
        producer: usize,
        clock: Clock,
        envelope: Envelope<M>,
    ) {
        use QueueOutcome::*;
        let (begin, end) = (envelope.begin, envelope.end);
        match outcome {
            OutsideAlreadyAcked | ContinueAlreadyAcked | ContinueTxnClockLarger => {}
            ContinueBeginSpan => {
                self.producers[producer].begin = Some(begin);
                self.producers[producer].pending_epoch = self.epoch;
                self.pending += 1;
                self.hold(producer, clock, envelope);
            }
            ContinueExtendSpan => self.hold(producer, clock, envelope),
            AckRollback => {
                self.ring.discard_from(self.producers[producer].ring_first);
                self.settle(producer, clock);
            }
            OutsideCommit | AckEmpty | AckCommitRing | AckCommitReplay => {
                if outcome == OutsideCommit {
                    // An open sequence is implicitly rolled back.
                    self.ring.discard_from(self.producers[producer].ring_first);
                    (self.producers[producer].ring_first, self.producers[producer].ring_last) = (None, None);
                }
                if matches!(outcome, OutsideCommit | AckEmpty) {
                    self.producers[producer].begin = Some(begin);
                }
                self.hold(producer, clock, envelope);
                let next = self.producers[producer].ring_first;
                let ring_begin = next.map(|id| self.ring.slot(id).begin);
                let replay_end = ring_begin.filter(|_| outcome == AckCommitReplay);
                self.emit =
                    Some(Emit { journal, producer, commit_end: end, next, replay_end, offered: None });
                return; // The journal's offset advances when all was delivered.
            }
        }
        self.journals[journal].offset = Some(end);
    }

    /// The span to read again, while a replay is needed.
    pub fn replay_range(&self) -> Option<ReplayRange> {
        let emit = self.emit.as_ref()?;
        let journal = self.journals[emit.journal].name.clone();
        Some(ReplayRange { journal, begin: self.producers[emit.producer].begin?, end: emit.replay_end? })
    }

    /// Offers the next message of the replay, of whichever producer. Calling this when no replay is needed, or a second
    /// time before `step`, is a bug of the caller, and panics.
    pub fn offer(&mut self, envelope: Envelope<M>) -> Result<(), ReplayError> {
        let emit = self.emit.as_mut().expect("a replay is offered while a sequence is delivered");
        let at_most = emit.replay_end.expect("a replay is offered while one is needed");
        assert!(emit.offered.is_none(), "offered a message of {} before stepping", envelope.journal);

        let expected = &self.journals[emit.journal];
        let at_least = self.producers[emit.producer].begin.unwrap_or(0);
        if *envelope.journal != *expected.name {
            let (found, expected) = (envelope.journal.to_string(), expected.name.to_string());
            return Err(ReplayError::WrongJournal { found, expected });
        }
        if envelope.begin < at_least {
            return Err(ReplayError::WrongBegin { found: envelope.begin, at_least });
        }
        if envelope.end > at_most {
            return Err(ReplayError::WrongEnd { found: envelope.end, at_most });
        }
        let uuid = envelope.message.uuid();
        if uuid.clock() != Clock::ZERO && expected.producers.get(&uuid.producer()) == Some(&emit.producer) {
            emit.offered = Some(envelope);
        }
        Ok(())
    }

    /// Says that the replay range was read to its end: delivery goes on from the ring.
    pub fn end_replay(&mut self) {
        if let Some(emit) = &mut self.emit {
            emit.replay_end = None;
        }
    }

    /// Marks the dequeued message as processed, and goes on to the next committed one.
    pub fn step(&mut self) -> Step {
        let Some(emit) = &mut self.emit else { return Step::Done };
        let producer = &mut self.producers[emit.producer];
        if let Some(clock) = self.dequeued_clock.take() {
            producer.min_clock = clock;
            self.dequeued = None;
        }
        loop {
            let (clock, envelope) = if emit.replay_end.is_some() {
                match emit.offered.take() {
                    Some(envelope) => (envelope.message.uuid().clock(), Some(envelope)),
                    None => return Step::NeedReplay,
                }
            } else {
                let Some(id) = emit.next else { break };
                emit.next = self.ring.slot(id).next;
                (self.ring.slot(id).clock, self.ring.take(id))
            };
            // At or below: a duplicate. Above: written before the acknowledgement, but not covered by it.
            let is_committed =
                clock > producer.min_clock && clock <= producer.max_clock || clock == Clock::ZERO;
            let Some(envelope) = envelope.filter(|_| is_committed) else { continue };
            producer.begin = Some(envelope.begin);
            self.dequeued_clock = Some(clock);
            self.dequeued = Some(envelope);
            return Step::Exposed;
        }
        let (journal, end, producer) = (emit.journal, emit.commit_end, emit.producer);
        self.emit = None;
        self.journals[journal].offset = Some(end);
        self.settle(producer, self.producers[producer].min_clock);
        Step::Done
    }

    /// The message which the last step exposed, until the next step or until it is taken.
    pub fn dequeued(&self) -> Option<&Envelope<M>> {
        self.dequeued.as_ref()
    }

    /// Takes the message which the last step exposed. The next step still marks it as processed.
    pub fn take_dequeued(&mut self) -> Option<Envelope<M>> {
        self.dequeued.take()
    }

    /// Whether committed messages are being delivered: `step` has not returned `Done` since the last commit.
    pub fn is_dequeuing(&self) -> bool {
        self.emit.is_some()
    }

    /// Whether a sequence which began since the last checkpoint is neither completed nor rolled back.
    pub fn has_pending(&self) -> bool {
        self.pending != 0
    }

    /// How many sequences are open, in all journals.
    pub fn open_sequences(&self) -> usize {
        self.producers.iter().filter(|producer| producer.begin.is_some()).count()
    }

    /// The state to continue from, by journal name. Forgets producers as `pruning` says, but never one with an open
    /// sequence, since its acknowledgement may yet come.
    pub fn checkpoint(&mut self, pruning: Pruning) -> Vec<SourceState> {
        self.prune(pruning);
        self.epoch += 1;
        self.pending = 0;

        let state = |(producer, index): (&ProducerId, &usize)| {
            let Producer { min_clock, begin, .. } = self.producers[*index];
            ProducerState { producer: *producer, last_ack: min_clock, begin }
        };
        let source = |journal: &Journal| {
            let mut producers: Vec<_> = journal.producers.iter().map(state).collect();
            producers.sort_unstable_by_key(|state| state.producer);
            SourceState { journal: journal.name.clone(), read_through: journal.offset, producers }
        };
        let mut states: Vec<_> = self.journals.iter().map(source).collect();
        states.sort_unstable_by(|a, b| a.journal.cmp(&b.journal));
        states
    }

    fn prune(&mut self, pruning: Pruning) {
        for journal in &mut self.journals {
            let clocks = journal.producers.values().map(|index| self.producers[*index].min_clock);
            let newest = clocks.max().unwrap_or(Clock::ZERO);
            journal.recent = None;
            journal.producers.retain(|_, index| {
                let producer = &mut self.producers[*index];
                if producer.seen_epoch == self.epoch {
                    producer.seen = pruning.running;
                }
                let keep =
                    producer.begin.is_some() || !pruning.forgets(newest, producer.max_clock, producer.seen);
                if !keep {
                    self.vacant.push(*index);
                }
                keep
            });
        }
    }

    /// Evicts the oldest messages until `incoming` bytes fit. Happens before the decision about the incoming message, so
    /// that the ring still holds what the decision counts on.
    fn make_room(&mut self, incoming: usize) {
        while self.ring.is_full_for(incoming) {
            let Some((id, slot)) = self.ring.evict() else { return };
            let producer = &mut self.producers[slot.producer];
            if producer.ring_first == Some(id) {
                producer.ring_first = slot.next;
                producer.ring_last = producer.ring_last.filter(|_| slot.next.is_some());
            }
        }
    }

    /// Adds a message to the ring, and to its producer's sequence.
    fn hold(&mut self, producer: usize, clock: Clock, envelope: Envelope<M>) {
        let id = self.ring.push(producer, clock, envelope);
        let producer = &mut self.producers[producer];
        match producer.ring_last.replace(id) {
            Some(last) => self.ring.link(last, id),
            None => producer.ring_first = Some(id),
        }
        producer.max_clock = clock;
    }

    /// Ends the producer's sequence, with everything through `clock` processed.
    fn settle(&mut self, producer: usize, clock: Clock) {
        let Producer { seen_epoch, seen, .. } = self.producers[producer];
        let settled = Producer { seen_epoch, seen, ..Producer::at(clock, None) };
        let ended = std::mem::replace(&mut self.producers[producer], settled);
        if ended.pending_epoch == self.epoch {
            self.pending -= 1;
        }
    }

    fn known(&self, producer: usize) -> Known {
        let Producer { min_clock, max_clock, begin, ring_first, .. } = self.producers[producer];
        Known { min_clock, max_clock, begin, ring_begin: ring_first.map(|id| self.ring.slot(id).begin) }
    }

    fn journal(&mut self, name: &Arc<str>) -> usize {
        match self.journals.get(self.recent_journal) {
            Some(recent) if Arc::ptr_eq(&recent.name, name) => return self.recent_journal,
            _ => {}
        }
        let next = self.journals.len();
        self.recent_journal = *self.journal_ids.entry(name.clone()).or_insert(next);
        if self.recent_journal == next {
            let name = name.clone();
            self.journals.push(Journal { name, offset: None, producers: HashMap::new(), recent: None });
        }
        self.recent_journal
    }

    /// The producer's index. One which is new has processed everything before `clock`, which is not zero.
    fn producer(&mut self, journal: usize, id: ProducerId, clock: Clock) -> usize {
        match self.journals[journal].recent {
            Some((recent, index)) if recent == id => return index,
            _ => {}
        }
        let index = match self.journals[journal].producers.get(&id) {
            Some(index) => *index,
            None => {
                let index = self.add_producer(Producer::at(Clock(clock.0 - 1), None));
                self.journals[journal].producers.insert(id, index);
                index
            }
        };
        self.journals[journal].recent = Some((id, index));
        index
    }

    fn add_producer(&mut self, producer: Producer) -> usize {
        match self.vacant.pop() {
            Some(index) => {
                self.producers[index] = producer;
                index
            }
            None => {
                self.producers.push(producer);
                self.producers.len() - 1
            }
        }
    }
}

/// Logs what only a faulty writer, or one whose state was rolled back, does.
fn report_misuse<M: Message>(known: &Known, envelope: &Envelope<M>, outcome: QueueOutcome) {
    let uuid = envelope.message.uuid();
    let problem = match outcome {
        _ if !matches!(uuid.flags(), Flags::OUTSIDE_TXN | Flags::CONTINUE_TXN | Flags::ACK_TXN) => {
            "message has unknown flags; taking it as committed"
        }
        QueueOutcome::OutsideCommit if known.begin.is_some() => {
            "producer mixes committed messages into its transaction, which is rolled back"
        }
        QueueOutcome::AckRollback if uuid.clock() < known.min_clock => {
            "producer was rolled back to an earlier state; its messages are now delivered at least once"
        }
        _ => return,
    };
    tracing::error!(
        journal = &*envelope.journal,
        begin = envelope.begin,
        producer = %uuid.producer(),
        clock = %uuid.clock(),
        last_ack = %known.min_clock,
        "{problem}"
    );
}

#[cfg(test)]
mod tests;
