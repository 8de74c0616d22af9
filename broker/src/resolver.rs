//! The resolver: finds who answers a request, and keeps the replicas of this broker's journals.
//!
//! One task follows the mirror. For each snapshot it starts, replaces, wakes and stops replicas as [`local_set`] says,
//! and then publishes the snapshot together with the replicas that belong to it. Requests are resolved against what was
//! published, so that a request which is to be answered here always finds its replica. A replica is replaced only after
//! the one before it has shut down, since both have the same spool files; requests wait for that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::future::OptionFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use keyspace::check_proxy_header;
use proto::protocol::{Header, LabelSelector, Status};
use proto::{JournalName, MemberId, Revision};
use runtime::{BoxError, CancellationToken, OnError, TaskGroup};
use tokio::sync::watch;

use crate::append::{AppendContext, AppendOptions};
use crate::key_space::{KeySpace, Mirror};
use crate::local_set::{self, Change, Wanted};
use crate::metrics::BrokerMetrics;
use crate::orphans::{Orphan, Orphans};
use crate::peers::Peers;
use crate::pulse;
use crate::replica::{Farewell, Replica, ReplicaDeps};
use crate::resolution::{self, Assigned, Decision, Facts, Item, Question, ResolveError};

/// Orphans that are stored at a time, while nothing else closes.
const ORPHANS_AT_ONCE_MAX: usize = 8;

/// What a request asks of [`Resolver::resolve`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ResolveArgs<'a> {
    /// The journal as requested; a metadata segment is ignored.
    pub journal: &'a str,
    /// Whether another process may answer.
    pub may_proxy: bool,
    /// Whether only the primary may answer.
    pub require_primary: bool,
    /// A revision of the key space that must have been read.
    pub min_revision: Revision,
    /// The header of a proxying broker.
    pub proxy_header: Option<&'a Header>,
    /// Which journals the request may see; `None` is every journal. Another one is as if it did not exist.
    pub visible: Option<&'a LabelSelector>,
}

/// How a request is to be answered.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// OK, or why the request cannot go on.
    pub status: Status,
    /// Header of the answer, or of the proxied request.
    pub header: Header,
    /// Whether this process answers.
    pub is_local: bool,
    /// The journal, unless its name cannot be that of a served one.
    pub journal: Option<JournalName>,
    /// The journal's item, if it exists.
    pub item: Option<Item>,
    /// The journal's assignments, in key order.
    pub assignments: Vec<Assigned>,
    /// This broker's replica. Always there if the status is OK and this process answers.
    pub replica: Option<Replica>,
    /// Fires when assignments or stores of the journal change: the request then resolves anew. Never fires for a journal
    /// without a replica here.
    pub invalidated: CancellationToken,
    /// Fires when the replica is being shut down.
    pub stopped: CancellationToken,
}

/// Resolves requests. Cheap to clone; clones share the replicas.
#[derive(Clone)]
pub struct Resolver {
    inner: Arc<Inner>,
}

struct Inner {
    me: MemberId,
    mirror: Mirror,
    peers: Peers,
    published: watch::Receiver<Published>,
    /// Asks the driver to stop all replicas for good.
    stop: CancellationToken,
}

/// A key space and the replicas which belong to it.
#[derive(Clone)]
struct Published {
    key_space: Arc<KeySpace>,
    replicas: imbl::OrdMap<JournalName, Local>,
    /// Replicas are no longer served.
    stopped: bool,
}

/// An assigned journal.
#[derive(Clone)]
struct Local {
    /// `None` while the replica before it shuts down.
    replica: Option<Replica>,
    invalidated: CancellationToken,
    stopped: CancellationToken,
}

impl Resolver {
    /// Begins to follow `mirror` in tasks of `tasks`, on behalf of member `me`. `peers` are asked what others answer.
    pub fn start(
        me: MemberId,
        mirror: Mirror,
        deps: ReplicaDeps,
        options: AppendOptions,
        metrics: BrokerMetrics,
        peers: Peers,
        tasks: &TaskGroup,
    ) -> Resolver {
        let empty = Published { key_space: mirror.snapshot(), replicas: imbl::OrdMap::new(), stopped: false };
        let (publisher, published) = watch::channel(empty);
        let stop = CancellationToken::new();
        let inner = Inner { me: me.clone(), mirror: mirror.clone(), peers, published, stop: stop.clone() };
        let resolver = Resolver { inner: Arc::new(inner) };
        let driver = Driver {
            me,
            append: AppendContext::new(resolver.clone(), deps.clone(), options),
            deps,
            metrics,
            tasks: tasks.clone(),
            publisher,
            wanted: BTreeMap::new(),
            replicas: imbl::OrdMap::new(),
            closing: FuturesUnordered::new(),
            orphans: Orphans::default(),
            releases: VecDeque::new(),
            stopped: false,
        };
        tasks.spawn("resolver", OnError::CancelGroup, driver.run(mirror, stop, tasks.token().clone()));
        resolver
    }

    /// Resolves a request, waiting for the revision it asks for. Dropping the future abandons it.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, args: ResolveArgs<'_>) -> Result<Resolution, ResolveError> {
        let journal = JournalName::split_meta(args.journal).ok().map(|(journal, _)| journal);
        let mut revision = args.min_revision;
        if let Some(header) = args.proxy_header {
            let key_space = self.key_space();
            let local = key_space.local_id(&self.inner.me, resolution::MISSING_ZONE);
            check_proxy_header(header, key_space.header(), &local)?;
            revision = revision.max(header.revision());
        }
        self.wait_for(revision).await?;
        let question = Question { may_proxy: args.may_proxy, require_primary: args.require_primary };
        let mut published = self.inner.published.clone();
        loop {
            let current = published.borrow_and_update().clone();
            let journal = journal.as_ref().filter(|journal| {
                args.visible
                    .is_none_or(|visible| resolution::is_visible(&current.key_space, visible, journal))
            });
            let facts = Facts::gather(&current.key_space, &self.inner.me, journal);
            let decision = resolution::decide(facts, question);
            let local = journal.and_then(|journal| current.replicas.get(journal));
            if decision.is_local && current.stopped {
                return Err(ResolveError::Stopped);
            }
            let is_awaited = decision.status == Status::Ok && decision.is_local;
            if is_awaited && local.is_none_or(|local| local.replica.is_none()) {
                published.changed().await.map_err(|_| ResolveError::MirrorStopped)?;
                continue;
            }
            return Ok(resolution_of(decision, journal.cloned(), local));
        }
    }

    /// Waits until requests are resolved with what etcd held at `revision`.
    ///
    /// # Errors
    /// If the mirror has stopped.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), ResolveError> {
        let mut published = self.inner.published.clone();
        if published.borrow().key_space.revision() >= revision {
            return Ok(());
        }
        let seen =
            self.inner.mirror.wait_for(revision).await.map_err(|_| ResolveError::MirrorStopped)?.revision();
        let is_seen = |p: &Published| p.key_space.revision() >= seen;
        published.wait_for(is_seen).await.map_err(|_| ResolveError::MirrorStopped)?;
        Ok(())
    }

    /// The key space that requests are resolved with.
    pub fn key_space(&self) -> Arc<KeySpace> {
        Arc::clone(&self.inner.published.borrow().key_space)
    }

    /// Follows the key spaces that etcd went through, which requests are resolved with soon after.
    pub fn subscribe(&self) -> watch::Receiver<Arc<KeySpace>> {
        self.inner.mirror.subscribe()
    }

    /// The mirror, with the etcd client and the keys.
    pub fn mirror(&self) -> &Mirror {
        &self.inner.mirror
    }

    /// The id of this broker.
    pub fn me(&self) -> &MemberId {
        &self.inner.me
    }

    /// Connections to other brokers.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// The header of answers which concern no particular journal.
    pub fn unrouted_header(&self) -> Header {
        self.key_space().unrouted_header(&self.inner.me)
    }

    /// The replicas that are served.
    pub fn local_replicas(&self) -> Vec<Replica> {
        self.inner.published.borrow().replicas.values().filter_map(|local| local.replica.clone()).collect()
    }

    /// Whether there is a replica of the journal.
    pub fn serves(&self, journal: &str) -> bool {
        let published = self.inner.published.borrow();
        published.replicas.get(journal).is_some_and(|local| local.replica.is_some())
    }

    /// Stops serving local replicas, and waits until all have shut down. Requests that others answer are proxied still.
    pub async fn stop_serving(&self) {
        self.inner.stop.cancel();
        let mut published = self.inner.published.clone();
        // The driver is gone if its group was cancelled; it then has stopped them too.
        drop(published.wait_for(|p| p.stopped && p.replicas.is_empty()).await);
    }
}

fn resolution_of(decision: Decision, journal: Option<JournalName>, local: Option<&Local>) -> Resolution {
    let Decision { status, header, is_local, item, assignments } = decision;
    let token = |of: fn(&Local) -> &CancellationToken| local.map(of).cloned().unwrap_or_default();
    Resolution {
        status,
        header,
        is_local,
        journal,
        item,
        assignments,
        replica: local.and_then(|local| local.replica.clone()),
        invalidated: token(|local| &local.invalidated),
        stopped: token(|local| &local.stopped),
    }
}

/// The task that owns the replicas.
struct Driver {
    me: MemberId,
    deps: ReplicaDeps,
    metrics: BrokerMetrics,
    tasks: TaskGroup,
    /// What the pulses append with.
    append: AppendContext,
    publisher: watch::Sender<Published>,
    wanted: BTreeMap<JournalName, Wanted>,
    replicas: imbl::OrdMap<JournalName, Local>,
    /// Replicas that are shutting down.
    closing: FuturesUnordered<futures::future::BoxFuture<'static, JournalName>>,
    orphans: Orphans,
    /// Those whose turn has not come.
    releases: VecDeque<Orphan>,
    /// No replica is started any more.
    stopped: bool,
}

impl Driver {
    async fn run(
        mut self,
        mirror: Mirror,
        stop: CancellationToken,
        gone: CancellationToken,
    ) -> Result<(), BoxError> {
        let mut snapshots = mirror.subscribe();
        let deps = self.deps.clone();
        let mut finding = Some(async move { Orphans::find(&deps).await }.boxed());
        loop {
            tokio::select! {
                biased;
                () = gone.cancelled() => break,
                () = stop.cancelled(), if !self.stopped => self.stop_all(),
                Some(journal) = self.closing.next() => self.on_closed(&journal),
                found = OptionFuture::from(finding.as_mut()), if finding.is_some() => {
                    finding = None;
                    self.on_found(found.unwrap_or_default());
                }
                changed = snapshots.changed() => match changed {
                    Ok(()) => {
                        let key_space = Arc::clone(&snapshots.borrow_and_update());
                        self.on_key_space(key_space);
                    }
                    // The mirror has failed its own group, which says why.
                    Err(_) => break,
                },
            }
        }
        self.stop_all();
        while let Some(journal) = self.closing.next().await {
            self.on_closed(&journal);
        }
        Ok(())
    }

    fn on_found(&mut self, orphans: Orphans) {
        self.orphans = orphans;
        self.replicas.keys().for_each(|journal| self.orphans.adopted(journal));
        let key_space = Arc::clone(&self.publisher.borrow().key_space);
        self.releases.extend(self.orphans.take_served_elsewhere(&key_space, &self.me));
        self.release_orphans();
    }

    fn on_key_space(&mut self, key_space: Arc<KeySpace>) {
        if self.stopped {
            self.publisher.send_modify(|published| published.key_space = key_space);
            return;
        }
        let wanted = local_set::wanted(&key_space, &self.me);
        let changes = local_set::changes(&self.wanted, &wanted);
        let before = std::mem::replace(&mut self.wanted, wanted);
        for (journal, change) in changes {
            let item = key_space.items().get(journal.as_arc());
            let farewell = match before.get(&journal) {
                Some(was) if item.is_none_or(|item| item.create_revision != was.create_revision) => {
                    Farewell::Deleted
                }
                _ => Farewell::Handover,
            };
            self.apply(journal, change, farewell);
        }
        self.releases.extend(self.orphans.take_served_elsewhere(&key_space, &self.me));
        self.release_orphans();
        self.publisher.send_modify(|published| {
            published.key_space = key_space;
            published.replicas = self.replicas.clone();
        });
    }

    fn apply(&mut self, journal: JournalName, change: Change, farewell: Farewell) {
        match change {
            // A replica of an earlier assignment may still be shutting down; it is followed by this one then.
            Change::Start if self.replicas.contains_key(&journal) => {}
            Change::Start => self.start(journal),
            Change::Replace | Change::Stop => self.close(&journal, farewell),
            Change::Invalidate => {
                self.update(&journal);
                if let Some(local) = self.replicas.get_mut(&journal) {
                    local.invalidated.cancel();
                    local.invalidated = CancellationToken::new();
                }
            }
            Change::Update => self.update(&journal),
        }
    }

    /// Stores what earlier processes held, a few journals at a time. A journal of which it does so has an entry without a
    /// replica: one that is started must find the spools to itself.
    fn release_orphans(&mut self) {
        while self.closing.len() < ORPHANS_AT_ONCE_MAX
            && let Some(orphan) = self.releases.pop_front()
        {
            let journal = orphan.journal.clone();
            if self.replicas.contains_key(&journal) {
                continue;
            }
            let (invalidated, stopped) = (CancellationToken::new(), CancellationToken::new());
            self.replicas.insert(journal.clone(), Local { replica: None, invalidated, stopped });
            let deps = self.deps.clone();
            self.closing.push(async move { orphan.release(&deps).await }.map(move |()| journal).boxed());
        }
    }

    fn update(&self, journal: &JournalName) {
        let replica = self.replicas.get(journal).and_then(|local| local.replica.as_ref());
        if let (Some(replica), Some(wanted)) = (replica, self.wanted.get(journal)) {
            replica.update_spec(Arc::clone(&wanted.spec));
        }
    }

    fn start(&mut self, journal: JournalName) {
        let Some(wanted) = self.wanted.get(&journal) else { return };
        tracing::info!(%journal, "starting local journal replica");
        self.orphans.adopted(&journal);
        let replica = Replica::start(
            journal.clone(),
            wanted.create_revision,
            Arc::clone(&wanted.spec),
            self.deps.clone(),
        );
        let local = Local {
            replica: Some(replica),
            invalidated: CancellationToken::new(),
            stopped: CancellationToken::new(),
        };
        let pulse = pulse::run(self.append.clone(), journal.clone(), local.stopped.clone());
        self.tasks.spawn("pulse", OnError::Log, pulse.map(Ok));
        self.replicas.insert(journal, local);
    }

    /// Begins to shut a replica down. Its entry stays, without the replica, until that is done.
    fn close(&mut self, journal: &JournalName, farewell: Farewell) {
        let Some(local) = self.replicas.get_mut(journal) else { return };
        local.stopped.cancel();
        local.invalidated.cancel();
        let Some(replica) = local.replica.take() else { return };
        tracing::info!(%journal, "stopping local journal replica");
        let journal = journal.clone();
        self.closing.push(replica.shutdown(farewell).map(move |()| journal).boxed());
    }

    fn on_closed(&mut self, journal: &JournalName) {
        self.replicas.remove(journal);
        self.metrics.forget(journal);
        self.start(journal.clone());
        self.release_orphans();
        self.publisher.send_modify(|published| published.replicas = self.replicas.clone());
    }

    /// Begins to shut all replicas down.
    fn stop_all(&mut self) {
        self.stopped = true;
        self.wanted.clear();
        self.releases.clear();
        let journals: Vec<JournalName> = self.replicas.keys().cloned().collect();
        for journal in &journals {
            self.close(journal, Farewell::Handover);
        }
        self.publisher.send_modify(|published| {
            published.replicas = self.replicas.clone();
            published.stopped = true;
        });
    }
}
