//! Waiting times between attempts.

use std::time::Duration;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits of journal clients between attempts (journal protocol §12).
pub const JOURNAL_BACKOFF: &[Duration] = &[ms(50), ms(50), ms(100), ms(100), ms(1000), ms(1000), ms(5000)];

/// A sequence of waits whose last one repeats.
#[derive(Debug, Clone)]
pub struct Backoff {
    waits: &'static [Duration],
    next: usize,
}

impl Backoff {
    /// Starts at the first of `waits`. An empty list never waits.
    pub const fn new(waits: &'static [Duration]) -> Backoff {
        Backoff { waits, next: 0 }
    }

    /// The waits of journal clients.
    pub const fn journal() -> Backoff {
        Backoff::new(JOURNAL_BACKOFF)
    }

    /// How long to wait before the next attempt.
    #[expect(clippy::should_implement_trait, reason = "the sequence does not end, so it is no iterator")]
    pub fn next(&mut self) -> Duration {
        let wait = self.waits.get(self.next).or(self.waits.last()).copied().unwrap_or_default();
        self.next = self.next.saturating_add(1);
        wait
    }

    /// Begins anew, after a success.
    pub fn reset(&mut self) {
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_wait_repeats_until_a_reset() {
        const WAITS: &[Duration] = &[ms(1), ms(2)];
        let mut backoff = Backoff::new(WAITS);
        assert_eq!([backoff.next(), backoff.next(), backoff.next()], [ms(1), ms(2), ms(2)]);
        backoff.reset();
        assert_eq!(backoff.next(), ms(1));
        assert_eq!(Backoff::new(&[]).next(), Duration::ZERO);
    }
}
