//! How much of a log was read.

/// Operations which were read, whether or not they applied, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many operations.
    pub operations: u64,
    /// Bytes of their frames, and of what they write.
    pub bytes: u64,
}

impl Tally {
    /// Adds one operation.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.operations += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// What came after `earlier`.
    pub(crate) fn since(self, earlier: Tally) -> Tally {
        Tally { operations: self.operations - earlier.operations, bytes: self.bytes - earlier.bytes }
    }
}
