//! How a request finds its shard: the decision of consumer protocol §5.4, as a function of one key space snapshot.
//!
//! The answer says whether the request may go on, which process answers it, and what its header is. Nothing here waits
//! or looks at local shards; [`crate::Resolver`] does. Pure.

use std::sync::Arc;

use keyspace::Misdirected;
use proto::MemberId;
use proto::consumer::{ShardSpec, Status};
use proto::protocol::{Header, LabelSelector, Route};

use crate::schema::KeySpace;

/// Zone of the header of a process whose own member key is gone.
pub const MISSING_ZONE: &str = "local-ConsumerSpec";

/// The answer to who serves a shard.
#[derive(Clone, Debug)]
pub struct Decision {
    /// OK, or why the request cannot go on.
    pub status: Status,
    /// Header of the answer, or of the request to the process that it names.
    pub header: Header,
    /// Whether the process of the header is this one.
    pub is_local: bool,
    /// The specification of the shard, if it exists.
    pub spec: Option<Arc<ShardSpec>>,
}

/// Why a request cannot be resolved. These are gRPC errors rather than statuses.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// Another process passed it on, and did not mean this one.
    #[error("proxied {0}")]
    Misdirected(#[from] Misdirected),
    /// This process is shutting down.
    #[error("resolver has stopped serving local shards")]
    Stopped,
    /// The mirror of etcd has ended.
    #[error("the mirror of etcd has stopped")]
    MirrorStopped,
}

/// The specification of a shard, if it exists for those who may see what `visible` selects.
pub fn visible_spec<'k>(
    key_space: &'k KeySpace,
    shard: &str,
    visible: Option<&LabelSelector>,
) -> Option<&'k Arc<ShardSpec>> {
    let spec = key_space.items().get(shard).map(|item| &item.value);
    spec.filter(|spec| visible.is_none_or(|visible| visible.matches(&spec.labels_with_id())))
}

/// Decides who answers a request of `shard`, which may see what `visible` selects. `may_proxy` says whether that may be
/// another process.
pub fn decide(
    key_space: &KeySpace,
    me: &MemberId,
    shard: &str,
    visible: Option<&LabelSelector>,
    may_proxy: bool,
) -> Decision {
    let local = key_space.local_id(me, MISSING_ZONE);
    let spec = visible_spec(key_space, shard, visible).map(Arc::clone);
    let route = if spec.is_some() { key_space.route(shard) } else { Route::unrouted() };
    let primary = route.primary_id().cloned();
    let status = match (&spec, &primary) {
        (None, _) => Status::ShardNotFound,
        (_, None) => Status::NoShardPrimary,
        (_, Some(primary)) if *primary != local && !may_proxy => Status::NotShardPrimary,
        _ => Status::Ok,
    };
    let process = primary.filter(|_| status == Status::Ok).unwrap_or_else(|| local.clone());
    let is_local = process == local;
    Decision { status, header: Header::routed(process, route, key_space.header().into()), is_local, spec }
}

#[cfg(test)]
mod tests {
    use proto::consumer::replica_status::Code;

    use super::*;
    use crate::fixtures::{REVISION, key_space, member};

    fn check(key_space: &KeySpace, shard: &str, may_proxy: bool, status: Status, process: &str) {
        let decision = decide(key_space, &member("me"), shard, None, may_proxy);
        let expected = member(process).to_proto();
        assert_eq!((decision.status, decision.header.process()), (status, Some(&expected)));
        assert_eq!(decision.is_local, process == "me");
        assert_eq!(decision.header.revision(), REVISION);
        assert_eq!(decision.spec.is_some(), status != Status::ShardNotFound);
    }

    #[test]
    fn the_primary_answers() {
        let shards = [("shard-a", "x"), ("shard-b", "x"), ("shard-c", "x")];
        let replicas = [
            ("shard-a", "me", 0, Code::Primary),
            ("shard-a", "peer", 1, Code::Standby),
            ("shard-b", "me", 1, Code::Standby),
            ("shard-b", "peer", 0, Code::Primary),
            ("shard-c", "me", 1, Code::Standby),
        ];
        let key_space = key_space(&shards, &replicas);
        for may_proxy in [false, true] {
            check(&key_space, "shard-a", may_proxy, Status::Ok, "me");
            check(&key_space, "shard-c", may_proxy, Status::NoShardPrimary, "me");
            check(&key_space, "shard-d", may_proxy, Status::ShardNotFound, "me");
        }
        check(&key_space, "shard-b", true, Status::Ok, "peer");
        check(&key_space, "shard-b", false, Status::NotShardPrimary, "me");
        let header = decide(&key_space, &member("me"), "shard-b", None, true).header;
        assert_eq!(header.route.unwrap().primary_endpoint(), Some("http://peer:80"));
    }

    #[test]
    fn a_shard_out_of_sight_is_as_one_that_does_not_exist() {
        let replicas = [("shard-a", "me", 0, Code::Primary), ("shard-a", "peer", 1, Code::Standby)];
        let key_space = key_space(&[("shard-a", "x"), ("shard-b", "y")], &replicas);
        for (selector, is_visible) in
            [("kind=x", true), ("id=shard-a", true), ("kind=y", false), ("id=s", false)]
        {
            let visible = selector.parse().unwrap();
            let decide = |shard| decide(&key_space, &member("me"), shard, Some(&visible), true);
            let found = decide("shard-a");
            assert_eq!(found.status == Status::Ok, is_visible, "{selector}");
            if !is_visible {
                let missing = decide("shard-none");
                assert_eq!((found.status, found.header), (missing.status, missing.header));
            }
        }
    }

    #[test]
    fn a_process_whose_key_is_gone_answers_under_a_placeholder() {
        let key_space = key_space(&[("shard-a", "x")], &[("shard-a", "gone", 0, Code::Primary)]);
        let decision = decide(&key_space, &member("gone"), "shard-a", None, false);
        assert_eq!((decision.status, decision.is_local), (Status::NotShardPrimary, true));
        let id = decision.header.process_id.unwrap();
        assert_eq!((id.zone.as_str(), id.suffix.as_str()), ("local-ConsumerSpec", "missing-from-Etcd"));
        assert!(key_space.unrouted_header(&member("gone")).process().is_none());
    }

    #[test]
    fn a_request_that_was_passed_on_wrongly_is_told_so() {
        let error = ResolveError::from(Misdirected::ClusterId { theirs: 6, ours: 7 });
        let text = "proxied request Etcd ClusterId doesn't match our own (6 vs 7)";
        assert_eq!(
            (error.to_string(), runtime::grpc::chain_text(&error)),
            (text.to_owned(), text.to_owned())
        );
    }
}
