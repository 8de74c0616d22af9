//! Options of TLS: a certificate, its key, and an authority, which several groups of options have under names of their own.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::tls::{ClientTlsFiles, IdentityFiles, ServerTlsFiles};

use super::ConfigError;

/// The three files of a group of options, with the names of the options. An empty name is no file: so are those of empty
/// environment variables.
#[derive(Debug, Clone, Copy)]
pub struct TlsOptions<'a> {
    /// The certificate.
    pub cert: (&'static str, &'a Option<PathBuf>),
    /// Its key.
    pub key: (&'static str, &'a Option<PathBuf>),
    /// The authority of the other side.
    pub ca: (&'static str, &'a Option<PathBuf>),
}

impl TlsOptions<'_> {
    /// The files of a server, which has TLS if it has a certificate.
    ///
    /// # Errors
    /// If an option is given without the one that it needs; it is named.
    pub fn server(&self) -> Result<Option<ServerTlsFiles>, ConfigError> {
        let client_ca = file(self.ca.1).map(Path::to_owned);
        match (self.identity()?, client_ca) {
            (Some(identity), client_ca) => Ok(Some(ServerTlsFiles { identity, client_ca })),
            (None, None) => Ok(None),
            // Whoever asks clients for certificates must not end up with a port that is open to all.
            (None, Some(_)) => Err(missing(self.cert.0, self.ca.0)),
        }
    }

    /// The files of a client.
    ///
    /// # Errors
    /// If a certificate is given without its key, or the reverse; the missing option is named.
    pub fn client(&self) -> Result<ClientTlsFiles, ConfigError> {
        Ok(ClientTlsFiles { identity: self.identity()?, ca: file(self.ca.1).map(Path::to_owned) })
    }

    fn identity(&self) -> Result<Option<IdentityFiles>, ConfigError> {
        match (file(self.cert.1), file(self.key.1)) {
            (Some(cert), Some(key)) => Ok(Some(IdentityFiles { cert: cert.to_owned(), key: key.to_owned() })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(missing(self.key.0, self.cert.0)),
            (None, Some(_)) => Err(missing(self.cert.0, self.key.0)),
        }
    }
}

/// Parses a path. Unlike clap's own parser it takes an empty one, as of an empty environment variable.
pub fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

fn file(option: &Option<PathBuf>) -> Option<&Path> {
    option.as_deref().filter(|path| !path.as_os_str().is_empty())
}

fn missing(option: &'static str, given: &'static str) -> ConfigError {
    ConfigError::Invalid { option, problem: format!("is missing; expected a file beside --{given}") }
}

/// Declares the options of TLS of a client: `client_tls_args!(EtcdTlsArgs, "etcd", "ETCD", "etcd")` is a struct with
/// `--etcd.cert-file`, `--etcd.cert-key-file` and `--etcd.trusted-ca-file`, and the variables of these names. The last word
/// says whose client it is.
#[macro_export]
macro_rules! client_tls_args {
    ($name:ident, $group:literal, $env:literal, $of:literal) => {
        $crate::tls_args!(
            $name,
            [$group, "."],
            [$env, "_"],
            "trusted-ca-file",
            "TRUSTED_CA_FILE",
            concat!("Certificate of this client, in PEM, for ", $of, " which asks for one."),
            concat!("Authorities, in PEM, that certify ", $of, ". [default: those of this machine]")
        );
    };
}

/// Declares the options of TLS of a server with peers: `server_tls_args!("broker", "BROKER")` has `ServerTlsArgs` for its
/// port, `--broker.server-cert-file`, `--broker.server-cert-key-file` and `--broker.server-ca-file`, and `PeerTlsArgs` for
/// its connections to others, with `peer-` in place of `server-`.
#[macro_export]
macro_rules! server_tls_args {
    ($group:literal, $env:literal) => {
        $crate::tls_args!(
            ServerTlsArgs, [$group, ".server-"], [$env, "_SERVER_"], "ca-file", "CA_FILE",
            "Certificate of this server, in PEM, with those between it and its authority. The port then speaks TLS.",
            "Authorities, in PEM, that certify clients. Clients without such a certificate are then refused."
        );
        $crate::tls_args!(
            PeerTlsArgs, [$group, ".peer-"], [$env, "_PEER_"], "ca-file", "CA_FILE",
            "Certificate, in PEM, by which this process makes itself known to its peers, if its own port speaks TLS.",
            "Authorities, in PEM, that certify the peers of this process. [default: those of this machine]"
        );
    };
}

/// What [`client_tls_args`](crate::client_tls_args) and [`server_tls_args`](crate::server_tls_args) are made of.
#[doc(hidden)]
#[macro_export]
macro_rules! tls_args {
    (
        $name:ident, [$($option:literal),*], [$($env:literal),*], $ca:literal, $ca_env:literal,
        $cert_help:expr, $ca_help:expr
    ) => {
        /// Options of TLS. Files are read again when they change.
        #[derive(Clone, Debug, Default, clap::Args)]
        pub struct $name {
            /// The certificate.
            #[arg(
                id = concat!($($option,)* "cert-file"),
                long = concat!($($option,)* "cert-file"),
                env = concat!($($env,)* "CERT_FILE"),
                value_name = "FILE",
                value_parser = $crate::config::path(),
                help = $cert_help
            )]
            pub cert_file: Option<std::path::PathBuf>,
            /// Its key.
            #[arg(
                id = concat!($($option,)* "cert-key-file"),
                long = concat!($($option,)* "cert-key-file"),
                env = concat!($($env,)* "CERT_KEY_FILE"),
                value_name = "FILE",
                value_parser = $crate::config::path(),
                help = concat!("Key, in PEM, of --", $($option,)* "cert-file.")
            )]
            pub cert_key_file: Option<std::path::PathBuf>,
            /// The authorities of the other side.
            #[arg(
                id = concat!($($option,)* $ca),
                long = concat!($($option,)* $ca),
                env = concat!($($env,)* $ca_env),
                value_name = "FILE",
                value_parser = $crate::config::path(),
                help = $ca_help
            )]
            pub ca_file: Option<std::path::PathBuf>,
        }

        impl $name {
            /// The files, with the names of their options.
            pub fn options(&self) -> $crate::config::TlsOptions<'_> {
                $crate::config::TlsOptions {
                    cert: (concat!($($option,)* "cert-file"), &self.cert_file),
                    key: (concat!($($option,)* "cert-key-file"), &self.cert_key_file),
                    ca: (concat!($($option,)* $ca), &self.ca_file),
                }
            }
        }
    };
}
