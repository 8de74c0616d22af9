//! Rules of Apply.

use crate::invalid::{Invalid, Validate, ensure, validate_always};
use crate::names::{Parents, check_journal};
use crate::protocol::{ApplyRequest, ApplyResponse, apply_request};
use crate::status::check_journal_status;

impl Validate for ApplyRequest {
    fn validate(&self) -> Result<(), Invalid> {
        for (i, change) in self.changes.iter().enumerate() {
            change.validate().map_err(|e| e.within(format!("Changes[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for apply_request::Change {
    fn validate(&self) -> Result<(), Invalid> {
        check_change(self.upsert.as_ref(), &self.delete, self.expect_mod_revision, |name| {
            // What was stored under a lax name can be deleted.
            check_journal(name, Parents::Permit)
        })
    }
}

/// Exactly one of upsert and delete, with an expected revision that fits it. Shared with the changes of shards.
pub(crate) fn check_change<S: Validate>(
    upsert: Option<&S>,
    delete: &str,
    expect_mod_revision: i64,
    check_name: impl Fn(&str) -> Result<(), Invalid>,
) -> Result<(), Invalid> {
    if let Some(spec) = upsert {
        ensure!(delete.is_empty(), "both Upsert and Delete are set (expected exactly one)");
        spec.validate().map_err(|e| e.within("Upsert"))?;
        ensure!(
            expect_mod_revision >= -1,
            "invalid ExpectModRevision ({expect_mod_revision}; expected >= 0 or -1)"
        );
        return Ok(());
    }
    ensure!(!delete.is_empty(), "neither Upsert nor Delete are set (expected exactly one)");
    check_name(delete).map_err(|e| e.within("Delete"))?;
    ensure!(
        expect_mod_revision > 0 || expect_mod_revision == -1,
        "invalid ExpectModRevision ({expect_mod_revision}; expected > 0 or -1)"
    );
    Ok(())
}

impl Validate for ApplyResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_journal_status(self.status)?;
        validate_always("Header", self.header.as_ref())
    }
}
