//! What clients do when a real etcd is killed, comes back, comes back without its data, or can no longer be heard.

use std::time::Duration;

use keyspace::{Etcd, KeySpace, LeaseLost, Membership, Mirror, Predecessor};
use proto::{MemberId, Revision};
use runtime::TaskGroup;
use store_servers::EtcdServer;

use crate::support;
use crate::support::proxy::{Proxy, Way};
use crate::{Text, prefix, put, soon};

const BOTH: &[Way] = &[Way::ToServer, Way::ToClient];

/// A process as far as etcd is concerned: a member, its lease, and a mirror.
struct Process {
    tasks: TaskGroup,
    membership: Membership,
    mirror: Mirror<Text>,
}

impl Process {
    async fn start(endpoint: &str, ttl: Duration) -> Process {
        // The lease's tasks outlive the mirror, as they do in a process.
        let group = TaskGroup::new("process");
        let etcd = support::connect(endpoint, ttl, &group).await;
        let id = MemberId::new("zone", "member").unwrap();
        let announced = Membership::announce(&etcd, &prefix(), &id, "1".into(), ttl, Predecessor::Wait).await;
        let (membership, at) = announced.unwrap();
        let tasks = group.child("mirror");
        let mirror =
            Mirror::load(&etcd, &prefix(), at, Text, Duration::from_millis(5), &tasks).await.unwrap();
        Process { tasks, membership, mirror }
    }

    /// Waits until the mirror shows what `etcd` is told now.
    async fn follows(&self, etcd: &Etcd, value: &str) {
        let at = put(etcd, &prefix().item("a"), value).await;
        let mut spaces = self.mirror.subscribe();
        let shown = spaces.wait_for(|space: &std::sync::Arc<KeySpace<Text>>| space.revision() >= at);
        soon(shown).await.unwrap();
    }

    /// Waits for the error that the mirror ends with.
    async fn fails(&self) -> String {
        soon(self.tasks.token().cancelled()).await;
        soon(self.tasks.join()).await.unwrap_err().to_string()
    }
}

/// Waits until etcd has ended a lease that was granted now and is not renewed. So others would have ended as well.
async fn outlive_a_lease(endpoint: &str, ttl: Duration) {
    let tasks = TaskGroup::new("dies");
    let etcd = support::connect(endpoint, ttl, &tasks).await;
    let dying = etcd.grant(ttl).await.unwrap();
    tasks.cancel();
    let put = keyspace::Op::Put {
        key: "/dying".into(),
        value: "".into(),
        lease: keyspace::PutLease::Id(dying.id()),
    };
    etcd.txn(keyspace::Txn { then: vec![put], ..Default::default() }).await.unwrap();
    let gone = async {
        while etcd.get("/dying").await.unwrap().is_some() {
            runtime::Clock::system().sleep(Duration::from_millis(50)).await;
        }
    };
    soon(gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_killed_and_comes_back_is_gone_on_with() {
    let mut real = EtcdServer::start().await.unwrap();
    let ttl = Duration::from_secs(6);
    let process = Process::start(real.endpoint(), ttl).await;
    for round in 0..3 {
        real.kill().unwrap();
        real.start_again().await.unwrap();
        let etcd = support::connect(real.endpoint(), ttl, &TaskGroup::new("other")).await;
        process.follows(&etcd, &round.to_string()).await;
    }
    outlive_a_lease(real.endpoint(), ttl).await;
    assert!(!process.membership.lease().is_lost());
    assert_eq!(process.mirror.snapshot().members().len(), 1);
    assert_eq!(process.mirror.snapshot().loads(), 0, "nothing was missed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_of_the_member_waits_for_etcd() {
    let mut real = EtcdServer::start().await.unwrap();
    let mut process = Process::start(real.endpoint(), Duration::from_secs(20)).await;
    real.kill().unwrap();
    let update = process.membership.update("exiting".into());
    let (updated, started) = soon(Box::pin(async { tokio::join!(update, real.start_again()) })).await;
    started.unwrap();
    let updated = updated.unwrap();
    let space = soon(process.mirror.wait_for(updated)).await.unwrap();
    assert!(space.members().values().all(|entry| *entry.value == "exiting"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_stays_away_ends_the_lease() {
    let mut real = EtcdServer::start().await.unwrap();
    let ttl = Duration::from_secs(4);
    let process = Process::start(real.endpoint(), ttl).await;
    real.kill().unwrap();
    assert_eq!(soon(process.membership.lease().lost()).await, LeaseLost::NotRenewed(ttl));
    // The mirror does not know, and goes on when etcd is back.
    real.start_again().await.unwrap();
    let etcd = support::connect(real.endpoint(), ttl, &TaskGroup::new("other")).await;
    process.follows(&etcd, "1").await;
    assert!(process.membership.lease().is_lost(), "it stays lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_stands_still_ends_the_lease() {
    let real = EtcdServer::start().await.unwrap();
    let ttl = Duration::from_secs(4);
    let process = Process::start(real.endpoint(), ttl).await;
    real.stand_still().unwrap();
    assert_eq!(soon(process.membership.lease().lost()).await, LeaseLost::NotRenewed(ttl));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_lost_its_data_ends_the_process() {
    let mut real = EtcdServer::start().await.unwrap();
    let process = Process::start(real.endpoint(), Duration::from_secs(20)).await;
    let etcd = support::connect(real.endpoint(), Duration::from_secs(20), &TaskGroup::new("other")).await;
    for n in 0..20 {
        put(&etcd, &prefix().item("a"), &n.to_string()).await;
    }
    let last = put(&etcd, &prefix().item("a"), "last").await;
    soon(process.mirror.wait_for(last)).await.unwrap();
    // The new one has the same configuration, and thereby the same cluster id.
    let cluster = process.mirror.snapshot().header().cluster_id;
    real.kill().unwrap();
    real.start_empty("").await.unwrap();
    let error = process.fails().await;
    let told = |error: &str| {
        error.contains(&format!("etcd cluster {cluster:x} is at revision "))
            && error.contains(": its data was lost or replaced")
            && error.split("expected ").nth(1).is_some_and(|rest| rest.starts_with(&last.to_string()))
    };
    assert!(told(&error), "{error}");
    let why = process.mirror.why_stopped().to_string();
    assert!(told(&why) && why.starts_with("the mirror of etcd stopped: "), "{why}");
    let lost = soon(process.membership.lease().lost()).await.to_string();
    assert!(lost.contains("etcd cluster ") && lost.contains(": its data was lost or replaced"), "{lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_etcd_at_the_same_address_ends_the_process() {
    let mut real = EtcdServer::start().await.unwrap();
    let process = Process::start(real.endpoint(), Duration::from_secs(20)).await;
    let cluster = process.mirror.snapshot().header().cluster_id;
    real.kill().unwrap();
    real.start_empty("another").await.unwrap();
    let error = process.fails().await;
    assert!(error.contains(&format!("etcd cluster id changed from {cluster:x} to ")), "{error}");
    let lost = soon(process.membership.lease().lost()).await.to_string();
    assert!(lost.contains(&format!("etcd cluster id changed from {cluster:x} to ")), "{lost}");
    // A new process begins with the new data.
    let next = Process::start(real.endpoint(), Duration::from_secs(20)).await;
    assert!(next.mirror.snapshot().revision() > Revision::NONE);
}

async fn goes_on_over_other_connections(ways: &[Way]) {
    let real = EtcdServer::start().await.unwrap();
    let proxy = Proxy::start(real.endpoint()).await;
    let ttl = Duration::from_secs(6);
    let process = Process::start(&proxy.endpoint, ttl).await;
    let etcd = support::connect(real.endpoint(), ttl, &TaskGroup::new("other")).await;
    process.follows(&etcd, "1").await;
    proxy.silence(ways);
    process.follows(&etcd, "2").await;
    outlive_a_lease(real.endpoint(), ttl).await;
    assert!(!process.membership.lease().is_lost());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_fall_silent_are_replaced() {
    goes_on_over_other_connections(BOTH).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_only_send_are_replaced() {
    goes_on_over_other_connections(&[Way::ToClient]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_only_receive_are_replaced() {
    goes_on_over_other_connections(&[Way::ToServer]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_outlasts_the_lease_ends_it() {
    for way in BOTH {
        let real = EtcdServer::start().await.unwrap();
        let proxy = Proxy::start(real.endpoint()).await;
        let ttl = Duration::from_secs(4);
        let process = Process::start(&proxy.endpoint, ttl).await;
        proxy.cut(&[*way]);
        assert_eq!(soon(process.membership.lease().lost()).await, LeaseLost::NotRenewed(ttl));
    }
}
