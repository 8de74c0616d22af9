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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key_space;

    fn check(shards: &[&str], only_failed: bool, expected: &[&str], removed: &[&str]) {
        let replicas = [
            ("shard-a", "me", 0, Code::Primary),
            ("shard-a", "peer", 1, Code::Failed),
            ("shard-b", "me", 0, Code::Failed),
            ("shard-b", "peer", 1, Code::Standby),
            ("shard-c", "me", 1, Code::Standby),
        ];
        let key_space = key_space(&[("shard-a", "x"), ("shard-b", "x"), ("shard-c", "x")], &replicas);
        let prefix = KeyPrefix::parse("/p").unwrap();
        let shards = shards.iter().map(|shard| (*shard).to_owned()).collect();
        let selected = select(&key_space, &prefix, shards, only_failed).unwrap();
        assert_eq!(selected.shards, expected);
        let keys = selected.txn.then.iter().map(|op| match op {
            Op::Delete { key } => key.trim_start_matches("/p/assign/").replace("#zone#process-", " "),
            other => panic!("{other:?}"),
        });
        assert_eq!(keys.collect::<Vec<_>>(), removed);
        assert_eq!(selected.txn.compares.len(), removed.len());
    }

    #[test]
    fn primaries_and_failed_replicas_are_removed() {
        check(&["shard-a"], false, &["shard-a"], &["shard-a me#0", "shard-a peer#1"]);
        check(&["shard-a"], true, &["shard-a"], &["shard-a peer#1"]);
        check(&["shard-c", "shard-b", "nowhere"], false, &["shard-b"], &["shard-b me#0"]);
        check(&["shard-c"], true, &[], &[]);
    }
}
