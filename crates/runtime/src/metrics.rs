//! Metrics of one process, in the Prometheus text format. Those which have no series yet are named, too.
//!
//! Asking twice for a metric of one name returns the same metric, so that parts of a program which are started more
//! than once (clients, stores) need not know of each other.

mod held;

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use held::{HeldCounter, HeldCounters};

/// A registry of metrics. Cheap to clone; clones share the registry.
#[derive(Clone, Default)]
pub struct Metrics {
    registry: Registry,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
}

/// A metric that was asked for.
struct Known {
    metric: Box<dyn Any + Send + Sync>,
    help: String,
    /// Its type, in the words of the text format.
    kind: &'static str,
}

impl Metrics {
    /// An empty registry.
    pub fn new() -> Metrics {
        Metrics::default()
    }

    /// A registry with the metrics of the process itself: memory, file descriptors, processor time.
    pub fn with_process() -> Metrics {
        let metrics = Metrics::new();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.registry.register(Box::new(process)).expect("the registry is empty");
        metrics
    }

    /// The registry, to register collectors of other kinds.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// All metrics in the Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let gathered = self.registry.gather();
        if let Err(error) = TextEncoder::new().encode_utf8(&gathered, &mut text) {
            tracing::error!(%error, "cannot render metrics");
        }
        let shown: BTreeSet<&str> = gathered.iter().map(|family| family.name()).collect();
        for (name, Known { help, kind, .. }) in
            self.known.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            if !shown.contains(name.as_str()) {
                text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
            }
        }
        text
    }

    /// A counter without labels.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.obtain(name, help, "counter", || IntCounter::new(name, help))
    }

    /// Counters by label values.
    pub fn counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.obtain(name, help, "counter", || IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// Counters by label values, whose series leave when nobody holds them any more.
    pub fn held_counter_vec(&self, name: &str, help: &str, labels: &[&str]) -> HeldCounters {
        let make = || IntCounterVec::new(Opts::new(name, help), labels).map(HeldCounters::new);
        self.obtain(name, help, "counter", make)
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.obtain(name, help, "gauge", || IntGauge::new(name, help))
    }

    /// Gauges by label values.
    pub fn gauge_vec(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.obtain(name, help, "gauge", || IntGaugeVec::new(Opts::new(name, help), labels))
    }

    /// Histograms by label values. `buckets` are upper bounds, ascending.
    pub fn histogram_vec(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.obtain(name, help, "histogram", || HistogramVec::new(opts, labels))
    }

    /// A histogram without labels. `buckets` are upper bounds, ascending.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.obtain(name, help, "histogram", || Histogram::with_opts(opts))
    }

    /// The metric of this name, made now if it is new.
    ///
    /// # Panics
    /// If the name or the labels are malformed, or the name is taken by a metric of another type: both are fixed in
    /// the source.
    fn obtain<M>(
        &self,
        name: &str,
        help: &str,
        kind: &'static str,
        make: impl FnOnce() -> prometheus::Result<M>,
    ) -> M
    where
        M: Collector + Clone + Send + Sync + 'static,
    {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(name) {
            return known.metric.downcast_ref::<M>().expect("one name has one type").clone();
        }
        let metric = make().expect("names and labels are fixed in the source");
        self.registry.register(Box::new(metric.clone())).expect("the name was not known");
        let known_metric = Known { metric: Box::new(metric.clone()), help: help.to_owned(), kind };
        known.insert(name.to_owned(), known_metric);
        metric
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_metric() {
        let metrics = Metrics::new();
        metrics.counter("c_total", "Counts.").inc();
        metrics.clone().counter("c_total", "Counts.").inc();
        metrics.gauge_vec("g", "Gauges.", &["journal"]).with_label_values(&["a/b"]).set(5);
        metrics.histogram_vec("h", "Observes.", &["s"], &[0.1, 1.0]).with_label_values(&["x"]).observe(0.5);
        let text = metrics.render();
        assert!(text.contains("c_total 2"), "{text}");
        assert!(text.contains(r#"g{journal="a/b"} 5"#), "{text}");
        assert!(text.contains(r#"h_bucket{s="x",le="1"} 1"#), "{text}");
    }

    #[test]
    fn metrics_without_series_are_named() {
        let metrics = Metrics::new();
        let failures = metrics.counter_vec("f_total", "Failures.", &["what"]);
        assert_eq!(metrics.render(), "# HELP f_total Failures.\n# TYPE f_total counter\n");
        failures.with_label_values(&["x"]).inc();
        assert_eq!(metrics.render().matches("# TYPE f_total counter\n").count(), 1);
    }

    #[test]
    fn the_process_shows_its_own_use() {
        assert!(Metrics::with_process().render().contains("process_open_fds"));
    }
}
