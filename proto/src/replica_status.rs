//! The status of one replica of a shard.

use crate::consumer::{ReplicaStatus, replica_status::Code};
use crate::invalid::{Invalid, Validate, ensure};

impl ReplicaStatus {
    /// A status without errors.
    pub fn new(code: Code) -> ReplicaStatus {
        ReplicaStatus { code: code.into(), errors: Vec::new() }
    }

    /// A failed status with its reason.
    pub fn failed(error: impl Into<String>) -> ReplicaStatus {
        ReplicaStatus { code: Code::Failed.into(), errors: vec![error.into()] }
    }

    /// Folds `other` in: the higher code, and the errors of both with those of `self` first. Codes never decrease during
    /// the life of an assignment.
    pub fn reduce(&mut self, other: &ReplicaStatus) {
        self.code = self.code.max(other.code);
        self.errors.extend(other.errors.iter().cloned());
    }
}

impl Validate for ReplicaStatus {
    fn validate(&self) -> Result<(), Invalid> {
        let Ok(code) = Code::try_from(self.code) else {
            return Err(Invalid::new(format!("invalid code ({})", self.code)).within("Code"));
        };
        let failed = code == Code::Failed;
        ensure!(!failed || !self.errors.is_empty(), "expected non-empty Errors with Code FAILED");
        ensure!(failed || self.errors.is_empty(), "expected Code FAILED with non-empty Errors");
        Ok(())
    }
}
