//! Servers for the tests: the embedded etcd in this process, a real one beside it, both on loopback.

#![allow(dead_code, reason = "each test uses its share")]

pub mod proxy;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
    let options = EtcdOptions { lease_ttl: ttl, clock: Clock::system(), tasks: tasks.clone() };
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

/// A real etcd with a directory of its own. Killed when dropped.
pub struct RealEtcd {
    pub endpoint: String,
    peer: String,
    child: Child,
    dir: TempDir,
}

impl RealEtcd {
    /// Starts it and waits until it answers.
    pub async fn start() -> RealEtcd {
        let dir = fast_dir();
        // etcd cannot choose a port by itself. Another process may take a free one before etcd does; then choose anew.
        for _ in 0..10 {
            let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
            let mut child = spawn_etcd(dir.path(), &client, &peer, TOKEN);
            if Box::pin(is_up(&mut child, &client)).await {
                return RealEtcd { endpoint: client, peer, child, dir };
            }
        }
        panic!("etcd did not come up on any port");
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP.
    pub fn stand_still(&self) {
        let status = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Starts it anew at its addresses, on its data.
    pub async fn start_again(&mut self) {
        self.start_at_same_addresses(TOKEN).await;
    }

    /// Starts it anew at its addresses, without its data. The cluster id follows from addresses and `token`; that of
    /// [`RealEtcd::start`] is empty.
    pub async fn start_empty(&mut self, token: &str) {
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.start_at_same_addresses(token).await;
    }

    async fn start_at_same_addresses(&mut self, token: &str) {
        for _ in 0..10 {
            self.child = spawn_etcd(self.dir.path(), &self.endpoint, &self.peer, token);
            // Boxed: unoptimized, these futures are large for the stack of a test.
            if Box::pin(is_up(&mut self.child, &self.endpoint)).await {
                return;
            }
        }
        panic!("etcd did not come up again");
    }
}

impl Drop for RealEtcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The cluster token unless a test says otherwise.
const TOKEN: &str = "";

/// A directory for files whose syncs say nothing about what is tested: in memory, where that is possible.
pub fn fast_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn_etcd(dir: &Path, client: &str, peer: &str, token: &str) -> Child {
    let spawned = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.join("data"))
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--log-level", "error"])
        .args(["--initial-cluster-token", &format!("courant-{token}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    spawned.unwrap_or_else(|error| {
        panic!(
            "cannot run `etcd` ({error}). This test compares the embedded etcd with a real one. \
             Install it: `apt-get install etcd-server` (`make test` does), or put an `etcd` of 3.4 on the PATH."
        )
    })
}

async fn is_up(child: &mut Child, endpoint: &str) -> bool {
    let clock = Clock::system();
    let deadline = clock.now() + Duration::from_secs(30);
    while clock.now() < deadline {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let tasks = TaskGroup::new("probe");
        let options = EtcdOptions { lease_ttl: Duration::from_secs(10), clock: clock.clone(), tasks };
        if let Ok(Ok(etcd)) = clock.timeout(Duration::from_secs(5), Etcd::connect(endpoint, options)).await
            && etcd.get("up").await.is_ok()
        {
            return true;
        }
        clock.sleep(Duration::from_millis(50)).await;
    }
    false
}
