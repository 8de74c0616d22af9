//! The KV, Lease, Cluster and Maintenance services: translation only.

use std::sync::PoisonError;

use etcd_client::proto as pb;
use futures::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::store::{Write, Written};
use super::{EmbeddedEtcd, refused};

/// Version of etcd whose API is served. etcd's own client, asked to reject old clusters as Gazette's processes ask it, refuses
/// servers of more than one minor release before its own.
const VERSION: &str = "3.6.5";
/// Name of the only member.
const MEMBER_NAME: &str = "courant";

fn unimplemented<T>(what: &str) -> Result<T, Status> {
    Err(Status::unimplemented(format!("{what} is not part of the embedded etcd; use an etcd of its own")))
}

/// The owner answers each kind of request with its own kind of answer.
fn mismatched() -> Status {
    Status::internal("the embedded etcd gave an answer of the wrong kind")
}

#[async_trait]
impl pb::PbKvService for EmbeddedEtcd {
    type RangeStreamStream = BoxStream<'static, Result<pb::PbRangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<pb::PbRangeRequest>,
    ) -> Result<Response<pb::PbRangeResponse>, Status> {
        let mut response = self.store().range(request.get_ref()).map_err(refused)?;
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn range_stream(
        &self,
        _: Request<pb::PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        unimplemented("RangeStream")
    }

    async fn put(&self, request: Request<pb::PbPutRequest>) -> Result<Response<pb::PbPutResponse>, Status> {
        let request = request.into_inner();
        let Written::Put(mut response) = self.submit(&request, Write::Put(request.clone())).await? else {
            return Err(mismatched());
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<pb::PbDeleteRequest>,
    ) -> Result<Response<pb::PbDeleteResponse>, Status> {
        let request = request.into_inner();
        let Written::Delete(mut response) = self.submit(&request, Write::Delete(request.clone())).await?
        else {
            return Err(mismatched());
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<pb::PbTxnRequest>) -> Result<Response<pb::PbTxnResponse>, Status> {
        let request = request.into_inner();
        let mut response = match self.store().read_txn(&request) {
            Some(outcome) => outcome.map_err(refused)?,
            None => match self.submit(&request, Write::Txn(request.clone())).await? {
                Written::Txn(response) => response,
                _ => return Err(mismatched()),
            },
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::PbCompactionRequest>,
    ) -> Result<Response<pb::PbCompactionResponse>, Status> {
        let request = request.into_inner();
        let Written::Compact(mut response) = self.submit(&request, Write::Compact(request)).await? else {
            return Err(mismatched());
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }
}

#[async_trait]
impl pb::PbLeaseService for EmbeddedEtcd {
    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::PbLeaseGrantRequest>,
    ) -> Result<Response<pb::PbLeaseGrantResponse>, Status> {
        let mut request = request.into_inner();
        while request.id == 0 {
            let id = i64::try_from(self.shared.entropy.u64() >> 1).unwrap_or(0);
            request.id = if self.store().has_lease(id) { 0 } else { id };
        }
        let Written::Grant(mut response) = self.submit(&request, Write::Grant(request)).await? else {
            return Err(mismatched());
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::PbLeaseRevokeRequest>,
    ) -> Result<Response<pb::PbLeaseRevokeResponse>, Status> {
        let request = request.into_inner();
        let Written::Revoke(mut response) = self.submit(&request, Write::Revoke(request.id)).await? else {
            return Err(mismatched());
        };
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let requests = request.into_inner();
        let stop = self.shared.tasks.token().clone();
        let responses = stream::try_unfold((self.clone(), requests), |(etcd, mut requests)| async move {
            let Some(request) = requests.message().await? else { return Ok(None) };
            let response = etcd.renewed(request).await?;
            Ok(Some((response, (etcd, requests))))
        });
        Ok(Response::new(responses.take_until(stop.cancelled_owned()).boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::PbLeaseTimeToLiveResponse>, Status> {
        let mut response = self.store().time_to_live(request.get_ref(), self.now());
        self.fill(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::PbLeaseLeasesRequest>,
    ) -> Result<Response<pb::PbLeaseLeasesResponse>, Status> {
        let store = self.store();
        let leases = store.leases().map(|(id, _)| pb::PbLeaseStatus { id }).collect();
        Ok(Response::new(pb::PbLeaseLeasesResponse { header: self.header(store.revision()), leases }))
    }
}

impl EmbeddedEtcd {
    async fn renewed(
        &self,
        request: pb::PbLeaseKeepAliveRequest,
    ) -> Result<pb::PbLeaseKeepAliveResponse, Status> {
        match self.submit(&request, Write::KeepAlive(request.id)).await? {
            Written::KeepAlive { ttl_seconds, revision } => Ok(pb::PbLeaseKeepAliveResponse {
                header: self.header(revision),
                id: request.id,
                ttl: ttl_seconds,
            }),
            _ => Err(mismatched()),
        }
    }
}

#[async_trait]
impl pb::PbClusterService for EmbeddedEtcd {
    async fn member_list(
        &self,
        _: Request<pb::PbMemberListRequest>,
    ) -> Result<Response<pb::PbMemberListResponse>, Status> {
        let endpoint = self.shared.endpoint.read().unwrap_or_else(PoisonError::into_inner).clone();
        // Clients take the endpoints of members without a name for those of a member that has not started.
        let name = if endpoint.is_some() { MEMBER_NAME } else { "" };
        let member = pb::PbMember {
            id: self.shared.identity.member_id,
            name: name.to_owned(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: endpoint.iter().map(|e| e.to_string()).collect(),
            is_learner: false,
        };
        let header = self.header(self.store().revision());
        Ok(Response::new(pb::PbMemberListResponse { header, members: vec![member] }))
    }

    async fn member_add(
        &self,
        _: Request<pb::PbMemberAddRequest>,
    ) -> Result<Response<pb::PbMemberAddResponse>, Status> {
        unimplemented("MemberAdd")
    }

    async fn member_remove(
        &self,
        _: Request<pb::PbMemberRemoveRequest>,
    ) -> Result<Response<pb::PbMemberRemoveResponse>, Status> {
        unimplemented("MemberRemove")
    }

    async fn member_update(
        &self,
        _: Request<pb::PbMemberUpdateRequest>,
    ) -> Result<Response<pb::PbMemberUpdateResponse>, Status> {
        unimplemented("MemberUpdate")
    }

    async fn member_promote(
        &self,
        _: Request<pb::PbMemberPromoteRequest>,
    ) -> Result<Response<pb::PbMemberPromoteResponse>, Status> {
        unimplemented("MemberPromote")
    }
}

#[async_trait]
impl pb::PbMaintenanceService for EmbeddedEtcd {
    type SnapshotStream = BoxStream<'static, Result<pb::PbSnapshotResponse, Status>>;

    async fn status(
        &self,
        _: Request<pb::PbStatusRequest>,
    ) -> Result<Response<pb::PbStatusResponse>, Status> {
        let store = self.store();
        let revision = store.revision();
        let bytes = i64::try_from(store.bytes()).unwrap_or(i64::MAX);
        let index = u64::try_from(revision).unwrap_or(1);
        Ok(Response::new(pb::PbStatusResponse {
            header: self.header(revision),
            version: VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: self.shared.identity.member_id,
            raft_index: index,
            raft_applied_index: index,
            raft_term: self.shared.identity.raft_term,
            ..Default::default()
        }))
    }

    async fn alarm(&self, _: Request<pb::PbAlarmRequest>) -> Result<Response<pb::PbAlarmResponse>, Status> {
        let header = self.header(self.store().revision());
        Ok(Response::new(pb::PbAlarmResponse { header, alarms: Vec::new() }))
    }

    async fn defragment(
        &self,
        _: Request<pb::PbDefragmentRequest>,
    ) -> Result<Response<pb::PbDefragmentResponse>, Status> {
        unimplemented("Defragment")
    }

    async fn hash(&self, _: Request<pb::PbHashRequest>) -> Result<Response<pb::PbHashResponse>, Status> {
        unimplemented("Hash")
    }

    async fn hash_kv(
        &self,
        _: Request<pb::PbHashKvRequest>,
    ) -> Result<Response<pb::PbHashKvResponse>, Status> {
        unimplemented("HashKV")
    }

    async fn snapshot(
        &self,
        _: Request<pb::PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        unimplemented("Snapshot")
    }

    async fn move_leader(
        &self,
        _: Request<pb::PbMoveLeaderRequest>,
    ) -> Result<Response<pb::PbMoveLeaderResponse>, Status> {
        unimplemented("MoveLeader")
    }

    async fn downgrade(
        &self,
        _: Request<pb::PbDowngradeRequest>,
    ) -> Result<Response<pb::PbDowngradeResponse>, Status> {
        unimplemented("Downgrade")
    }
}
