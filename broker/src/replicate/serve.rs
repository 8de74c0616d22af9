//! Serving Replicate (journal protocol §6.1): a stream is checked and resolved here, and then belongs to the replica.

use auth::{Access, before_expiry};
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::Revision;
use proto::protocol::{Header, ReplicateRequest, ReplicateResponse, Status};
use proto::{Canonical, Validate};
use runtime::{CancellationToken, Clock};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::error::ServiceError;
use crate::gate::until_expiry_between_groups;
use crate::pipeline::PROPOSALS_OPEN_MAX;
use crate::replica::Follow;
use crate::resolver::{Resolution, ResolveArgs, Resolver};

type Responses = BoxStream<'static, Result<ReplicateResponse, tonic::Status>>;

/// Serves one stream: answers at once if it is not for this broker, or waits until its replica lets it have the spool.
///
/// # Errors
/// Malformed streams, and those which cannot be resolved.
pub async fn serve(
    resolver: &Resolver,
    clock: &Clock,
    access: &Access,
    requests: Streaming<ReplicateRequest>,
) -> Result<Responses, tonic::Status> {
    before_expiry(clock, access, begin(resolver, clock, access, requests)).await?
}

async fn begin(
    resolver: &Resolver,
    clock: &Clock,
    access: &Access,
    mut requests: Streaming<ReplicateRequest>,
) -> Result<Responses, tonic::Status> {
    let opening = requests.message().await?.ok_or_else(|| tonic::Status::unknown("EOF"))?;
    opening.validate().map_err(ServiceError::from)?;
    let (Some(header), Some(proposal)) = (opening.header.clone(), opening.proposal.clone()) else {
        return Err(tonic::Status::unknown("expected first ReplicateRequest to have Header"));
    };
    loop {
        let args = ResolveArgs {
            journal: &proposal.journal,
            may_proxy: false,
            require_primary: false,
            min_revision: Revision::NONE,
            proxy_header: Some(&header),
            visible: Some(&access.selector),
        };
        let at = resolver.resolve(args).await.map_err(ServiceError::from)?;
        if let Some(refusal) = refusal(&at, &header) {
            return Ok(futures::stream::iter([Ok(refusal)]).boxed());
        }
        let Some(replica) = &at.replica else {
            // The one before it is shutting down.
            at.invalidated.cancelled().await;
            continue;
        };
        let (accepted, is_accepted) = oneshot::channel();
        let (sender, responses) = mpsc::channel(PROPOSALS_OPEN_MAX);
        // The requests are handed over once the replica accepts: until then a newer route may be the right one.
        let (handed_over, handed) = oneshot::channel();
        let requests_later = async move { handed.await.unwrap_or_else(|_| futures::stream::empty().boxed()) };
        let follow = Follow {
            header: at.header.canonical(),
            opening: opening.clone(),
            requests: futures::stream::once(requests_later).flatten().boxed(),
            responses: sender,
            accepted,
        };
        replica.follow(follow).await;
        tokio::select! {
            biased;
            accepted = is_accepted => if accepted.is_ok() {
                let expired = CancellationToken::new();
                let requests = until_expiry_between_groups(clock, access, requests, expired.clone());
                drop(handed_over.send(requests));
                return Ok(with_reason(ReceiverStream::new(responses).boxed(), expired));
            },
            () = at.invalidated.cancelled() => {}
        }
    }
}

/// `responses`, and why they end if it is since the stream's token expired. A primary which does not renew its streams takes
/// that for a broken connection, and so lets its clients repeat what they append next.
fn with_reason(responses: Responses, expired: CancellationToken) -> Responses {
    let reason = async move { expired.is_cancelled().then(|| Err(tonic::Status::unavailable(EXPIRED))) };
    responses.chain(futures::stream::once(reason).filter_map(futures::future::ready)).boxed()
}

const EXPIRED: &str = "the access token of this replication stream has expired";

/// The answer to a stream that is not for this broker.
fn refusal(at: &Resolution, header: &Header) -> Option<ReplicateResponse> {
    let is_same = match (&at.header.route, &header.route) {
        (Some(ours), Some(theirs)) => ours.equivalent(theirs),
        _ => false,
    };
    let status = match at.status {
        Status::Ok if is_same => return None,
        Status::Ok => Status::WrongRoute,
        status => status,
    };
    let header = Some(at.header.clone().canonical());
    Some(ReplicateResponse { status: status.into(), header, ..ReplicateResponse::default() })
}
