//! The task that owns a replica.
//!
//! A loop over events: something finished (adoption, a write, a sync, a round of acknowledgements), or messages came.
//! After each event it starts whatever can be started, so that writes, syncs and acknowledgements of successive groups
//! overlap. There is at most one write and one sync at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use fragment::spool::RollPolicy;
use futures::FutureExt;
use futures::future::BoxFuture;
use proto::protocol::{JournalSpec, Route};
use runtime::backoff::Backoff;
use runtime::{BoxError, CancellationToken};
use tokio::sync::{mpsc, oneshot, watch};

use super::commit::{Answer, Settlement, Synced};
use super::fragments::{Epoch, Fragments};
use super::settle::Ledger;
use super::synchronise::SyncWish;
use super::view::{Head, IndexView};
use super::writer::{GroupResult, Writer};
use super::{AppendError, Farewell, Job, Message, Outcome, ReplicaDeps, Synchronised};
use crate::append::Terms;
use crate::pipeline::{Gather, PipelineError, Scatter};
use crate::spool::{Adopted, CompletedSpool, LocalFile, SpoolDir, SpoolError, SpoolPlace};

/// Messages that are taken off the inbox at a time, and appends that are queued before no more are taken.
const QUEUE_MAX: usize = 1024;

/// Work that is done where blocking is allowed.
pub(super) enum Worked {
    Adopted(Result<Adopted, SpoolError>),
    Written(Writer, GroupResult, Vec<Answer>),
}

enum Event {
    Stopped,
    Worked(Worked),
    Synced(Synced),
    Acknowledged(Result<(), PipelineError>),
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
    adoption_backoff: Backoff,
    pub(super) ledger: Ledger<Settlement>,
    pub(super) gather: Gather,
    /// The route that the pipeline is synchronised over.
    pub(super) route: Option<Arc<Route>>,
    pub(super) wish: Option<SyncWish>,
    /// The file of the current fragment, settled or not.
    pub(super) latest_file: Option<LocalFile>,
    farewell: Option<(Farewell, oneshot::Sender<()>)>,
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
}

impl Owner {
    pub(super) fn new(place: SpoolPlace, deps: ReplicaDeps, channels: Channels) -> Owner {
        let Channels { mut spec, publisher, inbox, own, epoch, stop } = channels;
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
            adoption_backoff: Backoff::journal(),
            ledger: Ledger::new(),
            gather: Gather::default(),
            route: None,
            wish: None,
            latest_file: None,
            farewell: None,
            stop,
            abandon: CancellationToken::new(),
        }
    }

    /// Runs until the replica is shut down, or its process stops.
    pub(super) async fn run(mut self) -> Result<(), BoxError> {
        let _stop_others = self.stop.clone().drop_guard();
        let mut batch = Vec::new();
        self.adopt();
        loop {
            self.advance();
            if self.is_idle() {
                if self.wants_synchronisation() {
                    self.synchronise().await;
                    continue;
                }
                if self.farewell.is_some() && self.work.is_none() {
                    self.close().await;
                    return Ok(());
                }
            }
            match self.next_event(&mut batch).await {
                Event::Stopped => return Ok(()),
                Event::Worked(Worked::Adopted(adopted)) => self.on_adopted(adopted),
                Event::Worked(Worked::Written(writer, result, answers)) => {
                    self.on_written(writer, result, answers)
                }
                Event::Synced(synced) => self.on_synced(synced),
                Event::Acknowledged(outcome) => self.on_acknowledged(outcome),
                Event::Received => batch.drain(..).for_each(|message| self.on_message(message)),
            }
        }
    }

    async fn next_event(&mut self, batch: &mut Vec<Message>) -> Event {
        let room = QUEUE_MAX.saturating_sub(self.queue.len());
        let stopped = self.deps.tasks.token().clone();
        tokio::select! {
            biased;
            () = stopped.cancelled() => Event::Stopped,
            worked = finished(&mut self.work) => Event::Worked(worked),
            synced = finished(&mut self.syncing) => Event::Synced(synced),
            outcome = self.gather.acknowledged(), if self.ledger.lacks_acknowledgement() => {
                Event::Acknowledged(outcome)
            }
            received = self.inbox.recv_many(batch, room), if room > 0 && self.farewell.is_none() => match received {
                // No handle of the replica is left, and none said farewell.
                0 => Event::Stopped,
                _ => Event::Received,
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Append(job) if self.farewell.is_some() => job.answer(Outcome::Resolve),
            Message::Append(job) => self.queue.push_back(job),
            Message::Synchronise { header, reply } => self.on_synchronise(header, reply),
            Message::Stored(fragment, file) => {
                let mut released = self.fragments.on_stored(fragment);
                released.push(file);
                self.release(released);
            }
            Message::Listed(listing) => {
                let released = self.fragments.on_listed(listing);
                self.release(released);
            }
            Message::Shutdown { farewell, reply } => {
                self.queue.drain(..).for_each(|job| job.answer(Outcome::Resolve));
                let replies = self.wish.take().into_iter().flat_map(|wish| wish.replies);
                replies.for_each(|reply| drop(reply.send(Ok(Synchronised::Closed))));
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

    fn adopt(&mut self) {
        let place = self.place.clone();
        let adopted = self.deps.tasks.spawn_blocking("adopt spools", || SpoolDir::adopt(place));
        self.work = Some(adopted.map(Worked::Adopted).boxed());
    }

    fn on_adopted(&mut self, adopted: Result<Adopted, SpoolError>) {
        let adopted = match adopted {
            Ok(adopted) => adopted,
            Err(err) => return self.retry_adoption(&Arc::new(err)),
        };
        for completed in adopted.completed {
            self.on_completed(completed);
        }
        let written = adopted.dir.written();
        self.latest_file = written.file.clone();
        self.writer = Some(Writer { dir: adopted.dir, scatter: Scatter::default() });
        self.enter_written(written);
        self.publish();
    }

    fn retry_adoption(&mut self, err: &Arc<SpoolError>) {
        tracing::error!(journal = %self.place.head.journal, error = %err, "failed to adopt spools (will retry)");
        let failed = || Outcome::Failed(AppendError::Write(Arc::clone(err)));
        self.queue.drain(..).for_each(|job| job.answer(failed()));
        if self.farewell.is_some() {
            return;
        }
        let (clock, wait, place) =
            (self.deps.clock.clone(), self.adoption_backoff.next(), self.place.clone());
        let tasks = self.deps.tasks.clone();
        let retry = async move {
            clock.sleep(wait).await;
            tasks.spawn_blocking("adopt spools", || SpoolDir::adopt(place)).await
        };
        self.work = Some(retry.map(Worked::Adopted).boxed());
    }

    /// A spool is complete: it stays in the index, and goes to its store.
    pub(super) fn on_completed(&mut self, spool: CompletedSpool) {
        self.deps.metrics.completed.inc();
        self.fragments.insert_local(spool.completed.fragment.clone(), spool.file.clone());
        let own = self.own.clone();
        let file = spool.file.clone();
        let stored = move |fragment| match own.upgrade() {
            Some(own) => own.try_send(Message::Stored(fragment, file)).is_ok(),
            None => false,
        };
        self.deps.persister.submit(spool, self.spec.clone(), self.abandon.clone(), Box::new(stored));
    }

    /// Publishes the index and the journal's end.
    pub(super) fn publish(&self) {
        self.publisher.send_replace(IndexView {
            index: Arc::clone(self.fragments.index()),
            first_listing_done: self.fragments.first_listing_done(),
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
        let Some((farewell, reply)) = self.farewell.take() else { return };
        self.inbox.close();
        while let Ok(message) = self.inbox.try_recv() {
            self.on_message(message);
        }
        if farewell == Farewell::Deleted {
            self.abandon.cancel();
            let current = self.latest_file.take();
            let files = self.fragments.index().locals().iter().map(|local| local.file.clone());
            self.remove(files.chain(current).collect());
        } else if let Some(writer) = self.writer.take() {
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
async fn finished<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(running) => {
            let outcome = running.await;
            *future = None;
            outcome
        }
        None => std::future::pending().await,
    }
}

impl Job {
    /// Sends the outcome. An error means that the client has gone, which changes nothing.
    pub(super) fn answer(self, outcome: Outcome) {
        drop(self.reply.send(outcome));
    }
}
