//! The blocking part of a replica that is not the primary: the primary's messages on their way into the spool (journal
//! protocol §6.1, §6.4).

use std::time::Duration;

use bytes::Bytes;
use fragment::Fragment;
use fragment::spool::Outcome;
use proto::protocol::{LabelSet, ReplicateRequest, ReplicateResponse, Status};
use proto::{Revision, Validate};
use runtime::trace;
use tracing::Span;

use crate::spool::{CompletedSpool, Durability, SpoolDir, Written};

/// What became of messages.
#[derive(Default)]
pub(super) struct Applied {
    /// Answers to those which asked for one, in order.
    pub(super) responses: Vec<ReplicateResponse>,
    /// What they wrote, in order.
    pub(super) steps: Vec<AppliedStep>,
    /// Why the stream ends here, in the words of its failure.
    pub(super) failure: Option<String>,
}

/// What one proposal did.
pub(super) struct AppliedStep {
    /// The fragment that it completed.
    pub(super) completed: Option<CompletedSpool>,
    /// The spool, if it changed.
    pub(super) written: Option<Written>,
    /// End of the journal as far as all replicas have committed it, if the primary says.
    pub(super) settled_through: Option<i64>,
}

/// Applies messages to the spool, up to the first that breaks the stream. The first ones of a stream come with the revision
/// of its route, over which this replica takes part from now on. Blocks.
pub(super) fn apply(
    dir: &mut SpoolDir,
    messages: Vec<ReplicateRequest>,
    opened: Option<Revision>,
    durability: Durability,
    now: Duration,
) -> Applied {
    let mut applied = Applied::default();
    if let Some(revision) = opened
        && let Err(err) = dir.mark_synced(revision)
    {
        applied.failure = Some(err.to_string());
        return applied;
    }
    if let Err(failure) = leave_distrusted(dir, now, &mut applied) {
        applied.failure = Some(failure);
        return applied;
    }
    for message in messages {
        let outcome = match message.proposal.is_some() {
            true => propose(dir, &message, now, &mut applied),
            false => content(dir, &message),
        };
        if let Err(failure) = outcome {
            applied.failure = Some(failure);
            break;
        }
    }
    if durability == Durability::Disk
        && !applied.responses.is_empty()
        && let Some(file) = dir.written().file
        && let Err(err) = file.sync()
    {
        // Nobody may take for durable what is not. The answers to what went before are lost with these.
        applied.responses.clear();
        applied.failure = Some(err.to_string());
    }
    applied
}

/// Leaves a file whose sync failed, as the kernel may have forgotten which of its pages are not on disk. The primary takes
/// the roll for that of a replica which joins.
fn leave_distrusted(dir: &mut SpoolDir, now: Duration, applied: &mut Applied) -> Result<(), String> {
    if !dir.is_distrusted() {
        return Ok(());
    }
    dir.undo();
    let spool = dir.spool();
    let (fragment, registers) = (spool.fragment(), spool.registers().clone());
    let empty = Fragment::empty(fragment.journal.clone(), fragment.end, fragment.codec);
    let completed = dir.roll(&empty, &registers, now).map_err(|err| err.to_string())?;
    let written = Some(dir.written());
    applied.steps.push(AppliedStep { completed, written, settled_through: Some(0) });
    Ok(())
}

/// Bytes of the content of `messages`.
pub(super) fn content_bytes(messages: &[ReplicateRequest]) -> usize {
    messages.iter().map(|message| message.content.len()).sum()
}

/// Whether applying `messages` makes no file.
pub(super) fn is_plain(dir: &SpoolDir, messages: &[ReplicateRequest]) -> bool {
    let end = dir.spool().fragment().end;
    // Rolls are to the end or beyond it and empty; a joiner's first proposal may make it roll too, and comes first.
    let rolls = |message: &ReplicateRequest| {
        message.header.is_some()
            || message.proposal.as_ref().is_some_and(|p| p.begin == p.end && p.end >= end)
    };
    dir.written().file.is_some() && !messages.iter().any(rolls)
}

fn content(dir: &mut SpoolDir, message: &ReplicateRequest) -> Result<(), String> {
    message.validate().map_err(|err| err.to_string())?;
    let (found, expected) = (message.content_delta, dir.spool().uncommitted());
    if found != expected {
        return Err(fragment::spool::DeltaMismatch { found, expected }.to_string());
    }
    let end = dir.spool().fragment().end;
    if i64::try_from(message.content.len())
        .ok()
        .and_then(|len| end.checked_add(found)?.checked_add(len))
        .is_none()
    {
        return Err(format!("content which would end beyond offset {}, after {end}", i64::MAX));
    }
    dir.write(&[Bytes::clone(&message.content)]).map_err(|err| err.to_string())
}

fn propose(
    dir: &mut SpoolDir,
    message: &ReplicateRequest,
    now: Duration,
    applied: &mut Applied,
) -> Result<(), String> {
    message.validate().map_err(|err| err.to_string())?;
    let proposal = message.proposal.as_ref().ok_or("expected Proposal")?;
    let proposal = Fragment::try_from(proposal).map_err(|err| err.to_string())?;
    if proposal.journal != dir.spool().fragment().journal {
        return Err(format!(
            "unexpected journal {} (expected {})",
            proposal.journal,
            dir.spool().fragment().journal
        ));
    }
    let registers = message.registers.clone().unwrap_or_default();
    // The primary's time, where it says: the fragment's place in its store may depend on it.
    let first_append = message.first_append.and_then(|at| u64::try_from(at).ok());
    let now = first_append.map_or(now, Duration::from_nanos);
    let journal = &proposal.journal;
    let span = match message.trace_context.as_str() {
        "" => Span::none(),
        context => {
            let span = tracing::info_span!(target: trace::TARGET, "replicate", %journal);
            trace::adopt_text(&span, context);
            span
        }
    };
    let _within = span.entered();
    let before = dir.spool().fragment().clone();
    let (completed, outcome) = dir.propose(&proposal, &registers, now).map_err(|err| err.to_string())?;
    let is_changed = *dir.spool().fragment() != before || matches!(outcome, Outcome::Committed { .. });
    applied.steps.push(AppliedStep {
        completed,
        written: is_changed.then(|| dir.written()),
        settled_through: message.settled_through,
    });
    match (message.acknowledge, outcome) {
        (true, Outcome::Mismatch) => applied.responses.push(mismatch(dir)),
        (true, _) => applied.responses.push(ReplicateResponse::default()),
        (false, Outcome::Mismatch) => {
            return Err(format!("no ack requested but status != OK: {}", Status::ProposalMismatch));
        }
        (false, _) => {}
    }
    Ok(())
}

fn mismatch(dir: &SpoolDir) -> ReplicateResponse {
    ReplicateResponse {
        status: Status::ProposalMismatch.into(),
        header: None,
        fragment: Some(dir.spool().fragment().to_proto()),
        registers: Some(LabelSet::clone(dir.spool().registers())),
    }
}
