//! A listing of journals which follows the brokers: a watch, resumed whenever it breaks.
//!
//! A broker sends a whole snapshot at first and after each change, in pages, the last of which is empty. A snapshot is
//! published when it is complete and newer than the last: a broker which lags behind does not take the listing back. But
//! it catches up soon; if a broker stays at an earlier state for [`LAG_MAX`], the cluster lost its etcd and begins anew,
//! and so does the listing. For the same reason a watch which broke does not ask to be resumed at its last revision,
//! which may never come again, but for a whole snapshot.

use crate::client::{JournalClient, backoff, check_first_page, check_next_page};
use crate::error::ClientError;
use crate::outage::Outage;
use auth::{Capability, Grant};
use message::mapping::Partitions;
use proto::protocol::{LabelSelector, ListRequest, ListResponse};
use proto::{Invalid, Validate};
use runtime::{BoxError, Instant, OnError, TaskGroup};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How far a broker may lag behind the others.
const LAG_MAX: Duration = Duration::from_secs(5);

/// A listing, and what is prepared from it.
#[derive(Clone, Default)]
struct Listing {
    response: Arc<ListResponse>,
    partitions: Arc<Partitions>,
    is_ready: bool,
    /// Why there is no other one, or none at all.
    refused: Option<ClientError>,
}

impl Listing {
    fn stopped(&self) -> WatchStopped {
        self.refused.clone().map_or(WatchStopped::Cancelled, WatchStopped::Refused)
    }
}

/// The journals which a selector matches, kept current. Clones share the watch; each sees changes on its own.
#[derive(Clone)]
pub struct WatchedList {
    listing: watch::Receiver<Listing>,
}

/// The watch ended, and there is no listing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchStopped {
    /// Its task group was cancelled.
    #[error("the watched list was stopped")]
    Cancelled,
    /// Brokers refuse the client's token.
    #[error("watching journals: {0}")]
    Refused(ClientError),
}

impl WatchedList {
    /// Starts to watch, as a task of `tasks`.
    ///
    /// # Errors
    /// If the selector is invalid.
    pub fn start(
        client: JournalClient,
        selector: LabelSelector,
        tasks: &TaskGroup,
    ) -> Result<WatchedList, ClientError> {
        let request = ListRequest { selector: Some(selector), watch: true, watch_resume: None };
        request.validate().map_err(ClientError::Request)?;
        let (sender, listing) = watch::channel(Listing::default());
        let follower = Follower { client, request, listing: sender, last: None };
        let token = tasks.token().clone();
        tasks.spawn("watched list", OnError::Log, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => Ok(()),
                outcome = follower.run() => outcome,
            }
        });
        Ok(WatchedList { listing })
    }

    /// The last listing; empty before the first.
    pub fn current(&self) -> Arc<ListResponse> {
        Arc::clone(&self.listing.borrow().response)
    }

    /// The last listing, prepared for mapping messages to its journals.
    pub fn partitions(&self) -> Arc<Partitions> {
        Arc::clone(&self.listing.borrow().partitions)
    }

    /// Waits for the next listing which this clone has not seen, and returns it.
    pub async fn changed(&mut self) -> Result<Arc<ListResponse>, WatchStopped> {
        let changed = self.listing.changed().await.is_ok();
        let listing = self.listing.borrow_and_update();
        match changed && listing.refused.is_none() {
            true => Ok(Arc::clone(&listing.response)),
            false => Err(listing.stopped()),
        }
    }

    /// Waits until there is a listing, possibly an empty one, and returns it.
    pub async fn ready(&self) -> Result<Arc<ListResponse>, WatchStopped> {
        self.wait_until(|_| true).await
    }

    /// Waits until there is a listing which `condition` is true of, and returns it.
    pub async fn wait_until(
        &self,
        mut condition: impl FnMut(&ListResponse) -> bool,
    ) -> Result<Arc<ListResponse>, WatchStopped> {
        let mut listing = self.listing.clone();
        let is_met = |listing: &Listing| listing.is_ready && condition(&listing.response);
        if let Ok(listing) = listing.wait_for(is_met).await {
            return Ok(Arc::clone(&listing.response));
        }
        Err(self.listing.borrow().stopped())
    }
}

/// Which state of the cluster a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    cluster: u64,
    revision: i64,
}

impl Mark {
    fn of(snapshot: &ListResponse) -> Mark {
        let etcd = snapshot.header.as_ref().and_then(|header| header.etcd.as_ref());
        etcd.map_or(Mark { cluster: 0, revision: 0 }, |etcd| Mark {
            cluster: etcd.cluster_id,
            revision: etcd.revision,
        })
    }

    /// Whether this is an earlier state than `last` of the same cluster.
    fn is_before(self, last: Option<Mark>) -> bool {
        last.is_some_and(|last| last.cluster == self.cluster && self.revision < last.revision)
    }
}

/// The task which follows the brokers.
struct Follower {
    client: JournalClient,
    request: ListRequest,
    listing: watch::Sender<Listing>,
    /// Of the last snapshot that was published.
    last: Option<Mark>,
}

/// A snapshot of an earlier state than what was published, and when to believe it.
type Held = Option<(ListResponse, Instant)>;

impl Follower {
    async fn run(mut self) -> Result<(), BoxError> {
        let (mut backoff, mut outage) = (backoff(), Outage::default());
        loop {
            let mut is_good = false;
            let Err(error) = self.follow(&mut is_good).await else { return Ok(()) };
            if error.is_unauthenticated() {
                self.listing.send_modify(|listing| listing.refused = Some(error.clone()));
                return Err(format!("watching journals: {error}").into());
            }
            if is_good {
                backoff.reset();
                outage.is_over();
            }
            outage.failed(&error, self.client.options().clock.now(), |failing| {
                tracing::warn!(%error, %failing, "watching journals failed (will retry)");
            });
            self.client.pause(backoff.next()).await?;
        }
    }

    /// Follows one call, until it fails. Returns without error when nobody holds the listing.
    async fn follow(&mut self, is_good: &mut bool) -> Result<(), ClientError> {
        let mut call = self.client.any_broker()?;
        let grant = Grant::new(Capability::LIST, self.request.selector.clone().unwrap_or_default());
        let request = self.client.options().request(self.request.clone(), grant);
        let pages = call.rpc.list(request).await.map_err(ClientError::Grpc);
        let mut pages = self.client.note_failure("", &call, pages)?.into_inner();
        let mut partial: Option<ListResponse> = None;
        let mut held: Held = None;
        loop {
            let page = tokio::select! {
                biased;
                () = self.listing.closed() => return Ok(()),
                page = pages.message() => page.map_err(ClientError::Grpc),
                () = self.until_believed(&held) => {
                    if let Some((snapshot, _)) = held.take() {
                        self.publish(snapshot);
                    }
                    continue;
                }
            };
            let page = self.client.note_failure("", &call, page)?;
            let page =
                page.ok_or_else(|| ClientError::Response(Invalid::new("unexpected EOF of a watch")))?;
            match partial.take() {
                None => partial = Some(check_first_page(page)?),
                Some(mut snapshot) if !page.journals.is_empty() => {
                    snapshot.journals.extend(check_next_page(page)?);
                    partial = Some(snapshot);
                }
                Some(snapshot) => {
                    *is_good = true;
                    self.on_snapshot(snapshot, &mut held);
                }
            }
        }
    }

    /// Publishes a snapshot, unless it may come from a broker which lags behind.
    fn on_snapshot(&mut self, snapshot: ListResponse, held: &mut Held) {
        let mark = Mark::of(&snapshot);
        if mark.is_before(self.last) {
            let since = held.take().map(|(_, believed)| believed);
            let believed = since.unwrap_or_else(|| self.client.options().clock.now() + LAG_MAX);
            *held = Some((snapshot, believed));
            return;
        }
        *held = None;
        if self.last == Some(mark) && self.listing.borrow().response.journals == snapshot.journals {
            // The first snapshot of another call, with nothing new.
            self.client.observe_listing(&snapshot);
            return;
        }
        self.publish(snapshot);
    }

    fn publish(&mut self, snapshot: ListResponse) {
        self.client.observe_listing(&snapshot);
        self.last = Some(Mark::of(&snapshot));
        let partitions = Arc::new(Partitions::new(&snapshot.journals));
        let response = Arc::new(snapshot);
        self.listing.send_replace(Listing { response, partitions, is_ready: true, refused: None });
    }

    async fn until_believed(&self, held: &Held) {
        match held {
            Some((_, believed)) => self.client.options().clock.sleep_until(*believed).await,
            None => std::future::pending().await,
        }
    }
}
