//! Killed at random moments, over and over, while chunkers run and appenders append: every sum is right and arrives once,
//! and every acknowledged append is in its journal once, at its offset, before and after a restart.

use std::time::Duration;

use rand::RngExt;
use tests::cluster::{Cluster, ClusterOptions};
use tests::load::Load;
use tests::seed;

/// Longest wait for verified streams to go on after a kill: the lease, the recovery and a slow machine.
const PROGRESS_LIMIT: Duration = Duration::from_secs(120);

const ACKED_JOURNALS: &str = "\
name: tests/
replication: 1
fragment: {length: 65536, compression_codec: GZIP, refresh_interval: 1s, stores: ['file:///']}
children: [{name: tests/acked}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_and_acknowledged_appends_survive_thirty_kills() {
    let mut rng = seed::rng("sums_and_acknowledged_appends_survive_thirty_kills");
    let rounds = seed::count("COURANT_KILL_ROUNDS", 30);
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    for index in 0..2 {
        cluster.start_summer(index).await.unwrap();
    }
    cluster.apply_stream_sum().await.unwrap();
    let specs = cluster.dir().join("acked.yaml");
    std::fs::write(&specs, ACKED_JOURNALS).unwrap();
    cluster.courant(&["journals", "apply", "--specs", specs.to_str().unwrap()]).await.unwrap();

    let mut load = Load::start(&cluster, 2, 8).unwrap();
    load.wait_verified(1, PROGRESS_LIMIT).await.unwrap();
    let appenders = cluster.start_appenders("tests/acked", 4, rng.random());
    for round in 0..rounds {
        // A random moment of what the programs are doing, not a wait for anything.
        let moment = Duration::from_millis(rng.random_range(0..700));
        cluster.clock().sleep(moment).await;
        let target = rng.random_range(0..3);
        println!("round {round}: {} streams verified, kill {target}", load.verified());
        if target == 2 {
            cluster.kill_broker().await.unwrap();
            cluster.start_broker().await.unwrap();
        } else {
            cluster.kill_summer(target).await.unwrap();
            cluster.start_summer(target).await.unwrap();
        }
        if let Some(lost) = cluster.lost_process() {
            panic!("{lost}");
        }
        if round % 5 == 4 {
            let verified = load.verified();
            load.wait_verified(verified + 1, PROGRESS_LIMIT).await.unwrap();
        }
    }
    let totals = load.finish(PROGRESS_LIMIT).await.unwrap();
    assert_eq!((totals.mismatches, totals.duplicates), (0, 0));
    assert!(totals.streams > 0);

    let histories = appenders.stop().await.unwrap();
    let checked = cluster.readback().check(&histories).await.unwrap();
    println!("{checked:?}");
    assert!(checked.acknowledged > 100, "the appenders must have got somewhere");
    cluster.kill_broker().await.unwrap();
    cluster.start_broker().await.unwrap();
    cluster.readback().check(&histories).await.unwrap();
}
