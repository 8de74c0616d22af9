//! Serving one Read (journal protocol §8) from this broker's replica, or from a peer.
//!
//! [`core::ReadCore`] decides; this driver asks the index, reads files and stores, and waits. A tail read waits for the
//! index to change and never polls. Content is read ahead by up to [`READ_AHEAD_BYTES`] and sent in chunks of up to
//! [`READ_CHUNK_BYTES_MAX`]; a slow reader holds no more than that. The stream ends cleanly when the replica stops.

mod content;
mod core;

use bytes::Bytes;
use fragment::index::Answer;
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::Canonical;
use proto::protocol::{ReadRequest, ReadResponse};
use runtime::{CancellationToken, Clock};
use stores::Stores;
use tokio::sync::watch;
use tonic::{Code, Status};

use self::content::ContentReader;
use self::core::{ReadCore, Step, Visit};
use crate::error::ServiceError;
use crate::replica::IndexView;
use crate::resolver::Resolution;
use crate::stored;

/// What reads need beside their replica.
#[derive(Clone)]
pub struct ReadContext {
    /// Time.
    pub clock: Clock,
    /// Where stored fragments are.
    pub stores: Stores,
    /// Reads of files, where blocking is allowed.
    pub files: runtime::TaskGroup,
}

/// The responses of a read.
pub type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

/// Serves a validated request from the replica that it resolved to.
pub fn serve(context: ReadContext, request: ReadRequest, resolution: Resolution) -> ReadStream {
    let stopped = resolution.stopped.clone();
    let core = ReadCore::new(&request, resolution.header.canonical());
    let Some(replica) = resolution.replica else { return futures::stream::empty().boxed() };
    let index = replica.index();
    Box::pin(async_stream::stream! {
        let mut read = Read { context, core, index, stopped };
        loop {
            let visit = match read.next().await {
                Next::Visit(visit) => visit,
                Next::Finish(response) => {
                    yield Ok(*response);
                    return;
                }
                Next::End => return,
            };
            let Visit { mut response, fragment, file, content } = *visit;
            match stored::read_url(&read.context.stores, &fragment) {
                Ok(url) => response.fragment_url = url,
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            }
            yield Ok(response);
            let Some((begin, end)) = content else { return };
            let mut reader = match ContentReader::open(&read.context, &fragment, file, begin, end).await {
                Ok(reader) => reader,
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            };
            loop {
                let offset = reader.offset();
                match reader.next().await {
                    Ok(Some(content)) => yield Ok(chunk(offset, content)),
                    Ok(None) => break,
                    Err(error) => {
                        yield Err(error.into());
                        return;
                    }
                }
            }
            if !read.core.sent(end) {
                return;
            }
        }
    })
}

fn chunk(offset: i64, content: Bytes) -> ReadResponse {
    ReadResponse { offset, content, ..ReadResponse::default() }
}

struct Read<L> {
    context: ReadContext,
    core: ReadCore,
    index: watch::Receiver<L>,
    stopped: CancellationToken,
}

enum Next<L> {
    Visit(Box<Visit<L>>),
    Finish(Box<ReadResponse>),
    /// The replica has stopped.
    End,
}

impl Read<IndexView> {
    /// Waits until the index has an answer.
    async fn next(&mut self) -> Next<crate::spool::LocalFile> {
        loop {
            let view = self.index.borrow_and_update().clone();
            let query = self.core.query(self.context.clock.unix_seconds());
            let answer = view.index.query(&query);
            // Before spools are adopted and stores listed, only content that is surely next may be served: what is missing
            // here may be stored, and the end of the journal is not known.
            let is_complete = view.first_listing_done && view.head.is_some();
            let is_certain = matches!(&answer, Answer::Found(found) if found.offset == query.offset);
            let step = match is_complete || is_certain {
                true => self.core.on_answer(answer),
                false => Step::Wait { retry_at_unix: None },
            };
            let retry_at_unix = match step {
                Step::Visit(visit) => return Next::Visit(visit),
                Step::Finish(response) => return Next::Finish(response),
                Step::Wait { retry_at_unix } => retry_at_unix,
            };
            tokio::select! {
                biased;
                () = self.stopped.cancelled() => return Next::End,
                changed = self.index.changed() => if changed.is_err() {
                    return Next::End;
                },
                () = sleep_until_unix(&self.context.clock, retry_at_unix) => {}
            }
        }
    }
}

async fn sleep_until_unix(clock: &Clock, unix_seconds: Option<i64>) {
    match unix_seconds.map(|at| at.saturating_sub(clock.unix_seconds())) {
        Some(wait) => clock.sleep(std::time::Duration::from_secs(u64::try_from(wait).unwrap_or(0))).await,
        None => std::future::pending().await,
    }
}

/// Forwards a request to the process that it resolved to, and relays its responses. Ends cleanly when this broker stops.
///
/// # Errors
/// If no peer can be asked, or it refuses at once.
pub async fn proxy(
    peers: &crate::peers::Peers,
    mut request: ReadRequest,
    resolution: Resolution,
    stop: CancellationToken,
) -> Result<ReadStream, ServiceError> {
    let mut client = peers.client_of(&resolution.header).map_err(ServiceError::Peer)?;
    request.header = Some(resolution.header.canonical());
    let mut responses =
        client.read(request).await.map_err(|status| ServiceError::Peer(status.into()))?.into_inner();
    Ok(Box::pin(async_stream::stream! {
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                next = responses.next() => next,
            };
            match next {
                Some(Ok(response)) => yield Ok(response),
                Some(Err(status)) if status.code() != Code::Cancelled => {
                    yield Err(status);
                    return;
                }
                Some(Err(_)) | None => return,
            }
        }
    }))
}
