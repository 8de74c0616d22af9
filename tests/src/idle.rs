//! What a broker costs that has many journals and nothing to do: memory, CPU and file descriptors of the process, and the
//! time until all journals are assigned.
//!
//! The broker is one process with an embedded etcd. Each journal has a store, and is appended to once if asked for: journals
//! that were never written have no spool file.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use client::{ClientOptions, JournalClient};
use futures::StreamExt;
use proto::protocol::{AppendRequest, LabelSelector, Route};
use runtime::{BoxError, Clock, TaskGroup};
use tempfile::TempDir;

use crate::cluster::served_endpoint;
use crate::process::{Launch, Process, ProcessError, binary};

/// Longest wait for the broker to serve.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for all journals to be assigned.
const ASSIGNED_LIMIT: Duration = Duration::from_secs(600);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);
/// The settling of what the start left behind, before anything is measured: the first fragments of journals are stored after
/// their second pulse.
const SETTLE: Duration = Duration::from_secs(120);
/// Time over which an idle broker is watched: its journals pulse once a minute.
const WINDOW: Duration = Duration::from_secs(60);
/// Appends under way at a time.
const APPENDS_AT_ONCE: usize = 64;
/// Jiffies per second, as Linux reports CPU time on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Journals of the broker.
    pub journals: usize,
    /// From the first Apply until all have a primary.
    pub assigned: Duration,
    /// From starting the process again after SIGKILL until all take appends.
    pub restarted: Duration,
    /// Resident memory.
    pub rss: u64,
    /// CPU of the idle broker, as a share of one core.
    pub cpu: f64,
    /// Open file descriptors.
    pub files: usize,
    /// Threads.
    pub threads: u64,
}

/// Prints a table of what `journals` idle journals cost, beyond a tenth of them.
///
/// # Errors
/// If a broker or a request fails.
pub async fn report(journals: usize) -> Result<(), BoxError> {
    println!(
        "| idle journals | memory | per journal | CPU | files | threads | assigned after | serving after SIGKILL |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for written in [false, true] {
        let few = measure(journals / 10, written, WINDOW).await?;
        let many = measure(journals, written, WINDOW).await?;
        let more = (many.journals - few.journals).max(1) as u64;
        let per_journal = format!("{:.1} KiB", (many.rss.saturating_sub(few.rss) / more) as f64 / 1024.0);
        let kind = if written { "written once" } else { "never written" };
        for (of, per_journal) in [(few, "–"), (many, &per_journal)] {
            println!(
                "| {} {kind} | {} MiB | {per_journal} | {:.2} % of a core | {} | {} | {:.1} s | {:.1} s |",
                of.journals,
                of.rss >> 20,
                of.cpu * 100.0,
                of.files,
                of.threads,
                of.assigned.as_secs_f64(),
                of.restarted.as_secs_f64(),
            );
        }
    }
    Ok(())
}

/// Starts a broker, gives it `journals` journals, each of which is appended to once if `written`, and watches it idle for
/// `window`.
///
/// # Errors
/// If the broker or a request fails.
pub async fn measure(journals: usize, written: bool, window: Duration) -> Result<Idle, BoxError> {
    let mut fixture = Fixture::new(journals)?;
    let (clock, mut broker) = (Clock::system(), fixture.start().await?);
    let began = clock.now();
    fixture.apply(journals).await?;
    fixture.await_primaries(journals).await?;
    let assigned = clock.now() - began;
    if written {
        fixture.append_to_all(journals, b"one line of content\n").await?;
    }
    broker.kill().await?;
    let began = clock.now();
    let broker = fixture.start().await?;
    fixture.append_to_all(journals, b"").await?;
    let restarted = clock.now() - began;
    clock.sleep(SETTLE).await;
    let pid = broker.pid();
    let (before, began) = (cpu_seconds(pid)?, clock.now());
    clock.sleep(window).await;
    let cpu = (cpu_seconds(pid)? - before) / (clock.now() - began).as_secs_f64();
    Ok(Idle {
        journals,
        assigned,
        restarted,
        rss: status_number(pid, "VmRSS:")? * 1024,
        cpu,
        files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
        threads: status_number(pid, "Threads:")?,
    })
}

/// A broker's directory, and how to reach it.
struct Fixture {
    dir: TempDir,
    limit: usize,
    endpoint: String,
    tasks: TaskGroup,
}

impl Fixture {
    fn new(limit: usize) -> Result<Fixture, BoxError> {
        let dir = TempDir::with_prefix("courant-idle-")?;
        Ok(Fixture { dir, limit, endpoint: String::new(), tasks: TaskGroup::new("idle") })
    }

    async fn start(&mut self) -> Result<Process, ProcessError> {
        let data_dir = self.dir.path().join("broker");
        let args = [
            "serve".to_owned(),
            "--broker.port=0".to_owned(),
            format!("--broker.data-dir={}", data_dir.display()),
            format!("--broker.limit={}", self.limit),
            "--log.level=warn".to_owned(),
        ];
        let launch = Launch::new("courant serve", binary("courant"), args, self.dir.path());
        let mut broker = Process::start(&launch, &self.tasks)?;
        self.endpoint = broker.wait_line("serving on http://", READY_LIMIT, served_endpoint).await?;
        Ok(broker)
    }

    fn client(&self) -> Result<JournalClient, BoxError> {
        Ok(JournalClient::new(&self.endpoint, ClientOptions::new(self.tasks.clone()))?)
    }

    async fn apply(&self, journals: usize) -> Result<(), BoxError> {
        let mut yaml = "name: idle/\nreplication: 1\nfragment: {length: 1048576, compression_codec: SNAPPY, \
             refresh_interval: 5m, stores: ['file:///']}\nchildren:\n"
            .to_owned();
        for index in 0..journals {
            writeln!(yaml, "  - {{name: {}}}", name(index))?;
        }
        let path = self.dir.path().join("idle.yaml");
        std::fs::write(&path, yaml)?;
        let specs = format!("--specs={}", path.display());
        let address = format!("--broker.address={}", self.endpoint);
        let args = ["journals", "apply", &specs, &address, "--max-txn-size=100"];
        let launch = Launch::new("courant", binary("courant"), args, self.dir.path());
        let mut apply = Process::start(&launch, &self.tasks)?;
        let status = apply.wait_exit(ASSIGNED_LIMIT).await?;
        if !status.success() {
            return Err(apply.error(format!("{args:?} failed")).into());
        }
        Ok(())
    }

    async fn await_primaries(&self, journals: usize) -> Result<(), BoxError> {
        let (client, clock) = (self.client()?, Clock::system());
        let deadline = clock.now() + ASSIGNED_LIMIT;
        loop {
            let listing = client.list(LabelSelector::default()).await?;
            let is_primary = |route: &Route| route.primary >= 0;
            let count = listing.journals.iter().filter(|j| j.route.as_ref().is_some_and(is_primary)).count();
            if count >= journals {
                return Ok(());
            }
            if clock.now() > deadline {
                let text = format!("{count} of {journals} journals are assigned after {ASSIGNED_LIMIT:?}");
                return Err(text.into());
            }
            clock.sleep(POLL).await;
        }
    }

    /// Appends once to each journal, waiting until it takes appends.
    async fn append_to_all(&self, journals: usize, content: &'static [u8]) -> Result<(), BoxError> {
        let client = &self.client()?;
        let append = |index: usize| async move {
            let request = AppendRequest { journal: name(index), ..Default::default() };
            client.append(request, Bytes::from_static(content)).await.map(drop)
        };
        let mut appends = futures::stream::iter(0..journals).map(append).buffer_unordered(APPENDS_AT_ONCE);
        while let Some(outcome) = appends.next().await {
            outcome?;
        }
        Ok(())
    }
}

fn name(index: usize) -> String {
    format!("idle/journal-{index:06}")
}

/// CPU time that a process has taken.
fn cpu_seconds(pid: u32) -> Result<f64, BoxError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks =
        |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).ok_or("no time in /proc/PID/stat");
    // Fields 14 and 15 of the whole line.
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

fn status_number(pid: u32, field: &str) -> Result<u64, BoxError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}
