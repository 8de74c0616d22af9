//! What a store is opened with.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use runtime::Clock;
use tokio_postgres::config::{Config, SslMode};
use tokio_postgres::{IsolationLevel, config::Host};

use crate::PostgresError;

/// Time to reach a server, unless the connection string says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the server's machine must acknowledge what it was sent, unless the connection string says otherwise.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Silence of the server after which its machine is asked whether it is there.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
/// What the library takes if the connection string says nothing.
const KEEPALIVES_IDLE_DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);
/// Default of [`PostgresOptions::idle_in_transaction`].
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(60);

/// What a transaction sees of the one before, which may still be committing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Everything: its first statement waits until the commit before it has ended. One connection. Transactions of a
    /// shard read what the ones before wrote, so this is right for every application.
    #[default]
    AfterCommit,
    /// Its first statement begins at once, on a second connection, as in Gazette. Until the commit before has ended:
    ///
    /// * rows which that wrote are *read as they were before it*;
    /// * statements which *write* such rows wait for it, and then apply to what it wrote (under READ COMMITTED; under a
    ///   stricter isolation level they fail, and the shard starts again).
    ///
    /// Right for applications which write without reading before (`INSERT`, `count = count + 1`, upserts), and wrong
    /// for those which read a row, compute, and write it back.
    AtOnce,
}

/// What a store is opened with.
#[derive(Clone)]
pub struct PostgresOptions {
    /// Server, database and user.
    pub config: Config,
    /// PEM file of the authorities which may have signed the server's certificate; by default those of the machine. Used
    /// with `sslmode=require` alone.
    pub ca_file: Option<PathBuf>,
    /// What a transaction sees of the one before.
    pub overlap: Overlap,
    /// Isolation of the application's statements.
    pub isolation: IsolationLevel,
    /// The server ends a session whose transaction has waited for this long, and so lets go of the rows which it has
    /// locked: no primary waits longer for one before that hangs. It also bounds how long a commit may wait for the
    /// transaction's appends. Whole milliseconds; zero is without bound.
    pub idle_in_transaction: Duration,
    /// Time.
    pub clock: Clock,
}

impl PostgresOptions {
    /// Parses a connection string: `host=/var/run/postgresql dbname=app`, or
    /// `postgresql://user:password@host:5432/app?sslmode=require`.
    ///
    /// `sslmode=require` encrypts *and verifies* the server's certificate and host name; `prefer`, the default, and
    /// `disable` do not encrypt.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn parse(connection: &str) -> Result<PostgresOptions, PostgresError> {
        let mut config: Config = connection.parse().map_err(PostgresError::Options)?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host_path("/var/run/postgresql");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if config.get_keepalives_idle() == KEEPALIVES_IDLE_DEFAULT {
            config.keepalives_idle(KEEPALIVES_IDLE);
        }
        if config.get_application_name().is_none() {
            config.application_name("courant");
        }
        Ok(PostgresOptions {
            config,
            ca_file: None,
            overlap: Overlap::default(),
            isolation: IsolationLevel::ReadCommitted,
            idle_in_transaction: IDLE_IN_TRANSACTION,
            clock: Clock::system(),
        })
    }

    /// Whether connections are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }

    /// The servers and the database, without secrets.
    pub(crate) fn target(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}/.s.PGSQL.{port}", path.display()),
            }
        });
        let hosts: Vec<_> = hosts.collect();
        format!("{} of {}", self.config.get_dbname().unwrap_or("the default database"), hosts.join(", "))
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration holds a password, and leaves it out by itself.
        f.debug_struct("PostgresOptions")
            .field("config", &self.config)
            .field("ca_file", &self.ca_file)
            .field("overlap", &self.overlap)
            .field("isolation", &self.isolation)
            .field("idle_in_transaction", &self.idle_in_transaction)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_is_bounded() {
        let options = PostgresOptions::parse("dbname=app").unwrap();
        assert_eq!(options.target(), "app of /var/run/postgresql/.s.PGSQL.5432");
        assert_eq!(options.config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(options.config.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(options.config.get_keepalives_idle(), KEEPALIVES_IDLE);
        assert_eq!((options.overlap, options.is_encrypted()), (Overlap::AfterCommit, false));
    }

    #[test]
    fn what_is_given_is_kept_and_secrets_are_not_shown() {
        let text =
            "postgresql://me:secret@one:1,two:2/app?sslmode=require&connect_timeout=3&keepalives_idle=60";
        let options = PostgresOptions::parse(text).unwrap();
        assert_eq!(options.target(), "app of one:1, two:2");
        assert_eq!(options.config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(options.config.get_keepalives_idle(), Duration::from_secs(60));
        assert!(options.is_encrypted());
        assert!(!format!("{options:?} {}", options.target()).contains("secret"));
    }

    #[test]
    fn malformed_strings_are_refused() {
        let error = PostgresOptions::parse("host").unwrap_err().to_string();
        assert!(error.starts_with("the connection string of a PostgreSQL store: "), "{error}");
        assert!(PostgresOptions::parse("sslmode=maybe").is_err());
    }
}
