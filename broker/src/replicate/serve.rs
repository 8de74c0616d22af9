//! Serving Replicate (journal protocol §6.1): a stream is checked and resolved here, and then belongs to the replica.

use futures::StreamExt;
use futures::stream::BoxStream;
use proto::Revision;
use proto::protocol::{Header, ReplicateRequest, ReplicateResponse, Status};
use proto::{Canonical, Validate};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::error::ServiceError;
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
        let (handed_over, handed) = oneshot::channel::<Streaming<ReplicateRequest>>();
        let requests_later = async move {
            handed.await.map(StreamExt::boxed).unwrap_or_else(|_| futures::stream::empty().boxed())
        };
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
                drop(handed_over.send(requests));
                return Ok(ReceiverStream::new(responses).boxed());
            },
            () = at.invalidated.cancelled() => {}
        }
    }
}

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
