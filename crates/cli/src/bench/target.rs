//! The broker under load: connections, and the journals that a benchmark makes and removes.

use std::time::Duration;

use auth::{AUTHORIZATION, Authorizer, Capability, Grant};
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{
    ApplyRequest, CompressionCodec, JournalSpec, LabelSet, ListRequest, apply_request, journal_spec,
};
use runtime::config::BrokerClientArgs;
use runtime::tls::ClientTls;
use runtime::{BoxError, Clock, Entropy};
use tonic::Request;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// Content length after which the benchmark's journals close a fragment.
const FRAGMENT_BYTES: i64 = 256 << 20;

/// A client whose requests have a token, if there are keys.
pub type Client = JournalClient<InterceptedService<Channel, Signer>>;

/// Adds the token of a benchmark to requests.
#[derive(Clone)]
pub struct Signer {
    authorizer: Authorizer,
    clock: Clock,
}

impl Interceptor for Signer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, tonic::Status> {
        let capability = Capability::LIST | Capability::APPLY | Capability::READ | Capability::APPEND;
        let grant = Grant::everywhere(capability);
        if let Some(header) = self.authorizer.header(grant, self.clock.unix_now()) {
            request.metadata_mut().insert(AUTHORIZATION, header);
        }
        Ok(request)
    }
}

/// Connections to a broker, and journals made for one run.
pub struct Target {
    address: String,
    /// Names of the run's journals.
    pub journals: Vec<String>,
    clients: Vec<Client>,
}

impl Target {
    /// Connects and makes `journals` journals of replication 1 without stores.
    pub async fn prepare(
        broker: &BrokerClientArgs,
        connections: u32,
        journals: u32,
    ) -> Result<Target, BoxError> {
        let address = broker.address.as_str();
        let tls = ClientTls::load(broker.tls.options().client()?, &Clock::system())?;
        let signer = Signer { authorizer: client::authorizer_of(broker)?, clock: Clock::system() };
        let connect = |_| -> Result<Client, BoxError> {
            let channel = runtime::grpc::secure_channel(address, &tls)?;
            let client = JournalClient::with_interceptor(channel, signer.clone());
            Ok(client.max_decoding_message_size(runtime::grpc::MAX_MESSAGE_RECV_CLIENT))
        };
        let clients = (0..connections).map(connect).collect::<Result<Vec<_>, _>>()?;
        let run = Entropy::system().u32();
        let names = (0..journals).map(|part| format!("bench/{run:08x}/part-{part:03}")).collect();
        let target = Target { address: address.to_owned(), journals: names, clients };
        let changes = target.journals.iter().map(|name| apply_request::Change {
            expect_mod_revision: 0,
            upsert: Some(spec(name)),
            delete: String::new(),
        });
        target.apply(changes.collect()).await?;
        Ok(target)
    }

    /// Address of the broker.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The connection of client number `client`.
    pub fn client(&self, client: u32) -> Client {
        self.clients[client as usize % self.clients.len()].clone()
    }

    /// Deletes the run's journals.
    pub async fn remove(&self) -> Result<(), BoxError> {
        let changes = self.journals.iter().map(|name| apply_request::Change {
            expect_mod_revision: -1,
            upsert: None,
            delete: name.clone(),
        });
        self.apply(changes.collect()).await
    }

    async fn apply(&self, changes: Vec<apply_request::Change>) -> Result<(), BoxError> {
        // Etcd takes at most 128 operations in a transaction.
        for changes in changes.chunks(100) {
            let request = ApplyRequest { changes: changes.to_vec() };
            let response =
                self.client(0).apply(request).await.map_err(|status| self.refused("Apply", &status))?;
            let status = response.into_inner().status();
            if status != proto::protocol::Status::Ok {
                return Err(format!("{}: Apply answered {}", self.address, status.as_str_name()).into());
            }
        }
        Ok(())
    }

    /// Waits until the journals have a primary that takes appends.
    pub async fn check_listed(&self) -> Result<(), BoxError> {
        let selector = format!("name={}", self.journals[0]).parse()?;
        let request = ListRequest { selector: Some(selector), ..Default::default() };
        let listing = self.client(0).list(request).await.map_err(|status| self.refused("List", &status))?;
        let first = listing.into_inner().message().await?;
        if first.is_none_or(|response| response.journals.is_empty()) {
            return Err(format!("{}: does not list {}", self.address, self.journals[0]).into());
        }
        Ok(())
    }

    /// An error for a request which the broker refused.
    pub fn refused(&self, request: &str, status: &tonic::Status) -> BoxError {
        format!("{}: {request}: {}: {}", self.address, status.code(), status.message()).into()
    }
}

fn spec(name: &str) -> JournalSpec {
    JournalSpec {
        name: name.to_owned(),
        replication: 1,
        labels: Some(LabelSet::default()),
        fragment: Some(journal_spec::Fragment {
            length: FRAGMENT_BYTES,
            compression_codec: CompressionCodec::None as i32,
            refresh_interval: Some(proto::duration::from_std(Duration::from_secs(60))),
            ..Default::default()
        }),
        ..Default::default()
    }
}
