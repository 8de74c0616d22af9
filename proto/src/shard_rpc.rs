//! Rules of the Shard service: List, Apply, Stat, GetHints and Unassign.

use crate::apply_rpc::check_change;
use crate::checkpoint::check_offsets;
use crate::consumer::{
    ApplyRequest, ApplyResponse, GetHintsRequest, GetHintsResponse, ListRequest, ListResponse, ShardSpec,
    StatRequest, StatResponse, UnassignRequest, UnassignResponse, apply_request, get_hints_response,
    list_response,
};
use crate::invalid::{Invalid, Validate, ensure, validate_always, validate_present};
use crate::names::check_stored_shard_id;
use crate::status::check_shard_status;

impl Validate for ListRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate_always("Selector", self.selector.as_ref())
    }
}

impl Validate for ListResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_shard_status(self.status)?;
        validate_always("Header", self.header.as_ref())?;
        for (i, shard) in self.shards.iter().enumerate() {
            shard.validate().map_err(|e| e.within(format!("Shards[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for list_response::Shard {
    fn validate(&self) -> Result<(), Invalid> {
        let spec = self
            .spec
            .as_ref()
            .map_or_else(|| ShardSpec::default().validate_stored(), |s| s.validate_stored());
        spec.map_err(|e| e.within("Spec"))?;
        ensure!(self.mod_revision > 0, "invalid ModRevision ({}; expected > 0)", self.mod_revision);
        validate_always("Route", self.route.as_ref())?;
        let (members, statuses) = (self.route.as_ref().map_or(0, |r| r.members.len()), self.status.len());
        ensure!(
            members == statuses,
            "length of Route.Members and Status are not equal ({members} vs {statuses})"
        );
        for (i, status) in self.status.iter().enumerate() {
            status.validate().map_err(|e| e.within(format!("Status[{i}]")))?;
        }
        Ok(())
    }
}

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
        check_change(self.upsert.as_ref(), &self.delete, self.expect_mod_revision, check_stored_shard_id)?;
        ensure!(
            self.primary_hints.is_none() || self.upsert.is_some(),
            "unexpected PrimaryHints without Upsert"
        );
        validate_present("PrimaryHints", self.primary_hints.as_ref())
    }
}

impl Validate for ApplyResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_shard_status(self.status)?;
        validate_always("Header", self.header.as_ref())
    }
}

impl Validate for StatRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate_present("Header", self.header.as_ref())?;
        check_stored_shard_id(&self.shard).map_err(|e| e.within("Shard"))?;
        check_offsets(&self.read_through).map_err(|e| e.within("ReadThrough"))
    }
}

impl Validate for StatResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_shard_status(self.status)?;
        validate_always("Header", self.header.as_ref())?;
        check_offsets(&self.read_through).map_err(|e| e.within("ReadThrough"))?;
        check_offsets(&self.publish_at).map_err(|e| e.within("PublishAt"))
    }
}

impl Validate for GetHintsRequest {
    fn validate(&self) -> Result<(), Invalid> {
        check_stored_shard_id(&self.shard).map_err(|e| e.within("Shard"))
    }
}

impl Validate for GetHintsResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_shard_status(self.status)?;
        validate_always("Header", self.header.as_ref())?;
        validate_present("PrimaryHints", self.primary_hints.as_ref())?;
        for (i, hints) in self.backup_hints.iter().enumerate() {
            hints.validate().map_err(|e| e.within(format!("BackupHints[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for get_hints_response::ResponseHints {
    fn validate(&self) -> Result<(), Invalid> {
        validate_present("Hints", self.hints.as_ref())
    }
}

impl Validate for UnassignRequest {
    fn validate(&self) -> Result<(), Invalid> {
        for (i, shard) in self.shards.iter().enumerate() {
            check_stored_shard_id(shard).map_err(|e| e.within(format!("Shards[{i}]")))?;
        }
        Ok(())
    }
}

impl Validate for UnassignResponse {
    fn validate(&self) -> Result<(), Invalid> {
        check_shard_status(self.status)
    }
}
