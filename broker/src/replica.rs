//! A journal replica: the spool, the index and the queue of one journal that is assigned to this broker.
//!
//! One *owner* task holds everything that changes: the spool with its files, the queue of complete appends, the
//! pipeline, and the index. Others send it messages, and read what it publishes ([`Replica::index`]). The owner takes
//! queued appends in groups: a group is judged and placed by a pure function, written to the pipeline and to the spool's
//! file, made durable, acknowledged by all replicas, published, and only then answered. While one group waits for its
//! sync and its acknowledgements the next one is written.
//!
//! An owner leads or follows. It leads while it has a pipeline, and follows while the stream of another primary has its
//! spool; which of them is wanted is up to the route, and the newer one wins.
//!
//! A group whose write fails is answered with the error and leaves no byte; the next one starts afresh, so that a full
//! disk fails appends only for as long as it is full. A group whose sync or acknowledgement fails has an unknown outcome: its bytes
//! stay in the spool, and are part of the journal once the replicas agree on it again. After a failed sync the spool moves to a new file, since the kernel may have forgotten which of the old one's pages are
//! not on disk.

mod adoption;
mod commit;
mod confirm;
mod follow;
mod follower;
mod fragments;
mod metrics;
mod owner;
mod refresh;
mod settle;
mod synchronise;
mod view;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fragment::index::Index;
use fragment::spool::Head as SpoolHead;
use fragment::{Codec, Fragment};
use proto::protocol::{Header, JournalSpec, LabelSet, Status};
use proto::{JournalName, Revision};
use runtime::{CancellationToken, Clock, Entropy, Instant, Metrics, OnError, TaskGroup};
use stores::Stores;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;

use crate::append::{APPENDS_IN_FLIGHT_BYTES_MAX, Content, ContentSpace, Place, Transition, Wants};
use crate::error::ServiceError;
use crate::flow::Bucket;
use crate::listings::{Listings, NamesSource};
use crate::persist::{Persister, PersisterParts, SpecOf};
use crate::pipeline::{PeerConnector, PipelineError};
use crate::spool::{Durability, LocalFile, SpoolDisk, SpoolError, SpoolPlace};
use crate::sync_mark::SyncMarks;
use fragments::Listing;
use owner::{Channels, Owner};
use refresh::{Problem, Refresh};

pub(crate) use follow::Follow;
pub(crate) use fragments::Epoch;
pub(crate) use metrics::{Held, ReplicaMetrics};
pub(crate) use refresh::rule::Keys;
pub(crate) use view::Head;
pub use view::IndexView;

/// Messages to an owner that may wait. The content of appends among them is bounded by
/// [`APPENDS_IN_FLIGHT_BYTES_MAX`].
const MESSAGES_MAX: usize = 1024;

/// What the replicas of a broker share. Cheap to clone.
#[derive(Clone)]
pub struct ReplicaDeps {
    /// Time.
    pub clock: Clock,
    /// Randomness, for jitter.
    pub entropy: Entropy,
    /// The group of all replicas' tasks.
    pub tasks: TaskGroup,
    /// Fragment stores.
    pub stores: Stores,
    /// Uploads completed fragments.
    pub persister: Persister,
    /// Listings of directories, for the journals in them.
    pub(crate) listings: Listings,
    /// Where the content of appends is gathered.
    pub(crate) content: ContentSpace,
    /// The file system of spools.
    pub disk: Arc<dyn SpoolDisk>,
    /// The broker's data directory, which this process has locked.
    pub data_dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Opens pipelines to other brokers.
    pub connector: Arc<dyn PeerConnector>,
    /// Tells whether others have gone on without this broker.
    pub marks: Arc<dyn SyncMarks>,
    /// Of the etcd whose revisions spools remember.
    pub incarnation: u64,
    /// Whether this process still is the member that journals are assigned to: its lease has not expired.
    pub is_member: Arc<dyn Fn() -> bool + Send + Sync>,
    pub(crate) metrics: ReplicaMetrics,
}

/// The parts of [`ReplicaDeps`] that its owner chooses.
pub struct ReplicaParts {
    /// Time.
    pub clock: Clock,
    /// Randomness, for jitter.
    pub entropy: Entropy,
    /// The group of all replicas' tasks. Uploads run in a child of it.
    pub tasks: TaskGroup,
    /// Fragment stores.
    pub stores: Stores,
    /// Where to count.
    pub metrics: Metrics,
    /// The file system of spools.
    pub disk: Arc<dyn SpoolDisk>,
    /// The broker's data directory, which this process has locked.
    pub data_dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Opens pipelines to other brokers.
    pub connector: Arc<dyn PeerConnector>,
    /// Tells whether others have gone on without this broker.
    pub marks: Arc<dyn SyncMarks>,
    /// Of the etcd whose revisions spools remember.
    pub incarnation: u64,
    /// Whether this process still is the member that journals are assigned to: its lease has not expired.
    pub is_member: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The names of all journals.
    pub names: NamesSource,
    /// Specifications, for fragments whose replica has left.
    pub spec_of: SpecOf,
    /// Time for a primary to store a fragment before other replicas do.
    pub replica_upload: Duration,
}

impl ReplicaDeps {
    /// What the replicas of one broker share.
    pub fn new(parts: ReplicaParts) -> ReplicaDeps {
        let ReplicaParts {
            clock,
            entropy,
            tasks,
            stores,
            metrics,
            disk,
            data_dir,
            durability,
            connector,
            marks,
            incarnation,
            is_member,
            names,
            spec_of,
            replica_upload,
        } = parts;
        let content = ContentSpace::new(Arc::clone(&disk), &data_dir, APPENDS_IN_FLIGHT_BYTES_MAX);
        let metrics = ReplicaMetrics::new(&metrics);
        let persister = Persister::new(PersisterParts {
            clock: clock.clone(),
            entropy: entropy.clone(),
            tasks: tasks.clone(),
            stores: stores.clone(),
            disk: Arc::clone(&disk),
            spec_of,
            replica_upload,
            metrics: metrics.clone(),
        });
        let listings = Listings::new(clock.clone(), tasks.clone(), stores.clone(), names);
        ReplicaDeps {
            clock,
            entropy,
            tasks,
            stores,
            persister,
            listings,
            content,
            disk,
            data_dir,
            durability,
            connector,
            marks,
            incarnation,
            is_member,
            metrics,
        }
    }
}

/// Why a replica is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The journal is served elsewhere, or again by the next process. What is not stored yet is uploaded, and stays on
    /// disk until it is.
    Handover,
    /// The journal is no more: its local content is removed.
    Deleted,
}

/// A journal replica of this broker. Clones are the same replica.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    journal: JournalName,
    messages: mpsc::Sender<Message>,
    spec: watch::Sender<Arc<JournalSpec>>,
    view: watch::Receiver<IndexView>,
    bucket: Mutex<Bucket>,
    started_at: Instant,
    /// Wakes the task which lists the stores.
    wanted: Arc<refresh::Wanted>,
    /// Why the stores cannot be listed.
    listing_problem: Problem,
    /// Etcd has the mark of this or an older synchronisation over the same route: a revision, zero if there is none.
    marked: Arc<AtomicI64>,
}

/// An append that is complete, in the queue.
pub(crate) struct Job {
    /// Revision of the resolution which found that the journal takes appends. A pipeline over a newer route may not have been
    /// found so yet.
    pub(crate) admitted: Revision,
    /// Its preconditions.
    pub(crate) wants: Wants,
    /// Labels to add to the registers.
    pub(crate) union_registers: Option<LabelSet>,
    /// Labels to take from the registers first.
    pub(crate) subtract_registers: Option<LabelSet>,
    /// Whether it completes a suspension: the spool rolls, so that its content is stored.
    pub(crate) roll_at_end: bool,
    /// Its content, whole.
    pub(crate) content: Arc<Content>,
    /// The request that it came by.
    pub(crate) span: Span,
    /// Where the outcome goes.
    pub(crate) reply: oneshot::Sender<Outcome>,
}

/// What became of an append.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Every replica has committed it.
    Committed(Place, Codec),
    /// It has no effect, and is answered with this status.
    Refused(Status, Arc<LabelSet>),
    /// It has no effect yet: the journal's suspension must change first.
    Suspend(Transition),
    /// It has no effect yet: it is to be resolved again.
    Resolve,
    /// It failed.
    Failed(AppendError),
}

/// Why an append failed.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// It could not be written, and has no effect.
    #[error("{0}")]
    Write(Arc<SpoolError>),
    /// It was written but could not be synced to the disk, which leaves its outcome unknown.
    #[error("{0}")]
    Sync(Arc<SpoolError>),
    /// A peer failed, which leaves its outcome unknown.
    #[error("{0}")]
    Pipeline(PipelineError),
    /// This broker's lease ended before the append was answered, which leaves its outcome unknown.
    #[error("the broker's etcd lease expired before the append was acknowledged")]
    Expired,
    /// Whether others have gone on without this replica could not be found out. It has no effect.
    #[error("{0}")]
    Unknowable(Arc<str>),
    /// The registers that it would leave are larger than spools can keep. It has no effect.
    #[error("registers of {0} bytes are too large (expected at most {max})", max = fragment::spool::REGISTERS_BYTES_MAX)]
    Registers(usize),
    /// It would end beyond the largest offset. It has no effect.
    #[error("the journal ends at offset {0}, and an append of this length would end beyond {max}", max = i64::MAX)]
    OffsetsExhausted(i64),
    /// The replica was torn down with the append in its queue.
    #[error("the replica stopped before the append was settled")]
    Stopped,
}

/// What a synchronisation of the pipeline came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Synchronised {
    /// All replicas agree.
    Ready,
    /// A peer, or this replica, knows of a newer route.
    ReadThrough(Revision),
    /// The replica is being shut down.
    Closed,
}

/// What others ask of the owner. A channel keeps room for 32 messages, of which an idle replica has none: what is large is
/// boxed.
enum Message {
    Append(Box<Job>),
    Synchronise { header: Box<Header>, reply: oneshot::Sender<Result<Synchronised, AppendError>> },
    Follow(Box<Follow>),
    Stored(Box<Fragment>, LocalFile),
    Listed(Box<Listing>),
    Shutdown { farewell: Farewell, reply: oneshot::Sender<()> },
}

impl Replica {
    /// Starts the replica of `journal`, whose item was created at `create_revision`. It adopts the spools that it finds; no
    /// other replica of the journal may be running in this process.
    pub fn start(
        journal: JournalName,
        create_revision: Revision,
        spec: Arc<JournalSpec>,
        deps: ReplicaDeps,
    ) -> Replica {
        let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
        let spec = watch::Sender::new(spec);
        let index = Arc::new(Index::new(journal.clone()));
        let (publisher, view) = watch::channel(IndexView::of(index));
        let head = SpoolHead {
            journal: journal.clone(),
            incarnation: deps.incarnation,
            create_revision: create_revision.0,
        };
        let place = SpoolPlace::new(Arc::clone(&deps.disk), &deps.data_dir, deps.durability, head);
        let stop = CancellationToken::new();
        let own = messages.downgrade();
        let epoch = Epoch::default();
        let wanted = Arc::new(refresh::Wanted::default());
        let listing_problem = Problem::default();
        let refresh = Refresh {
            journal: journal.clone(),
            spec: spec.subscribe(),
            owner: own.clone(),
            view: view.clone(),
            epoch: epoch.clone(),
            stop: stop.clone(),
            wanted: Arc::clone(&wanted),
            problem: listing_problem.clone(),
        };
        deps.tasks.spawn("refresh", OnError::Log, refresh.run(deps.clone()));
        let marked = Arc::new(AtomicI64::new(0));
        let channels =
            Channels { spec: spec.subscribe(), publisher, inbox, own, epoch, stop, marked: marked.clone() };
        deps.tasks.spawn("replica", OnError::Log, Box::new(Owner::new(place, deps.clone(), channels)).run());
        let started_at = deps.clock.now();
        let bucket = Mutex::default();
        let inner =
            Inner { journal, messages, spec, view, bucket, started_at, wanted, listing_problem, marked };
        Replica { inner: Arc::new(inner) }
    }

    /// The journal.
    pub fn journal(&self) -> &JournalName {
        &self.inner.journal
    }

    /// Takes a newer specification of the journal. What it changes takes effect with the next append or pulse.
    pub fn update_spec(&self, spec: Arc<JournalSpec>) {
        self.inner.spec.send_replace(spec);
    }

    /// What the replica publishes. It changes with every settled group of appends and every change of the fragments.
    pub fn index(&self) -> watch::Receiver<IndexView> {
        self.inner.view.clone()
    }

    /// Asks for the stores to be listed soon, since they may have content which this replica lacks.
    pub(crate) fn want_listing(&self) {
        self.inner.wanted.ask(false);
    }

    /// Asks for the stores to be listed soon and from the beginning, since they lack content which they are thought to have.
    pub(crate) fn want_full_listing(&self) {
        self.inner.wanted.ask(true);
    }

    /// The URLs of the journal's stores.
    pub(crate) fn stores(&self) -> Vec<String> {
        self.inner.spec.borrow().fragment().stores.clone()
    }

    /// The error of requests which would have to know what the stores of the journal hold.
    pub(crate) fn not_listed(&self) -> ServiceError {
        let problem = self.inner.listing_problem.current();
        ServiceError::NotListed { journal: self.inner.journal.clone(), problem }
    }

    /// Takes no more appends, settles the ones under way, completes the current fragment, and ends the owner. The uploads
    /// of completed fragments go on in the persister.
    pub async fn shutdown(self, farewell: Farewell) {
        let (reply, done) = oneshot::channel();
        if self.inner.messages.send(Message::Shutdown { farewell, reply }).await.is_ok() {
            // An error means that the owner has gone another way.
            drop(done.await);
        }
    }

    /// Whether etcd is known to have the synchronisation mark of the replicas that agreed at `synced_at`. They may acknowledge
    /// nothing before.
    pub(crate) fn is_marked(&self, synced_at: Revision) -> bool {
        self.inner.marked.load(Ordering::Relaxed) >= synced_at.0
    }

    /// Etcd has got the mark of the replicas that agreed at `synced_at`.
    pub(crate) fn set_marked(&self, synced_at: Revision) {
        self.inner.marked.fetch_max(synced_at.0, Ordering::Relaxed);
    }

    /// The mark that etcd has is one of other replicas than those of the route which is to be published.
    pub(crate) fn route_changes(&self) {
        self.inner.marked.store(0, Ordering::Relaxed);
    }

    /// Credit of the journal's flow control.
    pub(crate) fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.inner.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the replica started, which is the time of its flow control.
    pub(crate) fn age(&self, clock: &Clock) -> Duration {
        clock.now().duration_since(self.inner.started_at)
    }

    /// Queues a complete append, and waits for its outcome. Once this was called the append may take effect, even if the
    /// future is dropped.
    pub(crate) async fn append(&self, job: Job, outcome: oneshot::Receiver<Outcome>) -> Outcome {
        match self.inner.messages.send(Message::Append(Box::new(job))).await {
            Ok(()) => outcome.await.unwrap_or(Outcome::Failed(AppendError::Stopped)),
            Err(_) => Outcome::Resolve,
        }
    }

    /// Makes the pipeline one over the route of `header`, which names this broker, unless it is that already.
    pub(crate) async fn synchronise(&self, header: Header) -> Result<Synchronised, AppendError> {
        let (reply, outcome) = oneshot::channel();
        if self.inner.messages.send(Message::Synchronise { header: Box::new(header), reply }).await.is_err() {
            return Ok(Synchronised::Closed);
        }
        outcome.await.unwrap_or(Ok(Synchronised::Closed))
    }

    /// Lets a primary's stream have the spool once no other has it. Dropping the receiver takes that back, until it is told.
    pub(crate) async fn follow(&self, follow: Follow) {
        // An error means that the replica has ended, which drops what waits.
        drop(self.inner.messages.send(Message::Follow(Box::new(follow))).await);
    }
}

const _: () = assert!(size_of::<Message>() <= 64, "a channel keeps room for 32 messages");

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("journal", &self.inner.journal).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
