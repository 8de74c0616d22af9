//! What an append waits for before it is judged (journal protocol §5.3.1): the health of the journal's first store, or its
//! grace; the first listing of its stores; and the adoption of its spools.

use std::fmt::Display;
use std::time::Duration;

use proto::protocol::JournalSpec;
use runtime::config::format_duration;
use stores::Health;
use tokio::sync::watch;

use super::grace::{self, Journal, Reason, StoreState, Verdict};
use super::outage::Outages;
use crate::replica::{IndexView, Replica, ReplicaDeps};
use crate::resolver::Resolution;

/// How the wait ended.
pub(super) enum Readiness {
    /// The append may go on, with this state of the replica.
    Ready(IndexView),
    /// Assignments or stores have changed.
    Invalidated,
    /// The first store is not healthy, and why.
    Unhealthy(String),
}

/// A journal's first store at one moment.
struct Look {
    state: StoreState,
    /// Why it is not healthy.
    problem: String,
    /// Changes with its health, if it could be opened.
    health: Option<watch::Receiver<Health>>,
}

/// Waits until the journal is ready for appends.
pub(super) async fn await_ready(
    deps: &ReplicaDeps,
    outages: &Outages,
    at: &Resolution,
    replica: &Replica,
    spec: &JournalSpec,
) -> Readiness {
    let url = spec.fragment().stores.first();
    let mut views = replica.index();
    loop {
        let view = views.borrow_and_update().clone();
        let Some(end) = view.head.as_ref().map(|head| head.end) else {
            match changed(deps, at, &mut views, None, None).await {
                Some(unready) => return unready,
                None => continue,
            }
        };
        let look = match url {
            Some(url) => look(deps, outages, url),
            None => Look { state: StoreState::Healthy, problem: String::new(), health: None },
        };
        let journal = Journal {
            is_listed: view.first_listing_done,
            is_end_known: view.is_end_known,
            has_content: end > 0,
        };
        let free = match look.state {
            StoreState::Healthy => u64::MAX,
            _ if !journal.may_have_grace() => u64::MAX,
            _ => outages.free_bytes().await,
        };
        let wait = match grace::judge(outages.options(), look.state, journal, free) {
            Verdict::Proceed => return Readiness::Ready(view),
            Verdict::Refuse(reason) => return Readiness::Unhealthy(refusal(&look.problem, reason)),
            // Nothing will change by itself.
            Verdict::Wait(_) if url.is_some() && look.health.is_none() => {
                return Readiness::Unhealthy(refusal(&look.problem, Reason::Unhealthy));
            }
            Verdict::Wait(wait) => wait,
        };
        if let Some(unready) = changed(deps, at, &mut views, look.health, wait).await {
            return unready;
        }
    }
}

fn look(deps: &ReplicaDeps, outages: &Outages, url: &str) -> Look {
    let unopened = |error: &dyn Display| Look {
        state: StoreState::Unhealthy(outages.last_for(url, None)),
        problem: error.to_string(),
        health: None,
    };
    let mut health = match deps.stores.get(url) {
        Ok(store) => store.health(),
        Err(error) => return unopened(&error),
    };
    let known = health.borrow_and_update().clone();
    let problem = known.result().err().unwrap_or_default().to_owned();
    let state = match known {
        Health::Healthy => {
            outages.end(url);
            StoreState::Healthy
        }
        Health::Unknown => StoreState::Unchecked(outages.last_for(url, Some(&health))),
        Health::Unhealthy(_) => StoreState::Unhealthy(outages.last_for(url, Some(&health))),
    };
    Look { state, problem, health: Some(health) }
}

/// Waits for a change of the replica or of the store's health, or for the time. Returns what ends the wait for good.
async fn changed(
    deps: &ReplicaDeps,
    at: &Resolution,
    views: &mut watch::Receiver<IndexView>,
    health: Option<watch::Receiver<Health>>,
    limit: Option<Duration>,
) -> Option<Readiness> {
    let wake = limit.map(|limit| deps.clock.now() + limit);
    let health_changed = async move {
        match health {
            // An error means that the store is made anew.
            Some(mut health) => drop(health.changed().await),
            None => std::future::pending().await,
        }
    };
    let time = async {
        match wake {
            Some(wake) => deps.clock.sleep_until(wake).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = at.invalidated.cancelled() => Some(Readiness::Invalidated),
        changed = views.changed() => match changed {
            Ok(()) => None,
            Err(_) => {
                // The replica has ended, which invalidates the resolution.
                at.invalidated.cancelled().await;
                Some(Readiness::Invalidated)
            }
        },
        () = health_changed => None,
        () = time => None,
    }
}

/// The text with which an append is answered.
fn refusal(problem: &str, reason: Reason) -> String {
    let unhealthy = format!("fragment store URL unhealthy: {problem}");
    match reason {
        Reason::Unhealthy => unhealthy,
        Reason::GraceOver(grace) => {
            format!("{unhealthy}; appends went on without it for {}", format_duration(grace))
        }
        Reason::DiskLow { free, min } => {
            format!("{unhealthy}; {free} bytes are free for what it does not take (expected at least {min})")
        }
    }
}
