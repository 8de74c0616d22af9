//! Killed at random moments around the uploads of many small fragments, a broker stores each of them once: afterwards the
//! store holds one object for each fragment, they follow one another without gap or overlap, and no spool is left.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use tests::cluster::{Cluster, ClusterOptions};
use tests::seed;

/// Longest wait for what is left to be stored.
const STORED_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

const SPECS: &str = "\
name: tests/
replication: 1
fragment:
  length: 1024
  compression_codec: GZIP
  refresh_interval: 1s
  stores: ['file:///']
  path_postfix_template: 'second={{ .Spool.FirstAppendTime.Format \"05\" }}'
children: [{name: tests/small}]
";

/// Spans of the fragments below `dir`, and every other file there. Uploads that were cut off are nobody's: a file has its name
/// once it is complete.
fn stored(dir: &Path, spans: &mut Vec<(i64, i64)>, foreign: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            stored(&path, spans, foreign);
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name");
        if name.starts_with(".partial-") || name.contains('#') {
            continue;
        }
        let mut offsets = name.split('-').map_while(|field| i64::from_str_radix(field, 16).ok());
        match (offsets.next(), offsets.next()) {
            (Some(begin), Some(end)) => spans.push((begin, end)),
            _ => foreign.push(path),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_are_stored_once_whenever_the_broker_is_killed() {
    let mut rng = seed::rng("fragments_are_stored_once_whenever_the_broker_is_killed");
    let rounds = seed::count("COURANT_KILL_ROUNDS", 15);
    let mut cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let specs = cluster.dir().join("small.yaml");
    std::fs::write(&specs, SPECS).unwrap();
    cluster.courant(&["journals", "apply", "--specs", specs.to_str().unwrap()]).await.unwrap();
    let appenders = cluster.start_appenders("tests/small", 2, rng.random());
    for round in 0..rounds {
        // A random moment of what the broker is doing, not a wait for anything.
        let moment = Duration::from_millis(rng.random_range(0..500));
        println!("round {round}: kill after {moment:?}");
        cluster.clock().sleep(moment).await;
        cluster.kill_broker().await.unwrap();
        cluster.start_broker().await.unwrap();
    }
    let histories = appenders.stop().await.unwrap();
    let out = cluster.courant(&["journals", "suspend", "--force", "-l", "name=tests/small"]).await.unwrap();
    assert_eq!(out.trim(), "tests/small suspended", "which completes the last fragment");

    let spools = cluster.data_dir().join("spools/tests%2Fsmall");
    let deadline = cluster.clock().now() + STORED_LIMIT;
    while std::fs::read_dir(&spools).expect("the journal has spools").count() > 1 {
        assert!(cluster.clock().now() < deadline, "spools are left: {}", spools.display());
        cluster.clock().sleep(POLL).await;
    }
    let (mut spans, mut foreign) = (Vec::new(), Vec::new());
    stored(&cluster.data_dir().join("fragments/tests/small"), &mut spans, &mut foreign);
    spans.sort_unstable();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(spans.len() > 20, "{} fragments are no test", spans.len());
    assert_eq!(spans[0].0, 0);
    let broken: Vec<_> = spans.windows(2).filter(|pair| pair[0].1 != pair[1].0).collect();
    assert!(broken.is_empty(), "each fragment begins where the one before ends: {broken:?}");

    let checked = cluster.readback().check(&histories).await.unwrap();
    println!("{} fragments, {checked:?}", spans.len());
    assert_eq!(checked.bytes, spans[spans.len() - 1].1, "all of the journal is stored");
}
