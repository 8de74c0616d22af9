//! What replicas count: appends and their groups, spools, and the way to the stores (journal protocol §16, and what it lacks).

use runtime::Metrics;
use runtime::prometheus::{Histogram, IntCounter, IntGauge};

/// Upper bounds of times between an append and its answer, seconds.
const SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Upper bounds of appends in a group.
const APPENDS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];
/// Upper bounds of bytes in a group.
const BYTES: [f64; 9] =
    [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Metrics of all replicas of a broker. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ReplicaMetrics {
    pub(crate) commits: IntCounter,
    pub(crate) commit_bytes: IntCounter,
    pub(crate) rollbacks: IntCounter,
    pub(crate) rollback_bytes: IntCounter,
    pub(crate) completed: IntCounter,
    pub(crate) persisted: IntCounter,
    /// From when an append was received to when it is answered.
    pub(crate) append_seconds: Histogram,
    pub(crate) group_appends: Histogram,
    pub(crate) group_bytes: Histogram,
    /// From when a group was written to when all replicas have acknowledged it.
    pub(crate) replication_seconds: Histogram,
    replication_lag: IntGauge,
    backlog_fragments: IntGauge,
    backlog_bytes: IntGauge,
}

impl ReplicaMetrics {
    /// The metrics, registered with `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> ReplicaMetrics {
        let counter = |name: &str, help: &str| metrics.counter(&format!("gazette_spool_{name}_total"), help);
        ReplicaMetrics {
            commits: counter("commits", "Groups of appends committed to spools."),
            commit_bytes: counter("commit_bytes", "Bytes committed to spools."),
            rollbacks: counter("rollbacks", "Groups of appends whose write failed."),
            rollback_bytes: counter("rollback_bytes", "Bytes of groups whose write failed."),
            completed: counter("completed", "Fragments completed by spools."),
            persisted: counter("persisted", "Completed fragments found in their store, or uploaded to it."),
            append_seconds: metrics.histogram(
                "courant_append_seconds",
                "Time from when an append with content was wholly received to when it is committed.",
                &SECONDS,
            ),
            group_appends: metrics.histogram(
                "courant_append_group_appends",
                "Appends which were committed together.",
                &APPENDS,
            ),
            group_bytes: metrics.histogram(
                "courant_append_group_bytes",
                "Bytes of appends which were committed together.",
                &BYTES,
            ),
            replication_seconds: metrics.histogram(
                "courant_replication_seconds",
                "Time from when the primary wrote a group of appends to when every replica has acknowledged it.",
                &SECONDS,
            ),
            replication_lag: metrics.gauge(
                "courant_replication_lag_bytes",
                "Bytes that primaries have written and not every replica has acknowledged.",
            ),
            backlog_fragments: metrics.gauge(
                "courant_upload_backlog_fragments",
                "Completed fragments which have a store and are not in it.",
            ),
            backlog_bytes: metrics.gauge(
                "courant_upload_backlog_bytes",
                "Content of completed fragments which have a store and are not in it.",
            ),
        }
    }

    /// Counts bytes as not acknowledged while it lives.
    pub(crate) fn unacknowledged(&self, bytes: u64) -> Held {
        Held::new([(&self.replication_lag, i64::try_from(bytes).unwrap_or(i64::MAX))])
    }

    /// Counts a fragment of so many bytes as not stored while it lives.
    pub(crate) fn backlog(&self, bytes: i64) -> Held<2> {
        Held::new([(&self.backlog_fragments, 1), (&self.backlog_bytes, bytes)])
    }
}

/// What gauges show while it lives.
#[derive(Debug)]
pub(crate) struct Held<const N: usize = 1>([(IntGauge, i64); N]);

impl<const N: usize> Held<N> {
    fn new(amounts: [(&IntGauge, i64); N]) -> Held<N> {
        Held(amounts.map(|(gauge, amount)| {
            gauge.add(amount);
            (gauge.clone(), amount)
        }))
    }
}

impl<const N: usize> Drop for Held<N> {
    fn drop(&mut self) {
        for (gauge, amount) in &self.0 {
            gauge.sub(*amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gauges_show_what_is_under_way() {
        let registry = Metrics::new();
        let metrics = ReplicaMetrics::new(&registry);
        let (first, second) = (metrics.backlog(10), metrics.backlog(5));
        let lag = metrics.unacknowledged(7);
        let shown = |text: &str| assert!(registry.render().contains(text), "{text}\n{}", registry.render());
        shown("courant_upload_backlog_fragments 2");
        shown("courant_upload_backlog_bytes 15");
        shown("courant_replication_lag_bytes 7");
        drop((first, lag));
        shown("courant_upload_backlog_fragments 1");
        shown("courant_upload_backlog_bytes 5");
        shown("courant_replication_lag_bytes 0");
        drop(second);
        shown("courant_upload_backlog_bytes 0");
    }
}
