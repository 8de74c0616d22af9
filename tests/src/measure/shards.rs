//! What hundreds of idle shards cost one process.

use std::time::Duration;

use proto::consumer::ListRequest;
use proto::consumer::replica_status::Code;
use runtime::BoxError;

use super::fixture::{Source, committed, consumer, create_journals, create_shards};
use crate::cluster::{Cluster, ClusterOptions, served_endpoint};
use crate::process::{Launch, Process, binary};

/// Longest wait for all shards to be primary, or to commit.
const LIMIT: Duration = Duration::from_secs(600);
/// How long CPU time is counted while nothing happens.
const IDLE: Duration = Duration::from_secs(20);
/// Unit of CPU time in /proc, the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(200);

/// What the operating system says of a process.
#[derive(Clone, Copy, Debug)]
struct Usage {
    resident_bytes: u64,
    threads: u64,
    cpu_seconds: f64,
    files: usize,
}

/// Runs `count` shards in one summer, and prints what each costs while idle.
///
/// # Errors
/// If a process misbehaves, or the shards do not become primary.
pub async fn shards(count: usize) -> Result<(), BoxError> {
    let cluster = Cluster::start(ClusterOptions { lease: "30s", ..ClusterOptions::default() }).await?;
    create_journals(&cluster, count).await?;
    let (summer, address) = start_summer(&cluster, count).await?;
    let clock = cluster.clock();
    let before = usage(&summer)?;
    create_shards(&cluster, &address, count, 0).await?;
    let shards = consumer(&cluster, &address)?;
    let began = clock.now();
    let all_primary = async {
        loop {
            let listing = shards.list(ListRequest::default()).await?;
            let is_primary = |status: &proto::consumer::ReplicaStatus| status.code() == Code::Primary;
            if listing.shards.iter().filter(|shard| shard.status.iter().any(is_primary)).count() == count {
                return Ok::<_, BoxError>(());
            }
            clock.sleep(POLL).await;
        }
    };
    clock.timeout(LIMIT, all_primary).await??;
    println!("| {count} new shards are primary after | {:.1} s | |", (clock.now() - began).as_secs_f64());
    idle(&cluster, &summer, count, before, "shard, new").await?;

    let end = Source::new(&cluster)?.publish().await?;
    for number in 0..count {
        clock.timeout(LIMIT, committed(&shards, number, end)).await??;
    }
    idle(&cluster, &summer, count, before, "shard, after one transaction").await
}

/// Starts a summer which takes `count` shards.
async fn start_summer(cluster: &Cluster, count: usize) -> Result<(Process, String), BoxError> {
    let args = [
        "serve".to_owned(),
        format!("--broker.address={}", cluster.broker_address()),
        format!("--consumer.limit={count}"),
        "--etcd.lease=30s".to_owned(),
    ];
    let work = cluster.dir().join("summer");
    std::fs::create_dir_all(&work)?;
    let launch =
        Launch::new("summer", binary("summer"), args, &work).env("TMPDIR", &work.display().to_string());
    let mut summer = Process::start(&launch, cluster.tasks())?;
    let address = summer.wait_line("serving on http://", LIMIT, served_endpoint).await?;
    Ok((summer, address))
}

/// Prints what `count` idle shards cost a summer which used `before` without them.
async fn idle(
    cluster: &Cluster,
    summer: &Process,
    count: usize,
    before: Usage,
    what: &str,
) -> Result<(), BoxError> {
    let begin = usage(summer)?;
    cluster.clock().sleep(IDLE).await;
    let end = usage(summer)?;
    let memory = end.resident_bytes.saturating_sub(before.resident_bytes) / count as u64;
    let cpu = (end.cpu_seconds - begin.cpu_seconds) / IDLE.as_secs_f64() * 100.0;
    println!(
        "| one summer, {count} idle shards: memory per {what} | {} KiB | {} MiB without shards |",
        memory / 1024,
        before.resident_bytes >> 20
    );
    println!("| … CPU of the process | {cpu:.1} % of one core | |");
    println!(
        "| … threads, open files | {}, {} | {} threads without |",
        end.threads, end.files, before.threads
    );
    Ok(())
}

fn usage(process: &Process) -> Result<Usage, BoxError> {
    let proc = format!("/proc/{}", process.pid());
    let status = std::fs::read_to_string(format!("{proc}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let value =
            line.and_then(|line| line.split_whitespace().next()).and_then(|text| text.parse::<u64>().ok());
        value.ok_or_else(|| format!("no {name} in {proc}/status"))
    };
    let stat = std::fs::read_to_string(format!("{proc}/stat"))?;
    // Fields are counted from the end of the name, which may hold anything.
    let ticks: u64 = stat
        .rsplit(')')
        .next()
        .map(|rest| {
            rest.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<u64>().ok()).sum()
        })
        .unwrap_or(0);
    Ok(Usage {
        resident_bytes: field("VmRSS:")? << 10,
        threads: field("Threads:")?,
        cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
        files: std::fs::read_dir(format!("{proc}/fd"))?.count(),
    })
}
