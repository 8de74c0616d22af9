//! What spools count (journal protocol §16).

use runtime::Metrics;
use runtime::prometheus::IntCounter;

/// Counters of all spools of a broker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SpoolMetrics {
    pub(crate) commits: IntCounter,
    pub(crate) commit_bytes: IntCounter,
    pub(crate) rollbacks: IntCounter,
    pub(crate) rollback_bytes: IntCounter,
    pub(crate) completed: IntCounter,
    pub(crate) persisted: IntCounter,
}

impl SpoolMetrics {
    /// The counters, registered with `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> SpoolMetrics {
        let counter = |name: &str, help: &str| metrics.counter(&format!("gazette_spool_{name}_total"), help);
        SpoolMetrics {
            commits: counter("commits", "Groups of appends committed to spools."),
            commit_bytes: counter("commit_bytes", "Bytes committed to spools."),
            rollbacks: counter("rollbacks", "Groups of appends whose write failed."),
            rollback_bytes: counter("rollback_bytes", "Bytes of groups whose write failed."),
            completed: counter("completed", "Fragments completed by spools."),
            persisted: counter("persisted", "Completed fragments found in their store, or uploaded to it."),
        }
    }
}
