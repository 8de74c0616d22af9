//! Serving List (journal protocol §9.1) from the mirror: one snapshot, or a watch which sends one whenever it changes.

mod snapshot;

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use proto::Revision;
use proto::protocol::{Header, LabelSelector, ListRequest, ListResponse};
use runtime::CancellationToken;
use tokio::sync::watch;

use self::snapshot::{list, snapshot_end};
use crate::key_space::KeySpace;
use crate::resolver::Resolver;

/// Serves a validated request, of journals which `visible` selects. A watch ends, cleanly, when `stop` fires.
pub fn serve(
    resolver: Resolver,
    request: ListRequest,
    visible: LabelSelector,
    stop: CancellationToken,
) -> BoxStream<'static, Result<ListResponse, tonic::Status>> {
    let selector = request.selector.unwrap_or_default().rewrite_legacy_prefix();
    // A revision of another cluster, of which this one has taken the place, may never be reached.
    let ours = resolver.key_space().header().cluster_id;
    let is_ours = |header: &Header| header.etcd.as_ref().is_some_and(|etcd| etcd.cluster_id == ours);
    let resume = request.watch_resume.filter(|header| request.watch && is_ours(header));
    let resume = resume.map(|header| header.revision());
    let is_watch = request.watch;
    async_stream::stream! {
        let mut snapshots = resolver.subscribe();
        let mut told = (resume.unwrap_or(Revision(0)), None);
        loop {
            let Some(key_space) = next_snapshot(&mut snapshots, told.0, &stop).await else { return };
            let listing = list(&key_space, &selector, &visible, key_space.unrouted_header(resolver.me()));
            let digest = Some(listing.digest());
            told.0 = key_space.revision();
            if digest == told.1 {
                continue;
            }
            told.1 = digest;
            for message in listing.into_messages() {
                yield Ok(message);
            }
            if !is_watch {
                return;
            }
            yield Ok(snapshot_end());
        }
    }
    .boxed()
}

/// The first snapshot after revision `told`; `None` when there will be none.
async fn next_snapshot(
    snapshots: &mut watch::Receiver<Arc<KeySpace>>,
    told: Revision,
    stop: &CancellationToken,
) -> Option<Arc<KeySpace>> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        next = snapshots.wait_for(|key_space| key_space.revision() > told) => Some(Arc::clone(&*next.ok()?)),
    }
}
