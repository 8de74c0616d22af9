//! What the log says of an attempt which is repeated for as long as it fails: each reason once, and again after a silence.
//!
//! Attempts are many, and their reasons few. A reason which was said is not said again before [`SILENCE`] has passed, also
//! if others came between, as with several brokers of which none can be reached.

use runtime::Instant;
use runtime::config::format_duration;
use std::fmt::Display;
use std::time::Duration;

/// How long a reason is not said again.
const SILENCE: Duration = Duration::from_secs(60);
/// Reasons which are remembered. Of more, those which were said first are new again.
const REASONS_MAX: usize = 8;

/// An attempt and its failures, since it was begun or last succeeded.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    since: Option<Instant>,
    /// Reasons and when they were said, the latest last.
    said: Vec<(String, Instant)>,
}

impl Outage {
    /// Notes a failure at `now`. Calls `say` with how long attempts have failed, if the log should have it.
    pub(crate) fn failed(&mut self, reason: &impl Display, now: Instant, say: impl FnOnce(&str)) {
        let since = *self.since.get_or_insert(now);
        let reason = reason.to_string();
        if let Some(index) = self.said.iter().position(|(said, _)| *said == reason) {
            if now.saturating_duration_since(self.said[index].1) < SILENCE {
                return;
            }
            self.said.remove(index);
        }
        if self.said.len() >= REASONS_MAX {
            self.said.remove(0);
        }
        self.said.push((reason, now));
        let failing = now.saturating_duration_since(since);
        say(&format_duration(Duration::from_secs(failing.as_secs())));
    }

    /// An attempt succeeded: what fails later is a new trouble.
    pub(crate) fn is_over(&mut self) {
        *self = Outage::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::Clock;

    /// What is said of these failures, at these seconds.
    fn said(outage: &mut Outage, begin: Instant, failures: &[(u64, &str)]) -> Vec<String> {
        let mut lines = Vec::new();
        for (second, reason) in failures {
            let now = begin + Duration::from_secs(*second);
            outage.failed(reason, now, |failing| lines.push(format!("{reason} for {failing}")));
        }
        lines
    }

    #[test]
    fn a_reason_is_said_once_and_again_after_a_silence() {
        let (mut outage, begin) = (Outage::default(), Clock::system().now());
        let refused: Vec<_> = (0..130).map(|second| (second, "refused")).collect();
        let lines = said(&mut outage, begin, &refused);
        assert_eq!(lines, ["refused for 0s", "refused for 1m0s", "refused for 2m0s"]);
        outage.is_over();
        assert_eq!(said(&mut outage, begin, &[(130, "refused")]), ["refused for 0s"]);
    }

    #[test]
    fn reasons_which_take_turns_are_said_once_each() {
        let (mut outage, begin) = (Outage::default(), Clock::system().now());
        let turns: Vec<_> =
            (0..59).map(|second| (second, ["refused", "no route"][second as usize % 2])).collect();
        assert_eq!(said(&mut outage, begin, &turns), ["refused for 0s", "no route for 1s"]);
    }

    #[test]
    fn reasons_without_end_are_forgotten_and_those_said_lately_are_not() {
        let (mut outage, begin) = (Outage::default(), Clock::system().now());
        let reasons: Vec<String> = (0..100).map(|number| format!("reason {number}")).collect();
        let all: Vec<_> = reasons.iter().map(|reason| (1, reason.as_str())).collect();
        assert_eq!(said(&mut outage, begin, &all).len(), 100);
        assert_eq!(outage.said.len(), REASONS_MAX);
        let again = said(&mut outage, begin, &[(2, "reason 99"), (2, "reason 0")]);
        assert_eq!(again, ["reason 0 for 1s"]);
    }
}
