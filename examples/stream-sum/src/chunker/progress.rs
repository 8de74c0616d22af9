//! Shows how far a run is: a live line on a terminal, or lines for programs.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::config::ProgressMode;

/// Shortest time between two lines.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// What a run has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Streams whose sum was right.
    pub streams: u64,
    /// Chunks published, those which end a stream included.
    pub chunks: u64,
}

/// See the module.
pub struct Progress {
    shown: Shown,
    last: Option<Duration>,
}

enum Shown {
    Bar(ProgressBar),
    Plain,
    Nothing,
}

impl Progress {
    /// Progress of a run, shown on standard error.
    pub fn new(mode: ProgressMode, streams_expected: Option<u64>) -> Progress {
        let shown = match mode {
            ProgressMode::Plain => Shown::Plain,
            ProgressMode::Auto if std::io::stderr().is_terminal() => Shown::Bar(bar(streams_expected)),
            ProgressMode::Auto | ProgressMode::None => Shown::Nothing,
        };
        Progress { shown, last: None }
    }

    /// Whether [`INTERVAL`] has passed since totals were shown. `elapsed` is since the start of the run.
    pub fn is_due(&self, elapsed: Duration) -> bool {
        self.last.is_none_or(|last| elapsed >= last + INTERVAL)
    }

    /// Shows the totals, and the longest wait for a sum since the last time.
    pub fn update(&mut self, totals: Totals, waited: Duration, elapsed: Duration) {
        self.last = Some(elapsed);
        self.show(totals, waited, elapsed);
    }

    /// Shows the totals for the last time.
    pub fn finish(&mut self, totals: Totals, waited: Duration, elapsed: Duration) {
        self.show(totals, waited, elapsed);
        if let Shown::Bar(bar) = &self.shown {
            bar.abandon();
        }
    }

    #[expect(clippy::print_stderr, reason = "the lines are the interface")]
    fn show(&self, totals: Totals, waited: Duration, elapsed: Duration) {
        match &self.shown {
            Shown::Nothing => {}
            Shown::Plain => eprintln!("{}", plain(totals, waited, elapsed)),
            Shown::Bar(bar) => {
                let rate = totals.chunks as f64 / elapsed.as_secs_f64().max(0.001);
                bar.set_position(totals.streams);
                bar.set_message(format!("{} chunks, {rate:.0} chunks/s", totals.chunks));
            }
        }
    }
}

/// The line for programs.
fn plain(totals: Totals, waited: Duration, elapsed: Duration) -> String {
    let (streams, chunks) = (totals.streams, totals.chunks);
    let (waited, elapsed) = (waited.as_secs_f64(), elapsed.as_secs_f64());
    format!("progress: streams_verified={streams} chunks={chunks} waited={waited:.3} elapsed={elapsed:.1}")
}

fn bar(streams_expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match streams_expected {
        Some(expected) => {
            (ProgressBar::new(expected), "{elapsed_precise} {bar:30} {pos}/{len} streams verified, {msg}")
        }
        None => (ProgressBar::no_length(), "{elapsed_precise} {spinner} {pos} streams verified, {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_line_has_its_fields() {
        let totals = Totals { streams: 12, chunks: 1212 };
        let line = plain(totals, Duration::from_millis(78), Duration::from_millis(2_345));
        assert_eq!(line, "progress: streams_verified=12 chunks=1212 waited=0.078 elapsed=2.3");
    }
}
