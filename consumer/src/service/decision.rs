//! How a request finds its shard: the decision of consumer protocol §5.4, as a function of one key space snapshot.
//!
//! The answer says whether the request may go on, which process answers it, and what its header is. Nothing here waits
//! or looks at local shards; [`crate::Resolver`] does. Pure.

use std::sync::Arc;

use keyspace::EtcdHeader;
use proto::MemberId;
use proto::consumer::{ShardSpec, Status};
use proto::protocol::process_spec::Id;
use proto::protocol::{Header, LabelSelector, Route};

use crate::schema::KeySpace;

/// Zone of the header of a process whose own member key is gone.
const MISSING_ZONE: &str = "local-ConsumerSpec";
/// Suffix of the header of a process whose own member key is gone.
const MISSING_SUFFIX: &str = "missing-from-Etcd";

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
    /// The proxying process belongs to another cluster.
    #[error("proxied request Etcd ClusterId doesn't match our own ({theirs} vs {ours})")]
    ClusterId {
        /// Of the request.
        theirs: u64,
        /// Of this process.
        ours: u64,
    },
    /// The proxying process meant another one.
    #[error("proxied request ProcessId doesn't match our own ({theirs} vs {ours})")]
    ProcessId {
        /// Of the request.
        theirs: String,
        /// Of this process.
        ours: String,
    },
    /// This process is shutting down.
    #[error("resolver has stopped serving local shards")]
    Stopped,
    /// The mirror of etcd has ended.
    #[error("the mirror of etcd has stopped")]
    MirrorStopped,
}

/// The id by which this process answers: `me`, or a placeholder while its member key is missing from the key space.
pub fn local_id(key_space: &KeySpace, me: &MemberId) -> Id {
    if key_space.members().contains_key(me) {
        me.to_proto()
    } else {
        Id { zone: MISSING_ZONE.to_owned(), suffix: MISSING_SUFFIX.to_owned() }
    }
}

/// The header of answers which concern no particular shard.
pub fn unrouted_header(key_space: &KeySpace, me: &MemberId) -> Header {
    let process = key_space.members().contains_key(me).then_some(me);
    Header::unrouted(process, key_space.header().into())
}

/// Checks that a proxied request is meant for this process.
///
/// # Errors
/// If it comes from another cluster or names another process.
pub fn check_proxy_header(header: &Header, etcd: EtcdHeader, local: &Id) -> Result<(), ResolveError> {
    let theirs = header.etcd.as_ref().map_or(0, |etcd| etcd.cluster_id);
    if theirs != etcd.cluster_id {
        return Err(ResolveError::ClusterId { theirs, ours: etcd.cluster_id });
    }
    let print = |id: &Id| format!("zone:{:?} suffix:{:?} ", id.zone, id.suffix);
    match header.process() {
        Some(id) if id != local => Err(ResolveError::ProcessId { theirs: print(id), ours: print(local) }),
        _ => Ok(()),
    }
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
    let local = local_id(key_space, me);
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
    use proto::Revision;
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
        assert_eq!((id.zone.as_str(), id.suffix.as_str()), (MISSING_ZONE, MISSING_SUFFIX));
        assert!(unrouted_header(&key_space, &member("gone")).process().is_none());
    }

    #[test]
    fn a_proxied_request_must_mean_this_process() {
        let etcd = EtcdHeader { cluster_id: 7, member_id: 8, revision: Revision(9), raft_term: 1 };
        let header = |cluster_id, process: &str| {
            let etcd = EtcdHeader { cluster_id, ..etcd };
            Header::routed(member(process).to_proto(), Route::unrouted(), etcd.into())
        };
        let local = member("me").to_proto();
        check_proxy_header(&header(7, "me"), etcd, &local).unwrap();
        check_proxy_header(&Header::unrouted(None, etcd.into()), etcd, &local).unwrap();
        let error = check_proxy_header(&header(6, "me"), etcd, &local).unwrap_err().to_string();
        assert_eq!(error, "proxied request Etcd ClusterId doesn't match our own (6 vs 7)");
        let error = check_proxy_header(&header(7, "peer"), etcd, &local).unwrap_err().to_string();
        assert!(error.starts_with("proxied request ProcessId doesn't match our own (zone:"), "{error}");
    }
}
