//! TLS of a broker's connections: of its port, to its peers and to etcd.

use runtime::tls::{ClientTls, ServerTls, TlsError};

use crate::config::{BrokerOptions, EtcdChoice};

/// TLS of a broker's connections.
pub(super) struct Tls {
    /// Of the port, if it has any.
    pub(super) server: Option<ServerTls>,
    /// Towards other brokers.
    pub(super) peers: ClientTls,
    /// Towards an etcd of its own.
    etcd: ClientTls,
}

impl Tls {
    /// Reads the files of the options.
    pub(super) fn load(options: &BrokerOptions) -> Result<Tls, TlsError> {
        let clock = &options.clock;
        let server = options.server_tls.clone().map(|files| ServerTls::load(files, clock)).transpose()?;
        let peers = ClientTls::load(options.peer_tls.clone(), clock)?;
        Ok(Tls { server, peers, etcd: ClientTls::load(options.etcd_tls.clone(), clock)? })
    }

    /// For connections to etcd. An embedded one is reached by another name than others know this broker by, and its
    /// certificate speaks of.
    pub(super) fn of_etcd(&self, options: &BrokerOptions) -> Result<ClientTls, TlsError> {
        match (&options.etcd, &self.server) {
            (EtcdChoice::Address(_), _) => Ok(self.etcd.clone()),
            (EtcdChoice::Embedded, Some(_)) => self.peers.for_host(&options.host),
            (EtcdChoice::Embedded, None) => Ok(self.peers.clone()),
        }
    }
}
