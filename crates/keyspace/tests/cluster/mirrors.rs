use std::sync::Arc;
use std::time::Duration;

use keyspace::{Etcd, KeyPrefix, KeySpace, Mirror};
use proto::Revision;
use runtime::TaskGroup;
use store_servers::EtcdServer;

use crate::support::{self, Embedded};
use crate::{Text, delete, fixture, prefix, put, soon};

async fn mirror(etcd: &Etcd, at: Revision, delay: Duration, tasks: &TaskGroup) -> Mirror<Text> {
    Mirror::load(etcd, &prefix(), at, Text, delay, tasks).await.unwrap()
}

fn items(space: &KeySpace<Text>) -> Vec<String> {
    space.items().iter().map(|(id, entry)| format!("{id}={}", entry.value)).collect()
}

#[tokio::test]
async fn it_shows_the_revision_it_was_loaded_at_and_then_every_change() {
    let f = fixture().await;
    let at = put(&f.etcd, &prefix().item("a"), "1").await;
    put(&f.etcd, &prefix().item("a"), "2").await;
    let last = put(&f.etcd, &prefix().item("b"), "1").await;
    let mirror = mirror(&f.etcd, at, Duration::from_millis(5), &f.tasks).await;
    let space = soon(mirror.wait_for(last)).await.unwrap();
    assert_eq!(items(&space), ["a=2", "b=1"]);
    assert_eq!((space.revision(), space.loads()), (last, 0));
    let gone = delete(&f.etcd, &prefix().item("a")).await;
    put(&f.etcd, &prefix().item("b"), "bad").await;
    let last = put(&f.etcd, "/test/cluster2/items/c", "1").await;
    let space = soon(mirror.wait_for(last)).await.unwrap();
    assert_eq!(items(&space), ["b=1"], "bad values and the neighbour's keys are not shown");
    assert_eq!(space.revision(), gone.next());
}

#[tokio::test]
async fn transactions_are_shown_whole() {
    let f = fixture().await;
    let mirror = mirror(&f.etcd, Revision::NONE, Duration::ZERO, &f.tasks).await;
    let (a, b) = (prefix().item("a"), prefix().item("b"));
    let mut receiver = mirror.subscribe();
    let write = async {
        for n in 0..50 {
            let op = |key: &str| keyspace::Op::Put {
                key: key.to_owned(),
                value: n.to_string().into(),
                lease: keyspace::PutLease::None,
            };
            f.etcd.txn(keyspace::Txn { then: vec![op(&a), op(&b)], ..Default::default() }).await.unwrap();
        }
    };
    let watch = async {
        loop {
            let space = Arc::clone(&receiver.borrow_and_update());
            let values: Vec<_> = space.items().values().map(|entry| entry.value.to_string()).collect();
            assert!(values.is_empty() || values.len() == 2 && values[0] == values[1], "{values:?}");
            if values.first().is_some_and(|value| value == "49") {
                return;
            }
            receiver.changed().await.unwrap();
        }
    };
    soon(async { tokio::join!(write, watch) }).await;
}

async fn waits_end(etcd: &Etcd, tasks: &TaskGroup) {
    let at = put(etcd, &prefix().item("a"), "1").await;
    let mirror = mirror(etcd, at, Duration::from_millis(5), tasks).await;
    // Nothing under the prefix happened at this revision.
    let elsewhere = put(etcd, "/elsewhere", "").await;
    let space = soon(mirror.wait_for(elsewhere)).await.unwrap();
    assert_eq!(space.revision(), at, "the effective revision is of the prefix alone");
    // A deletion between is not overlooked: no key that exists shows it.
    let gone = delete(etcd, &prefix().item("a")).await;
    let elsewhere = put(etcd, "/elsewhere", "").await;
    let space = soon(mirror.wait_for(elsewhere)).await.unwrap();
    assert_eq!((items(&space).len(), space.revision()), (0, gone));
}

#[tokio::test]
async fn waits_end_for_revisions_of_other_prefixes() {
    let f = fixture().await;
    waits_end(&f.etcd, &f.tasks).await;
}

#[tokio::test]
async fn waits_end_over_a_real_etcd_too() {
    let real = EtcdServer::start().await.unwrap();
    let tasks = TaskGroup::new("test");
    let etcd = support::connect(real.endpoint(), Duration::from_secs(20), &tasks).await;
    waits_end(&etcd, &tasks).await;
}

#[tokio::test]
async fn it_goes_on_after_a_restart_of_the_server() {
    let f = fixture().await;
    let mirror = mirror(&f.etcd, Revision::NONE, Duration::from_millis(5), &f.tasks).await;
    let before = put(&f.etcd, &prefix().item("a"), "1").await;
    soon(mirror.wait_for(before)).await.unwrap();
    let address = f.served.endpoint.strip_prefix("http://").unwrap().to_owned();
    f.served.stop().await;
    let served = Embedded::start_at(f.dir.path(), &address).await;
    let other = support::connect(&served.endpoint, Duration::from_secs(20), &f.tasks).await;
    let after = put(&other, &prefix().item("b"), "1").await;
    let space = soon(mirror.wait_for(after)).await.unwrap();
    assert_eq!(items(&space), ["a=1", "b=1"]);
    assert_eq!(space.loads(), 0, "nothing was missed, so nothing was read anew");
}

#[tokio::test]
async fn compacted_history_is_read_anew_and_said_so() {
    let f = fixture().await;
    let first = put(&f.etcd, &prefix().item("a"), "1").await;
    let mirror = mirror(&f.etcd, first, Duration::ZERO, &f.tasks).await;
    let address = f.served.endpoint.strip_prefix("http://").unwrap().to_owned();
    f.served.stop().await;
    // While the mirror cannot reach it, the store changes and forgets how.
    let elsewhere = Embedded::start(f.dir.path()).await;
    let etcd = support::connect(&elsewhere.endpoint, Duration::from_secs(20), &f.tasks).await;
    put(&etcd, &prefix().item("b"), "1").await;
    delete(&etcd, &prefix().item("a")).await;
    let last = put(&etcd, &prefix().item("c"), "1").await;
    support::compact(&elsewhere.endpoint, last.0).await;
    elsewhere.stop().await;
    let _served = Embedded::start_at(f.dir.path(), &address).await;
    let mut spaces = mirror.subscribe();
    let space = soon(spaces.wait_for(|space| space.revision() >= last)).await.unwrap().clone();
    assert_eq!((items(&space), space.loads()), (vec!["b=1".to_owned(), "c=1".to_owned()], 1));
}

#[tokio::test]
async fn another_cluster_at_the_same_address_ends_the_mirror() {
    let f = fixture().await;
    let tasks = f.tasks.child("mirror");
    let mirror = mirror(&f.etcd, Revision::NONE, Duration::ZERO, &tasks).await;
    let address = f.served.endpoint.strip_prefix("http://").unwrap().to_owned();
    f.served.stop().await;
    let empty = support::fast_dir();
    let _served = Embedded::start_at(empty.path(), &address).await;
    soon(tasks.token().cancelled()).await;
    let error = soon(tasks.join()).await.unwrap_err();
    assert!(error.to_string().contains("etcd cluster id changed"), "{error}");
    assert!(soon(mirror.wait_for(Revision(99))).await.is_err());
}

#[tokio::test]
async fn a_neighbour_whose_name_begins_alike_is_not_seen() {
    let f = fixture().await;
    put(&f.etcd, "/test/cluster-2/items/x", "1").await;
    let at = put(&f.etcd, "/test/cluster/items/x", "1").await;
    let mirror = mirror(&f.etcd, at, Duration::ZERO, &f.tasks).await;
    assert_eq!(mirror.snapshot().undecodable().count(), 0);
    assert_eq!(mirror.item_key("x"), "/test/cluster/items/x");
    assert_eq!(mirror.prefix(), &KeyPrefix::parse("/test/cluster").unwrap());
}
