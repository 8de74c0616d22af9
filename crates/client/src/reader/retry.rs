//! What a reader which goes on does about the end of a call.

use super::ReadError;
use crate::error::ClientError;
use proto::protocol::Status;

/// Attempts to find a journal, before it is taken to not exist: a broker may not have heard of it yet.
const NOT_FOUND_ATTEMPTS: u32 = 3;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The caller must know.
    Return,
    /// Call again at once.
    Again,
    /// Call again after a while.
    Later,
}

/// Decides about an error of a call. `progressed` says that the call got further than it began; `attempts` counts the
/// calls which did not, since the last which did.
pub(super) fn decide(error: &ReadError, block: bool, progressed: bool, attempts: u32) -> Decision {
    match error {
        ReadError::OffsetJump { .. }
        | ReadError::EndOffset
        | ReadError::Suspended(_)
        | ReadError::Cancelled => Decision::Return,
        ReadError::NotYetAvailable { .. } if !block => Decision::Return,
        ReadError::JournalNotFound(_) if attempts >= NOT_FOUND_ATTEMPTS => Decision::Return,
        // What is wrong with the request stays wrong.
        ReadError::Client(ClientError::Request(_)) => Decision::Return,
        // Brokers close calls freely, and tell where to go instead; but not again and again without a word.
        ReadError::Closed if progressed || attempts == 0 => Decision::Again,
        ReadError::Client(error) if error.status() == Some(Status::NotJournalBroker) && attempts == 0 => {
            Decision::Again
        }
        // The caller has the broker fetch what it cannot.
        ReadError::UnsupportedUrl { .. } if attempts == 0 => Decision::Again,
        _ => Decision::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_sorted_into_ends_and_interruptions() {
        use Decision::*;
        let status = |status| ReadError::Client(ClientError::journal("a/journal", status));
        let grpc = || ReadError::Client(ClientError::Grpc(tonic::Status::unavailable("gone")));
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
        ] {
            let found = decide(&error, block, progressed, attempts);
            assert_eq!(found, expected, "{error} block {block} progressed {progressed} attempts {attempts}");
        }
    }
}
