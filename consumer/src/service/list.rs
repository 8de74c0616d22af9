//! Listing shards (consumer protocol §1.6), as a function of one key space snapshot. Pure.

use proto::consumer::{ReplicaStatus, ShardSpec, list_response};
use proto::protocol::LabelSelector;

use crate::schema::KeySpace;

/// The shards which `selector` matches, in the order of their ids.
pub fn list(key_space: &KeySpace, selector: &LabelSelector) -> Vec<list_response::Shard> {
    let matching =
        key_space.items().iter().filter(|(_, item)| selector.matches(&item.value.labels_with_id()));
    let shards = matching.map(|(id, item)| list_response::Shard {
        spec: Some(ShardSpec::clone(&item.value)),
        mod_revision: item.mod_revision.0,
        route: Some(key_space.route(id)),
        // In the order of the route's members, as both are in key order.
        status: key_space.assignments_of(id).map(|(_, status)| ReplicaStatus::clone(&status.value)).collect(),
        create_revision: item.create_revision.0,
    });
    shards.collect()
}
