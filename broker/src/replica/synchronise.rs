//! Synchronisation: a new pipeline, or a roll that every replica must agree to before appends go on (journal protocol
//! §5.2, §6.3). Happens while nothing is under way.

use std::sync::Arc;

use fragment::spool::next_proposal;
use proto::Revision;
use proto::protocol::{Header, LabelSet, Route};
use tokio::sync::oneshot;

use super::owner::Owner;
use super::{AppendError, Outcome, Synchronised};
use crate::pipeline::{self, SyncOutcome, classify};

/// A synchronisation that is to happen as soon as nothing is under way.
#[derive(Default)]
pub(super) struct SyncWish {
    /// A pipeline over this header's route is wanted.
    header: Option<Header>,
    /// Who waits for it.
    pub(super) replies: Vec<oneshot::Sender<Result<Synchronised, AppendError>>>,
    /// The spool is to begin there, or further on.
    pub(super) roll_to: Option<i64>,
    /// The roll is to be tried again if it fails: the spool's file cannot be relied upon.
    pub(super) must_roll: bool,
}

impl Owner {
    /// A pipeline over the header's route is wanted. The newest route wins.
    pub(super) fn on_synchronise(
        &mut self,
        header: Header,
        reply: oneshot::Sender<Result<Synchronised, AppendError>>,
    ) {
        let wish = self.wish.get_or_insert_default();
        if wish.header.as_ref().is_none_or(|known| known.revision() <= header.revision()) {
            wish.header = Some(header);
        }
        wish.replies.push(reply);
    }

    /// Whether there is something to synchronise, and somebody to do it for.
    pub(super) fn wants_synchronisation(&self) -> bool {
        let is_waited_for = |wish: &SyncWish| !wish.replies.is_empty() || !self.queue.is_empty();
        self.writer.is_some() && self.wish.as_ref().is_some_and(is_waited_for)
    }

    /// Fulfils the wish. If that fails whoever waits is told, and a roll that was to happen stays wished for.
    pub(super) async fn synchronise(&mut self) {
        let Some(wish) = self.wish.take() else { return };
        let SyncWish { header, replies, roll_to, must_roll } = wish;
        let outcome = self.try_synchronise(header, roll_to).await;
        if let Err(err) = &outcome {
            tracing::warn!(journal = %self.place.head.journal, error = %err, "failed to synchronise replicas");
            let failed = || Outcome::Failed(err.clone());
            self.queue.drain(..).for_each(|job| job.answer(failed()));
            self.wish = must_roll.then(|| SyncWish { roll_to, must_roll, ..SyncWish::default() });
        }
        if let (Some(head), Some(writer)) = (&mut self.head, &self.writer) {
            *head = super::view::Head::of(writer.dir.spool(), self.route.clone());
        }
        self.publish();
        for reply in replies {
            drop(reply.send(outcome.clone()));
        }
    }

    async fn try_synchronise(
        &mut self,
        header: Option<Header>,
        roll_to: Option<i64>,
    ) -> Result<Synchronised, AppendError> {
        let unrouted = Route::unrouted();
        let mut over = (unrouted, Revision::NONE);
        if let Some(header) = header {
            let route = header.route.clone().unwrap_or_else(Route::unrouted);
            if roll_to.is_none() && self.route.as_ref().is_some_and(|current| current.equivalent(&route)) {
                return Ok(Synchronised::Ready);
            }
            let (scatter, gather) =
                pipeline::start(&header, &*self.deps.connector).map_err(AppendError::Pipeline)?;
            self.route = None;
            self.gather = gather;
            self.writer.as_mut().expect("nothing is under way").scatter = scatter;
            over = (route, header.revision());
        } else if let Some(route) = &self.route {
            over = (Route::clone(route), Revision::NONE);
        }
        let outcome = self.agree(&over.0, over.1, roll_to).await;
        match outcome {
            Ok(Synchronised::Ready) => self.route = Some(Arc::new(over.0)),
            _ => self.route = None,
        }
        outcome
    }

    /// Proposes until all replicas agree.
    async fn agree(
        &mut self,
        route: &Route,
        revision: Revision,
        mut roll_to: Option<i64>,
    ) -> Result<Synchronised, AppendError> {
        let mut registers = None;
        loop {
            self.refresh_spec();
            let end = self.propose(roll_to, registers.take()).await?;
            let round = self.gather.round();
            let responses = tokio::select! {
                biased;
                () = self.deps.tasks.token().cancelled() => return Ok(Synchronised::Closed),
                responses = round => responses.map_err(AppendError::Pipeline)?,
            };
            match classify(end, route, revision, &responses).map_err(AppendError::Pipeline)? {
                SyncOutcome::Synchronised => return Ok(Synchronised::Ready),
                SyncOutcome::ReadThrough(revision) => return Ok(Synchronised::ReadThrough(revision)),
                SyncOutcome::RollTo { offset, registers: theirs } => {
                    roll_to = Some(offset);
                    registers = theirs;
                }
            }
        }
    }

    /// Makes one proposal, and returns its end.
    async fn propose(
        &mut self,
        roll_to: Option<i64>,
        registers: Option<LabelSet>,
    ) -> Result<i64, AppendError> {
        let mut writer = self.writer.take().expect("nothing is under way");
        let now = self.deps.clock.unix_now();
        let proposal = next_proposal(writer.dir.spool(), roll_to, &self.policy, now);
        let registers = registers.unwrap_or_else(|| writer.dir.spool().registers().clone());
        let end = proposal.end;
        let propose = move || {
            let outcome = writer.synchronise(&proposal, &registers, now);
            (writer, outcome)
        };
        let (writer, outcome) = self.deps.tasks.spawn_blocking("synchronise", propose).await;
        let written = writer.dir.written();
        self.latest_file = written.file.clone().or(self.latest_file.take());
        self.writer = Some(writer);
        let completed = outcome.map_err(|err| AppendError::Write(Arc::new(err)))?;
        completed.into_iter().for_each(|completed| self.on_completed(completed));
        self.enter_written(written);
        Ok(end)
    }
}
