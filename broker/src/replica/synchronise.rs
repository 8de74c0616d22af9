//! Synchronisation: a new pipeline, or a roll that every replica must agree to before appends go on (journal protocol
//! §5.2, §6.3). Begins while nothing is under way. It may wait for a peer whose spool another primary still holds; a newer
//! route, or the end of the replica, ends it.

use std::sync::Arc;
use std::time::Duration;

use fragment::spool::next_proposal;
use futures::FutureExt;
use proto::Revision;
use proto::protocol::process_spec::Id;
use proto::protocol::{Header, LabelSet, ReplicateResponse, Route};
use tokio::sync::oneshot;

use super::owner::{Owner, Worked};
use super::view::Head;
use super::writer::Writer;
use super::{AppendError, Outcome, Synchronised};
use crate::pipeline::{self, Gather, PipelineError, Scatter, SyncOutcome, classify};
use crate::spool::{CompletedSpool, SpoolError};

type Reply = oneshot::Sender<Result<Synchronised, AppendError>>;

/// A synchronisation that is to happen as soon as nothing is under way.
#[derive(Default)]
pub(super) struct SyncWish {
    /// A pipeline over this header's route is wanted.
    header: Option<Header>,
    /// It is wanted though there is one over that route, and nobody waits for it.
    renew: bool,
    /// Who waits for it.
    pub(super) replies: Vec<Reply>,
    /// The spool is to begin there, or further on.
    pub(super) roll_to: Option<i64>,
    /// The roll is to be tried again if it fails: the spool's file cannot be relied upon.
    pub(super) must_roll: bool,
}

/// A synchronisation that is under way.
pub(super) struct Agreeing {
    route: Route,
    pub(super) revision: Revision,
    replies: Vec<Reply>,
    roll_to: Option<i64>,
    must_roll: bool,
    /// End of the proposal that peers are to answer; `None` while it is being made.
    pub(super) proposed: Option<i64>,
}

/// A proposal that was made.
pub(super) struct Proposed {
    end: i64,
    outcome: Result<Option<CompletedSpool>, SpoolError>,
}

impl SyncWish {
    /// The revision of the route that is wanted.
    pub(super) fn revision(&self) -> Revision {
        self.header.as_ref().map_or(Revision::NONE, Header::revision)
    }
}

impl Owner {
    /// A pipeline over the header's route is wanted. The newest route wins.
    pub(super) fn on_synchronise(&mut self, header: Header, reply: Reply) {
        if header.revision() < self.synced_at {
            // Resolved before this replica took part in a newer one: its route may lack replicas which have joined since.
            return drop(reply.send(Ok(Synchronised::ReadThrough(self.synced_at))));
        }
        if let Some(agreeing) = &mut self.agreeing {
            let is_wanted = header.route.as_ref().is_some_and(|route| route.equivalent(&agreeing.route));
            if is_wanted || header.revision() < agreeing.revision {
                return agreeing.replies.push(reply);
            }
            self.give_up_agreeing();
        }
        let wish = self.wish.get_or_insert_default();
        if wish.header.as_ref().is_none_or(|known| known.revision() <= header.revision()) {
            wish.header = Some(header);
        }
        wish.replies.push(reply);
    }

    /// Whether there is something to synchronise, and somebody to do it for.
    pub(super) fn wants_synchronisation(&self) -> bool {
        let is_waited_for =
            |wish: &SyncWish| wish.renew || !wish.replies.is_empty() || !self.queue.is_empty();
        let has_route = |wish: &SyncWish| wish.header.is_some() || self.route.is_some();
        self.wish.as_ref().is_some_and(|wish| is_waited_for(wish) && has_route(wish))
    }

    /// Begins to fulfil the wish. Its pipeline is a new one unless only a roll is wanted.
    pub(super) fn begin_agreeing(&mut self) {
        let Some(wish) = self.wish.take() else { return };
        let SyncWish { header, renew, replies, roll_to, must_roll } = wish;
        let current = self.route.take();
        self.notify_at = None;
        let mut agreeing = Agreeing {
            route: current.as_deref().cloned().unwrap_or_else(Route::unrouted),
            revision: self.synced_at,
            replies,
            roll_to,
            must_roll,
            proposed: None,
        };
        if let Some(header) = header {
            let route = header.route.clone().unwrap_or_else(Route::unrouted);
            let is_current = current.as_ref().is_some_and(|current| current.equivalent(&route));
            if roll_to.is_none() && !renew && is_current {
                self.route = current;
                self.agreeing = Some(agreeing);
                return self.finish_agreeing(Ok(Synchronised::Ready));
            }
            (agreeing.route, agreeing.revision) = (route, header.revision());
            self.agreeing = Some(agreeing);
            self.renewal = None;
            match pipeline::start(&self.place.head.journal, &header, &*self.deps.connector) {
                Ok((scatter, gather)) => {
                    if let Some(after) = self.deps.connector.renew_after().filter(|_| !scatter.is_empty()) {
                        self.renewal = Some((self.deps.clock.unix_now() + after, header));
                    }
                    self.gather = gather;
                    self.writer.as_mut().expect("nothing is under way").scatter = scatter;
                }
                Err(err) => return self.finish_agreeing(Err(AppendError::Pipeline(err))),
            }
        } else {
            self.agreeing = Some(agreeing);
        }
        self.propose(None);
    }

    /// The streams of the pipeline have stood long enough: others take their place before anything else is written.
    pub(super) fn renew_pipeline(&mut self) {
        let Some((_, header)) = self.renewal.take() else { return };
        let wish = self.wish.get_or_insert_default();
        // A newer route has streams of its own.
        if wish.header.is_none() {
            (wish.header, wish.renew) = (Some(header), true);
        }
    }

    /// Makes one proposal.
    fn propose(&mut self, registers: Option<LabelSet>) {
        self.refresh_spec();
        let agreeing = self.agreeing.as_ref().expect("a proposal belongs to a synchronisation");
        let mut writer = self.writer.take().expect("nothing is under way");
        let (revision, now) = (agreeing.revision, self.deps.clock.unix_now());
        let spool = writer.dir.spool();
        // A file whose sync failed is left.
        let roll_to = agreeing.roll_to.or_else(|| writer.dir.is_distrusted().then_some(spool.fragment().end));
        let proposal = next_proposal(spool, roll_to, &self.policy, now);
        let registers = registers.unwrap_or_else(|| writer.dir.spool().registers().clone());
        let propose = move || {
            let outcome = writer.synchronise(&proposal, &registers, revision, now);
            (writer, Proposed { end: proposal.end, outcome })
        };
        let proposed = self.deps.tasks.spawn_blocking("synchronise", propose);
        self.work = Some(proposed.map(|(writer, proposed)| Worked::Proposed(writer, proposed)).boxed());
    }

    pub(super) fn on_proposed(&mut self, writer: Writer, proposed: Proposed) {
        let written = writer.dir.written();
        self.latest_file = written.file.clone().or(self.latest_file.take());
        self.writer = Some(writer);
        if self.agreeing.is_none() {
            // Given up meanwhile.
            self.drop_pipeline();
        }
        match proposed.outcome {
            Ok(completed) => {
                let is_rolled = completed.is_some();
                let end = completed.as_ref().map_or(proposed.end, |spool| spool.completed.fragment.end);
                self.hold(end, completed, None);
                self.hold(proposed.end, None, Some(written).filter(|_| is_rolled));
                if let Some(agreeing) = &mut self.agreeing {
                    agreeing.proposed = Some(proposed.end);
                }
            }
            Err(err) => self.finish_agreeing(Err(AppendError::Write(Arc::new(err)))),
        }
    }

    /// The peers have answered the proposal.
    pub(super) fn on_round(&mut self, round: Result<Vec<(Id, ReplicateResponse)>, PipelineError>) {
        let Some(agreeing) = &mut self.agreeing else { return };
        let end = agreeing.proposed.take().expect("rounds are awaited once proposed");
        let outcome =
            round.and_then(|responses| classify(end, &agreeing.route, agreeing.revision, &responses));
        match outcome {
            Ok(SyncOutcome::Synchronised) => {
                self.route = Some(Arc::new(agreeing.route.clone()));
                self.synced_at = agreeing.revision;
                self.finish_agreeing(Ok(Synchronised::Ready));
            }
            Ok(SyncOutcome::ReadThrough(revision)) => {
                self.finish_agreeing(Ok(Synchronised::ReadThrough(revision)));
            }
            Ok(SyncOutcome::RollTo { offset, registers }) => {
                agreeing.roll_to = Some(offset);
                self.propose(registers);
            }
            Err(err) => self.finish_agreeing(Err(AppendError::Pipeline(err))),
        }
    }

    /// Ends the synchronisation without an outcome: whoever waits resolves again.
    pub(super) fn give_up_agreeing(&mut self) {
        if self.agreeing.is_some() {
            self.finish_agreeing(Ok(Synchronised::Closed));
        }
    }

    /// Tells whoever waits. A roll that must happen and did not stays wished for.
    fn finish_agreeing(&mut self, outcome: Result<Synchronised, AppendError>) {
        let Some(agreeing) = self.agreeing.take() else { return };
        if let Err(err) = &outcome {
            tracing::warn!(journal = %self.place.head.journal, error = %err, "failed to synchronise replicas");
            self.queue.drain(..).for_each(|job| job.answer(Outcome::Failed(err.clone())));
        }
        if matches!(outcome, Ok(Synchronised::Ready)) {
            self.on_agreed();
        } else {
            self.drop_pipeline();
            if agreeing.must_roll {
                let wish = self.wish.get_or_insert_default();
                (wish.roll_to, wish.must_roll) = (agreeing.roll_to, true);
            }
        }
        for reply in agreeing.replies {
            drop(reply.send(outcome.clone()));
        }
    }

    /// All replicas have the same spool: what this one holds is part of the journal.
    fn on_agreed(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let head = Head::of(writer.dir.spool(), self.route.clone(), self.synced_at);
        let end = head.end;
        writer.scatter.settle_through(end);
        self.confirm(end);
        self.head = Some(head);
        self.publish();
    }

    /// Ends the streams to peers: each lets go of its spool. Whoever looks sees that there is no pipeline.
    pub(super) fn drop_pipeline(&mut self) {
        self.route = None;
        self.notify_at = None;
        self.renewal = None;
        if let Some(wish) = &mut self.wish
            && std::mem::take(&mut wish.renew)
            && wish.replies.is_empty()
        {
            // It was to take the place of this one.
            wish.header = None;
        }
        self.gather = Gather::default();
        if let Some(writer) = &mut self.writer {
            writer.scatter = Scatter::default();
        }
        if let Some(head) = &mut self.head
            && head.route.take().is_some()
        {
            self.publish();
        }
    }

    /// Tells peers that everything written is settled, if they do not know it yet and nothing else will tell them soon.
    pub(super) fn notify_settled(&mut self) {
        self.notify_at = None;
        if let Some(writer) = &mut self.writer
            && self.route.is_some()
            && self.ledger.is_empty()
        {
            let spool = writer.dir.spool();
            if writer.scatter.has_room(1) && spool.uncommitted() == 0 {
                let (fragment, registers) = (spool.fragment().to_proto(), spool.registers().clone());
                let first_append = spool.first_append();
                writer.scatter.propose(&fragment, &registers, first_append, false, None);
            }
        }
    }
}

/// Time for the next group to tell peers that its predecessor is settled, before a message of its own does.
pub(super) const NOTIFY_AFTER: Duration = Duration::from_millis(5);
