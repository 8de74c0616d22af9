//! Removing assignments, so that the allocator makes them anew (consumer protocol §1.6). Pure.

use keyspace::{Compare, KeyPrefix, Op, Txn};
use proto::Invalid;
use proto::consumer::replica_status::Code;

use crate::schema::KeySpace;

/// What to remove.
#[derive(Debug, Default)]
pub struct Selected {
    /// Shards of which an assignment is removed, in the order of the request.
    pub shards: Vec<String>,
    /// The guarded removal.
    pub txn: Txn,
}

/// Selects the failed replicas of the shards and, unless `only_failed`, their primaries.
///
/// # Errors
/// If that is more than etcd takes in one transaction.
pub fn select(
    key_space: &KeySpace,
    prefix: &KeyPrefix,
    shards: Vec<String>,
    only_failed: bool,
) -> Result<Selected, Invalid> {
    let mut selected = Selected::default();
    for shard in shards {
        let before = selected.txn.then.len();
        for (key, status) in key_space.assignments_of(&shard) {
            if status.value.code() == Code::Failed || key.slot == 0 && !only_failed {
                let key = prefix.assignment(key);
                let equals = status.mod_revision;
                selected.txn.compares.push(Compare::ModRevision { key: key.clone(), equals });
                selected.txn.then.push(Op::Delete { key });
            }
        }
        if selected.txn.then.len() > before {
            selected.shards.push(shard);
        }
    }
    let (operations, limit) = (selected.txn.then.len(), Txn::OPS_MAX);
    if operations > limit {
        let problem = format!("{operations} assignments do not fit one transaction (at most {limit} do)");
        return Err(Invalid::new(problem).within("Shards"));
    }
    Ok(selected)
}
