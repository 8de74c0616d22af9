//! What an append waits for before it is judged (journal protocol §5.3.1): the health of the journal's first store, the
//! first listing of its stores, and the adoption of its spools.

use proto::protocol::JournalSpec;

use crate::replica::{IndexView, Replica, ReplicaDeps};
use crate::resolver::Resolution;

/// Failed health checks that an append waits beyond, in the hope of a better one.
const HEALTH_CHECKS_MAX: usize = 6;

/// How the wait ended.
pub(super) enum Readiness {
    /// The append may go on, with this state of the replica.
    Ready(IndexView),
    /// Assignments or stores have changed.
    Invalidated,
    /// The first store is not healthy, and why.
    Unhealthy(String),
}

/// Waits until the journal is ready for appends.
pub(super) async fn await_ready(
    deps: &ReplicaDeps,
    at: &Resolution,
    replica: &Replica,
    spec: &JournalSpec,
) -> Readiness {
    // First, since a store that cannot be asked cannot be listed either, and the client is to hear why.
    if let Some(url) = spec.fragment().stores.first()
        && let Some(unready) = await_health(deps, at, url).await
    {
        return unready;
    }
    let mut views = replica.index();
    let is_ready = |view: &IndexView| view.head.is_some() && view.first_listing_done;
    let awaited = tokio::select! {
        biased;
        () = at.invalidated.cancelled() => return Readiness::Invalidated,
        awaited = views.wait_for(is_ready) => awaited.map(|view| view.clone()),
    };
    match awaited {
        Ok(view) => Readiness::Ready(view),
        Err(_) => {
            // The replica has ended, which invalidates the resolution.
            at.invalidated.cancelled().await;
            Readiness::Invalidated
        }
    }
}

/// Waits until the store at `url` is healthy.
async fn await_health(deps: &ReplicaDeps, at: &Resolution, url: &str) -> Option<Readiness> {
    let unhealthy = |err: &dyn std::fmt::Display| {
        Some(Readiness::Unhealthy(format!("fragment store URL unhealthy: {err}")))
    };
    let mut health = match deps.stores.get(url) {
        Ok(store) => store.health(),
        Err(err) => return unhealthy(&err),
    };
    let mut checks = 0;
    loop {
        let Err(error) = health.borrow_and_update().result().map_err(str::to_owned) else { return None };
        checks += 1;
        if checks > HEALTH_CHECKS_MAX {
            return unhealthy(&error);
        }
        let changed = tokio::select! {
            biased;
            () = at.invalidated.cancelled() => return Some(Readiness::Invalidated),
            changed = health.changed() => changed,
        };
        if changed.is_err() {
            return unhealthy(&error);
        }
    }
}
