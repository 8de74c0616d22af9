//! A summer that was stopped for longer than its lease wakes up as a zombie: others have its shards. It is fenced, says
//! so, and no sum is wrong.

use std::time::Duration;

use tests::cluster::{Cluster, ClusterOptions};
use tests::load::Load;

const PROGRESS_LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_zombie_is_fenced_and_says_so() {
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    for index in 0..2 {
        cluster.start_summer(index).await.unwrap();
    }
    cluster.apply_stream_sum().await.unwrap();
    let mut load = Load::start(&cluster, 2, 8).unwrap();
    load.wait_verified(2, PROGRESS_LIMIT).await.unwrap();

    let mut zombie = cluster.summers[0].take().unwrap();
    zombie.signal(libc::SIGSTOP).unwrap();
    cluster.wait_taken_over(1, 8, PROGRESS_LIMIT).await.unwrap();
    let verified = load.verified();
    load.wait_verified(verified + 8, PROGRESS_LIMIT).await.unwrap();

    zombie.signal(libc::SIGCONT).unwrap();
    let line = zombie.wait_line("that it was fenced", PROGRESS_LIMIT, |line| {
        let lower = line.to_lowercase();
        lower.contains("fenced").then(|| line.to_owned())
    });
    println!("the zombie said: {}", line.await.unwrap());
    let verified = load.verified();
    load.wait_verified(verified + 8, PROGRESS_LIMIT).await.unwrap();
    let totals = load.finish(PROGRESS_LIMIT).await.unwrap();
    assert_eq!((totals.mismatches, totals.duplicates), (0, 0));
}
