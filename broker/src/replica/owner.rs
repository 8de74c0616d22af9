//! The task that owns a replica.
//!
//! A loop over events: something finished (adoption, a write, a sync, a round of acknowledgements), or messages came, from
//! this broker or from a primary that it follows. After each event it starts whatever can be started, so that writes,
//! syncs and acknowledgements of successive groups overlap. There is at most one write and one sync at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use fragment::Fragment;
use fragment::spool::RollPolicy;
use futures::future::BoxFuture;
use proto::Revision;
use proto::protocol::process_spec::Id;
use proto::protocol::{Header, JournalSpec, ReplicateResponse, Route};
use runtime::{BoxError, CancellationToken, Clock, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

use super::adoption::{Adoption, Mark};
use super::commit::{Answer, Settlement, Synced};
use super::confirm::Confirmation;
use super::follow::{Brought, Follow, Following};
use super::follower::Applied;
use super::fragments::{Epoch, Fragments, Listing};
use super::settle::Ledger;
use super::synchronise::{Agreeing, Proposed, SyncWish};
use super::view::{Head, IndexView};
use super::writer::{GroupResult, Writer};
use super::{Farewell, Job, Message, Outcome, ReplicaDeps, Synchronised};
use crate::append::Terms;
use crate::persist::{Begin, Upload};
use crate::pipeline::{Gather, PipelineError};
use crate::spool::{Adopted, CompletedSpool, LocalFile, SpoolError, SpoolPlace};

/// Messages that are taken off the inbox at a time, and appends that are queued before no more are taken.
const QUEUE_MAX: usize = 1024;

/// Work that is done where blocking is allowed.
pub(super) enum Worked {
    Adopted(Result<Adopted, SpoolError>),
    Written(Writer, GroupResult, Vec<Answer>, Span),
    Proposed(Writer, Proposed),
    Applied(Writer, Applied),
}

enum Event {
    Stopped,
    Worked(Worked),
    Synced(Synced),
    Acknowledged(Result<(), PipelineError>),
    Broken(PipelineError),
    Round(Result<Vec<(Id, ReplicateResponse)>, PipelineError>),
    Mark(Mark),
    Brought(Brought),
    Yield,
    Notify,
    Renew,
    Received,
}

/// See the module's documentation.
pub(super) struct Owner {
    pub(super) place: SpoolPlace,
    pub(super) deps: ReplicaDeps,
    spec: watch::Receiver<Arc<JournalSpec>>,
    pub(super) terms: Terms,
    pub(super) policy: RollPolicy,
    publisher: watch::Sender<IndexView>,
    pub(super) fragments: Fragments,
    /// The end of the journal as of the last settled group.
    pub(super) head: Option<Head>,
    inbox: mpsc::Receiver<Message>,
    own: mpsc::WeakSender<Message>,
    pub(super) queue: VecDeque<Job>,
    /// The writer, while it is not at work.
    pub(super) writer: Option<Writer>,
    pub(super) work: Option<BoxFuture<'static, Worked>>,
    pub(super) syncing: Option<BoxFuture<'static, Synced>>,
    pub(super) adoption: Adoption,
    pub(super) ledger: Ledger<Settlement>,
    pub(super) confirmation: Confirmation,
    pub(super) gather: Gather,
    /// The route that the pipeline is synchronised over.
    pub(super) route: Option<Arc<Route>>,
    /// Revision of the last route over which this replica took part.
    pub(super) synced_at: Revision,
    pub(super) wish: Option<SyncWish>,
    pub(super) agreeing: Option<Agreeing>,
    /// When peers are told what is settled, unless there is more to tell them before.
    pub(super) notify_at: Option<Instant>,
    /// When the streams to peers are to be renewed, in wall time, and the header which they were begun with.
    pub(super) renewal: Option<(Duration, Header)>,
    pub(super) following: Option<Following>,
    /// Streams that wait for the spool.
    pub(super) follows: VecDeque<Follow>,
    /// When the stream that is followed is cut off, since it was superseded.
    pub(super) yield_at: Option<Instant>,
    /// The file of the current fragment, settled or not.
    pub(super) latest_file: Option<LocalFile>,
    farewell: Option<(Farewell, oneshot::Sender<()>)>,
    /// Set once etcd is known to have a mark of the journal.
    pub(super) marked: Arc<AtomicI64>,
    /// Ends the replica's other tasks.
    stop: CancellationToken,
    /// Ends uploads of a journal that is no more.
    abandon: CancellationToken,
}

/// What an owner talks to.
pub(super) struct Channels {
    pub(super) spec: watch::Receiver<Arc<JournalSpec>>,
    pub(super) publisher: watch::Sender<IndexView>,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) own: mpsc::WeakSender<Message>,
    pub(super) epoch: Epoch,
    pub(super) stop: CancellationToken,
    pub(super) marked: Arc<AtomicI64>,
}

impl Owner {
    pub(super) fn new(place: SpoolPlace, deps: ReplicaDeps, channels: Channels) -> Owner {
        let Channels { mut spec, publisher, inbox, own, epoch, stop, marked } = channels;
        let current = Arc::clone(&spec.borrow_and_update());
        Owner {
            terms: Terms::of(&current),
            policy: RollPolicy::of(&current),
            fragments: Fragments::new(place.head.journal.clone(), epoch),
            place,
            deps,
            spec,
            publisher,
            head: None,
            inbox,
            own,
            queue: VecDeque::new(),
            writer: None,
            work: None,
            syncing: None,
            adoption: Adoption::default(),
            ledger: Ledger::new(),
            confirmation: Confirmation::default(),
            gather: Gather::default(),
            route: None,
            synced_at: Revision::NONE,
            wish: None,
            agreeing: None,
            notify_at: None,
            renewal: None,
            following: None,
            follows: VecDeque::new(),
            yield_at: None,
            latest_file: None,
            farewell: None,
            marked,
            stop,
            abandon: CancellationToken::new(),
        }
    }

    /// Runs until the replica is shut down, or its process stops. The owner is boxed, since a future keeps room for its
    /// argument twice.
    pub(super) async fn run(mut self: Box<Self>) -> Result<(), BoxError> {
        let _stop_others = self.stop.clone().drop_guard();
        let mut batch = Vec::new();
        self.adopt();
        loop {
            self.advance();
            if self.is_idle() {
                if self.farewell.is_some() {
                    Box::pin(self.close()).await;
                    return Ok(());
                }
                self.begin_role();
            }
            match self.next_event(&mut batch).await {
                Event::Stopped => return Ok(()),
                Event::Worked(worked) => self.on_worked(worked),
                Event::Synced(synced) => self.on_synced(synced),
                Event::Acknowledged(outcome) => self.on_acknowledged(outcome),
                Event::Broken(error) => self.on_broken(&error),
                Event::Round(round) => self.on_round(round),
                Event::Mark(mark) => self.on_mark(mark),
                Event::Brought(brought) => self.on_brought(brought),
                Event::Yield => self.fail_following("superseded by the stream of a newer route"),
                Event::Notify => self.notify_settled(),
                Event::Renew => self.renew_pipeline(),
                Event::Received => batch.drain(..).for_each(|message| self.on_message(message)),
            }
        }
    }

    /// Begins to lead or to follow, whichever is wanted by the newer route.
    fn begin_role(&mut self) {
        if self.writer.is_none() || self.agreeing.is_some() {
            return;
        }
        let follow = self.follow_revision();
        let leads = self.wants_synchronisation()
            && follow
                .is_none_or(|revision| self.wish.as_ref().is_some_and(|wish| wish.revision() >= revision));
        if !leads && follow.is_none() {
            self.yield_at = None;
            return;
        }
        if !self.has_adopted() {
            return;
        }
        if self.following.is_some() {
            self.yield_following();
        } else if leads {
            self.begin_agreeing();
        } else {
            self.begin_following();
        }
    }

    async fn next_event(&mut self, batch: &mut Vec<Message>) -> Event {
        let room = QUEUE_MAX.saturating_sub(self.queue.len());
        let stopped = self.deps.tasks.token().clone();
        let is_proposed = self.agreeing.as_ref().is_some_and(|agreeing| agreeing.proposed.is_some());
        let is_owed = is_proposed || self.ledger.lacks_acknowledgement();
        // Neither is anything asked at this moment.
        let owes_nothing = !is_owed && self.writer.is_some() && self.agreeing.is_none();
        let clock = &self.deps.clock;
        tokio::select! {
            biased;
            () = stopped.cancelled() => Event::Stopped,
            worked = finished(&mut self.work) => Event::Worked(worked),
            synced = finished(&mut self.syncing) => Event::Synced(synced),
            gathered = gathered(&mut self.gather, is_proposed, owes_nothing), if is_owed || owes_nothing => gathered,
            mark = self.adoption.answered() => Event::Mark(mark),
            () = at(clock, self.yield_at), if self.following.is_some() && self.writer.is_some() => Event::Yield,
            received = self.inbox.recv_many(batch, room), if room > 0 && self.farewell.is_none() => match received {
                // No handle of the replica is left, and none said farewell.
                0 => Event::Stopped,
                _ => Event::Received,
            },
            brought = brought(&mut self.following), if self.writer.is_some() => Event::Brought(brought),
            () = at(clock, self.notify_at), if self.writer.is_some() => Event::Notify,
            () = renewal(clock, &self.renewal), if self.agreeing.is_none() => Event::Renew,
        }
    }

    fn on_worked(&mut self, worked: Worked) {
        match worked {
            Worked::Adopted(adopted) => self.on_adopted(adopted),
            Worked::Written(writer, result, answers, span) => self.on_written(writer, result, answers, span),
            Worked::Proposed(writer, proposed) => self.on_proposed(writer, proposed),
            Worked::Applied(writer, applied) => self.on_applied(writer, applied),
        }
    }

    /// Whether the replica is being shut down.
    pub(super) fn is_leaving(&self) -> bool {
        self.farewell.is_some()
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Append(job) if self.farewell.is_some() => job.answer(Outcome::Resolve),
            Message::Append(job) => self.queue.push_back(*job),
            Message::Synchronise { header, reply } => self.on_synchronise(*header, reply),
            Message::Follow(follow) => self.on_follow(*follow),
            Message::Stored(fragment, file) => {
                let mut released = self.fragments.on_stored(*fragment);
                released.push(file);
                self.release(released);
            }
            Message::Listed(listing) => {
                let Listing { found, is_complete, applied } = *listing;
                let released = self.fragments.on_listed(found, is_complete);
                self.release(released);
                // An error means that the task which lists has ended.
                let _ = applied.send(());
            }
            Message::Shutdown { farewell, reply } => {
                self.queue.drain(..).for_each(|job| job.answer(Outcome::Resolve));
                let replies = self.wish.take().into_iter().flat_map(|wish| wish.replies);
                replies.for_each(|reply| drop(reply.send(Ok(Synchronised::Closed))));
                self.give_up_agreeing();
                self.follows.clear();
                self.farewell = Some((farewell, reply));
            }
        }
    }

    /// Takes a newer specification, if there is one.
    pub(super) fn refresh_spec(&mut self) {
        if self.spec.has_changed().unwrap_or(false) {
            let spec = Arc::clone(&self.spec.borrow_and_update());
            self.terms = Terms::of(&spec);
            self.policy = RollPolicy::of(&spec);
        }
    }

    /// Whether the writer is at rest and everything written is settled.
    fn is_idle(&self) -> bool {
        self.work.is_none() && self.syncing.is_none() && self.ledger.is_empty()
    }

    /// A spool is complete: it stays in the index, and goes to its store.
    pub(super) fn on_completed(&mut self, spool: CompletedSpool) {
        self.deps.metrics.completed.inc();
        self.fragments.insert_local(spool.completed.fragment.clone(), spool.file.clone());
        let own = self.own.clone();
        let file = spool.file.clone();
        let stored = move |fragment| match own.upgrade() {
            Some(own) => own.try_send(Message::Stored(Box::new(fragment), file)).is_ok(),
            None => false,
        };
        let Fragment { begin, end, .. } = spool.completed.fragment;
        let view = self.publisher.subscribe();
        self.deps.persister.submit(Upload {
            spool,
            begin: self.following.as_ref().map_or(Begin::Now, Following::upload_begin),
            create_revision: Revision(self.place.head.create_revision),
            spec: self.spec.clone(),
            is_stored: Box::new(move || view.borrow().index.remote().covers(begin, end)),
            abandon: self.abandon.clone(),
            stored: Box::new(stored),
        });
    }

    /// Publishes the index and the journal's end.
    pub(super) fn publish(&self) {
        self.publisher.send_replace(IndexView {
            index: Arc::clone(self.fragments.index()),
            first_listing_done: self.fragments.first_listing_done(),
            uploads: self.fragments.uploads().clone(),
            is_end_known: self.adoption.is_current(),
            head: self.head.clone(),
        });
    }

    /// Publishes the index without the fragments of these files, and takes the files' names. Whoever reads them still
    /// has them open.
    fn release(&self, files: Vec<LocalFile>) {
        self.publish();
        let current = self.latest_file.as_ref().map(|file| file.path().to_owned());
        let files: Vec<_> =
            files.into_iter().filter(|file| Some(file.path()) != current.as_deref()).collect();
        self.remove(files);
    }

    fn remove(&self, files: Vec<LocalFile>) {
        if files.is_empty() {
            return;
        }
        let disk = Arc::clone(&self.deps.disk);
        let remove = move || {
            for file in files {
                if let Err(err) = file.remove(&*disk) {
                    tracing::warn!(spool = %file.path().display(), error = %err, "failed to remove a spool");
                }
            }
        };
        // Nobody waits for it: a file that stays is found stored when it is adopted again.
        drop(self.deps.tasks.spawn_blocking("remove spools", remove));
    }

    /// Ends the replica: its current fragment completes, so that it is stored; or everything goes.
    async fn close(&mut self) {
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            self.on_message(message);
        }
        let Some((farewell, reply)) = self.farewell.take() else { return };
        self.end_following();
        self.drop_pipeline();
        if farewell == Farewell::Deleted {
            self.abandon.cancel();
            let current = self.latest_file.take();
            let files = self.fragments.index().locals().map(|local| local.file.clone());
            let held = self.confirmation.waiting().filter_map(|unconfirmed| unconfirmed.completed.as_ref());
            let held: Vec<_> = held.map(|spool| spool.file.clone()).collect();
            self.remove(files.chain(held).chain(current).collect());
        } else if let Some(writer) = self.writer.take()
            && self.head.is_some()
            && self.confirmation.is_empty()
        {
            // Otherwise it may hold what the others do not have, and is found again if it is needed.
            self.complete(writer).await;
        }
        // Nobody may wait for it any more.
        let _ = reply.send(());
    }

    /// Completes the current fragment.
    async fn complete(&mut self, mut writer: Writer) {
        let spool = writer.dir.spool();
        let (fragment, registers) = (spool.fragment(), spool.registers().clone());
        let empty = fragment::Fragment::empty(fragment.journal.clone(), fragment.end, fragment.codec);
        let now = self.deps.clock.unix_now();
        let roll = move || writer.dir.roll(&empty, &registers, now);
        match self.deps.tasks.spawn_blocking("complete spool", roll).await {
            Ok(completed) => completed.into_iter().for_each(|completed| self.on_completed(completed)),
            // It is as complete as a spool that its broker left by dying, and adopted like one.
            Err(err) => {
                tracing::warn!(journal = %self.place.head.journal, error = %err, "failed to complete the spool");
            }
        }
        self.publish();
    }
}

/// The outcome of a future that is under way; waits for ever if there is none.
pub(super) async fn finished<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(running) => {
            let outcome = running.await;
            *future = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

/// What peers answer: to the proposal of a synchronisation, or to groups; or how the stream of one ends that owes nothing.
async fn gathered(gather: &mut Gather, is_proposed: bool, owes_nothing: bool) -> Event {
    match (is_proposed, owes_nothing) {
        (true, _) => Event::Round(gather.round().await),
        (false, true) => Event::Broken(gather.broken().await),
        (false, false) => Event::Acknowledged(gather.acknowledged().await),
    }
}

/// What the stream that is followed brings; waits for ever if there is none.
async fn brought(following: &mut Option<Following>) -> Brought {
    match following {
        Some(following) => following.brought().await,
        None => std::future::pending().await,
    }
}

/// Waits for `time`; for ever if there is none.
async fn at(clock: &Clock, time: Option<Instant>) {
    match time {
        Some(time) => clock.sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Waits until a pipeline is to be renewed; for ever if it is not.
async fn renewal(clock: &Clock, renewal: &Option<(Duration, Header)>) {
    match renewal {
        Some((unix, _)) => clock.sleep_until_unix(*unix).await,
        None => std::future::pending().await,
    }
}

impl Job {
    /// Sends the outcome. An error means that the client has gone, which changes nothing.
    pub(super) fn answer(self, outcome: Outcome) {
        drop(self.reply.send(outcome));
    }
}
