//! A replica that is not the primary: it serves the primary's Replicate stream (journal protocol §6.1).
//!
//! The spool belongs to one stream at a time. A newer one waits until its predecessor has ended, as does this broker when it
//! becomes the primary; but a predecessor whose primary hangs does not end, and so it is cut off a moment after it was
//! superseded. Its primary then learns that it is none any more.

use std::time::Duration;

use futures::stream::{BoxStream, Stream};
use futures::{FutureExt, StreamExt};
use proto::Revision;
use proto::protocol::{Header, ReplicateRequest, ReplicateResponse};
use runtime::CancellationToken;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::follower::{self, Applied, AppliedStep};
use super::owner::{Owner, Worked};
use super::view::Head;
use super::writer::Writer;
use crate::persist::Begin;

/// Time for a stream to end by itself once it was superseded.
const YIELD_AFTER: Duration = Duration::from_secs(1);
/// Messages that are applied together.
const BATCH_MAX: usize = 64;
/// Content of messages that are applied in place, in bytes: the page cache takes it in less time than it takes to wake a
/// thread.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// The messages of a primary.
pub(crate) type Requests = BoxStream<'static, Result<ReplicateRequest, Status>>;

/// A Replicate stream whose route was found to be current.
pub(crate) struct Follow {
    /// Of the stream's first response.
    pub(crate) header: Header,
    /// The stream's first message. It has a header and a proposal.
    pub(crate) opening: ReplicateRequest,
    /// Its other messages.
    pub(crate) requests: Requests,
    /// Where the answers go.
    pub(crate) responses: mpsc::Sender<Result<ReplicateResponse, Status>>,
    /// Told once the stream has the spool. Nobody waits for it any more if it is closed.
    pub(crate) accepted: oneshot::Sender<()>,
}

/// The stream that has the spool.
pub(super) struct Following {
    header: Option<Header>,
    requests: Requests,
    responses: mpsc::Sender<Result<ReplicateResponse, Status>>,
    /// Until there is content, primary and replica agree on the spool that there was.
    is_agreeing: bool,
    /// Fires when the stream ends.
    ended: CancellationToken,
}

impl Follow {
    /// The revision of the primary's route.
    pub(super) fn revision(&self) -> Revision {
        self.opening.header.as_ref().map_or(Revision::NONE, Header::revision)
    }
}

/// What a stream brought.
pub(super) enum Brought {
    Messages(Vec<ReplicateRequest>),
    /// It ended, by failure or not.
    End,
}

impl Following {
    /// When this replica uploads a fragment that was completed under this stream. One from before it may be of a primary
    /// that is gone.
    pub(super) fn upload_begin(&self) -> Begin {
        match self.is_agreeing {
            true => Begin::Now,
            false => Begin::AfterPrimary(self.ended.clone()),
        }
    }

    /// The next messages: all that are there. May be dropped and called again.
    pub(super) async fn brought(&mut self) -> Brought {
        let first = tokio::select! {
            biased;
            // The primary has gone away without a word.
            () = self.responses.closed() => return Brought::End,
            first = self.requests.next() => first,
        };
        let Some(Ok(first)) = first else { return Brought::End };
        let mut messages = vec![first];
        while messages.len() < BATCH_MAX {
            match next_ready(&mut self.requests) {
                Some(Ok(message)) => messages.push(message),
                // The end shows again.
                Some(Err(_)) | None => break,
            }
        }
        Brought::Messages(messages)
    }
}

fn next_ready(
    requests: &mut (impl Stream<Item = Result<ReplicateRequest, Status>> + Unpin),
) -> Option<Result<ReplicateRequest, Status>> {
    requests.next().now_or_never().flatten()
}

impl Owner {
    /// The newest stream waits for the spool; the ones before it were opened for older routes.
    pub(super) fn on_follow(&mut self, follow: Follow) {
        if self.agreeing.as_ref().is_some_and(|agreeing| agreeing.revision < follow.revision()) {
            self.give_up_agreeing();
        }
        self.follows
            .retain(|waiting| !waiting.accepted.is_closed() && waiting.revision() > follow.revision());
        self.follows.push_back(follow);
    }

    /// The revision of the newest stream that waits for the spool.
    pub(super) fn follow_revision(&mut self) -> Option<Revision> {
        self.follows.retain(|waiting| !waiting.accepted.is_closed());
        self.follows.iter().map(Follow::revision).max()
    }

    /// Gives the spool to the newest stream that waits.
    pub(super) fn begin_following(&mut self) {
        let Some(newest) = self.follow_revision() else { return };
        let at =
            self.follows.iter().position(|follow| follow.revision() == newest).expect("it is one of them");
        let follow = self.follows.remove(at).expect("it is there");
        self.follows.clear();
        self.drop_pipeline();
        let Follow { header, opening, requests, responses, accepted } = follow;
        let revision = opening.header.as_ref().map_or(Revision::NONE, Header::revision);
        let ended = CancellationToken::new();
        self.following =
            Some(Following { header: Some(header), requests, responses, is_agreeing: true, ended });
        // Nobody may have waited until now; the stream's end shows that too.
        let _ = accepted.send(());
        self.synced_at = revision;
        self.apply_messages(vec![opening], Some(revision));
    }

    /// The time at which a superseded stream is cut off.
    pub(super) fn yield_following(&mut self) {
        if self.yield_at.is_none() {
            self.yield_at = Some(self.deps.clock.now() + YIELD_AFTER);
        }
    }

    pub(super) fn on_brought(&mut self, brought: Brought) {
        match brought {
            Brought::Messages(messages) => self.apply_messages(messages, None),
            Brought::End => self.end_following(),
        }
    }

    /// Applies messages; the first of a stream over the route of `opened`.
    fn apply_messages(&mut self, messages: Vec<ReplicateRequest>, opened: Option<Revision>) {
        let mut writer = self.writer.take().expect("a stream's messages are applied one batch at a time");
        let (durability, now) = (self.deps.durability, self.deps.clock.unix_now());
        let in_place = durability == crate::spool::Durability::Process
            && opened.is_none()
            && follower::content_bytes(&messages) <= INLINE_BYTES_MAX
            && follower::is_plain(&writer.dir, &messages);
        if let Some(following) = &mut self.following {
            following.is_agreeing &= messages.iter().all(|message| message.content.is_empty());
        }
        if in_place {
            let applied = follower::apply(&mut writer.dir, messages, None, durability, now);
            return self.on_applied(writer, applied);
        }
        let apply = move || {
            let applied = follower::apply(&mut writer.dir, messages, opened, durability, now);
            (writer, applied)
        };
        let applied = self.deps.tasks.spawn_blocking("apply messages", apply);
        self.work = Some(applied.map(|(writer, applied)| Worked::Applied(writer, applied)).boxed());
    }

    pub(super) fn on_applied(&mut self, writer: Writer, applied: Applied) {
        let Applied { responses, steps, failure } = applied;
        self.latest_file = writer.dir.written().file.or(self.latest_file.take());
        let head = Head::of(writer.dir.spool(), None, self.synced_at);
        self.writer = Some(writer);
        for AppliedStep { completed, written, settled_through } in steps {
            let end = written.as_ref().map_or(0, |written| written.fragment.end);
            let completed_end = completed.as_ref().map_or(0, |spool| spool.completed.fragment.end);
            self.hold(completed_end, completed, None);
            self.hold(end, None, written);
            // A primary that does not say shows content as soon as it is written, and so do its replicas.
            self.confirm(settled_through.unwrap_or(end));
        }
        let is_agreed = self.following.as_ref().is_some_and(|following| following.is_agreeing)
            && responses.last().is_some_and(|response| response.status() == proto::protocol::Status::Ok);
        if is_agreed {
            self.confirm(head.end);
            self.head = Some(head);
            self.publish();
        }
        self.respond(responses);
        if let Some(failure) = failure {
            self.fail_following(&failure);
        }
    }

    fn respond(&mut self, responses: Vec<ReplicateResponse>) {
        let Some(following) = &mut self.following else { return };
        for response in responses {
            let header = following.header.take();
            // Full only if the primary has more proposals open than any may have, and closed if it has gone.
            if following.responses.try_send(Ok(ReplicateResponse { header, ..response })).is_err() {
                return self.end_following();
            }
        }
    }

    pub(super) fn fail_following(&mut self, failure: &str) {
        tracing::warn!(journal = %self.place.head.journal, error = failure, "replication stream failed");
        if let Some(following) = &self.following {
            // An error means that the primary has gone.
            let _ = following.responses.try_send(Err(Status::unknown(failure)));
        }
        self.end_following();
    }

    /// Takes the spool back. What was not committed is forgotten.
    pub(super) fn end_following(&mut self) {
        if let Some(following) = self.following.take() {
            following.ended.cancel();
        }
        self.yield_at = None;
        if let Some(writer) = &mut self.writer {
            writer.dir.undo();
        }
    }
}
