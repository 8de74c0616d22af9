//! Routes: the members which an item is assigned to.

use crate::endpoint;
use crate::invalid::{Invalid, Validate, ensure};
use crate::protocol::Route;
use crate::protocol::process_spec::Id;

impl Route {
    /// A route without members. The zero message is not one: its primary is index zero.
    pub fn unrouted() -> Route {
        Route { members: Vec::new(), primary: -1, endpoints: Vec::new() }
    }

    /// Whether primary and members are the same; endpoints do not matter.
    pub fn equivalent(&self, other: &Route) -> bool {
        self.primary == other.primary && self.members == other.members
    }

    /// Id of the primary, if there is one.
    pub fn primary_id(&self) -> Option<&Id> {
        usize::try_from(self.primary).ok().and_then(|i| self.members.get(i))
    }

    /// Endpoint of the primary, if there is one and it is known.
    pub fn primary_endpoint(&self) -> Option<&str> {
        usize::try_from(self.primary).ok().and_then(|i| self.endpoint_at(i))
    }

    /// Endpoint of this member, if it is known.
    pub fn endpoint_of(&self, id: &Id) -> Option<&str> {
        self.members.iter().position(|m| m == id).and_then(|i| self.endpoint_at(i))
    }

    /// Endpoint of the member at `index`, if it is known.
    pub fn endpoint_at(&self, index: usize) -> Option<&str> {
        self.endpoints.get(index).map(String::as_str).filter(|e| !e.is_empty())
    }

    /// This route as it is kept in etcd.
    #[must_use]
    pub fn without_endpoints(&self) -> Route {
        Route { members: self.members.clone(), primary: self.primary, endpoints: Vec::new() }
    }
}

impl Validate for Route {
    fn validate(&self) -> Result<(), Invalid> {
        for (i, member) in self.members.iter().enumerate() {
            member.validate().map_err(|e| e.within(format!("Members[{i}]")))?;
            ensure!(
                i == 0 || self.members[i - 1] < *member,
                "Members not in unique, sorted order (index {i}; {} <= {})",
                print_id(member),
                print_id(&self.members[i - 1])
            );
        }
        let members = self.members.len();
        ensure!(
            self.primary == -1 || usize::try_from(self.primary).is_ok_and(|p| p < members),
            "invalid Primary ({}; expected -1 <= Primary < {members})",
            self.primary
        );
        let endpoints = self.endpoints.len();
        ensure!(
            endpoints == 0 || endpoints == members,
            "len(Endpoints) != 0, and != len(Members) ({endpoints} vs {members})"
        );
        // A member whose specification is missing has the empty endpoint.
        for (i, endpoint) in self.endpoints.iter().enumerate().filter(|(_, e)| !e.is_empty()) {
            endpoint::validate(endpoint).map_err(|e| e.within(format!("Endpoints[{i}]")))?;
        }
        Ok(())
    }
}

fn print_id(id: &Id) -> String {
    format!("{{Zone:{} Suffix:{}}}", id.zone, id.suffix)
}
