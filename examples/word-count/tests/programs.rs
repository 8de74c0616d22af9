//! The programs, as the README has them.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::process::{Output, Stdio};
use std::time::Duration;

use client::specs::ShardSet;
use client::{ClientOptions, ShardClient};
use runtime::{Clock, TaskGroup};
use testkit::TestBroker;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// Longest wait for anything.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts the application, and gives the address which it prints.
async fn serve(broker: &TestBroker, arguments: &[String]) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_word-count"))
        .args(["serve", "--wordcount.N=2", &format!("--broker.address={}", broker.endpoint())])
        .args(arguments)
        .current_dir(broker.dir())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = said.next_line().await.unwrap().expect("it serves before it ends");
        if let Some((_, rest)) = line.split_once("word-count: serving on ") {
            break rest.split(',').next().unwrap().to_owned();
        }
    };
    // What it says from now on is read so that it can go on saying it.
    TaskGroup::new("output").spawn("drain", runtime::OnError::Log, async move {
        while let Ok(Some(_)) = said.next_line().await {}
        Ok(())
    });
    (child, address)
}

async fn ctl(address: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_wordcountctl"))
        .args(arguments)
        .arg(format!("--consumer.address={address}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    child.wait_with_output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_published_and_counted_by_the_programs() {
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(include_str!("../journals.yaml")).await.unwrap();
    let (mut served, address) = serve(&broker, &[]).await;
    let tasks = TaskGroup::new("test");
    let shards = ShardClient::new(&address, ClientOptions::new(tasks.clone())).unwrap();
    let set = ShardSet::parse(include_str!("../shards.yaml")).unwrap();
    shards.apply(set.to_apply_request().unwrap()).await.unwrap();

    let published = ctl(&address, &["publish"], "How now? How now!").await;
    assert!(published.status.success(), "{published:?}");
    let counted = async {
        // It is counted a moment later, once the shard has been opened.
        while ctl(&address, &["query", "--prefix", "how now"], "").await.stdout != b"how now\t2\n" {}
    };
    Clock::system().timeout(LIMIT, counted).await.unwrap();

    let refused = ctl(&address, &["query", "--shard", "shard-999"], "").await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("SHARD_NOT_FOUND"), "{said}");

    let id = served.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let ended = Clock::system().timeout(LIMIT, served.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
    tasks.cancel();
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_speak_tls_and_send_tokens() {
    let broker = TestBroker::start().await.unwrap();
    broker.create_journals(include_str!("../journals.yaml")).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let cert = file("cert.pem", issued.cert.pem());
    let key = file("key.pem", issued.signing_key.serialize_pem());
    let (mut served, address) = serve(
        &broker,
        &[
            format!("--consumer.server-cert-file={cert}"),
            format!("--consumer.server-cert-key-file={key}"),
            "--consumer.auth-keys=c2VjcmV0".to_owned(),
        ],
    )
    .await;
    assert!(address.starts_with("https://127.0.0.1:"), "{address}");

    let trusts = format!("--consumer.trusted-ca-file={cert}");
    let keys = "--consumer.auth-keys=c2VjcmV0";
    for (arguments, reason) in [
        (&[keys][..], "the server is not trusted"),
        (&[&trusts], "missing or empty Authorization token"),
        (&[&trusts, "--consumer.auth-keys=b3RoZXI="], "signature is invalid"),
        (&[&trusts, "--consumer.auth-token=nonsense"], "token is malformed"),
        (&[&trusts, "--consumer.auth-keys=secret"], "--consumer.auth-keys: key 1 is not standard base64"),
    ] {
        for command in ["publish", "query"] {
            let refused = ctl(&address, &[&[command], arguments].concat(), "How now?").await;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert!(!refused.status.success() && said.contains(reason), "{reason:?} is not in {said}");
        }
    }
    let published = ctl(&address, &["publish", &trusts, keys], "How now?").await;
    assert!(published.status.success(), "{published:?}");
    // Nobody counts yet, which only those learn who may ask.
    let refused = ctl(&address, &["query", "--shard", "shard-000", &trusts, keys], "").await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("SHARD_NOT_FOUND"), "{said}");
    served.kill().await.unwrap();
    broker.stop().await.unwrap();
}

#[test]
fn the_size_of_n_grams_must_be_given_and_is_printed() {
    let run = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_word-count")).args(arguments).output().unwrap()
    };
    let printed = String::from_utf8(run(&["print-config", "--wordcount.N=3"]).stdout).unwrap();
    assert!(printed.contains("\n[WordCount]\n") && printed.ends_with("\nN = 3\n"), "{printed}");
    for arguments in [&["serve"][..], &["serve", "--wordcount.N=0"]] {
        let refused = run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("--wordcount.N"), "{said}");
    }
}
