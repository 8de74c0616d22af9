//! Promises of one broker process to its user: what is refused, what is kept, how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::time::Duration;

use rand::RngExt;
use tests::cluster::{Cluster, ClusterOptions};
use tests::process::{Launch, Process, binary};

const LIMIT: Duration = Duration::from_secs(30);

const SPECS: &str = "\
name: promise/
replication: 1
fragment: {length: 16384, compression_codec: ZSTANDARD, refresh_interval: 1s, stores: ['file:///']}
labels: [{name: content-type, value: application/x-ndjson}]
children: [{name: promise/one}, {name: promise/two}]
";

async fn started(options: ClusterOptions) -> Cluster {
    let cluster = Cluster::start(options).await.unwrap();
    let specs = cluster.dir().join("specs.yaml");
    std::fs::write(&specs, SPECS).unwrap();
    cluster.courant(&["journals", "apply", "--specs", specs.to_str().unwrap()]).await.unwrap();
    cluster
}

/// A file with `content` in the cluster's directory.
fn file(cluster: &Cluster, name: &str, content: &str) -> String {
    let path = cluster.dir().join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_read_back_after_a_kill() {
    let mut cluster = started(ClusterOptions::default()).await;
    let input = file(&cluster, "input", "{\"hello\":\"journal\"}\n");
    cluster.courant(&["journals", "append", "-l", "name=promise/one", "-i", &input]).await.unwrap();
    let read = ["journals", "read", "-l", "name=promise/one"];
    assert_eq!(cluster.courant(&read).await.unwrap(), "{\"hello\":\"journal\"}");
    cluster.kill_broker().await.unwrap();
    cluster.start_broker().await.unwrap();
    assert_eq!(cluster.courant(&read).await.unwrap(), "{\"hello\":\"journal\"}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_appends_survive_kills_with_durability_disk() {
    let options = ClusterOptions { durability: "disk", ..Default::default() };
    let mut cluster = started(options).await;
    let appenders = cluster.start_appenders("promise/one", 8, tests::seed::rng("disk").random());
    for _ in 0..3 {
        cluster.kill_broker().await.unwrap();
        cluster.start_broker().await.unwrap();
        let input = file(&cluster, "input", "one more\n");
        cluster.courant(&["journals", "append", "-l", "name=promise/two", "-i", &input]).await.unwrap();
    }
    let histories = appenders.stop().await.unwrap();
    cluster.readback().check(&histories).await.unwrap();
    assert_eq!(
        cluster.courant(&["journals", "read", "-l", "name=promise/two"]).await.unwrap(),
        "one more\none more\none more"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_broker_on_one_data_directory_refuses_to_start() {
    let cluster = started(ClusterOptions::default()).await;
    let data_dir = format!("--broker.data-dir={}", cluster.data_dir().display());
    let args = ["serve", "--broker.port=0", &data_dir];
    let launch = Launch::new("second broker", binary("courant"), args, cluster.dir());
    let mut second = Process::start(&launch, cluster.tasks()).unwrap();
    let status = second.wait_exit(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let said = second.stderr_tail();
    assert!(said.contains(&cluster.data_dir().display().to_string()), "names the directory: {said}");
    assert!(said.contains(&cluster.broker.as_ref().unwrap().pid().to_string()), "names the process: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_which_cannot_reach_etcd_refuses_connections() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = runtime::TaskGroup::new("test");
    // Nobody listens on the port of a listener that is gone.
    let unused = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (etcd, port) = (unused(), unused());
    let args = [
        "serve".to_owned(),
        format!("--etcd.address=http://{etcd}"),
        "--broker.host=127.0.0.1".to_owned(),
        format!("--broker.port={}", port.port()),
        format!("--broker.data-dir={}", dir.path().join("data").display()),
    ];
    let launch = Launch::new("broker", binary("courant"), args, dir.path());
    let mut broker = Process::start(&launch, &tasks).unwrap();
    let waits = |line: &str| line.contains("taking a while").then_some(());
    broker.wait_line("that it waits for etcd", LIMIT, waits).await.unwrap();
    let refused = std::net::TcpStream::connect(port).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_broker_ends_on_sigterm_and_keeps_what_it_held() {
    let mut cluster = started(ClusterOptions::default()).await;
    let input = file(&cluster, "input", "kept\n");
    cluster.courant(&["journals", "append", "-l", "name=promise/one", "-i", &input]).await.unwrap();
    let mut broker = cluster.broker.take().unwrap();
    let status = broker.terminate(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", broker.stderr_tail());
    cluster.start_broker().await.unwrap();
    assert_eq!(cluster.courant(&["journals", "read", "-l", "name=promise/one"]).await.unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_flags_and_files_are_named_and_nothing_else_stops() {
    let mut cluster = started(ClusterOptions::default()).await;
    let cases: &[(&str, &str, &str)] = &[
        ("not YAML", "name: [", "bad.yaml"),
        ("an unknown key", "name: promise/x\nreplicatoin: 1\n", "replicatoin"),
        ("a bad codec", "name: promise/x\nreplication: 1\nfragment: {compression_codec: ZIP}\n", "ZIP"),
        ("an escaping name", "name: promise/../../x\nreplication: 1\n", "promise/../../x"),
        ("too many replicas", &SPECS.replace("replication: 1", "replication: 9"), "9"),
    ];
    for (case, yaml, named) in cases {
        let path = file(&cluster, "bad.yaml", yaml);
        let (ok, _, process) =
            cluster.courant_status(&["journals", "apply", "--specs", &path]).await.unwrap();
        assert!(!ok, "{case} was accepted");
        let said = process.stderr_tail();
        assert!(said.contains(named), "{case}: expected {named:?} in: {said}");
        assert!(!said.contains("panicked"), "{case}: {said}");
    }
    for (args, named) in [
        (vec!["journals", "read", "-l", "name in ("], "name in ("),
        (vec!["journals", "read", "-l", "name=absent/journal"], "absent/journal"),
        (vec!["serve", "--broker.durability=maybe"], "maybe"),
        (vec!["serve", "--broker.auth-keys=not/base64!"], "auth-keys: key 1 is not standard base64"),
        (vec!["journals", "list", "--broker.address=nonsense"], "nonsense"),
    ] {
        let (ok, _, process) = cluster.courant_status(&args).await.unwrap();
        let said = process.stderr_tail();
        assert!(!ok && said.contains(named) && !said.contains("panicked"), "{args:?}: {said}");
    }
    assert!(cluster.lost_process().is_none());
    assert!(cluster.courant(&["journals", "list"]).await.unwrap().contains("promise/one"));
}
