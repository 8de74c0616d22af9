//! Since when stores have been unhealthy, as appends see it.
//!
//! Pulses look at the first store of every journal each minute, so that an outage is noticed without any client. It is over
//! when the store is found healthy, by whoever looks first: a task of its own follows the store's health until then.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::{Clock, Instant, OnError, TaskGroup};
use stores::Health;
use tokio::sync::watch;

use super::grace::GraceOptions;
use crate::spool::SpoolDisk;

/// Age at which what is known of the disk's free space is found out again.
const FREE_BYTES_AGE_MAX: Duration = Duration::from_secs(1);

/// The outages of a broker's stores. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Outages {
    inner: Arc<Inner>,
}

struct Inner {
    options: GraceOptions,
    clock: Clock,
    tasks: TaskGroup,
    disk: Arc<dyn SpoolDisk>,
    data_dir: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When each store was first found not to be healthy.
    since: BTreeMap<Arc<str>, Instant>,
    /// Free bytes of the disk, and when that was so.
    free: Option<(Instant, u64)>,
}

impl Outages {
    /// No outages yet. Tasks run in `tasks`; `data_dir` is on the disk whose free space counts.
    pub fn new(
        options: GraceOptions,
        clock: Clock,
        tasks: TaskGroup,
        disk: Arc<dyn SpoolDisk>,
        data_dir: PathBuf,
    ) -> Outages {
        Outages { inner: Arc::new(Inner { options, clock, tasks, disk, data_dir, known: Mutex::default() }) }
    }

    pub(super) fn options(&self) -> &GraceOptions {
        &self.inner.options
    }

    /// How long the store has not been healthy. `health` is followed until it is; there is none if the store cannot even be
    /// opened.
    pub(super) fn last_for(&self, url: &str, health: Option<&watch::Receiver<Health>>) -> Duration {
        let now = self.inner.clock.now();
        let mut known = self.inner.known();
        if let Some(since) = known.since.get(url) {
            return now.duration_since(*since);
        }
        let url: Arc<str> = url.into();
        known.since.insert(Arc::clone(&url), now);
        drop(known);
        if let Some(health) = health {
            self.follow(url, health.clone());
        }
        Duration::ZERO
    }

    /// The store was found healthy.
    pub(super) fn end(&self, url: &str) {
        self.inner.end(url);
    }

    /// Free bytes of the disk of spools, as of a moment ago. Zero if that cannot be found out.
    pub(super) async fn free_bytes(&self) -> u64 {
        let now = self.inner.clock.now();
        let known = self.inner.known().free;
        if let Some((at, free)) = known.filter(|(at, _)| now.duration_since(*at) < FREE_BYTES_AGE_MAX) {
            let _ = at;
            return free;
        }
        let (disk, dir) = (Arc::clone(&self.inner.disk), self.inner.data_dir.clone());
        let asked = self.inner.tasks.spawn_blocking("free bytes", move || disk.free_bytes(&dir)).await;
        let free = asked.unwrap_or_else(|error| {
            let dir = self.inner.data_dir.display();
            tracing::warn!(%dir, %error, "cannot find out how much of the disk is free");
            0
        });
        self.inner.known().free = Some((now, free));
        free
    }

    fn follow(&self, url: Arc<str>, mut health: watch::Receiver<Health>) {
        let (inner, stop) = (Arc::clone(&self.inner), self.inner.tasks.token().clone());
        self.inner.tasks.spawn("store outage", OnError::Log, async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                // An error means that the store was dropped: whoever makes it anew checks it anew.
                _ = health.wait_for(|health| *health == Health::Healthy) => inner.end(&url),
            }
            Ok(())
        });
    }
}

impl Inner {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, url: &str) {
        // Mostly there is none.
        let mut known = self.known();
        if !known.since.is_empty() {
            known.since.remove(url);
        }
    }
}
