//! Waits between attempts.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use runtime::{Clock, Entropy};

/// Waits before an operation which failed is tried again.
pub(crate) const RETRY_WAITS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2)];
/// Part by which each wait is made longer or shorter.
const RETRY_JITTER: f64 = 0.2;

/// Waits by [`RETRY_WAITS`].
#[derive(Clone)]
pub(crate) struct Retries {
    clock: Clock,
    entropy: Entropy,
}

impl Retries {
    pub(crate) fn new(clock: Clock, entropy: Entropy) -> Retries {
        Retries { clock, entropy }
    }

    /// Waits after the failure of attempt `attempt`, of which 0 is the first. False if it was the last one.
    pub(crate) async fn wait(&self, attempt: usize) -> bool {
        let Some(wait) = RETRY_WAITS.get(attempt) else { return false };
        self.clock.sleep(self.entropy.jitter(*wait, RETRY_JITTER)).await;
        true
    }
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retries")
    }
}

/// Of the parts of a large upload, so that the failure of one does not begin it anew.
#[async_trait]
impl RetryPolicy for Retries {
    async fn retry(&self, context: RetryContext) -> bool {
        let is_lasting = match context.failure {
            RetryFailure::Status(status) => status.is_client_error() && !matches!(status.as_u16(), 408 | 429),
            _ => false,
        };
        !is_lasting && self.wait(context.attempt.saturating_sub(1)).await
    }
}
