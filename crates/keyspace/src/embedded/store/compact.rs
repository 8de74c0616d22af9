//! Forgetting history.

use std::collections::BTreeSet;

use bytes::Bytes;
use etcd_client::proto::{PbCompactionRequest, PbCompactionResponse};
use imbl::Vector;

use super::range::header;
use super::{Change, Effect, HISTORY_BYTES_MAX, Store, StoreError, Version};

impl Store {
    pub(super) fn compact(
        &mut self,
        request: &PbCompactionRequest,
    ) -> Result<(PbCompactionResponse, Vec<Effect>), StoreError> {
        if request.revision <= self.compacted {
            return Err(StoreError::Compacted);
        }
        if request.revision > self.revision {
            return Err(StoreError::FutureRevision);
        }
        self.compact_to(request.revision);
        let response = PbCompactionResponse { header: Some(header(self.revision)) };
        Ok((response, vec![Effect::Compact { revision: request.revision }]))
    }

    /// Forgets the history up to `revision`, which [`Store::surplus_history`] chose.
    pub(crate) fn forget(&mut self, revision: i64) -> Option<Effect> {
        if revision <= self.compacted || revision > self.revision {
            return None;
        }
        self.compact_to(revision);
        Some(Effect::Compact { revision })
    }

    /// Where to compact so that half of the permitted history is left, if there is more than is permitted.
    pub(crate) fn surplus_history(&self) -> Option<i64> {
        if self.history_bytes <= HISTORY_BYTES_MAX {
            return None;
        }
        let mut kept = 0;
        let newest_to_forget = self.history.iter().rev().find(|(_, changes)| {
            kept += changes.iter().map(|c| c.kv.bytes()).sum::<usize>();
            kept > HISTORY_BYTES_MAX / 2
        });
        newest_to_forget.map(|(revision, _)| *revision).filter(|revision| *revision > self.compacted)
    }

    /// Drops the changes before `revision`, and every version that a read at `revision` or later cannot see.
    pub(super) fn compact_to(&mut self, revision: i64) {
        self.compacted = revision;
        let (before, at, after) = self.history.split_lookup(&revision);
        let touched: BTreeSet<Bytes> =
            before.values().chain(at.iter()).flat_map(|c| c.iter()).map(|c| c.kv.key.clone()).collect();
        self.history = after;
        // A watch may begin at the compacted revision. It is shown the keys which that revision left, not those it
        // deleted: they are forgotten.
        let left: Vec<Change> = at.iter().flat_map(|c| c.iter()).filter(|c| !c.deleted).cloned().collect();
        if !left.is_empty() {
            self.history.insert(revision, left.into());
        }
        self.history_bytes = self.history.values().flat_map(|c| c.iter()).map(|c| c.kv.bytes()).sum();
        for key in touched {
            self.prune(&key, revision);
        }
    }

    fn prune(&mut self, key: &Bytes, revision: i64) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let superseded = |versions: &Vector<Version>| match (versions.front(), versions.get(1)) {
            (_, Some(next)) if next.revision <= revision => true,
            (Some(first), _) => first.revision <= revision && first.kv.is_none(),
            (None, _) => false,
        };
        while superseded(versions) {
            if let Some(version) = versions.pop_front() {
                self.bytes = self.bytes.saturating_sub(version.bytes(key));
            }
        }
        if versions.is_empty() {
            self.keys.remove(key);
        }
    }
}
