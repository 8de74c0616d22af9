//! Groups of appends, from the queue to their answers.

use std::sync::Arc;

use fragment::Fragment;
use futures::FutureExt;
use proto::JournalName;
use runtime::Instant;
use runtime::trace;
use tokio::sync::oneshot;
use tracing::Span;

use super::metrics::Held;
use super::owner::{Owner, Worked};
use super::synchronise::NOTIFY_AFTER;
use super::view::Head;
use super::writer::{GroupResult, GroupWork, Writer};
use super::{AppendError, Job, Outcome};
use crate::append::{Admission, GroupFormer, Known, Offer};
use crate::pipeline::{PROPOSALS_OPEN_MAX, PipelineError};
use crate::spool::{CompletedSpool, Durability, LocalFile, SpoolError, Written};

/// Groups that may be written and not settled. The ring of a spool's manifest must keep the last synced one.
const GROUPS_UNSETTLED_MAX: u64 = 4;
const _: () = assert!(GROUPS_UNSETTLED_MAX + 2 <= fragment::spool::MANIFEST_SLOTS);
/// Bytes of a group that is written in place: the page cache takes them in less time than it takes to wake a thread.
const INLINE_WRITE_BYTES_MAX: i64 = 64 << 10;

/// Messages to each peer of such a group: its content, in one or two, and its commit.
const INLINE_MESSAGES_MAX: usize = 3;
const _: () = assert!(GROUPS_UNSETTLED_MAX as usize <= PROPOSALS_OPEN_MAX);

/// An append and its outcome.
pub(super) type Answer = (oneshot::Sender<Outcome>, Outcome);
/// Number of the last group that a sync covers, and how the sync went.
pub(super) type Synced = (u64, Result<(), Arc<SpoolError>>);

/// What is to be done once a group is settled.
pub(super) struct Settlement {
    answers: Vec<Answer>,
    completed: Option<CompletedSpool>,
    written: Option<Written>,
    sent: Option<Sent>,
    /// Of the group, which ends here.
    _span: Span,
}

/// A group that other replicas are to acknowledge.
struct Sent {
    at: Instant,
    _unacknowledged: Held,
}

/// The span of a group's commit: part of the trace of its first append that is traced, and linked to those of the others.
struct GroupSpan(Span);

impl Default for GroupSpan {
    fn default() -> GroupSpan {
        GroupSpan(Span::none())
    }
}

impl GroupSpan {
    fn join(&mut self, append: &Span, journal: &JournalName) {
        match (append.is_disabled(), self.0.is_disabled()) {
            (true, _) => {}
            (false, true) => {
                self.0 = tracing::info_span!(target: trace::TARGET, parent: append, "commit group", %journal);
            }
            (false, false) => drop(self.0.follows_from(append)),
        }
    }
}

/// A group that is about to be written.
struct Formed {
    work: Option<GroupWork>,
    answers: Vec<Answer>,
}

impl Owner {
    /// Starts whatever can be started.
    pub(super) fn advance(&mut self) {
        loop {
            self.begin_sync();
            self.settle();
            if self.queue.is_empty() {
                return self.notify_if_idle();
            }
            if self.agreeing.is_some() || self.ledger.unsettled() >= GROUPS_UNSETTLED_MAX {
                return;
            }
            if self.route.is_none() && self.writer.is_some() {
                // Without a pipeline there is no telling whether this is still the primary.
                self.queue.drain(..).for_each(|job| job.answer(Outcome::Resolve));
                return;
            }
            if self.wish.is_some() {
                return;
            }
            let Some(writer) = self.writer.take() else { return };
            let Formed { work, answers } = self.form(&writer);
            let Some(work) = work else {
                self.writer = Some(writer);
                self.ledger.follow(Settlement {
                    answers,
                    completed: None,
                    written: None,
                    sent: None,
                    _span: Span::none(),
                });
                continue;
            };
            if !self.write(writer, work, answers) {
                return;
            }
        }
    }

    /// While there is nothing else to say to peers, they are told what is settled by a message of its own.
    fn notify_if_idle(&mut self) {
        if let Some(writer) = &mut self.writer
            && self.ledger.is_empty()
            && writer.scatter.settle_through(self.confirmation.through)
        {
            self.notify_at.get_or_insert(self.deps.clock.now() + NOTIFY_AFTER);
        }
    }

    /// Takes appends off the queue which commit together.
    fn form(&mut self, writer: &Writer) -> Formed {
        self.refresh_spec();
        let spool = writer.dir.spool();
        let (known, now) = (self.known(spool.fragment()), self.deps.clock.unix_now());
        let mut former = GroupFormer::new(spool, known, &self.terms, &self.policy, now);
        let (mut answers, mut contents) = (Vec::new(), Vec::new());
        let mut span = GroupSpan::default();
        while let Some(job) = self.queue.front() {
            if job.admitted < self.synced_at {
                // Its route may be older than the pipeline's, which is to be published before there is content.
                let job = self.queue.pop_front().expect("it is at the front");
                answers.push((job.reply, Outcome::Resolve));
                continue;
            }
            let outcome = match former.offer(&job.offer()) {
                Admission::Joined(place) => {
                    contents.push(Arc::clone(&job.content));
                    span.join(&job.span, &self.place.head.journal);
                    Outcome::Committed(place, former.codec())
                }
                Admission::Refused(status, registers) => Outcome::Refused(status, registers),
                Admission::RegistersTooLarge(size) => Outcome::Failed(AppendError::Registers(size)),
                Admission::OffsetsExhausted(end) => Outcome::Failed(AppendError::OffsetsExhausted(end)),
                Admission::Suspend(transition) => Outcome::Suspend(transition),
                Admission::Deferred => break,
                Admission::Resync(offset) => {
                    self.wish.get_or_insert_default().roll_to = Some(offset);
                    break;
                }
            };
            let job = self.queue.pop_front().expect("it is at the front");
            answers.push((job.reply, outcome));
        }
        let work = former.finish().map(|group| {
            let crate::append::Group { roll, bytes, registers } = group;
            GroupWork { roll, contents, bytes, registers, now, span: span.0 }
        });
        // Without peers, a group that writes nothing has nothing to wait for but the groups before it.
        let is_needed =
            |work: &GroupWork| work.roll.is_some() || work.bytes > 0 || !writer.scatter.is_empty();
        Formed { work: work.filter(is_needed), answers }
    }

    /// Writes a group; whether that is done already.
    fn write(&mut self, mut writer: Writer, work: GroupWork, answers: Vec<Answer>) -> bool {
        writer.scatter.settle_through(self.confirmation.through);
        self.notify_at = None;
        let span = work.span.clone();
        let in_place = work.bytes <= INLINE_WRITE_BYTES_MAX
            && work.is_plain()
            && writer.scatter.has_room(INLINE_MESSAGES_MAX)
            && self.latest_file.is_some();
        if in_place {
            let result = writer.write(&work);
            self.on_written(writer, result, answers, span);
            return true;
        }
        let write = move || {
            let result = writer.write(&work);
            (writer, result)
        };
        let written = self.deps.tasks.spawn_blocking("write group", write);
        let written = written.map(|(writer, result)| Worked::Written(writer, result, answers, span));
        self.work = Some(written.boxed());
        false
    }

    pub(super) fn on_written(
        &mut self,
        writer: Writer,
        result: GroupResult,
        answers: Vec<Answer>,
        span: Span,
    ) {
        let GroupResult { completed, written, bytes, outcome } = result;
        self.latest_file = written.file.clone().or(self.latest_file.take());
        let metrics = &self.deps.metrics;
        let answers = match outcome {
            Ok(()) => {
                metrics.commits.inc();
                metrics.commit_bytes.inc_by(bytes);
                if bytes > 0 {
                    let is_committed = |answer: &&Answer| matches!(answer.1, Outcome::Committed(..));
                    metrics.group_appends.observe(answers.iter().filter(is_committed).count() as f64);
                    metrics.group_bytes.observe(bytes as f64);
                }
                answers
            }
            Err(err) => {
                metrics.rollbacks.inc();
                metrics.rollback_bytes.inc_by(bytes);
                tracing::warn!(journal = %self.place.head.journal, error = %err, "failed to write appends");
                failed(answers, &AppendError::Write(Arc::new(err)))
            }
        };
        let has_peers = !writer.scatter.is_empty();
        let sent = has_peers
            .then(|| Sent { at: self.deps.clock.now(), _unacknowledged: metrics.unacknowledged(bytes) });
        let send_error = match self.route {
            Some(_) => writer.scatter.failed().cloned(),
            // Torn down meanwhile, so that nobody's acknowledgement will come.
            None => Some(PipelineError::TornDown),
        };
        self.writer = Some(writer);
        self.ledger.write(Settlement { answers, completed, written: Some(written), sent, _span: span });
        if self.deps.durability == Durability::Process {
            self.ledger.on_synced(self.ledger.written());
        }
        match send_error {
            Some(error) => self.on_acknowledged(Err(error)),
            None if !has_peers => self.ledger.on_acknowledged(),
            None => {}
        }
    }

    /// Starts a sync of everything written, unless one is under way.
    fn begin_sync(&mut self) {
        if self.syncing.is_some() || !self.ledger.lacks_sync() {
            return;
        }
        let mut files: Vec<LocalFile> = Vec::new();
        for file in self.ledger.unsynced().filter_map(|group| group.written.as_ref()?.file.as_ref()) {
            if files.iter().all(|known| known.path() != file.path()) {
                files.push(file.clone());
            }
        }
        let number = self.ledger.written();
        let sync = move || files.iter().try_for_each(LocalFile::sync).map_err(Arc::new);
        let synced = self.deps.tasks.spawn_blocking("sync spool", sync);
        self.syncing = Some(synced.map(move |outcome| (number, outcome)).boxed());
    }

    pub(super) fn on_synced(&mut self, (number, outcome): Synced) {
        match outcome {
            Ok(()) => self.ledger.on_synced(number),
            Err(err) => {
                tracing::error!(journal = %self.place.head.journal, error = %err, "failed to sync appends");
                self.fail_unsettled(&AppendError::Sync(err));
                if !self.gather.is_empty() {
                    // What its peers still answer to these groups is not to be taken for answers to later ones.
                    self.drop_pipeline();
                }
                let end = self.written_end();
                let wish = self.wish.get_or_insert_default();
                (wish.roll_to, wish.must_roll) = (end, true);
            }
        }
    }

    pub(super) fn on_acknowledged(&mut self, outcome: Result<(), PipelineError>) {
        match outcome {
            Ok(()) => self.ledger.on_acknowledged(),
            Err(err) => {
                tracing::warn!(journal = %self.place.head.journal, error = %err, "pipeline failed");
                self.fail_unsettled(&AppendError::Pipeline(err));
                // The next append synchronises a new one.
                self.drop_pipeline();
            }
        }
    }

    /// The stream of a peer has ended while it owed nothing. The next append, or pulse, synchronises a new pipeline.
    pub(super) fn on_broken(&mut self, error: &PipelineError) {
        tracing::info!(journal = %self.place.head.journal, %error, "pipeline has ended");
        // The other peers show what is settled only if they are told.
        if self.notify_at.is_some() {
            self.notify_settled();
        }
        self.drop_pipeline();
    }

    /// Answers everything unsettled with `error`. What was written stays in the spool, and is held until the replicas agree
    /// on it.
    fn fail_unsettled(&mut self, error: &AppendError) {
        for Settlement { answers, completed, written, .. } in self.ledger.abandon() {
            let end = |fragment: &Fragment| fragment.end;
            self.hold(completed.as_ref().map_or(0, |spool| end(&spool.completed.fragment)), completed, None);
            self.hold(written.as_ref().map_or(0, |written| end(&written.fragment)), None, written);
            for (reply, outcome) in failed(answers, error) {
                drop(reply.send(outcome));
            }
        }
    }

    /// End of the spool as of the last group, settled or not.
    fn written_end(&self) -> Option<i64> {
        let waiting = self.confirmation.waiting().map(|unconfirmed| unconfirmed.end).max();
        self.head.as_ref().map(|head| head.end).max(waiting)
    }

    /// Publishes and answers the groups that are settled.
    fn settle(&mut self) {
        let mut answers = Vec::new();
        let mut is_changed = false;
        for mut group in self.ledger.take_settled() {
            answers.append(&mut group.answers);
            if let Some(sent) = &group.sent {
                let took = self.deps.clock.now().saturating_duration_since(sent.at);
                self.deps.metrics.replication_seconds.observe(took.as_secs_f64());
            }
            is_changed |= self.enter(group);
        }
        if is_changed {
            self.publish();
        }
        // A process that was stopped may not have noticed yet that others have taken over.
        let is_member = answers.is_empty() || (self.deps.is_member)();
        // Only now: whoever has an answer finds what it says published.
        for (reply, outcome) in answers {
            let is_expired = !is_member && matches!(outcome, Outcome::Committed(..));
            drop(reply.send(if is_expired { Outcome::Failed(AppendError::Expired) } else { outcome }));
        }
    }

    /// Enters what a group wrote into the index; whether there was anything.
    fn enter(&mut self, group: Settlement) -> bool {
        let Settlement { completed, written, .. } = group;
        let is_changed = completed.is_some() || written.is_some();
        completed.into_iter().for_each(|completed| self.on_completed(completed));
        if let Some(written) = written {
            self.confirmation.through = self.confirmation.through.max(written.fragment.end);
            self.enter_written(written);
        }
        is_changed
    }

    /// Enters the spool's fragment.
    pub(super) fn enter_written(&mut self, written: Written) {
        let Written { fragment, registers, file } = written;
        self.head = Some(Head {
            begin: fragment.begin,
            end: fragment.end,
            registers: Arc::new(registers),
            route: self.route.clone(),
            synced_at: self.synced_at,
        });
        if let (Some(file), false) = (file, fragment.is_empty()) {
            self.fragments.insert_local(fragment, file);
        }
    }

    /// The span of all fragments, with those of groups that are not settled.
    fn known(&self, current: &Fragment) -> Known {
        let index = self.fragments.index();
        let mut known = super::view::known(index);
        let held = self.confirmation.waiting().filter_map(|unconfirmed| unconfirmed.completed.as_ref());
        let completed = self.ledger.waiting().filter_map(|group| group.completed.as_ref()).chain(held);
        let unsettled = completed.map(|spool| &spool.completed.fragment).chain([current]);
        for fragment in unsettled.filter(|fragment| !fragment.is_empty()) {
            known.begin = if known.is_empty() { fragment.begin } else { known.begin.min(fragment.begin) };
            if fragment.end >= known.end {
                known = Known { end: fragment.end, last_mod_time: 0, ..known };
            }
        }
        known
    }
}

fn failed(answers: Vec<Answer>, error: &AppendError) -> Vec<Answer> {
    answers.into_iter().map(|(reply, _)| (reply, Outcome::Failed(error.clone()))).collect()
}

impl Job {
    fn offer(&self) -> Offer<'_> {
        Offer {
            wants: self.wants.clone(),
            length: self.content.length(),
            union_registers: self.union_registers.as_ref(),
            subtract_registers: self.subtract_registers.as_ref(),
            roll_at_end: self.roll_at_end,
        }
    }
}
