//! What an append writes to etcd: the journal's route, and its suspension (journal protocol §5.2). The transactions are
//! built by pure functions; losing one means that somebody else was faster, and resolving again shows what they did.

use bytes::Bytes;
use keyspace::{Compare, Etcd, EtcdError, Op, PutLease, Txn};
use prost::Message;
use proto::protocol::journal_spec::Suspend;
use proto::protocol::{JournalSpec, Route};
use proto::{Revision, canonical};

use super::precondition::Transition;
use crate::key_space::Mirror;
use crate::resolution::{Assigned, Item};

/// The transaction which makes `route` the value of every assignment that has another; `None` if none has.
///
/// Every append asks, and hardly any has something to write: until then nothing is built.
pub(super) fn publish_route(
    route: &Route,
    assignments: &[Assigned],
    key: impl Fn(&Assigned) -> String,
) -> Option<Txn> {
    let differs = |assigned: &&Assigned| !assigned.route.equivalent(route);
    let stale: Vec<&Assigned> = assignments.iter().filter(differs).collect();
    if stale.is_empty() {
        return None;
    }
    let value: Bytes = route.without_endpoints().encode_to_vec().into();
    let put =
        |assigned: &Assigned| Op::Put { key: key(assigned), value: value.clone(), lease: PutLease::Keep };
    let then = stale.into_iter().map(put).collect();
    Some(Txn { compares: unchanged(assignments, &key), then, or_else: Vec::new() })
}

/// The transaction which puts `mark`: it says that the replicas of these assignments are those that acknowledge appends from
/// now on.
pub(super) fn put_mark(mark: Op, assignments: &[Assigned], key: impl Fn(&Assigned) -> String) -> Txn {
    Txn { compares: unchanged(assignments, key), then: vec![mark], or_else: Vec::new() }
}

/// The transaction which changes the suspension of the journal whose item is under `item_key`.
pub(crate) fn change_suspension(
    item_key: String,
    item: &Item,
    transition: Transition,
    assignments: &[Assigned],
    key: impl Fn(&Assigned) -> String,
) -> Txn {
    let suspend = Suspend { level: transition.level.into(), offset: transition.offset };
    let spec = JournalSpec { suspend: Some(suspend), ..JournalSpec::clone(&item.spec) };
    let mut compares = vec![Compare::ModRevision { key: item_key.clone(), equals: item.mod_revision }];
    compares.extend(unchanged(assignments, key));
    let value = canonical(spec).encode_to_vec().into();
    Txn { compares, then: vec![Op::Put { key: item_key, value, lease: PutLease::None }], or_else: Vec::new() }
}

fn unchanged(assignments: &[Assigned], key: impl Fn(&Assigned) -> String) -> Vec<Compare> {
    let compare =
        |assigned: &Assigned| Compare::ModRevision { key: key(assigned), equals: assigned.mod_revision };
    assignments.iter().map(compare).collect()
}

/// Runs a transaction: whether it succeeded, and the revision to read through.
pub(super) async fn run(etcd: &Etcd, txn: Txn) -> Result<(bool, Revision), EtcdError> {
    let outcome = etcd.txn(txn).await?;
    Ok((outcome.succeeded, outcome.header.revision))
}

/// The key of an assignment.
pub(crate) fn key_in(mirror: &Mirror) -> impl Fn(&Assigned) -> String + '_ {
    |assigned| mirror.assignment_key(&assigned.key)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keyspace::AssignmentKey;

    use super::*;
    use crate::fixtures::member;

    /// Keys that are written for an assignment whose value is `value`, to publish the route of its one member.
    fn written(value: Route) -> Vec<String> {
        let route = Route { members: vec![member("me").to_proto()], primary: 0, ..Route::unrouted() };
        let key = AssignmentKey { item: "a/journal".into(), member: member("me"), slot: 0 };
        let assigned = Assigned { key, route: Arc::new(value), mod_revision: Revision(5) };
        let txn = publish_route(&route, &[assigned], |_| "assignment".to_owned());
        let Some(txn) = txn else { return Vec::new() };
        assert_eq!(txn.compares.len(), 1);
        let keys = txn.then.into_iter().map(|op| match op {
            Op::Put { key, .. } => key,
            op => panic!("{op:?}"),
        });
        keys.collect()
    }

    #[test]
    fn a_route_is_published_where_another_one_is() {
        let published = Route { members: vec![member("me").to_proto()], primary: 0, ..Route::unrouted() };
        assert_eq!(written(Route::unrouted()), ["assignment"]);
        assert_eq!(written(published), [""; 0]);
    }
}
