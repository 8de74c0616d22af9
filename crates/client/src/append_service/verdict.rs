//! What the outcome of one call means for the append which it carries.

use crate::client::NOT_FOUND_ATTEMPTS;
use crate::error::{ClientError, check_append};
use crate::op::OpError;
use proto::protocol::{AppendRequest, AppendResponse, Status};

/// What to do about an append.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is committed.
    Committed(AppendResponse),
    /// Its outcome is unknown, or it had no effect: repeat it.
    Retry(ClientError),
    /// It had no effect, and will have none. So will the journal's later appends.
    Fatal(OpError),
}

/// Judges a call. Statuses which no repetition changes are fatal. An append which checks registers is the exception:
/// its writer owns the journal, so a fault of the journal is waited out, and only a fence (or a request which makes no
/// sense) is fatal, and that at once: the writer was replaced and must learn of it. A journal which is not found is
/// looked for a few times: `attempts` calls were made before. A token which brokers refuse stays refused.
pub(super) fn judge(
    request: &AppendRequest,
    attempts: u32,
    outcome: Result<AppendResponse, ClientError>,
) -> Verdict {
    let error = match outcome.and_then(|response| check_append(&request.journal, response)) {
        Ok(response) => return Verdict::Committed(response),
        Err(error) => error,
    };
    let is_fatal = match (&error, error.status()) {
        _ if error.is_unauthenticated() => true,
        (_, Some(Status::RegisterMismatch)) => true,
        (_, Some(Status::JournalNotFound)) if attempts < NOT_FOUND_ATTEMPTS => false,
        (
            _,
            Some(
                Status::JournalNotFound
                | Status::NotAllowed
                | Status::WrongAppendOffset
                | Status::IndexHasGreaterOffset
                | Status::FragmentStoreUnhealthy,
            ),
        ) => request.check_registers.is_none(),
        (ClientError::Request(_) | ClientError::Content(_) | ClientError::Cancelled, _) => true,
        _ => false,
    };
    if is_fatal { Verdict::Fatal(error.into()) } else { Verdict::Retry(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::protocol::{Fragment, LabelSelector, LabelSet};

    fn verdict(checks: bool, attempts: u32, outcome: Result<Status, ClientError>) -> &'static str {
        let request = AppendRequest {
            journal: "a/journal".to_owned(),
            check_registers: checks.then(LabelSelector::default),
            ..Default::default()
        };
        let response = outcome.map(|status| AppendResponse {
            status: status as i32,
            commit: Some(Fragment::default()),
            registers: Some(LabelSet::default()),
            ..Default::default()
        });
        match judge(&request, attempts, response) {
            Verdict::Committed(_) => "committed",
            Verdict::Retry(_) => "retry",
            Verdict::Fatal(error) if error.is_fenced() => "fenced",
            Verdict::Fatal(_) => "fatal",
        }
    }

    #[test]
    fn statuses_are_judged_by_whether_a_repetition_can_help() {
        for (status, plain, checking) in [
            (Status::Ok, "committed", "committed"),
            (Status::JournalNotFound, "fatal", "retry"),
            (Status::NoJournalPrimaryBroker, "retry", "retry"),
            (Status::NotJournalPrimaryBroker, "retry", "retry"),
            (Status::InsufficientJournalBrokers, "retry", "retry"),
            (Status::WrongRoute, "retry", "retry"),
            (Status::EtcdTransactionFailed, "retry", "retry"),
            (Status::NotAllowed, "fatal", "retry"),
            (Status::WrongAppendOffset, "fatal", "retry"),
            (Status::IndexHasGreaterOffset, "fatal", "retry"),
            (Status::RegisterMismatch, "fenced", "fenced"),
            (Status::Suspended, "retry", "retry"),
            (Status::FragmentStoreUnhealthy, "fatal", "retry"),
        ] {
            assert_eq!(
                (verdict(false, 3, Ok(status)), verdict(true, 3, Ok(status))),
                (plain, checking),
                "{status}"
            );
        }
        assert_eq!(verdict(false, 2, Ok(Status::JournalNotFound)), "retry");
    }

    #[test]
    fn failures_of_the_call_are_repeated_and_faults_of_the_request_are_not() {
        for (error, expected) in [
            (ClientError::Grpc(tonic::Status::unavailable("gone")), "retry"),
            (ClientError::Grpc(tonic::Status::unknown("append stream: rate")), "retry"),
            (ClientError::Grpc(tonic::Status::deadline_exceeded("token expired")), "retry"),
            (ClientError::Grpc(tonic::Status::unauthenticated("no")), "fatal"),
            (ClientError::Response(proto::Invalid::new("odd")), "retry"),
            (ClientError::Request(proto::Invalid::new("odd")), "fatal"),
            (ClientError::Cancelled, "fatal"),
        ] {
            let text = error.to_string();
            assert_eq!(verdict(true, 0, Err(error)), expected, "{text}");
        }
    }
}
