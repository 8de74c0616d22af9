//! What a replica says of itself when it failed. Pure.

use proto::consumer::ReplicaStatus;

/// Bytes of an error text that a status holds.
pub const ERROR_BYTES_MAX: usize = 2048;
/// What ends a text that was cut.
const TRUNCATED: &str = " ...[truncated]";

/// The status of a replica which failed, with its reason cut to [`ERROR_BYTES_MAX`].
pub fn failed(reason: &str) -> ReplicaStatus {
    ReplicaStatus::failed(truncated(reason))
}

/// What to write for `report` where `stored` stands: the larger code and the errors of both, so that the code never goes
/// back during one attempt to run the replica. `None` if nothing would change.
pub fn reduced(report: &ReplicaStatus, stored: &ReplicaStatus) -> Option<ReplicaStatus> {
    // A write whose outcome was unknown is tried again: its errors may stand there already.
    if stored.code >= report.code && report.errors.iter().all(|error| stored.errors.contains(error)) {
        return None;
    }
    let mut status = report.clone();
    status.reduce(stored);
    Some(status)
}

fn truncated(text: &str) -> String {
    if text.len() <= ERROR_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=ERROR_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{TRUNCATED}", &text[..end])
}

#[cfg(test)]
mod tests {
    use proto::consumer::replica_status::Code;

    use super::*;

    #[test]
    fn the_code_never_goes_back_and_errors_gather() {
        let of = ReplicaStatus::new;
        assert_eq!(reduced(&of(Code::Standby), &of(Code::Backfill)), Some(of(Code::Standby)));
        assert_eq!(reduced(&of(Code::Standby), &of(Code::Primary)), None);
        assert_eq!(reduced(&of(Code::Primary), &failed("first")), None);
        let both = reduced(&failed("second"), &failed("first")).unwrap();
        assert_eq!(
            (both.code(), &*both.errors),
            (Code::Failed, &["second".to_owned(), "first".to_owned()][..])
        );
        assert_eq!(reduced(&failed("first"), &both), None);
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let status = failed(&format!("x{}", "é".repeat(2000)));
        let text = &status.errors[0];
        assert!(
            text.len() <= ERROR_BYTES_MAX + TRUNCATED.len() && text.ends_with(TRUNCATED),
            "{}",
            text.len()
        );
        assert_eq!(failed("short").errors, ["short"]);
    }
}
