//! What an append writes to etcd: the journal's route, and its suspension (journal protocol §5.2). The transactions are
//! built by pure functions; losing one means that somebody else was faster, and resolving again shows what they did.

use keyspace::{Compare, Etcd, EtcdError, Op, PutLease, Txn};
use prost::Message;
use proto::protocol::journal_spec::Suspend;
use proto::protocol::{JournalSpec, Route};
use proto::{Revision, canonical};

use super::precondition::Transition;
use crate::key_space::Mirror;
use crate::resolution::{Assigned, Item};

/// The transaction which makes `route` the value of every assignment that has another; `None` if none has. With it goes
/// `mark`, which says that these replicas are those that acknowledge appends from now on.
pub(super) fn publish_route(
    route: &Route,
    assignments: &[Assigned],
    mark: Option<Op>,
    key: impl Fn(&Assigned) -> String,
) -> Option<Txn> {
    let value = route.without_endpoints().encode_to_vec();
    let differs = |assigned: &&Assigned| !assigned.route.equivalent(route);
    let put = |assigned: &Assigned| Op::Put {
        key: key(assigned),
        value: value.clone().into(),
        lease: PutLease::Keep,
    };
    let mut then: Vec<Op> = assignments.iter().filter(differs).map(put).collect();
    let compares = unchanged(assignments, &key);
    (!then.is_empty()).then(|| {
        then.extend(mark);
        Txn { compares, then, or_else: Vec::new() }
    })
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

/// Runs a transaction, and returns the revision to read through.
pub(super) async fn run(etcd: &Etcd, txn: Txn) -> Result<Revision, EtcdError> {
    Ok(etcd.txn(txn).await?.header.revision)
}

/// The key of an assignment.
pub(crate) fn key_in(mirror: &Mirror) -> impl Fn(&Assigned) -> String + '_ {
    |assigned| mirror.assignment_key(&assigned.key)
}
