//! One process of a fleet, over all its lives: how it is started, whether it should run, and why it ended.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use runtime::{Instant, TaskGroup};

use super::FleetOptions;
use super::network::Place;
use crate::process::{Launch, Process, ProcessError, binary};

/// Pause before a process that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// What a process of a fleet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// etcd.
    Etcd,
    /// `courant serve`.
    Broker,
    /// `summer serve`.
    Summer,
}

/// How a process is started other than usually.
#[derive(Clone, Debug, Default)]
pub struct Quirk {
    /// Run by this program and arguments, in the same process.
    pub wrapper: Vec<String>,
    /// Variables of its environment.
    pub envs: Vec<(String, String)>,
}

/// Addresses that the processes of a fleet are given.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// URL of etcd.
    pub etcd: String,
    /// URL of the broker that this process knows.
    pub broker: String,
    /// Where fragments are stored.
    pub store: PathBuf,
}

/// One process of a fleet.
pub struct Member {
    /// What it is.
    pub kind: Kind,
    /// Its place on the network.
    pub place: Place,
    launch: Launch,
    /// Its state on disk.
    pub data_dir: PathBuf,
    process: Option<Process>,
    is_wanted: bool,
    is_ready: bool,
    ended: Option<Instant>,
    /// Times that it ended by itself for a reason that is known, and was started again.
    pub restarts: u32,
}

/// What became of a member since it was last looked at.
pub enum Seen {
    /// Nothing worth a word.
    Nothing,
    /// It ended by itself, for a reason that is known; it will be started again.
    Left(String),
    /// It was started again.
    Restarted,
}

impl Member {
    /// A member which is not started. `index` is its number among its kind.
    pub fn new(
        kind: Kind,
        index: usize,
        place: Place,
        addresses: &Addresses,
        options: &FleetOptions,
        dir: &Path,
    ) -> Member {
        let name = Member::name_of(kind, index);
        let data_dir = dir.join(&name);
        let (program, args) = match kind {
            Kind::Etcd => (PathBuf::from("etcd"), etcd_args(&place, &data_dir)),
            Kind::Broker => {
                let args = broker_args(&name, index, &place, addresses, options, &data_dir);
                (binary("courant"), args)
            }
            Kind::Summer => (binary("summer"), summer_args(&name, index, &place, addresses, options)),
        };
        let temporary = data_dir.to_str().expect("a UTF-8 path").to_owned();
        let log = dir.join(format!("{name}.log"));
        let mut launch = Launch::new(&name, program, args, dir).log(log).env("TMPDIR", &temporary);
        launch.wrapper.clone_from(&place.wrapper);
        if kind != Kind::Etcd {
            launch.envs.extend(options.envs.iter().cloned());
        }
        let (is_wanted, is_ready) = (false, false);
        Member { kind, place, launch, data_dir, process: None, is_wanted, is_ready, ended: None, restarts: 0 }
    }

    /// Gives it more arguments.
    pub fn add_args(&mut self, args: Vec<String>) {
        self.launch.args.extend(args);
    }

    /// Sets variables of its environment, from its next start on.
    pub fn set_envs(&mut self, envs: Vec<(String, String)>) {
        self.launch.envs.retain(|(name, _)| !envs.iter().any(|(set, _)| set == name));
        self.launch.envs.extend(envs);
    }

    /// The name of the member `index` of a kind.
    pub fn name_of(kind: Kind, index: usize) -> String {
        match kind {
            Kind::Etcd => "etcd".to_owned(),
            Kind::Broker => format!("broker-{index}"),
            Kind::Summer => format!("summer-{index}"),
        }
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.launch.name
    }

    /// Whether it serves, as far as it has been looked at.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// The process, while there is one.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Starts it, on the state that it has.
    pub fn start(&mut self, quirk: &Quirk, tasks: &TaskGroup) -> Result<(), ProcessError> {
        assert!(self.process.is_none(), "{} runs", self.name());
        std::fs::create_dir_all(&self.data_dir).expect("the fleet's directory is writable");
        let mut launch = self.launch.clone();
        launch.wrapper.extend(quirk.wrapper.iter().cloned());
        launch.envs.extend(quirk.envs.iter().cloned());
        self.process = Some(Process::start(&launch, tasks)?);
        (self.is_wanted, self.is_ready, self.ended) = (true, false, None);
        Ok(())
    }

    /// SIGKILL. It stays down until it is started.
    pub async fn kill(&mut self) -> Result<(), ProcessError> {
        self.is_wanted = false;
        match self.process.take() {
            Some(mut process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, and waits for its end. It stays down until it is started.
    pub async fn terminate(&mut self, limit: Duration) -> Result<(), ProcessError> {
        self.is_wanted = false;
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let status = process.terminate(limit).await?;
        if status.success() {
            return Ok(());
        }
        Err(process.error(format!("SIGTERM ended it with {status}")))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) -> Result<(), ProcessError> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Removes its state on disk.
    pub fn wipe(&mut self) {
        assert!(self.process.is_none(), "{} runs", self.name());
        // The directory itself may be a mount point.
        for entry in std::fs::read_dir(&self.data_dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("the fleet's directory is writable");
        }
    }

    /// Looks whether it serves or has ended by itself, and starts it again in due time, as a supervisor would.
    pub fn tend(&mut self, now: Instant, tasks: &TaskGroup) -> Result<Seen, ProcessError> {
        if !self.is_wanted {
            return Ok(Seen::Nothing);
        }
        let Some(process) = &mut self.process else {
            let due = self.ended.is_some_and(|ended| now >= ended + RESTART_PAUSE);
            if !due {
                return Ok(Seen::Nothing);
            }
            self.restarts += 1;
            return self.start(&Quirk::default(), tasks).map(|()| Seen::Restarted);
        };
        self.is_ready = self.is_ready || process.stderr_tail().lines().any(is_ready_line);
        let Some(status) = process.ended() else { return Ok(Seen::Nothing) };
        let Some(reason) = known_reason(self.kind, status, &process.stderr_tail()) else {
            return Err(process.error(format!("ended by itself with {status}")));
        };
        (self.process, self.is_ready, self.ended) = (None, false, Some(now));
        Ok(Seen::Left(reason))
    }
}

/// The line which a program says when it serves.
fn is_ready_line(line: &str) -> bool {
    line.contains("serving on http") || line.contains("serving client traffic")
}

/// Why a process may end by itself: it has lost its lease, or cannot reach etcd to get one. `None` if it may not.
fn known_reason(kind: Kind, status: ExitStatus, said: &str) -> Option<String> {
    if kind == Kind::Etcd || status.code() != Some(1) || said.contains("panicked") {
        return None;
    }
    let last = said.lines().rev().find(|line| line.contains("lease") || line.contains("etcd"))?;
    Some(last.trim().to_owned())
}

fn etcd_args(place: &Place, data_dir: &Path) -> Vec<String> {
    let mut peer = place.address;
    peer.set_port(place.address.port() + 1);
    let (client, peer) = (place.url(), format!("http://{peer}"));
    vec![
        "--name=etcd".to_owned(),
        format!("--data-dir={}", data_dir.join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=etcd={peer}"),
        "--logger=zap".to_owned(),
    ]
}

fn broker_args(
    name: &str,
    index: usize,
    place: &Place,
    addresses: &Addresses,
    options: &FleetOptions,
    data_dir: &Path,
) -> Vec<String> {
    vec![
        "serve".to_owned(),
        format!("--broker.id={name}"),
        format!("--broker.zone={}", options.zone(index)),
        format!("--broker.host={}", place.address.ip()),
        format!("--broker.port={}", place.address.port()),
        format!("--broker.data-dir={}", data_dir.display()),
        format!("--broker.file-root={}", addresses.store.display()),
        format!("--broker.durability={}", options.durability),
        format!("--etcd.address={}", addresses.etcd),
        format!("--etcd.lease={}s", options.lease.as_secs()),
        format!("--log.level={}", options.log_level),
    ]
}

fn summer_args(
    name: &str,
    index: usize,
    place: &Place,
    addresses: &Addresses,
    options: &FleetOptions,
) -> Vec<String> {
    vec![
        "serve".to_owned(),
        format!("--consumer.id={name}"),
        format!("--consumer.zone={}", options.zone(index)),
        format!("--consumer.host={}", place.address.ip()),
        format!("--consumer.port={}", place.address.port()),
        format!("--broker.address={}", addresses.broker),
        format!("--etcd.address={}", addresses.etcd),
        format!("--etcd.lease={}s", options.lease.as_secs()),
        format!("--log.level={}", options.log_level),
    ]
}
