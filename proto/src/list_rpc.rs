//! Rules of List.

use crate::invalid::{Invalid, Validate, ensure, validate_always, validate_present};
use crate::protocol::{JournalSpec, ListRequest, ListResponse, list_response};
use crate::status::check_journal_status;

impl Validate for ListRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate_always("Selector", self.selector.as_ref())?;
        self.selector.as_ref().map_or(Ok(()), |s| s.check_legacy_prefix())?;
        validate_present("WatchResume", self.watch_resume.as_ref())
    }
}

impl Validate for ListResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        validate_always("Header", self.header.as_ref())?;
        for (i, journal) in self.journals.iter().enumerate() {
            journal.validate().map_err(|e| e.within(format!("Journals[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for list_response::Journal {
    fn validate(&self) -> Result<(), Invalid> {
        let spec = self
            .spec
            .as_ref()
            .map_or_else(|| JournalSpec::default().validate_stored(), |s| s.validate_stored());
        spec.map_err(|e| e.within("Spec"))?;
        ensure!(self.mod_revision > 0, "invalid ModRevision ({}; expected > 0)", self.mod_revision);
        validate_always("Route", self.route.as_ref())
    }
}
