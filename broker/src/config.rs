//! The command line of `courant serve` (journal protocol §15.2), and what it means.
//!
//! Without `--etcd.address` the broker is a convenience for one machine: it embeds etcd, listens on loopback and port
//! 8080, and stores fragments below its data directory. With it, defaults are those of a Gazette broker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auth::Keys;
use clap::builder::RangedU64ValueParser;
use fragment::compress::Levels;
use fragment::index::OFFSET_JUMP_AGE_SECONDS;
use keyspace::KeyPrefix;
use proto::{BROKER_JOURNAL_LIMIT_MAX, Invalid};
use runtime::config::{
    ANY_HOST, ConfigError, DebugArgs, EtcdArgs, LOOPBACK, LogArgs, Secret, WATCH_DELAY_MAX, bind_address,
    duration_within, given, listen, parse_duration,
};
use runtime::tls::{ClientTlsFiles, ServerTlsFiles};
use runtime::{Clock, Entropy, Metrics, grpc};
use stores::{Environment, StoreTimes};

use crate::append::{OUTAGE_FREE_BYTES_MIN, OUTAGE_GRACE};
use crate::key_space::DEFAULT_PREFIX;
use crate::spool::{Durability, OsDisk, SpoolDisk};

/// Where a broker that embeds etcd listens.
const EMBEDDED_PORT: &str = "8080";
/// Lease of a broker that embeds etcd. Nobody outlives it who could take its journals over, so that a stopped and
/// resumed process need not lose them; the process that follows it evicts it at once.
const EMBEDDED_LEASE: Duration = Duration::from_secs(3600);
/// Least size of messages which are received, bytes: 1 MiB of content from another broker or a client, and room beside it.
const MESSAGE_RECV_MIN: u64 = 2 << 20;

runtime::server_tls_args!("broker", "BROKER");

/// Options of `courant serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// The broker itself.
    #[command(flatten)]
    pub broker: BrokerConfig,
    /// etcd.
    #[command(flatten)]
    pub etcd: EtcdArgs,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
    /// Diagnostics.
    #[command(flatten)]
    pub debug: DebugArgs,
}

/// Options of the broker itself.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerConfig {
    /// Availability zone of this process.
    #[arg(
        id = "broker.zone",
        long = "broker.zone",
        value_name = "ZONE",
        env = "BROKER_ZONE",
        default_value = "local"
    )]
    pub zone: String,
    /// Id of this process, unique in its zone. Without it the data directory remembers one.
    #[arg(id = "broker.id", long = "broker.id", value_name = "ID", env = "BROKER_ID")]
    pub id: Option<String>,
    /// Host under which others reach this process. [default: 127.0.0.1, which is then all that is listened on;
    /// with --etcd.address: the host name]
    #[arg(id = "broker.host", long = "broker.host", value_name = "HOST", env = "BROKER_HOST")]
    pub host: Option<String>,
    /// Port to listen on, or unix:///path. [default: 8080; with --etcd.address: a free port]
    #[arg(id = "broker.port", long = "broker.port", value_name = "PORT", env = "BROKER_PORT")]
    pub port: Option<String>,
    /// Where spools, the embedded etcd and its fragments are kept. One process at a time may use it.
    #[arg(
        id = "broker.data-dir",
        long = "broker.data-dir",
        env = "BROKER_DATA_DIR",
        value_name = "DIR",
        default_value = "./courant-data"
    )]
    pub data_dir: PathBuf,
    /// What an acknowledged append survives: the death of every process, or a loss of power.
    #[arg(
        id = "broker.durability",
        long = "broker.durability",
        env = "BROKER_DURABILITY",
        value_enum,
        default_value = "process"
    )]
    pub durability: DurabilityArg,
    /// Longest time to wait at exit for other brokers to take over.
    #[arg(id = "broker.drain-timeout", long = "broker.drain-timeout", env = "BROKER_DRAIN_TIMEOUT",
        value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub drain_timeout: Duration,
    /// Most journals of which this broker is a replica, at most 131072.
    #[arg(
        id = "broker.limit",
        long = "broker.limit",
        value_name = "COUNT",
        env = "BROKER_LIMIT",
        default_value_t = 1024,
        value_parser = clap::value_parser!(u32).range(..=i64::from(BROKER_JOURNAL_LIMIT_MAX))
    )]
    pub limit: u32,
    /// Directory that file:// stores are relative to; it must exist. [default: fragments/ in the data directory;
    /// with --etcd.address: none]
    #[arg(id = "broker.file-root", long = "broker.file-root", env = "BROKER_FILE_ROOT", value_name = "DIR",
        value_parser = runtime::config::path())]
    pub file_root: Option<PathBuf>,
    /// Use the file root in place of every other kind of store.
    #[arg(id = "broker.file-only", long = "broker.file-only", env = "BROKER_FILE_ONLY")]
    pub file_only: bool,
    /// How old the stored fragment after missing content must be for reads to pass over what is missing.
    #[arg(id = "broker.hole-age", long = "broker.hole-age", env = "BROKER_HOLE_AGE",
        value_name = "DURATION", default_value = "6h", value_parser = parse_duration)]
    pub hole_age: Duration,
    /// How hard GZIP fragments are compressed, from 0 (not at all) to 9. [default: 6]
    #[arg(id = "broker.gzip-level", long = "broker.gzip-level", env = "BROKER_GZIP_LEVEL",
        value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(0..=9))]
    pub gzip_level: Option<u32>,
    /// How hard ZSTANDARD fragments are compressed, from 1 to 22. [default: 3]
    #[arg(id = "broker.zstd-level", long = "broker.zstd-level", env = "BROKER_ZSTD_LEVEL",
        value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=22))]
    pub zstd_level: Option<u32>,
    /// Most bytes per second that a journal takes in, whatever its specification says. Zero is no limit.
    #[arg(
        id = "broker.max-append-rate",
        long = "broker.max-append-rate",
        value_name = "BYTES",
        env = "BROKER_MAX_APPEND_RATE",
        default_value_t = 0
    )]
    pub max_append_rate: u32,
    /// Least bytes per second that a client must sustain while it appends.
    #[arg(
        id = "broker.min-append-rate",
        long = "broker.min-append-rate",
        value_name = "BYTES",
        env = "BROKER_MIN_APPEND_RATE",
        default_value_t = 65536
    )]
    pub min_append_rate: u32,
    /// Upper bound of every journal's replication.
    #[arg(
        id = "broker.max-replication",
        long = "broker.max-replication",
        value_name = "COUNT",
        env = "BROKER_MAX_REPLICATION",
        default_value_t = 9,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_replication: u32,
    /// How long changes of etcd are gathered before they are acted upon.
    #[arg(id = "broker.watch-delay", long = "broker.watch-delay", env = "BROKER_WATCH_DELAY",
        value_name = "DURATION", default_value = "30ms", value_parser = duration_within(..=WATCH_DELAY_MAX))]
    pub watch_delay: Duration,
    /// Suspend journals that nobody has appended to for a quarter of an hour and whose content is stored.
    #[arg(id = "broker.auto-suspend", long = "broker.auto-suspend", env = "BROKER_AUTO_SUSPEND")]
    pub auto_suspend: bool,
    /// How long appends go on while their journal's first store is unhealthy. Their content stays on the brokers' disks
    /// until the store takes it. With zero they are refused once a few checks have failed.
    #[arg(id = "broker.store-unhealthy-grace", long = "broker.store-unhealthy-grace",
        env = "BROKER_STORE_UNHEALTHY_GRACE", value_name = "DURATION", default_value = "6h",
        value_parser = parse_duration)]
    pub store_unhealthy_grace: Duration,
    /// Bytes that must be free on the disk of the data directory for that; below them appends are refused.
    #[arg(
        id = "broker.store-unhealthy-min-free",
        long = "broker.store-unhealthy-min-free",
        env = "BROKER_STORE_UNHEALTHY_MIN_FREE",
        value_name = "BYTES",
        default_value_t = OUTAGE_FREE_BYTES_MIN
    )]
    pub store_unhealthy_min_free: u64,
    /// Delete stored fragments that are older than their journal's retention.
    #[arg(
        id = "broker.enforce-retention",
        long = "broker.enforce-retention",
        env = "BROKER_ENFORCE_RETENTION"
    )]
    pub enforce_retention: bool,
    /// Largest gRPC message that is received, bytes. At least 2097152, as other brokers send large ones.
    #[arg(id = "broker.max-grpc-recv-size", long = "broker.max-grpc-recv-size", value_name = "BYTES",
        env = "BROKER_MAX_GRPC_RECV_SIZE", default_value_t = grpc::MAX_MESSAGE_RECV_SERVER,
        value_parser = RangedU64ValueParser::<usize>::new().range(MESSAGE_RECV_MIN..))]
    pub max_grpc_recv_size: usize,
    /// Origin whose pages may call the JSON gateway from a browser, as https://host:port. May be given several times.
    #[arg(
        id = "broker.allow-origin",
        long = "broker.allow-origin",
        env = "BROKER_ALLOW_ORIGIN",
        value_name = "ORIGIN"
    )]
    pub allow_origin: Vec<String>,
    /// Keys of access tokens in base64, separated by commas or white space. Every request then needs a token that one of
    /// them signed; the first signs what this broker asks others. AA== among them accepts requests without a token, too.
    #[arg(
        id = "broker.auth-keys",
        long = "broker.auth-keys",
        env = "BROKER_AUTH_KEYS",
        value_name = "KEYS",
        hide_env_values = true
    )]
    pub auth_keys: Option<Secret>,
    /// TLS of the port.
    #[command(flatten)]
    pub server_tls: ServerTlsArgs,
    /// TLS towards other brokers.
    #[command(flatten)]
    pub peer_tls: PeerTlsArgs,
}

/// The value of `--broker.durability`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DurabilityArg {
    /// Survives the death of every process.
    Process,
    /// Survives a loss of power.
    Disk,
}

impl From<DurabilityArg> for Durability {
    fn from(arg: DurabilityArg) -> Durability {
        match arg {
            DurabilityArg::Process => Durability::Process,
            DurabilityArg::Disk => Durability::Disk,
        }
    }
}

/// Where a broker coordinates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdChoice {
    /// In this process, persisted in the data directory.
    Embedded,
    /// At this address.
    Address(String),
}

/// Everything that a [`crate::Broker`] is started with.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Failure zone.
    pub zone: String,
    /// Member suffix; without it the data directory remembers one.
    pub id: Option<String>,
    /// Address to listen on: `host:port`, or `unix:///path`.
    pub bind: String,
    /// Host under which others reach the listener.
    pub host: String,
    /// TLS of the listener, if it has any.
    pub server_tls: Option<ServerTlsFiles>,
    /// TLS towards other brokers whose endpoints are of `https`, and towards an embedded etcd on the own listener.
    pub peer_tls: ClientTlsFiles,
    /// TLS towards an etcd at an address of `https`.
    pub etcd_tls: ClientTlsFiles,
    /// Directory of spools and of the embedded etcd.
    pub data_dir: PathBuf,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Where to coordinate.
    pub etcd: EtcdChoice,
    /// Prefix of keys.
    pub prefix: KeyPrefix,
    /// Time to live of the broker's lease.
    pub lease_ttl: Duration,
    /// How long changes of etcd are gathered.
    pub watch_delay: Duration,
    /// Most journals to be assigned.
    pub journal_limit: u32,
    /// Upper bound of every journal's replication.
    pub max_replication: u32,
    /// Most bytes per second of a journal; zero is no limit.
    pub max_append_rate: u32,
    /// Least bytes per second of a client.
    pub min_append_rate: u32,
    /// Suspend journals that are idle and stored.
    pub auto_suspend: bool,
    /// How long appends go on while their journal's first store is unhealthy.
    pub store_unhealthy_grace: Duration,
    /// Bytes that must be free in the data directory for that.
    pub store_unhealthy_min_free: u64,
    /// Delete stored fragments that are older than their journal's retention.
    pub enforce_retention: bool,
    /// How often things are done that take their time.
    pub paces: Paces,
    /// How long stores are waited for.
    pub store_times: StoreTimes,
    /// Credentials of stores.
    pub environment: Environment,
    /// Directory of `file://` stores.
    pub file_root: Option<PathBuf>,
    /// Whether every store is a `file://` one.
    pub file_only: bool,
    /// Age of the stored fragment after missing content from which on reads pass over what is missing.
    pub hole_age: Duration,
    /// How hard fragments are compressed.
    pub levels: Levels,
    /// Largest message received, bytes.
    pub max_message_bytes: usize,
    /// Origins whose pages may call the JSON gateway.
    pub allow_origin: Vec<String>,
    /// Keys of access tokens; without them, nothing is checked.
    pub auth_keys: Option<Keys>,
    /// Longest wait for others to take over at exit.
    pub drain_timeout: Duration,
    /// Address of an extra listener for diagnostics.
    pub debug_bind: Option<String>,
    /// Keep metrics off the main port.
    pub debug_private: bool,
    /// Time.
    pub clock: Clock,
    /// Randomness.
    pub entropy: Entropy,
    /// Metrics.
    pub metrics: Metrics,
    /// The file system of spools.
    pub disk: Arc<dyn SpoolDisk>,
}

/// Times of a broker that no option sets: those of a Gazette broker where it has them. Tests shorten them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paces {
    /// Between two pulses of a journal.
    pub pulse: Duration,
    /// For the primary to store a fragment before other replicas look whether it has.
    pub replica_upload: Duration,
    /// Between two looks for fragments to delete.
    pub retention: Duration,
}

impl Default for Paces {
    fn default() -> Paces {
        let minute = Duration::from_secs(60);
        Paces { pulse: minute, replica_upload: minute, retention: 10 * minute }
    }
}

/// The options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// One has a value that cannot be honoured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The prefix is malformed.
    #[error("--etcd.prefix: {0}")]
    Prefix(Invalid),
    /// The host name of this machine is unknown.
    #[error("cannot find the host name of this machine: {0}; give --broker.host")]
    HostName(std::io::Error),
}

impl BrokerOptions {
    /// A broker on a free loopback port, with embedded etcd, for use within a process.
    pub fn embedded(data_dir: PathBuf) -> BrokerOptions {
        BrokerOptions {
            zone: "local".to_owned(),
            id: None,
            bind: format!("{LOOPBACK}:0"),
            host: LOOPBACK.to_owned(),
            server_tls: None,
            peer_tls: ClientTlsFiles::default(),
            etcd_tls: ClientTlsFiles::default(),
            data_dir,
            durability: Durability::Process,
            etcd: EtcdChoice::Embedded,
            prefix: KeyPrefix::parse(DEFAULT_PREFIX).expect("the default prefix is a clean path"),
            lease_ttl: EMBEDDED_LEASE,
            watch_delay: Duration::from_millis(1),
            journal_limit: 1024,
            max_replication: 9,
            max_append_rate: 0,
            min_append_rate: 65536,
            auto_suspend: false,
            store_unhealthy_grace: OUTAGE_GRACE,
            store_unhealthy_min_free: OUTAGE_FREE_BYTES_MIN,
            enforce_retention: false,
            paces: Paces::default(),
            store_times: StoreTimes::default(),
            environment: Environment::of_process(),
            file_root: None,
            file_only: false,
            hole_age: Duration::from_secs(OFFSET_JUMP_AGE_SECONDS.unsigned_abs()),
            levels: Levels::default(),
            max_message_bytes: grpc::MAX_MESSAGE_RECV_SERVER,
            allow_origin: Vec::new(),
            auth_keys: None,
            drain_timeout: Duration::from_secs(60),
            debug_bind: None,
            debug_private: false,
            clock: Clock::system(),
            entropy: Entropy::system(),
            metrics: Metrics::new(),
            disk: Arc::new(OsDisk),
        }
    }

    /// What the command line means.
    ///
    /// # Errors
    /// If an option has a value that cannot be honoured.
    pub fn from_args(args: ServeArgs) -> Result<BrokerOptions, OptionsError> {
        let ServeArgs { broker, etcd, log: _, debug } = args;
        let server_tls = broker.server_tls.options().server()?;
        // As in Gazette, those of peers are for a broker which has TLS itself.
        let peer_tls = broker.peer_tls.options().client()?;
        let peer_tls = if server_tls.is_some() { peer_tls } else { ClientTlsFiles::default() };
        let auth_keys = parse_keys(broker.auth_keys.as_ref())?;
        let choice = etcd.address().map_or(EtcdChoice::Embedded, |a| EtcdChoice::Address(a.to_owned()));
        let is_embedded = choice == EtcdChoice::Embedded;
        let port = given(broker.port);
        let port = port.as_deref().unwrap_or(if is_embedded { EMBEDDED_PORT } else { "0" });
        let (bind, host) = listen(is_embedded, given(broker.host), port).map_err(OptionsError::HostName)?;
        if is_embedded && auth_keys.is_some() && bind.starts_with(ANY_HOST) {
            let problem = "the embedded etcd knows no tokens, and would be open to whoever reaches this host; \
                           give --etcd.address, or leave out --broker.host";
            return Err(
                ConfigError::Invalid { option: "broker.auth-keys", problem: problem.to_owned() }.into()
            );
        }
        let prefix = given(etcd.prefix).unwrap_or_else(|| DEFAULT_PREFIX.to_owned());
        let debug_bind = given(debug.port).map(|port| bind_address(is_embedded, &port));
        Ok(BrokerOptions {
            zone: broker.zone,
            id: given(broker.id),
            bind,
            host,
            server_tls,
            peer_tls,
            etcd_tls: etcd.tls.options().client()?,
            data_dir: broker.data_dir,
            durability: broker.durability.into(),
            etcd: choice,
            prefix: KeyPrefix::parse(&prefix).map_err(OptionsError::Prefix)?,
            lease_ttl: if is_embedded { etcd.lease.max(EMBEDDED_LEASE) } else { etcd.lease },
            watch_delay: broker.watch_delay,
            journal_limit: broker.limit,
            max_replication: broker.max_replication,
            max_append_rate: broker.max_append_rate,
            min_append_rate: broker.min_append_rate,
            auto_suspend: broker.auto_suspend,
            store_unhealthy_grace: broker.store_unhealthy_grace,
            store_unhealthy_min_free: broker.store_unhealthy_min_free,
            enforce_retention: broker.enforce_retention,
            paces: Paces::default(),
            store_times: StoreTimes::default(),
            environment: Environment::of_process(),
            file_root: broker.file_root.filter(|root| !root.as_os_str().is_empty()),
            file_only: broker.file_only,
            hole_age: broker.hole_age,
            levels: Levels { gzip: broker.gzip_level, zstandard: broker.zstd_level },
            max_message_bytes: broker.max_grpc_recv_size,
            allow_origin: broker.allow_origin.into_iter().filter(|origin| !origin.is_empty()).collect(),
            auth_keys,
            drain_timeout: broker.drain_timeout,
            debug_bind,
            debug_private: debug.private,
            clock: Clock::system(),
            entropy: Entropy::system(),
            metrics: Metrics::with_process(),
            disk: Arc::new(OsDisk),
        })
    }
}

fn parse_keys(keys: Option<&Secret>) -> Result<Option<Keys>, ConfigError> {
    let parsed = keys.and_then(Secret::reveal).map(Keys::parse).transpose();
    parsed.map_err(|error| ConfigError::Invalid { option: "broker.auth-keys", problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn options(args: &[&str]) -> Result<BrokerOptions, String> {
        let args = std::iter::once("program").chain(args.iter().copied());
        let program = Program::try_parse_from(args).map_err(|e| e.to_string())?;
        BrokerOptions::from_args(program.args).map_err(|e| e.to_string())
    }

    #[test]
    fn without_etcd_the_broker_is_for_one_machine() {
        let got = options(&[]).unwrap();
        assert_eq!((got.bind.as_str(), got.host.as_str()), ("127.0.0.1:8080", "127.0.0.1"));
        assert_eq!((got.etcd, got.data_dir), (EtcdChoice::Embedded, PathBuf::from("./courant-data")));
        assert_eq!((got.zone.as_str(), got.id, got.journal_limit), ("local", None, 1024));
        assert_eq!((got.durability, got.prefix.as_str()), (Durability::Process, "/gazette/cluster"));
        assert_eq!((got.store_unhealthy_grace, got.store_unhealthy_min_free), (OUTAGE_GRACE, 1 << 30));
        assert!(!got.auto_suspend && !got.enforce_retention, "Gazette's brokers suspend and delete nothing");
        let lease = options(&["--etcd.lease=30s"]).unwrap().lease_ttl;
        assert_eq!(lease, EMBEDDED_LEASE);
    }

    #[test]
    fn with_etcd_defaults_are_those_of_a_cluster() {
        let got = options(&["--etcd.address=http://etcd:2379", "--debug.port=9"]).unwrap();
        assert_eq!((got.bind.as_str(), got.host), ("0.0.0.0:0", listen(false, None, "0").unwrap().1));
        assert_eq!(got.etcd, EtcdChoice::Address("http://etcd:2379".to_owned()));
        assert_eq!((got.lease_ttl, got.debug_bind.as_deref()), (Duration::from_secs(20), Some("0.0.0.0:9")));
    }

    #[test]
    fn a_host_opens_the_broker_to_others() {
        for (args, bind, host) in [
            (&["--broker.host=db.lan"][..], "0.0.0.0:8080", "db.lan"),
            (&["--broker.host=localhost", "--broker.port=0"], "127.0.0.1:0", "localhost"),
            (&["--broker.port=unix:///run/b.sock"], "unix:///run/b.sock", "127.0.0.1"),
            (&["--broker.port=9000"], "127.0.0.1:9000", "127.0.0.1"),
        ] {
            let got = options(args).unwrap();
            assert_eq!((got.bind.as_str(), got.host.as_str()), (bind, host));
        }
    }

    #[test]
    fn peers_have_tls_where_the_broker_has_it() {
        let peer = ["--broker.peer-ca-file=ca", "--etcd.trusted-ca-file=etcd-ca"];
        let server = ["--broker.server-cert-file=c", "--broker.server-cert-key-file=k"];
        let plain = options(&peer).unwrap();
        assert_eq!((plain.server_tls, plain.peer_tls), (None, ClientTlsFiles::default()));
        assert_eq!(plain.etcd_tls.ca, Some("etcd-ca".into()));
        let got = options(&[&peer[..], &server].concat()).unwrap();
        assert_eq!(got.peer_tls, ClientTlsFiles { identity: None, ca: Some("ca".into()) });
        let files = got.server_tls.unwrap();
        assert_eq!((files.identity.cert, files.client_ca), (PathBuf::from("c"), None));
    }

    #[test]
    fn values_that_cannot_be_honoured_are_refused() {
        for (arg, expected) in [
            (
                "--broker.auth-keys=Zm9v,secret",
                "--broker.auth-keys: key 2 is not standard base64 (with padding)",
            ),
            (
                "--broker.server-cert-file=x",
                "--broker.server-cert-key-file: is missing; expected a file beside --broker.server-cert-file",
            ),
            (
                "--broker.server-ca-file=x",
                "--broker.server-cert-file: is missing; expected a file beside --broker.server-ca-file",
            ),
            (
                "--broker.peer-cert-key-file=x",
                "--broker.peer-cert-file: is missing; expected a file beside --broker.peer-cert-key-file",
            ),
            (
                "--etcd.cert-file=x",
                "--etcd.cert-key-file: is missing; expected a file beside --etcd.cert-file",
            ),
        ] {
            assert_eq!(options(&[arg]).unwrap_err(), expected);
        }
        assert!(options(&["--etcd.prefix=a//b"]).unwrap_err().starts_with("--etcd.prefix: "));
        assert!(options(&["--broker.durability=tape"]).is_err());
        assert!(options(&["--broker.gzip-level=10"]).unwrap_err().contains("0..=9"));
        assert!(options(&["--broker.zstd-level=0"]).unwrap_err().contains("1..=22"));
        let levels = options(&["--broker.gzip-level=0", "--broker.zstd-level=19"]).unwrap().levels;
        assert_eq!(levels, Levels { gzip: Some(0), zstandard: Some(19) });
        assert!(options(&["--broker.watch-delay=30"]).unwrap_err().contains("30"));
    }

    #[test]
    fn keys_are_taken_and_not_shown() {
        assert!(options(&["--broker.auth-keys="]).unwrap().auth_keys.is_none());
        let open = options(&["--broker.auth-keys=Zm9v", "--broker.host=db.lan"]).unwrap_err();
        assert!(open.starts_with("--broker.auth-keys: the embedded etcd knows no tokens"), "{open}");
        options(&["--broker.auth-keys=Zm9v", "--broker.host=db.lan", "--etcd.address=http://etcd:2379"])
            .unwrap();
        let got = options(&["--broker.auth-keys=AA== Zm9v"]).unwrap();
        assert!(got.auth_keys.as_ref().unwrap().allow_missing());
        assert!(!format!("{got:?}").contains("Zm9v"));
        let args = Program::try_parse_from(["program", "--broker.auth-keys=Zm9v"]).unwrap();
        assert!(!format!("{args:?}").contains("Zm9v"));
    }

    #[test]
    fn numbers_out_of_bounds_are_told_of_them() {
        for (arg, bounds) in [
            ("--broker.limit=4294967295", "4294967295 is not in 0..=131072"),
            ("--broker.limit=-1", "-1 is not in 0..=131072"),
            ("--broker.max-replication=0", "0 is not in 1.."),
            ("--broker.watch-delay=2562047h", "is not 24h0m0s or less"),
            ("--broker.max-grpc-recv-size=0", "0 is not in 2097152.."),
            ("--broker.max-append-rate=99999999999", "99999999999 is not in 0..=4294967295"),
            ("--broker.min-append-rate=NaN", "invalid digit"),
            ("--broker.hole-age=-1h", "invalid duration"),
        ] {
            let (option, value) = arg.split_once('=').unwrap();
            let error = options(&[arg]).unwrap_err();
            assert!(error.contains(&format!("invalid value '{value}' for '{option} <")), "{error}");
            assert!(error.contains(bounds), "{arg}: {error}");
        }
    }
}
