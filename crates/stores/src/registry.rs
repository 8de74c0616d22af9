//! The stores of a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fragment::compress::Levels;
use runtime::prometheus::IntGauge;
use runtime::{Clock, Entropy, Instant, Metrics, TaskGroup};

use crate::azure::Access;
use crate::cloud_place::CloudPlace;
use crate::file_place::FilePlace;
use crate::location::{Location, Target};
use crate::operation::StoreMetrics;
use crate::place::Place;
use crate::retry::Retries;
use crate::store::Store;
use crate::{Environment, StoreError, StoreTimes, azure, google, s3};

/// Stores of one process. A URL comes from a journal's specification, or from a request to check its health.
pub const STORES_MAX: usize = 1024;
/// A store which nobody asked for or held in this time is dropped.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// What stores are made from.
#[derive(Clone, Debug)]
pub struct StoresConfig {
    /// `--broker.file-root`: the directory below which file stores are. They must exist.
    pub file_root: Option<PathBuf>,
    /// Used without a `file_root`. Directories of file stores are made below it as they are needed.
    pub default_root: Option<PathBuf>,
    /// `--broker.file-only`: every store, whatever its scheme, is the file store at the root.
    pub file_only: bool,
    /// Where credentials come from.
    pub environment: Environment,
    /// `--broker.gzip-level` and `--broker.zstd-level`: how hard uploads are compressed.
    pub levels: Levels,
    /// How long to wait.
    pub times: StoreTimes,
    /// Time.
    pub clock: Clock,
    /// Randomness, for waits.
    pub entropy: Entropy,
    /// Group of all tasks of stores.
    pub tasks: TaskGroup,
    /// Where metrics go.
    pub metrics: Metrics,
}

/// The stores of a process, each made when it is first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    inner: Arc<Inner>,
}

struct Inner {
    config: StoresConfig,
    active: IntGauge,
    known: Mutex<Known>,
}

struct Known {
    stores: BTreeMap<Arc<str>, Entry>,
    swept: Instant,
}

struct Entry {
    store: Store,
    /// Whether it was asked for since the last sweep.
    used: bool,
}

impl Stores {
    /// A process's stores. Nothing is opened yet.
    pub fn new(config: StoresConfig) -> Stores {
        let active = config.metrics.gauge("gazette_store_active", "Fragment stores in use.");
        // So that they are named before a store is used.
        drop(StoreMetrics::new(&config.metrics, "".into()));
        let known = Known { stores: BTreeMap::new(), swept: config.clock.now() };
        Stores { inner: Arc::new(Inner { config, active, known: Mutex::new(known) }) }
    }

    /// The store at `url`, which is made, and health-checked from then on, if it is not yet known. A failure is not
    /// remembered. Callers are to ask for a store each time they use one, rather than to keep it for as long as a
    /// journal lives.
    pub fn get(&self, url: &str) -> Result<Store, StoreError> {
        let mut known = self.inner.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        known.sweep(self.inner.config.clock.now());
        self.inner.active.set(i64::try_from(known.stores.len()).unwrap_or(i64::MAX));
        if let Some(entry) = known.stores.get_mut(url) {
            entry.used = true;
            return Ok(entry.store.clone());
        }
        let url: Arc<str> = url.into();
        if known.stores.len() >= STORES_MAX {
            return Err(StoreError::TooMany { store: url, max: STORES_MAX });
        }
        let store = self.inner.config.open(&url)?;
        known.stores.insert(url, Entry { store: store.clone(), used: true });
        self.inner.active.inc();
        Ok(store)
    }
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stores")
    }
}

impl Known {
    /// Drops the stores which have not been used for a whole interval. Their health checks end with them.
    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) < SWEEP_INTERVAL {
            return;
        }
        self.swept = now;
        self.stores.retain(|_, entry| std::mem::take(&mut entry.used) || entry.store.is_shared());
    }
}

impl StoresConfig {
    fn open(&self, url: &Arc<str>) -> Result<Store, StoreError> {
        let location = Location::parse(url, self.file_only)?;
        let place: Arc<dyn Place> = match &location.target {
            Target::File => Arc::new(self.open_files(url, &location)?),
            _ => Arc::new(
                self.open_cloud(&location)
                    .map_err(|problem| StoreError::Setup { store: url.clone(), problem })?,
            ),
        };
        let metrics = StoreMetrics::new(&self.metrics, url.clone());
        let seams = (self.clock.clone(), self.entropy.clone(), self.tasks.clone());
        Ok(Store::start(url.clone(), location, place, seams, (self.levels, self.times), metrics))
    }

    fn open_cloud(&self, location: &Location) -> Result<CloudPlace, String> {
        let retries = Retries::new(self.clock.clone(), self.entropy.clone());
        let (environment, times) = (&self.environment, &self.times);
        let clients = match &location.target {
            Target::File => return Err("a file store has no clients".to_owned()),
            Target::S3 { bucket, arguments } => {
                let seams = (self.clock.clone(), self.tasks.clone(), retries.clone());
                s3::clients(bucket, arguments, environment, times, seams)?
            }
            Target::Google { bucket } => google::clients(bucket, environment, times)?,
            Target::Azure { container } => {
                azure::clients(container, &Access::SharedKey, environment, times, self.clock.clone())?
            }
            Target::AzureAd { tenant, account, container } => {
                let access = Access::Application { tenant, account };
                azure::clients(container, &access, environment, times, self.clock.clone())?
            }
        };
        let seams = (self.clock.clone(), retries, self.tasks.clone());
        Ok(CloudPlace::new(clients, &location.root, times.page, seams))
    }

    fn open_files(&self, url: &Arc<str>, location: &Location) -> Result<FilePlace, StoreError> {
        let invalid = |directory: &Path, problem: String| StoreError::Directory {
            store: url.clone(),
            directory: directory.display().to_string(),
            problem,
        };
        let root = match (&self.file_root, &self.default_root) {
            (Some(root), _) => root,
            (None, Some(root)) => {
                let directory = root.join(&location.root);
                fs::create_dir_all(&directory).map_err(|error| invalid(&directory, error.to_string()))?;
                root
            }
            (None, None) => {
                let problem = "file stores need a root (--broker.file-root)".to_owned();
                return Err(invalid(Path::new(&location.root), problem));
            }
        };
        FilePlace::open(root, &location.root, (self.clock.clone(), self.tasks.clone()))
            .map_err(|(directory, problem)| invalid(&directory, problem))
    }
}

#[cfg(test)]
mod tests;
