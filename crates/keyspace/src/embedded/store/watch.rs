//! What a watch is shown.

use std::sync::Arc;

use etcd_client::proto::PbEvent;

use super::range::Span;
use super::{Change, Kv, Store, event};

/// Which changes a watch is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchSpec {
    pub(crate) span: Span,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
    /// Whether each event carries what the key was before.
    pub(crate) prev_kv: bool,
}

/// What a watch is to be told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Caught {
    /// Every matching change up to, but not including, revision `next`.
    Up { events: Vec<PbEvent>, next: i64 },
    /// The changes it asks for are no longer kept; the oldest revision that is.
    Compacted(i64),
}

impl Store {
    /// Matching changes from revision `from` on, about `bytes_max` of them. Revisions are never split.
    pub(crate) fn events(&self, spec: &WatchSpec, from: i64, bytes_max: usize) -> Caught {
        if from < self.compacted {
            return Caught::Compacted(self.compacted);
        }
        let (mut events, mut bytes) = (Vec::new(), 0);
        for (revision, changes) in self.history.range(from..) {
            for change in changes.iter().filter(|change| spec.matches(change)) {
                let wanted = spec.prev_kv && !change.is_creation();
                let prev_kv = if wanted { self.get(&change.kv.key, revision - 1) } else { None };
                bytes += change.kv.bytes() + prev_kv.map_or(0, |kv: &Arc<Kv>| kv.bytes());
                events.push(event(change, prev_kv));
            }
            if bytes >= bytes_max {
                return Caught::Up { events, next: revision + 1 };
            }
        }
        Caught::Up { events, next: from.max(self.revision + 1) }
    }
}

impl Change {
    /// Whether it made a key. Such an event has no previous value, even where the same revision deleted one.
    fn is_creation(&self) -> bool {
        !self.deleted && self.kv.create_revision == self.kv.mod_revision
    }
}

impl WatchSpec {
    fn matches(&self, change: &Change) -> bool {
        let filtered = if change.deleted { self.no_delete } else { self.no_put };
        !filtered && self.span.contains(&change.kv.key)
    }
}
