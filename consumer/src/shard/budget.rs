//! When a failed shard may be started again. Pure.
//!
//! A failure is followed by a wait that grows with each failure in a row. A shard that served for [`HEALTHY_AFTER`]
//! starts anew. Once all waits were used in a row the shard stays failed until its assignment is replaced, as a
//! cause which lasts through half an hour of attempts needs a human.

use std::time::Duration;

/// Time in service after which earlier failures are forgiven.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(5 * 60);

const WAITS: &[Duration] = &[
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
    Duration::from_secs(300),
    Duration::from_secs(300),
    Duration::from_secs(300),
    Duration::from_secs(300),
];

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Start again after this wait.
    After(Duration),
    /// Stay failed.
    GiveUp,
}

/// Failures of one shard.
#[derive(Debug, Default)]
pub struct Budget {
    failures: usize,
}

impl Budget {
    /// The shard failed after it had served for this long (zero if it never did).
    pub fn on_failure(&mut self, served: Duration) -> Restart {
        if served >= HEALTHY_AFTER {
            self.failures = 0;
        }
        let wait = WAITS.get(self.failures);
        self.failures += 1;
        wait.map_or(Restart::GiveUp, |wait| Restart::After(*wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_the_budget_is_spent() {
        let mut budget = Budget::default();
        let outcomes: Vec<_> = (0..=WAITS.len()).map(|_| budget.on_failure(Duration::ZERO)).collect();
        let waits: Vec<_> = WAITS.iter().map(|wait| Restart::After(*wait)).collect();
        assert_eq!(outcomes[..WAITS.len()], waits);
        assert_eq!(outcomes[WAITS.len()], Restart::GiveUp);
        assert_eq!(budget.on_failure(Duration::ZERO), Restart::GiveUp);
    }

    #[test]
    fn a_healthy_time_renews_it() {
        let mut budget = Budget::default();
        budget.on_failure(Duration::ZERO);
        budget.on_failure(Duration::ZERO);
        assert_eq!(budget.on_failure(HEALTHY_AFTER), Restart::After(WAITS[0]));
        assert_eq!(budget.on_failure(Duration::from_secs(1)), Restart::After(WAITS[1]));
    }
}
