//! How long a shard stands still when its primary is killed, and a hot standby takes over.

use std::time::Duration;

use client::ShardClient;
use proto::consumer::ListRequest;
use proto::consumer::replica_status::Code;
use runtime::{BoxError, Clock};

use super::fixture::{Source, committed, consumer, create_journals, create_shards};
use crate::cluster::{Cluster, ClusterOptions};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(120);
/// Longest wait for one answer of a consumer whose peer may be dead.
const ANSWER_LIMIT: Duration = Duration::from_millis(200);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(2);
/// Lease of the processes, as an option and as a duration.
const LEASE: (&str, Duration) = ("2s", Duration::from_secs(2));

/// What may pass beyond the lease. More is a failure, and what the survivor said of it is shown.
const BEYOND_MAX: Duration = Duration::from_secs(10);

/// Kills the primary `rounds` times, and prints from the kill to the first commit of the standby, minus the lease.
///
/// # Errors
/// If a process misbehaves, or nobody takes over.
pub async fn failover(rounds: usize) -> Result<(), BoxError> {
    let clock = Clock::system();
    let mut cluster =
        Cluster::start(ClusterOptions { lease: LEASE.0, log_level: "info", ..ClusterOptions::default() })
            .await?;
    for index in 0..2 {
        cluster.start_summer(index).await?;
    }
    create_journals(&cluster, 1).await?;
    create_shards(&cluster, cluster.summer_address(0), 1, 1).await?;
    let source = Source::new(&cluster)?;
    let mut beyond_lease = Vec::new();
    for _ in 0..rounds {
        let primary = clock.timeout(LIMIT, ready_primary(&cluster)).await??;
        let survivor = consumer(&cluster, cluster.summer_address(1 - primary))?;
        let end = source.publish().await?;
        clock.timeout(LIMIT, committed(&survivor, 0, end)).await??;

        let killed = clock.now();
        cluster.kill_summer(primary).await?;
        let end = source.publish().await?;
        clock.timeout(LIMIT, committed_again(&survivor, end)).await?;
        let took = clock.now() - killed;
        if took > LEASE.1 + BEYOND_MAX {
            let survivor = cluster.summers[1 - primary].as_ref().ok_or("the survivor is gone")?;
            return Err(survivor.error(format!("took over only after {took:?}")).into());
        }
        beyond_lease.push(took.as_secs_f64() - LEASE.1.as_secs_f64());
        cluster.start_summer(primary).await?;
    }
    beyond_lease.sort_by(f64::total_cmp);
    let (p50, worst) = (beyond_lease[beyond_lease.len() / 2], beyond_lease[beyond_lease.len() - 1]);
    println!(
        "| SIGKILL of the primary to the first commit of its hot standby, minus the lease of {} ({rounds} times) | \
         p50 {:.0} ms | worst {:.0} ms |",
        LEASE.0,
        p50 * 1e3,
        worst * 1e3
    );
    Ok(())
}

/// Waits for a primary and a standby; gives the index of the primary's summer.
async fn ready_primary(cluster: &Cluster) -> Result<usize, BoxError> {
    let shards = consumer(cluster, cluster.summer_address(0))?;
    loop {
        if let Some(endpoint) = primary_if_ready(&shards).await? {
            return Ok(usize::from(endpoint != cluster.summer_address(0)));
        }
        cluster.clock().sleep(POLL).await;
    }
}

async fn primary_if_ready(shards: &ShardClient) -> Result<Option<String>, BoxError> {
    let listing = shards.list(ListRequest::default()).await?;
    let Some(shard) = listing.shards.into_iter().next() else { return Ok(None) };
    let mut codes: Vec<_> = shard.status.iter().map(|status| status.code()).collect();
    codes.sort_unstable();
    let route = shard.route.unwrap_or_default();
    let endpoint = usize::try_from(route.primary).ok().and_then(|index| route.endpoints.get(index).cloned());
    Ok(endpoint.filter(|_| codes == [Code::Standby, Code::Primary]))
}

/// Asks until the answer is that `end` was read through and committed. Until then the shard has no primary, or a dead one.
async fn committed_again(shards: &ShardClient, end: i64) {
    let clock = Clock::system();
    while !matches!(clock.timeout(ANSWER_LIMIT, committed(shards, 0, end)).await, Ok(Ok(()))) {
        clock.sleep(POLL).await;
    }
}
