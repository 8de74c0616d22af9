//! Promises of a broker that ends: what it waits for, what it leaves behind, and that nothing acknowledged is lost.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod brokers;

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use brokers::{LIMIT, Machine, eventually};
use runtime::Clock;

const ONE: &str = "exit/one";

fn specs(names: &[&str]) -> String {
    let children: String = names.iter().map(|name| format!("  - {{name: {name}}}\n")).collect();
    format!(
        "name: exit/\nreplication: 1\nfragment: {{length: 1048576, compression_codec: SNAPPY, refresh_interval: 1s, \
         stores: ['file:///']}}\nlabels: [{{name: content-type, value: application/x-ndjson}}]\nchildren:\n{children}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_broker_ends_and_the_next_one_on_another_machine_goes_on() {
    let machine = Machine::start().await;
    let (mut first, url) = machine.broker("first", &[]).await;
    machine.apply(&url, &specs(&[ONE])).await;
    machine.append(&url, ONE, "one").await;
    machine.append(&url, ONE, "two").await;
    let began = Clock::system().now();
    let status = first.terminate(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", first.stderr_tail());
    assert!(
        Clock::system().now() - began < Duration::from_secs(30),
        "nobody can take over: {}",
        first.stderr_tail()
    );

    // Neither begins anew at offset zero nor waits for an operator.
    let (mut second, url) = machine.broker("second", &[]).await;
    machine.append(&url, ONE, "three").await;
    machine.await_lines(&url, ONE, &["one", "two", "three"]).await;
    assert_eq!(second.terminate(LIMIT).await.unwrap().code(), Some(0));

    // The first one has nothing more to say, and finds that out by itself.
    let (_first, url) = machine.broker("first", &[]).await;
    machine.append(&url, ONE, "four").await;
    machine.await_lines(&url, ONE, &["one", "two", "three", "four"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn journals_are_handed_to_another_broker_with_what_was_not_stored() {
    let machine = Machine::start().await;
    let (mut first, url) = machine.broker("first", &["--broker.drain-timeout=20s"]).await;
    let names = ["exit/one", "exit/three", "exit/two"];
    machine.apply(&url, &specs(&names)).await;
    for name in names {
        machine.append(&url, name, "one").await;
        machine.append(&url, name, "two").await;
    }
    let (_second, other) = machine.broker("second", &[]).await;
    let status = first.terminate(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", first.stderr_tail());
    assert!(
        first.stderr_tail().contains("waiting for other brokers to take over"),
        "{}",
        first.stderr_tail()
    );
    for name in names {
        machine.append(&other, name, "three").await;
        machine.await_lines(&other, name, &["one", "two", "three"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failing_store_refuses_is_stored_by_the_next_process() {
    let machine = Machine::start().await;
    let (mut first, url) = machine.broker("first", &["--broker.drain-timeout=1s"]).await;
    machine.apply(&url, &specs(&[ONE])).await;
    machine.append(&url, ONE, "one").await;
    machine.append(&url, ONE, "two").await;
    forbid_writes(&machine, true);
    let status = first.terminate(LIMIT).await.unwrap();
    let said = first.stderr_tail();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("waiting for uploads"), "{said}");
    assert!(said.contains("the next process on this data directory stores them"), "{said}");
    let attempts = said.matches("failed to persist Spool").count();
    assert!((1..=20).contains(&attempts), "{attempts} attempts, with waits between them: {said}");
    forbid_writes(&machine, false);

    // The journal goes on at another broker, after what only the first one has.
    let (_second, other) = machine.broker("second", &[]).await;
    machine.append(&other, ONE, "three").await;
    let (_first, _) = machine.broker("first", &[]).await;
    machine.await_lines(&other, ONE, &["one", "two", "three"]).await;
    let spools = machine.data_dir("first").join("spools");
    eventually("the first broker keeps no content of the journal", async || {
        std::fs::read_dir(spools.join("exit%2Fone")).unwrap().count() <= 1
    })
    .await;
}

/// Lets every write to the store fail, or succeed again. Who runs the tests may be root, whom permissions do not bind; then
/// a file stands where the journals' directories should. The two change places in one step.
fn forbid_writes(machine: &Machine, is_forbidden: bool) {
    let store = machine.store();
    let aside = machine.dir.path().join("store-aside");
    if is_forbidden {
        std::fs::write(&aside, b"").unwrap();
        std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o400)).unwrap();
    }
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        &store,
        rustix::fs::CWD,
        &aside,
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    if !is_forbidden {
        std::fs::remove_file(&aside).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_a_broker_at_once_and_loses_nothing() {
    let machine = Machine::start().await;
    let (mut first, url) = machine.broker("first", &["--broker.drain-timeout=10m"]).await;
    machine.apply(&url, &specs(&[ONE])).await;
    machine.append(&url, ONE, "one").await;
    machine.append(&url, ONE, "two").await;
    forbid_writes(&machine, true);
    first.signal(libc::SIGTERM).unwrap();
    let waits = |line: &str| line.contains("waiting for uploads").then_some(());
    first.wait_line("waiting for uploads", LIMIT, waits).await.unwrap();
    let status = first.insist(LIMIT).await.unwrap();
    assert_eq!(status.code(), Some(1), "{}", first.stderr_tail());
    assert!(first.stderr_tail().contains("second Terminate, leaving at once"));
    forbid_writes(&machine, false);

    let (_first, url) = machine.broker("first", &[]).await;
    machine.append(&url, ONE, "three").await;
    machine.await_lines(&url, ONE, &["one", "two", "three"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_is_back_without_waiting_for_its_lease() {
    let machine = Machine::start().await;
    let (mut broker, url) = machine.broker("first", &["--etcd.lease=120s"]).await;
    machine.apply(&url, &specs(&[ONE])).await;
    machine.append(&url, ONE, "one").await;
    broker.kill().await.unwrap();
    let began = Clock::system().now();
    let (_broker, url) = machine.broker("first", &["--etcd.lease=120s"]).await;
    machine.append(&url, ONE, "two").await;
    machine.await_lines(&url, ONE, &["one", "two"]).await;
    assert!(Clock::system().now() - began < LIMIT, "its lease is twice as long");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_without_etcd_serves_until_its_lease_is_lost() {
    let mut machine = Machine::start().await;
    let (mut broker, url) = machine.broker("first", &["--etcd.lease=20s"]).await;
    machine.apply(&url, &specs(&[ONE])).await;
    machine.append(&url, ONE, "one").await;
    machine.kill_etcd().await;
    machine.append(&url, ONE, "two").await;
    machine.await_lines(&url, ONE, &["one", "two"]).await;
    let status = broker.wait_exit(LIMIT).await.unwrap();
    let said = broker.stderr_tail();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("unable to keep member lease alive"), "{said}");
    let spools = machine.data_dir("first").join("spools/exit%2Fone");
    assert!(std::fs::read_dir(spools).unwrap().count() > 0, "its spools are kept");
}
