use super::*;
use crate::{Framing, MessageError, Uuid};
use proptest::prelude::*;
use proto::JournalName;
use std::collections::{BTreeMap, HashSet};

/// A message of nothing but its UUID.
#[derive(Clone, Debug, PartialEq)]
struct Bare(Uuid);

impl Message for Bare {
    fn uuid(&self) -> Uuid {
        self.0
    }
    fn set_uuid(&mut self, uuid: Uuid) {
        self.0 = uuid;
    }
    fn new_acknowledgement(&self, _: &JournalName) -> Bare {
        Bare(Uuid::default())
    }
    fn encode(&self, framing: Framing, _: &mut Vec<u8>) -> Result<(), MessageError> {
        Err(MessageError::Framing(framing))
    }
    fn decode(&mut self, framing: Framing, _: &[u8]) -> Result<(), MessageError> {
        Err(MessageError::Framing(framing))
    }
}

const OUTSIDE: Flags = Flags::OUTSIDE_TXN;
const CONT: Flags = Flags::CONTINUE_TXN;
const ACK: Flags = Flags::ACK_TXN;
const A: ProducerId = ProducerId([1, 0, 0, 0, 0, 0xa]);
const B: ProducerId = ProducerId([1, 0, 0, 0, 0, 0xb]);
/// Bytes of each message.
const SPAN: i64 = 10;
const UNBOUNDED: usize = usize::MAX;

fn uuid(producer: ProducerId, clock: u64, flags: Flags) -> Uuid {
    Uuid::build(producer, Clock(clock), flags)
}

fn name(index: usize) -> Arc<str> {
    format!("test/journal-{index}").into()
}

fn envelope(names: &[Arc<str>], journal: usize, index: usize, uuid: Uuid) -> Envelope<Bare> {
    let begin = index as i64 * SPAN;
    Envelope { journal: names[journal].clone(), begin, end: begin + SPAN, message: Bare(uuid) }
}

/// Journals in memory, and a sequencer which reads them.
struct Fixture {
    names: Vec<Arc<str>>,
    journals: Vec<Vec<Uuid>>,
    sequencer: Sequencer<Bare>,
    /// Messages yet to be offered by the running replay.
    replay: Option<std::ops::Range<usize>>,
    /// How many replays were needed.
    replays: usize,
    /// For how long the sequencer has run.
    running: Duration,
}

impl Fixture {
    fn new(ring: usize) -> Fixture {
        Fixture::of_journals(2, ring)
    }

    fn of_journals(count: usize, ring: usize) -> Fixture {
        let names: Vec<_> = (0..count).map(name).collect();
        let journals = vec![Vec::new(); count];
        Fixture {
            names,
            journals,
            sequencer: Sequencer::new(Vec::new(), ring, UNBOUNDED),
            replay: None,
            replays: 0,
            running: Duration::ZERO,
        }
    }

    /// Appends to journal zero, and queues.
    fn queue(&mut self, producer: ProducerId, clock: u64, flags: Flags) -> QueueOutcome {
        self.journals[0].push(uuid(producer, clock, flags));
        self.queue_at(0, self.journals[0].len() - 1)
    }

    fn queue_at(&mut self, journal: usize, index: usize) -> QueueOutcome {
        self.sequencer.queue(envelope(&self.names, journal, index, self.journals[journal][index]))
    }

    /// Steps until a message is exposed, serving the replay if one is needed. None is the end.
    fn step(&mut self) -> Option<Uuid> {
        loop {
            match self.sequencer.step() {
                Step::Done => return None,
                Step::Exposed => return self.sequencer.dequeued().map(|envelope| envelope.message.0),
                Step::NeedReplay => self.serve_replay(),
            }
        }
    }

    fn serve_replay(&mut self) {
        let range = self.sequencer.replay_range().unwrap();
        let journal = self.names.iter().position(|name| *name == range.journal).unwrap();
        if self.replay.is_none() {
            self.replays += 1;
            self.replay = Some((range.begin / SPAN) as usize..(range.end / SPAN) as usize);
        }
        match self.replay.as_mut().unwrap().next() {
            Some(index) => {
                let uuid = self.journals[journal][index];
                self.sequencer.offer(envelope(&self.names, journal, index, uuid)).unwrap();
            }
            None => {
                self.replay = None;
                self.sequencer.end_replay();
            }
        }
    }

    /// All which the last queued message committed, as clocks.
    fn drain(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.step()).map(|uuid| uuid.clock().0).collect()
    }

    /// Queues and drains.
    fn read(&mut self, producer: ProducerId, clock: u64, flags: Flags) -> (QueueOutcome, Vec<u64>) {
        (self.queue(producer, clock, flags), self.drain())
    }

    /// Checkpoints over the wire form, and continues with a sequencer of that state. Returns the message to read next
    /// of each journal.
    fn recover(&mut self, ring: usize) -> Vec<usize> {
        let states = self.sequencer.checkpoint(Pruning::NONE);
        let states = from_sources(&to_sources(states)).unwrap();
        let offset = |name: &Arc<str>| {
            states
                .iter()
                .find(|state| state.journal == *name)
                .and_then(|state| state.read_through)
                .unwrap_or(0)
        };
        let next = self.names.iter().map(|name| (offset(name) / SPAN) as usize).collect();
        self.sequencer = Sequencer::new(states, ring, UNBOUNDED);
        self.replay = None;
        next
    }
}

use QueueOutcome::*;

#[test]
fn an_acknowledged_sequence_is_delivered_as_a_whole_with_its_acknowledgement() {
    let mut it = Fixture::new(8);
    assert_eq!(it.read(A, 10, CONT), (ContinueBeginSpan, vec![]));
    assert_eq!(it.read(B, 11, CONT), (ContinueBeginSpan, vec![]));
    assert_eq!(it.read(A, 20, CONT), (ContinueExtendSpan, vec![]));
    assert_eq!(it.read(A, 30, ACK), (AckCommitRing, vec![10, 20, 30]));
    assert_eq!(it.read(B, 12, ACK), (AckCommitRing, vec![11, 12]));
    assert_eq!(it.replays, 0);
}

#[test]
fn duplicates_are_dropped_wherever_they_appear() {
    let mut it = Fixture::new(8);
    it.read(A, 10, CONT);
    it.read(A, 20, CONT);
    assert_eq!(it.read(A, 10, CONT), (ContinueTxnClockLarger, vec![]));
    assert_eq!(it.read(A, 20, CONT), (ContinueTxnClockLarger, vec![]));
    assert_eq!(it.read(A, 30, ACK), (AckCommitRing, vec![10, 20, 30]));
    assert_eq!(it.read(A, 20, CONT), (ContinueAlreadyAcked, vec![]));
    assert_eq!(it.read(A, 30, ACK), (AckRollback, vec![]));
    assert_eq!(it.read(A, 40, ACK), (AckEmpty, vec![40]));
    assert_eq!(it.read(A, 50, CONT), (ContinueBeginSpan, vec![]));
}

#[test]
fn an_acknowledgement_covers_only_messages_of_smaller_clocks() {
    let mut it = Fixture::new(8);
    for clock in [10, 20, 30] {
        it.read(A, clock, CONT);
    }
    assert_eq!(it.read(A, 20, ACK), (AckCommitRing, vec![10, 20]));
    assert_eq!(it.read(A, 30, CONT), (ContinueBeginSpan, vec![]), "what was not covered was dropped");
    assert_eq!(it.read(A, 31, ACK), (AckCommitRing, vec![30, 31]));
}

#[test]
fn repeating_the_last_acknowledgement_rolls_back() {
    let mut it = Fixture::new(8);
    it.read(A, 10, CONT);
    it.read(A, 20, ACK);
    it.read(A, 30, CONT);
    it.read(B, 5, CONT);
    it.read(A, 40, CONT);
    assert!(it.sequencer.has_pending());
    assert_eq!(it.read(A, 20, ACK), (AckRollback, vec![]));
    assert_eq!(it.read(A, 50, CONT), (ContinueBeginSpan, vec![]));
    assert_eq!(it.read(A, 60, ACK), (AckCommitRing, vec![50, 60]));
    assert_eq!(it.read(B, 6, ACK), (AckCommitRing, vec![5, 6]), "other producers are not affected");
    assert!(!it.sequencer.has_pending());
}

#[test]
fn an_earlier_acknowledgement_resets_the_producer() {
    let mut it = Fixture::new(8);
    it.read(A, 30, ACK);
    it.read(A, 40, CONT);
    assert_eq!(it.read(A, 20, ACK), (AckRollback, vec![]));
    assert_eq!(it.read(A, 25, CONT), (ContinueBeginSpan, vec![]));
    assert_eq!(it.read(A, 28, ACK), (AckCommitRing, vec![25, 28]));
}

#[test]
fn what_the_ring_lost_is_replayed() {
    let mut it = Fixture::new(3);
    it.read(A, 10, CONT);
    it.read(B, 11, CONT);
    it.read(A, 20, CONT);
    it.read(B, 21, CONT);
    it.queue(A, 30, ACK);
    assert_eq!(
        it.sequencer.replay_range(),
        Some(ReplayRange { journal: name(0), begin: 0, end: 20 }),
        "the ring still holds the second message"
    );
    assert_eq!(it.drain(), [10, 20, 30]);
    assert_eq!(it.read(B, 31, ACK), (AckCommitReplay, vec![11, 21, 31]));
    assert_eq!(it.replays, 2);
}

#[test]
fn a_ring_of_one_message_works_by_replay_alone() {
    for ring in [0, 1] {
        let mut it = Fixture::new(ring);
        it.read(A, 10, CONT);
        it.read(A, 20, CONT);
        assert_eq!(it.read(A, 30, ACK), (AckCommitReplay, vec![10, 20, 30]));
        assert_eq!(it.read(A, 40, OUTSIDE), (OutsideCommit, vec![40]));
        assert_eq!(it.read(A, 50, ACK), (AckEmpty, vec![50]));
    }
}

#[test]
fn the_ring_is_bounded_by_bytes() {
    let mut it = Fixture::new(1000);
    it.sequencer = Sequencer::new(Vec::new(), 1000, 25);
    it.read(A, 10, CONT);
    it.read(A, 20, CONT);
    it.read(B, 21, CONT);
    assert_eq!(it.read(A, 30, ACK), (AckCommitReplay, vec![10, 20, 30]));
    assert_eq!(it.read(A, 40, CONT), (ContinueBeginSpan, vec![]));
    assert_eq!(it.read(A, 50, ACK), (AckCommitRing, vec![40, 50]), "delivered messages take no bytes");
}

#[test]
fn messages_outside_of_transactions_commit_at_once_and_end_an_open_one() {
    let mut it = Fixture::new(8);
    assert_eq!(it.read(A, 10, OUTSIDE), (OutsideCommit, vec![10]));
    assert_eq!(it.read(A, 10, OUTSIDE), (OutsideAlreadyAcked, vec![]));
    it.read(A, 20, CONT);
    assert_eq!(it.read(A, 30, OUTSIDE), (OutsideCommit, vec![30]));
    assert_eq!(it.read(A, 40, ACK), (AckEmpty, vec![40]));
    assert_eq!(it.read(A, 50, Flags(0x100)), (OutsideCommit, vec![50]), "unknown flags are outside");
}

#[test]
fn messages_without_clock_are_delivered_and_not_tracked() {
    let mut it = Fixture::new(2);
    for producer in [A, A, ProducerId([0; 6])] {
        assert_eq!(it.read(producer, 0, OUTSIDE), (OutsideCommit, vec![0]));
    }
    assert_eq!(it.queue(A, 0, ACK), OutsideCommit);
    assert_eq!(it.drain(), [0]);
    let states = it.sequencer.checkpoint(Pruning::NONE);
    assert_eq!(states, [SourceState { journal: name(0), read_through: Some(40), producers: vec![] }]);
}

#[test]
fn a_restamped_message_is_processed_under_the_clock_it_was_read_with() {
    let mut it = Fixture::new(8);
    it.read(A, 10, CONT);
    it.queue(A, 20, ACK);
    assert!(it.step().is_some());
    let mut taken = it.sequencer.take_dequeued().unwrap();
    taken.message.set_uuid(uuid(B, 99, OUTSIDE));
    assert_eq!(it.step().unwrap().clock(), Clock(20));
    assert_eq!(it.sequencer.checkpoint(Pruning::NONE)[0].producers[0].last_ack, Clock(10));
}

fn producer_state(producer: ProducerId, last_ack: u64, begin: Option<i64>) -> ProducerState {
    ProducerState { producer, last_ack: Clock(last_ack), begin }
}

#[test]
fn a_checkpoint_within_a_sequence_resumes_at_the_message_which_was_not_processed() {
    let mut it = Fixture::new(8);
    it.read(B, 5, CONT);
    it.read(A, 10, CONT);
    it.read(A, 20, CONT);
    it.queue(A, 30, ACK);
    for (processed, begin) in [(9, 10), (10, 20), (20, 30)] {
        assert!(it.step().is_some());
        let states = it.sequencer.checkpoint(Pruning::NONE);
        let producers = vec![producer_state(A, processed, Some(begin)), producer_state(B, 4, Some(0))];
        assert_eq!(states, [SourceState { journal: name(0), read_through: Some(30), producers }]);
    }
    assert_eq!(it.recover(8), [3, 0]);
    assert_eq!(it.queue_at(0, 3), AckCommitReplay, "the acknowledgement is read again");
    assert_eq!(it.drain(), [30]);
    assert_eq!(it.read(B, 6, ACK), (AckCommitReplay, vec![5, 6]));
}

#[test]
fn the_first_sequence_of_a_journal_has_no_offset_while_it_is_delivered() {
    let mut it = Fixture::new(8);
    it.queue(A, 10, OUTSIDE);
    assert!(it.step().is_some());
    let states = it.sequencer.checkpoint(Pruning::NONE);
    assert_eq!(states[0].read_through, None);
    assert!(it.drain().is_empty());
    assert_eq!(it.sequencer.checkpoint(Pruning::NONE)[0].read_through, Some(10));
}

#[test]
fn a_duplicate_across_a_checkpoint_is_dropped_when_it_is_delivered() {
    let mut it = Fixture::new(8);
    it.read(A, 10, CONT);
    it.read(A, 20, CONT);
    it.recover(8);
    assert!(!it.sequencer.has_pending(), "sequences before the checkpoint are not awaited");
    assert_eq!(it.read(A, 10, CONT), (ContinueExtendSpan, vec![]), "it looks new");
    it.read(A, 20, CONT);
    it.read(A, 30, CONT);
    assert_eq!(it.read(A, 40, ACK), (AckCommitReplay, vec![10, 20, 30, 40]));
}

#[test]
fn pending_counts_sequences_since_the_last_checkpoint() {
    let mut it = Fixture::new(8);
    assert!(!it.sequencer.has_pending());
    it.read(A, 10, CONT);
    it.read(A, 20, CONT);
    assert!(it.sequencer.has_pending());
    it.sequencer.checkpoint(Pruning::NONE);
    assert!(!it.sequencer.has_pending());
    it.read(A, 30, CONT);
    it.read(B, 10, CONT);
    assert!(it.sequencer.has_pending());
    it.read(A, 40, ACK);
    assert!(it.sequencer.has_pending());
    it.read(B, 20, OUTSIDE);
    assert!(!it.sequencer.has_pending());
    assert_eq!(it.sequencer.open_sequences(), 0);
}

const HOUR: Duration = Duration::from_secs(3600);

fn wall(hours: u32) -> u64 {
    Clock::from_unix(Duration::from_secs(1_700_000_000) + HOUR * hours).0
}

fn producers_after_prune(it: &mut Fixture, horizon: Duration, now: u64) -> Vec<ProducerId> {
    // After more than any horizon in which nothing was heard.
    it.sequencer.checkpoint(Pruning { running: it.running, ..Pruning::NONE });
    it.running += HOUR * 10_000;
    let pruning = Pruning { horizon, unix_now: Clock(now).as_unix(), running: it.running };
    let states = it.sequencer.checkpoint(pruning);
    states[0].producers.iter().map(|state| state.producer).collect()
}

#[test]
fn producers_which_fell_behind_the_horizon_are_forgotten() {
    let mut it = Fixture::new(8);
    it.read(A, wall(0), OUTSIDE);
    it.read(B, wall(10), OUTSIDE);
    assert_eq!(producers_after_prune(&mut it, Duration::ZERO, wall(100)), [A, B], "zero disables");
    assert_eq!(producers_after_prune(&mut it, HOUR * 10, wall(100)), [A, B], "the horizon is inclusive");
    assert_eq!(producers_after_prune(&mut it, HOUR * 9, wall(100)), [B]);
    assert_eq!(it.read(A, wall(1), OUTSIDE), (OutsideCommit, vec![wall(1)]), "it may come back");
    assert_eq!(producers_after_prune(&mut it, Duration::MAX, wall(100)), [A, B], "horizons saturate");
}

#[test]
fn an_open_sequence_is_never_forgotten() {
    let mut it = Fixture::new(8);
    it.read(A, wall(0), CONT);
    it.read(B, wall(1000), OUTSIDE);
    assert_eq!(producers_after_prune(&mut it, HOUR, wall(1000)), [A, B]);
    assert_eq!(it.read(A, wall(1), ACK), (AckCommitRing, vec![wall(0), wall(1)]));
    assert_eq!(producers_after_prune(&mut it, HOUR, wall(1000)), [B]);
}

#[test]
fn a_producer_whose_clock_runs_ahead_does_not_evict_the_others() {
    let mut it = Fixture::new(8);
    it.read(A, wall(0), OUTSIDE);
    it.read(B, wall(1000), OUTSIDE);
    assert_eq!(producers_after_prune(&mut it, HOUR * 24, wall(1)), [A, B]);
    assert_eq!(it.read(A, wall(0), OUTSIDE), (OutsideAlreadyAcked, vec![]));
}

#[test]
fn a_process_whose_own_clock_runs_ahead_forgets_nobody_whom_it_hears() {
    let mut it = Fixture::new(8);
    // Another producer, and one of this very process, which takes its wrong time for the right one.
    let ahead = 48;
    for hour in 0..72 {
        it.read(A, wall(hour), OUTSIDE);
        it.read(B, wall(hour + ahead), OUTSIDE);
        let pruning = Pruning {
            horizon: HOUR * 24,
            unix_now: Clock(wall(hour + ahead)).as_unix(),
            running: HOUR * hour,
        };
        assert_eq!(it.sequencer.checkpoint(pruning)[0].producers.len(), 2, "hour {hour}");
        assert_eq!(it.read(A, wall(hour), OUTSIDE), (OutsideAlreadyAcked, vec![]));
    }
}

#[test]
fn what_was_recovered_is_forgotten_late_or_when_it_is_very_old() {
    let state = |producer, hours| ProducerState { producer, last_ack: Clock(wall(hours)), begin: None };
    let producers = vec![state(A, 0), state(B, 500), state(ProducerId([9; 6]), 1000)];
    let recovered = SourceState { journal: "test/journal-0".into(), read_through: Some(0), producers };
    let mut sequencer = Sequencer::<Bare>::new(vec![recovered], 8, 1 << 20);
    let mut left = |running| {
        let unix_now = Clock(wall(1000)).as_unix();
        sequencer.checkpoint(Pruning { horizon: HOUR * 24, unix_now, running })[0].producers.len()
    };
    assert_eq!(left(HOUR), 2, "one is more than thirty horizons old");
    assert_eq!(left(HOUR * 24), 1);
}

#[test]
fn a_replay_which_is_not_what_was_read_is_an_error() {
    let mut it = Fixture::new(1);
    it.read(B, 5, OUTSIDE);
    it.read(A, 10, CONT);
    it.read(A, 20, CONT);
    it.queue(A, 30, ACK);
    assert_eq!(it.sequencer.step(), Step::NeedReplay);
    let offer = |it: &mut Fixture, journal: usize, index: usize| {
        it.sequencer
            .offer(envelope(&it.names, journal, index, uuid(A, 10, CONT)))
            .map_err(|error| error.to_string())
    };
    assert_eq!(
        offer(&mut it, 1, 1).unwrap_err(),
        "replay of wrong journal (test/journal-1; expected test/journal-0)"
    );
    assert_eq!(offer(&mut it, 0, 0).unwrap_err(), "replay has wrong Begin (0; expected >= 10)");
    assert_eq!(offer(&mut it, 0, 3).unwrap_err(), "replay has wrong End (40; expected <= 30)");
    assert_eq!(offer(&mut it, 0, 2), Ok(()));
    assert_eq!(it.sequencer.step(), Step::Exposed);
    assert_eq!(it.sequencer.step(), Step::NeedReplay);
    assert_eq!(
        offer(&mut it, 0, 1).unwrap_err(),
        "replay has wrong Begin (10; expected >= 20)",
        "the bound rises as messages are exposed"
    );
}

#[test]
#[should_panic(expected = "before stepping to Done")]
fn queueing_over_committed_messages_is_a_bug() {
    let mut it = Fixture::new(8);
    it.queue(A, 10, OUTSIDE);
    it.queue(A, 20, OUTSIDE);
}

#[test]
fn sources_round_trip_and_their_producers_have_six_bytes() {
    let states = vec![
        SourceState {
            journal: name(0),
            read_through: Some(222),
            producers: vec![producer_state(A, 789, Some(101))],
        },
        SourceState { journal: name(1), read_through: Some(0), producers: vec![producer_state(B, 1, None)] },
    ];
    let mut sources = to_sources(states.clone());
    assert_eq!(from_sources(&sources), Ok(states));
    sources.get_mut("test/journal-1").unwrap().producers[0].id = vec![1, 2, 3].into();
    assert_eq!(
        from_sources(&sources).unwrap_err().to_string(),
        "journal test/journal-1: producer id has 3 bytes, expected 6"
    );
}

/// What a reader with unlimited memory delivers of one journal: an independent statement of the rules.
fn model(journal: &[Uuid]) -> Vec<Uuid> {
    struct Seen {
        acknowledged: u64,
        held: Vec<Uuid>,
    }
    let (mut producers, mut committed) = (BTreeMap::new(), Vec::new());
    for &uuid in journal {
        let clock = uuid.clock().0;
        let seen = producers
            .entry(uuid.producer())
            .or_insert_with(|| Seen { acknowledged: clock - 1, held: Vec::new() });
        let largest = seen.held.last().map_or(seen.acknowledged, |held| held.clock().0);
        match uuid.flags() {
            CONT if clock > largest => seen.held.push(uuid),
            CONT => {}
            ACK if clock <= seen.acknowledged => *seen = Seen { acknowledged: clock, held: Vec::new() },
            ACK => {
                committed.extend(seen.held.drain(..).filter(|held| held.clock() < uuid.clock()));
                committed.push(uuid);
                seen.acknowledged = clock;
            }
            _ if clock > seen.acknowledged => {
                committed.push(uuid);
                *seen = Seen { acknowledged: clock, held: Vec::new() };
            }
            _ => {}
        }
    }
    committed
}

/// What a writer does next. Numbers choose among writers and what they wrote.
#[derive(Clone, Debug)]
enum Act {
    Publish {
        writer: usize,
        journal: usize,
    },
    Commit {
        writer: usize,
    },
    /// Repeats up to three of the last messages of a journal: an append of unknown outcome was retried.
    Duplicate {
        journal: usize,
        count: usize,
    },
    /// The writer's transaction ends nowhere; its successor repeats the last acknowledgements and is a new producer.
    Crash {
        writer: usize,
    },
    Outside {
        journal: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (0..3usize, 0..2usize).prop_map(|(writer, journal)| Act::Publish { writer, journal }),
        3 => (0..3usize).prop_map(|writer| Act::Commit { writer }),
        2 => (0..2usize, 1..4usize).prop_map(|(journal, count)| Act::Duplicate { journal, count }),
        1 => (0..3usize).prop_map(|writer| Act::Crash { writer }),
        1 => (0..2usize).prop_map(|journal| Act::Outside { journal }),
    ]
}

/// Two journals as three transactional writers, and one outside of transactions, leave them.
fn written_by(acts: &[Act]) -> Vec<Vec<Uuid>> {
    struct Writer {
        id: ProducerId,
        open: [bool; 2],
        last_acks: Vec<(usize, Uuid)>,
    }
    let mut ids = (1u8..=u8::MAX).map(|id| ProducerId([1, 0, 0, 0, 0, id]));
    let mut next_writer = || Writer { id: ids.next().unwrap(), open: [false; 2], last_acks: Vec::new() };
    let outside = next_writer().id;
    let mut writers = [next_writer(), next_writer(), next_writer()];
    let (mut journals, mut clock) = (vec![Vec::new(); 2], 100);
    for act in acts {
        clock += 1;
        match *act {
            Act::Publish { writer, journal } => {
                writers[writer].open[journal] = true;
                journals[journal].push(uuid(writers[writer].id, clock, CONT));
            }
            Act::Commit { writer } => {
                let writer = &mut writers[writer];
                writer.last_acks.clear();
                for (journal, content) in journals.iter_mut().enumerate() {
                    if std::mem::take(&mut writer.open[journal]) {
                        clock += 1;
                        let ack = uuid(writer.id, clock, ACK);
                        writer.last_acks.push((journal, ack));
                        content.push(ack);
                    }
                }
            }
            Act::Duplicate { journal, count } => {
                let from = journals[journal].len().saturating_sub(count);
                journals[journal].extend_from_within(from..);
            }
            Act::Crash { writer } => {
                let crashed = std::mem::replace(&mut writers[writer], next_writer());
                for (journal, ack) in crashed.last_acks {
                    journals[journal].push(ack);
                }
            }
            Act::Outside { journal } => journals[journal].push(uuid(outside, clock, OUTSIDE)),
        }
    }
    journals
}

/// Reads both journals by turns, and restarts from a checkpoint whenever `restarts` says so of a step.
fn read_all(journals: &[Vec<Uuid>], ring: usize, restarts: &HashSet<usize>) -> Vec<Vec<Uuid>> {
    let mut it = Fixture::of_journals(journals.len(), ring);
    it.journals = journals.to_vec();
    let (mut next, mut steps) = (vec![0; journals.len()], 0);
    let mut delivered = vec![Vec::new(); journals.len()];
    loop {
        // Turns differ from those before a restart: only the order within each journal is promised.
        let turn = (0..journals.len()).map(|at| (at + steps) % journals.len());
        let Some(journal) = turn.into_iter().find(|journal| next[*journal] < journals[*journal].len()) else {
            return delivered;
        };
        it.queue_at(journal, next[journal]);
        next[journal] += 1;
        let mut exposed = None;
        loop {
            steps += 1;
            if restarts.contains(&steps) {
                // What is exposed was not processed: it is delivered again.
                next = it.recover(ring);
                break;
            }
            delivered[journal].extend(exposed.take());
            exposed = it.step();
            if exposed.is_none() {
                break;
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_delivered_is_what_was_committed(acts in prop::collection::vec(act(), 0..120), ring in 1..12usize) {
        let journals = written_by(&acts);
        let expected: Vec<_> = journals.iter().map(|journal| model(journal)).collect();
        prop_assert_eq!(read_all(&journals, ring, &HashSet::new()), expected);
    }

    #[test]
    fn restarts_at_any_point_change_nothing(
        acts in prop::collection::vec(act(), 0..120),
        ring in 1..12usize,
        restarts in prop::collection::hash_set(1..200usize, 0..6),
    ) {
        let journals = written_by(&acts);
        let expected: Vec<_> = journals.iter().map(|journal| model(journal)).collect();
        prop_assert_eq!(read_all(&journals, ring, &restarts), expected);
    }
}
