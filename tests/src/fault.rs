//! The ways in which a fleet is hurt and goes on, and how it heals. (The loss of all of etcd's data is in `etcd_loss`.)
//!
//! A fault is *struck*, then lasts for a while, and then is *healed*: what was killed is started, what was stopped goes on,
//! what was cut is joined. Each fault says what the machine must offer for it, and by when traffic must flow again.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use runtime::BoxError;
use tokio::process::{Child, Command};

use crate::fleet::{Fleet, Kind, Quirk};
use crate::replacement::{renew_certificates, rotate_keys};
use crate::traffic::Traffic;

/// How far a clock goes ahead, as libfaketime takes it.
const AHEAD: &str = "+48h";
/// The same where there are tokens, which clocks may differ for by five seconds.
const AHEAD_OF_TOKENS: &str = "+4s";
/// Where Debian keeps libfaketime, below the directory of the machine's architecture.
const FAKETIME: &str = "faketime/libfaketime.so.1";
/// Delay of each write to a slow disk, in microseconds.
const SLOW_WRITE_US: u32 = 200_000;
/// System calls by which a broker writes spools.
const WRITES: &str = "pwrite64,pwritev,pwritev2,fdatasync,fsync";
/// Longest that an orderly exit may take.
const EXIT_LIMIT: Duration = Duration::from_secs(90);

/// Which packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// In both directions.
    Both,
    /// Those which the first of the two sends.
    Out,
    /// Those which the first of the two receives.
    In,
}

/// Who is cut off from whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    /// A broker from etcd.
    BrokerEtcd,
    /// A broker from all other brokers.
    BrokerBrokers,
    /// A summer from all brokers.
    SummerBrokers,
    /// A summer from etcd.
    SummerEtcd,
}

/// A way in which a fleet is hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL of two brokers.
    KillTwoBrokers,
    /// SIGKILL of a summer.
    KillSummer,
    /// SIGKILL of etcd, which comes back on its data.
    RestartEtcd,
    /// SIGKILL of all brokers at once, which come back on their data.
    KillAllBrokers,
    /// SIGKILL of a broker, which comes back without its data.
    LoseDisk,
    /// SIGSTOP of a broker past its lease, then SIGCONT.
    StopBroker,
    /// SIGSTOP of a summer past its lease, then SIGCONT.
    StopSummer,
    /// Packets are dropped.
    Cut(Link, Direction),
    /// A broker's disk has no space.
    FullDisk,
    /// A broker's writes take 200 ms.
    SlowDisk,
    /// A broker's clock is 48 hours ahead; in a secure fleet as far as tokens permit.
    BrokerAhead,
    /// A summer's clock is ahead.
    SummerAhead,
    /// The clock of one more chunker is ahead.
    ChunkerAhead,
    /// SIGTERM and restart of each broker in turn.
    RollBrokers,
    /// SIGTERM and restart of each summer in turn.
    RollSummers,
    /// The authority of all certificates is replaced.
    RenewCertificates,
    /// The keys of all access tokens are replaced.
    RotateKeys,
}

/// Whether traffic must flow again before the fault is healed, or only afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flows {
    /// Others take over while the fault lasts.
    WhileStruck,
    /// It waits for the heal.
    AfterHeal,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 28] = {
        use Direction::{Both, In, Out};
        use Link::{BrokerBrokers, BrokerEtcd, SummerBrokers, SummerEtcd};
        [
            Fault::KillTwoBrokers,
            Fault::KillSummer,
            Fault::RestartEtcd,
            Fault::KillAllBrokers,
            Fault::LoseDisk,
            Fault::StopBroker,
            Fault::StopSummer,
            Fault::Cut(BrokerEtcd, Both),
            Fault::Cut(BrokerEtcd, Out),
            Fault::Cut(BrokerEtcd, In),
            Fault::Cut(BrokerBrokers, Both),
            Fault::Cut(BrokerBrokers, Out),
            Fault::Cut(BrokerBrokers, In),
            Fault::Cut(SummerBrokers, Both),
            Fault::Cut(SummerBrokers, Out),
            Fault::Cut(SummerBrokers, In),
            Fault::Cut(SummerEtcd, Both),
            Fault::Cut(SummerEtcd, Out),
            Fault::Cut(SummerEtcd, In),
            Fault::FullDisk,
            Fault::SlowDisk,
            Fault::BrokerAhead,
            Fault::SummerAhead,
            Fault::ChunkerAhead,
            Fault::RollBrokers,
            Fault::RollSummers,
            Fault::RenewCertificates,
            Fault::RotateKeys,
        ]
    };

    /// Whether this machine and fleet offer what the fault needs.
    pub fn is_possible(self, fleet: &Fleet) -> bool {
        match self {
            Fault::Cut(..) => fleet.can_partition(),
            Fault::FullDisk => fleet.options().disk_mib.is_some(),
            Fault::SlowDisk => has_strace(),
            Fault::BrokerAhead | Fault::SummerAhead | Fault::ChunkerAhead => faketime().is_some(),
            Fault::RenewCertificates | Fault::RotateKeys => fleet.options().is_secure,
            _ => true,
        }
    }

    /// When traffic must flow again.
    pub fn flows(self) -> Flows {
        match self {
            Fault::KillSummer | Fault::StopBroker | Fault::StopSummer => Flows::WhileStruck,
            _ => Flows::AfterHeal,
        }
    }

    /// How long it lasts. `partition` is how long a cut does.
    pub fn lasts(self, lease: Duration, partition: Duration, rng: &mut StdRng) -> Duration {
        let seconds =
            |range: std::ops::Range<u64>, rng: &mut StdRng| Duration::from_millis(rng.random_range(range));
        match self {
            Fault::KillTwoBrokers | Fault::KillAllBrokers => {
                seconds(0..lease.as_millis() as u64 * 3 / 2, rng)
            }
            Fault::RestartEtcd => seconds(500..5_000, rng),
            Fault::StopBroker | Fault::StopSummer => lease * 2,
            Fault::Cut(..) => partition,
            Fault::FullDisk | Fault::SlowDisk => Duration::from_secs(15),
            Fault::BrokerAhead | Fault::SummerAhead | Fault::ChunkerAhead => Duration::from_secs(10),
            Fault::KillSummer
            | Fault::LoseDisk
            | Fault::RollBrokers
            | Fault::RollSummers
            | Fault::RenewCertificates
            | Fault::RotateKeys => Duration::ZERO,
        }
    }

    /// Strikes. `limit` is the longest that traffic may take to flow again between the parts of a fault which has some.
    pub async fn strike(
        self,
        fleet: &mut Fleet,
        traffic: &mut Traffic,
        limit: Duration,
        rng: &mut StdRng,
    ) -> Result<Struck, BoxError> {
        let brokers = targets(fleet, Kind::Broker, rng).await;
        let summers = targets(fleet, Kind::Summer, rng).await;
        let mut struck = Struck { fault: self, targets: Vec::new(), tracer: None };
        match self {
            Fault::KillTwoBrokers => struck.kill(fleet, &brokers[..2]).await?,
            Fault::KillAllBrokers => struck.kill(fleet, &brokers).await?,
            Fault::KillSummer => struck.kill(fleet, &summers[..1]).await?,
            Fault::RestartEtcd => struck.kill(fleet, &fleet.names(Kind::Etcd)).await?,
            Fault::LoseDisk => {
                struck.kill(fleet, &brokers[..1]).await?;
                fleet.wipe(&brokers[0]);
            }
            Fault::StopBroker => struck.stop(fleet, &brokers[0])?,
            Fault::StopSummer => struck.stop(fleet, &summers[0])?,
            Fault::Cut(link, direction) => struck.cut(fleet, link, direction, &brokers, &summers).await?,
            Fault::FullDisk => struck.fill_disk(fleet, &brokers[0])?,
            Fault::SlowDisk => struck.slow_disk(fleet, &brokers[0])?,
            Fault::BrokerAhead => struck.restart_ahead(fleet, &brokers[..1]).await?,
            Fault::SummerAhead => struck.restart_ahead(fleet, &summers[..1]).await?,
            Fault::ChunkerAhead => traffic.add_chunker(fleet, &ahead(fleet)?)?,
            Fault::RollBrokers => roll(fleet, traffic, limit, &brokers).await?,
            Fault::RollSummers => roll(fleet, traffic, limit, &summers).await?,
            Fault::RenewCertificates => {
                renew_certificates(fleet, traffic, limit, &brokers, &summers).await?;
            }
            Fault::RotateKeys => rotate_keys(fleet, traffic, limit, &[brokers, summers].concat()).await?,
        }
        Ok(struck)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Fault::KillTwoBrokers => "kill-two-brokers",
            Fault::KillSummer => "kill-summer",
            Fault::RestartEtcd => "restart-etcd",
            Fault::KillAllBrokers => "kill-all-brokers",
            Fault::LoseDisk => "lose-disk",
            Fault::StopBroker => "stop-broker",
            Fault::StopSummer => "stop-summer",
            Fault::FullDisk => "full-disk",
            Fault::SlowDisk => "slow-disk",
            Fault::BrokerAhead => "broker-ahead",
            Fault::SummerAhead => "summer-ahead",
            Fault::ChunkerAhead => "chunker-ahead",
            Fault::RollBrokers => "roll-brokers",
            Fault::RollSummers => "roll-summers",
            Fault::RenewCertificates => "renew-certificates",
            Fault::RotateKeys => "rotate-keys",
            Fault::Cut(link, direction) => {
                let link = match link {
                    Link::BrokerEtcd => "broker-etcd",
                    Link::BrokerBrokers => "broker-brokers",
                    Link::SummerBrokers => "summer-brokers",
                    Link::SummerEtcd => "summer-etcd",
                };
                let direction = match direction {
                    Direction::Both => "",
                    Direction::Out => "-out",
                    Direction::In => "-in",
                };
                return write!(f, "cut-{link}{direction}");
            }
        };
        f.write_str(text)
    }
}

/// A fault which has been struck and must be healed.
#[must_use]
pub struct Struck {
    fault: Fault,
    /// Processes which are down, stopped, or not as they should be.
    targets: Vec<String>,
    tracer: Option<Child>,
}

impl Struck {
    /// Whom it strikes.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    async fn kill(&mut self, fleet: &mut Fleet, names: &[String]) -> Result<(), BoxError> {
        self.targets = names.to_vec();
        fleet.kill(names).await
    }

    fn stop(&mut self, fleet: &Fleet, name: &str) -> Result<(), BoxError> {
        self.targets = vec![name.to_owned()];
        fleet.signal(name, libc::SIGSTOP)
    }

    async fn cut(
        &mut self,
        fleet: &Fleet,
        link: Link,
        direction: Direction,
        brokers: &[String],
        summers: &[String],
    ) -> Result<(), BoxError> {
        let etcd = fleet.names(Kind::Etcd);
        let (one, others) = match link {
            Link::BrokerEtcd => (&brokers[0], &etcd[..]),
            Link::BrokerBrokers => (&brokers[0], &brokers[1..]),
            Link::SummerBrokers => (&summers[0], brokers),
            Link::SummerEtcd => (&summers[0], &etcd[..]),
        };
        self.targets = vec![one.clone()];
        for other in others {
            if direction != Direction::In {
                fleet.cut(one, other).await?;
            }
            if direction != Direction::Out {
                fleet.cut(other, one).await?;
            }
        }
        Ok(())
    }

    /// Takes all space that the broker's disk has left.
    fn fill_disk(&mut self, fleet: &Fleet, name: &str) -> Result<(), BoxError> {
        self.targets = vec![name.to_owned()];
        let mut file = std::fs::File::create(filler(fleet, name))?;
        // Whole pages at first, then what is left of the last one.
        for chunk in [&[0; 65536][..], &[0]] {
            loop {
                match file.write_all(chunk) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    fn slow_disk(&mut self, fleet: &Fleet, name: &str) -> Result<(), BoxError> {
        self.targets = vec![name.to_owned()];
        let pid = fleet.pid(name).ok_or("a broker that runs has a process")?.to_string();
        let (trace, inject) =
            (format!("trace={WRITES}"), format!("inject={WRITES}:delay_enter={SLOW_WRITE_US}"));
        let args = ["-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject, "-p", &pid];
        self.tracer = Some(Command::new("strace").args(args).kill_on_drop(true).spawn()?);
        Ok(())
    }

    async fn restart_ahead(&mut self, fleet: &mut Fleet, names: &[String]) -> Result<(), BoxError> {
        self.kill(fleet, names).await?;
        fleet.start_with(names, &ahead(fleet)?).await
    }

    /// Heals: processes run as they should, reach each other, and have specifications.
    pub async fn heal(mut self, fleet: &mut Fleet) -> Result<(), BoxError> {
        match self.fault {
            Fault::KillTwoBrokers
            | Fault::KillAllBrokers
            | Fault::KillSummer
            | Fault::RestartEtcd
            | Fault::LoseDisk => fleet.start_members(&self.targets).await,
            Fault::StopBroker | Fault::StopSummer => fleet.signal(&self.targets[0], libc::SIGCONT),
            Fault::Cut(..) => {
                fleet.heal_network().await?;
                fleet.wait_ready(&self.targets, EXIT_LIMIT).await
            }
            Fault::FullDisk => Ok(std::fs::remove_file(filler(fleet, &self.targets[0]))?),
            Fault::SlowDisk => end_tracer(self.tracer.take()).await,
            Fault::BrokerAhead | Fault::SummerAhead => {
                fleet.kill(&self.targets).await?;
                fleet.start_members(&self.targets).await
            }
            Fault::ChunkerAhead
            | Fault::RollBrokers
            | Fault::RollSummers
            | Fault::RenewCertificates
            | Fault::RotateKeys => Ok(()),
        }
    }
}

fn filler(fleet: &Fleet, name: &str) -> std::path::PathBuf {
    fleet.data_dir(name).join("filler")
}

/// Lets the tracer go in order: a tracer that is killed may leave threads of the broker stopped.
async fn end_tracer(tracer: Option<Child>) -> Result<(), BoxError> {
    let Some(mut tracer) = tracer else { return Ok(()) };
    let pid = tracer.id().and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    if let Some(pid) = pid {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    tracer.wait().await?;
    Ok(())
}

/// SIGTERM and restart of each member in turn, with traffic flowing before the next.
pub(crate) async fn roll(
    fleet: &mut Fleet,
    traffic: &mut Traffic,
    limit: Duration,
    names: &[String],
) -> Result<(), BoxError> {
    for name in names {
        fleet.terminate(name, EXIT_LIMIT).await?;
        fleet.start_members(std::slice::from_ref(name)).await?;
        traffic.recovered(fleet, limit).await.map_err(|err| format!("after {name} was rolled: {err}"))?;
    }
    Ok(())
}

/// Members in the order in which they are struck: those which are the primary of something come first.
async fn targets(fleet: &Fleet, kind: Kind, rng: &mut StdRng) -> Vec<String> {
    let mut names = fleet.names(kind);
    names.shuffle(rng);
    let primaries = fleet.primaries(kind).await;
    names.sort_by_key(|name| !primaries.contains(name));
    names
}

fn has_strace() -> bool {
    std::process::Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success())
}

/// The library which shows another time to a program.
fn faketime() -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir("/usr/lib").ok()?.flatten();
    entries.map(|entry| entry.path().join(FAKETIME)).find(|path| path.exists())
}

/// A program whose clock is ahead.
fn ahead(fleet: &Fleet) -> Result<Quirk, BoxError> {
    let offset = if fleet.options().is_secure { AHEAD_OF_TOKENS } else { AHEAD };
    let library = faketime().ok_or("libfaketime is not installed")?;
    let preload = ("LD_PRELOAD".to_owned(), library.display().to_string());
    Ok(Quirk { wrapper: Vec::new(), envs: vec![preload, ("FAKETIME".to_owned(), offset.to_owned())] })
}
