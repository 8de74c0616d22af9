//! An etcd inside the process, for one machine.

use std::path::Path;

use runtime::{Clock, Entropy, TaskGroup};
use tonic::service::Routes;

/// Why the embedded etcd could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Not there yet.
    #[error("the embedded etcd cannot be opened")]
    Unavailable,
}

/// An etcd inside the process. Cheap to clone; clones share the store.
#[derive(Clone, Debug)]
pub struct EmbeddedEtcd {}

impl EmbeddedEtcd {
    /// Opens, or creates, the store in `dir`.
    ///
    /// # Errors
    /// If the directory is in use by another process, or its log is damaged other than at its end.
    pub async fn open(
        _dir: &Path,
        _clock: Clock,
        _entropy: Entropy,
        _tasks: &TaskGroup,
    ) -> Result<EmbeddedEtcd, EmbeddedError> {
        Err(EmbeddedError::Unavailable)
    }

    /// The endpoint under which the services are reachable, as told to clients which ask for the member list.
    pub fn advertise(&self, _endpoint: &str) {}

    /// The gRPC services: KV, Watch, Lease, Cluster, Maintenance.
    pub fn routes(&self) -> Routes {
        self.register(Routes::default())
    }

    /// Adds the gRPC services to those of a server.
    pub fn register(&self, routes: Routes) -> Routes {
        routes
    }
}
