//! Why an attempt to run a shard ended.

use std::error::Error;

use client::OpError;
use recoverylog::RecordError;
use runtime::BoxError;

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

    /// Whether another process took the shard's recovery log.
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
        let is_fenced = error.downcast_ref::<OpError>().is_some_and(OpError::is_fenced)
            || error.downcast_ref::<RecordError>().is_some_and(RecordError::is_fenced);
        if is_fenced {
            return true;
        }
        cause = error.source();
    }
    false
}
