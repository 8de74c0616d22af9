//! Connections to other brokers, one for each endpoint.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use proto::protocol::journal_client::JournalClient;
use proto::protocol::{Header, Route};
use runtime::{BoxError, grpc};
use tonic::transport::Channel;

/// Connections that are kept. Clusters are smaller; beyond it, connections are made anew rather than kept for ever.
const CONNECTIONS_MAX: usize = 1024;

/// Connections to other brokers. Cheap to clone; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Peers {
    channels: Arc<Mutex<BTreeMap<String, Channel>>>,
}

impl Peers {
    /// A client of the broker at `endpoint`. Connects when first used. Must be called within a runtime.
    ///
    /// # Errors
    /// If the endpoint is malformed.
    pub fn journal_client(&self, endpoint: &str) -> Result<JournalClient<Channel>, BoxError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(endpoint) {
            Some(channel) => channel.clone(),
            None => {
                let channel = grpc::channel(endpoint)?;
                if channels.len() >= CONNECTIONS_MAX {
                    channels.clear();
                }
                channels.entry(endpoint.to_owned()).or_insert(channel).clone()
            }
        };
        Ok(JournalClient::new(channel).max_decoding_message_size(grpc::MAX_MESSAGE_RECV_SERVER))
    }

    /// A client of the process which `header` names or, if it names none, of a member of its route.
    ///
    /// # Errors
    /// If the route has no endpoint for it.
    pub fn client_of(&self, header: &Header) -> Result<JournalClient<Channel>, BoxError> {
        let unrouted = Route::unrouted();
        let route = header.route.as_ref().unwrap_or(&unrouted);
        let endpoint = match header.process() {
            Some(id) => route.endpoint_of(id),
            None => route.endpoints.iter().map(String::as_str).find(|e| !e.is_empty()),
        };
        let endpoint = endpoint.ok_or("no broker of the journal's route has a known endpoint")?;
        self.journal_client(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::member;

    #[tokio::test]
    async fn a_header_names_the_peer_or_leaves_the_choice() {
        let peers = Peers::default();
        let mut route = Route::unrouted();
        let header = |id, route: &Route| Header::routed(id, route.clone(), Default::default());
        assert!(peers.client_of(&header(Default::default(), &route)).is_err());
        route.members = vec![member("one").to_proto(), member("two").to_proto()];
        route.endpoints = vec![String::new(), "http://localhost:2".to_owned()];
        peers.client_of(&header(Default::default(), &route)).unwrap();
        peers.client_of(&header(member("two").to_proto(), &route)).unwrap();
        assert!(peers.client_of(&header(member("one").to_proto(), &route)).is_err());
        assert_eq!(peers.channels.lock().unwrap().len(), 1);
    }
}
