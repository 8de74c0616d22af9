//! Brokers as processes that share a real etcd and a directory of fragments.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use runtime::{Clock, TaskGroup};
use tempfile::TempDir;
use tests::cluster::served_endpoint;
use tests::process::{Launch, Process, binary};

/// Longest wait for anything that must happen.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(50);
/// Time to live of brokers' leases.
const LEASE: &str = "--etcd.lease=20s";

/// One machine with an etcd, and brokers on it.
pub struct Machine {
    pub dir: TempDir,
    tasks: TaskGroup,
    pub etcd: Process,
    etcd_address: String,
}

impl Machine {
    /// Starts etcd.
    pub async fn start() -> Machine {
        let (dir, tasks) = (TempDir::with_prefix("courant-exit-").unwrap(), TaskGroup::new("machine"));
        std::fs::create_dir(dir.path().join("store")).unwrap();
        let [client, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let etcd = start_etcd(&dir, &client, &peer, &tasks);
        let mut machine = Machine { dir, tasks, etcd, etcd_address: client };
        machine.await_etcd().await;
        machine
    }

    async fn await_etcd(&mut self) {
        let ready = |line: &str| line.contains("ready to serve client requests").then_some(());
        self.etcd.wait_line("ready to serve client requests", LIMIT, ready).await.unwrap();
    }

    /// Where fragments are stored.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The data directory of a broker.
    pub fn data_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a broker, and waits until it serves. Returns it with its URL.
    pub async fn broker(&self, name: &str, more: &[&str]) -> (Process, String) {
        let args = [
            "serve".to_owned(),
            "--broker.host=127.0.0.1".to_owned(),
            format!("--broker.id={name}"),
            format!("--broker.data-dir={}", self.data_dir(name).display()),
            format!("--broker.file-root={}", self.store().display()),
            format!("--etcd.address={}", self.etcd_address),
            "--log.level=info".to_owned(),
        ];
        let lease = [LEASE].into_iter().filter(|_| more.iter().all(|arg| !arg.starts_with("--etcd.lease")));
        let args = args.into_iter().chain(lease.chain(more.iter().copied()).map(str::to_owned));
        let launch = Launch::new(name, binary("courant"), args, self.dir.path());
        let mut broker = Process::start(&launch, &self.tasks).unwrap();
        let url = broker.wait_line("serving on http://", LIMIT, served_endpoint).await.unwrap();
        (broker, url)
    }

    /// Runs `courant` against the broker at `url`: whether it succeeded, and its standard output and error.
    pub async fn try_courant(&self, url: &str, args: &[&str]) -> (bool, String, String) {
        let launch = Launch::new("courant", binary("courant"), args.iter().copied(), self.dir.path());
        let mut process = Process::start(&launch.env("BROKER_ADDRESS", url), &self.tasks).unwrap();
        let status = process.wait_exit(LIMIT).await.unwrap();
        (status.success(), process.stdout(), process.stderr_tail())
    }

    /// Runs `courant` against the broker at `url`, again until it succeeds, and gives its standard output.
    pub async fn courant(&self, url: &str, args: &[&str]) -> String {
        let mut out = String::new();
        eventually(&format!("{args:?} succeeds"), async || {
            let (is_ok, text, said) = self.try_courant(url, args).await;
            if !is_ok {
                eprintln!("{args:?}: {said}");
            }
            out = text;
            is_ok
        })
        .await;
        out
    }

    /// Applies specifications through the broker at `url`.
    pub async fn apply(&self, url: &str, yaml: &str) {
        let path = self.dir.path().join("specs.yaml");
        std::fs::write(&path, yaml).unwrap();
        self.courant(url, &["journals", "apply", "--specs", path.to_str().unwrap()]).await;
    }

    /// Appends a line.
    pub async fn append(&self, url: &str, journal: &str, line: &str) {
        let path = self.dir.path().join("input");
        std::fs::write(&path, format!("{line}\n")).unwrap();
        let selector = format!("name={journal}");
        self.courant(url, &["journals", "append", "-l", &selector, "-i", path.to_str().unwrap()]).await;
    }

    /// Waits until the journal holds exactly these lines, as the broker at `url` reads it.
    pub async fn await_lines(&self, url: &str, journal: &str, lines: &[&str]) {
        let selector = format!("name={journal}");
        eventually(&format!("{journal} holds {lines:?}"), async || {
            let (is_ok, text, _) = self.try_courant(url, &["journals", "read", "-l", &selector]).await;
            is_ok && text.lines().eq(lines.iter().copied())
        })
        .await;
    }

    /// SIGKILLs etcd.
    pub async fn kill_etcd(&mut self) {
        self.etcd.kill().await.unwrap();
    }
}

/// Waits until `look` finds what it looks for.
pub async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let clock = Clock::system();
    let deadline = clock.now() + LIMIT;
    while !look().await {
        assert!(clock.now() < deadline, "not within {LIMIT:?}: {what}");
        clock.sleep(POLL).await;
    }
}

/// etcd cannot choose a port by itself.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn start_etcd(dir: &TempDir, client: &str, peer: &str, tasks: &TaskGroup) -> Process {
    let data = dir.path().join("etcd").display().to_string();
    let cluster = format!("default={peer}");
    let args = [
        "--data-dir",
        &data,
        "--unsafe-no-fsync",
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        &cluster,
    ];
    let launch = Launch::new("etcd (make test installs it)", "etcd".into(), args, dir.path());
    Process::start(&launch, tasks).unwrap()
}
