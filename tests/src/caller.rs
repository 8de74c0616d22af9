//! As whom the harness itself calls brokers and summers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use auth::{Authorizer, Grant};
use client::ClientOptions;
use runtime::tls::ClientTls;
use runtime::{BoxError, Clock, TaskGroup};
use tonic::Request;
use tonic::transport::Channel;

/// Makes connections and requests. The default has no certificate, and sends no tokens. Clones share what they sign with.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    tls: ClientTls,
    signs: Arc<Mutex<Signs>>,
}

/// What requests are signed with.
#[derive(Clone, Debug, Default)]
struct Signs {
    brokers: Authorizer,
    consumers: Authorizer,
}

impl Caller {
    /// With these certificates, and without tokens.
    pub fn new(tls: ClientTls) -> Caller {
        Caller { tls, signs: Arc::default() }
    }

    /// Signs requests so from now on, as do all clones.
    pub fn sign_with(&self, brokers: Authorizer, consumers: Authorizer) {
        *self.signs() = Signs { brokers, consumers };
    }

    /// The same with other certificates, which goes on to sign as this one does now.
    pub fn snapshot(&self, tls: Option<ClientTls>) -> Caller {
        let signs = Arc::new(Mutex::new(self.signs().clone()));
        Caller { tls: tls.unwrap_or_else(|| self.tls.clone()), signs }
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to the server at `url`, made when it is used.
    pub fn channel(&self, url: &str) -> Result<Channel, BoxError> {
        runtime::grpc::secure_channel(url, &self.tls)
    }

    /// A request to a broker, with a token for what it needs.
    pub fn request<T>(&self, message: T, grant: Grant) -> Request<T> {
        self.signs().brokers.authorize(Request::new(message), grant, Clock::system().unix_now())
    }

    /// A request to a consumer, with a token for what it needs.
    pub fn consumer_request<T>(&self, message: T, grant: Grant) -> Request<T> {
        self.signs().consumers.authorize(Request::new(message), grant, Clock::system().unix_now())
    }

    /// Options of a client of brokers.
    pub fn to_brokers(&self, tasks: &TaskGroup) -> ClientOptions {
        self.options(tasks, self.signs().brokers.clone())
    }

    /// Options of a client of a consumer.
    pub fn to_consumers(&self, tasks: &TaskGroup) -> ClientOptions {
        self.options(tasks, self.signs().consumers.clone())
    }

    fn options(&self, tasks: &TaskGroup, authorizer: Authorizer) -> ClientOptions {
        ClientOptions { tls: self.tls.clone(), authorizer, ..ClientOptions::new(tasks.clone()) }
    }
}
