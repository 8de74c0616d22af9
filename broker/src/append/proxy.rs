//! Proxying an append to the journal's primary (journal protocol §5.8).

use std::sync::{Arc, Mutex, PoisonError};

use auth::Capability;
use bytes::Bytes;
use futures::Stream;
use proto::protocol::{AppendRequest, AppendResponse, Header};

use tokio::sync::mpsc;
use tonic::Status;

use super::content::Content;
use super::failure::Failure;
use crate::peers::Peers;
use crate::replica::ReplicaDeps;

/// Content messages that are read ahead of the peer, when content gathered earlier is replayed to it.
const REPLAY_AHEAD: usize = 2;
/// Most content of one replayed message: well below the peer's limit, which a chunk of the client's may just reach.
const REPLAY_BYTES_MAX: usize = 1 << 20;

/// Sends `opening` to the process which `header` names, and then the messages of `stream` one by one. The peer's response
/// is relayed as it is. If the client's stream fails, the peer sees an end without commit, and the client's own error is
/// returned.
pub(super) async fn relay<S>(
    peers: &Peers,
    header: Header,
    opening: AppendRequest,
    stream: S,
) -> Result<AppendResponse, Failure>
where
    S: Stream<Item = Result<AppendRequest, Status>> + Send + 'static,
{
    let mut client = peers.client_of(&header).map_err(Failure::Unreachable)?;
    let journal = opening.journal.clone();
    let opening = AppendRequest { header: Some(header), ..opening };
    let failed = Arc::new(Mutex::new(None));
    let failure = Arc::clone(&failed);
    let rest = tokio_stream::StreamExt::map_while(stream, move |message| {
        let keep = |status| *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        message.map_err(keep).ok()
    });
    let messages = futures::StreamExt::chain(futures::stream::iter([opening]), rest);
    let outcome = client.append(peers.request(messages, Capability::APPEND, &journal)).await;
    if let Some(status) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(Failure::Client(status));
    }
    outcome.map(tonic::Response::into_inner).map_err(Failure::Peer)
}

/// The messages after the opening one of an append whose content was gathered already.
pub(super) fn replay(
    content: Arc<Content>,
    deps: &ReplicaDeps,
) -> impl Stream<Item = Result<AppendRequest, Status>> + Send + 'static {
    let (sender, messages) = mpsc::channel(REPLAY_AHEAD);
    let send = move || {
        let sent = content.for_each(|block: Bytes| {
            let mut rest = block;
            while !rest.is_empty() {
                let content = rest.split_to(rest.len().min(REPLAY_BYTES_MAX));
                let message = AppendRequest { content, ..AppendRequest::default() };
                // An error means that nobody listens any more.
                sender.blocking_send(Ok(message)).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            }
            Ok::<_, std::io::Error>(())
        });
        let last = sent.map(|()| AppendRequest::default()).map_err(|err| Status::unknown(err.to_string()));
        drop(sender.blocking_send(last));
    };
    drop(deps.tasks.spawn_blocking("replay append", send));
    tokio_stream::wrappers::ReceiverStream::new(messages)
}
