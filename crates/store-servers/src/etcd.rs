//! etcd, as it is installed.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use runtime::{BoxError, Clock};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::http_server::request;

/// Longest time to start.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether it has started.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// etcd cannot choose a port by itself, and another process may take a free one before etcd does: then another is tried.
const PORTS_TRIED: usize = 10;
/// The cluster token unless a test says otherwise.
const TOKEN: &str = "";

/// An etcd with a directory of its own. Killed when it is dropped.
pub struct EtcdServer {
    endpoint: String,
    peer: String,
    child: Child,
    dir: TempDir,
}

impl EtcdServer {
    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed, or does not come up.
    pub async fn start() -> Result<EtcdServer, BoxError> {
        let dir = fast_dir()?;
        for _ in 0..PORTS_TRIED {
            let [client, peer] = free_ports()?.map(|port| format!("http://127.0.0.1:{port}"));
            let mut child = spawn(dir.path(), &client, &peer, TOKEN)?;
            if is_up(&mut child, &client).await? {
                return Ok(EtcdServer { endpoint: client, peer, child, dir });
            }
        }
        Err("etcd did not come up on any port".into())
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub fn kill(&mut self) -> Result<(), BoxError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If there is no process.
    pub fn stand_still(&self) -> Result<(), BoxError> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::STOP)?)
    }

    /// Starts it anew at its addresses, on its data.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_again(&mut self) -> Result<(), BoxError> {
        self.start_at_same_addresses(TOKEN).await
    }

    /// Starts it anew at its addresses, without its data. The cluster id follows from addresses and `token`; that of
    /// [`EtcdServer::start`] is empty.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_empty(&mut self, token: &str) -> Result<(), BoxError> {
        std::fs::remove_dir_all(self.dir.path().join("data"))?;
        self.start_at_same_addresses(token).await
    }

    async fn start_at_same_addresses(&mut self, token: &str) -> Result<(), BoxError> {
        for _ in 0..PORTS_TRIED {
            self.child = spawn(self.dir.path(), &self.endpoint, &self.peer, token)?;
            if is_up(&mut self.child, &self.endpoint).await? {
                return Ok(());
            }
        }
        Err("etcd did not come up again".into())
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _it_may_be_gone = self.child.kill();
        let _it_may_be_gone = self.child.wait();
    }
}

/// A directory for files whose syncs say nothing about what is tested: in memory, where that is possible.
fn fast_dir() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

fn free_ports() -> std::io::Result<[u16; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?.port(), listeners[1].local_addr()?.port()])
}

fn spawn(dir: &Path, client: &str, peer: &str, token: &str) -> Result<Child, BoxError> {
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
    spawned.map_err(|error| {
        format!("cannot run `etcd` ({error}): `apt-get install etcd-server` (`make test` does), or put one on the PATH")
            .into()
    })
}

/// False if it has ended.
async fn is_up(child: &mut Child, endpoint: &str) -> Result<bool, BoxError> {
    let (clock, url) = (Clock::system(), format!("{endpoint}/health"));
    let deadline = clock.now() + START_LIMIT;
    while clock.now() < deadline {
        if child.try_wait()?.is_some() {
            return Ok(false);
        }
        // Only with a leader, which writes need, does it say so with success.
        if let Ok(Ok(_)) = clock.timeout(START_LIMIT, request(Method::GET, &url, &[])).await {
            return Ok(true);
        }
        clock.sleep(LOOK_EVERY).await;
    }
    Ok(false)
}
