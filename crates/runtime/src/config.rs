//! Configuration: groups of command-line options that several programs share.
//!
//! An option is given as a flag (`--etcd.address`), in an INI file ([`Ini`]) or in the environment (`ETCD_ADDRESS`); the
//! first of them wins.

mod duration;
mod ini;
mod listen;
mod names;
mod print;
mod program;
mod quote;
mod secret;
mod tls;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use duration::{duration_within, format_duration, parse_duration};
pub use ini::{Ini, IniError};
pub use listen::{ANY_HOST, LOOPBACK, bind_address, listen};
pub use names::pet_name;
pub use print::{config_text, given_options};
pub use program::{parse_command_line, version_line, with_ini};
pub use quote::unquote;
pub use secret::Secret;
pub use tls::{TlsOptions, path};

pub use crate::trace::TraceArgs;

/// An option has a value that this program cannot honour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The value is outside of what the option allows.
    #[error("--{option}: {problem}")]
    Invalid {
        /// The option's long name.
        option: &'static str,
        /// What was found and what was expected.
        problem: String,
    },
}

/// The value of an option that was given; an empty one, as of an empty environment variable, counts as none.
pub fn given(option: Option<String>) -> Option<String> {
    option.filter(|value| !value.is_empty())
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Trace,
    /// What helps to find a fault.
    Debug,
    /// What happens.
    Info,
    /// What may need attention.
    Warn,
    /// What needs a human.
    Error,
    /// Only what ends the process.
    Fatal,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text.
    Text,
    /// Text with terminal colours.
    Color,
}

/// Options of logging.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Log messages of this level and above.
    #[arg(
        id = "log.level",
        long = "log.level",
        value_name = "LEVEL",
        env = "LOG_LEVEL",
        value_enum,
        ignore_case = true,
        default_value = "warn"
    )]
    pub level: LogLevel,
    /// Format of log lines, on standard error.
    #[arg(
        id = "log.format",
        long = "log.format",
        value_name = "FORMAT",
        env = "LOG_FORMAT",
        value_enum,
        ignore_case = true,
        default_value = "text"
    )]
    pub format: LogFormat,
    /// Tracing.
    #[command(flatten)]
    pub trace: TraceArgs,
    /// What the log says first, at level debug: of what was found before it was directed.
    #[arg(skip)]
    pub remarks: Vec<String>,
    /// The options that the process was given, for its log: see [`given_options`].
    #[arg(skip)]
    pub given: String,
}

impl Default for LogArgs {
    fn default() -> LogArgs {
        LogArgs {
            level: LogLevel::Warn,
            format: LogFormat::Text,
            trace: TraceArgs::default(),
            remarks: Vec::new(),
            given: String::new(),
        }
    }
}

/// Options of the diagnostics endpoints.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Debug")]
pub struct DebugArgs {
    /// An extra port which serves /debug/ only.
    #[arg(id = "debug.port", long = "debug.port", env = "DEBUG_PORT", value_name = "PORT")]
    pub port: Option<String>,
    /// Do not serve /debug/metrics on the main port.
    #[arg(id = "debug.private", long = "debug.private", env = "DEBUG_PRIVATE")]
    pub private: bool,
}

crate::client_tls_args!(EtcdTlsArgs, "etcd", "ETCD", "an etcd");
crate::client_tls_args!(BrokerTlsArgs, "broker", "BROKER", "a broker");
crate::client_tls_args!(ConsumerTlsArgs, "consumer", "CONSUMER", "a consumer");

/// The lease of a process that does not say otherwise.
pub const ETCD_LEASE: Duration = Duration::from_secs(20);

/// Bounds of a process's lease. etcd takes longer ones, but who waits a day for a process that is gone?
const ETCD_LEASE_BOUNDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// For how long changes of etcd may be gathered: a process notices nothing sooner.
pub const WATCH_DELAY_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Options of the etcd client.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Etcd")]
pub struct EtcdArgs {
    /// Address of etcd: http(s)://host:port or unix:///path. Of several, separated by commas, those that work are asked.
    #[arg(id = "etcd.address", long = "etcd.address", env = "ETCD_ADDRESS", value_name = "URL")]
    pub address: Option<String>,
    /// How long this process counts as alive after its last sign of life. Between 1 s and a day.
    #[arg(id = "etcd.lease", long = "etcd.lease", env = "ETCD_LEASE_TTL", value_name = "DURATION",
        default_value = "20s", value_parser = duration_within(ETCD_LEASE_BOUNDS))]
    pub lease: Duration,
    /// Prefix of all keys in etcd.
    #[arg(id = "etcd.prefix", long = "etcd.prefix", env = "ETCD_PREFIX", value_name = "PATH")]
    pub prefix: Option<String>,
    /// TLS.
    #[command(flatten)]
    pub tls: EtcdTlsArgs,
}

impl Default for EtcdArgs {
    fn default() -> EtcdArgs {
        EtcdArgs { address: None, lease: ETCD_LEASE, prefix: None, tls: EtcdTlsArgs::default() }
    }
}

impl EtcdArgs {
    /// The address, if one was given and is not empty.
    pub fn address(&self) -> Option<&str> {
        self.address.as_deref().filter(|a| !a.is_empty())
    }
}

/// Options of a client of brokers.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Broker")]
pub struct BrokerClientArgs {
    /// Address of a broker: http(s)://host:port or unix:///path. Of several, separated by commas, one that works is asked.
    #[arg(
        id = "broker.address",
        long = "broker.address",
        env = "BROKER_ADDRESS",
        value_name = "URL",
        default_value = "http://localhost:8080"
    )]
    pub address: String,
    /// TLS.
    #[command(flatten)]
    pub tls: BrokerTlsArgs,
    /// Keys of access tokens in base64, separated by commas or white space. The first signs the token of each request.
    #[arg(
        id = "broker.auth-keys",
        long = "broker.auth-keys",
        env = "BROKER_AUTH_KEYS",
        value_name = "KEYS",
        hide_env_values = true
    )]
    pub auth_keys: Option<Secret>,
    /// An access token that is sent with each request, if there are no keys.
    #[arg(
        id = "broker.auth-token",
        long = "broker.auth-token",
        env = "BROKER_AUTH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub auth_token: Option<Secret>,
    /// How many journal routes are remembered. If it is given, stored fragments are read from their stores, by URLs which
    /// brokers sign, and not through brokers. Zero for the client's default, and to read through brokers.
    #[arg(
        id = "broker.cache.size",
        long = "broker.cache.size",
        value_name = "COUNT",
        env = "BROKER_CACHE_SIZE",
        default_value_t = 0
    )]
    pub cache_size: usize,
    /// How long a journal route is remembered.
    #[arg(id = "broker.cache.ttl", long = "broker.cache.ttl", env = "BROKER_CACHE_TTL", value_name = "DURATION",
        default_value = "1m", value_parser = parse_duration)]
    pub cache_ttl: Duration,
    /// Where fragment URLs of the file:// scheme are found on this machine.
    #[arg(id = "broker.file-root", long = "broker.file-root", env = "BROKER_FILE_ROOT", value_name = "DIR",
        value_parser = path())]
    pub file_root: Option<PathBuf>,
}

impl BrokerClientArgs {
    /// Where fragment URLs of the `file://` scheme are found. An empty path, as of an empty environment variable, is none.
    pub fn file_root(&self) -> Option<PathBuf> {
        self.file_root.clone().filter(|root| !root.as_os_str().is_empty())
    }
}

/// Options of a client of consumers.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Consumer")]
pub struct ConsumerClientArgs {
    /// Address of a consumer: http(s)://host:port or unix:///path.
    #[arg(
        id = "consumer.address",
        long = "consumer.address",
        env = "CONSUMER_ADDRESS",
        value_name = "URL",
        default_value = "http://localhost:8080"
    )]
    pub address: String,
    /// TLS.
    #[command(flatten)]
    pub tls: ConsumerTlsArgs,
    /// Keys of the consumer's access tokens in base64, separated by commas or white space. The first signs the token of
    /// each request to it.
    #[arg(
        id = "consumer.auth-keys",
        long = "consumer.auth-keys",
        env = "CONSUMER_AUTH_KEYS",
        value_name = "KEYS",
        hide_env_values = true
    )]
    pub auth_keys: Option<Secret>,
    /// An access token that is sent with each request to the consumer, if there are no keys.
    #[arg(
        id = "consumer.auth-token",
        long = "consumer.auth-token",
        env = "CONSUMER_AUTH_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    pub auth_token: Option<Secret>,
}

impl Default for BrokerClientArgs {
    fn default() -> BrokerClientArgs {
        BrokerClientArgs {
            address: "http://localhost:8080".to_owned(),
            tls: BrokerTlsArgs::default(),
            auth_keys: None,
            auth_token: None,
            cache_size: 0,
            cache_ttl: Duration::from_secs(60),
            file_root: None,
        }
    }
}

#[cfg(test)]
mod tests;
