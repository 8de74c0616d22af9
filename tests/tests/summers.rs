//! How summers leave: one after the other without anybody noticing, at once if that is asked for, and with an error when
//! they must.

use std::time::Duration;

use tests::cluster::{Cluster, ClusterOptions};
use tests::load::Load;

/// Longest wait for what the processes do next.
const LIMIT: Duration = Duration::from_secs(120);
const SHARDS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn summers_restart_one_by_one_under_load() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    for index in 0..3 {
        cluster.start_summer(index).await.unwrap();
    }
    cluster.apply_stream_sum().await.unwrap();
    let mut load = Load::start(&cluster, 2, 8).unwrap();
    load.wait_verified(2, LIMIT).await.unwrap();
    for index in 0..3 {
        let mut summer = cluster.summers[index].take().unwrap();
        let status = summer.terminate(LIMIT).await.unwrap();
        assert!(status.success(), "{status}\n{}", summer.stderr_tail());
        cluster.start_summer(index).await.unwrap();
        cluster.wait_shards_primary(index, SHARDS, LIMIT).await.unwrap();
        let verified = load.verified();
        load.wait_verified(verified + 4, LIMIT).await.unwrap();
    }
    let totals = load.finish(LIMIT).await.unwrap();
    assert_eq!((totals.mismatches, totals.duplicates), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_summer_which_cannot_leave() {
    let mut cluster =
        Cluster::start(ClusterOptions { lease: "60s", log_level: "info", ..Default::default() })
            .await
            .unwrap();
    cluster.start_summer(0).await.unwrap();
    // Nobody takes its lease back, nor commits its transactions.
    cluster.broker.as_ref().unwrap().signal(libc::SIGSTOP).unwrap();
    let mut summer = cluster.summers[0].take().unwrap();
    summer.signal(libc::SIGTERM).unwrap();
    let remark =
        |line: &str| line.contains("leaving takes a while; one more signal ends it at once").then_some(());
    summer.wait_line("that it is leaving", LIMIT, remark).await.unwrap();
    assert!(summer.ended().is_none());
    let status = summer.terminate(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", summer.stderr_tail());
    assert!(summer.stderr_tail().contains("leaving at once"), "{}", summer.stderr_tail());
    cluster.broker.as_ref().unwrap().signal(libc::SIGCONT).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_summer_which_lost_its_lease_ends_with_an_error() {
    let mut cluster = Cluster::start(ClusterOptions { lease: "2s", ..Default::default() }).await.unwrap();
    cluster.start_summer(0).await.unwrap();
    cluster.broker.as_ref().unwrap().signal(libc::SIGSTOP).unwrap();
    let mut summer = cluster.summers[0].take().unwrap();
    let status = summer.wait_exit(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", summer.stderr_tail());
    let said = summer.stderr_tail();
    assert!(said.contains("unable to keep member lease alive"), "{said}");
    cluster.broker.as_ref().unwrap().signal(libc::SIGCONT).unwrap();
}
