//! Options that a Gazette broker has and this one does not: giving one is an error, rather than without effect.

use std::path::PathBuf;

use runtime::config::{ConfigError, is_set, refuse};

/// Options of features that are not there yet.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct UnsupportedArgs {
    /// Server certificate (not supported yet).
    #[arg(
        id = "broker.server-cert-file",
        long = "broker.server-cert-file",
        env = "BROKER_SERVER_CERT_FILE",
        value_name = "FILE"
    )]
    pub server_cert_file: Option<PathBuf>,
    /// Key of the server certificate (not supported yet).
    #[arg(
        id = "broker.server-cert-key-file",
        long = "broker.server-cert-key-file",
        env = "BROKER_SERVER_CERT_KEY_FILE",
        value_name = "FILE"
    )]
    pub server_cert_key_file: Option<PathBuf>,
    /// Certificate authority of clients (not supported yet).
    #[arg(
        id = "broker.server-ca-file",
        long = "broker.server-ca-file",
        env = "BROKER_SERVER_CA_FILE",
        value_name = "FILE"
    )]
    pub server_ca_file: Option<PathBuf>,
    /// Certificate towards other brokers (not supported yet).
    #[arg(
        id = "broker.peer-cert-file",
        long = "broker.peer-cert-file",
        env = "BROKER_PEER_CERT_FILE",
        value_name = "FILE"
    )]
    pub peer_cert_file: Option<PathBuf>,
    /// Key of the certificate towards other brokers (not supported yet).
    #[arg(
        id = "broker.peer-cert-key-file",
        long = "broker.peer-cert-key-file",
        env = "BROKER_PEER_CERT_KEY_FILE",
        value_name = "FILE"
    )]
    pub peer_cert_key_file: Option<PathBuf>,
    /// Certificate authority of other brokers (not supported yet).
    #[arg(
        id = "broker.peer-ca-file",
        long = "broker.peer-ca-file",
        env = "BROKER_PEER_CA_FILE",
        value_name = "FILE"
    )]
    pub peer_ca_file: Option<PathBuf>,
}

impl UnsupportedArgs {
    pub(super) fn refuse(&self) -> Result<(), ConfigError> {
        refuse(&[
            ("broker.server-cert-file", is_set(&self.server_cert_file)),
            ("broker.server-cert-key-file", is_set(&self.server_cert_key_file)),
            ("broker.server-ca-file", is_set(&self.server_ca_file)),
            ("broker.peer-cert-file", is_set(&self.peer_cert_file)),
            ("broker.peer-cert-key-file", is_set(&self.peer_cert_key_file)),
            ("broker.peer-ca-file", is_set(&self.peer_ca_file)),
        ])
    }
}
