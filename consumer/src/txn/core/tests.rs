use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const MIN_3_MAX_5: Settings =
    Settings { min: Duration::from_secs(3), max: Duration::from_secs(5), wait_for_ack: true };
const IMMEDIATE: Settings = Settings { min: Duration::ZERO, max: Duration::from_secs(5), wait_for_ack: true };

/// Runs a conversation of lines `SECONDS WORDS` and writes the loop's side of it after each line.
///
/// `read WHAT` queues a message, `consume N` processes one of N bytes, `idle` / `started N` start a commit with N acks,
/// `durable` and `acked` resolve those of the prior transaction.
struct Talk {
    core: TxnLoop,
    settings: Settings,
    pending: bool,
    out: String,
}

impl Talk {
    fn new(settings: Settings, recovered_acks: usize) -> Talk {
        let core = TxnLoop::new(Time::ZERO, settings, recovered_acks);
        Talk { core, settings, pending: false, out: String::new() }
    }

    fn step(&mut self, now: Time, event: Event) -> Result<Effect, StepError> {
        let effect = self.core.step(now, event);
        match effect {
            Ok(Effect::None) => {}
            Ok(Effect::Completed(c)) => writeln!(
                self.out,
                "  completed {} messages, {} bytes; idle {:?}, consuming {:?}, stalled {:?}, preparing {:?}, committing {:?}, acknowledging {:?}",
                c.messages, c.bytes, c.not_running, c.consuming, c.stalled, c.preparing, c.committing, c.acknowledging
            )
            .unwrap(),
            Ok(effect) => writeln!(self.out, "  {effect:?}").unwrap(),
            Err(err) => writeln!(self.out, "  error: {err}").unwrap(),
        }
        effect
    }

    fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let now = Duration::from_secs_f64(words.next().unwrap().parse().unwrap());
        let command = words.next().unwrap();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        writeln!(self.out, "{}", line.trim()).unwrap();
        let done = match command {
            "committed" => {
                self.pending = false;
                self.step(now, Event::Queued(Queued::Committed))
            }
            "pending" => {
                self.pending = true;
                self.step(now, Event::Queued(Queued::Pending))
            }
            "ignored" => self.step(now, Event::Queued(Queued::Ignored)),
            "consume" => {
                let bytes = number();
                if self.step(now, Event::Ready(Trigger::Message)) == Ok(Effect::Begin(Trigger::Message)) {
                    let _ = self.step(now, Event::Began(Trigger::Message));
                }
                self.step(now, Event::Consumed { bytes })
            }
            "defer" => {
                if self.step(now, Event::Ready(Trigger::Message)) == Ok(Effect::Begin(Trigger::Message)) {
                    let _ = self.step(now, Event::Began(Trigger::Message));
                }
                self.step(now, Event::Deferred)
            }
            "tick" => self.step(now, Event::Tick),
            "durable" => self.step(now, Event::PriorCommitted),
            "acked" => self.step(now, Event::PriorAcked),
            "drained" => self.step(now, Event::Drained),
            "stop" => self.step(now, Event::Stop),
            "idle" => self.step(now, Event::Idle),
            "started" => {
                let (acks, next) = (number() as usize, self.settings);
                self.step(now, Event::CommitStarted { acks, next })
            }
            other => panic!("unknown command {other}"),
        };
        if done.is_err() || self.core.running.preparing.is_some() {
            return;
        }
        let wants = self.core.wants(self.pending);
        let timer = wants.timer.map_or("-".to_owned(), |timer| format!("{timer:?}"));
        let trigger = if wants.trigger { "reads" } else { "-" };
        let block = if wants.block { "blocks" } else { "polls" };
        writeln!(self.out, "    {:?} {timer} {trigger} {block}", wants.prior).unwrap();
    }
}

fn check(settings: Settings, recovered_acks: usize, script: &str, expected: Expect) {
    let mut talk = Talk::new(settings, recovered_acks);
    for line in script.lines().filter(|line| !line.trim().is_empty()) {
        talk.line(line);
    }
    expected.assert_eq(&talk.out);
}

/// A consumed message, its commit and one acknowledgement started at time zero.
fn with_prior(script: &str) -> String {
    format!("0 durable\n0 committed\n0 consume 1\n0 tick\n0 idle\n0 started 1\n{script}")
}

#[test]
fn prior_completes_and_then_the_minimum_elapses() {
    let script = "
        0 durable
        0 committed
        0 consume 10
        1 pending
        1 committed
        1 consume 20
        3 tick
        4 idle
        4 started 1
    ";
    check(
        MIN_3_MAX_5,
        0,
        script,
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 10
          Begin(Message)
          Process(Message)
            Complete 3s reads blocks
        1 pending
            Complete 3s reads blocks
        1 committed
            Complete 3s reads blocks
        1 consume 20
          Process(Message)
            Complete 3s reads blocks
        3 tick
            Complete 5s reads polls
        4 idle
          Commit
        4 started 1
            Committing - reads blocks
    "#]],
    );
}

#[test]
fn minimum_elapses_and_then_prior_completes() {
    let script = "
        0 committed
        0 consume 10
        3 tick
        3.5 durable
        3.6 acked
        3.7 acked
        3.8 idle
        3.9 started 0
    ";
    check(
        MIN_3_MAX_5,
        2,
        script,
        expect![[r#"
        0 committed
            Committing - reads blocks
        0 consume 10
          Begin(Message)
          Process(Message)
            Committing 3s reads blocks
        3 tick
            Committing 5s reads blocks
        3.5 durable
            Acknowledging(2) 5s reads blocks
        3.6 acked
            Acknowledging(1) 5s reads blocks
        3.7 acked
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 3.5s, acknowledging 200ms
            Complete 5s reads polls
        3.8 idle
          Commit
        3.9 started 0
            Committing - reads blocks
    "#]],
    );
}

#[test]
fn maximum_elapses_and_then_prior_completes() {
    let script = "
        0 committed
        0 consume 10
        3 tick
        5 tick
        7 durable
        8 acked
        8 idle
        9 started 1
        10 durable
        12 acked
    ";
    check(
        MIN_3_MAX_5,
        1,
        script,
        expect![[r#"
        0 committed
            Committing - reads blocks
        0 consume 10
          Begin(Message)
          Process(Message)
            Committing 3s reads blocks
        3 tick
            Committing 5s reads blocks
        5 tick
            Committing - - blocks
        7 durable
            Acknowledging(1) - - blocks
        8 acked
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 7s, acknowledging 1s
            Complete - - polls
        8 idle
          Commit
        9 started 1
            Committing - reads blocks
        10 durable
            Acknowledging(1) - reads blocks
        12 acked
          completed 1 messages, 10 bytes; idle 0ns, consuming 5s, stalled 3s, preparing 1s, committing 1s, acknowledging 2s
            Complete - reads blocks
    "#]],
    );
}

#[test]
fn a_pending_message_does_not_begin_a_transaction_but_holds_one_open() {
    let script = "
        0 durable
        1 pending
        2 committed
        2 consume 5
        2 tick
        2 pending
        3 committed
        3 consume 5
        3 idle
        3 started 0
    ";
    check(
        IMMEDIATE,
        0,
        script,
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        1 pending
            Complete - reads blocks
        2 committed
            Complete - reads blocks
        2 consume 5
          Begin(Message)
          Process(Message)
            Complete 2s reads blocks
        2 tick
            Complete 7s reads polls
        2 pending
            Complete 7s reads blocks
        3 committed
            Complete 7s reads polls
        3 consume 5
          Process(Message)
            Complete 7s reads polls
        3 idle
          Commit
        3 started 0
            Committing - reads blocks
    "#]],
    );
}

#[test]
fn without_wait_for_ack_pending_messages_do_not_hold_it_open() {
    let settings = Settings { wait_for_ack: false, ..IMMEDIATE };
    check(
        settings,
        0,
        "0 durable\n0 committed\n0 consume 5\n0 tick\n0 pending\n0 idle\n0 started 0",
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 5
          Begin(Message)
          Process(Message)
            Complete 0ns reads blocks
        0 tick
            Complete 5s reads polls
        0 pending
            Complete 5s reads polls
        0 idle
          Commit
        0 started 0
            Committing - reads blocks
    "#]],
    );
}

#[test]
fn maximum_elapses_while_an_acknowledgement_is_awaited() {
    let script = "0 durable\n0 committed\n0 consume 5\n0 tick\n1 pending\n5 tick\n5 idle\n5 started 0";
    check(
        IMMEDIATE,
        0,
        script,
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 5
          Begin(Message)
          Process(Message)
            Complete 0ns reads blocks
        0 tick
            Complete 5s reads polls
        1 pending
            Complete 5s reads blocks
        5 tick
            Complete - - polls
        5 idle
          Commit
        5 started 0
            Committing - reads blocks
    "#]],
    );
}

#[test]
fn a_drained_source_commits_what_was_consumed_and_finishes() {
    let script = "
        0 durable
        0 committed
        0 consume 5
        0 tick
        1 drained
        1 idle
        1 started 1
        1 drained
        2 durable
        2 acked
        2 idle
    ";
    check(
        IMMEDIATE,
        0,
        script,
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 5
          Begin(Message)
          Process(Message)
            Complete 0ns reads blocks
        0 tick
            Complete 5s reads polls
        1 drained
            Complete 5s - polls
        1 idle
          Commit
        1 started 1
            Committing - reads blocks
        1 drained
            Committing - - blocks
        2 durable
            Acknowledging(1) - - blocks
        2 acked
          completed 1 messages, 5 bytes; idle 0ns, consuming 1s, stalled 0ns, preparing 0ns, committing 1s, acknowledging 0ns
            Complete - - polls
        2 idle
          Finished
            Complete - - polls
    "#]],
    );
}

#[test]
fn a_drained_source_that_was_empty_waits_for_the_recovered_acknowledgements() {
    check(
        IMMEDIATE,
        1,
        "0 drained\n0 durable\n1 acked\n1 idle",
        expect![[r#"
        0 drained
            Committing - - blocks
        0 durable
            Acknowledging(1) - - blocks
        1 acked
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 1s
            Complete - - polls
        1 idle
          Finished
            Complete - - polls
    "#]],
    );
}

#[test]
fn a_stop_commits_without_awaiting_the_minimum_and_begins_nothing_more() {
    let script =
        "0 durable\n0 committed\n0 consume 5\n1 stop\n1 idle\n1 started 1\n2 durable\n3 acked\n3 idle";
    check(
        MIN_3_MAX_5,
        0,
        script,
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 5
          Begin(Message)
          Process(Message)
            Complete 3s reads blocks
        1 stop
            Complete 3s - polls
        1 idle
          Commit
        1 started 1
            Committing - - blocks
        2 durable
            Acknowledging(1) - - blocks
        3 acked
          completed 1 messages, 5 bytes; idle 0ns, consuming 1s, stalled 0ns, preparing 0ns, committing 1s, acknowledging 1s
            Complete - - polls
        3 idle
          Finished
            Complete - - polls
    "#]],
    );
}

#[test]
fn ignored_duplicates_raise_progress_only_where_no_transaction_will() {
    check(
        IMMEDIATE,
        0,
        &with_prior(
            "1 ignored\n1 durable\n1 ignored\n1 acked\n1 ignored\n2 committed\n2 consume 1\n2 ignored",
        ),
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 1
          Begin(Message)
          Process(Message)
            Complete 0ns reads blocks
        0 tick
            Complete 5s reads polls
        0 idle
          Commit
        0 started 1
            Committing - reads blocks
        1 ignored
          RaisePrior
            Committing - reads blocks
        1 durable
            Acknowledging(1) - reads blocks
        1 ignored
          RaisePrior
            Acknowledging(1) - reads blocks
        1 acked
          completed 1 messages, 1 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 1s, acknowledging 0ns
            Complete - reads blocks
        1 ignored
          RaiseNow
            Complete - reads blocks
        2 committed
            Complete - reads blocks
        2 consume 1
          Begin(Message)
          Process(Message)
            Complete 2s reads blocks
        2 ignored
            Complete 2s reads blocks
    "#]],
    );
}

#[test]
fn maximum_elapses_within_a_committed_sequence_whose_rest_opens_the_next() {
    let script = "
        0 durable
        0 committed
        0 consume 1
        0 tick
        4 consume 2
        5 tick
        5 idle
        5 started 0
        5 consume 3
    ";
    check(
        IMMEDIATE,
        0,
        script,
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 1
          Begin(Message)
          Process(Message)
            Complete 0ns reads blocks
        0 tick
            Complete 5s reads polls
        4 consume 2
          Process(Message)
            Complete 5s reads polls
        5 tick
            Complete - - polls
        5 idle
          Commit
        5 started 0
            Committing - reads blocks
        5 consume 3
          Begin(Message)
          Process(Message)
            Committing 5s reads blocks
    "#]],
    );
}

#[test]
fn a_deferred_message_opens_the_next_transaction() {
    check(
        IMMEDIATE,
        0,
        "0 durable\n0 committed\n0 consume 1\n0 tick\n0 defer\n0 idle\n0 started 0\n0 consume 2",
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 consume 1
          Begin(Message)
          Process(Message)
            Complete 0ns reads blocks
        0 tick
            Complete 5s reads polls
        0 defer
          Process(Message)
            Complete 5s - polls
        0 idle
          Commit
        0 started 0
            Committing - reads blocks
        0 consume 2
          Begin(Message)
          Process(Message)
            Committing 0ns reads blocks
    "#]],
    );
}

#[test]
fn the_first_message_cannot_be_deferred() {
    check(
        IMMEDIATE,
        0,
        "0 durable\n0 committed\n0 defer",
        expect![[r#"
        0 durable
          completed 0 messages, 0 bytes; idle 0ns, consuming 0ns, stalled 0ns, preparing 0ns, committing 0ns, acknowledging 0ns
            Complete - reads blocks
        0 committed
            Complete - reads blocks
        0 defer
          Begin(Message)
          Process(Message)
          error: consumer transaction is empty, but application deferred the first message
    "#]],
    );
}

#[test]
#[should_panic(expected = "an acknowledgement completes after its commit")]
fn an_acknowledgement_before_its_commit_is_a_bug() {
    let _ = TxnLoop::new(Time::ZERO, IMMEDIATE, 1).step(Time::ZERO, Event::PriorAcked);
}

#[test]
#[should_panic(expected = "a transaction waits for the prior one")]
fn a_commit_before_the_prior_acknowledgements_is_a_bug() {
    let mut core = TxnLoop::new(Time::ZERO, IMMEDIATE, 1);
    core.step(Time::ZERO, Event::PriorCommitted).unwrap();
    let _ = core.step(Time::ZERO, Event::Idle);
}

/// A driver over sources that become ready at random.
struct Model {
    core: TxnLoop,
    now: Time,
    /// Messages which were not read yet: how each is queued.
    unread: Vec<Queued>,
    /// Exposed and not yet consumed.
    exposed: usize,
    queued_pending: usize,
    commit_in_flight: bool,
    acks_in_flight: usize,
    consumed: usize,
    committed: u64,
    completed: u64,
}

impl Model {
    /// One turn: `luck` picks among the events which are possible. True when finished.
    fn turn(&mut self, luck: u8) -> bool {
        self.now += Duration::from_millis(u64::from(luck) * 7);
        let wants = self.core.wants(self.queued_pending > 0);
        let mut possible = Vec::new();
        match wants.prior {
            Stage::Committing => possible.push(Event::PriorCommitted),
            Stage::Acknowledging(_) => possible.push(Event::PriorAcked),
            Stage::Complete => {}
        }
        if let Some(timer) = wants.timer {
            self.now = self.now.max(if wants.block { timer } else { self.now });
            if self.now >= timer {
                possible.push(Event::Tick);
            }
        }
        if wants.trigger && self.exposed > 0 {
            possible.push(Event::Ready(Trigger::Message));
        } else if wants.trigger {
            possible.push(self.unread.last().map_or(Event::Drained, |queued| Event::Queued(*queued)));
        }
        if !wants.block {
            possible.push(Event::Idle);
        }
        assert!(!possible.is_empty(), "the loop is stuck: {wants:?}");
        let event = possible[usize::from(luck) % possible.len()];
        self.happen(event, luck)
    }

    fn happen(&mut self, event: Event, luck: u8) -> bool {
        match event {
            Event::PriorCommitted => self.commit_in_flight = false,
            Event::PriorAcked => {
                assert!(!self.commit_in_flight, "acknowledgements follow their commit");
                self.acks_in_flight -= 1;
            }
            Event::Queued(queued) => {
                self.unread.pop();
                match queued {
                    Queued::Committed => self.exposed += 1 + std::mem::take(&mut self.queued_pending),
                    Queued::Pending => self.queued_pending += 1,
                    Queued::Ignored => {}
                }
            }
            _ => {}
        }
        match self.core.step(self.now, event).unwrap() {
            Effect::None | Effect::RaisePrior | Effect::RaiseNow => false,
            Effect::Begin(trigger) => self.happen(Event::Began(trigger), luck),
            Effect::Process(_) if luck.is_multiple_of(7) && self.core.running.messages > 0 => {
                self.happen(Event::Deferred, luck)
            }
            Effect::Process(_) => {
                self.exposed -= 1;
                self.consumed += 1;
                self.happen(Event::Consumed { bytes: 1 }, luck)
            }
            Effect::Commit => {
                assert!(!self.commit_in_flight && self.acks_in_flight == 0, "one transaction in flight");
                self.committed += self.core.running.messages;
                self.commit_in_flight = true;
                self.acks_in_flight = usize::from(luck % 3);
                self.queued_pending = 0;
                self.happen(Event::CommitStarted { acks: self.acks_in_flight, next: IMMEDIATE }, luck)
            }
            Effect::Completed(completed) => {
                assert!(!self.commit_in_flight && self.acks_in_flight == 0);
                self.completed += completed.messages;
                false
            }
            Effect::Finished => true,
        }
    }
}

proptest! {
    #[test]
    fn every_message_is_committed_once_and_one_commit_is_in_flight(
        reads in prop::collection::vec(prop_oneof![
            Just(Queued::Committed), Just(Queued::Pending), Just(Queued::Ignored)
        ], 0..60),
        luck in prop::collection::vec(any::<u8>(), 600),
        recovered_acks in 0usize..3,
        min_ms in 0u64..2000,
        wait_for_ack in any::<bool>(),
    ) {
        let settings = Settings { min: Duration::from_millis(min_ms), max: Duration::from_secs(1), wait_for_ack };
        let mut model = Model {
            core: TxnLoop::new(Time::ZERO, settings, recovered_acks),
            now: Time::ZERO,
            unread: reads,
            exposed: 0,
            queued_pending: 0,
            commit_in_flight: true,
            acks_in_flight: recovered_acks,
            consumed: 0,
            committed: 0,
            completed: 0,
        };
        let finished = luck.into_iter().any(|luck| model.turn(luck));
        prop_assert!(finished, "the loop finishes once its source is drained: {:?}", model.core);
        prop_assert_eq!(model.exposed, 0);
        prop_assert_eq!(model.committed, model.consumed as u64);
        prop_assert_eq!(model.completed, model.consumed as u64);
    }
}
