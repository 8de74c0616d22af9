//! A broker within a process: starts its parts in order, and stops them in the reverse one.
//!
//! The data directory is locked before anything else; the lock proves that the process which was a member under this id
//! before is dead, and this one then goes on in its place, with its lease and its assignments. With an embedded etcd the port opens first, since the broker is a client of it like
//! any other. How a broker leaves is told in [`leave`].

mod floor;
mod leave;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use allocator::{AllocError, MaxFlowSolver};
use auth::{Admission, Authorizer};
use axum::Router;
use keyspace::embedded::EmbeddedEtcd;
use keyspace::{Etcd, EtcdOptions, Lease, Membership, Predecessor};
use prost::Message;
use proto::protocol::journal_server::JournalServer;
use proto::protocol::{BrokerSpec, ProcessSpec};
use proto::{MemberId, Revision};
use runtime::grpc_metrics::{self, ClientCalls};
use runtime::introspection::{self, Health};
use runtime::server::{self, Listener};
use runtime::tls::ClientTls;
use runtime::{BoxError, CancellationToken, OnError, TaskGroup, json_gateway};
use stores::{Stores, StoresConfig};
use tokio::sync::watch;
use tonic::service::Routes;

use crate::append::{AppendContext, AppendLimits, AppendOptions, GraceOptions, Outages};
use crate::config::{BrokerOptions, EtcdChoice};
use crate::data_dir::DataDir;
use crate::gate;
use crate::gateway::{self, Gateway};
use crate::key_space::{JournalSchema, Mirror};
use crate::listings::{NamesBelow, NamesSource};
use crate::metrics::BrokerMetrics;
use crate::peers::Peers;
use crate::read::{ReadContext, copy_failures};
use crate::replica::{ReplicaDeps, ReplicaParts};
use crate::replicate::GrpcConnector;
use crate::resolver::Resolver;
use crate::retention;
use crate::service::{JournalService, Shell};
use crate::sync_mark::EtcdMarks;
use tls::Tls;

/// Open requests may go on for this long once the port closes.
const SERVER_DRAIN: Duration = Duration::from_secs(15);

const ETCD_DIR: &str = "etcd";
const FRAGMENTS_DIR: &str = "fragments";

/// A running broker.
pub struct Broker {
    options: BrokerOptions,
    me: MemberId,
    endpoint: String,
    data_dir: DataDir,
    groups: Groups,
    health: Health,
    shell: Arc<Shell>,
    schema: JournalSchema,
    replicas: ReplicaDeps,
    membership: Membership,
}

/// The tasks of a broker, by what they depend on: each group on those after it.
struct Groups {
    /// Allocator, which the absence of the member key alarms.
    allocator: TaskGroup,
    /// Mirror, resolver, replicas.
    work: TaskGroup,
    /// Fragment stores, and uploads to them.
    stores: TaskGroup,
    /// Lease.
    member: TaskGroup,
    /// Port.
    server: TaskGroup,
    /// Embedded etcd.
    etcd: TaskGroup,
}

impl Groups {
    fn new() -> Groups {
        let group = TaskGroup::new;
        Groups {
            allocator: group("allocator"),
            work: group("broker"),
            stores: group("stores"),
            member: group("member"),
            server: group("server"),
            etcd: group("etcd"),
        }
    }

    fn all(&self) -> [&TaskGroup; 6] {
        [&self.allocator, &self.work, &self.stores, &self.member, &self.server, &self.etcd]
    }
}

impl Broker {
    /// Starts a broker, and waits until it answers requests.
    ///
    /// # Errors
    /// If the data directory is in use, the port taken, a store root missing, or etcd out of reach.
    pub async fn start(options: BrokerOptions) -> Result<Broker, BoxError> {
        let groups = Groups::new();
        // Boxed, as are its parts: the clients' futures are large, and callers poll this one on small stacks.
        let started = Box::pin(Broker::start_in(&groups, options)).await;
        match started {
            Ok(start) => Ok(start(groups)),
            Err(error) => {
                if let Err(error) = groups.stop().await {
                    tracing::warn!(%error, "cannot stop what was started");
                }
                Err(error)
            }
        }
    }

    async fn start_in(
        groups: &Groups,
        options: BrokerOptions,
    ) -> Result<impl FnOnce(Groups) -> Broker + use<>, BoxError> {
        let data_dir = DataDir::open(&options.data_dir)?;
        let me = data_dir.member_id(&options.zone, options.id.as_deref(), &options.entropy)?;
        let stores = open_stores(&options, &data_dir, &groups.stores)?;
        let tls = Tls::load(&options)?;
        // A broker that cannot reach etcd refuses connections, so that clients and peers turn to others at once.
        let reached = match &options.etcd {
            EtcdChoice::Embedded => None,
            EtcdChoice::Address(address) => Some(Box::pin(connect(&options, address, &tls, groups)).await?),
        };
        let listener = Listener::bind(&options.bind).await?.with_tls(tls.server.clone());
        let endpoint = listener.endpoint(&options.host);
        let (shells, shell) = watch::channel(None);
        let metrics = BrokerMetrics::new(&options.metrics);
        let service = JournalService::new(shell, metrics.clone(), options.clock.clone());

        let (address, health) = Box::pin(open_port(&options, &data_dir, listener, service, groups)).await?;
        let etcd = match reached {
            Some(etcd) => etcd,
            None => Box::pin(connect(&options, &address, &tls, groups)).await?,
        };
        let schema = JournalSchema { max_replication: options.max_replication };
        let (membership, revision) = Box::pin(announce(&options, &data_dir, &etcd, &me, &endpoint)).await?;
        watch_lease(&membership, &groups.member);
        let mirror = Box::pin(load(&options, &etcd, revision, schema, &groups.work)).await?;

        let marks = EtcdMarks::new(&etcd, options.prefix.as_str());
        let incarnation = Box::pin(marks.incarnation(options.entropy.u64())).await?;
        let lease = membership.lease().clone();
        let etcd = EtcdParts { marks, incarnation, lease };
        let replicas = replica_deps(&options, &data_dir, &stores, &tls.peers, (&mirror, etcd), groups);
        let appends = append_options(&options, &data_dir, &groups.work);
        let resolver = Resolver::start(
            me.clone(),
            mirror.clone(),
            replicas.clone(),
            appends.clone(),
            metrics,
            peers(&options, &tls.peers),
            &groups.work,
        );
        if options.enforce_retention {
            let pace = options.paces.retention;
            retention::start(resolver.clone(), replicas.clone(), pace, &groups.work);
        }
        run_allocator(&options, &mirror, &me, &groups.allocator);
        let shell = Arc::new(Shell {
            append: AppendContext::new(resolver.clone(), replicas.clone(), appends),
            read: ReadContext {
                clock: options.clock.clone(),
                stores,
                files: groups.work.child("reads"),
                hole_age: options.hole_age,
                failures: copy_failures(&options.metrics),
            },
            resolver,
            stop: CancellationToken::new(),
        });
        shells.send_replace(Some(Arc::clone(&shell)));
        health.serving().await;
        Ok(move |groups| Broker {
            options,
            me,
            endpoint,
            data_dir,
            groups,
            health,
            shell,
            schema,
            replicas,
            membership,
        })
    }

    /// The URL under which clients reach this broker.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The address of etcd: of its own, or of the embedded one.
    pub fn etcd_address(&self) -> &str {
        match &self.options.etcd {
            EtcdChoice::Embedded => &self.endpoint,
            EtcdChoice::Address(address) => address,
        }
    }

    /// The member that this broker is.
    pub fn id(&self) -> &MemberId {
        &self.me
    }

    /// The data directory, absolute.
    pub fn data_dir(&self) -> &std::path::Path {
        self.data_dir.path()
    }

    /// Waits until a part of the broker has failed; the others then cannot go on.
    pub async fn failed(&self) {
        let tokens = self.groups.all().map(|group| Box::pin(group.token().cancelled()));
        futures::future::select_all(tokens).await;
    }
}

/// What this broker asks others as: itself, with its own keys.
fn authorizer(options: &BrokerOptions) -> Authorizer {
    options.auth_keys.clone().map_or_else(Authorizer::none, Authorizer::signing)
}

fn open_stores(options: &BrokerOptions, data_dir: &DataDir, tasks: &TaskGroup) -> Result<Stores, BoxError> {
    let default_root = match options.etcd {
        EtcdChoice::Embedded => {
            let root = data_dir.path().join(FRAGMENTS_DIR);
            std::fs::create_dir_all(&root).map_err(|e| format!("create {}: {e}", root.display()))?;
            Some(root)
        }
        EtcdChoice::Address(_) => None,
    };
    if let Some(root) = options.file_root.as_ref().filter(|root| !root.is_dir()) {
        return Err(format!("--broker.file-root: {} is not a directory", root.display()).into());
    }
    Ok(Stores::new(StoresConfig {
        file_root: options.file_root.clone(),
        file_only: options.file_only,
        levels: options.levels,
        times: options.store_times,
        default_root,
        environment: options.environment.clone(),
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
        tasks: tasks.child("stores"),
        metrics: options.metrics.clone(),
    }))
}

/// Opens the embedded etcd, if there is to be one, and serves everything. Returns the address of etcd, and what says that the
/// broker serves.
async fn open_port(
    options: &BrokerOptions,
    data_dir: &DataDir,
    listener: Listener,
    service: JournalService,
    groups: &Groups,
) -> Result<(String, Health), BoxError> {
    let (clock, entropy) = (options.clock.clone(), options.entropy.clone());
    let journals = JournalServer::new(service).max_decoding_message_size(options.max_message_bytes);
    let admission = Admission::new(options.auth_keys.clone(), clock.clone());
    let journals = admission.guard(Routes::new(journals), &gate::METHODS);
    let journals = grpc_metrics::counted(journals, gateway::SERVICE, &options.metrics, &clock);
    let (mut routes, health) = introspection::add(journals.clone(), gateway::SERVICE).await?;
    let address = match &options.etcd {
        EtcdChoice::Embedded => {
            let dir = data_dir.path().join(ETCD_DIR);
            let etcd = EmbeddedEtcd::open(&dir, clock.clone(), entropy, &groups.etcd).await?;
            // Our own way to it must not depend on how others reach this machine. Clients of etcd know no host of a
            // Unix socket.
            let (shown, own) = match listener.local_addr() {
                Some(_) => (listener.endpoint(&options.host), listener.endpoint("127.0.0.1")),
                None => (listener.endpoint(""), listener.endpoint("")),
            };
            etcd.advertise(&shown);
            routes = etcd.register(routes);
            own
        }
        EtcdChoice::Address(address) => address.clone(),
    };
    let debug = match options.debug_private {
        true => server::ready_router(),
        false => server::debug_router(options.metrics.clone()),
    };
    let (origins, request_max) = (&options.allow_origin, options.max_message_bytes);
    let json = json_gateway::router(&journals, &gateway::JSON_RULES, origins, request_max, &options.clock);
    let gateway = Gateway::new(journals);
    let router = routes.into_axum_router().merge(debug).merge(json);
    let router = router.fallback(move |request| gateway.clone().answer(request));
    spawn_server(listener, router, options, groups);
    if let Some(bind) = &options.debug_bind {
        spawn_server(
            Listener::bind(bind).await?,
            server::debug_router(options.metrics.clone()),
            options,
            groups,
        );
    }
    Ok((address, health))
}

fn spawn_server(listener: Listener, router: Router, options: &BrokerOptions, groups: &Groups) {
    let tasks = groups.server.clone();
    let serve = server::serve(listener, router, tasks.clone(), options.clock.clone(), SERVER_DRAIN);
    tasks.spawn("listener", OnError::CancelGroup, serve);
}

async fn connect(
    options: &BrokerOptions,
    address: &str,
    tls: &Tls,
    groups: &Groups,
) -> Result<Etcd, BoxError> {
    let etcd = EtcdOptions {
        lease_ttl: options.lease_ttl,
        tls: tls.of_etcd(options)?,
        clock: options.clock.clone(),
        tasks: groups.member.clone(),
    };
    Ok(Etcd::connect(address, etcd).await?)
}

/// Becomes a member, as the one that the last process on this data directory was, if that is certainly dead.
async fn announce(
    options: &BrokerOptions,
    data_dir: &DataDir,
    etcd: &Etcd,
    me: &MemberId,
    endpoint: &str,
) -> Result<(Membership, Revision), BoxError> {
    let last_lease = match options.etcd {
        // Only processes on this data directory have been members under this id. One under another id would not be missed
        // for the hour of its lease.
        EtcdChoice::Embedded => {
            let key = options.prefix.member(me);
            etcd.get(&key).await?.map(|kv| kv.lease).or_else(|| data_dir.last_lease())
        }
        // Whoever copied the data directory to another machine must not stand in for the broker that runs there.
        EtcdChoice::Address(_) => data_dir.last_lease(),
    };
    let predecessor = last_lease.map_or(Predecessor::Wait, Predecessor::Continue);
    let spec = broker_spec(options, me, endpoint, false);
    let announced = Membership::announce(etcd, &options.prefix, me, spec, options.lease_ttl, predecessor);
    let (membership, revision) = announced.await?;
    if let Err(error) = data_dir.remember_lease(membership.lease().id()) {
        tracing::warn!(%error, "the next process waits for the lease of this one to expire");
    }
    Ok((membership, revision))
}

async fn load(
    options: &BrokerOptions,
    etcd: &Etcd,
    at: Revision,
    schema: JournalSchema,
    tasks: &TaskGroup,
) -> Result<Mirror, BoxError> {
    Ok(Mirror::load(etcd, &options.prefix, at, schema, options.watch_delay, tasks).await?)
}

fn broker_spec(options: &BrokerOptions, me: &MemberId, endpoint: &str, exiting: bool) -> bytes::Bytes {
    let process_spec = Some(ProcessSpec::new(me, endpoint));
    BrokerSpec { process_spec, journal_limit: options.journal_limit, exiting }.encode_to_vec().into()
}

fn watch_lease(membership: &Membership, tasks: &TaskGroup) {
    let (lost, stop) = (membership.lease().lost(), tasks.token().clone());
    tasks.spawn("lease", OnError::CancelGroup, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            reason = lost => Err(format!("unable to keep member lease alive: {reason}").into()),
        }
    });
}

fn append_options(options: &BrokerOptions, data_dir: &DataDir, tasks: &TaskGroup) -> AppendOptions {
    let limits = AppendLimits {
        max_rate: i64::from(options.max_append_rate),
        min_rate: i64::from(options.min_append_rate),
    };
    let grace = GraceOptions {
        grace: options.store_unhealthy_grace,
        free_bytes_min: options.store_unhealthy_min_free,
    };
    let (clock, disk) = (options.clock.clone(), Arc::clone(&options.disk));
    AppendOptions {
        limits,
        outages: Outages::new(grace, clock, tasks.child("outages"), disk, data_dir.path().to_owned()),
        pulse_interval: options.paces.pulse,
        auto_suspend: options.auto_suspend,
    }
}

/// What replicas need of etcd.
struct EtcdParts {
    marks: EtcdMarks,
    incarnation: u64,
    lease: Lease,
}

/// Connections to other brokers.
fn peers(options: &BrokerOptions, tls: &ClientTls) -> Peers {
    let calls = ClientCalls::new(&[gateway::SERVICE], &options.metrics, &options.clock);
    Peers::near(&options.zone, &options.clock, authorizer(options), tls.clone(), calls)
}

fn replica_deps(
    options: &BrokerOptions,
    data_dir: &DataDir,
    stores: &Stores,
    tls: &ClientTls,
    (mirror, etcd): (&Mirror, EtcdParts),
    groups: &Groups,
) -> ReplicaDeps {
    let EtcdParts { marks, incarnation, lease } = etcd;
    let tasks = groups.work.child("replicas");
    let names = journal_names(mirror);
    let mirror = mirror.clone();
    // Apart from the connections of requests, which may be many.
    let peers = peers(options, tls);
    let mut deps = ReplicaDeps::new(ReplicaParts {
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
        connector: Arc::new(GrpcConnector::new(&peers, &options.clock, &tasks)),
        marks: Arc::new(marks),
        incarnation,
        is_member: Arc::new(move || !lease.has_expired()),
        spec_of: Arc::new(move |journal, create_revision| {
            let key_space = mirror.snapshot();
            let item = key_space.items().get(journal.as_arc())?;
            (item.create_revision == create_revision).then(|| Arc::clone(&item.value))
        }),
        replica_upload: options.paces.replica_upload,
        tasks,
        stores: stores.clone(),
        metrics: options.metrics.clone(),
        disk: Arc::clone(&options.disk),
        data_dir: data_dir.path().to_owned(),
        durability: options.durability,
        names,
    });
    // Uploads outlive the replicas that they are of.
    deps.persister = deps.persister.within(&groups.stores);
    deps
}

/// The names of the journals which etcd has, now.
fn journal_names(mirror: &Mirror) -> NamesSource {
    let mirror = mirror.clone();
    Arc::new(move |directory: &str| {
        let key_space = mirror.snapshot();
        let from: Arc<str> = directory.into();
        let names = key_space.items().range(from..).map(|(name, _)| &**name);
        NamesBelow::of(directory, names)
    })
}

fn run_allocator(options: &BrokerOptions, mirror: &Mirror, me: &MemberId, tasks: &TaskGroup) {
    let stop = tasks.token().clone();
    let run = allocator::run(
        mirror.clone(),
        me.clone(),
        Arc::new(MaxFlowSolver),
        options.clock.clone(),
        options.metrics.clone(),
        tasks.clone(),
    );
    tasks.spawn("allocator", OnError::CancelGroup, async move {
        match run.await {
            // While stopping, the key and the mirror go away under the allocator.
            Err(AllocError::MirrorStopped(_) | AllocError::MemberNotFound(_)) if stop.is_cancelled() => {
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    });
}
