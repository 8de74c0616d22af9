//! How a request finds its shard: the decision of consumer protocol §5.4, as a function of one key space snapshot.
//!
//! The answer says whether the request may go on, which process answers it, and what its header is. Nothing here waits
//! or looks at local shards; [`crate::Resolver`] does. Pure.

use std::sync::Arc;

use keyspace::EtcdHeader;
use proto::MemberId;
use proto::consumer::{ShardSpec, Status};
use proto::protocol::process_spec::Id;
use proto::protocol::{Header, Route};

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

/// Decides who answers a request of `shard`. `may_proxy` says whether that may be another process.
pub fn decide(key_space: &KeySpace, me: &MemberId, shard: &str, may_proxy: bool) -> Decision {
    let local = local_id(key_space, me);
    let spec = key_space.items().get(shard).map(|entry| Arc::clone(&entry.value));
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
