//! Something that is built from files, and again when their content changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{Clock, Instant};

use super::TlsError;

/// Files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was found in files: their bytes, or why they cannot be read.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Contents(BTreeMap<PathBuf, Result<Vec<u8>, String>>);

impl Contents {
    pub(super) fn read(paths: &[PathBuf]) -> Contents {
        Contents(paths.iter().map(|path| (path.clone(), found(std::fs::read(path)))).collect())
    }

    async fn read_again(paths: &[PathBuf]) -> Contents {
        let mut contents = BTreeMap::new();
        for path in paths {
            contents.insert(path.clone(), found(tokio::fs::read(path).await));
        }
        Contents(contents)
    }

    /// The bytes of one of the files.
    pub(super) fn of(&self, path: &Path) -> Result<&[u8], TlsError> {
        match self.0.get(path) {
            Some(Ok(bytes)) => Ok(bytes),
            Some(Err(problem)) => Err(TlsError::of(path, problem)),
            None => Err(TlsError::of(path, "was not read")),
        }
    }
}

fn found(outcome: std::io::Result<Vec<u8>>) -> Result<Vec<u8>, String> {
    outcome.map_err(|error| error.to_string())
}

type Build<T> = Box<dyn Fn(&Contents) -> Result<T, TlsError> + Send + Sync>;

/// See the module.
pub(super) struct Watched<T> {
    paths: Vec<PathBuf>,
    build: Build<T>,
    clock: Clock,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// What was last built; `None` until it is first needed.
    built: Option<Arc<T>>,
    /// What was last seen in the files, whether it could be used or not.
    seen: Contents,
    looked: Instant,
}

impl<T> Watched<T> {
    /// Reads the files, and builds.
    pub(super) fn load(
        paths: Vec<PathBuf>,
        clock: &Clock,
        build: impl Fn(&Contents) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Watched<T>, TlsError> {
        let seen = Contents::read(&paths);
        let built = Some(Arc::new(build(&seen)?));
        let state = Mutex::new(State { built, seen, looked: clock.now() });
        Ok(Watched { paths, build: Box::new(build), clock: clock.clone(), state })
    }

    /// Builds when it is first asked, without files.
    pub(super) fn lazy(
        clock: &Clock,
        build: impl Fn(&Contents) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Watched<T> {
        let state = State { built: None, seen: Contents::default(), looked: clock.now() };
        Watched { paths: Vec::new(), build: Box::new(build), clock: clock.clone(), state: Mutex::new(state) }
    }

    /// The files.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// What the files say, as of at most a second ago; or what they said when they could last be used.
    pub(super) async fn current(&self) -> Result<Arc<T>, TlsError> {
        match self.recent() {
            Some(built) => Ok(built),
            None => self.take(Contents::read_again(&self.paths).await),
        }
    }

    /// What was built, unless it is time to look at the files, which is then the caller's to do.
    fn recent(&self) -> Option<Arc<T>> {
        let now = self.clock.now();
        let mut state = self.lock();
        let built = state.built.clone()?;
        if !self.paths.is_empty() && now.saturating_duration_since(state.looked) >= LOOK_EVERY {
            state.looked = now;
            return None;
        }
        Some(built)
    }

    fn take(&self, contents: Contents) -> Result<Arc<T>, TlsError> {
        let mut state = self.lock();
        if let Some(built) = state.built.as_ref().filter(|_| state.seen == contents) {
            return Ok(Arc::clone(built));
        }
        let outcome = (self.build)(&contents);
        state.seen = contents;
        match (outcome, state.built.as_ref()) {
            (Ok(built), earlier) => {
                if earlier.is_some() {
                    tracing::info!(files = ?self.paths, "changed TLS files are used from now on");
                }
                let built = Arc::new(built);
                state.built = Some(Arc::clone(&built));
                Ok(built)
            }
            (Err(error), Some(earlier)) => {
                tracing::warn!(%error, "changed TLS files cannot be used; what they were before stays in force");
                Ok(Arc::clone(earlier))
            }
            (Err(error), None) => Err(error),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
