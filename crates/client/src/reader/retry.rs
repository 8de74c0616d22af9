//! What a reader which goes on does about the end of a call.

use super::ReadError;
use crate::client::{NOT_FOUND_ATTEMPTS, backoff};
use crate::error::ClientError;
use proto::protocol::Status;
use runtime::backoff::Backoff;
use std::time::Duration;

/// A call which stood this long was a good one, even if there was nothing to read: what ends it is a new trouble.
const STEADY: Duration = Duration::from_secs(5);

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The caller must know.
    Return,
    /// Call again at once.
    Again,
    /// Call again after a while.
    Later(Duration),
}

/// What a call came to before it ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// It got further than it began.
    pub(super) is_further: bool,
    /// How long it stood since a broker took it, if one did.
    pub(super) stood: Option<Duration>,
}

/// The attempts of a reader since it last made progress.
pub(super) struct Attempts {
    count: u32,
    backoff: Backoff,
}

impl Attempts {
    pub(super) fn new() -> Attempts {
        Attempts { count: 0, backoff: backoff() }
    }

    /// Begins anew: for another offset, or when the caller has learned of an end.
    pub(super) fn reset(&mut self) {
        *self = Attempts::new();
    }

    /// Decides about the error which ended a call.
    pub(super) fn on_error(&mut self, error: &ReadError, block: bool, progress: Progress) -> Decision {
        let progressed = progress.is_further || progress.stood.is_some_and(|stood| stood >= STEADY);
        if progressed {
            self.reset();
        }
        let kind = decide(error, block, progressed, self.count);
        self.count = self.count.saturating_add(1);
        match kind {
            Kind::Return => Decision::Return,
            Kind::Again => Decision::Again,
            Kind::Later => Decision::Later(self.backoff.next()),
        }
    }
}

/// A [`Decision`] which leaves open how long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Return,
    Again,
    Later,
}

/// Decides about an error of a call. `progressed` says that the call got further than it began; `attempts` counts the
/// calls which did not, since the last which did.
fn decide(error: &ReadError, block: bool, progressed: bool, attempts: u32) -> Kind {
    match error {
        ReadError::OffsetJump { .. }
        | ReadError::EndOffset
        | ReadError::Suspended(_)
        | ReadError::Cancelled => Kind::Return,
        ReadError::NotYetAvailable { .. } if !block => Kind::Return,
        ReadError::JournalNotFound(_) if attempts >= NOT_FOUND_ATTEMPTS => Kind::Return,
        // What is wrong with the request stays wrong.
        ReadError::Client(ClientError::Request(_)) => Kind::Return,
        ReadError::Client(error) if error.is_unauthenticated() => Kind::Return,
        // Brokers close calls freely, and tell where to go instead; but not again and again without a word.
        ReadError::Closed if progressed || attempts == 0 => Kind::Again,
        ReadError::Client(error) if error.status() == Some(Status::NotJournalBroker) && attempts == 0 => {
            Kind::Again
        }
        // The caller has the broker fetch what it cannot.
        ReadError::UnsupportedUrl { .. } if attempts == 0 => Kind::Again,
        _ => Kind::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_into_ends_and_interruptions() {
        use Kind::*;
        let status = |status| ReadError::Client(ClientError::journal("a/journal", status));
        let grpc = || ReadError::Client(ClientError::Grpc(tonic::Status::unavailable("gone")));
        let unauthenticated = || ReadError::Client(ClientError::Grpc(tonic::Status::unauthenticated("no")));
        let head = || ReadError::NotYetAvailable { offset: 1, write_head: 1 };
        let missing = || ReadError::JournalNotFound("a/journal".into());
        for (error, block, progressed, attempts, expected) in [
            (ReadError::Closed, true, true, 9, Again),
            (ReadError::Closed, true, false, 0, Again),
            (ReadError::Closed, true, false, 1, Later),
            (ReadError::EndOffset, true, true, 0, Return),
            (ReadError::OffsetJump { from: 1, to: 2 }, true, true, 0, Return),
            (ReadError::Suspended("a/journal".into()), true, true, 0, Return),
            (ReadError::Cancelled, true, true, 0, Return),
            (head(), false, true, 0, Return),
            (head(), true, true, 0, Later),
            (missing(), true, true, 2, Later),
            (missing(), true, true, 3, Return),
            (status(Status::NotJournalBroker), true, true, 0, Again),
            (status(Status::NotJournalBroker), true, true, 1, Later),
            (status(Status::InsufficientJournalBrokers), true, true, 9, Later),
            (grpc(), true, true, 0, Later),
            (ReadError::UnsupportedUrl { url: "s3".into() }, true, false, 0, Again),
            (ReadError::UnsupportedUrl { url: "s3".into() }, true, false, 1, Later),
            (ReadError::Client(ClientError::Request(proto::Invalid::new("odd"))), true, false, 0, Return),
            (unauthenticated(), true, true, 0, Return),
        ] {
            let found = decide(&error, block, progressed, attempts);
            assert_eq!(found, expected, "{error} block {block} progressed {progressed} attempts {attempts}");
        }
    }
    #[test]
    fn waits_grow_until_a_call_stood_for_a_while_or_got_further() {
        let gone = ReadError::Client(ClientError::Grpc(tonic::Status::unavailable("gone")));
        let stood = |seconds| Progress { is_further: false, stood: Some(Duration::from_secs(seconds)) };
        let further = Progress { is_further: true, stood: None };
        let first = Decision::Later(Duration::from_millis(50));
        for good in [stood(5), further] {
            let mut attempts = Attempts::new();
            assert_eq!(attempts.on_error(&gone, true, Progress::default()), first);
            for _ in 0..9 {
                attempts.on_error(&gone, true, stood(4));
            }
            let last = attempts.on_error(&gone, true, Progress::default());
            assert_eq!(last, Decision::Later(Duration::from_secs(2)));
            assert_eq!(attempts.on_error(&gone, true, good), first);
        }
        let mut attempts = Attempts::new();
        assert_eq!(attempts.on_error(&ReadError::Closed, true, Progress::default()), Decision::Again);
        assert_eq!(attempts.on_error(&ReadError::Closed, true, Progress::default()), first);
        assert_eq!(attempts.on_error(&ReadError::Closed, true, stood(60)), Decision::Again);
    }
}
