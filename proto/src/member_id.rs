//! The identity of a process among the members of a cluster.

use crate::invalid::Validate;
use crate::token::{TOKEN_SYMBOLS, check_token};
use crate::{Invalid, protocol::process_spec};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A valid process id. Ordered by zone, then suffix, which is also the order of its keys in etcd.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// Failure zone: 1 to 32 bytes of the token alphabet.
    pub zone: Arc<str>,
    /// Unique within its zone: 4 to 128 bytes of the token alphabet.
    pub suffix: Arc<str>,
}

impl MemberId {
    /// Checks both parts.
    pub fn new(zone: &str, suffix: &str) -> Result<MemberId, Invalid> {
        check(zone, suffix)?;
        Ok(MemberId { zone: zone.into(), suffix: suffix.into() })
    }

    /// The wire form.
    pub fn to_proto(&self) -> process_spec::Id {
        process_spec::Id { zone: self.zone.as_ref().into(), suffix: self.suffix.as_ref().into() }
    }
}

/// `zone#suffix`, as in etcd keys.
impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.zone, self.suffix)
    }
}

impl From<&MemberId> for process_spec::Id {
    fn from(id: &MemberId) -> Self {
        id.to_proto()
    }
}

impl From<MemberId> for process_spec::Id {
    fn from(id: MemberId) -> Self {
        id.to_proto()
    }
}

impl TryFrom<&process_spec::Id> for MemberId {
    type Error = Invalid;
    fn try_from(id: &process_spec::Id) -> Result<Self, Invalid> {
        MemberId::new(&id.zone, &id.suffix)
    }
}

impl PartialEq<process_spec::Id> for MemberId {
    fn eq(&self, other: &process_spec::Id) -> bool {
        *self.zone == *other.zone && *self.suffix == *other.suffix
    }
}

impl Validate for process_spec::Id {
    fn validate(&self) -> Result<(), Invalid> {
        check(&self.zone, &self.suffix)
    }
}

impl process_spec::Id {
    /// Whether both parts are empty, which in a header means "no particular process".
    pub fn is_unset(&self) -> bool {
        self.zone.is_empty() && self.suffix.is_empty()
    }
}

impl Ord for process_spec::Id {
    fn cmp(&self, other: &Self) -> Ordering {
        (&self.zone, &self.suffix).cmp(&(&other.zone, &other.suffix))
    }
}

impl PartialOrd for process_spec::Id {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn check(zone: &str, suffix: &str) -> Result<(), Invalid> {
    check_token(zone, TOKEN_SYMBOLS, 1, 32).map_err(|e| e.within("Zone"))?;
    check_token(suffix, TOKEN_SYMBOLS, 4, 128).map_err(|e| e.within("Suffix"))
}
