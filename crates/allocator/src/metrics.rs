//! Metrics of the allocator (journal protocol §16). Gauges move only in the leader.

use std::time::Duration;

use runtime::Metrics;
use runtime::prometheus::{HistogramVec, IntCounter, IntGauge};

use crate::converge::Counts;
use crate::state::State;

/// Upper bounds of solver run times, seconds.
const RUNTIME_BUCKETS: &[f64] = &[0.001, 0.01, 0.1, 1.0, 10.0, 100.0];

pub(crate) struct AllocatorMetrics {
    added: IntCounter,
    removed: IntCounter,
    packed: IntCounter,
    converge: IntCounter,
    runtime: HistogramVec,
    slots: IntGauge,
    items: IntGauge,
    members: IntGauge,
}

impl AllocatorMetrics {
    pub(crate) fn register(metrics: &Metrics) -> AllocatorMetrics {
        AllocatorMetrics {
            added: metrics.counter("gazette_allocator_assignment_added_total", "Assignments added."),
            removed: metrics.counter("gazette_allocator_assignment_removed_total", "Assignments removed."),
            packed: metrics
                .counter("gazette_allocator_assignment_packed_total", "Assignments moved to a lower slot."),
            converge: metrics.counter("gazette_allocator_converge_total", "Rounds that changed assignments."),
            runtime: metrics.histogram_vec(
                "gazette_allocator_max_flow_runtime_seconds",
                "Time to solve for an assignment.",
                &[],
                RUNTIME_BUCKETS,
            ),
            slots: metrics
                .gauge("gazette_allocator_desired_replication_slots", "Assignments that items want."),
            items: metrics.gauge("gazette_allocator_items", "Items to assign."),
            members: metrics.gauge("gazette_allocator_members", "Members to assign to."),
        }
    }

    pub(crate) fn sizes(&self, state: &State) {
        self.slots.set(i64::try_from(state.item_slots()).unwrap_or(i64::MAX));
        self.items.set(state.items.len() as i64);
        self.members.set(state.members.len() as i64);
    }

    pub(crate) fn solved(&self, took: Duration) {
        self.runtime.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
    }

    pub(crate) fn converge(&self, counts: Counts) {
        self.converge.inc();
        self.added.inc_by(counts.added);
        self.removed.inc_by(counts.removed);
        self.packed.inc_by(counts.packed);
    }
}
