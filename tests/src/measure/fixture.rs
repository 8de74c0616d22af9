//! A source of chunks, and shards which read it.

use std::fmt::Write;

use client::{AppendService, ClientError, ClientOptions, JournalClient, Publisher, ShardClient};
use message::Framing;
use message::mapping::Target;
use proto::JournalName;
use proto::consumer::StatRequest;
use runtime::{BoxError, Entropy};
use stream_sum::{Chunk, StreamId};

use crate::cluster::Cluster;

/// Journal which all shards read.
pub const SOURCE: &str = "bench/chunks";

/// Name of the shard of this number.
pub fn shard(number: usize) -> String {
    format!("shard-{number:04}")
}

/// Changes in one transaction of etcd.
const BATCH: &str = "--max-txn-size=50";

/// Creates the source, the sums and the recovery logs of `count` shards.
pub async fn create_journals(cluster: &Cluster, count: usize) -> Result<(), BoxError> {
    let mut yaml = "name: ''\nreplication: 1\n\
        fragment: {length: 268435456, compression_codec: SNAPPY, refresh_interval: 60s, stores: ['file:///']}\n\
        children:\n\
        - {name: bench/chunks, labels: [{name: content-type, value: application/x-ndjson}]}\n\
        - name: bench/logs/\n  labels: [{name: content-type, value: application/x-gazette-recoverylog}]\n  children:\n"
        .to_owned();
    for number in 0..count {
        writeln!(yaml, "  - {{name: bench/logs/{}}}", shard(number))?;
    }
    yaml +=
        "- {name: examples/stream-sum/sums, labels: [{name: content-type, value: application/x-ndjson}]}\n";
    let path = cluster.dir().join("journals.yaml");
    std::fs::write(&path, yaml)?;
    cluster.courant(&["journals", "apply", BATCH, "--specs", &path.display().to_string()]).await?;
    Ok(())
}

/// Creates `count` shards through the consumer at `address`.
pub async fn create_shards(
    cluster: &Cluster,
    address: &str,
    count: usize,
    standbys: usize,
) -> Result<(), BoxError> {
    let mut yaml = format!(
        "common: {{recovery_log_prefix: bench/logs, hint_prefix: /gazette/hints/bench, hint_backups: 2, \
         max_txn_duration: 1s, hot_standbys: {standbys}}}\nshards:\n"
    );
    for number in 0..count {
        writeln!(yaml, "- {{id: {}, sources: [{{journal: {SOURCE}}}]}}", shard(number))?;
    }
    let path = cluster.dir().join("shards.yaml");
    std::fs::write(&path, yaml)?;
    let (consumer, path) = (format!("--consumer.address={address}"), path.display().to_string());
    cluster.courant(&["shards", "apply", BATCH, &consumer, "--specs", &path]).await?;
    Ok(())
}

/// Publishes chunks of new streams.
pub struct Source {
    publisher: Publisher,
    entropy: Entropy,
}

impl Source {
    /// Publishes to [`SOURCE`].
    pub fn new(cluster: &Cluster) -> Result<Source, BoxError> {
        let options = ClientOptions::new(cluster.tasks().clone());
        let client = JournalClient::new(&cluster.broker_address(), options)?;
        let appends = AppendService::new(client, cluster.tasks().clone());
        Ok(Source { publisher: Publisher::new(appends, None), entropy: Entropy::system() })
    }

    /// Publishes one chunk; gives the end of the journal behind it.
    pub async fn publish(&self) -> Result<i64, BoxError> {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        let chunk = Chunk { id: StreamId(id), seq_no: 1, data: vec![7; 32], ..Chunk::default() };
        let target = Target { journal: JournalName::parse(SOURCE)?, framing: Framing::Json };
        let published = self.publisher.publish_committed(|_| Ok(target), chunk)?.await?;
        Ok(published.commit.as_ref().map_or(0, |commit| commit.end))
    }
}

/// A client of the consumer at `address`.
pub fn consumer(cluster: &Cluster, address: &str) -> Result<ShardClient, BoxError> {
    Ok(ShardClient::new(address, ClientOptions::new(cluster.tasks().clone()))?)
}

/// Waits until a shard has committed what it read through `end`.
pub async fn committed(shards: &ShardClient, number: usize, end: i64) -> Result<(), ClientError> {
    let read_through = [(SOURCE.to_owned(), end)].into();
    let request = StatRequest { shard: shard(number), read_through, ..StatRequest::default() };
    shards.stat(request).await.map(drop)
}
