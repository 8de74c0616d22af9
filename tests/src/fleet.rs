//! A cluster as it is run in earnest: a real etcd, brokers in zones and summers, each a process of its own.
//!
//! A fleet keeps its processes as a supervisor would: one that ends by itself because it lost its lease or cannot reach etcd
//! is started again and counted; one that ends for another reason is a failure. Nothing happens behind the caller's back:
//! processes are looked after while the caller waits, by [`Fleet::tend`] and the waits that are built on it.

mod member;
mod network;
mod security;
pub mod specs;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{JournalClient, ShardClient};
use proto::consumer::{ListRequest, list_response};
use proto::protocol::{LabelSelector, Route};
use runtime::{BoxError, Clock, Instant, TaskGroup};
use tempfile::TempDir;

use crate::caller::Caller;
use crate::process::{Launch, Process, binary};
use crate::readback::Readback;
use crate::ring::Step;
use member::{Addresses, Member, Seen};
pub use member::{Kind, Quirk};
pub use network::free_port;
use network::{Network, Place};
use security::Security;
use specs::Copies;

/// Longest wait for a program to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for a command to end.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Longest wait for one listing of shards.
const LIST_LIMIT: Duration = Duration::from_secs(1);
/// How often processes are looked after during waits.
const TICK: Duration = Duration::from_millis(100);

/// The file of stream-sum's shards.
const SHARDS: &str = "shards.yaml";
const ETCD_PORT: u16 = 2379;
const BROKER_PORT: u16 = 8080;
const SUMMER_PORT: u16 = 9000;

/// What a fleet consists of.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Brokers.
    pub brokers: usize,
    /// Zones that brokers and summers are spread over.
    pub zones: usize,
    /// Summers.
    pub summers: usize,
    /// Replicas and standbys.
    pub copies: Copies,
    /// `--etcd.lease`: how soon a killed member is given up.
    pub lease: Duration,
    /// `--broker.durability`.
    pub durability: String,
    /// `--log.level` of brokers and summers.
    pub log_level: &'static str,
    /// Environment of brokers and summers, such as credentials of stores.
    pub envs: Vec<(String, String)>,
    /// Size of each broker's disk, in MiB; `None` for the disk that temporary files are on. Needs a sandbox.
    pub disk_mib: Option<u32>,
    /// Whether all connections have mutual TLS, and requests need access tokens.
    pub is_secure: bool,
}

impl Default for FleetOptions {
    fn default() -> Self {
        FleetOptions {
            brokers: specs::BROKERS_MAX as usize,
            zones: 3,
            summers: specs::STANDBYS_MAX as usize + 1,
            copies: Copies { replication: 3, hot_standbys: 1 },
            lease: Duration::from_secs(10),
            durability: "process".to_owned(),
            log_level: "warn",
            envs: Vec::new(),
            disk_mib: None,
            is_secure: false,
        }
    }
}

impl FleetOptions {
    /// The zone of a process.
    fn zone(&self, index: usize) -> String {
        format!("zone-{}", index % self.zones)
    }
}

/// The running programs and the directory that holds their data and logs.
pub struct Fleet {
    dir: Option<TempDir>,
    path: PathBuf,
    tasks: TaskGroup,
    clock: Clock,
    began: Instant,
    options: FleetOptions,
    network: Network,
    /// Of a secure fleet.
    security: Option<Security>,
    addresses: Addresses,
    members: BTreeMap<String, Member>,
    chunkers: usize,
    /// Files of journal specifications that were applied, in order.
    applied: Vec<PathBuf>,
}

impl Fleet {
    /// Starts all processes, and waits until each serves.
    pub async fn start(options: FleetOptions) -> Result<Fleet, BoxError> {
        let dir = TempDir::with_prefix("courant-fleet-")?;
        let path = dir.path().to_owned();
        let network = Network::new().await?;
        let store = path.join("store");
        std::fs::create_dir_all(&store)?;
        let security = options.is_secure.then(|| Security::new(path.join("tls"))).transpose()?;
        let addresses = Addresses { etcd: String::new(), broker: String::new(), store };
        let (tasks, clock) = (TaskGroup::new("fleet"), Clock::system());
        let began = clock.now();
        let mut fleet = Fleet {
            dir: Some(dir),
            path,
            tasks,
            clock,
            began,
            options,
            network,
            security,
            addresses,
            members: BTreeMap::new(),
            chunkers: 0,
            applied: Vec::new(),
        };
        let etcd = fleet.settle(Kind::Etcd, 0, ETCD_PORT).await?;
        fleet.addresses.etcd = etcd.url();
        fleet.add(Kind::Etcd, 0, etcd);
        for index in 0..fleet.options.brokers {
            let place = fleet.settle(Kind::Broker, index, BROKER_PORT).await?;
            fleet.mount_disk(&Member::name_of(Kind::Broker, index)).await?;
            fleet.add(Kind::Broker, index, place);
        }
        for index in 0..fleet.options.summers {
            let place = fleet.settle(Kind::Summer, index, SUMMER_PORT).await?;
            fleet.addresses.broker = fleet.broker_url(index % fleet.options.brokers);
            fleet.add(Kind::Summer, index, place);
        }
        for kind in [Kind::Etcd, Kind::Broker, Kind::Summer] {
            let names = fleet.names(kind);
            fleet.start_members(&names).await?;
        }
        Ok(fleet)
    }

    /// Finds a place for a process, and certifies it in a secure fleet.
    async fn settle(&mut self, kind: Kind, index: usize, port: u16) -> Result<Place, BoxError> {
        let name = Member::name_of(kind, index);
        let mut place = self.network.add(&name, port).await?;
        if let Some(security) = &mut self.security {
            place.scheme = "https";
            security.certify(&name, place.address.ip())?;
        }
        Ok(place)
    }

    fn add(&mut self, kind: Kind, index: usize, place: Place) {
        let mut member = Member::new(kind, index, place, &self.addresses, &self.options, &self.path);
        if let Some(security) = &self.security {
            member.add_args(security.args(kind, member.name()));
            member.set_envs(security.keys(kind));
        }
        self.members.insert(member.name().to_owned(), member);
    }

    /// Gives a broker a disk of its own.
    async fn mount_disk(&self, name: &str) -> Result<(), BoxError> {
        let Some(mib) = self.options.disk_mib else { return Ok(()) };
        let dir = self.path.join(name);
        std::fs::create_dir_all(&dir)?;
        let size = format!("size={mib}m");
        let dir = dir.to_str().ok_or("the directory's path is not UTF-8")?;
        network::run(&["mount", "-t", "tmpfs", "-o", &size, "courant-disk", dir]).await
    }

    /// Takes the brokers' own disks away, and with them what is on them.
    fn unmount_disks(&self) {
        for member in self.members.values().filter(|member| member.kind == Kind::Broker) {
            let unmounted =
                std::process::Command::new("umount").args(["--lazy"]).arg(&member.data_dir).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("{} stays mounted", member.data_dir.display());
            }
        }
    }

    /// The directory with all data and logs.
    pub fn dir(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory when the fleet ends.
    pub fn keep_dir(&mut self) {
        let Some(dir) = self.dir.take() else { return };
        self.path = dir.keep();
        if self.options.disk_mib.is_none() {
            return;
        }
        // The brokers' own disks end with the sandbox.
        for member in self.members.values().filter(|member| member.kind == Kind::Broker) {
            let copy = self.path.join(format!("{}-disk", member.name()));
            let copied = std::process::Command::new("cp").arg("-a").args([&member.data_dir, &copy]).status();
            if !copied.is_ok_and(|status| status.success()) {
                eprintln!("the disk of {} is not kept", member.name());
            }
        }
    }

    /// Where fragments are stored.
    pub fn store(&self) -> &Path {
        &self.addresses.store
    }

    /// What the fleet consists of.
    pub fn options(&self) -> &FleetOptions {
        &self.options
    }

    /// The clock of waits.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Since the fleet was started.
    pub fn elapsed(&self) -> Duration {
        self.clock.now() - self.began
    }

    /// Whether processes can be cut off from each other.
    pub fn can_partition(&self) -> bool {
        self.network.can_partition()
    }

    /// Names of all members of a kind.
    pub fn names(&self, kind: Kind) -> Vec<String> {
        self.members.values().filter(|member| member.kind == kind).map(|m| m.name().to_owned()).collect()
    }

    /// Names of all processes.
    pub fn all_names(&self) -> Vec<String> {
        self.members.keys().cloned().collect()
    }

    /// URL of the broker `index`.
    pub fn broker_url(&self, index: usize) -> String {
        self.members[&Member::name_of(Kind::Broker, index)].place.url()
    }

    /// As whom the harness calls brokers and summers.
    pub fn caller(&self) -> Caller {
        self.security.as_ref().map(|security| security.caller().clone()).unwrap_or_default()
    }

    /// Reads journals back, from all brokers and from the store.
    pub fn readback(&self) -> Readback {
        Readback::new(self.broker_urls(), self.store(), self.caller())
    }

    /// Takes a step towards another authority, by replacing files which processes read anew. The last step gives somebody whose
    /// certificate is of the authority before.
    pub fn replace_authority(&mut self, step: Step) -> Result<Option<Caller>, BoxError> {
        self.security.as_mut().ok_or("the fleet has no certificates")?.replace_authority(step)
    }

    /// Takes a step towards other keys, which hold for a process from its next start on. The last step gives somebody who has
    /// the keys before.
    pub fn replace_keys(&mut self, step: Step) -> Result<Option<Caller>, BoxError> {
        let security = self.security.as_mut().ok_or("the fleet has no keys")?;
        let former = security.replace_keys(step)?;
        for member in self.members.values_mut() {
            member.set_envs(security.keys(member.kind));
        }
        Ok(former)
    }

    /// URLs of all brokers.
    pub fn broker_urls(&self) -> Vec<String> {
        (0..self.options.brokers).map(|index| self.broker_url(index)).collect()
    }

    /// The member whose URL this is.
    pub fn name_at(&self, url: &str) -> Option<&str> {
        let member = self.members.values().find(|member| member.place.url() == url)?;
        Some(member.name())
    }

    /// URLs of all summers.
    pub fn summer_urls(&self) -> Vec<String> {
        (0..self.options.summers).map(|index| self.summer_url(index)).collect()
    }

    /// URL of the summer `index`.
    pub fn summer_url(&self, index: usize) -> String {
        self.members[&Member::name_of(Kind::Summer, index)].place.url()
    }

    /// Process id of a member, while it runs.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.members[name].process().map(Process::pid)
    }

    /// Data directory of a member.
    pub fn data_dir(&self, name: &str) -> &Path {
        &self.members[name].data_dir
    }

    /// Times that processes ended by themselves and were started again.
    pub fn restarts(&self) -> u32 {
        self.members.values().map(|member| member.restarts).sum()
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap_or_else(|| panic!("no member is called {name}"))
    }

    /// Starts members on the state that they have, and waits until each serves.
    pub async fn start_members(&mut self, names: &[String]) -> Result<(), BoxError> {
        self.start_with(names, &Quirk::default()).await?;
        self.wait_ready(names, READY_LIMIT).await
    }

    /// Starts members in an unusual way, without waiting.
    pub async fn start_with(&mut self, names: &[String], quirk: &Quirk) -> Result<(), BoxError> {
        let tasks = self.tasks.clone();
        for name in names {
            self.member(name).start(quirk, &tasks)?;
        }
        Ok(())
    }

    /// Waits until every member serves, those included that are just being started again.
    pub async fn wait_all_ready(&mut self) -> Result<(), BoxError> {
        self.wait_ready(&self.all_names(), READY_LIMIT).await
    }

    /// Waits until each of the members serves.
    pub async fn wait_ready(&mut self, names: &[String], limit: Duration) -> Result<(), BoxError> {
        let deadline = self.clock.now() + limit;
        loop {
            self.tend()?;
            let Some(missing) = names.iter().find(|name| !self.members[*name].is_ready()) else {
                return Ok(());
            };
            if self.clock.now() > deadline {
                let what = format!("does not serve after {limit:?}");
                let process = self.members[missing].process();
                return Err(process.map_or_else(
                    || format!("{missing} keeps ending by itself").into(),
                    |process| process.error(what).into(),
                ));
            }
            self.clock.sleep(TICK).await;
        }
    }

    /// SIGKILLs members at once. They stay down.
    pub async fn kill(&mut self, names: &[String]) -> Result<(), BoxError> {
        for name in names {
            self.members[name].signal(libc::SIGKILL)?;
        }
        for name in names {
            self.member(name).kill().await?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the member's orderly end. It stays down.
    pub async fn terminate(&mut self, name: &str, limit: Duration) -> Result<(), BoxError> {
        Ok(self.member(name).terminate(limit).await?)
    }

    /// Sends a signal to a member.
    pub fn signal(&self, name: &str, signal: i32) -> Result<(), BoxError> {
        Ok(self.members[name].signal(signal)?)
    }

    /// Removes the state of a member that is down.
    pub fn wipe(&mut self, name: &str) {
        self.member(name).wipe();
    }

    /// Drops all packets that one member sends to another.
    pub async fn cut(&self, from: &str, to: &str) -> Result<(), BoxError> {
        self.network.cut(from, to).await
    }

    /// Ends every cut.
    pub async fn heal_network(&self) -> Result<(), BoxError> {
        self.network.heal().await
    }

    /// Starts again what has ended by itself; fails if it had no reason to.
    pub fn tend(&mut self) -> Result<(), BoxError> {
        let (now, tasks) = (self.clock.now(), self.tasks.clone());
        let at = (now - self.began).as_secs_f64();
        for member in self.members.values_mut() {
            match member.tend(now, &tasks)? {
                Seen::Nothing => {}
                Seen::Left(reason) => eprintln!("{at:7.1} {} left by itself: {reason}", member.name()),
                Seen::Restarted => eprintln!("{at:7.1} {} is started again", member.name()),
            }
        }
        Ok(())
    }

    /// Lets time pass while processes are looked after.
    pub async fn let_pass(&mut self, time: Duration) -> Result<(), BoxError> {
        let until = self.clock.now() + time;
        while self.clock.now() < until {
            self.tend()?;
            self.clock.sleep(TICK.min(time)).await;
        }
        Ok(())
    }

    /// Runs `courant` with these arguments against the broker `index` and gives its standard output.
    pub async fn courant(&self, index: usize, args: &[&str]) -> Result<String, BoxError> {
        let mut launch = Launch::new("courant", binary("courant"), args.iter().copied(), &self.path)
            .env("BROKER_ADDRESS", &self.broker_url(index));
        launch.envs.extend(self.user_envs());
        let mut process = Process::start(&launch, &self.tasks)?;
        let status = process.wait_exit(COMMAND_LIMIT).await?;
        if !status.success() {
            return Err(process.error(format!("{args:?} failed")).into());
        }
        Ok(process.stdout())
    }

    /// What commands and chunkers need besides addresses.
    fn user_envs(&self) -> Vec<(String, String)> {
        self.security.as_ref().map(Security::user_envs).unwrap_or_default()
    }

    /// Applies journal specifications.
    pub async fn apply_journals(&mut self, name: &str, yaml: &str) -> Result<(), BoxError> {
        let path = self.path.join(name);
        std::fs::write(&path, yaml)?;
        self.apply_journals_of(&path).await?;
        self.applied.push(path);
        Ok(())
    }

    async fn apply_journals_of(&self, path: &Path) -> Result<(), BoxError> {
        let path = path.to_str().ok_or("the directory's path is not UTF-8")?;
        self.courant(0, &["journals", "apply", "--specs", path]).await.map(drop)
    }

    /// Applies stream-sum's specifications.
    pub async fn apply_stream_sum(&mut self) -> Result<(), BoxError> {
        let copies = self.options.copies;
        self.apply_journals("journals.yaml", &specs::stream_sum_journals(copies)?).await?;
        std::fs::write(self.path.join(SHARDS), specs::stream_sum_shards(copies)?)?;
        self.apply_shards().await
    }

    async fn apply_shards(&self) -> Result<(), BoxError> {
        let path = self.path.join(SHARDS);
        let path = path.to_str().ok_or("the directory's path is not UTF-8")?;
        let consumer = format!("--consumer.address={}", self.summer_url(0));
        self.courant(0, &["shards", "apply", &consumer, "--specs", path]).await.map(drop)
    }

    /// Applies all specifications of journals again that were applied before.
    pub async fn apply_journals_again(&self) -> Result<(), BoxError> {
        for path in &self.applied {
            self.apply_journals_of(path).await?;
        }
        Ok(())
    }

    /// Lets journals which have lost their replicas go on where their stored content ends.
    pub async fn reset_heads(&mut self, limit: Duration) -> Result<(), BoxError> {
        let deadline = self.clock.now() + limit;
        loop {
            // It fails for journals whose replicas are not assigned yet.
            match self.courant(0, &["journals", "reset-head", "-l", "name"]).await {
                Ok(_) => return Ok(()),
                Err(error) if self.clock.now() > deadline => return Err(error),
                Err(_) => self.let_pass(TICK).await?,
            }
        }
    }

    /// Starts `chunker run` with these further arguments. Each chunker knows another broker.
    pub fn start_chunker(&mut self, args: &[&str], quirk: &Quirk) -> Result<Process, BoxError> {
        let number = self.chunkers;
        self.chunkers += 1;
        let address = format!("--broker.address={}", self.broker_url(number % self.options.brokers));
        let all = ["run", &address, "--chunker.progress=plain"].into_iter().chain(args.iter().copied());
        let name = format!("chunker-{number}");
        let log = self.path.join(format!("{name}.log"));
        let mut launch = Launch::new(&name, binary("chunker"), all, &self.path).log(log);
        launch.envs.extend(self.user_envs().into_iter().chain(quirk.envs.iter().cloned()));
        Ok(Process::start(&launch, &self.tasks)?)
    }

    /// The state of every shard's replicas, as the first summer that answers sees them.
    pub async fn describe_shards(&self) -> String {
        match self.list_shards().await {
            Some(listing) => listing.shards.iter().map(describe_shard).collect::<Vec<_>>().join(", "),
            None => "no summer tells of shards".to_owned(),
        }
    }

    /// The members of a kind which are the primary of something, as far as anybody tells.
    pub async fn primaries(&self, kind: Kind) -> BTreeSet<String> {
        let routes: Vec<Option<Route>> = match kind {
            Kind::Etcd => Vec::new(),
            Kind::Broker => {
                let listing = self.list_journals().await.unwrap_or_default();
                listing.journals.into_iter().map(|journal| journal.route).collect()
            }
            Kind::Summer => {
                let listing = self.list_shards().await.unwrap_or_default();
                listing.shards.into_iter().map(|shard| shard.route).collect()
            }
        };
        let primary = |route: &Route| route.primary_id().map(|id| id.suffix.clone());
        routes.iter().flatten().filter_map(primary).collect()
    }

    async fn list_shards(&self) -> Option<proto::consumer::ListResponse> {
        for index in 0..self.options.summers {
            let options = self.caller().to_consumers(&self.tasks);
            let Ok(client) = ShardClient::new(&self.summer_url(index), options) else { continue };
            let listing = self.clock.timeout(LIST_LIMIT, client.list(ListRequest::default())).await;
            if let Ok(Ok(listing)) = listing {
                return Some(listing);
            }
        }
        None
    }

    async fn list_journals(&self) -> Option<proto::protocol::ListResponse> {
        for url in self.broker_urls() {
            let options = self.caller().to_brokers(&self.tasks);
            let Ok(client) = JournalClient::new(&url, options) else { continue };
            let listing = client.list(LabelSelector::everything());
            if let Ok(Ok(listing)) = self.clock.timeout(LIST_LIMIT, listing).await {
                return Some(listing);
            }
        }
        None
    }
}

fn describe_shard(shard: &list_response::Shard) -> String {
    let id = shard.spec.as_ref().map_or("?", |spec| spec.id.as_str());
    let replicas: Vec<&str> = shard.status.iter().map(|status| status.code().as_str_name()).collect();
    format!("{id} {}", replicas.join("+"))
}

impl Drop for Fleet {
    /// The directory of a test that fails is kept.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_dir();
            eprintln!("data and logs are kept in {}", self.path.display());
        }
        if self.options.disk_mib.is_some() {
            self.unmount_disks();
        }
    }
}
