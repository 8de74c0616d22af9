//! An etcd inside the process, for one machine.
//!
//! It serves the part of the etcd v3 API that Courant uses, to any etcd client: KV (with nested transactions and reads
//! in the past), Watch (from any kept revision, with previous values, filters and progress), Lease, and what clients ask
//! before they trust a server (status, member list). A pure store holds all versions since the last compaction; a task
//! owns it and makes every write durable before it is answered; the services translate.
//!
//! It is one process on one disk: a convenience for one machine, not a replacement for an etcd cluster. It has no
//! authentication either, so it must listen on loopback only, unless the operator says otherwise.
//!
//! What it does otherwise than etcd: history beyond a limit is compacted away without being asked; leases are given back
//! the time in which the whole process was stopped; a watch that lags behind the kept history is cancelled as compacted
//! rather than buffered.

mod log;
mod owner;
mod record;
mod services;
mod store;
mod watch_service;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use etcd_client::proto::{
    PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbResponseHeader, PbWatchServer,
};
use prost::Message;
use runtime::{Clock, Entropy, Instant, OnError, TaskGroup};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tonic::Status;
use tonic::service::Routes;

pub use log::LogError;
pub use record::Damage;

use owner::{Owner, Request, WriteError};
use record::Identity;
use store::{Store, StoreError, Write, Written};

/// Largest request, bytes.
const REQUEST_BYTES_MAX: usize = 3 << 19;
/// Largest message taken from the wire, bytes: a request and what surrounds it.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + (512 << 10);
/// Most bytes of requests that wait for the owner.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// Most requests that wait for the owner.
const WAITING_REQUESTS_MAX: usize = 4096;
/// What a request takes beside its own bytes.
const REQUEST_OVERHEAD_BYTES: usize = 512;

/// An etcd inside the process. Cheap to clone; clones are the same store.
#[derive(Clone)]
pub struct EmbeddedEtcd {
    shared: Arc<Shared>,
}

struct Shared {
    identity: Identity,
    requests: mpsc::Sender<Request>,
    /// Bytes of waiting requests.
    waiting: Arc<Semaphore>,
    published: watch::Receiver<Arc<Store>>,
    clock: Clock,
    entropy: Entropy,
    /// The store's time is counted from here.
    epoch: Instant,
    tasks: TaskGroup,
    endpoint: RwLock<Option<Arc<str>>>,
}

impl EmbeddedEtcd {
    /// Opens the store in `dir`, or creates it. Its task runs in `tasks`, which is cancelled if the disk fails.
    ///
    /// # Errors
    /// If the directory cannot be used, another process has it, or its log is damaged other than at its end. The error
    /// names the file, and the offset of the damage.
    pub async fn open(
        dir: &Path,
        clock: Clock,
        entropy: Entropy,
        tasks: &TaskGroup,
    ) -> Result<EmbeddedEtcd, LogError> {
        let fresh = Identity {
            cluster_id: nonzero(&entropy),
            member_id: nonzero(&entropy),
            // What a real etcd of one member has after its first election.
            raft_term: 2,
        };
        let path = dir.to_owned();
        let open =
            tasks.spawn_blocking("open the embedded etcd", move || log::open(&path, fresh, Duration::ZERO));
        let (log, identity, store) = open.await?;
        tracing::info!(
            ?dir,
            revision = store.revision(),
            term = identity.raft_term,
            "embedded etcd is open: a convenience for one machine; clusters use an etcd of their own"
        );
        let (requests, receiver) = mpsc::channel(WAITING_REQUESTS_MAX);
        let (publisher, published) = watch::channel(Arc::new(store.clone()));
        let epoch = clock.now();
        let owner = Owner {
            identity,
            store,
            log,
            requests: receiver,
            published: publisher,
            clock: clock.clone(),
            epoch,
            tasks: tasks.clone(),
        };
        tasks.spawn("embedded etcd", OnError::CancelGroup, owner.run());
        let shared = Shared {
            identity,
            requests,
            waiting: Arc::new(Semaphore::new(WAITING_BYTES_MAX)),
            published,
            clock,
            entropy,
            epoch,
            tasks: tasks.clone(),
            endpoint: RwLock::new(None),
        };
        Ok(EmbeddedEtcd { shared: Arc::new(shared) })
    }

    /// Sets the endpoint that is told to clients which ask for the members of the cluster. Go clients replace the
    /// endpoint that they were given by it, so it must be one under which the services can be reached.
    pub fn advertise(&self, endpoint: &str) {
        *self.shared.endpoint.write().unwrap_or_else(PoisonError::into_inner) = Some(endpoint.into());
    }

    /// The gRPC services, with nothing beside them.
    pub fn routes(&self) -> Routes {
        self.register(Routes::default())
    }

    /// Adds the gRPC services to those of a server.
    pub fn register(&self, routes: Routes) -> Routes {
        let limit = MESSAGE_BYTES_MAX;
        routes
            .add_service(PbKvServer::new(self.clone()).max_decoding_message_size(limit))
            .add_service(PbWatchServer::new(self.clone()).max_decoding_message_size(limit))
            .add_service(PbLeaseServer::new(self.clone()).max_decoding_message_size(limit))
            .add_service(PbClusterServer::new(self.clone()).max_decoding_message_size(limit))
            .add_service(PbMaintenanceServer::new(self.clone()).max_decoding_message_size(limit))
    }

    /// The newest durable state.
    fn store(&self) -> Arc<Store> {
        Arc::clone(&self.shared.published.borrow())
    }

    /// The store's time.
    fn now(&self) -> Duration {
        self.shared.clock.now() - self.shared.epoch
    }

    /// Has the owner carry out a write. `request` is what it came as, for its size.
    async fn submit(&self, request: &impl Message, write: Write) -> Result<Written, Status> {
        let bytes = request.encoded_len();
        if bytes > REQUEST_BYTES_MAX {
            return Err(refused(StoreError::RequestTooLarge));
        }
        let share = u32::try_from(bytes + REQUEST_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let waiting = Arc::clone(&self.shared.waiting);
        let permit = waiting.acquire_many_owned(share).await.map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        self.shared.requests.send(Request { write, reply, permit }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?.map_err(|error| match error {
            WriteError::Refused(error) => refused(error),
            WriteError::Disk(text) => Status::resource_exhausted(format!("etcdserver: cannot write: {text}")),
        })
    }

    /// Completes the header of an answer.
    fn fill(&self, header: &mut Option<PbResponseHeader>) {
        let header = header.get_or_insert_with(Default::default);
        header.cluster_id = self.shared.identity.cluster_id;
        header.member_id = self.shared.identity.member_id;
        header.raft_term = self.shared.identity.raft_term;
        if header.revision == 0 {
            header.revision = self.store().revision();
        }
    }

    fn header(&self, revision: i64) -> Option<PbResponseHeader> {
        let Identity { cluster_id, member_id, raft_term } = self.shared.identity;
        Some(PbResponseHeader { cluster_id, member_id, revision, raft_term })
    }
}

impl fmt::Debug for EmbeddedEtcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster_id, raft_term, .. } = self.shared.identity;
        f.debug_struct("EmbeddedEtcd")
            .field("cluster_id", &format_args!("{cluster_id:x}"))
            .field("raft_term", &raft_term)
            .field("revision", &self.store().revision())
            .finish_non_exhaustive()
    }
}

fn nonzero(entropy: &Entropy) -> u64 {
    entropy.u64().max(1)
}

fn refused(error: StoreError) -> Status {
    Status::new(error.code(), error.to_string())
}

fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}
