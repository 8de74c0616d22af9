//! The client of consumers: what the Shard service offers, over any member of the consumer group.

use crate::channels::Channels;
use crate::client::{ClientOptions, backoff};
use crate::error::{ClientError, StatusCode};
use crate::outage::Outage;
use auth::{Capability, Grant};
use proto::Validate;
use proto::consumer::shard_client::ShardClient as Rpc;
use proto::consumer::{
    ApplyRequest, ApplyResponse, GetHintsRequest, GetHintsResponse, ListRequest, ListResponse, StatRequest,
    StatResponse, Status, UnassignRequest, UnassignResponse,
};
use runtime::grpc_metrics::CountedChannel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A client of consumers. Cheap to clone. Requests wait until the consumer is reachable; one which was sent is not
/// repeated. A status which is not OK is an error.
#[derive(Clone)]
pub struct ShardClient {
    endpoint: Arc<str>,
    channels: Channels,
    failure: Arc<Mutex<Option<ClientError>>>,
    options: ClientOptions,
}

/// A unary call: validate, send when the server is reachable, validate the answer, and turn its status into an error.
macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident, $item:expr, $grant:expr;)*) => {
        $($(#[$doc])*
        pub async fn $name(&self, request: $request) -> Result<$response, ClientError> {
            request.validate().map_err(ClientError::Request)?;
            let item: String = $item(&request);
            let grant: Grant = $grant(&request);
            let (mut backoff, mut outage) = (backoff(), Outage::default());
            let response = loop {
                let request = self.options.request(request.clone(), grant.clone());
                let error = match self.rpc()?.$name(request).await.map_err(ClientError::Grpc) {
                    Ok(response) => break response.into_inner(),
                    Err(error) => error,
                };
                self.wait_if_unreachable(error, &mut outage, backoff.next()).await?;
            };
            response.validate().map_err(ClientError::Response)?;
            match response.status() {
                Status::Ok => Ok(response),
                status => Err(ClientError::Status {
                    item: item.into(),
                    status: StatusCode::Shard(status),
                    detail: None,
                }),
            }
        })*
    };
}

impl ShardClient {
    /// A client of the consumer at `endpoint`: `http(s)://host:port` or `unix:///path`. Connects when it is used.
    ///
    /// # Errors
    /// If the endpoint is malformed.
    pub fn new(endpoint: &str, options: ClientOptions) -> Result<ShardClient, ClientError> {
        let channels = Channels::new(&options, "consumer.Shard");
        channels.get(endpoint)?;
        Ok(ShardClient { endpoint: endpoint.into(), channels, failure: Arc::default(), options })
    }

    /// Why the consumer could last not be reached: what a request that waits, waits for to end.
    pub fn last_failure(&self) -> Option<ClientError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    calls! {
        /// How far a shard has read and published. Waits until it has read through the offsets of the request.
        stat(StatRequest) -> StatResponse, |request: &StatRequest| request.shard.clone(),
            |request: &StatRequest| Grant::shards(Capability::READ, [&*request.shard]);
        /// The shards which a selector matches, with their status.
        list(ListRequest) -> ListResponse, |_: &ListRequest| "List".to_owned(), |request: &ListRequest| {
            Grant::new(Capability::LIST, request.selector.clone().unwrap_or_default()).brief()
        };
        /// Creates, changes and deletes specifications: all of them or none.
        apply(ApplyRequest) -> ApplyResponse, |_: &ApplyRequest| "Apply".to_owned(),
            |_: &ApplyRequest| Grant::everywhere(Capability::APPLY).brief();
        /// The recovery hints of a shard.
        get_hints(GetHintsRequest) -> GetHintsResponse, |request: &GetHintsRequest| request.shard.clone(),
            |request: &GetHintsRequest| Grant::shards(Capability::READ, [&*request.shard]);
        /// Removes assignments of shards, so that they are assigned anew.
        unassign(UnassignRequest) -> UnassignResponse, |_: &UnassignRequest| "Unassign".to_owned(),
            |request: &UnassignRequest| {
                Grant::shards(Capability::APPLY, request.shards.iter().map(String::as_str))
            };
    }

    /// Applies changes in requests of at most `size` (zero: in one), one after the other. Stops at the first failure.
    /// None if there are no changes.
    pub async fn apply_in_batches(
        &self,
        request: ApplyRequest,
        size: usize,
    ) -> Result<Option<ApplyResponse>, ClientError> {
        let size = if size == 0 { request.changes.len().max(1) } else { size };
        let mut last = None;
        for changes in request.changes.chunks(size) {
            let batch = ApplyRequest { changes: changes.to_vec(), ..request.clone() };
            last = Some(self.apply(batch).await?);
        }
        Ok(last)
    }

    fn rpc(&self) -> Result<Rpc<CountedChannel>, ClientError> {
        let channel = self.channels.get(&self.endpoint)?;
        Ok(Rpc::new(channel).max_decoding_message_size(runtime::grpc::MAX_MESSAGE_RECV_CLIENT))
    }

    async fn wait_if_unreachable(
        &self,
        error: ClientError,
        outage: &mut Outage,
        wait: Duration,
    ) -> Result<(), ClientError> {
        if !error.is_unreachable() {
            return Err(error);
        }
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        outage.failed(&error, self.options.clock.now(), |failing| {
            tracing::warn!(endpoint = &*self.endpoint, %error, %failing, "waiting for the consumer");
        });
        tokio::select! {
            biased;
            () = self.options.tasks.token().cancelled() => Err(ClientError::Cancelled),
            () = self.options.clock.sleep(wait) => Ok(()),
        }
    }
}
