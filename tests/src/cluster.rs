//! One machine's worth of Courant: a broker with embedded etcd, summers and chunkers, all separate processes.
//!
//! The broker is first started on a free port and keeps that port over restarts, as its clients know it by address.

use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{ClientOptions, ShardClient};
use proto::consumer::ListRequest;
use proto::consumer::list_response::Shard;
use proto::consumer::replica_status::Code;
use runtime::{Clock, TaskGroup};
use tempfile::TempDir;

use crate::appender::{AppenderOptions, Appenders};
use crate::caller::Caller;
use crate::process::{Launch, Process, ProcessError, binary};
use crate::readback::Readback;

/// Longest wait for a program to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for a command to end.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Longest wait for one listing of shards.
const LIST_LIMIT: Duration = Duration::from_secs(1);
/// Pause between two listings while waiting for shards.
const POLL: Duration = Duration::from_millis(50);

/// Where a cluster's programs differ from their defaults.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// `--broker.durability`.
    pub durability: &'static str,
    /// `--etcd.lease` of broker and summers: how soon a killed member is given up.
    pub lease: &'static str,
    /// `--log.level` of broker and summers.
    pub log_level: &'static str,
    /// Further arguments of summers.
    pub summer_args: &'static [&'static str],
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions { durability: "process", lease: "5s", log_level: "warn", summer_args: &[] }
    }
}

/// The running programs and the directory that holds their data.
pub struct Cluster {
    dir: TempDir,
    tasks: TaskGroup,
    options: ClusterOptions,
    port: u16,
    /// The broker; `None` while it is down.
    pub broker: Option<Process>,
    /// The summers; `None` while one is down.
    pub summers: Vec<Option<Process>>,
    summer_endpoints: Vec<String>,
}

impl Cluster {
    /// Starts a broker in a new directory.
    pub async fn start(options: ClusterOptions) -> Result<Cluster, ProcessError> {
        let dir = TempDir::with_prefix("courant-").expect("a temporary directory can be made");
        let mut cluster = Cluster {
            dir,
            tasks: TaskGroup::new("cluster"),
            options,
            port: 0,
            broker: None,
            summers: Vec::new(),
            summer_endpoints: Vec::new(),
        };
        cluster.start_broker().await?;
        Ok(cluster)
    }

    /// Directory of this cluster.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Data directory of the broker.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("broker")
    }

    /// URL of the broker.
    pub fn broker_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// URL of the summer at `index`, as of its last start.
    pub fn summer_address(&self, index: usize) -> &str {
        &self.summer_endpoints[index]
    }

    /// Tasks that read the programs' output.
    pub fn tasks(&self) -> &TaskGroup {
        &self.tasks
    }

    /// Arguments of `courant serve` for this cluster.
    pub fn broker_args(&self) -> Vec<String> {
        let data_dir = self.data_dir().display().to_string();
        let options = &self.options;
        [
            "serve",
            &format!("--broker.port={}", self.port),
            &format!("--broker.data-dir={data_dir}"),
            &format!("--broker.durability={}", options.durability),
            &format!("--etcd.lease={}", options.lease),
            &format!("--log.level={}", options.log_level),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Starts the broker, on the port it had before.
    pub async fn start_broker(&mut self) -> Result<(), ProcessError> {
        let launch = Launch::new("courant serve", binary("courant"), self.broker_args(), self.dir.path());
        let mut broker = Process::start(&launch, &self.tasks)?;
        let endpoint = broker.wait_line("serving on http://", READY_LIMIT, served_endpoint).await?;
        self.port = port_of(&endpoint);
        self.broker = Some(broker);
        Ok(())
    }

    /// SIGKILLs the broker.
    pub async fn kill_broker(&mut self) -> Result<(), ProcessError> {
        let mut broker = self.broker.take().expect("the broker runs");
        broker.kill().await
    }

    /// Starts one more summer, or the one at `index` again after it was killed.
    pub async fn start_summer(&mut self, index: usize) -> Result<(), ProcessError> {
        let args = [
            "serve".to_owned(),
            format!("--broker.address={}", self.broker_address()),
            format!("--consumer.id=summer-{index}"),
            format!("--etcd.lease={}", self.options.lease),
            format!("--log.level={}", self.options.log_level),
        ];
        let args = args.into_iter().chain(self.options.summer_args.iter().map(|arg| (*arg).to_owned()));
        let name = format!("summer-{index}");
        let work = self.dir.path().join(&name);
        std::fs::create_dir_all(&work).expect("the cluster's directory is writable");
        let launch = Launch::new(&name, binary("summer"), args, &work)
            .env("TMPDIR", work.to_str().expect("a UTF-8 path"));
        let mut summer = Process::start(&launch, &self.tasks)?;
        let endpoint = summer.wait_line("serving on http://", READY_LIMIT, served_endpoint).await?;
        if index == self.summers.len() {
            self.summers.push(Some(summer));
            self.summer_endpoints.push(endpoint);
        } else {
            self.summers[index] = Some(summer);
            self.summer_endpoints[index] = endpoint;
        }
        Ok(())
    }

    /// SIGKILLs the summer at `index`.
    pub async fn kill_summer(&mut self, index: usize) -> Result<(), ProcessError> {
        let mut summer = self.summers[index].take().expect("the summer runs");
        summer.kill().await
    }

    /// Starts `chunker run` with these further arguments.
    pub fn start_chunker(&self, args: &[&str]) -> Result<Process, ProcessError> {
        let address = format!("--broker.address={}", self.broker_address());
        let all = ["run", &address, "--chunker.progress=plain"].into_iter().chain(args.iter().copied());
        Process::start(&Launch::new("chunker", binary("chunker"), all, self.dir.path()), &self.tasks)
    }

    /// Runs `courant` with these arguments to its end and gives its standard output; fails unless it exits with 0.
    pub async fn courant(&self, args: &[&str]) -> Result<String, ProcessError> {
        let (status, out, mut process) = self.courant_status(args).await?;
        if !status {
            process.wait_exit(COMMAND_LIMIT).await?;
            return Err(process.error(format!("{args:?} failed")));
        }
        Ok(out)
    }

    /// Runs `courant` to its end: whether it exited with 0, and its standard output.
    pub async fn courant_status(&self, args: &[&str]) -> Result<(bool, String, Process), ProcessError> {
        let address = self.broker_address();
        let args = args.iter().copied();
        let launch =
            Launch::new("courant", binary("courant"), args, self.dir.path()).env("BROKER_ADDRESS", &address);
        let mut process = Process::start(&launch, &self.tasks)?;
        let status = process.wait_exit(COMMAND_LIMIT).await?;
        Ok((status.success(), process.stdout(), process))
    }

    /// Starts appenders to a journal of this cluster.
    pub fn start_appenders(&self, journal: &str, count: usize, seed: u64) -> Appenders {
        let options = AppenderOptions {
            brokers: vec![self.broker_address()],
            journals: vec![journal.to_owned()],
            per_journal: count,
            pause: Duration::ZERO,
            seed,
            caller: Caller::default(),
        };
        Appenders::start(options).expect("the broker's address is well-formed")
    }

    /// Reads journals back, from the broker and from its store.
    pub fn readback(&self) -> Readback {
        Readback::new(vec![self.broker_address()], &self.data_dir().join("fragments"), Caller::default())
    }

    /// Applies stream-sum's journal and shard specifications.
    pub async fn apply_stream_sum(&self) -> Result<(), ProcessError> {
        self.apply_stream_sum_journals().await?;
        self.apply_stream_sum_shards().await
    }

    /// Applies stream-sum's journal specifications.
    pub async fn apply_stream_sum_journals(&self) -> Result<(), ProcessError> {
        self.courant(&["journals", "apply", "--specs", &example("journals.yaml")]).await.map(drop)
    }

    /// Applies stream-sum's shard specifications, through the first summer.
    pub async fn apply_stream_sum_shards(&self) -> Result<(), ProcessError> {
        let consumer = format!("--consumer.address={}", self.summer_address(0));
        self.courant(&["shards", "apply", &consumer, "--specs", &example("shards.yaml")]).await.map(drop)
    }

    /// How many shards have a primary which is up, as the summer at `index` sees it. Zero if it does not answer.
    pub async fn shards_primary(&self, index: usize) -> usize {
        self.primaries(index).await.len()
    }

    /// The summers which are up as primaries, one for each shard that has such, as the summer at `index` sees it. One that is
    /// gone is still among them until its lease has ended.
    async fn primaries(&self, index: usize) -> Vec<String> {
        let options = ClientOptions::new(self.tasks.clone());
        let Ok(client) = ShardClient::new(self.summer_address(index), options) else { return Vec::new() };
        let Ok(Ok(listing)) = self.clock().timeout(LIST_LIMIT, client.list(ListRequest::default())).await
        else {
            return Vec::new();
        };
        let primary = |shard: &Shard| {
            let route = shard.route.as_ref()?;
            let at = usize::try_from(route.primary).ok()?;
            let is_up = shard.status.get(at)?.code() == Code::Primary;
            route.members.get(at).filter(|_| is_up).map(|member| member.suffix.clone())
        };
        listing.shards.iter().filter_map(primary).collect()
    }

    /// Waits until `count` shards have a primary which is up, as the summer at `index` sees it.
    pub async fn wait_shards_primary(
        &self,
        index: usize,
        count: usize,
        limit: Duration,
    ) -> Result<(), ProcessError> {
        self.wait_primaries(index, count, limit, |_| true).await
    }

    /// Waits until the summer at `index` is the primary of `count` shards, and up.
    pub async fn wait_taken_over(
        &self,
        index: usize,
        count: usize,
        limit: Duration,
    ) -> Result<(), ProcessError> {
        let own = format!("summer-{index}");
        self.wait_primaries(index, count, limit, |summer| *summer == own).await
    }

    async fn wait_primaries(
        &self,
        index: usize,
        count: usize,
        limit: Duration,
        counts: impl Fn(&String) -> bool,
    ) -> Result<(), ProcessError> {
        let clock = self.clock();
        let deadline = clock.now() + limit;
        loop {
            let primaries = self.primaries(index).await;
            if primaries.iter().filter(|summer| counts(summer)).count() >= count {
                return Ok(());
            }
            if clock.now() > deadline {
                let summer = self.summers[index].as_ref().expect("the summer runs");
                let what =
                    format!("{count} shards are not primary after {limit:?}; primaries: {primaries:?}");
                return Err(summer.error(what));
            }
            clock.sleep(POLL).await;
        }
    }

    /// Names a program which ended although nobody killed it.
    pub fn lost_process(&mut self) -> Option<ProcessError> {
        let summers = self.summers.iter_mut().flatten();
        for process in self.broker.iter_mut().chain(summers) {
            if let Some(status) = process.ended() {
                return Some(process.error(format!("ended by itself with {status}")));
            }
        }
        None
    }

    /// The clock of waits.
    pub fn clock(&self) -> Clock {
        Clock::system()
    }
}

/// Path of a file of the stream-sum example.
fn example(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/stream-sum").join(name).display().to_string()
}

/// The URL of a line `NAME: serving on URL, …`.
pub fn served_endpoint(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("serving on ")?;
    let url = rest.split([',', ' ']).next()?;
    url.starts_with("http://").then(|| url.to_owned())
}

/// The port at the end of a URL.
fn port_of(endpoint: &str) -> u16 {
    endpoint.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a served URL ends in its port")
}
