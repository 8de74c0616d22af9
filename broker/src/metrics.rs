//! Metrics of the journal service (journal protocol §16).

use proto::JournalName;
use proto::protocol::Status;
use runtime::Metrics;
use runtime::prometheus::{IntCounterVec, IntGaugeVec};

/// Metrics of the journal service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BrokerMetrics {
    started: IntCounterVec,
    completed: IntCounterVec,
    write_head: IntGaugeVec,
}

impl BrokerMetrics {
    /// The metrics, registered with `metrics`.
    pub fn new(metrics: &Metrics) -> BrokerMetrics {
        BrokerMetrics {
            started: metrics.counter_vec(
                "gazette_journal_server_started_totals",
                "Started invocations of the journal service.",
                &["operation"],
            ),
            completed: metrics.counter_vec(
                "gazette_journal_server_completed_totals",
                "Completed invocations of the journal service, by outcome.",
                &["operation", "status"],
            ),
            write_head: metrics.gauge_vec(
                "gazette_write_head",
                "Offset at which the next append of the journal begins.",
                &["journal"],
            ),
        }
    }

    /// An operation begins.
    pub fn started(&self, operation: &str) {
        self.started.with_label_values(&[operation]).inc();
    }

    /// An operation ended with `status`, or with an error if that is `None`.
    pub fn completed(&self, operation: &str, status: Option<Status>) {
        let status = match status {
            Some(Status::Ok) => "ok",
            Some(status) => status.as_str_name(),
            None => "<error>",
        };
        self.completed.with_label_values(&[operation, status]).inc();
    }

    /// An append to `journal` ended at `offset`.
    pub fn write_head(&self, journal: &str, offset: i64) {
        self.write_head.with_label_values(&[journal]).set(offset);
    }

    /// Drops the series of a journal which is no longer assigned here.
    pub fn forget(&self, journal: &JournalName) {
        // There is none unless the journal was appended to.
        drop(self.write_head.remove_label_values(&[journal.as_str()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_a_journal_go_with_it() {
        let registry = Metrics::new();
        let metrics = BrokerMetrics::new(&registry);
        let journal = JournalName::parse("a/journal").unwrap();
        metrics.started("Append");
        metrics.completed("Append", Some(Status::Ok));
        metrics.completed("Read", Some(Status::JournalNotFound));
        metrics.completed("List", None);
        metrics.write_head(journal.as_str(), 9);
        let text = registry.render();
        for line in [
            r#"gazette_journal_server_started_totals{operation="Append"} 1"#,
            r#"gazette_journal_server_completed_totals{operation="Append",status="ok"} 1"#,
            r#"gazette_journal_server_completed_totals{operation="Read",status="JOURNAL_NOT_FOUND"} 1"#,
            r#"gazette_journal_server_completed_totals{operation="List",status="<error>"} 1"#,
            r#"gazette_write_head{journal="a/journal"} 9"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        metrics.forget(&journal);
        assert!(!registry.render().contains("gazette_write_head{"));
    }
}
