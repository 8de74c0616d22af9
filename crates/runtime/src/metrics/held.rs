//! Counters of things which come and go, such as journals: a series is there for as long as somebody holds it, and after
//! that until it was shown once more. So nothing that was counted is lost, and series are as many as what is in use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec};

/// Series which nobody holds and which were not shown since: beyond it they go unseen. A process whose metrics nobody reads
/// does not keep those of everything that it ever did.
const UNHELD_MAX: usize = 1024;

/// Counters by label values, whose series leave when nobody holds them. Cheap to clone; clones are the same counters.
#[derive(Clone)]
pub struct HeldCounters {
    all: IntCounterVec,
    holders: Arc<Mutex<Holders>>,
}

#[derive(Default)]
struct Holders {
    /// How many hold the series of these label values.
    counts: BTreeMap<Vec<String>, usize>,
    /// Series which nobody holds.
    unheld: usize,
}

/// A series which is held until this is dropped.
pub struct HeldCounter {
    of: HeldCounters,
    labels: Vec<String>,
    counter: IntCounter,
}

impl HeldCounters {
    /// Over `all`, which is registered through this alone.
    pub(super) fn new(all: IntCounterVec) -> HeldCounters {
        HeldCounters { all, holders: Arc::default() }
    }

    /// The series of these label values.
    ///
    /// # Panics
    /// If they are not as many as the labels, which are fixed in the source.
    pub fn hold(&self, labels: &[&str]) -> HeldCounter {
        let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        let mut holders = self.holders();
        match holders.counts.get_mut(&labels) {
            Some(0) => {
                holders.counts.insert(labels.clone(), 1);
                holders.unheld -= 1;
            }
            Some(count) => *count += 1,
            None => {
                holders.counts.insert(labels.clone(), 1);
            }
        }
        // While nobody can remove it.
        let counter = self.all.with_label_values(&labels);
        HeldCounter { of: self.clone(), labels, counter }
    }

    fn release(&self, labels: &[String]) {
        let mut holders = self.holders();
        let count = holders.counts.get_mut(labels).expect("a series which is held has a count");
        *count -= 1;
        if *count == 0 {
            holders.unheld += 1;
        }
        if holders.unheld > UNHELD_MAX {
            self.remove_unheld(&mut holders);
        }
    }

    fn remove_unheld(&self, holders: &mut Holders) {
        holders.counts.retain(|labels, count| {
            if *count == 0 {
                // It is there: only this removes series, and together with their counts.
                let _ = self.all.remove_label_values(labels);
            }
            *count > 0
        });
        holders.unheld = 0;
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for HeldCounters {
    fn desc(&self) -> Vec<&Desc> {
        self.all.desc()
    }

    /// What is shown. Series which nobody holds are shown for the last time.
    fn collect(&self) -> Vec<MetricFamily> {
        let mut holders = self.holders();
        let shown = self.all.collect();
        self.remove_unheld(&mut holders);
        shown
    }
}

impl HeldCounter {
    /// Counts more.
    pub fn inc_by(&self, more: u64) {
        self.counter.inc_by(more);
    }
}

impl Drop for HeldCounter {
    fn drop(&mut self) {
        self.of.release(&self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;

    #[test]
    fn series_are_there_while_they_are_held_and_are_shown_once_more() {
        let metrics = Metrics::new();
        let all = metrics.held_counter_vec("bytes_total", "Bytes.", &["journal"]);
        let is_shown = |line: &str| metrics.render().lines().any(|shown| shown == line);
        let (first, second) = (all.hold(&["a"]), all.hold(&["a"]));
        all.hold(&["b"]).inc_by(7);
        first.inc_by(2);
        drop(first);
        assert!(is_shown(r#"bytes_total{journal="b"} 7"#), "what was counted shortly is shown");
        second.inc_by(3);
        for _ in 0..2 {
            assert!(is_shown(r#"bytes_total{journal="a"} 5"#), "it is held by another");
        }
        assert!(!metrics.render().contains(r#"journal="b""#));
        drop(second);
        // Who comes back before it was shown goes on with it; then it begins anew.
        metrics.held_counter_vec("bytes_total", "Bytes.", &["journal"]).hold(&["a"]).inc_by(1);
        assert!(is_shown(r#"bytes_total{journal="a"} 6"#));
        assert_eq!(metrics.render(), "# HELP bytes_total Bytes.\n# TYPE bytes_total counter\n");
        all.hold(&["a"]).inc_by(1);
        assert!(is_shown(r#"bytes_total{journal="a"} 1"#));
    }

    #[test]
    fn series_which_nobody_reads_are_bounded() {
        let metrics = Metrics::new();
        let all = metrics.held_counter_vec("bytes_total", "Bytes.", &["journal"]);
        let held = all.hold(&["held"]);
        for journal in 0..3 * UNHELD_MAX {
            all.hold(&[&journal.to_string()]).inc_by(1);
        }
        held.inc_by(1);
        let text = metrics.render();
        assert!(text.contains(r#"journal="held"} 1"#));
        assert!(text.lines().count() <= UNHELD_MAX + 3, "{}", text.lines().count());
    }
}
