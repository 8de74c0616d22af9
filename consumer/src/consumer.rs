//! A member of a consumer group, within a process: starts its parts in order, and stops them in the reverse one.
//!
//! The port opens first, so that the member can announce where it is reached. Requests wait until the mirror of etcd is
//! loaded. Leaving in order asks the group to take over, and waits for that as long as it could happen: meanwhile shards are
//! served, and each ends its transaction when it is taken. Those which nobody takes end theirs last. Then the lease is given
//! back.

use std::sync::Arc;
use std::time::Duration;

use allocator::{AllocError, MaxFlowSolver};
use auth::Authorizer;
use axum::Router;
use client::{ClientOptions, JournalClient};
use fragment::compress::Levels;
use keyspace::{Etcd, EtcdOptions, Membership, Predecessor};
use prost::Message;
use proto::MemberId;
use proto::consumer::ConsumerSpec;
use proto::protocol::ProcessSpec;
use runtime::grpc_metrics::{self, ClientCalls};
use runtime::introspection::{self, Health};
use runtime::server::{self, Listener};
use runtime::tls::{ClientTls, ServerTls};
use runtime::{BoxError, CancellationToken, OnError, TaskGroup, json_gateway};
use stores::{Environment, StoreTimes, Stores, StoresConfig};
use tokio::sync::watch;

use crate::config::ConsumerOptions;
use crate::drain;
use crate::metrics::ConsumerMetrics;
use crate::prune::LogPruner;
use crate::schema::{ConsumerSchema, Mirror};
use crate::service::ShardService;
use crate::shard::{Process, ShardSet};
use crate::{Admission, Application, InitContext, Peers, Resolver};

/// Open requests may go on for this long once the process leaves.
const SERVER_DRAIN: Duration = Duration::from_secs(15);
/// How long shards may take to finish their transactions.
const CEDE_LIMIT: Duration = Duration::from_secs(15);
/// How long tasks may take to notice that they are cancelled.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// Full name of the service.
const SERVICE: &str = "consumer.Shard";
/// Methods of it that are served as JSON.
const JSON_RULES: [json_gateway::Rule; 2] = [
    json_gateway::Rule { path: "/v1/shards/list", service: SERVICE, method: "List" },
    json_gateway::Rule { path: "/v1/shards/stat", service: SERVICE, method: "Stat" },
];

/// A running member of a consumer group.
pub struct Consumer {
    options: ConsumerOptions,
    endpoint: String,
    groups: Groups,
    health: Health,
    shards: ShardSet,
    resolver: Resolver,
    schema: ConsumerSchema,
    membership: Membership,
    lease_lost: CancellationToken,
    /// `true` once the allocator has let this member go.
    released: watch::Receiver<bool>,
}

/// Tasks, by the order in which they are stopped.
#[derive(Clone)]
struct Groups {
    /// Mirror, shards, allocator.
    work: TaskGroup,
    /// The client of brokers.
    client: TaskGroup,
    /// Lease.
    member: TaskGroup,
    /// Port.
    server: TaskGroup,
}

impl Groups {
    fn new() -> Groups {
        let group = TaskGroup::new;
        Groups {
            work: group("consumer"),
            client: group("client"),
            member: group("member"),
            server: group("server"),
        }
    }

    fn in_order(&self) -> [&TaskGroup; 4] {
        [&self.work, &self.client, &self.member, &self.server]
    }

    async fn stop(&self, server_drain: Duration) -> Result<(), BoxError> {
        let mut first_error = Ok(());
        for group in self.in_order() {
            group.cancel();
            let is_server = group.name() == self.server.name();
            let limit = JOIN_LIMIT + if is_server { server_drain } else { Duration::ZERO };
            first_error = first_error.and(group.join_within(limit).await);
        }
        first_error
    }
}

impl Consumer {
    /// Starts a member which runs `app`, and waits until it answers requests.
    ///
    /// # Errors
    /// If the port is taken, the broker's address malformed, or etcd out of reach.
    pub async fn start<A: Application>(app: A, options: ConsumerOptions) -> Result<Consumer, BoxError> {
        let groups = Groups::new();
        // On the heap, as it is large, and so would be each future that awaits it.
        match Box::pin(Consumer::start_in(&groups, app, options)).await {
            Ok(consumer) => Ok(consumer),
            Err(error) => {
                drop(groups.stop(Duration::ZERO).await);
                Err(error)
            }
        }
    }

    async fn start_in<A: Application>(
        groups: &Groups,
        app: A,
        options: ConsumerOptions,
    ) -> Result<Consumer, BoxError> {
        let client = journal_client(&options, groups)?;
        let clock = &options.clock;
        let tls = options.server_tls.clone().map(|files| ServerTls::load(files, clock)).transpose()?;
        let peer_tls = ClientTls::load(options.peer_tls.clone(), clock)?;
        let listener = Listener::bind(&options.bind).await?.with_tls(tls);
        let endpoint = listener.endpoint(&options.host);
        let etcd_options = EtcdOptions {
            lease_ttl: options.lease_ttl,
            tls: ClientTls::load(options.etcd_tls.clone(), clock)?,
            clock: options.clock.clone(),
            tasks: groups.member.clone(),
        };
        let etcd = Etcd::connect(&options.etcd, etcd_options).await?;
        let spec = consumer_spec(&options, &endpoint, false);
        let announced = Membership::announce(
            &etcd,
            &options.prefix,
            &options.member,
            spec,
            options.lease_ttl,
            Predecessor::Wait,
        );
        let (membership, revision) = announced.await?;
        let lease_lost = watch_lease(&membership, &groups.member);

        let schema = ConsumerSchema { max_hot_standbys: options.max_hot_standbys };
        let mirror =
            Mirror::load(&etcd, &options.prefix, revision, schema, options.watch_delay, &groups.work).await?;
        let journals = client.clone();
        let process = Arc::new(Process {
            app,
            me: options.member.clone(),
            mirror: mirror.clone(),
            clock: options.clock.clone(),
            entropy: options.entropy.clone(),
            client,
            metrics: ConsumerMetrics::new(&options.metrics),
            publish_clock_delta: options.publish_clock_delta,
            hint_growth_bytes: options.hint_growth_bytes,
            lease_lost: lease_lost.clone(),
        });
        let shards = ShardSet::start(Arc::clone(&process), &groups.work);
        prune_logs(&options, &mirror, &shards, journals.clone(), &groups.work);
        let resolver = Resolver::new(options.member.clone(), mirror.clone(), shards.clone());
        let context = InitContext {
            resolver: resolver.clone(),
            admission: Admission::new(options.auth_keys.clone(), clock.clone()),
            peers: peers(&options, peer_tls),
            journals,
            tasks: groups.client.child("application"),
            clock: options.clock.clone(),
            max_message_bytes: options.max_message_bytes,
        };
        let apis = process.app.init_application(&context)?;
        let released = run_allocator(&options, &mirror, &lease_lost, &groups.work);
        let health = serve(&options, listener, &context, apis, groups).await?;
        health.serving().await;
        let groups = groups.clone();
        Ok(Consumer {
            options,
            endpoint,
            groups,
            health,
            shards,
            resolver,
            schema,
            membership,
            lease_lost,
            released,
        })
    }

    /// The URL under which others reach this process.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The member that this process is.
    pub fn id(&self) -> &MemberId {
        &self.options.member
    }

    /// Finds shards, here and elsewhere.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Waits until a part of the process has failed, or its lease is lost; it then cannot go on.
    pub async fn failed(&self) {
        let tokens = self.groups.in_order().map(|group| Box::pin(group.token().cancelled()));
        tokio::select! {
            biased;
            () = self.lease_lost.cancelled() => {}
            _ = futures::future::select_all(tokens) => {}
        }
    }

    /// Leaves in order. See the module.
    ///
    /// # Errors
    /// The first failure of a part, before or while stopping. The process has stopped nevertheless.
    pub async fn stop(mut self) -> Result<(), BoxError> {
        self.health.not_serving().await;
        let is_lost = self.lease_lost.is_cancelled();
        let has_failed = self.groups.in_order().iter().any(|group| group.token().is_cancelled());
        if !is_lost && !has_failed {
            self.hand_over().await;
        }
        self.within_limit(self.shards.stop()).await;
        // Before the member key goes away, whose absence would alarm them.
        self.groups.work.cancel();
        if !is_lost && let Err(error) = self.membership.revoke().await {
            tracing::warn!(%error, "cannot revoke the lease; it ends by itself");
        }
        self.health.end().await;
        let stopped = self.groups.stop(SERVER_DRAIN).await;
        if is_lost { Err(LEASE_LOST.into()) } else { stopped }
    }

    /// Stops at once, as a crash would: transactions are abandoned, and the lease ends by itself. For tests.
    pub async fn kill(self) {
        self.groups.in_order().iter().for_each(|group| group.cancel());
        drop(self.groups.stop(Duration::ZERO).await);
    }

    /// Waits for shards which end, but not for ever.
    async fn within_limit(&self, ended: impl Future<Output = ()>) {
        if self.options.clock.timeout(CEDE_LIMIT, ended).await.is_err() {
            tracing::warn!(limit = ?CEDE_LIMIT, "shards did not finish their transactions in time");
        }
    }

    /// Asks the others to take the shards of this process, and waits for it as long as they could.
    async fn hand_over(&mut self) {
        let spec = consumer_spec(&self.options, &self.endpoint, true);
        if let Err(error) = self.membership.update(spec).await {
            tracing::warn!(%error, "cannot announce the exit");
            return;
        }
        let mut spaces = self.resolver.mirror().subscribe();
        let (me, schema) = (&self.options.member, &self.schema);
        let nothing_to_wait_for =
            spaces.wait_for(|key_space| !drain::is_worth_waiting(key_space, schema, me));
        tokio::select! {
            biased;
            () = self.lease_lost.cancelled() => {}
            _ = nothing_to_wait_for => {}
            _ = self.released.wait_for(|released| *released) => {}
            () = self.options.clock.sleep(self.options.drain_timeout) => {
                tracing::warn!(timeout = ?self.options.drain_timeout, "other processes did not take over in time");
            }
        }
    }
}

/// Why a process which lost its lease ends.
const LEASE_LOST: &str =
    "unable to keep member lease alive: others may have taken over the shards of this process";

fn journal_client(options: &ConsumerOptions, groups: &Groups) -> Result<JournalClient, BoxError> {
    let client = ClientOptions {
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
        tasks: groups.client.clone(),
        zone: options.member.zone.to_string(),
        cache_size: options.route_cache_size,
        cache_ttl: options.route_cache_ttl,
        file_root: options.file_root.clone(),
        tls: ClientTls::load(options.broker_tls.clone(), &options.clock)?,
        metrics: Some(options.metrics.clone()),
        authorizer: options.broker_authorizer.clone(),
    };
    Ok(JournalClient::new(&options.broker, client)?)
}

/// Connections to the other processes of the group.
fn peers(options: &ConsumerOptions, tls: ClientTls) -> Peers {
    let authorizer = options.auth_keys.clone().map_or_else(Authorizer::none, Authorizer::signing);
    let calls = ClientCalls::new(&[SERVICE], &options.metrics, &options.clock);
    Peers::new(authorizer, tls, calls, options.clock.clone())
}

fn consumer_spec(options: &ConsumerOptions, endpoint: &str, exiting: bool) -> bytes::Bytes {
    let process_spec = Some(ProcessSpec::new(&options.member, endpoint));
    ConsumerSpec { process_spec, shard_limit: options.shard_limit, exiting }.encode_to_vec().into()
}

/// A token which is cancelled when the lease is lost.
fn watch_lease(membership: &Membership, tasks: &TaskGroup) -> CancellationToken {
    let token = CancellationToken::new();
    let (lost, stop, lease_lost) = (membership.lease().lost(), tasks.token().clone(), token.clone());
    tasks.spawn("lease", OnError::Log, async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            reason = lost => {
                tracing::error!(%reason, "{LEASE_LOST}");
                lease_lost.cancel();
            }
        }
        Ok(())
    });
    token
}

async fn serve(
    options: &ConsumerOptions,
    listener: Listener,
    context: &InitContext,
    apis: Router,
    groups: &Groups,
) -> Result<Health, BoxError> {
    let InitContext { resolver, peers, admission, clock, .. } = context.clone();
    let service = ShardService::new(resolver, peers, clock, admission);
    let shards = service.into_routes(options.max_message_bytes);
    let shards = grpc_metrics::counted(shards, SERVICE, &options.metrics, &options.clock);
    let (origins, request_max) = (&options.allow_origin, options.max_message_bytes);
    let json = json_gateway::router(&shards, &JSON_RULES, origins, request_max, &options.clock);
    let (routes, health) = introspection::add(shards, SERVICE).await?;
    let routes = routes.into_axum_router().merge(json).merge(apis.reset_fallback());
    let metrics = options.metrics.clone();
    let debug = match options.debug_private {
        true => server::ready_router(),
        false => server::debug_router(metrics.clone()),
    };
    let spawn = |listener, router| {
        let tasks = groups.server.clone();
        let serve = server::serve(listener, router, tasks.clone(), options.clock.clone(), SERVER_DRAIN);
        tasks.spawn("listener", OnError::CancelGroup, serve);
    };
    spawn(listener, routes.merge(debug).fallback(server::not_found));
    if let Some(bind) = &options.debug_bind {
        spawn(Listener::bind(bind).await?, server::debug_router(metrics));
    }
    Ok(health)
}

/// Prunes the logs of this process's shards, if that was asked for.
fn prune_logs(
    options: &ConsumerOptions,
    mirror: &Mirror,
    shards: &ShardSet,
    client: JournalClient,
    tasks: &TaskGroup,
) {
    let Some(interval) = options.prune_interval else { return };
    // Stores check their health by writing an object, unless their group is cancelled. Nothing is written here.
    let quiet = tasks.child("stores");
    quiet.cancel();
    let stores = Stores::new(StoresConfig {
        file_root: options.file_root.clone(),
        default_root: None,
        file_only: false,
        environment: Environment::of_process(),
        levels: Levels::default(),
        times: StoreTimes::default(),
        clock: options.clock.clone(),
        entropy: options.entropy.clone(),
        tasks: quiet,
        metrics: options.metrics.clone(),
    });
    let time = (options.clock.clone(), interval);
    let pruner = LogPruner::new(mirror.clone(), shards.clone(), client, stores, time, &options.metrics);
    tasks.spawn("prune recovery logs", OnError::Log, pruner.run(tasks.token().clone()));
}

fn run_allocator(
    options: &ConsumerOptions,
    mirror: &Mirror,
    lease_lost: &CancellationToken,
    tasks: &TaskGroup,
) -> watch::Receiver<bool> {
    let lease_lost = lease_lost.clone();
    let (release, released) = watch::channel(false);
    let stop = tasks.token().clone();
    let run = allocator::run(
        mirror.clone(),
        options.member.clone(),
        Arc::new(MaxFlowSolver),
        options.clock.clone(),
        options.metrics.clone(),
        tasks.clone(),
    );
    tasks.spawn("allocator", OnError::CancelGroup, async move {
        match run.await {
            Ok(()) => {
                release.send_replace(true);
                Ok(())
            }
            // While stopping, the key and the mirror go away under the allocator.
            Err(AllocError::MirrorStopped(_) | AllocError::MemberNotFound(_)) if stop.is_cancelled() => {
                Ok(())
            }
            // The key goes with the lease. Shards are to find out whether they are fenced, so they are not cancelled.
            Err(error @ AllocError::MemberNotFound(_)) => {
                tracing::error!(%error, "{LEASE_LOST}");
                lease_lost.cancel();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    });
    released
}
