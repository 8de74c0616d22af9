//! How a primary reads the answers of its peers to a proposal that opens or re-synchronises a pipeline (journal protocol
//! §6.3). Pure.

use proto::Revision;
use proto::protocol::process_spec::Id;
use proto::protocol::{LabelSet, ReplicateResponse, Route, Status};

use super::{PipelineError, print_id};

/// What the replicas of a journal have in common after a round of proposals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SyncOutcome {
    /// All are at the proposal.
    Synchronised,
    /// A replica holds more, or another fragment that ends where this one does: all are to roll there. The registers are
    /// those of the replica that holds more.
    RollTo {
        /// An offset at or beyond the spool's end.
        offset: i64,
        /// Registers to adopt, unless the spool's own stay.
        registers: Option<LabelSet>,
    },
    /// A peer knows of a newer route: it is to be read before anything else.
    ReadThrough(Revision),
}

/// Classifies one response of each peer to a proposal which ends at `spool_end`, of a pipeline over `route` as of
/// `revision`. A larger offset takes precedence over a newer route.
///
/// # Errors
/// The first answer, in the order given, that is none of these.
pub(crate) fn classify(
    spool_end: i64,
    route: &Route,
    revision: Revision,
    responses: &[(Id, ReplicateResponse)],
) -> Result<SyncOutcome, PipelineError> {
    let (mut roll_to, mut read_through) = (None::<(i64, Option<&LabelSet>)>, None::<Revision>);
    for (id, response) in responses {
        match response.status() {
            Status::Ok => {}
            Status::WrongRoute => {
                let theirs =
                    newer_route(route, revision, response).ok_or_else(|| unexpected(id, response))?;
                read_through = read_through.max(Some(theirs));
            }
            Status::ProposalMismatch => {
                let (offset, registers) =
                    further(spool_end, response).ok_or_else(|| unexpected(id, response))?;
                if roll_to.is_none_or(|(furthest, _)| offset > furthest) {
                    roll_to = Some((offset, registers));
                }
            }
            _ => return Err(unexpected(id, response)),
        }
    }
    Ok(match (roll_to, read_through) {
        (Some((offset, registers)), _) => SyncOutcome::RollTo { offset, registers: registers.cloned() },
        (None, Some(revision)) => SyncOutcome::ReadThrough(revision),
        (None, None) => SyncOutcome::Synchronised,
    })
}

/// The revision of a peer's route which is another and newer one.
fn newer_route(route: &Route, revision: Revision, response: &ReplicateResponse) -> Option<Revision> {
    let header = response.header.as_ref()?;
    let differs = header.route.as_ref().is_some_and(|theirs| !theirs.equivalent(route));
    Some(header.revision()).filter(|theirs| differs && *theirs > revision)
}

/// Where a peer that does not accept the proposal wants the replicas to be, and its registers if it holds more.
fn further(spool_end: i64, response: &ReplicateResponse) -> Option<(i64, Option<&LabelSet>)> {
    let theirs = response.fragment.as_ref()?;
    if theirs.end > spool_end {
        Some((theirs.end, response.registers.as_ref()))
    } else if theirs.end == spool_end && theirs.begin == theirs.end {
        Some((spool_end, None))
    } else {
        None
    }
}

fn unexpected(id: &Id, response: &ReplicateResponse) -> PipelineError {
    let detail = match (&response.fragment, &response.header) {
        (Some(fragment), _) => format!("fragment {}..{}", fragment.begin, fragment.end),
        (None, Some(header)) => format!("route as of revision {}", header.revision()),
        (None, None) => "no detail".to_owned(),
    };
    PipelineError::Unexpected { peer: print_id(id), status: response.status(), detail }
}
