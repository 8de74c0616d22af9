//! Where requests enter (journal protocol §13): what each needs a token for, and how it ends when that expires.
//!
//! [`auth::Admission`] checks tokens, before the body of a request is read. What a token does not reach is as if it did not
//! exist. Streams of answers end cleanly at the expiry, as they may at any time; whoever reads on does so with another token.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use auth::{Access, Capability, Expired, expired};
use futures::StreamExt;
use futures::stream::{BoxStream, Stream};
use proto::protocol::ReplicateRequest;
use runtime::{CancellationToken, Clock};
use tonic::{Request, Status};

/// How long a group that is being replicated may take to end, once the token of its stream has expired.
const GROUP_LIMIT: Duration = Duration::from_secs(60);

/// What a token must allow for each method of the service (journal protocol §2.1).
pub const METHODS: [(&str, Capability); 7] = [
    ("/protocol.Journal/List", Capability::LIST),
    ("/protocol.Journal/Apply", Capability::APPLY),
    ("/protocol.Journal/Read", Capability::READ),
    ("/protocol.Journal/Append", Capability::APPEND),
    ("/protocol.Journal/Replicate", Capability::REPLICATE),
    ("/protocol.Journal/ListFragments", Capability::READ),
    ("/protocol.Journal/FragmentStoreHealth", Capability::READ),
];

/// What a call may see, whose token was checked before its body was read.
///
/// # Errors
/// See [`Access::of`].
pub fn access_of<T>(call: &Request<T>) -> Result<Access, Status> {
    let access = Access::of(call)?;
    if access.selector.is_everything() {
        return Ok(access);
    }
    // Everywhere, so that one token means the same for every request.
    Ok(Access { selector: access.selector.rewrite_legacy_prefix(), ..access })
}

/// `stream`, which ends cleanly when the token expires.
pub fn until_expiry<T: Send + 'static>(
    clock: &Clock,
    access: &Access,
    stream: BoxStream<'static, T>,
) -> BoxStream<'static, T> {
    if access.expires.is_none() {
        return stream;
    }
    stream.take_until(expired(clock, access)).boxed()
}

/// The stream of a client, which fails when its token expires.
pub fn failing_at_expiry<T: Send + 'static>(
    clock: &Clock,
    access: &Access,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> ClientStream<T> {
    let mut stream = stream.boxed();
    if access.expires.is_none() {
        return ClientStream(stream);
    }
    let mut expired = expired(clock, access);
    let failing = async_stream::stream! {
        loop {
            let next = tokio::select! {
                biased;
                () = &mut expired => Err(Expired),
                next = stream.next() => Ok(next),
            };
            match next {
                Ok(Some(next)) => yield next,
                Ok(None) => return,
                Err(expired) => {
                    yield Err(expired.into());
                    return;
                }
            }
        }
    };
    ClientStream(failing.boxed())
}

/// What a client sends.
pub struct ClientStream<T>(BoxStream<'static, Result<T, Status>>);

impl<T> Stream for ClientStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

/// The messages of a primary, which end after its token has expired: between two groups, so that none has an unknown
/// outcome for it; or, if a group does not end, a minute later. `expired` then fires.
pub fn until_expiry_between_groups(
    clock: &Clock,
    access: &Access,
    messages: impl Stream<Item = Result<ReplicateRequest, Status>> + Send + Unpin + 'static,
    expired: CancellationToken,
) -> BoxStream<'static, Result<ReplicateRequest, Status>> {
    let Some(expires) = access.expires else { return messages.boxed() };
    let (clock, mut messages) = (clock.clone(), messages);
    async_stream::stream! {
        // The opening message proposes what there is, and asks for an acknowledgement.
        let mut is_between = true;
        loop {
            let limit = if is_between { expires } else { expires + GROUP_LIMIT };
            let message = tokio::select! {
                biased;
                () = clock.sleep_until_unix(limit) => {
                    expired.cancel();
                    None
                }
                message = messages.next() => message,
            };
            let Some(message) = message else { return };
            is_between = message.as_ref().is_ok_and(|message| message.acknowledge);
            yield message;
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use runtime::ClockSteering;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;
    use tonic::Code;

    use super::*;

    /// A clock that the test moves, and an access which ends in an hour.
    fn hour() -> (Clock, ClockSteering, Access) {
        let (clock, steering) = Clock::steered();
        let access = Access { expires: Some(clock.unix_now() + HOUR), ..Access::unlimited() };
        (clock, steering, access)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn answers_end_cleanly() {
        let (clock, steering, access) = hour();
        let (sender, answers) = mpsc::channel(9);
        let mut answers = until_expiry(&clock, &access, ReceiverStream::new(answers).boxed());
        sender.send(1).await.unwrap();
        assert_eq!(answers.next().await, Some(1));
        assert!(futures::poll!(answers.next()).is_pending());
        steering.advance(HOUR);
        assert_eq!(answers.next().await, None);
        let unlimited = until_expiry(&clock, &Access::unlimited(), stream::iter([1, 2]).boxed());
        assert_eq!(unlimited.count().await, 2);
    }

    #[tokio::test]
    async fn requests_fail() {
        let (clock, steering, access) = hour();
        let (sender, requests) = mpsc::channel(9);
        let mut requests = failing_at_expiry(&clock, &access, ReceiverStream::new(requests));
        sender.send(Ok(1)).await.unwrap();
        assert_eq!(requests.next().await.unwrap().unwrap(), 1);
        assert!(futures::poll!(requests.next()).is_pending());
        steering.advance(HOUR);
        assert_eq!(requests.next().await.unwrap().unwrap_err().code(), Code::DeadlineExceeded);
        assert!(requests.next().await.is_none());

        let (clock, _steering, access) = hour();
        let ended = failing_at_expiry(&clock, &access, stream::iter([Ok::<_, Status>(1)]));
        assert_eq!(ended.count().await, 1, "an end of its own comes first");
    }

    /// Sends messages which ask for an acknowledgement or not, lets the token expire, sends more, and lets the limit pass.
    /// Returns how many messages came.
    async fn replicated(before: &[bool], after: &[bool]) -> usize {
        let message = |acknowledge| Ok(ReplicateRequest { acknowledge, ..ReplicateRequest::default() });
        let (clock, steering, access) = hour();
        let (sender, messages) = mpsc::channel(9);
        let token = CancellationToken::new();
        let messages = ReceiverStream::new(messages);
        let mut messages = until_expiry_between_groups(&clock, &access, messages, token.clone());
        for acknowledge in before {
            sender.send(message(*acknowledge)).await.unwrap();
            messages.next().await.unwrap().unwrap();
        }
        assert!(futures::poll!(messages.next()).is_pending());
        steering.advance(HOUR);
        let mut came = before.len();
        for acknowledge in after {
            if sender.send(message(*acknowledge)).await.is_err() || messages.next().await.is_none() {
                break;
            }
            came += 1;
        }
        steering.advance(GROUP_LIMIT);
        assert!(messages.next().await.is_none());
        assert!(token.is_cancelled());
        came
    }

    #[tokio::test]
    async fn replication_ends_between_groups() {
        assert_eq!(replicated(&[], &[true]).await, 0);
        assert_eq!(replicated(&[false, true], &[false]).await, 2);
        assert_eq!(replicated(&[true, false], &[false, true, false]).await, 4);
        assert_eq!(replicated(&[false], &[false, false]).await, 3, "a group which does not end");
        let (clock, _steering, access) = hour();
        let token = CancellationToken::new();
        let ended = stream::iter([Ok(ReplicateRequest::default())]);
        assert_eq!(until_expiry_between_groups(&clock, &access, ended, token.clone()).count().await, 1);
        assert!(!token.is_cancelled());
    }
}
