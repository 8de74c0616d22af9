//! The embedded etcd in a process of its own, which is killed, or runs out of disk.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyspace::{Etcd, EtcdError, Op, PutLease, Txn};
use proto::Revision;
use runtime::{Entropy, TaskGroup};

use crate::soon;
use crate::support::{self, Embedded, env_number};

/// Names the directory to serve; set in the processes that this test starts of itself.
const SERVE_DIR: &str = "KEYSPACE_TEST_SERVE_DIR";
const READY: &str = "serving at ";

/// Not a test: what the processes run. It does nothing where it is not asked to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_until_killed() {
    let Some(dir) = std::env::var_os(SERVE_DIR) else { return };
    let served = Embedded::start(Path::new(&dir)).await;
    println!("{READY}{}", served.endpoint);
    std::future::pending::<()>().await;
}

struct Process {
    child: Child,
    endpoint: String,
}

impl Process {
    /// Serves `dir` in a process whose files cannot grow beyond `file_kib`, if that is given.
    fn start(dir: &Path, file_kib: Option<u64>) -> Process {
        // The shell sets the limit, and has the signal which comes with it ignored.
        let limit = file_kib.map(|kib| format!("trap '' XFSZ; ulimit -f {kib}; ")).unwrap_or_default();
        let run = format!("{limit}exec \"$0\" --exact crashes::serve_until_killed --nocapture");
        let mut child = Command::new("bash")
            .args(["-c", &run])
            .arg(std::env::current_exe().unwrap())
            .env(SERVE_DIR, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map(|line| line.unwrap());
        let ready = lines.find_map(|line| line.split_once(READY).map(|(_, endpoint)| endpoint.to_owned()));
        Process { child, endpoint: ready.unwrap() }
    }

    /// SIGKILL, as when the test fails.
    fn kill(self) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

async fn put(etcd: &Etcd, key: &str, value: &str) -> Result<Revision, EtcdError> {
    let op = Op::Put { key: key.to_owned(), value: value.to_owned().into(), lease: PutLease::None };
    etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.map(|outcome| outcome.header.revision)
}

/// Writes until the server is gone; gives what was acknowledged, by key.
async fn write_until_gone(etcd: Etcd, writer: usize, round: usize) -> BTreeMap<String, Revision> {
    let mut acknowledged = BTreeMap::new();
    for n in 0.. {
        let key = format!("/w/{round}/{writer}/{n:06}");
        match put(&etcd, &key, &key).await {
            Ok(revision) => acknowledged.insert(key, revision),
            Err(error) => {
                assert!(error.may_have_taken_effect(), "{error}");
                break;
            }
        };
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_sigkill() {
    let seed = env_number("COURANT_SEED").unwrap_or_else(|| Entropy::system().u64());
    println!("repeat with COURANT_SEED={seed}");
    let entropy = Entropy::seeded(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..4 {
        let process = Process::start(dir.path(), None);
        let tasks = TaskGroup::new("writers");
        let mut writers = Vec::new();
        for writer in 0..8 {
            let etcd = support::connect(&process.endpoint, Duration::from_secs(4), &tasks).await;
            writers.push(write_until_gone(etcd, writer, round));
        }
        // It is killed after so many writes.
        let watcher = support::connect(&process.endpoint, Duration::from_secs(4), &tasks).await;
        let moment = i64::try_from(100 + entropy.below(400)).unwrap();
        let killer = async move {
            let begun = watcher.range("/none", Revision::NONE).await.unwrap().1.revision.0;
            while watcher.range("/none", Revision::NONE).await.unwrap().1.revision.0 < begun + moment {}
            process.kill();
        };
        let (written, ()) = soon(async { tokio::join!(futures::future::join_all(writers), killer) }).await;
        let before = acknowledged.len();
        acknowledged.extend(written.into_iter().flatten());
        assert!(acknowledged.len() > before + 50, "round {round} wrote something");
    }
    let served = Embedded::start(dir.path()).await;
    let tasks = TaskGroup::new("reader");
    let etcd = support::connect(&served.endpoint, Duration::from_secs(20), &tasks).await;
    let (found, _) = etcd.range("/w/", Revision::NONE).await.unwrap();
    let found: BTreeMap<String, Revision> = found
        .into_iter()
        .map(|kv| {
            assert_eq!(kv.value, kv.key.as_bytes(), "seed {seed}");
            (kv.key, kv.mod_revision)
        })
        .collect();
    for (key, revision) in &acknowledged {
        assert_eq!(found.get(key), Some(revision), "{key} of seed {seed}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), Some(256));
    let tasks = TaskGroup::new("test");
    let etcd = support::connect(&process.endpoint, Duration::from_secs(20), &tasks).await;
    let value = "v".repeat(10_000);
    let mut count = 0;
    let error = loop {
        match soon(put(&etcd, &format!("/k/{count:03}"), &value)).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
        assert!(count < 100, "the limit holds");
    };
    assert!(!error.may_have_taken_effect() && error.message().contains("cannot write"), "{error}");
    // What was there is there, and nothing of what was refused; a smaller write has room.
    let (found, _) = soon(etcd.range("/k/", Revision::NONE)).await.unwrap();
    assert_eq!(found.len(), count);
    soon(put(&etcd, "/small", "")).await.unwrap();
    process.kill();
    let served = Embedded::start(dir.path()).await;
    let etcd = support::connect(&served.endpoint, Duration::from_secs(20), &tasks).await;
    let (found, _) = etcd.range("/k/", Revision::NONE).await.unwrap();
    assert_eq!(found.len(), count);
    assert!(etcd.get("/small").await.unwrap().is_some());
    put(&etcd, "/k/more", &value).await.unwrap();
    served.stop().await;
}
