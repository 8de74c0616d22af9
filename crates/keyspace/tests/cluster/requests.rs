use std::time::Duration;

use bytes::Bytes;
use keyspace::{Compare, Op, OpResponse, PutLease, Txn};
use proto::Revision;
use runtime::TaskGroup;

use crate::{delete, fixture, put, soon, support};

#[tokio::test]
async fn ranges_are_read_in_pages_at_one_revision() {
    let f = fixture().await;
    let count = 2500;
    let mut keys: Vec<String> = (0..count).map(|n| format!("/r/{n:05}")).collect();
    for chunk in keys.chunks(Txn::OPS_MAX) {
        let then = chunk
            .iter()
            .map(|key| Op::Put { key: key.clone(), value: Bytes::new(), lease: PutLease::None })
            .collect();
        assert!(f.etcd.txn(Txn { then, ..Txn::default() }).await.unwrap().succeeded);
    }
    let (all, header) = f.etcd.range("/r/", Revision::NONE).await.unwrap();
    let at = header.revision;
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    put(&f.etcd, "/r/00000x", "later").await;
    put(&f.etcd, "/r0", "outside").await;
    delete(&f.etcd, "/r/00001").await;
    let (then, header) = f.etcd.range("/r/", at).await.unwrap();
    assert_eq!(header.revision, at);
    assert_eq!(then, all);
    assert_eq!(then.into_iter().map(|kv| kv.key).collect::<Vec<_>>(), keys);
    let (now, _) = f.etcd.range("/r/", Revision::NONE).await.unwrap();
    keys.remove(1);
    keys.insert(1, "/r/00000x".to_owned());
    assert_eq!(now.into_iter().map(|kv| kv.key).collect::<Vec<_>>(), keys);
}

#[tokio::test]
async fn transactions_compare_and_answer_in_order() {
    let f = fixture().await;
    let created = put(&f.etcd, "/k", "1").await;
    let lease = f.etcd.grant(Duration::from_secs(60)).await.unwrap();
    let key = || "/k".to_owned();
    let txn = |compares| Txn {
        compares,
        then: vec![
            Op::Put { key: key(), value: "2".into(), lease: PutLease::Id(lease.id()) },
            Op::Get { key: key() },
            Op::DeletePrefix { prefix: "/none".into() },
        ],
        or_else: vec![Op::Get { key: key() }, Op::Get { key: "/absent".into() }],
    };
    let missed =
        f.etcd.txn(txn(vec![Compare::ModRevision { key: key(), equals: Revision(99) }])).await.unwrap();
    assert!(!missed.succeeded);
    let [OpResponse::Get(Some(kv)), OpResponse::Get(None)] = &missed.responses[..] else {
        panic!("{missed:?}")
    };
    assert_eq!((kv.mod_revision, &kv.value[..]), (created, &b"1"[..]));

    let all_hold = vec![
        Compare::ModRevision { key: key(), equals: created },
        Compare::CreateRevision { key: key(), equals: created },
        Compare::Version { key: key(), equals: 1 },
        Compare::Lease { key: key(), equals: 0 },
        Compare::ModRevision { key: "/absent".into(), equals: Revision::NONE },
    ];
    let done = f.etcd.txn(txn(all_hold)).await.unwrap();
    assert!(done.succeeded);
    let [OpResponse::Put, OpResponse::Get(Some(kv)), OpResponse::Deleted(0)] = &done.responses[..] else {
        panic!("{done:?}")
    };
    assert_eq!((kv.mod_revision, kv.lease, kv.version), (done.header.revision, lease.id(), 2));

    // A value may change while the lease stays, and the key goes with the lease.
    let keep = Op::Put { key: key(), value: "3".into(), lease: PutLease::Keep };
    f.etcd.txn(Txn { then: vec![keep], ..Txn::default() }).await.unwrap();
    assert_eq!(f.etcd.get("/k").await.unwrap().unwrap().lease, lease.id());
    lease.revoke().await.unwrap();
    assert_eq!(f.etcd.get("/k").await.unwrap(), None);
}

#[tokio::test]
async fn errors_say_whether_to_retry() {
    let f = fixture().await;
    let put = Op::Put { key: "/k".into(), value: Bytes::new(), lease: PutLease::Id(12345) };
    let error = f.etcd.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap_err();
    assert!(error.is_lease_not_found() && !error.is_retryable() && !error.may_have_taken_effect(), "{error}");
    let error = f.etcd.range("/k", Revision(99)).await.unwrap_err();
    assert!(!error.is_compacted() && !error.is_retryable(), "{error}");
    let large = Op::Put { key: "/k".into(), value: vec![0; 1600 << 10].into(), lease: PutLease::None };
    let error = f.etcd.txn(Txn { then: vec![large], ..Txn::default() }).await.unwrap_err();
    assert_eq!(error.message(), "etcdserver: request is too large");
    let etcd = f.etcd.clone();
    f.served.stop().await;
    let error = soon(etcd.get("/k")).await.unwrap_err();
    assert!(error.is_unavailable() && error.may_have_taken_effect(), "{error}");
}

#[tokio::test]
async fn connecting_waits_for_a_server_and_can_be_stopped() {
    let dir = support::fast_dir();
    let first = support::Embedded::start(dir.path()).await;
    let endpoint = first.endpoint.clone();
    let address = endpoint.strip_prefix("http://").unwrap().to_owned();
    first.stop().await;

    let stopped = TaskGroup::new("stopped");
    let options = keyspace::EtcdOptions {
        lease_ttl: Duration::from_secs(20),
        tls: Default::default(),
        clock: runtime::Clock::system(),
        tasks: stopped.clone(),
    };
    let attempt = keyspace::Etcd::connect(&endpoint, options);
    let (outcome, ()) = soon(async { tokio::join!(attempt, async { stopped.cancel() }) }).await;
    assert!(outcome.is_err());

    let tasks = TaskGroup::new("test");
    let connecting = support::connect(&endpoint, Duration::from_secs(20), &tasks);
    let serving = support::Embedded::start_at(dir.path(), &address);
    let (etcd, _served) = soon(async { tokio::join!(connecting, serving) }).await;
    assert_eq!(etcd.get("/k").await.unwrap(), None);
}

#[tokio::test]
async fn acknowledged_writes_outlive_the_server_and_its_identity_stays() {
    let f = fixture().await;
    let lease = f.etcd.grant(Duration::from_secs(60)).await.unwrap();
    let op = Op::Put { key: "/k".into(), value: "v".into(), lease: PutLease::Id(lease.id()) };
    let before = f.etcd.txn(Txn { then: vec![op], ..Txn::default() }).await.unwrap().header;
    let address = f.served.endpoint.strip_prefix("http://").unwrap().to_owned();
    f.served.stop().await;
    let _served = support::Embedded::start_at(f.dir.path(), &address).await;
    let again = loop {
        match soon(f.etcd.range("/k", Revision::NONE)).await {
            Ok(read) => break read,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    };
    assert_eq!(again.0[0].lease, lease.id());
    assert_eq!(again.1, keyspace::EtcdHeader { raft_term: before.raft_term + 1, ..before });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_are_all_acknowledged_once() {
    let f = fixture().await;
    let writers = (0..32).map(|writer| {
        let etcd = f.etcd.clone();
        async move {
            for n in 0..20 {
                put(&etcd, &format!("/w/{writer:02}/{n:02}"), "").await;
            }
        }
    });
    futures::future::join_all(writers).await;
    let (all, header) = f.etcd.range("/w/", Revision::NONE).await.unwrap();
    assert_eq!((all.len(), header.revision), (640, Revision(641)));
    let mut revisions: Vec<i64> = all.iter().map(|kv| kv.mod_revision.0).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=641).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_falls_behind_the_kept_history_is_cancelled() {
    let f = fixture().await;
    let client = etcd_client::Client::connect([&f.served.endpoint], None).await.unwrap();
    let options = etcd_client::WatchOptions::new().with_prefix().with_start_revision(2);
    let mut watch = client.watch_client().watch("/big/", Some(options)).await.unwrap();
    // Nobody reads the watch, and more is written than the server keeps and the connection holds.
    let value = "v".repeat(1 << 20);
    for n in 0..48 {
        put(&f.etcd, &format!("/big/{}", n % 2), &value).await;
    }
    let (mut events, mut ended) = (0, None);
    while let Some(response) = soon(watch.message()).await.unwrap() {
        events += response.events().len();
        if response.canceled() {
            ended = Some(response.compact_revision());
            break;
        }
    }
    assert!(ended.is_some_and(|revision| revision > 2), "{ended:?}");
    assert!(events < 48, "{events} events were kept for it");
}
