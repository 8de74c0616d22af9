//! When the stored hints of a primary are worth renewing. Pure.
//!
//! Hints save a successor from reading what they cover. So they are renewed when the log grew a lot since the last ones,
//! but not in quick succession; now and then while it grows a little; and not at all while it does not.

use std::time::Duration;

/// Time since the primary began.
pub type Time = Duration;

/// Growth of a recovery log which makes new hints worth their write, in bytes: what a successor plays in about a second.
pub const GROWTH_BYTES: i64 = 32 << 20;
/// How often hints are renewed if the log grows less.
const INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Shortest time between two renewals, and between two attempts.
const PAUSE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct HintPace {
    growth_bytes: i64,
    /// When hints were last written, or tried to.
    last: Option<Time>,
    /// Head of the log when hints were last written.
    head: Option<i64>,
}

impl HintPace {
    /// Nothing was written yet. `growth_bytes` is usually [`GROWTH_BYTES`].
    pub fn new(growth_bytes: i64) -> HintPace {
        HintPace { growth_bytes, last: None, head: None }
    }

    /// When to write hints, if the log ends at `head`; `None` is not before it grows.
    pub fn due(&self, head: i64) -> Option<Time> {
        let Some(last) = self.last else { return Some(Time::ZERO) };
        let wait = match self.head.map(|written| head.saturating_sub(written)) {
            Some(grown) if grown <= 0 => return None,
            Some(grown) if grown < self.growth_bytes => INTERVAL,
            Some(_) | None => PAUSE,
        };
        Some(last + wait)
    }

    /// Hints of a log which ended at `head` were written.
    pub fn written(&mut self, now: Time, head: i64) {
        (self.last, self.head) = (Some(now), Some(head));
    }

    /// Hints could not be written.
    pub fn failed(&mut self, now: Time) {
        (self.last, self.head) = (Some(now), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn growth_makes_hints_due_and_idleness_does_not() {
        let mut pace = HintPace::new(100);
        assert_eq!(pace.due(7), Some(Time::ZERO), "a promotion writes hints");
        pace.written(SECOND, 7);
        assert_eq!(pace.due(7), None);
        assert_eq!(pace.due(8), Some(SECOND + INTERVAL));
        assert_eq!(pace.due(106), Some(SECOND + INTERVAL));
        assert_eq!(pace.due(107), Some(SECOND + PAUSE));
        pace.written(9 * SECOND, 107);
        assert_eq!(pace.due(107), None);
    }

    #[test]
    fn a_failure_is_tried_again_after_a_pause() {
        let mut pace = HintPace::new(100);
        pace.failed(SECOND);
        assert_eq!(pace.due(7), Some(SECOND + PAUSE));
        pace.written(7 * SECOND, 7);
        assert_eq!(pace.due(7), None);
    }
}
