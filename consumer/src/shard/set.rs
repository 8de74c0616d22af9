//! The shards of this process: one task follows the mirror, and starts, promotes, replaces and gives up shards.
//!
//! Each snapshot of etcd is published together with the shards that belong to it, so that a request which is to be
//! answered here always finds its shard. A shard which is given up finishes its transaction by itself, and then says in
//! its recovery log that it has: whoever takes over waits for that, but not for long.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::MemberId;
use runtime::{BoxError, CancellationToken, OnError, TaskGroup};
use tokio::sync::watch;

use super::core::Core;
use super::held::{self, Held};
use super::local_set::{self, Assigned, Change};
use super::process::SharedProcess;
use super::{reporter, task};
use crate::Application;
use crate::schema::KeySpace;

/// A snapshot of etcd, and the shards which run because of it.
#[derive(Clone)]
pub struct View {
    /// The snapshot.
    pub key_space: Arc<KeySpace>,
    /// By shard id.
    pub shards: imbl::OrdMap<Arc<str>, Arc<Core>>,
    /// Shards are no longer served here.
    pub has_stopped: bool,
}

/// The newest view. Cheap to clone.
#[derive(Clone)]
pub struct ShardSet {
    view: watch::Receiver<Arc<View>>,
    stop: CancellationToken,
    tasks: TaskGroup,
}

impl ShardSet {
    /// Begins to follow the mirror. Shards run in a group below `tasks`.
    pub fn start<A: Application>(process: SharedProcess<A>, tasks: &TaskGroup) -> ShardSet {
        let key_space = process.mirror.snapshot();
        let empty = View { key_space, shards: imbl::OrdMap::new(), has_stopped: false };
        let (publisher, view) = watch::channel(Arc::new(empty));
        let stop = CancellationToken::new();
        let shards = tasks.child("shards");
        let driver = Driver { process, tasks: shards.clone(), publisher, running: BTreeMap::new() };
        tasks.spawn("shard set", OnError::CancelGroup, driver.run(stop.clone()));
        ShardSet { view, stop, tasks: shards }
    }

    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Follows the views.
    pub fn subscribe(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Gives all shards up: they finish their transactions and close. Waits until they have.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut view = self.view.clone();
        // The driver is gone if its group was cancelled; the shards then were too.
        drop(view.wait_for(|view| view.has_stopped).await);
        if let Err(error) = self.tasks.join().await {
            tracing::debug!(%error, "a shard ended with an error");
        }
    }
}

struct Driver<A> {
    process: SharedProcess<A>,
    tasks: TaskGroup,
    publisher: watch::Sender<Arc<View>>,
    running: BTreeMap<Arc<str>, Arc<Core>>,
}

impl<A: Application> Driver<A> {
    async fn run(mut self, stop: CancellationToken) -> Result<(), BoxError> {
        let mut spaces = self.process.mirror.subscribe();
        let token = self.tasks.token().clone();
        loop {
            let changed = tokio::select! {
                biased;
                () = token.cancelled() => break,
                () = stop.cancelled() => break,
                changed = spaces.changed() => changed,
            };
            if changed.is_err() {
                return Err(self.process.mirror.why_stopped().to_string().into());
            }
            let key_space = Arc::clone(&spaces.borrow_and_update());
            self.converge(&key_space);
            self.publish(key_space, false);
        }
        for core in std::mem::take(&mut self.running).into_values() {
            core.cede.cancel();
        }
        let key_space = self.process.mirror.snapshot();
        self.publish(key_space, true);
        Ok(())
    }

    fn publish(&self, key_space: Arc<KeySpace>, has_stopped: bool) {
        let shards = self.running.iter().map(|(id, core)| (Arc::clone(id), Arc::clone(core))).collect();
        self.publisher.send_replace(Arc::new(View { key_space, shards, has_stopped }));
    }

    fn converge(&mut self, key_space: &KeySpace) {
        let running =
            self.running.iter().map(|(id, core)| (Arc::clone(id), *core.assigned.borrow())).collect();
        for (id, change) in local_set::changes(&running, &assigned(key_space, &self.process.me)) {
            match change {
                Change::Start(at) => self.start(key_space, id, at),
                Change::Replace(at) => {
                    self.give_up(&id);
                    self.start(key_space, id, at);
                }
                Change::Promote(at) => {
                    self.refresh(key_space, &id);
                    tracing::info!(shard = %id, slot = at.slot, "the shard moves to a lower slot");
                    let core = &self.running[&id];
                    self.note_predecessor(key_space, core, at);
                    core.assigned.send_replace(at);
                }
                Change::Refresh => self.refresh(key_space, &id),
                Change::Stop => self.give_up(&id),
            }
        }
    }

    fn start(&mut self, key_space: &KeySpace, id: Arc<str>, at: Assigned) {
        let Some(item) = key_space.items().get(&id) else { return };
        tracing::info!(shard = %id, slot = at.slot, "starting the shard");
        let fqn = self.process.mirror.item_key(&id);
        let metrics = self.process.metrics.shard(&id, &fqn);
        let tasks = self.tasks.child(&id);
        let core = Core::new(Arc::clone(&id), fqn, Arc::clone(&item.value), at, tasks.clone(), metrics);
        let core = Arc::new(core);
        self.note_predecessor(key_space, &core, at);
        let (mirror, me, clock) =
            (self.process.mirror.clone(), self.process.me.clone(), self.process.clock.clone());
        tasks.spawn("report", OnError::Log, reporter::run(Arc::clone(&core), mirror, me, clock));
        tasks.spawn("run", OnError::Log, task::run(Arc::clone(&self.process), Arc::clone(&core)));
        self.running.insert(id, core);
    }

    /// Remembers who served the shard before, if this process is now to serve it.
    fn note_predecessor(&self, key_space: &KeySpace, core: &Core, at: Assigned) {
        let before = Arc::clone(&self.publisher.borrow().key_space);
        if at.slot == 0
            && let Some(member) = held::predecessor(&before, key_space, &core.id)
        {
            core.predecessor.get_or_init(|| member);
        }
    }

    fn refresh(&self, key_space: &KeySpace, id: &Arc<str>) {
        let (Some(item), Some(core)) = (key_space.items().get(id), self.running.get(id)) else { return };
        core.spec.send_if_modified(|spec| {
            let is_new = !Arc::ptr_eq(spec, &item.value);
            *spec = Arc::clone(&item.value);
            is_new
        });
    }

    fn give_up(&mut self, id: &Arc<str>) {
        if let Some(core) = self.running.remove(id) {
            tracing::info!(shard = %id, "giving the shard up");
            core.cede.cancel();
        }
    }
}

/// The assignments of `me` whose shards exist.
fn assigned(key_space: &KeySpace, me: &MemberId) -> BTreeMap<Arc<str>, Assigned> {
    let mut assigned = BTreeMap::new();
    for key in key_space.assignments().keys().filter(|key| key.member == *me) {
        if key_space.items().contains_key(&key.item)
            && let Some(held) = Held::find(key_space, me, &key.item)
        {
            assigned.insert(Arc::clone(&key.item), held.assigned());
        }
    }
    assigned
}
