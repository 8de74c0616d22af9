//! When a producer is forgotten.
//!
//! Producers come and go with processes, and each leaves an entry in every checkpoint. An entry which is dropped too
//! early ends the de-duplication of a producer that still writes, so no single clock may decide about it: neither that
//! of a producer, nor the wall clock of this process, which may both be of one machine whose time is wrong. So an entry
//! goes when the clocks of messages say that its producer is of the past, *and* this process has not heard of it for as
//! long, by a clock that nobody sets. Processes that never run for that long still drop what is older by far.

use crate::Clock;
use std::time::Duration;

/// Horizons behind which a producer is forgotten although this process has not run for that long.
const FAR: u32 = 30;

/// What a checkpoint may forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pruning {
    /// How far behind a producer has to be. Zero forgets nothing.
    pub horizon: Duration,
    /// Wall time, since the Unix epoch.
    pub unix_now: Duration,
    /// For how long the sequencer has run, by a clock which is never set.
    pub running: Duration,
}

impl Pruning {
    /// Forget nothing.
    pub const NONE: Pruning =
        Pruning { horizon: Duration::ZERO, unix_now: Duration::ZERO, running: Duration::ZERO };

    /// Whether a producer is forgotten whose last message had this clock and came when the sequencer had run for
    /// `seen`. `newest` is the largest clock of its journal, which counts as far as wall time has come: one producer
    /// whose clock runs ahead does not make the others old.
    pub(super) fn forgets(&self, newest: Clock, last: Clock, seen: Duration) -> bool {
        let reference = newest.min(Clock::from_unix(self.unix_now));
        let is_behind = |span: Duration| last < reference.saturating_sub(span);
        let is_unheard = self.running.saturating_sub(seen) >= self.horizon;
        !self.horizon.is_zero()
            && (is_behind(self.horizon) && is_unheard || is_behind(self.horizon.saturating_mul(FAR)))
    }
}
