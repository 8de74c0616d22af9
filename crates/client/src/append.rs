//! Single appends: one call each, and the helper which repeats it.
//!
//! A call whose connection breaks after the commit was sent has an *unknown outcome*: the content may be in the journal.
//! Repeating it then writes the content twice. That is the contract of appends here and in every other client: content
//! is appended at least once, and messages are de-duplicated by whoever sequences them.

use crate::client::{JournalClient, backoff, bare_name};
use crate::error::{ClientError, check_append};
use crate::outage::Outage;
use crate::routes::Need;
use auth::{Capability, Grant};
use bytes::Bytes;
use futures::future::ready;
use futures::{Stream, StreamExt};
use proto::Validate;
use proto::protocol::{AppendRequest, AppendResponse};
use runtime::trace;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::Instrument;

/// Content bytes per message: well below the 4 MiB which servers receive.
pub(crate) const CHUNK_BYTES_MAX: usize = 512 << 10;

impl JournalClient {
    /// Appends `content` in a single call, and returns the broker's answer, whatever its status. An error of `content`
    /// rolls the append back. `request` has no content of its own. Pieces of any size are sent as they come.
    pub async fn append_once(
        &self,
        request: AppendRequest,
        content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<AppendResponse, ClientError> {
        request.validate().map_err(ClientError::Request)?;
        let journal = bare_name(&request.journal).to_owned();
        let mut call = self.dispatch(&journal, Need::Primary)?;

        let failure = Arc::new(Mutex::new(None));
        let messages = messages(request, content, Arc::clone(&failure));
        let span = tracing::info_span!(target: trace::TARGET, "append", journal, otel.kind = "client");
        let grant = Grant::journal(Capability::APPEND, &journal);
        let messages = span.in_scope(|| self.options().request(messages, grant));
        let outcome = call.rpc.append(messages).instrument(span).await.map_err(ClientError::Grpc);
        if let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(ClientError::Content(Arc::new(error)));
        }
        let response = self.note_failure(&journal, &call, outcome)?.into_inner();
        response.validate().map_err(ClientError::Response)?;
        self.observe(&journal, response.header.as_ref());
        if let (Some(series), Some(commit)) = (self.series(), &response.commit) {
            series.appended(&journal).inc_by(u64::try_from(commit.end - commit.begin).unwrap_or(0));
        }
        Ok(response)
    }

    /// Appends `content`, and repeats that while brokers are unavailable or disagree about the route, until the client's
    /// tasks are cancelled. Content is appended at least once.
    ///
    /// # Errors
    /// Every other failure, and every other status than OK.
    pub async fn append(
        &self,
        request: AppendRequest,
        content: Bytes,
    ) -> Result<AppendResponse, ClientError> {
        let (mut backoff, mut outage) = (backoff(), Outage::default());
        loop {
            let pieces = futures::stream::iter([Ok(content.clone())]);
            let response = self.append_once(request.clone(), pieces).await;
            let error = match response.and_then(|response| check_append(&request.journal, response)) {
                Err(error) if error.is_unavailable() || error.is_routing() => error,
                outcome => return outcome,
            };
            outage.failed(&error, self.options().clock.now(), |failing| {
                tracing::warn!(journal = request.journal, %error, %failing, "append failed (will retry)");
            });
            self.pause(backoff.next()).await?;
        }
    }
}

/// The messages of an append: the request, its content, and the commit. Without a commit, the broker rolls back: that
/// is how an error of `content`, which is left in `failure`, ends the append.
fn messages(
    request: AppendRequest,
    content: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    failure: Arc<Mutex<Option<io::Error>>>,
) -> impl Stream<Item = AppendRequest> + Send + 'static {
    let chunks = content.flat_map(|piece| futures::stream::iter(Chunks(Some(piece))));
    // The commit is a chunk without content.
    let commit = futures::stream::iter([Ok(Bytes::new())]);
    let content = chunks.chain(commit).map(move |chunk| match chunk {
        Ok(content) => Some(AppendRequest { content, ..Default::default() }),
        Err(error) => {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            None
        }
    });
    let content = content.take_while(|message| ready(message.is_some())).filter_map(ready);
    futures::stream::iter([request]).chain(content)
}

/// A piece of content, cut into messages. An empty piece is none, as an empty message is the commit.
struct Chunks(Option<io::Result<Bytes>>);

impl Iterator for Chunks {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        match self.0.take()? {
            Ok(piece) if piece.is_empty() => None,
            Ok(mut piece) if piece.len() > CHUNK_BYTES_MAX => {
                let chunk = piece.split_to(CHUNK_BYTES_MAX);
                self.0 = Some(Ok(piece));
                Some(Ok(chunk))
            }
            other => Some(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pieces: Vec<io::Result<Bytes>>) -> (Vec<usize>, bool) {
        let failure = Arc::new(Mutex::new(None));
        let request = AppendRequest { journal: "a/journal".to_owned(), ..Default::default() };
        let all = messages(request.clone(), futures::stream::iter(pieces), Arc::clone(&failure));
        let mut all: Vec<_> = futures::executor::block_on(all.collect());
        assert_eq!(all.remove(0), request);
        let failed = failure.lock().unwrap().is_some();
        (all.iter().map(|message| message.content.len()).collect(), failed)
    }

    #[test]
    fn content_is_cut_into_chunks_and_committed() {
        assert_eq!(sent(vec![]), (vec![0], false));
        assert_eq!(sent(vec![Ok(Bytes::new()), Ok(Bytes::from_static(b"abc"))]), (vec![3, 0], false));
        let large = Bytes::from(vec![7; 2 * CHUNK_BYTES_MAX + 1]);
        assert_eq!(sent(vec![Ok(large)]), (vec![CHUNK_BYTES_MAX, CHUNK_BYTES_MAX, 1, 0], false));
    }

    #[test]
    fn an_error_of_the_content_ends_without_commit() {
        let pieces =
            vec![Ok(Bytes::from_static(b"abc")), Err(io::Error::other("gone")), Ok(Bytes::from_static(b"d"))];
        assert_eq!(sent(pieces), (vec![3], true));
    }
}
