//! How far the sources of a shard were read, and the progress which is published from it.

use std::sync::Arc;

use message::{Clock, Flags, QueueOutcome};
use proto::consumer::Checkpoint;

use super::core::Completed;
use super::prior::Prior;
use super::pump::WriteHeads;
use crate::metrics::{QueuedMetrics, ShardMetrics};
use crate::shard::{Core, Shard};
use crate::{Progress, SourceProgress};

struct Head {
    journal: Arc<str>,
    read_head: i64,
    last_clock: Clock,
    queued: QueuedMetrics,
}

/// See the module.
pub struct Heads {
    heads: Vec<Head>,
    /// Index of the source which was read last.
    last: usize,
    write_heads: WriteHeads,
    metrics: ShardMetrics,
}

impl Heads {
    /// Nothing was read yet.
    pub fn new(write_heads: WriteHeads, metrics: ShardMetrics) -> Heads {
        Heads { heads: Vec::new(), last: 0, write_heads, metrics }
    }

    /// A message of `journal` with this end and clock was read.
    pub fn on_read(&mut self, journal: &Arc<str>, end: i64, clock: Clock) {
        let is_last = self.heads.get(self.last).is_some_and(|head| Arc::ptr_eq(&head.journal, journal));
        if !is_last {
            self.last = self.index_of(journal);
        }
        let head = &mut self.heads[self.last];
        head.read_head = end;
        head.last_clock = clock;
    }

    fn index_of(&mut self, journal: &Arc<str>) -> usize {
        if let Some(index) = self.heads.iter().position(|head| head.journal == *journal) {
            return index;
        }
        let queued = self.metrics.queued(journal);
        self.heads.push(Head { journal: Arc::clone(journal), read_head: 0, last_clock: Clock::ZERO, queued });
        self.heads.len() - 1
    }

    /// The message which was read last had this outcome.
    pub fn count(&mut self, flags: Flags, outcome: QueueOutcome) {
        self.heads[self.last].queued.count(flags, outcome);
    }

    /// The source which was read last, and the end of its last message.
    pub fn last_read(&self) -> Option<(Arc<str>, i64)> {
        self.heads.get(self.last).map(|head| (Arc::clone(&head.journal), head.read_head))
    }

    /// Publishes that a transaction completed.
    pub fn on_completed(&self, shard: &Shard, completed: &Completed, prior: &mut Prior) {
        self.metrics.completed(completed);
        self.metrics.producers(prior.producers);
        self.publish(shard, |progress| {
            progress.transactions += 1;
            progress.messages += completed.messages;
            progress.bytes += completed.bytes;
            for (journal, offset) in &prior.read_through {
                source(progress, journal).read_through = *offset;
            }
            for ack in prior.published.drain(..) {
                if let Some(end) = ack.end {
                    progress.publish_at.insert(ack.journal, end);
                }
            }
        });
    }

    /// Publishes that the last source was read through its last message, which no transaction will say.
    pub fn raise_now(&self, shard: &Shard) {
        if let Some((journal, end)) = self.last_read() {
            self.publish(shard, |progress| source(progress, &journal).read_through = end);
        }
    }

    fn publish(&self, shard: &Shard, change: impl FnOnce(&mut Progress)) {
        shard.inner.core.progress.send_modify(|progress| {
            let progress = Arc::make_mut(progress);
            change(progress);
            for head in &self.heads {
                let source = source(progress, &head.journal);
                source.read_head = head.read_head;
                source.last_clock = head.last_clock;
            }
            for (journal, source) in &mut progress.sources {
                source.read_head = source.read_head.max(source.read_through);
                source.write_head = self.write_heads.of(journal).max(source.read_head);
                self.metrics.source(journal, source);
            }
        });
    }
}

fn source<'a>(progress: &'a mut Progress, journal: &Arc<str>) -> &'a mut SourceProgress {
    progress.sources.entry(Arc::clone(journal)).or_default()
}

/// Shows the progress of a checkpoint which was recovered. Sources which were never consumed are at zero.
pub fn seed_progress(core: &Core, checkpoint: &Checkpoint) {
    let spec = core.spec();
    core.progress.send_modify(|progress| {
        let status = progress.status;
        let mut seeded = Progress { status, ..Progress::default() };
        for from in &spec.sources {
            seeded.sources.entry(from.journal.as_str().into()).or_default();
        }
        for (journal, state) in &checkpoint.sources {
            let source = seeded.sources.entry(journal.as_str().into()).or_default();
            (source.read_through, source.read_head) = (state.read_through, state.read_through);
        }
        *progress = Arc::new(seeded);
    });
}
