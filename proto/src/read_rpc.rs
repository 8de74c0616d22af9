//! Rules of Read.

use crate::invalid::{Invalid, Validate, ensure, validate_present};
use crate::names::{Parents, check_journal};
use crate::protocol::{ReadRequest, ReadResponse, Status};
use crate::status::check_journal_status;
use crate::url_parts::split_url;

impl Validate for ReadRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate_present("Header", self.header.as_ref())?;
        check_journal(&self.journal, Parents::Refuse).map_err(|e| e.within("Journal"))?;
        ensure!(self.offset >= -1, "invalid Offset ({}; expected -1 <= Offset <= MaxInt64)", self.offset);
        ensure!(
            self.end_offset == 0 || self.end_offset > 0 && self.end_offset >= self.offset,
            "invalid EndOffset ({}; expected 0 or EndOffset >= Offset {})",
            self.end_offset,
            self.offset
        );
        Ok(())
    }
}

impl Validate for ReadResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        if !self.content.is_empty() {
            return self.check_content();
        }
        validate_present("Header", self.header.as_ref())?;
        ensure!(self.write_head >= 0, "invalid WriteHead ({}; expected >= 0)", self.write_head);
        if let Some(fragment) = &self.fragment {
            fragment.validate().map_err(|e| e.within("Fragment"))?;
            let (begin, end) = (fragment.begin, fragment.end);
            ensure!(
                (begin..end).contains(&self.offset),
                "invalid Offset ({}; expected {begin} <= offset < {end})",
                self.offset
            );
            ensure!(self.write_head >= end, "invalid WriteHead ({}; expected >= {end})", self.write_head);
            return split_url(&self.fragment_url).map(|_| ()).map_err(|e| e.within("FragmentUrl"));
        }
        ensure!(
            self.status() != Status::Ok || self.offset == 0,
            "unexpected Offset without Fragment or Content ({})",
            self.offset
        );
        ensure!(
            self.fragment_url.is_empty(),
            "unexpected FragmentUrl without Fragment ({})",
            self.fragment_url
        );
        Ok(())
    }
}

impl ReadResponse {
    /// A message with content carries nothing else but its offset.
    fn check_content(&self) -> Result<(), Invalid> {
        ensure!(self.status() == Status::Ok, "unexpected Status with Content ({})", self.status());
        ensure!(self.header.is_none(), "unexpected Header with Content");
        ensure!(self.write_head == 0, "unexpected WriteHead with Content ({})", self.write_head);
        ensure!(self.fragment.is_none(), "unexpected Fragment with Content");
        ensure!(self.fragment_url.is_empty(), "unexpected FragmentUrl with Content ({})", self.fragment_url);
        Ok(())
    }
}
