//! The gRPC service `consumer.Shard` (consumer protocol §1.6).
//!
//! Every request is authorized (§1.5) before its body is read, and validated before anything is looked up by what it names. A shard
//! which its token does not reach is as one that does not exist. Outcomes of the protocol are statuses of a response; what is
//! wrong with a request, or with etcd, is a gRPC error.

mod apply;
mod deadline;
mod decision;
mod list;
mod peers;
mod resolver;
mod unassign;

use std::time::Duration;

use auth::{Access, Admission, Capability};
use proto::consumer::shard_server::{Shard, ShardServer};
use proto::consumer::{
    ApplyRequest, ApplyResponse, GetHintsRequest, GetHintsResponse, ListRequest, ListResponse, StatRequest,
    StatResponse, Status, UnassignRequest, UnassignResponse, get_hints_response::ResponseHints,
};
use proto::protocol::{Header, LabelSelector};
use proto::{Canonical, Revision, Validate};
use runtime::{BoxError, Clock, grpc};
use tonic::service::Routes;
use tonic::{Request, Response};

pub use decision::ResolveError;
pub use peers::Peers;
pub use resolver::{Resolution, ResolveArgs, Resolver};

use crate::hints;

/// What a token must allow for each method (§1.5).
const METHODS: [(&str, Capability); 5] = [
    ("/consumer.Shard/Stat", Capability::READ),
    ("/consumer.Shard/GetHints", Capability::READ),
    ("/consumer.Shard/List", Capability::LIST),
    ("/consumer.Shard/Apply", Capability::APPLY),
    ("/consumer.Shard/Unassign", Capability::APPLY),
];

/// Longest time that a Stat waits for the offsets it asks for.
const STAT_WAIT_MAX: Duration = Duration::from_secs(10 * 60);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardService {
    resolver: Resolver,
    peers: Peers,
    clock: Clock,
    admission: Admission,
}

type Answer<T> = Result<Response<T>, tonic::Status>;

fn failed(error: impl Into<BoxError>) -> tonic::Status {
    grpc::status_of(&*error.into())
}

/// Answers with the encoding that other implementations have.
fn answer<T: Canonical>(response: T) -> Answer<T> {
    Ok(Response::new(response.canonical()))
}

impl ShardService {
    /// Serves those whom `admission` admits.
    pub fn new(resolver: Resolver, peers: Peers, clock: Clock, admission: Admission) -> ShardService {
        ShardService { resolver, peers, clock, admission }
    }

    /// The service, which takes requests of at most `recv_bytes_max` from those who are admitted.
    pub fn into_routes(self, recv_bytes_max: usize) -> Routes {
        let admission = self.admission.clone();
        let server = ShardServer::new(self).max_decoding_message_size(recv_bytes_max);
        admission.guard(Routes::new(server), &METHODS)
    }

    /// The header of answers which concern no particular shard, with the revision of an etcd transaction.
    fn header_at(&self, revision: Revision) -> Header {
        let mut header = self.resolver.unrouted_header();
        if let Some(etcd) = &mut header.etcd {
            etcd.revision = revision.0;
        }
        header
    }

    async fn stat_within(
        &self,
        request: StatRequest,
        access: &Access,
        wait: Duration,
    ) -> Result<StatResponse, BoxError> {
        let StatRequest { header: proxy_header, shard, read_through, extension } = &request;
        let args = ResolveArgs {
            shard,
            may_proxy: proxy_header.is_none(),
            proxy_header: proxy_header.as_ref(),
            visible: Some(&access.selector),
            read_through: Some(read_through),
        };
        let Ok(resolved) = self.clock.timeout(wait, self.resolver.resolve(args)).await else {
            return Err(self.unmet(shard, read_through).into());
        };
        let resolution = resolved?;
        if resolution.status != Status::Ok {
            let (status, header) = (resolution.status.into(), Some(resolution.header));
            return Ok(StatResponse { status, header, ..StatResponse::default() });
        }
        if !resolution.is_local {
            let mut peer = self.peers.shard_client(&resolution.header)?;
            let message = StatRequest {
                header: Some(resolution.header),
                shard: shard.clone(),
                read_through: read_through.clone(),
                extension: extension.clone(),
            };
            let mut proxied = self.peers.request(message, Capability::READ, shard);
            proxied.set_timeout(wait);
            return Ok(peer.stat(proxied).await?.into_inner());
        }
        let progress = resolution.progress.unwrap_or_default();
        let publish_at =
            progress.publish_at.iter().map(|(journal, end)| (journal.to_string(), *end)).collect();
        Ok(StatResponse {
            status: Status::Ok.into(),
            header: Some(resolution.header),
            read_through: progress.read_through(),
            publish_at,
            ..StatResponse::default()
        })
    }

    /// Why a Stat could not be answered in time.
    fn unmet(&self, shard: &str, wanted: &std::collections::BTreeMap<String, i64>) -> tonic::Status {
        let progress =
            self.resolver.progress(shard).map(|progress| progress.borrow().clone()).unwrap_or_default();
        let reason = match progress.unmet(wanted) {
            None => format!("shard {shard} is not available yet"),
            Some((journal, offset)) => {
                let source = progress.sources.get(journal).copied().unwrap_or_default();
                format!(
                    "shard {shard} has read {journal} through {}, and {offset} is awaited: \
                     {} bytes are unread, {} bytes await an acknowledgement",
                    source.read_through,
                    source.unread(),
                    source.awaiting_ack()
                )
            }
        };
        tonic::Status::deadline_exceeded(reason)
    }
}

#[tonic::async_trait]
impl Shard for ShardService {
    async fn stat(&self, request: Request<StatRequest>) -> Answer<StatResponse> {
        let access = Access::of(&request)?;
        let timeout = request.metadata().get("grpc-timeout").and_then(|timeout| timeout.to_str().ok());
        let wait = deadline::wait(timeout.and_then(deadline::parse), STAT_WAIT_MAX);
        let request = request.into_inner();
        request.validate().map_err(failed)?;
        let stat = async { self.stat_within(request, &access, wait).await.map_err(failed) };
        answer(self.admission.before_expiry(&access, stat).await?)
    }

    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        request.validate().map_err(failed)?;
        let selector = request.selector.unwrap_or_else(LabelSelector::everything);
        answer(ListResponse {
            status: Status::Ok.into(),
            header: Some(self.resolver.unrouted_header()),
            shards: list::list(&self.resolver.key_space(), &selector, &access.selector),
            ..ListResponse::default()
        })
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        request.validate().map_err(failed)?;
        apply::authorize(&request, &access)?;
        self.admission.before_expiry(&access, self.applied(request)).await
    }

    async fn get_hints(&self, request: Request<GetHintsRequest>) -> Answer<GetHintsResponse> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        request.validate().map_err(failed)?;
        self.admission.before_expiry(&access, self.hints_of(&request.shard, &access)).await
    }

    async fn unassign(&self, request: Request<UnassignRequest>) -> Answer<UnassignResponse> {
        let access = Access::of(&request)?;
        let request = request.into_inner();
        request.validate().map_err(failed)?;
        for shard in &request.shards {
            apply::require_id(&access, shard)?;
        }
        self.admission.before_expiry(&access, self.unassigned(request)).await
    }
}

impl ShardService {
    async fn applied(&self, request: ApplyRequest) -> Answer<ApplyResponse> {
        let mirror = self.resolver.mirror();
        let txn = apply::transaction(mirror.prefix(), request).map_err(failed)?;
        let outcome = mirror.etcd().txn(txn).await.map_err(failed)?;
        let revision = outcome.header.revision;
        let status = if outcome.succeeded { Status::Ok } else { Status::EtcdTransactionFailed };
        if outcome.succeeded {
            self.resolver.wait_for(revision).await.map_err(failed)?;
        }
        let header = Some(self.header_at(revision));
        answer(ApplyResponse { status: status.into(), header, ..ApplyResponse::default() })
    }

    async fn hints_of(&self, shard: &str, access: &Access) -> Answer<GetHintsResponse> {
        let key_space = self.resolver.key_space();
        let mut response =
            GetHintsResponse { header: Some(self.resolver.unrouted_header()), ..GetHintsResponse::default() };
        let Some(spec) = decision::visible_spec(&key_space, shard, Some(&access.selector)) else {
            response.status = Status::ShardNotFound.into();
            return answer(response);
        };
        if spec.recovery_log_str().is_some() {
            let stored = hints::fetch(self.resolver.mirror().etcd(), spec).await.map_err(failed)?;
            let entry = |hints| ResponseHints { hints };
            response.primary_hints = Some(entry(stored.primary));
            response.backup_hints = stored.backups.into_iter().map(entry).collect();
        }
        answer(response)
    }

    async fn unassigned(&self, request: UnassignRequest) -> Answer<UnassignResponse> {
        let mirror = self.resolver.mirror();
        let key_space = self.resolver.key_space();
        let selected = unassign::select(&key_space, mirror.prefix(), request.shards, request.only_failed);
        let selected = selected.map_err(failed)?;
        let mut response = UnassignResponse { status: Status::Ok.into(), shards: selected.shards };
        if request.dry_run || selected.txn.then.is_empty() {
            return Ok(Response::new(response));
        }
        let outcome = mirror.etcd().txn(selected.txn).await.map_err(failed)?;
        if outcome.succeeded {
            self.resolver.wait_for(outcome.header.revision).await.map_err(failed)?;
        } else {
            response.status = Status::EtcdTransactionFailed.into();
        }
        Ok(Response::new(response))
    }
}
