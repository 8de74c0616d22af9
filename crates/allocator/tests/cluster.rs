//! Members with a mirror, a lease and an allocator each, over an embedded etcd that is served on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::sync::Arc;
use std::time::Duration;

use allocator::{AllocError, Allocatable, MaxFlowSolver};
use keyspace::embedded::EmbeddedEtcd;
use keyspace::{
    AssignmentKey, Etcd, EtcdOptions, KeyPrefix, KeySpace, Membership, Mirror, Op, Predecessor, PutLease,
    Schema, Txn,
};
use proto::{Invalid, MemberId, Revision};
use runtime::server::Listener;
use runtime::{Clock, Entropy, Metrics, OnError, TaskGroup};
use tokio::sync::mpsc;

/// How long anything awaited may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Items are assigned once; members take ten and may be `exiting`; an assignment is consistent at once.
struct Plain;

impl Schema for Plain {
    type Item = ();
    type Member = bool;
    type Assignment = ();

    fn decode_item(&self, _: &str, _: &[u8]) -> Result<(), Invalid> {
        Ok(())
    }

    fn decode_member(&self, _: &MemberId, value: &[u8]) -> Result<bool, Invalid> {
        Ok(value == b"exiting")
    }

    fn decode_assignment(&self, _: &AssignmentKey, _: &[u8]) -> Result<(), Invalid> {
        Ok(())
    }

    fn endpoint(_: &bool) -> &str {
        ""
    }
}

impl Allocatable for Plain {
    fn replication(&self, _: &()) -> u32 {
        1
    }

    fn limit(&self, _: &bool) -> u32 {
        10
    }

    fn exiting(&self, member: &bool) -> bool {
        *member
    }

    fn consistent(&self, _: &str, _: &AssignmentKey, _: &(), _: &[(&AssignmentKey, &())]) -> bool {
        true
    }
}

fn prefix() -> KeyPrefix {
    KeyPrefix::parse("/test/allocator").unwrap()
}

async fn soon<F: Future>(future: F) -> F::Output {
    Clock::system()
        .timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("it took more than {PATIENCE:?}"))
}

/// An etcd and a client that is no member.
struct Fixture {
    endpoint: String,
    etcd: Etcd,
    mirror: Mirror<Plain>,
    _tasks: TaskGroup,
    _dir: tempfile::TempDir,
}

async fn fixture(items: usize) -> Fixture {
    let (dir, tasks) = (tempfile::tempdir().unwrap(), TaskGroup::new("test"));
    let etcd = EmbeddedEtcd::open(dir.path(), Clock::system(), Entropy::system(), &tasks).await.unwrap();
    let listener = Listener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.endpoint("127.0.0.1");
    let router = etcd.routes().into_axum_router();
    let drain = Duration::from_millis(50);
    let server = runtime::server::serve(listener, router, tasks.clone(), Clock::system(), drain);
    tasks.spawn("serve", OnError::Log, server);
    let etcd = connect(&endpoint, &tasks).await;
    for n in 0..items {
        let op =
            Op::Put { key: prefix().item(&format!("item-{n}")), value: "x".into(), lease: PutLease::None };
        etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }
    let mirror = mirror(&etcd, Revision::NONE, &tasks).await;
    Fixture { endpoint, etcd, mirror, _tasks: tasks, _dir: dir }
}

async fn connect(endpoint: &str, tasks: &TaskGroup) -> Etcd {
    let lease_ttl = Duration::from_secs(10);
    let options =
        EtcdOptions { lease_ttl, tls: Default::default(), clock: Clock::system(), tasks: tasks.clone() };
    Etcd::connect(endpoint, options).await.unwrap()
}

async fn mirror(etcd: &Etcd, at: Revision, tasks: &TaskGroup) -> Mirror<Plain> {
    Mirror::load(etcd, &prefix(), at, Plain, Duration::from_millis(5), tasks).await.unwrap()
}

/// A member as a process has it.
struct Member {
    membership: Membership,
    tasks: TaskGroup,
    /// How its allocator ended.
    ended: mpsc::Receiver<Result<(), AllocError>>,
}

impl Member {
    async fn start(fixture: &Fixture, name: &str) -> Member {
        let tasks = TaskGroup::new(name);
        let etcd = connect(&fixture.endpoint, &tasks).await;
        let id = MemberId::new("zone", name).unwrap();
        let ttl = Duration::from_secs(60);
        let announced = Membership::announce(&etcd, &prefix(), &id, "".into(), ttl, Predecessor::Wait).await;
        let (membership, at) = announced.unwrap();
        let mirror = mirror(&etcd, at, &tasks).await;
        let (sender, ended) = mpsc::channel(1);
        let (solver, clock) = (Arc::new(MaxFlowSolver), Clock::system());
        let run = allocator::run(mirror, id, solver, clock, Metrics::new(), tasks.clone());
        tasks.spawn("allocator", OnError::Log, async move {
            sender.send(run.await).await.unwrap();
            Ok(())
        });
        Member { membership, tasks, ended }
    }

    /// Ends the process; its lease is left to expire.
    async fn crash(self) -> i64 {
        self.tasks.cancel();
        soon(self.tasks.join()).await.unwrap();
        self.membership.lease().id()
    }
}

/// Assignments as `item member slot`.
fn assignments(space: &KeySpace<Plain>) -> Vec<String> {
    space.assignments().keys().map(|key| format!("{} {} {}", key.item, key.member.suffix, key.slot)).collect()
}

/// Waits until members hold so many items each, all as their primary.
async fn await_shares(fixture: &Fixture, shares: &[(&str, usize)]) {
    let mut spaces = fixture.mirror.subscribe();
    let reached = spaces.wait_for(|space| {
        let held = |name: &str| space.assignments().keys().filter(|key| &*key.member.suffix == name).count();
        let total: usize = shares.iter().map(|(_, share)| share).sum();
        shares.iter().all(|(name, share)| held(name) == *share)
            && space.assignments().len() == total
            && space.assignments().keys().all(|key| key.slot == 0)
    });
    if Clock::system().timeout(PATIENCE, reached).await.is_err() {
        panic!("{shares:?} is not reached: {:?}", assignments(&fixture.mirror.snapshot()));
    }
}

#[tokio::test]
async fn items_are_shared_and_taken_over_when_a_member_dies() {
    let fixture = fixture(6).await;
    let first = Member::start(&fixture, "member-1").await;
    await_shares(&fixture, &[("member-1", 6)]).await;
    let second = Member::start(&fixture, "member-2").await;
    await_shares(&fixture, &[("member-1", 3), ("member-2", 3)]).await;
    // The leader dies. The other leads when the lease is gone.
    let lease = first.crash().await;
    fixture.etcd.revoke(lease).await.unwrap();
    await_shares(&fixture, &[("member-2", 6)]).await;
    drop(second);
}

#[tokio::test]
async fn a_member_which_exits_is_relieved_and_its_allocator_ends() {
    let fixture = fixture(4).await;
    let mut first = Member::start(&fixture, "member-1").await;
    let mut second = Member::start(&fixture, "member-2").await;
    await_shares(&fixture, &[("member-1", 2), ("member-2", 2)]).await;
    first.membership.update("exiting".into()).await.unwrap();
    assert!(matches!(soon(first.ended.recv()).await, Some(Ok(()))));
    await_shares(&fixture, &[("member-2", 4)]).await;
    first.membership.revoke().await.unwrap();
    // The last one is not relieved, and goes on until it is stopped.
    second.membership.update("exiting".into()).await.unwrap();
    soon(fixture.mirror.wait_for(second.membership.revision())).await.unwrap();
    await_shares(&fixture, &[("member-2", 4)]).await;
    assert!(second.ended.try_recv().is_err());
    second.tasks.cancel();
    assert!(matches!(soon(second.ended.recv()).await, Some(Ok(()))));
}

#[tokio::test]
async fn a_member_whose_key_is_gone_must_not_go_on() {
    let fixture = fixture(1).await;
    let mut member = Member::start(&fixture, "member-1").await;
    await_shares(&fixture, &[("member-1", 1)]).await;
    fixture.etcd.revoke(member.membership.lease().id()).await.unwrap();
    let ended = soon(member.ended.recv()).await.unwrap();
    assert_eq!(ended.unwrap_err().to_string(), "member key not found in Etcd: zone#member-1");
}

#[tokio::test]
async fn items_come_and_go_while_members_run() {
    let fixture = fixture(0).await;
    let members = [Member::start(&fixture, "member-1").await, Member::start(&fixture, "member-2").await];
    for n in 0..6 {
        let op =
            Op::Put { key: prefix().item(&format!("item-{n}")), value: "x".into(), lease: PutLease::None };
        fixture.etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    }
    await_shares(&fixture, &[("member-1", 3), ("member-2", 3)]).await;
    let op = Op::DeletePrefix { prefix: prefix().item("") };
    fixture.etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap();
    await_shares(&fixture, &[("member-1", 0), ("member-2", 0)]).await;
    drop(members);
}
