//! The summary of a chaos run: what was done and verified by fault, and the longest times. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::traffic::Outcome;

/// Of the summary's table.
const HEADER: &str = "\
| fault | rounds | sums verified | appends acknowledged | of unknown outcome | flowed again after (s) | longest wait \
for a sum (s) | longest without an acknowledgement (s) |
|---|---|---|---|---|---|---|---|
";

/// How traffic took one fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// How soon traffic flowed again while the fault lasted, where it must.
    pub taken_over: Option<Duration>,
    /// How soon it flowed again after the heal.
    pub flowed: Duration,
    /// The longest wait for a sum from the strike on.
    pub wait: Duration,
}

/// What all rounds came to.
#[derive(Default)]
pub struct Report {
    rows: BTreeMap<String, Row>,
}

/// What the rounds of one fault came to: counts, and the longest of their times.
#[derive(Clone, Copy, Default)]
struct Row {
    rounds: u32,
    streams: u64,
    appends: usize,
    unknown: usize,
    flowed: Duration,
    wait: Duration,
    stall: Duration,
}

impl Report {
    /// Adds a round.
    pub fn add(&mut self, fault: &str, times: &Times, outcome: &Outcome) {
        let round = Row {
            rounds: 1,
            streams: outcome.totals.streams,
            appends: outcome.checked.acknowledged,
            unknown: outcome.checked.unknown_present + outcome.checked.unknown_absent,
            flowed: times.flowed.max(times.taken_over.unwrap_or_default()),
            wait: times.wait,
            stall: outcome.longest_stall,
        };
        self.rows.entry(fault.to_owned()).or_default().add(&round);
    }

    /// A table, as Markdown.
    pub fn table(&self) -> String {
        let mut all = Row::default();
        let mut text = HEADER.to_owned();
        for (fault, row) in &self.rows {
            text.push_str(&row.line(fault));
            all.add(row);
        }
        text.push_str(&all.line("all"));
        text
    }
}

impl Row {
    fn add(&mut self, other: &Row) {
        self.rounds += other.rounds;
        self.streams += other.streams;
        self.appends += other.appends;
        self.unknown += other.unknown;
        self.flowed = self.flowed.max(other.flowed);
        self.wait = self.wait.max(other.wait);
        self.stall = self.stall.max(other.stall);
    }

    fn line(&self, name: &str) -> String {
        let Row { rounds, streams, appends, unknown, flowed, wait, stall } = self;
        let [flowed, wait, stall] = [flowed, wait, stall].map(Duration::as_secs_f64);
        format!(
            "| {name} | {rounds} | {streams} | {appends} | {unknown} | {flowed:.1} | {wait:.1} | {stall:.1} |\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_summed_and_the_longest_times_are_kept() {
        let mut report = Report::default();
        let mut outcome = Outcome::default();
        outcome.totals.streams = 10;
        outcome.checked.acknowledged = 100;
        outcome.checked.unknown_present = 1;
        outcome.checked.unknown_absent = 2;
        outcome.longest_stall = Duration::from_secs(4);
        let seconds = Duration::from_secs;
        let times = Times { taken_over: Some(seconds(3)), flowed: seconds(1), wait: seconds(2) };
        report.add("stop-broker", &times, &outcome);
        report.add("stop-broker", &Times { wait: seconds(5), ..Times::default() }, &outcome);
        report.add("lose-disk", &times, &outcome);
        let table = report.table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| lose-disk | 1 | 10 | 100 | 3 | 3.0 | 2.0 | 4.0 |",
                "| stop-broker | 2 | 20 | 200 | 6 | 3.0 | 5.0 | 4.0 |",
                "| all | 3 | 30 | 300 | 9 | 3.0 | 5.0 | 4.0 |",
            ]
        );
    }
}
