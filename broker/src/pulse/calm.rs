//! When a pulse would have its journal suspended (journal protocol §5.4, last rule). Pure.
//!
//! A journal is left alone while something goes on around it: its assignments change, or its pulses fail. After a quarter of
//! an hour without, each pulse asks for the suspension; that it is idle, and stored, the append's own preconditions decide.

use proto::protocol::append_request::Suspend;

/// Pulses in a row, a minute apart and undisturbed, after which the next one asks for the suspension.
pub(super) const CALM_PULSES: u32 = 15;

/// Counts the undisturbed pulses of one journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Calm {
    pulses: u32,
}

impl Calm {
    /// A pulse succeeded, and nothing happened until the next one was due.
    pub(super) fn on_undisturbed(&mut self) {
        self.pulses = self.pulses.saturating_add(1);
    }

    /// The pulse failed, or assignments changed.
    pub(super) fn on_disturbed(&mut self) {
        self.pulses = 0;
    }

    /// What the next pulse asks for.
    pub(super) fn mode(&self, auto_suspend: bool) -> Suspend {
        match auto_suspend && self.pulses >= CALM_PULSES {
            true => Suspend::IfFlushed,
            false => Suspend::NoResume,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_calm_suspends_and_only_if_told_to() {
        let mut calm = Calm::default();
        for _ in 0..CALM_PULSES {
            assert_eq!(calm.mode(true), Suspend::NoResume);
            calm.on_undisturbed();
        }
        assert_eq!((calm.mode(true), calm.mode(false)), (Suspend::IfFlushed, Suspend::NoResume));
        calm.on_undisturbed();
        assert_eq!(calm.mode(true), Suspend::IfFlushed, "until it is suspended");
        calm.on_disturbed();
        assert_eq!(calm.mode(true), Suspend::NoResume);
    }
}
