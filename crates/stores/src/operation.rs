//! The operations of stores, and their metrics.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fragment::Codec;
use runtime::Metrics;
use runtime::prometheus::{HistogramVec, IntCounterVec};

/// What is done with a store's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Ask whether an object is there.
    Exists,
    /// Read an object.
    Get,
    /// Write an object.
    Put,
    /// List the objects of a journal.
    List,
    /// Delete an object.
    Remove,
    /// Make a URL with which others may read an object.
    SignGet,
}

impl Operation {
    /// The operation's label in metrics.
    fn label(self) -> &'static str {
        match self {
            Operation::Exists => "exists",
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::List => "list",
            Operation::Remove => "remove",
            Operation::SignGet => "signget",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Metrics of one store (journal protocol §16).
#[derive(Clone, Debug)]
pub(crate) struct StoreMetrics {
    store: Arc<str>,
    duration: HistogramVec,
    total: IntCounterVec,
    put_bytes: IntCounterVec,
    list_items: HistogramVec,
    health_checks: IntCounterVec,
}

impl StoreMetrics {
    pub(crate) fn new(metrics: &Metrics, store: Arc<str>) -> StoreMetrics {
        StoreMetrics {
            store,
            duration: metrics.histogram_vec(
                "gazette_store_operation_duration_seconds",
                "Duration of fragment store operations.",
                &["store", "operation", "status"],
                &[0.01, 0.04, 0.16, 0.64, 2.56, 10.24],
            ),
            total: metrics.counter_vec(
                "gazette_store_operation_total",
                "Fragment store operations.",
                &["store", "operation", "status"],
            ),
            put_bytes: metrics.counter_vec(
                "gazette_store_put_bytes_total",
                "Bytes written to fragment stores.",
                &["store", "encoding"],
            ),
            list_items: metrics.histogram_vec(
                "gazette_store_list_items_count",
                "Objects per listing of a fragment store.",
                &["store"],
                &[10.0, 40.0, 160.0, 640.0, 2560.0, 10240.0],
            ),
            health_checks: metrics.counter_vec(
                "gazette_store_health_check_total",
                "Health checks of fragment stores.",
                &["store", "status"],
            ),
        }
    }

    pub(crate) fn operation(&self, operation: Operation, succeeded: bool, took: Duration) {
        let status = if succeeded { "success" } else { "error" };
        let labels = [&*self.store, operation.label(), status];
        self.total.with_label_values(&labels).inc();
        self.duration.with_label_values(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn put_bytes(&self, codec: Codec, bytes: u64) {
        let encoding = if codec == Codec::GzipOffload { "gzip" } else { "none" };
        self.put_bytes.with_label_values(&[&*self.store, encoding]).inc_by(bytes);
    }

    pub(crate) fn listed(&self, items: usize) {
        self.list_items.with_label_values(&[&*self.store]).observe(items as f64);
    }

    pub(crate) fn health_check(&self, succeeded: bool) {
        let status = if succeeded { "ok" } else { "error" };
        self.health_checks.with_label_values(&[&*self.store, status]).inc();
    }
}
