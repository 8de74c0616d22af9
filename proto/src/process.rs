//! Specifications of member processes: brokers and consumers.

use crate::consumer::ConsumerSpec;
use crate::invalid::{Invalid, Validate, ensure, validate_always};
use crate::protocol::{BrokerSpec, ProcessSpec};
use crate::{MemberId, endpoint};

/// Journals which one broker may be assigned at most.
pub const BROKER_JOURNAL_LIMIT_MAX: u32 = 1 << 17;

impl Validate for ProcessSpec {
    fn validate(&self) -> Result<(), Invalid> {
        validate_always("Id", self.id.as_ref())?;
        endpoint::validate(&self.endpoint).map_err(|e| e.within("Endpoint"))
    }
}

impl Validate for BrokerSpec {
    fn validate(&self) -> Result<(), Invalid> {
        validate_always("ProcessSpec", self.process_spec.as_ref())?;
        ensure!(
            self.journal_limit <= BROKER_JOURNAL_LIMIT_MAX,
            "invalid JournalLimit ({}; expected JournalLimit <= {BROKER_JOURNAL_LIMIT_MAX})",
            self.journal_limit
        );
        Ok(())
    }
}

impl Validate for ConsumerSpec {
    fn validate(&self) -> Result<(), Invalid> {
        validate_always("ProcessSpec", self.process_spec.as_ref())
    }
}

impl ProcessSpec {
    /// A specification of these parts.
    pub fn new(id: &MemberId, endpoint: impl Into<String>) -> ProcessSpec {
        ProcessSpec { id: Some(id.to_proto()), endpoint: endpoint.into() }
    }
}

macro_rules! member_accessors {
    ($spec:ident) => {
        impl $spec {
            /// The id, if it is valid.
            pub fn member_id(&self) -> Result<MemberId, Invalid> {
                let id = self.process_spec.as_ref().and_then(|p| p.id.clone()).unwrap_or_default();
                MemberId::try_from(&id)
            }

            /// Advertised URL; empty where it is absent.
            pub fn endpoint(&self) -> &str {
                self.process_spec.as_ref().map_or("", |p| &p.endpoint)
            }
        }
    };
}

member_accessors!(BrokerSpec);
member_accessors!(ConsumerSpec);
