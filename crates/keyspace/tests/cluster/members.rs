use std::time::Duration;

use keyspace::{Etcd, Membership, MembershipError, Predecessor};
use proto::{MemberId, Revision};
use runtime::{Clock, TaskGroup};

use crate::{delete, fixture, prefix, put, soon, support};

fn id() -> MemberId {
    MemberId::new("zone", "member").unwrap()
}

async fn announce(etcd: &Etcd, value: &str, ttl: u64) -> (Membership, Revision) {
    let (ttl, wait) = (Duration::from_secs(ttl), Predecessor::Wait);
    soon(Membership::announce(etcd, &prefix(), &id(), value.to_owned().into(), ttl, wait)).await.unwrap()
}

#[tokio::test]
async fn a_member_is_announced_updated_and_withdrawn() {
    let f = fixture().await;
    let (mut member, revision) = announce(&f.etcd, "1", 60).await;
    let key = prefix().member(&id());
    let kv = f.etcd.get(&key).await.unwrap().unwrap();
    assert_eq!((kv.mod_revision, kv.lease, &kv.value[..]), (revision, member.lease().id(), &b"1"[..]));
    let updated = member.update("2".into()).await.unwrap();
    let kv = f.etcd.get(&key).await.unwrap().unwrap();
    assert_eq!((kv.mod_revision, kv.lease), (updated, member.lease().id()));
    // An update whose answer got lost is found to have been done.
    put_keeping(&f.etcd, &key, "3").await;
    member.update("3".into()).await.unwrap();
    member.update("4".into()).await.unwrap();
    member.revoke().await.unwrap();
    assert_eq!(f.etcd.get(&key).await.unwrap(), None);
    assert!(!member.lease().is_lost(), "it was given up");
}

async fn put_keeping(etcd: &Etcd, key: &str, value: &str) {
    let value = value.to_owned().into();
    let op = keyspace::Op::Put { key: key.to_owned(), value, lease: keyspace::PutLease::Keep };
    etcd.txn(keyspace::Txn { then: vec![op], ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn an_update_of_a_key_that_others_touched_fails() {
    let f = fixture().await;
    let (mut member, revision) = announce(&f.etcd, "1", 60).await;
    let key = prefix().member(&id());
    put(&f.etcd, &key, "other").await;
    let error = member.update("2".into()).await.unwrap_err();
    let text = format!("{key}: key modified or deleted externally (expected revision {revision})");
    assert_eq!(error.to_string(), text);
    delete(&f.etcd, &key).await;
    assert!(matches!(member.update("2".into()).await, Err(MembershipError::ModifiedExternally { .. })));
}

#[tokio::test]
async fn a_successor_waits_for_the_lease_of_a_dead_process() {
    let f = fixture().await;
    // The first process dies: its tasks stop, and nobody renews its lease.
    let tasks = TaskGroup::new("dies");
    let etcd = support::connect(&f.served.endpoint, Duration::from_secs(2), &tasks).await;
    let (dead, first) = announce(&etcd, "dead", 2).await;
    tasks.cancel();
    let (alive, second) = announce(&f.etcd, "alive", 60).await;
    assert!(second > first && alive.lease().id() != dead.lease().id());
}

#[tokio::test]
async fn a_successor_goes_on_with_the_lease_of_a_dead_process() {
    let f = fixture().await;
    let tasks = TaskGroup::new("dies");
    let etcd = support::connect(&f.served.endpoint, Duration::from_secs(2), &tasks).await;
    let (dead, first) = announce(&etcd, "dead", 2).await;
    tasks.cancel();
    let (prefix, id, lease) = (prefix(), id(), dead.lease().id());
    let again = |value: &'static str, ttl, lease| {
        let (etcd, prefix, id, ttl) = (&f.etcd, &prefix, &id, Duration::from_secs(ttl));
        async move {
            let predecessor = Predecessor::Continue(lease);
            soon(Membership::announce(etcd, prefix, id, value.into(), ttl, predecessor)).await.unwrap()
        }
    };
    let (alive, second) = again("alive", 2, lease).await;
    let kv = f.etcd.get(&prefix.member(&id)).await.unwrap().unwrap();
    assert_eq!((alive.lease().id(), kv.lease, &kv.value[..]), (lease, lease, &b"alive"[..]));
    assert_eq!((kv.create_revision, kv.mod_revision), (first, second), "it is the same member");
    outlive_a_lease(&f.served.endpoint).await;
    assert!(f.etcd.get(&prefix.member(&id)).await.unwrap().is_some(), "the lease is renewed");

    // One of another time to live cannot be gone on with, nor one which has ended.
    let (other, _) = again("other", 60, lease).await;
    assert_ne!(other.lease().id(), lease);
    other.revoke().await.unwrap();
    let (last, _) = again("last", 60, other.lease().id()).await;
    assert_ne!(last.lease().id(), other.lease().id());
}

/// Waits until the server at `endpoint` has ended a lease of two seconds which nobody renews.
async fn outlive_a_lease(endpoint: &str) {
    let (tasks, ttl) = (TaskGroup::new("dies"), Duration::from_secs(2));
    let etcd = support::connect(endpoint, ttl, &tasks).await;
    let dying = etcd.grant(ttl).await.unwrap();
    tasks.cancel();
    let lease = keyspace::PutLease::Id(dying.id());
    let op = keyspace::Op::Put { key: "/dying".into(), value: "".into(), lease };
    etcd.txn(keyspace::Txn { then: vec![op], ..Default::default() }).await.unwrap();
    let gone = async {
        while etcd.get("/dying").await.unwrap().is_some() {
            Clock::system().sleep(Duration::from_millis(50)).await;
        }
    };
    soon(gone).await;
}

#[tokio::test]
async fn leases_are_kept_alive_past_their_time() {
    let f = fixture().await;
    let (member, _) = announce(&f.etcd, "1", 2).await;
    outlive_a_lease(&f.served.endpoint).await;
    outlive_a_lease(&f.served.endpoint).await;
    assert!(!member.lease().is_lost());
    assert!(f.etcd.get(&prefix().member(&id())).await.unwrap().is_some());
}

#[tokio::test]
async fn a_lease_is_lost_when_it_is_revoked_or_no_server_answers() {
    let f = fixture().await;
    let (member, _) = announce(&f.etcd, "1", 2).await;
    f.etcd.revoke(member.lease().id()).await.unwrap();
    soon(member.lease().lost()).await;
    assert!(member.lease().is_lost());

    let (member, _) = announce(&f.etcd, "2", 2).await;
    let lost = member.lease().lost();
    f.served.stop().await;
    soon(lost).await;
    assert!(member.lease().is_lost());
}

#[tokio::test]
async fn a_lease_survives_a_restart_of_the_server() {
    let f = fixture().await;
    let (member, _) = announce(&f.etcd, "1", 3).await;
    let address = f.served.endpoint.strip_prefix("http://").unwrap().to_owned();
    f.served.stop().await;
    let served = support::Embedded::start_at(f.dir.path(), &address).await;
    outlive_a_lease(&served.endpoint).await;
    outlive_a_lease(&served.endpoint).await;
    assert!(!member.lease().is_lost(), "it is renewed with the server that came back");
    assert!(f.etcd.get(&prefix().member(&id())).await.unwrap().is_some());
}
