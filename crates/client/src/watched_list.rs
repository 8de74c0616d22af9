//! A listing of journals which follows the brokers: a watch, resumed whenever it breaks.
//!
//! A broker sends a whole snapshot at first and after each change, in pages, the last of which is empty. A snapshot is
//! published when it is complete, and only if it is newer than the last: a broker which lags behind does not take the
//! listing back.

use crate::client::{JournalClient, check_first_page, check_next_page};
use crate::error::ClientError;
use message::mapping::Partitions;
use proto::protocol::{Header, LabelSelector, ListRequest, ListResponse};
use proto::{Invalid, Validate};
use runtime::backoff::Backoff;
use runtime::{BoxError, OnError, TaskGroup};
use std::sync::Arc;
use tokio::sync::watch;

/// A listing, and what is prepared from it.
#[derive(Clone, Default)]
struct Listing {
    response: Arc<ListResponse>,
    partitions: Arc<Partitions>,
    is_ready: bool,
}

/// The journals which a selector matches, kept current. Clones share the watch; each sees changes on its own.
#[derive(Clone)]
pub struct WatchedList {
    listing: watch::Receiver<Listing>,
}

/// The watch ended, since its task group was cancelled, and there is no listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the watched list was stopped")]
pub struct WatchStopped;

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
        let token = tasks.token().clone();
        tasks.spawn("watched list", OnError::Log, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => Ok(()),
                outcome = watch_forever(client, request, sender) => outcome,
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
        self.listing.changed().await.map_err(|_| WatchStopped)?;
        Ok(Arc::clone(&self.listing.borrow_and_update().response))
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
        let ready = listing.wait_for(|listing| listing.is_ready && condition(&listing.response)).await;
        Ok(Arc::clone(&ready.map_err(|_| WatchStopped)?.response))
    }
}

async fn watch_forever(
    client: JournalClient,
    mut request: ListRequest,
    listing: watch::Sender<Listing>,
) -> Result<(), BoxError> {
    let mut backoff = Backoff::journal();
    loop {
        let before = revision(request.watch_resume.as_ref());
        let Err(error) = watch_once(&client, &mut request, &listing).await else { return Ok(()) };
        if revision(request.watch_resume.as_ref()) > before {
            backoff.reset();
        }
        let wait = backoff.next();
        tracing::warn!(%error, ?wait, "watching journals failed (will retry)");
        client.pause(wait).await?;
    }
}

/// Follows one call, until it fails. Returns without error when nobody holds the listing.
async fn watch_once(
    client: &JournalClient,
    request: &mut ListRequest,
    listing: &watch::Sender<Listing>,
) -> Result<(), ClientError> {
    let mut pages =
        client.default_rpc()?.list(request.clone()).await.map_err(ClientError::Grpc)?.into_inner();
    let mut partial: Option<ListResponse> = None;
    loop {
        let page = tokio::select! {
            biased;
            () = listing.closed() => return Ok(()),
            page = pages.message() => page.map_err(ClientError::Grpc)?,
        };
        let page = page.ok_or_else(|| ClientError::Response(Invalid::new("unexpected EOF of a watch")))?;
        match partial.take() {
            None => partial = Some(check_first_page(page)?),
            Some(mut snapshot) if !page.journals.is_empty() => {
                snapshot.journals.extend(check_next_page(page)?);
                partial = Some(snapshot);
            }
            Some(snapshot) => publish(client, snapshot, request, listing)?,
        }
    }
}

/// Publishes a complete snapshot, if it is newer than what was published.
fn publish(
    client: &JournalClient,
    snapshot: ListResponse,
    request: &mut ListRequest,
    listing: &watch::Sender<Listing>,
) -> Result<(), ClientError> {
    let (last, next) = (revision(request.watch_resume.as_ref()), revision(snapshot.header.as_ref()));
    if next <= last {
        let problem = format!("revision {next} of a watch does not follow {last}");
        return Err(ClientError::Response(Invalid::new(problem)));
    }
    client.observe_listing(&snapshot);
    request.watch_resume.clone_from(&snapshot.header);
    let partitions = Arc::new(Partitions::new(&snapshot.journals));
    listing.send_replace(Listing { response: Arc::new(snapshot), partitions, is_ready: true });
    Ok(())
}

fn revision(header: Option<&Header>) -> i64 {
    header.and_then(|header| header.etcd.as_ref()).map_or(0, |etcd| etcd.revision)
}
