//! What is known of the terminal: its width, and how far long work has come.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime::{Clock, Instant};
use std::io::IsTerminal;
use std::time::Duration;

/// Work that is done within this time shows no progress.
const QUIET_TIME: Duration = Duration::from_millis(500);

/// Columns of the terminal which standard output goes to, if it is one and says so.
pub fn columns() -> Option<usize> {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// What a command writes to standard output while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Its results, as they come: on a terminal they are all the progress that is shown.
    Flows,
    /// Nothing until the end.
    Waits,
}

/// Shows on standard error, if that is a terminal and once the work lasts, how far it has come. Clears itself at the end.
pub struct Progress {
    bar: ProgressBar,
    clock: Clock,
    begun: Instant,
    /// Whether nothing is shown as yet, but may be.
    waits: bool,
}

impl Progress {
    /// Of work on `total` bytes, if it is known how many.
    pub fn of_bytes(clock: &Clock, output: Output, total: Option<u64>) -> Progress {
        let counts = match total {
            Some(_) => "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{binary_bytes} {binary_bytes_per_sec}",
        };
        Progress::new(clock, output, total, counts)
    }

    /// Of work on `total` things.
    pub fn of_things(clock: &Clock, output: Output, total: usize) -> Progress {
        let total = u64::try_from(total).unwrap_or(u64::MAX);
        Progress::new(clock, output, Some(total), "{wide_bar} {pos}/{len} {eta}")
    }

    fn new(clock: &Clock, output: Output, total: Option<u64>, counts: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(&format!("{{msg}} {counts}")) {
            bar.set_style(style);
        }
        let flows = output == Output::Flows && std::io::stdout().is_terminal();
        let waits = std::io::stderr().is_terminal() && !flows;
        Progress { bar, clock: clock.clone(), begun: clock.now(), waits }
    }

    /// Says what is being worked on.
    pub fn says(mut self, what: impl Into<String>) -> Progress {
        self.say(what);
        self
    }

    /// Says what is being worked on now.
    pub fn say(&mut self, what: impl Into<String>) {
        self.bar.set_message(what.into());
        self.show_in_time();
    }

    /// So much more is done.
    pub fn advance(&mut self, by: u64) {
        self.bar.inc(by);
        self.show_in_time();
    }

    /// So much is done, of `total`.
    pub fn set(&mut self, done: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.show_in_time();
    }

    fn show_in_time(&mut self) {
        if self.waits && self.clock.now() - self.begun >= QUIET_TIME {
            self.waits = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
