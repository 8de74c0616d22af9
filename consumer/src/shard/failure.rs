//! Why an attempt to run a shard ended.

use std::error::Error;

use client::OpError;
use recoverylog::RecordError;
use runtime::BoxError;

use crate::StoreFenced;

/// A failed attempt. Its text begins with the phase, as the status of the replica shows it.
#[derive(Debug, thiserror::Error)]
#[error("{phase}: {text}")]
pub struct Failure {
    phase: &'static str,
    text: String,
    is_fenced: bool,
    was_serving: bool,
}

impl Failure {
    /// An error of a phase before the shard served.
    pub fn starting(phase: &'static str) -> impl Fn(BoxError) -> Failure {
        move |error| Failure::new(phase, &*error, false)
    }

    /// An error of a phase in which the shard served.
    pub fn serving(phase: &'static str) -> impl Fn(BoxError) -> Failure {
        move |error| Failure::new(phase, &*error, true)
    }

    /// A panic of the application or the store.
    pub fn panicked(text: &str) -> Failure {
        Failure { phase: "panicked", text: text.to_owned(), is_fenced: false, was_serving: false }
    }

    fn new(phase: &'static str, error: &(dyn Error + 'static), was_serving: bool) -> Failure {
        Failure { phase, text: runtime::grpc::chain_text(error), is_fenced: is_fenced(error), was_serving }
    }

    /// Whether another process took the shard, by its recovery log or in its external store.
    pub fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Whether the shard had opened its store.
    pub fn was_serving(&self) -> bool {
        self.was_serving
    }
}

/// Whether the cause of an error is a lost fence.
pub fn is_fenced(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<StoreFenced>() {
            return true;
        }
        if let Some(record) = error.downcast_ref::<RecordError>() {
            return record.is_fenced();
        }
        if let Some(op) = error.downcast_ref::<OpError>() {
            return match op.root() {
                OpError::Failed(inner) => is_fenced(&**inner),
                root => root.is_fenced(),
            };
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::JournalName;
    use recoverylog::Author;

    use super::*;
    use crate::txn::LoopError;

    #[test]
    fn a_lost_fence_shows_through_stores_and_dependencies() {
        let log = JournalName::parse("a/log").unwrap();
        let author = Author::new(7).unwrap();
        let fenced =
            || OpError::failed(RecordError::Fenced { log: log.clone(), author, cause: OpError::Cancelled });
        for error in [fenced(), OpError::Dependency(Arc::new(fenced()))] {
            let failure = Failure::serving("runTransactions")(LoopError::Commit(error).into());
            assert!(failure.is_fenced() && failure.was_serving(), "{failure}");
            assert!(failure.to_string().starts_with("runTransactions: store.StartCommit: "), "{failure}");
        }
        let external = LoopError::Commit(OpError::failed(StoreFenced));
        assert!(Failure::serving("runTransactions")(external.into()).is_fenced());
        let other = LoopError::Commit(OpError::failed("disk full"));
        assert!(!Failure::serving("runTransactions")(other.into()).is_fenced());
    }
}
