//! Serving one Read (journal protocol §8) from this broker's replica, or from a peer.
//!
//! [`core::ReadCore`] decides; this driver asks the index, reads files and stores, and waits. A tail read waits for the
//! index to change and never polls. What a new replica lacks is relayed from one that has it ([`elsewhere`]). Content is read ahead by up to [`READ_AHEAD_BYTES`] and sent in chunks of up to
//! [`READ_CHUNK_BYTES_MAX`]; a slow reader holds no more than that. The stream ends cleanly when the replica stops.

mod ahead;
mod content;
mod copies;
mod core;
mod elsewhere;

use auth::Capability;
use bytes::Bytes;
use fragment::index::Answer;
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::Canonical;
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{ReadRequest, ReadResponse};
use runtime::grpc_metrics::CountedChannel;
use runtime::prometheus::IntCounterVec;
use runtime::{CancellationToken, Clock, Instant};
use std::time::Duration;
use stores::Stores;
use tokio::sync::watch;
use tonic::{Code, Status};

use self::ahead::Ahead;
use self::copies::Copies;
use self::core::{ReadCore, Step, Visit};
use self::elsewhere::{Elsewhere, Held, Relay};
use crate::error::ServiceError;
use crate::peers::{Peers, is_connection};
use crate::replica::{IndexView, Replica};
use crate::resolver::Resolution;
use crate::spool::LocalFile;
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
    /// Age of the stored fragment after missing content from which on reads pass over what is missing.
    pub hole_age: Duration,
    /// Copies of content which cannot be read, see [`copy_failures`].
    pub failures: IntCounterVec,
}

pub use self::copies::failures as copy_failures;

/// The responses of a read.
pub type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

/// How long a read that does not block waits for content which this replica lacks, though the journal goes on behind it.
const GAP_WAIT: Duration = Duration::from_secs(10);

/// How long requests which do not block wait for the first listing of a journal's stores.
pub const LISTING_WAIT: Duration = Duration::from_secs(10);

/// Serves a validated request from the replica that it resolved to.
pub fn serve(context: ReadContext, peers: Peers, request: ReadRequest, resolution: Resolution) -> ReadStream {
    let Some(replica) = resolution.replica else { return futures::stream::empty().boxed() };
    let mut read = Read {
        core: ReadCore::new(&request, resolution.header.clone().canonical(), context.hole_age),
        elsewhere: Elsewhere::new(peers, context.clock.clone(), &request, &resolution.header),
        index: replica.index(),
        ahead: Ahead::default(),
        replica,
        context,
        stopped: resolution.stopped,
        gap_until: None,
        listed_until: None,
    };
    Box::pin(async_stream::stream! {
        loop {
            let visit = match read.next().await {
                Next::Visit(visit) => visit,
                Next::Relay(mut relay) => {
                    while let Some(response) = relay.next(&read.stopped).await {
                        yield Ok(read.core.with_header(response));
                    }
                    if !read.core.sent(relay.offset()) || read.core.is_metadata_only() {
                        return;
                    }
                    continue;
                }
                Next::Finish(response) => {
                    yield Ok(*response);
                    return;
                }
                Next::Fail(status) => {
                    yield Err(status);
                    return;
                }
                Next::End => return,
            };
            let Visit { mut response, fragment, file, content } = *visit;
            match stored::read_url(&read.context.stores, &fragment).await {
                Ok(url) => response.fragment_url = url,
                // The content follows, perhaps from another store.
                Err(error) if content.is_some() => tracing::debug!(%error, "a response lacks its URL"),
                Err(error) => {
                    yield Err(error.into());
                    return;
                }
            }
            yield Ok(response);
            let Some((begin, end)) = content else { return };
            let (mut copies, mut reached) = (Copies::new(fragment, file, begin, end), end);
            loop {
                match copies.next(&mut read).await {
                    Ok(Some((offset, content))) => {
                        read.look_ahead(offset, end);
                        yield Ok(chunk(offset, content));
                    }
                    Ok(None) => break,
                    Err(error) => {
                        let Some(offset) = read.pruned_from(copies.missing_from()).await else {
                            yield Err(error.into());
                            return;
                        };
                        reached = offset;
                        break;
                    }
                }
            }
            if !read.core.sent(reached) {
                return;
            }
        }
    })
}

fn chunk(offset: i64, content: Bytes) -> ReadResponse {
    ReadResponse { offset, content, ..ReadResponse::default() }
}

struct Read {
    context: ReadContext,
    core: ReadCore,
    elsewhere: Elsewhere,
    replica: Replica,
    index: watch::Receiver<IndexView>,
    ahead: Ahead,
    stopped: CancellationToken,
    /// Until when a read that does not block waits for content which this replica lacks.
    gap_until: Option<Instant>,
    /// Until when a read that does not block waits for what the journal holds to be known.
    listed_until: Option<Instant>,
}

enum Next {
    Visit(Box<Visit<LocalFile>>),
    /// Another replica has what comes next.
    Relay(Box<Relay>),
    Finish(Box<ReadResponse>),
    Fail(Status),
    /// The replica has stopped.
    End,
}

impl Read {
    /// Waits until the index, or another replica, has an answer.
    async fn next(&mut self) -> Next {
        loop {
            let view = self.index.borrow_and_update().clone();
            let end = end_of(&view);
            let query = self.core.query(self.context.clock.unix_seconds(), end);
            let answer = view.index.query(&query);
            // Before spools are adopted and stores listed, only content that is surely next may be served: what is missing
            // here may be stored, and the end of the journal is not known.
            let is_complete = view.first_listing_done && view.head.is_some();
            let is_certain = matches!(&answer, Answer::Found(found) if found.offset == query.offset);
            if !is_complete && !is_certain {
                match self.wait_for_listing().await {
                    Some(next) => return next,
                    None => continue,
                }
            }
            let again = match self.core.gap(&answer, query.offset, end) {
                None => None,
                Some(gap) => match self.on_gap(gap, Beyond::of(&answer, &view)).await {
                    AtGap::Next(next) => return next,
                    AtGap::Wait(again) => Some(again),
                    AtGap::Ignore => None,
                },
            };
            let step = match again {
                Some(_) if !self.core.is_blocking() || matches!(answer, Answer::Found(_)) => {
                    Step::Wait { retry_at_unix: None }
                }
                _ => self.core.on_answer(answer, end),
            };
            match step {
                Step::Visit(visit) => return Next::Visit(visit),
                Step::Finish(response) => return Next::Finish(response),
                Step::Wait { retry_at_unix } => {
                    if !self.wait(again, retry_at_unix).await {
                        return Next::End;
                    }
                }
            }
        }
    }

    /// Waits until more is known of what the journal holds. A read that does not block hears after a while that it is not: an
    /// end of zero would be taken for that of the journal.
    async fn wait_for_listing(&mut self) -> Option<Next> {
        let mut until = None;
        if !self.core.is_blocking() {
            let now = self.context.clock.now();
            let listed_until = *self.listed_until.get_or_insert(now + LISTING_WAIT);
            if now >= listed_until {
                return Some(Next::Fail(self.replica.not_listed().into()));
            }
            until = Some(listed_until);
        }
        if self.wait(until, None).await { None } else { Some(Next::End) }
    }

    /// `missing`, an offset whose content has been found to be nowhere, if the journal turns out to begin after it: it was older
    /// than the retention. Waits for the listing which tells.
    async fn pruned_from(&mut self, missing: Option<i64>) -> Option<i64> {
        let (offset, until) = (missing?, self.context.clock.now() + LISTING_WAIT);
        loop {
            let view = self.index.borrow_and_update().clone();
            if view.index.all_covering(offset).is_empty() {
                return (offset < view.index.begin()).then_some(offset);
            }
            if self.context.clock.now() >= until || !self.wait(Some(until), None).await {
                return None;
            }
        }
    }

    /// Looks for content which this replica lacks: with the other replicas, and in the stores. `beyond` is what the index would
    /// go on with.
    async fn on_gap(&mut self, (from, to): (i64, i64), beyond: Beyond) -> AtGap {
        match self.elsewhere.ask(from, to).await {
            Held::By(relay) => {
                self.core.skip_to(from);
                self.gap_until = None;
                return AtGap::Next(Next::Relay(relay));
            }
            // Nobody reads past what a replica may still have.
            Held::Unknown if beyond != Beyond::Nothing => return AtGap::Next(Next::Fail(unknown(from, to))),
            Held::Nowhere if beyond == Beyond::Listed => return AtGap::Ignore,
            Held::Nowhere if beyond == Beyond::Unlisted => return self.on_unlisted(from, to),
            Held::Unknown | Held::Nowhere => {}
        }
        self.replica.want_listing();
        let again = self.elsewhere.again_at(from);
        if self.core.is_blocking() {
            return again.map_or(AtGap::Ignore, AtGap::Wait);
        }
        let now = self.context.clock.now();
        let until = *self.gap_until.get_or_insert(now + GAP_WAIT);
        if now < until { AtGap::Wait(again.map_or(until, |again| again.min(until))) } else { AtGap::Ignore }
    }

    /// Waits for a listing which shows what there is before a fragment that was just stored.
    fn on_unlisted(&mut self, from: i64, to: i64) -> AtGap {
        self.replica.want_full_listing();
        let now = self.context.clock.now();
        if self.core.is_blocking() {
            return AtGap::Wait(now + GAP_WAIT);
        }
        let until = *self.gap_until.get_or_insert(now + GAP_WAIT);
        if now < until { AtGap::Wait(until) } else { AtGap::Next(Next::Fail(unlisted(from, to))) }
    }

    /// Waits until the index changes, or a time comes. False if the replica stops.
    async fn wait(&mut self, until: Option<Instant>, until_unix: Option<i64>) -> bool {
        let clock = &self.context.clock;
        tokio::select! {
            biased;
            () = self.stopped.cancelled() => false,
            changed = self.index.changed() => changed.is_ok(),
            () = sleep_until(clock, until) => true,
            () = sleep_until_unix(clock, until_unix) => true,
        }
    }
}

/// What to do about content which this replica lacks.
enum AtGap {
    Next(Next),
    /// Look again then, or when the index changes.
    Wait(Instant),
    /// What the index says holds.
    Ignore,
}

/// What the index has beyond content that this replica lacks, for a read to go on with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    Nothing,
    /// A fragment which listings show: they would show what is before it, too.
    Listed,
    /// One which this broker has stored, and no listing has shown: it may show what is before it as late.
    Unlisted,
}

impl Beyond {
    fn of(answer: &Answer<LocalFile>, view: &IndexView) -> Beyond {
        match answer {
            Answer::NotYet(_) => Beyond::Nothing,
            Answer::Found(found) if view.is_unlisted(&found.entry.fragment) => Beyond::Unlisted,
            Answer::Found(_) => Beyond::Listed,
        }
    }
}

fn unlisted(from: i64, to: i64) -> Status {
    Status::unavailable(format!(
        "content from {from} to {to} is not in the listings of the stores, which do not show yet what follows it either"
    ))
}

fn unknown(from: i64, to: i64) -> Status {
    Status::unavailable(format!(
        "content from {from} to {to} is not stored, and a replica which may have it cannot be asked"
    ))
}

/// The end of the content which all replicas have, as far as this one knows: that of its fragments or, if it has just joined, the
/// beginning of the spool's fragment.
fn end_of(view: &IndexView) -> i64 {
    view.head.as_ref().map_or(0, |head| head.begin).max(view.index.end())
}

async fn sleep_until(clock: &Clock, at: Option<Instant>) {
    match at {
        Some(at) => clock.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until_unix(clock: &Clock, unix_seconds: Option<i64>) {
    match unix_seconds.map(|at| at.saturating_sub(clock.unix_seconds())) {
        Some(wait) => clock.sleep(Duration::from_secs(u64::try_from(wait).unwrap_or(0))).await,
        None => std::future::pending().await,
    }
}

/// Forwards a request to the process that it resolved to, or to the nearest member of its route, and relays the responses.
/// Ends cleanly when this broker stops.
///
/// # Errors
/// If no peer can be asked, or it refuses at once.
pub async fn proxy(
    peers: &Peers,
    mut request: ReadRequest,
    resolution: Resolution,
    stop: CancellationToken,
) -> Result<ReadStream, ServiceError> {
    request.header = Some(resolution.header.clone().canonical());
    let call = |mut client: JournalClient<CountedChannel>| {
        let request = peers.request(request.clone(), Capability::READ, &request.journal);
        async move { client.read(request).await }
    };
    let (endpoint, responses) = peers.ask(&resolution.header, call).await.map_err(ServiceError::Peer)?;
    let (peers, mut responses) = (peers.clone(), responses.into_inner());
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
                    if is_connection(&status) {
                        peers.note_failed(&endpoint);
                    }
                    yield Err(status);
                    return;
                }
                Some(Err(_)) | None => return,
            }
        }
    }))
}
