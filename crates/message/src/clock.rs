//! The hybrid clock of messages: wall time in units of 100 ns, with four low bits of counter.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Intervals of 100 ns between 1582-10-15 (the epoch of version 1 UUIDs) and 1970-01-01.
const UUID_EPOCH_TICKS: u64 = 122_192_928_000_000_000;
/// Largest timestamp which fits the 60 bits of a UUID.
const TIMESTAMP_MAX: u64 = (1 << 60) - 1;
/// What one tick adds: ten intervals of 100 ns, so each tick of a clock is one microsecond.
const TICK: u64 = 10 << COUNTER_BITS;
const COUNTER_BITS: u32 = 4;

/// A point in the time of one producer: a timestamp of 60 bits which counts 100 ns since 1582-10-15, then a counter of
/// four bits. Clocks order the messages of a producer; zero opts a message out of sequencing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Clock(pub u64);

impl Clock {
    /// The clock of messages which are not sequenced.
    pub const ZERO: Clock = Clock(0);

    /// The clock of a wall time, given as the time since the Unix epoch. Precise to 100 ns; saturates in the year 5236.
    pub fn from_unix(since_epoch: Duration) -> Clock {
        let ticks = since_epoch.as_nanos() / 100 + u128::from(UUID_EPOCH_TICKS);
        Clock(u64::try_from(ticks).map_or(TIMESTAMP_MAX, |ticks| ticks.min(TIMESTAMP_MAX)) << COUNTER_BITS)
    }

    /// The wall time of this clock as time since the Unix epoch, precise to 100 ns. Earlier clocks are zero.
    pub fn as_unix(self) -> Duration {
        let ticks = (self.0 >> COUNTER_BITS).saturating_sub(UUID_EPOCH_TICKS);
        Duration::new(ticks / 10_000_000, (ticks % 10_000_000) as u32 * 100)
    }

    /// This clock, moved back by `span`; stops at zero.
    pub fn saturating_sub(self, span: Duration) -> Clock {
        let ticks = u64::try_from(span.as_nanos() / 100).unwrap_or(u64::MAX);
        Clock(self.0.saturating_sub(ticks.saturating_mul(1 << COUNTER_BITS)))
    }

    pub(crate) fn timestamp(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    pub(crate) fn counter(self) -> u16 {
        (self.0 & 0xf) as u16
    }

    pub(crate) fn from_parts(timestamp: u64, counter: u16) -> Clock {
        Clock(timestamp << COUNTER_BITS | u64::from(counter))
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Hands out strictly increasing clocks, and follows a wall time which it is told. Shared between threads.
#[derive(Debug, Default)]
pub struct ClockSource(AtomicU64);

impl ClockSource {
    /// A source at clock zero: update it before use, unless the clocks are synthetic.
    pub fn new() -> ClockSource {
        ClockSource::default()
    }

    /// Advances to a wall time (time since the Unix epoch) if that is later; never goes back.
    pub fn update(&self, since_epoch: Duration) {
        self.0.fetch_max(Clock::from_unix(since_epoch).0, Ordering::AcqRel);
    }

    /// Advances by one microsecond and returns the new clock, which no other call returns.
    pub fn tick(&self) -> Clock {
        Clock(self.0.fetch_add(TICK, Ordering::AcqRel).wrapping_add(TICK))
    }

    /// The last clock, without advancing.
    pub fn peek(&self) -> Clock {
        Clock(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_advances_one_microsecond_and_precision_is_100_ns() {
        let source = ClockSource::new();
        assert_eq!(source.tick(), Clock(160));
        let wall = Duration::new(1_567_304_621, 981_273_799);
        source.update(wall);
        assert_eq!(source.peek(), Clock(0x1e9c_c5f8_3fc2_f810));
        assert_eq!(source.peek().as_unix(), Duration::new(1_567_304_621, 981_273_700));
        source.tick();
        assert_eq!(source.tick().as_unix(), Duration::new(1_567_304_621, 981_275_700));
    }

    #[test]
    fn update_never_goes_back_and_zeroes_the_counter_when_it_advances() {
        let source = ClockSource(AtomicU64::new(Clock::from_unix(Duration::from_secs(10)).0 | 0xf));
        source.update(Duration::from_secs(9));
        assert_eq!(source.peek(), Clock(Clock::from_unix(Duration::from_secs(10)).0 | 0xf));
        source.update(Duration::from_secs(11));
        assert_eq!(source.peek(), Clock::from_unix(Duration::from_secs(11)));
        assert_eq!(source.peek().counter(), 0);
    }

    #[test]
    fn extremes_saturate() {
        assert_eq!(Clock::from_unix(Duration::MAX).timestamp(), TIMESTAMP_MAX);
        assert_eq!(Clock::ZERO.as_unix(), Duration::ZERO);
        assert_eq!(Clock(5).saturating_sub(Duration::MAX), Clock::ZERO);
        assert_eq!(Clock(160).saturating_sub(Duration::from_nanos(100)), Clock(144));
    }
}
