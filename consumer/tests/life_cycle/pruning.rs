//! Recovery logs whose primaries prune them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use client::specs::JournalNode;
use consumer::Consumer;
use keyspace::{Etcd, EtcdOptions, Op, Txn};
use proto::consumer::GetHintsRequest;
use proto::recoverylog::FsmHints;
use runtime::Clock;

use crate::app::{COUNTS, Counter};
use crate::fixture::*;

/// Fragments as small as they may be, stored as soon as they are complete.
const LOG: &str = "
name: test/logs/counter
revision: -1
replication: 1
fragment: {length: 1024, compression_codec: NONE, refresh_interval: 1s, stores: ['file:///']}
labels: [{name: content-type, value: application/x-gazette-recoverylog}]
";
const WITH_BACKUP: &str = "recovery_log_prefix: test/logs, hint_prefix: /test/hints, hint_backups: 1";

struct Pruning {
    fixture: Fixture,
    published: u64,
}

impl Pruning {
    async fn start() -> Pruning {
        let fixture = Fixture::start().await;
        let log = JournalNode::parse(LOG).unwrap().to_apply_request().unwrap();
        fixture.broker.client().unwrap().apply(log).await.unwrap();
        Pruning { fixture, published: 0 }
    }

    fn store(&self) -> PathBuf {
        self.fixture.broker.dir().join("data/fragments")
    }

    async fn member(&self) -> Consumer {
        let file_root = Some(self.store());
        let adjust = |options: &mut consumer::ConsumerOptions| {
            options.prune_interval = Some(Duration::from_millis(100));
            options.file_root = file_root;
        };
        self.fixture.member_with(&Counter::default(), adjust).await
    }

    /// Counts keys, in transactions of a few, and checks every count so far.
    async fn count(&mut self, member: &Consumer, keys: usize) {
        let shards = self.fixture.shards(member);
        wait_for(&shards, |shard| is_primary_at(shard, member)).await;
        let mut end = 0;
        for _ in 0..keys {
            end = self.fixture.publish(&["a"]).await;
            stat(&shards, end).await.unwrap();
            self.published += 1;
        }
        let publish_at = stat(&shards, end).await.unwrap().publish_at[COUNTS];
        let expected: Vec<_> = (1..=self.published).map(|count| ("a".to_owned(), count)).collect();
        assert_eq!(self.fixture.counts(publish_at).await, expected);
    }

    /// Bounds of the stored fragments of the log.
    fn fragments(&self) -> BTreeMap<i64, i64> {
        let files = std::fs::read_dir(self.store().join("test/logs/counter")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let bounds = names.filter_map(|name| {
            let mut parts = name.split('-').map(|part| i64::from_str_radix(part, 16));
            Some((parts.next()?.ok()?, parts.next()?.ok()?))
        });
        bounds.collect()
    }

    /// Waits until the log's beginning is gone, and gives the offset where it begins.
    async fn pruned(&self, beyond: i64) -> i64 {
        let clock = Clock::system();
        let first = || self.fragments().keys().next().copied().unwrap_or(0);
        let pruned = async {
            while first() <= beyond {
                clock.sleep(Duration::from_millis(10)).await;
            }
        };
        clock.timeout(Duration::from_secs(30), pruned).await.unwrap();
        first()
    }

    /// The stored hints: the primary's, and the backup.
    async fn hints(&self, member: &Consumer) -> [Option<FsmHints>; 2] {
        let request = GetHintsRequest { shard: "counter".to_owned(), ..GetHintsRequest::default() };
        let response = self.fixture.shards(member).get_hints(request).await.unwrap();
        let backup = response.backup_hints.into_iter().next();
        [response.primary_hints, backup].map(|stored| stored.and_then(|stored| stored.hints))
    }
}

/// Where the first live file of these hints begins.
fn begin(hints: &FsmHints) -> i64 {
    hints.live_nodes.iter().flat_map(|node| &node.segments).map(|s| s.first_offset).min().unwrap()
}

#[tokio::test]
async fn a_primary_prunes_its_log_and_keeps_what_a_backup_of_hints_needs() {
    let mut pruning = Pruning::start().await;
    let first = pruning.member().await;
    pruning.fixture.create(&pruning.fixture.shards(&first), WITH_BACKUP).await;
    pruning.count(&first, 20).await;
    // The backup is of the empty log, and speaks of no file: nothing is pruned.
    first.stop().await.unwrap();
    assert_eq!(pruning.fragments().keys().next(), Some(&0));

    // A second primary has a backup of files, and its own hints are no older.
    let second = pruning.member().await;
    pruning.count(&second, 20).await;
    let begins_at = pruning.pruned(0).await;
    let [_, backup] = pruning.hints(&second).await;
    let backup = backup.unwrap();
    assert!(begins_at <= begin(&backup), "{begins_at} is after {backup:?}");
    let stored = pruning.fragments();
    let gaps = stored.iter().zip(stored.keys().skip(1)).filter(|((_, end), next)| end != next);
    assert_eq!(gaps.count(), 0, "{stored:?}");
    second.stop().await.unwrap();

    // The primary's hints are lost: the backup alone leads to everything.
    let options = EtcdOptions {
        lease_ttl: Duration::from_secs(10),
        tls: Default::default(),
        clock: Clock::system(),
        tasks: pruning.fixture.tasks.clone(),
    };
    let etcd = Etcd::connect(pruning.fixture.broker.endpoint(), options).await.unwrap();
    let key = "/test/hints/counter.primary".to_owned();
    assert!(etcd.get(&key).await.unwrap().is_some());
    etcd.txn(Txn { then: vec![Op::Delete { key }], ..Txn::default() }).await.unwrap();
    let third = pruning.member().await;
    pruning.count(&third, 20).await;

    // And the third prunes on, once the backup moved with it.
    let later = pruning.pruned(begins_at).await;
    assert!(later <= begin(&pruning.hints(&third).await[1].clone().unwrap()));
    third.kill().await;
    let fourth = pruning.member().await;
    pruning.count(&fourth, 3).await;
    fourth.stop().await.unwrap();
    pruning.fixture.stop().await;
}

#[tokio::test]
async fn hints_which_cannot_be_read_keep_every_log() {
    let mut pruning = Pruning::start().await;
    let first = pruning.member().await;
    pruning.fixture.create(&pruning.fixture.shards(&first), WITH_BACKUP).await;
    pruning.count(&first, 20).await;
    first.stop().await.unwrap();

    // A specification which this process cannot read, as of another release.
    let options = EtcdOptions {
        lease_ttl: Duration::from_secs(10),
        tls: Default::default(),
        clock: Clock::system(),
        tasks: pruning.fixture.tasks.clone(),
    };
    let etcd = Etcd::connect(pruning.fixture.broker.endpoint(), options).await.unwrap();
    let (key, value) = ("/test/counters/items/other".to_owned(), b"\xff\xff".as_slice().into());
    let then = vec![Op::Put { key: key.clone(), value, lease: keyspace::PutLease::None }];
    etcd.txn(Txn { then, ..Txn::default() }).await.unwrap();

    let mut metrics = None;
    let file_root = Some(pruning.store());
    let adjust = |options: &mut consumer::ConsumerOptions| {
        options.prune_interval = Some(Duration::from_millis(20));
        options.file_root = file_root;
        metrics = Some(options.metrics.clone());
    };
    let second = pruning.fixture.member_with(&Counter::default(), adjust).await;
    pruning.count(&second, 20).await;
    let rounds = || {
        let families = metrics.as_ref().unwrap().registry().gather();
        let family = families.iter().find(|family| family.name() == "courant_prune_rounds_total").unwrap();
        family.get_metric()[0].get_counter().get_value()
    };
    let (clock, before) = (Clock::system(), rounds());
    while rounds() < before + 5.0 {
        clock.sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pruning.fragments().keys().next(), Some(&0));

    etcd.txn(Txn { then: vec![Op::Delete { key }], ..Txn::default() }).await.unwrap();
    pruning.pruned(0).await;
    second.stop().await.unwrap();
    pruning.fixture.stop().await;
}
