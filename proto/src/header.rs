//! Headers: who answered, what it knew of the topology, and as of which etcd revision.

use crate::invalid::{Invalid, Validate, ensure, validate_always};
use crate::protocol::process_spec::Id;
use crate::protocol::{Header, Route, header};
use crate::{MemberId, Revision};

impl Header {
    /// The header of an answer which concerns no particular item. `process` is the local member, or none while its own
    /// member key is missing.
    pub fn unrouted(process: Option<&MemberId>, etcd: header::Etcd) -> Header {
        Header::routed(process.map(MemberId::to_proto).unwrap_or_default(), Route::unrouted(), etcd)
    }

    /// A header of these parts.
    pub fn routed(process: Id, route: Route, etcd: header::Etcd) -> Header {
        Header { process_id: Some(process), route: Some(route), etcd: Some(etcd) }
    }

    /// The process which this header names, unless it names none.
    pub fn process(&self) -> Option<&Id> {
        self.process_id.as_ref().filter(|id| !id.is_unset())
    }

    /// The revision of the key space; zero where it is absent.
    pub fn revision(&self) -> Revision {
        Revision(self.etcd.as_ref().map_or(0, |etcd| etcd.revision))
    }
}

impl Validate for Header {
    fn validate(&self) -> Result<(), Invalid> {
        if let Some(id) = self.process() {
            id.validate().map_err(|e| e.within("ProcessId"))?;
        }
        validate_always("Route", self.route.as_ref())?;
        validate_always("Etcd", self.etcd.as_ref())
    }
}

impl Validate for header::Etcd {
    fn validate(&self) -> Result<(), Invalid> {
        ensure!(self.cluster_id != 0, "invalid ClusterId (expected != 0)");
        ensure!(self.member_id != 0, "invalid MemberId (expected != 0)");
        ensure!(self.revision > 0, "invalid Revision ({}; expected > 0)", self.revision);
        ensure!(self.raft_term != 0, "invalid RaftTerm (expected != 0)");
        Ok(())
    }
}
