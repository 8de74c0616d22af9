//! Rules of Append.

use crate::invalid::{Invalid, Validate, ensure, validate_always, validate_present};
use crate::names::{Parents, check_journal};
use crate::protocol::{AppendRequest, AppendResponse, Status};
use crate::status::{check_append_suspend, check_journal_status};

impl Validate for AppendRequest {
    fn validate(&self) -> Result<(), Invalid> {
        if self.journal.is_empty() { self.check_chunk() } else { self.check_opening() }
    }
}

impl AppendRequest {
    /// The first message of a stream.
    fn check_opening(&self) -> Result<(), Invalid> {
        validate_present("Header", self.header.as_ref())?;
        check_journal(&self.journal, Parents::Refuse).map_err(|e| e.within("Journal"))?;
        ensure!(self.offset >= 0, "invalid Offset ({}; expected >= 0)", self.offset);
        ensure!(self.content.is_empty(), "unexpected Content");
        validate_present("CheckRegisters", self.check_registers.as_ref())?;
        validate_present("UnionRegisters", self.union_registers.as_ref())?;
        validate_present("SubtractRegisters", self.subtract_registers.as_ref())?;
        check_append_suspend(self.suspend)
    }

    /// A following message: content, or the empty message which commits.
    fn check_chunk(&self) -> Result<(), Invalid> {
        ensure!(self.header.is_none(), "unexpected Header");
        ensure!(!self.do_not_proxy, "unexpected DoNotProxy");
        ensure!(self.offset == 0, "unexpected Offset");
        ensure!(self.check_registers.is_none(), "unexpected CheckRegisters");
        ensure!(self.union_registers.is_none(), "unexpected UnionRegisters");
        ensure!(self.subtract_registers.is_none(), "unexpected SubtractRegisters");
        ensure!(self.suspend == 0, "unexpected Suspend");
        Ok(())
    }
}

impl Validate for AppendResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        validate_always("Header", self.header.as_ref())?;
        let status = self.status();
        ensure!(status != Status::Ok || self.commit.is_some(), "expected Commit");
        let shows_registers = matches!(status, Status::Ok | Status::RegisterMismatch);
        ensure!(!shows_registers || self.registers.is_some(), "expected Registers");
        validate_present("Commit", self.commit.as_ref())?;
        validate_present("Registers", self.registers.as_ref())
    }
}
