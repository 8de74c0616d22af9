//! Servers for the tests: the embedded etcd in this process, a real one beside it, both on loopback.

#![allow(dead_code, reason = "each test uses its share")]

pub mod proxy;

use std::path::Path;
use std::time::Duration;

use etcd_client::proto::{PbCompactionRequest, PbCompactionResponse};
use keyspace::embedded::EmbeddedEtcd;
use keyspace::{Etcd, EtcdOptions};
use runtime::server::Listener;
use runtime::{Clock, Entropy, OnError, TaskGroup};
use tempfile::TempDir;

/// A number from the environment.
#[expect(clippy::disallowed_methods, reason = "the documented way to repeat a random test")]
pub fn env_number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?}; expected a number")))
}

/// The embedded etcd, served on a free port of loopback.
pub struct Embedded {
    pub etcd: EmbeddedEtcd,
    pub endpoint: String,
    tasks: TaskGroup,
}

impl Embedded {
    pub async fn start(dir: &Path) -> Embedded {
        Embedded::start_at(dir, "127.0.0.1:0").await
    }

    pub async fn start_at(dir: &Path, address: &str) -> Embedded {
        let tasks = TaskGroup::new("embedded");
        let etcd = EmbeddedEtcd::open(dir, Clock::system(), Entropy::system(), &tasks).await.unwrap();
        let listener = Listener::bind(address).await.unwrap();
        let endpoint = listener.endpoint("127.0.0.1");
        etcd.advertise(&endpoint);
        let router = etcd.routes().into_axum_router();
        let drain = Duration::from_millis(50);
        let server = runtime::server::serve(listener, router, tasks.clone(), Clock::system(), drain);
        tasks.spawn("serve", OnError::Log, server);
        Embedded { etcd, endpoint, tasks }
    }

    pub async fn stop(self) {
        self.tasks.cancel();
        self.tasks.join().await.unwrap();
    }
}

/// A client of `endpoint` whose leases last `ttl`.
pub async fn connect(endpoint: &str, ttl: Duration, tasks: &TaskGroup) -> Etcd {
    let options =
        EtcdOptions { lease_ttl: ttl, tls: Default::default(), clock: Clock::system(), tasks: tasks.clone() };
    Etcd::connect(endpoint, options).await.unwrap()
}

/// Compacts the history of a server. No client of ours needs to, so this is a request made by hand.
pub async fn compact(endpoint: &str, revision: i64) {
    let channel = tonic::transport::Endpoint::from_shared(endpoint.to_owned()).unwrap().connect_lazy();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<PbCompactionRequest, PbCompactionResponse>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Compact");
    let request = PbCompactionRequest { revision, physical: true };
    grpc.unary(tonic::Request::new(request), path, codec).await.unwrap();
}

/// A directory for files whose syncs say nothing about what is tested: in memory, where that is possible.
pub fn fast_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
