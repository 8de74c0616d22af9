//! A shard which this process runs: what its task, the service and the application share of it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use client::{AppendService, JournalClient};
use message::ClockSource;
use proto::consumer::replica_status::Code;
use proto::consumer::{GetHintsResponse, ReplicaStatus, ShardSpec};
use proto::{JournalName, MemberId};
use runtime::{CancellationToken, TaskGroup};
use tokio::sync::watch;

use super::local_set::Assigned;
use crate::Progress;
use crate::metrics::ShardMetrics;

/// How far a shard is in becoming available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Availability {
    /// The store was opened, in this or an earlier attempt to run the shard.
    pub was_ready: bool,
    /// The shard does not run: it failed, or it was given up.
    pub has_ended: bool,
}

/// What a replica reports of itself.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which attempt to run the shard reports. A new attempt replaces the reports of earlier ones.
    pub attempt: u64,
    /// The status.
    pub status: ReplicaStatus,
}

/// A [`crate::Store::Reader`], whatever its type.
pub type AnyReader = Arc<dyn Any + Send + Sync>;

/// State of one shard of this process, from its assignment until it is given up.
pub struct Core {
    /// The shard.
    pub id: Arc<str>,
    /// The etcd key of its specification.
    pub fqn: String,
    /// The specification, as of now.
    pub spec: watch::Sender<Arc<ShardSpec>>,
    /// The assignment, as of now.
    pub assigned: watch::Sender<Assigned>,
    /// Who was primary until this process became it, and is still there. Set before `assigned` says so.
    pub predecessor: OnceLock<MemberId>,
    /// Whether requests can be served.
    pub availability: watch::Sender<Availability>,
    /// How far it is.
    pub progress: watch::Sender<Arc<Progress>>,
    /// Reads the store, while it is open.
    pub reader: watch::Sender<Option<AnyReader>>,
    /// What is to be written to etcd.
    pub report: watch::Sender<Report>,
    /// Asks the shard to finish its transaction and end.
    pub cede: CancellationToken,
    /// Everything that runs for the shard.
    pub tasks: TaskGroup,
    /// Where it counts.
    pub metrics: ShardMetrics,
}

impl Core {
    /// A shard which begins to run.
    pub fn new(
        id: Arc<str>,
        fqn: String,
        spec: Arc<ShardSpec>,
        assigned: Assigned,
        tasks: TaskGroup,
        metrics: ShardMetrics,
    ) -> Core {
        metrics.status(None, Some(Code::Idle.as_str_name()));
        Core {
            id,
            fqn,
            spec: watch::Sender::new(spec),
            assigned: watch::Sender::new(assigned),
            predecessor: OnceLock::new(),
            availability: watch::Sender::default(),
            progress: watch::Sender::default(),
            reader: watch::Sender::default(),
            report: watch::Sender::new(Report { attempt: 0, status: ReplicaStatus::default() }),
            cede: CancellationToken::new(),
            tasks,
            metrics,
        }
    }

    /// The specification, as of now.
    pub fn spec(&self) -> Arc<ShardSpec> {
        Arc::clone(&self.spec.borrow())
    }

    /// Reports a status of an attempt, to be written to etcd, and shows it in the progress.
    pub fn report(&self, attempt: u64, status: ReplicaStatus) {
        let (was, now) = (self.progress.borrow().status, status.code());
        self.metrics.status(Some(was.as_str_name()), Some(now.as_str_name()));
        self.progress.send_modify(|progress| Arc::make_mut(progress).status = now);
        self.report.send_replace(Report { attempt, status });
    }

    /// The shard no longer runs here. Called once.
    pub fn ended(&self) {
        self.availability.send_modify(|availability| availability.has_ended = true);
        self.metrics.status(Some(self.progress.borrow().status.as_str_name()), None);
        self.metrics.ended();
    }

    /// Whether the shard is being given up.
    pub fn is_ceding(&self) -> bool {
        self.cede.is_cancelled() || self.tasks.token().is_cancelled()
    }
}

/// A shard, as its application sees it. Cheap to clone.
#[derive(Clone)]
pub struct Shard {
    pub(crate) inner: Arc<Attempt>,
}

/// One attempt to run a shard as its primary.
pub(crate) struct Attempt {
    pub core: Arc<Core>,
    pub appends: AppendService,
    pub clock: Arc<ClockSource>,
    pub recovered_hints: Option<GetHintsResponse>,
    pub tasks: TaskGroup,
}

impl Shard {
    /// The id of the shard.
    pub fn id(&self) -> &str {
        &self.inner.core.id
    }

    /// The full name: its key in etcd, which is unique among all applications that share an etcd.
    pub fn fqn(&self) -> &str {
        &self.inner.core.fqn
    }

    /// The specification, as of now. Its sources are those which are read since the shard last started.
    pub fn spec(&self) -> Arc<ShardSpec> {
        self.inner.core.spec()
    }

    /// The recovery log, if there is one.
    pub fn recovery_log(&self) -> Option<JournalName> {
        self.spec().recovery_log()
    }

    /// Appends to journals. Every append which is started during a transaction is waited for by its commit.
    pub fn appends(&self) -> &AppendService {
        &self.inner.appends
    }

    /// The client of brokers.
    pub fn client(&self) -> &JournalClient {
        self.inner.appends.client()
    }

    /// The clock by which messages of the shard are stamped. It stands still during a transaction, but for its ticks.
    pub fn clock(&self) -> &Arc<ClockSource> {
        &self.inner.clock
    }

    /// Tasks which the application runs for this shard. They are cancelled when the shard stops.
    pub fn tasks(&self) -> &TaskGroup {
        &self.inner.tasks
    }

    /// Cancelled when the shard stops.
    pub fn token(&self) -> &CancellationToken {
        self.inner.tasks.token()
    }

    /// How far the shard is; a new snapshot after each commit.
    pub fn progress(&self) -> watch::Receiver<Arc<Progress>> {
        self.inner.core.progress.subscribe()
    }

    /// The hints by which the shard was recovered; `None` without a recovery log.
    pub fn recovered_hints(&self) -> Option<&GetHintsResponse> {
        self.inner.recovered_hints.as_ref()
    }
}

impl std::fmt::Debug for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shard").field(&self.id()).finish()
    }
}
