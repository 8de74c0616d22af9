//! The answers to appends (journal protocol §5.6, §5.10).

use fragment::Fragment;
use proto::canonical;
use proto::protocol::{AppendResponse, Header, LabelSet, Status};

use super::group::Place;
use super::receive::Received;

/// The answer with a status and nothing else.
pub(super) fn refusal(status: Status, header: &Header) -> AppendResponse {
    let response =
        AppendResponse { status: status.into(), header: Some(header.clone()), ..AppendResponse::default() };
    canonical(response)
}

/// As [`refusal`], with the registers if it is about them.
pub(super) fn refused(status: Status, registers: &LabelSet, header: &Header) -> AppendResponse {
    let registers = (status == Status::RegisterMismatch).then(|| registers.clone());
    AppendResponse { registers, ..refusal(status, header) }
}

/// The answer to an append which is part of the journal.
pub(super) fn committed(
    commit: &Fragment,
    place: &Place,
    received: &Received,
    header: &Header,
) -> AppendResponse {
    AppendResponse {
        commit: Some(commit.to_proto()),
        registers: Some(LabelSet::clone(&place.registers)),
        total_chunks: received.total_chunks,
        delayed_chunks: received.delayed_chunks,
        ..refusal(Status::Ok, header)
    }
}
