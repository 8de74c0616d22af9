//! What a consumer process counts (consumer protocol §10). Series of shards are labelled by the shard's etcd key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use message::{Flags, QueueOutcome};
use recoverylog::Played;
use runtime::Metrics;
use runtime::prometheus::{CounterVec, IntCounter, IntCounterVec, IntGaugeVec, Opts};

/// Phases of a transaction, in their order, and whether the loop is blocked by them.
const PHASES: [(&str, &str); 6] = [
    ("10-not-running", "sync"),
    ("20-consuming", "sync"),
    ("30-stalled", "sync"),
    ("40-preparing", "sync"),
    ("50-committing", "async"),
    ("60-acknowledging", "async"),
];

/// Counters of all shards of a process. Cheap to clone.
#[derive(Clone)]
pub struct ConsumerMetrics {
    up: IntGaugeVec,
    transactions: IntCounterVec,
    messages: IntCounterVec,
    bytes: IntCounterVec,
    read_head: IntGaugeVec,
    unread: IntGaugeVec,
    awaiting_ack: IntGaugeVec,
    producers: IntGaugeVec,
    phases: CounterVec,
    queued: IntCounterVec,
    replays: IntCounterVec,
    recovery: RecoveryMetrics,
    shards: Arc<Mutex<BTreeMap<String, Held>>>,
}

/// Counters of how shards fail, and are recovered.
#[derive(Clone)]
struct RecoveryMetrics {
    failures: IntCounterVec,
    fenced: IntCounterVec,
    hints_written: IntGaugeVec,
    played: IntCounterVec,
    played_bytes: IntCounterVec,
    remaining: IntGaugeVec,
    recovered_bytes: IntCounter,
}

/// Where played operations are counted: before a shard became primary, and after.
const WHEN: [&str; 2] = ["standby", "takeover"];

/// A shard which has series.
#[derive(Default)]
struct Held {
    /// How often this process runs it: a shard which is replaced overlaps with its successor.
    runs: usize,
    /// Its sources which have series.
    journals: BTreeSet<String>,
}

impl RecoveryMetrics {
    fn new(metrics: &Metrics) -> RecoveryMetrics {
        let counter = |name, help, labels: &[&str]| metrics.counter_vec(name, help, labels);
        RecoveryMetrics {
            failures: counter("courant_shard_failures_total", "Failed attempts to run a shard.", &["shard"]),
            fenced: counter("courant_shard_fenced_total", "Losses of a recovery log's fence.", &["shard"]),
            hints_written: metrics.gauge_vec(
                "courant_shard_hints_written_seconds",
                "Unix time at which the hints of a shard were last recorded.",
                &["shard"],
            ),
            played: counter(
                "courant_shard_played_operations_total",
                "Operations of recovery logs that were played by shards which became primary, before and after that.",
                &["shard", "when"],
            ),
            played_bytes: counter(
                "courant_shard_played_bytes_total",
                "Bytes of recovery logs that were played by shards which became primary, before and after that.",
                &["shard", "when"],
            ),
            remaining: metrics.gauge_vec(
                "courant_shard_recovery_remaining_bytes",
                "Bytes of its recovery log which a shard that is not primary has not read yet.",
                &["shard"],
            ),
            recovered_bytes: metrics.counter(
                "gazette_recoverylog_recovered_bytes_total",
                "Bytes of recovery logs that were played.",
            ),
        }
    }
}

impl ConsumerMetrics {
    /// Registers the series.
    pub fn new(metrics: &Metrics) -> ConsumerMetrics {
        let phases = CounterVec::new(
            Opts::new(
                "gazette_shard_phase_seconds_total",
                "Time which shards spent in phases of transactions.",
            ),
            &["shard", "phase", "type"],
        );
        let phases = phases.expect("the name and the labels are valid");
        // A registry that has the series already keeps its own; the second one then counts unseen.
        drop(metrics.registry().register(Box::new(phases.clone())));
        let shard_journal = &["shard", "journal"];
        let counter = |name, help, labels: &[&str]| metrics.counter_vec(name, help, labels);
        let gauge = |name, help, labels: &[&str]| metrics.gauge_vec(name, help, labels);
        ConsumerMetrics {
            up: gauge("gazette_shard_up", "Shards of this process, by status.", &["shard", "status"]),
            transactions: counter("gazette_shard_transactions_total", "Transactions of shards.", &["shard"]),
            messages: counter(
                "gazette_shard_read_messages_total",
                "Messages consumed by shards.",
                &["shard"],
            ),
            bytes: counter(
                "gazette_shard_read_bytes_total",
                "Bytes of messages consumed by shards.",
                &["shard"],
            ),
            read_head: gauge(
                "gazette_shard_read_head",
                "Offset that a shard consumed through.",
                shard_journal,
            ),
            unread: gauge(
                "courant_shard_unread_bytes",
                "Bytes of a source which are not read yet.",
                shard_journal,
            ),
            awaiting_ack: gauge(
                "courant_shard_awaiting_ack_bytes",
                "Bytes of a source which were read and await an acknowledgement.",
                shard_journal,
            ),
            producers: gauge(
                "courant_shard_producers",
                "Producers in the checkpoint of a shard.",
                &["shard"],
            ),
            phases,
            queued: counter(
                "gazette_sequencer_queued",
                "Messages queued to sequencers, and what became of them.",
                &["journal", "flag", "outcome"],
            ),
            replays: counter("gazette_sequencer_replay", "Sequences which were read again.", &["journal"]),
            recovery: RecoveryMetrics::new(metrics),
            shards: Arc::default(),
        }
    }

    /// The series of one shard, which is `id` by name and `fqn` by etcd key.
    pub fn shard(&self, id: &str, fqn: &str) -> ShardMetrics {
        self.held().entry(fqn.to_owned()).or_default().runs += 1;
        ShardMetrics { id: id.to_owned(), fqn: fqn.to_owned(), all: self.clone() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the series of a shard.
    fn remove(&self, shard: &str, journals: &BTreeSet<String>) {
        for counter in
            [&self.transactions, &self.messages, &self.bytes, &self.recovery.failures, &self.recovery.fenced]
        {
            drop(counter.remove_label_values(&[shard]));
        }
        for gauge in [&self.producers, &self.recovery.hints_written, &self.recovery.remaining] {
            drop(gauge.remove_label_values(&[shard]));
        }
        for (phase, kind) in PHASES {
            drop(self.phases.remove_label_values(&[shard, phase, kind]));
        }
        for when in WHEN {
            drop(self.recovery.played.remove_label_values(&[shard, when]));
            drop(self.recovery.played_bytes.remove_label_values(&[shard, when]));
        }
        for journal in journals {
            for gauge in [&self.read_head, &self.unread, &self.awaiting_ack] {
                drop(gauge.remove_label_values(&[shard, journal]));
            }
        }
    }
}

/// Series of one shard.
#[derive(Clone)]
pub struct ShardMetrics {
    id: String,
    fqn: String,
    all: ConsumerMetrics,
}

impl ShardMetrics {
    /// The shard went from one status to another; `None` is not being there. One which is replaced may have the status of its
    /// successor for a while, whose series is not to go away with it.
    pub fn status(&self, was: Option<&str>, now: Option<&str>) {
        let _one_at_a_time = self.all.held();
        if let Some(now) = now {
            self.all.up.with_label_values(&[&self.id, now]).inc();
        }
        if let Some(was) = was {
            let gauge = self.all.up.with_label_values(&[&self.id, was]);
            gauge.dec();
            if gauge.get() == 0 {
                drop(self.all.up.remove_label_values(&[&self.id, was]));
            }
        }
    }

    /// The shard no longer runs here: its series go away. Called once, and the last of all.
    pub fn ended(&self) {
        let mut held = self.all.held();
        let Some(shard) = held.get_mut(&self.fqn) else { return };
        shard.runs -= 1;
        if shard.runs == 0
            && let Some(ended) = held.remove(&self.fqn)
        {
            self.all.remove(&self.fqn, &ended.journals);
        }
    }

    /// A transaction completed, with its time in each phase.
    pub fn completed(&self, completed: &crate::txn::Completed) {
        let shard = self.fqn.as_str();
        self.all.transactions.with_label_values(&[shard]).inc();
        self.all.messages.with_label_values(&[shard]).inc_by(completed.messages);
        self.all.bytes.with_label_values(&[shard]).inc_by(completed.bytes);
        let c = completed;
        let spent = [c.not_running, c.consuming, c.stalled, c.preparing, c.committing, c.acknowledging];
        for ((phase, kind), spent) in PHASES.iter().zip(spent) {
            self.all.phases.with_label_values(&[shard, phase, kind]).inc_by(spent.as_secs_f64());
        }
    }

    /// Positions in a source.
    pub fn source(&self, journal: &str, source: &crate::SourceProgress) {
        let labels = [self.fqn.as_str(), journal];
        if let Some(held) = self.all.held().get_mut(&self.fqn)
            && !held.journals.contains(journal)
        {
            held.journals.insert(journal.to_owned());
        }
        self.all.read_head.with_label_values(&labels).set(source.read_through);
        self.all.unread.with_label_values(&labels).set(source.unread());
        self.all.awaiting_ack.with_label_values(&labels).set(source.awaiting_ack());
    }

    /// Producers in the shard's checkpoint.
    pub fn producers(&self, count: usize) {
        self.all.producers.with_label_values(&[&self.fqn]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A sequence of the journal had to be read again.
    pub fn replayed(&self, journal: &str) {
        self.all.replays.with_label_values(&[journal]).inc();
    }

    /// An attempt to run the shard failed.
    pub fn failed(&self) {
        self.all.recovery.failures.with_label_values(&[&self.fqn]).inc();
    }

    /// Another process took the fence of the recovery log.
    pub fn fenced(&self) {
        self.all.recovery.fenced.with_label_values(&[&self.fqn]).inc();
    }

    /// So many bytes of the recovery log are still to be read.
    pub fn recovering(&self, remaining: i64) {
        self.all.recovery.remaining.with_label_values(&[&self.fqn]).set(remaining);
    }

    /// The recovery log was played, and taken over.
    pub fn recovered(&self, played: &Played) {
        self.recovering(0);
        self.all.recovery.recovered_bytes.inc_by(played.read.bytes);
        let (all, after) = (played.read, played.read_after_request);
        let before = (all.operations - after.operations, all.bytes - after.bytes);
        for (when, (operations, bytes)) in WHEN.into_iter().zip([before, (after.operations, after.bytes)]) {
            self.all.recovery.played.with_label_values(&[&self.fqn, when]).inc_by(operations);
            self.all.recovery.played_bytes.with_label_values(&[&self.fqn, when]).inc_by(bytes);
        }
    }

    /// The hints were recorded at this Unix time, in seconds.
    pub fn hints_written(&self, unix_seconds: i64) {
        self.all.recovery.hints_written.with_label_values(&[&self.fqn]).set(unix_seconds);
    }

    /// What a sequencer does with the messages of a journal.
    pub fn queued(&self, journal: &str) -> QueuedMetrics {
        QueuedMetrics { journal: journal.to_owned(), all: self.all.queued.clone(), last: None }
    }
}

/// Counts queued messages of a journal. Remembers the last series, as messages come in runs of a kind.
pub struct QueuedMetrics {
    journal: String,
    all: IntCounterVec,
    last: Option<(Flags, QueueOutcome, IntCounter)>,
}

impl QueuedMetrics {
    /// A message with these flags was queued.
    pub fn count(&mut self, flags: Flags, outcome: QueueOutcome) {
        match &self.last {
            Some((was_flags, was_outcome, counter)) if (*was_flags, *was_outcome) == (flags, outcome) => {
                counter.inc()
            }
            _ => {
                let flag = flag_name(flags);
                let counter = self.all.with_label_values(&[&self.journal, &flag, outcome.as_str()]);
                counter.inc();
                self.last = Some((flags, outcome, counter));
            }
        }
    }
}

fn flag_name(flags: Flags) -> String {
    match flags {
        Flags::OUTSIDE_TXN => "OUTSIDE_TXN".to_owned(),
        Flags::CONTINUE_TXN => "CONTINUE_TXN".to_owned(),
        Flags::ACK_TXN => "ACK_TXN".to_owned(),
        other => format!("Flags({})", other.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::txn::Completed;

    #[test]
    fn series_have_their_names_and_labels() {
        let metrics = Metrics::new();
        let shard = ConsumerMetrics::new(&metrics).shard("shard-a", "/p/items/shard-a");
        shard.status(None, Some("BACKFILL"));
        shard.status(Some("BACKFILL"), Some("PRIMARY"));
        shard.completed(&Completed {
            messages: 3,
            bytes: 40,
            consuming: Duration::from_secs(2),
            ..Default::default()
        });
        let mut queued = shard.queued("a/journal");
        queued.count(Flags::ACK_TXN, QueueOutcome::AckEmpty);
        queued.count(Flags::ACK_TXN, QueueOutcome::AckEmpty);
        let text = metrics.render();
        for line in [
            r#"gazette_shard_up{shard="shard-a",status="PRIMARY"} 1"#,
            r#"gazette_shard_transactions_total{shard="/p/items/shard-a"} 1"#,
            r#"gazette_shard_read_messages_total{shard="/p/items/shard-a"} 3"#,
            r#"gazette_shard_phase_seconds_total{phase="20-consuming",shard="/p/items/shard-a",type="sync"} 2"#,
            r#"gazette_sequencer_queued{flag="ACK_TXN",journal="a/journal",outcome="ackEmpty"} 2"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("BACKFILL"), "{text}");
    }

    #[test]
    fn the_series_of_a_shard_end_with_its_last_run() {
        let metrics = Metrics::new();
        let all = ConsumerMetrics::new(&metrics);
        let (first, second) =
            (all.shard("shard-a", "/p/items/shard-a"), all.shard("shard-a", "/p/items/shard-a"));
        first.status(None, Some("PRIMARY"));
        first.completed(&Completed::default());
        first.source("a/journal", &crate::SourceProgress::default());
        first.producers(1);
        first.failed();
        first.fenced();
        first.hints_written(1);
        first.recovering(5);
        assert!(metrics.render().contains(r#"remaining_bytes{shard="/p/items/shard-a"} 5"#));
        first.recovered(&played());
        first.status(Some("PRIMARY"), None);
        first.ended();
        assert!(metrics.render().contains("/p/items/shard-a"), "it still runs");
        second.ended();
        assert!(!metrics.render().contains("shard-a"), "{}", metrics.render());
    }

    #[test]
    fn a_shard_that_is_replaced_does_not_take_its_successors_status_away() {
        let metrics = Metrics::new();
        let all = ConsumerMetrics::new(&metrics);
        let (first, second) = (all.shard("shard-a", "/p/shard-a"), all.shard("shard-a", "/p/shard-a"));
        first.status(None, Some("PRIMARY"));
        second.status(None, Some("IDLE"));
        second.status(Some("IDLE"), Some("PRIMARY"));
        first.status(Some("PRIMARY"), None);
        let text = metrics.render();
        assert!(text.contains(r#"gazette_shard_up{shard="shard-a",status="PRIMARY"} 1"#), "{text}");
        assert!(!text.contains("IDLE"), "{text}");
        second.status(Some("PRIMARY"), None);
        assert!(!metrics.render().contains("PRIMARY"), "{}", metrics.render());
    }

    fn played() -> Played {
        let log = proto::JournalName::parse("a/log").unwrap();
        let hints = proto::recoverylog::FsmHints { log: "a/log".to_owned(), ..Default::default() };
        let (fsm, dir) = (recoverylog::Fsm::new(&hints).unwrap(), std::path::PathBuf::new());
        Played { fsm, log, dir, read: Default::default(), read_after_request: Default::default() }
    }
}
