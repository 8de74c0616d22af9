//! Recovery logs of summers which are pruned by command: the summers recover from what is left, and every sum is right.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tests::cluster::{Cluster, ClusterOptions};
use tests::load::Load;

/// Longest wait for what the processes do next.
const LIMIT: Duration = Duration::from_secs(120);
const SHARDS: usize = 8;
/// The logs, with small fragments which are stored as soon as they are complete.
const LOGS: &str = "
name: examples/stream-sum/recovery-logs/
replication: 1
fragment: {length: 4096, compression_codec: SNAPPY, refresh_interval: 1s, stores: ['file:///']}
labels: [{name: content-type, value: application/x-gazette-recoverylog}]
children: [";

/// Stored fragments of recovery logs, as paths below the store.
fn fragments(store: &Path) -> BTreeSet<String> {
    let logs = Path::new("examples/stream-sum/recovery-logs");
    let mut found = BTreeSet::new();
    for log in std::fs::read_dir(store.join(logs)).into_iter().flatten() {
        let log = log.unwrap();
        for file in std::fs::read_dir(log.path()).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            // A file which is still being written has another name.
            if name.ends_with(".sz") {
                found.insert(format!("{}/{}/{name}", logs.display(), log.file_name().to_str().unwrap()));
            }
        }
    }
    found
}

/// What a run of `prune` says that it deletes.
fn deleted(stdout: &str) -> BTreeSet<String> {
    stdout.lines().map(|line| line.strip_prefix("file:/// ").unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn summers_recover_from_pruned_logs() {
    let mut cluster = Cluster::start(ClusterOptions { lease: "2s", ..Default::default() }).await.unwrap();
    cluster.start_summer(0).await.unwrap();
    cluster.apply_stream_sum_journals().await.unwrap();
    let specs = cluster.dir().join("logs.yaml");
    let logs: Vec<_> = (0..SHARDS)
        .map(|i| format!("{{name: examples/stream-sum/recovery-logs/chunks-part-00{i}, revision: -1}}"))
        .collect();
    std::fs::write(&specs, format!("{LOGS}{}]", logs.join(", "))).unwrap();
    cluster.courant(&["journals", "apply", "--specs", specs.to_str().unwrap()]).await.unwrap();
    cluster.apply_stream_sum_shards().await.unwrap();
    cluster.wait_shards_primary(0, SHARDS, LIMIT).await.unwrap();
    let mut load = Load::start(&cluster, 2, 8).unwrap();
    load.wait_verified(20, LIMIT).await.unwrap();

    let store = cluster.data_dir().join("fragments");
    let file_root = format!("--broker.file-root={}", store.display());
    let consumer = |cluster: &Cluster| format!("--consumer.address={}", cluster.summer_address(0));
    let selector = "id:prefix=chunks-part-";

    // The only backup of hints is of the empty log, so that all is kept.
    let address = consumer(&cluster);
    let prune = ["shards", "prune", "-l", selector, &file_root, &address];
    let (succeeded, stdout, process) = cluster.courant_status(&prune).await.unwrap();
    assert_eq!((succeeded, stdout.as_str()), (true, ""), "{}", process.stderr_tail());
    let said = process.stderr_tail();
    assert!(said.contains("skipped 8 logs") && said.contains("hints speak of no files"), "{said}");

    // Each recovery verifies hints, which become a backup.
    for _ in 0..3 {
        cluster.kill_summer(0).await.unwrap();
        cluster.start_summer(0).await.unwrap();
        cluster.wait_shards_primary(0, SHARDS, LIMIT).await.unwrap();
        let verified = load.verified();
        load.wait_verified(verified + 20, LIMIT).await.unwrap();
    }

    let address = consumer(&cluster);
    let prune = ["shards", "prune", "-l", selector, &file_root, &address];
    let before = fragments(&store);
    let dry = deleted(&cluster.courant(&[&prune[..], &["--dry-run"]].concat()).await.unwrap());
    assert!(!dry.is_empty() && dry.is_subset(&fragments(&store)), "{dry:?}");
    let (succeeded, stdout, process) = cluster.courant_status(&prune).await.unwrap();
    assert!(succeeded, "{}", process.stderr_tail());
    let gone = deleted(&stdout);
    assert!(dry.is_subset(&gone), "{dry:?} {gone:?}");
    let left = fragments(&store);
    assert_eq!(gone.intersection(&left).collect::<Vec<_>>(), Vec::<&String>::new());
    let kept: BTreeSet<_> = before.difference(&gone).collect();
    assert_eq!(kept.iter().filter(|path| !left.contains(**path)).collect::<Vec<_>>(), Vec::<&&String>::new());
    let logs: BTreeSet<_> = gone.iter().map(|path| path.rsplit_once('/').unwrap().0).collect();
    assert_eq!(logs.len(), SHARDS, "every log was pruned: {gone:?}");

    // Neither the broker nor the summer has anything left of it.
    cluster.kill_summer(0).await.unwrap();
    cluster.kill_broker().await.unwrap();
    cluster.start_broker().await.unwrap();
    cluster.start_summer(0).await.unwrap();
    cluster.wait_shards_primary(0, SHARDS, LIMIT).await.unwrap();
    let verified = load.verified();
    load.wait_verified(verified + 20, LIMIT).await.unwrap();
    let totals = load.finish(LIMIT).await.unwrap();
    assert_eq!((totals.mismatches, totals.duplicates), (0, 0));
}
