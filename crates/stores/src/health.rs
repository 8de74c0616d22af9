//! Whether a store can be used, found out by using it.
//!
//! Each store has one task, which writes, reads, lists and signs a small object, publishes the outcome, and does so again
//! after a while: half an hour after success, soon after failure. Appends are refused while a journal's first store is
//! unhealthy (journal protocol §10.5), so the outcome of real operations counts too: an operation that fails on a
//! healthy store, or succeeds on an unhealthy one, brings the next check forward.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use runtime::backoff::Backoff;
use runtime::{Clock, Instant};
use tokio::sync::{Notify, watch};

use crate::error::PlaceError;
use crate::operation::Operation;
use crate::store::Shared;

/// Wait after a check that succeeded.
pub const HEALTHY_INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Waits after checks that failed, the last one repeating.
const UNHEALTHY_WAITS: &[Duration] = &[
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_secs(10),
    Duration::from_secs(100),
];
/// Part by which each wait is made longer or shorter.
const WAIT_JITTER: f64 = 0.2;
/// Least time between checks that operations bring forward.
const PROMPTED_SPACING: Duration = Duration::from_secs(1);
/// Time for which a URL is signed.
const SIGNED_TTL: Duration = Duration::from_secs(5 * 60);

/// The object of a check, and its content.
const CHECK_DIRECTORY: &str = ".test/";
const CHECK_NAME: &str = ".test/health-check";
const CHECK_CONTENT: &[u8] = b"health-check\n";

/// What is known of a store's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The first check has not completed.
    Unknown,
    /// The last check succeeded.
    Healthy,
    /// The last check failed, with this text; or there will be no more checks.
    Unhealthy(Arc<str>),
}

impl Health {
    /// Whether appends may rely on the store; otherwise the text which they are answered with.
    pub fn result(&self) -> Result<(), &str> {
        match self {
            Health::Unknown => Err("first health check hasn't completed yet"),
            Health::Healthy => Ok(()),
            Health::Unhealthy(problem) => Err(problem),
        }
    }
}

/// The part of a store which others watch and prompt.
#[derive(Debug)]
pub(crate) struct HealthState {
    pub(crate) known: watch::Sender<Health>,
    prompt: Notify,
}

impl HealthState {
    pub(crate) fn new() -> HealthState {
        HealthState { known: watch::Sender::new(Health::Unknown), prompt: Notify::new() }
    }

    /// Takes note of how an operation ended. `of_store` is false of failures which say nothing about the store.
    pub(crate) fn saw(&self, succeeded: bool, of_store: bool) {
        let surprising = match &*self.known.borrow() {
            Health::Unknown => false,
            Health::Healthy => !succeeded && of_store,
            Health::Unhealthy(_) => succeeded,
        };
        if surprising {
            self.prompt.notify_one();
        }
    }
}

/// Checks the store over and over, until it is gone or the process stops.
pub(crate) async fn run(store: Weak<Shared>) {
    let Some(shared) = store.upgrade() else { return };
    let (clock, entropy) = (shared.clock.clone(), shared.entropy.clone());
    let (stop, state) = (shared.stop.clone(), shared.health.clone());
    drop(shared);
    let mut backoff = Backoff::new(UNHEALTHY_WAITS);
    loop {
        let Some(shared) = store.upgrade() else { break };
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            outcome = check(&shared) => outcome,
        };
        drop(shared);
        let wait = if outcome.is_ok() { HEALTHY_INTERVAL } else { backoff.next() };
        if outcome.is_ok() {
            backoff.reset();
        }
        state.known.send_replace(match outcome {
            Ok(()) => Health::Healthy,
            Err(problem) => Health::Unhealthy(problem.into()),
        });
        let due = clock.now() + entropy.jitter(wait, WAIT_JITTER);
        let earliest = due.min(clock.now() + PROMPTED_SPACING);
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = clock.sleep_until(due) => {}
            () = prompted(&state, &clock, earliest) => {}
        }
    }
    state.known.send_replace(Health::Unhealthy("health checks have stopped".into()));
}

async fn prompted(state: &HealthState, clock: &Clock, earliest: Instant) {
    clock.sleep_until(earliest).await;
    state.prompt.notified().await;
}

/// One check, with its log line and metric.
async fn check(store: &Shared) -> Result<(), String> {
    let deadline = store.clock.now() + store.times.check;
    let outcome = check_by(store, deadline).await.map_err(|problem| format!("health check {problem}"));
    store.metrics.health_check(outcome.is_ok());
    if let Err(error) = &outcome {
        tracing::warn!(store = %store.url, %error, "store health check failed");
    }
    outcome
}

async fn check_by(store: &Shared, deadline: Instant) -> Result<(), String> {
    let key = store.location.rewrite(CHECK_NAME);
    let path = step(store, deadline, "PUT", Operation::Put, store.locate(&key)).await?;
    let objects = store.place.objects();

    let put = async { Ok(objects.put(&path, CHECK_CONTENT.into()).await?) };
    step(store, deadline, "PUT", Operation::Put, put).await?;

    let get = async { Ok(objects.get(&path).await?) };
    let object = step(store, deadline, "GET", Operation::Get, get).await?;
    // A foreign object of this name may be of any size: no more is read than is compared.
    let read = async {
        let mut content = Vec::new();
        let mut chunks = object.into_stream();
        while content.len() <= CHECK_CONTENT.len()
            && let Some(chunk) = chunks.try_next().await?
        {
            content.extend_from_slice(&chunk[..chunk.len().min(2 * CHECK_CONTENT.len())]);
        }
        Ok(content)
    };
    let content = step(store, deadline, "read", Operation::Get, read).await?;
    compare("", &content)?;

    let mut listing = store.place.list(&store.location.rewrite(CHECK_DIRECTORY));
    let find = async {
        while let Some(listed) = listing.try_next().await? {
            if listed.key == path.as_ref() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if !step(store, deadline, "LIST", Operation::List, find).await? {
        return Err("LIST did not find test file".to_owned());
    }
    let signed = store.place.sign(&key, SIGNED_TTL);
    let signed = step(store, deadline, "SignGet", Operation::SignGet, signed).await?;
    if signed.starts_with("http") { fetch(store, deadline, &signed).await } else { Ok(()) }
}

/// What was read must be what was written.
fn compare(step: &str, content: &[u8]) -> Result<(), String> {
    if content == CHECK_CONTENT {
        return Ok(());
    }
    let (got, want) = (String::from_utf8_lossy(content), String::from_utf8_lossy(CHECK_CONTENT));
    Err(format!("{step}content mismatch: got {got:?}, want {want:?}"))
}

/// Others must be able to read what was signed.
async fn fetch(store: &Shared, deadline: Instant, url: &str) -> Result<(), String> {
    let fetched = store.clock.timeout_at(deadline, store.place.fetch(url, CHECK_CONTENT.len())).await;
    let fetched = match fetched {
        Ok(fetched) => fetched.map_err(|problem| format!("fetch failed: {problem}"))?,
        Err(elapsed) => return Err(format!("fetch failed: {elapsed}")),
    };
    if fetched.status != 200 {
        return Err(format!("fetch returned status {}", fetched.status));
    }
    let content = fetched.content.map_err(|problem| format!("fetch read failed: {problem}"))?;
    compare("fetch ", &content)
}

/// One step of a check, within what is left of its time.
async fn step<T>(
    store: &Shared,
    deadline: Instant,
    name: &str,
    operation: Operation,
    work: impl Future<Output = Result<T, PlaceError>>,
) -> Result<T, String> {
    match store.clock.timeout_at(deadline, work).await {
        Ok(outcome) => outcome.map_err(|error| text(store, name, operation, error)),
        Err(elapsed) => Err(format!("{name} failed: {elapsed}")),
    }
}

fn text(store: &Shared, name: &str, operation: Operation, error: PlaceError) -> String {
    format!("{name} failed: {}", error.of(operation, &store.url, CHECK_NAME))
}
