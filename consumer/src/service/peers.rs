//! Connections to other processes of the group, one for each endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use auth::{Authorizer, Capability, Grant};
use proto::consumer::shard_client::ShardClient;
use proto::protocol::Header;
use runtime::grpc_metrics::{ClientCalls, CountedChannel};
use runtime::tls::ClientTls;
use runtime::{BoxError, Clock, grpc, trace};
use tonic::Request;
use tonic::transport::Channel;

/// Connections that are kept. Groups are smaller; beyond it, connections are made anew rather than kept for ever.
const CONNECTIONS_MAX: usize = 1024;

/// Connections to other processes. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
    authorizer: Authorizer,
    tls: ClientTls,
    calls: ClientCalls,
    clock: Clock,
}

impl Peers {
    /// Connections whose requests `authorizer` authorizes, with `tls` where endpoints are of `https`. Those of the
    /// Shard service are counted in `calls`.
    pub(crate) fn new(authorizer: Authorizer, tls: ClientTls, calls: ClientCalls, clock: Clock) -> Peers {
        Peers { channels: Arc::default(), authorizer, tls, calls, clock }
    }

    /// A request of `message` to another process, with a token of this process's own which allows `capability` on `shard`
    /// for a minute. Without keys there is no token. Whoever asked this process must have been admitted.
    pub fn request<T>(&self, message: T, capability: Capability, shard: &str) -> Request<T> {
        let grant = Grant::shards(capability, [shard]);
        self.authorizer.authorize(trace::request(message), grant, self.clock.unix_now())
    }

    /// A connection to the process which `header` names: that of a [`crate::Resolution`] names the one which answers.
    /// Connects when first used. Must be called within a runtime.
    ///
    /// # Errors
    /// If the header's route has no endpoint for it, or a malformed one.
    pub fn channel(&self, header: &Header) -> Result<Channel, BoxError> {
        let route = header.process().zip(header.route.as_ref());
        let endpoint = route.and_then(|(process, route)| route.endpoint_of(process));
        let endpoint = endpoint.ok_or("the primary of the shard has no known endpoint")?;
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        match channels.get(endpoint) {
            Some(channel) => Ok(channel.clone()),
            None => {
                let channel = grpc::secure_channel(endpoint, &self.tls)?;
                if channels.len() >= CONNECTIONS_MAX {
                    channels.clear();
                }
                Ok(channels.entry(endpoint.to_owned()).or_insert(channel).clone())
            }
        }
    }

    /// A client of the Shard service of the process which `header` names.
    pub(super) fn shard_client(&self, header: &Header) -> Result<ShardClient<CountedChannel>, BoxError> {
        let client = ShardClient::new(self.calls.over(self.channel(header)?));
        Ok(client.max_decoding_message_size(grpc::MAX_MESSAGE_RECV_SERVER))
    }
}
