//! Listing shards (consumer protocol §1.6), as a function of one key space snapshot. Pure.

use proto::consumer::{ReplicaStatus, ShardSpec, list_response};
use proto::protocol::LabelSelector;

use crate::schema::KeySpace;

/// The shards which `selector` matches, of those which `visible` does, in the order of their ids.
pub fn list(
    key_space: &KeySpace,
    selector: &LabelSelector,
    visible: &LabelSelector,
) -> Vec<list_response::Shard> {
    let is_listed = |spec: &ShardSpec| {
        let labels = spec.labels_with_id();
        selector.matches(&labels) && visible.matches(&labels)
    };
    let matching = key_space.items().iter().filter(|(_, item)| is_listed(&item.value));
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

#[cfg(test)]
mod tests {
    use proto::consumer::replica_status::Code;

    use super::*;
    use crate::fixtures::key_space;

    fn listed(selector: &str) -> Vec<String> {
        let key_space = key_space(&[("shard-a", "x"), ("shard-b", "y"), ("shard-c", "x")], &[]);
        let (selector, everything) = (selector.parse().unwrap(), LabelSelector::everything());
        let shards = list(&key_space, &selector, &everything);
        assert_eq!(list(&key_space, &everything, &selector), shards, "a token filters as a request does");
        shards.into_iter().map(|shard| shard.spec.unwrap().id).collect()
    }

    #[test]
    fn selectors_match_labels_and_the_id() {
        assert_eq!(listed(""), ["shard-a", "shard-b", "shard-c"]);
        assert_eq!(listed("kind=x"), ["shard-a", "shard-c"]);
        assert_eq!(listed("id=shard-b"), ["shard-b"]);
        assert_eq!(listed("kind=x,id!=shard-a"), ["shard-c"]);
        assert_eq!(listed("kind=z"), [""; 0]);
    }

    #[test]
    fn statuses_are_parallel_to_the_members_of_the_route() {
        let replicas = [("shard-a", "peer", 0, Code::Primary), ("shard-a", "me", 1, Code::Standby)];
        let key_space = key_space(&[("shard-a", "x"), ("shard-b", "x")], &replicas);
        let shards = list(&key_space, &LabelSelector::everything(), &LabelSelector::everything());
        let route = shards[0].route.clone().unwrap();
        let suffixes: Vec<_> = route.members.iter().map(|id| id.suffix.as_str()).collect();
        assert_eq!((suffixes, route.primary), (vec!["process-me", "process-peer"], 1));
        assert_eq!(route.endpoints, ["http://me:80", "http://peer:80"]);
        let codes: Vec<_> = shards[0].status.iter().map(ReplicaStatus::code).collect();
        assert_eq!(codes, [Code::Standby, Code::Primary]);
        assert_eq!((shards[0].mod_revision, shards[0].create_revision), (10, 9));
        assert!(shards[1].status.is_empty() && shards[1].route.as_ref().unwrap().primary == -1);
    }
}
