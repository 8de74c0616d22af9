//! Rules of Replicate.

use crate::invalid::{Invalid, Validate, ensure, validate_present};
use crate::protocol::{Fragment, ReplicateRequest, ReplicateResponse, Status};
use crate::status::check_journal_status;

/// A proposal without registers is tolerated; they are empty then.
impl Validate for ReplicateRequest {
    fn validate(&self) -> Result<(), Invalid> {
        match &self.proposal {
            Some(proposal) => self.check_proposal(proposal),
            None => self.check_content(),
        }
    }
}

impl ReplicateRequest {
    fn check_proposal(&self, proposal: &Fragment) -> Result<(), Invalid> {
        // The header comes with the first message, which must be acknowledged.
        validate_present("Header", self.header.as_ref())?;
        ensure!(self.header.is_none() || self.acknowledge, "expected Acknowledge with Header");
        proposal.validate().map_err(|e| e.within("Proposal"))?;
        validate_present("Registers", self.registers.as_ref())?;
        ensure!(self.content.is_empty(), "unexpected Content with Proposal (len {})", self.content.len());
        ensure!(self.content_delta == 0, "unexpected ContentDelta with Proposal ({})", self.content_delta);
        ensure!(
            self.deprecated_journal.is_empty() || self.deprecated_journal == proposal.journal,
            "DeprecatedJournal and Proposal.Journal mismatch ({} vs {})",
            self.deprecated_journal,
            proposal.journal
        );
        Ok(())
    }

    fn check_content(&self) -> Result<(), Invalid> {
        ensure!(!self.content.is_empty(), "expected Content or Proposal");
        ensure!(self.content_delta >= 0, "invalid ContentDelta ({}; expected >= 0)", self.content_delta);
        ensure!(self.header.is_none(), "unexpected Header with Content");
        ensure!(self.registers.is_none(), "unexpected Registers with Content");
        ensure!(!self.acknowledge, "unexpected Acknowledge with Content");
        ensure!(self.deprecated_journal.is_empty(), "unexpected DeprecatedJournal with Content");
        ensure!(self.settled_through.is_none(), "unexpected SettledThrough with Content");
        ensure!(self.first_append.is_none(), "unexpected FirstAppend with Content");
        ensure!(self.trace_context.is_empty(), "unexpected TraceContext with Content");
        Ok(())
    }
}

/// The rules of every response but the first of a stream, which carries a header whatever its status. A primary reads
/// responses by its own, laxer rules (§6.3).
impl Validate for ReplicateResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        let status = self.status();
        ensure!(status != Status::WrongRoute || self.header.is_some(), "expected Header");
        ensure!(status == Status::WrongRoute || self.header.is_none(), "unexpected Header");
        validate_present("Header", self.header.as_ref())?;
        let mismatch = status == Status::ProposalMismatch;
        ensure!(!mismatch || self.fragment.is_some(), "expected Fragment");
        ensure!(mismatch || self.fragment.is_none(), "unexpected Fragment");
        validate_present("Fragment", self.fragment.as_ref())?;
        ensure!(!mismatch || self.registers.is_some(), "expected Registers");
        ensure!(mismatch || self.registers.is_none(), "unexpected Registers");
        validate_present("Registers", self.registers.as_ref())
    }
}
