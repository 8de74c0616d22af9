//! Serving ListFragments (journal protocol §9.3) from this broker's replica, or from a peer.

mod page;

use auth::Capability;
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{FragmentsRequest, FragmentsResponse, Status, fragments_response};
use proto::{Canonical, duration};
use runtime::grpc_metrics::CountedChannel;

use crate::error::ServiceError;
use crate::peers::Peers;
use crate::read::{LISTING_WAIT, ReadContext};
use crate::resolver::Resolution;
use crate::stored;

pub use self::page::PAGE_LIMIT_DEFAULT;

/// Answers a validated request, whose page limit is set, from the replica that it resolved to.
///
/// # Errors
/// If a URL cannot be signed, or the journal's stores cannot be listed.
pub async fn serve(
    ReadContext { clock, stores, .. }: &ReadContext,
    request: &FragmentsRequest,
    resolution: Resolution,
) -> Result<FragmentsResponse, ServiceError> {
    let Some(replica) = resolution.replica else {
        return Ok(refused(Status::NotJournalBroker, resolution));
    };
    let mut index = replica.index();
    let listed = index.wait_for(|view| view.first_listing_done && view.head.is_some());
    let view = tokio::select! {
        biased;
        () = resolution.stopped.cancelled() => return Err(crate::resolution::ResolveError::Stopped.into()),
        view = clock.timeout(LISTING_WAIT, listed) => match view {
            Ok(Ok(view)) => view.clone(),
            Err(_elapsed) => return Err(replica.not_listed()),
            Ok(Err(_)) => return Err(crate::resolution::ResolveError::Stopped.into()),
        },
    };
    let page = page::page(&view.index, request);
    let ttl = request.signature_ttl.as_ref().map(|ttl| duration::to_std(Some(ttl)));
    let mut fragments = Vec::with_capacity(page.fragments.len());
    for fragment in page.fragments {
        let signed_url = match ttl {
            Some(ttl) => stored::signed_url(stores, &fragment, ttl).await?,
            None => String::new(),
        };
        fragments.push(fragments_response::Fragment { spec: Some(fragment.to_proto()), signed_url });
    }
    let response = FragmentsResponse {
        status: Status::Ok as i32,
        header: Some(resolution.header),
        fragments,
        next_page_token: page.next_page_token,
    };
    Ok(response.canonical())
}

/// Forwards a request to the process that it resolved to, or to the nearest member of its route.
///
/// # Errors
/// If no peer can be asked, or it fails.
pub async fn proxy(
    peers: &Peers,
    mut request: FragmentsRequest,
    resolution: Resolution,
) -> Result<FragmentsResponse, ServiceError> {
    request.header = Some(resolution.header.clone().canonical());
    let call = |mut client: JournalClient<CountedChannel>| {
        let request = peers.request(request.clone(), Capability::READ, &request.journal);
        async move { client.list_fragments(request).await }
    };
    let (_, response) = peers.ask(&resolution.header, call).await.map_err(ServiceError::Peer)?;
    Ok(response.into_inner())
}

/// The answer of a request that cannot go on.
pub fn refused(status: Status, resolution: Resolution) -> FragmentsResponse {
    let header = Some(resolution.header);
    FragmentsResponse { status: status as i32, header, ..FragmentsResponse::default() }.canonical()
}
