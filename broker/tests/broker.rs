//! A broker as a whole: starting, restarting, stopping, and what it shows of itself.

mod support;

use std::time::Duration;

use broker::{Broker, BrokerOptions};
use proto::protocol::{
    CompressionCodec, FragmentStoreHealthRequest, FragmentsRequest, Header, ReadRequest, ReplicateRequest,
    Status, header,
};
use support::{Fixture, content, delete, eventually, journal, upsert, within};
use tonic::Code;

const NAME: &str = "a/journal";

#[tokio::test]
async fn a_restarted_broker_is_the_same_member_with_the_same_content() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    fixture.append(NAME, b"before ").await;
    let id = fixture.broker.id().clone();
    let dir = fixture.stop().await;

    let mut fixture = Fixture::start_in(dir, |_| {}).await;
    assert_eq!(*fixture.broker.id(), id);
    let committed = fixture.append(NAME, b"after").await.commit.unwrap();
    assert_eq!((committed.begin, committed.end), (7, 12));
    let read = fixture.read_all(ReadRequest { journal: NAME.to_owned(), ..Default::default() }).await;
    assert_eq!(content(&read), b"before after");
    fixture.stop().await;
}

#[tokio::test]
async fn a_second_broker_on_a_directory_is_refused() {
    let fixture = Fixture::start().await;
    let options = BrokerOptions::embedded(fixture.dir.path().join("data"));
    let error = within(Broker::start(options)).await.err().unwrap().to_string();
    assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
    fixture.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let fixture = Fixture::start().await;
    let other = tempfile::tempdir().unwrap();
    let mut options = BrokerOptions::embedded(other.path().to_owned());
    options.bind = fixture.broker.endpoint().trim_start_matches("http://").to_owned();
    let error = within(Broker::start(options)).await.err().unwrap().to_string();
    assert!(error.starts_with("cannot listen on 127.0.0.1:"), "{error}");
    fixture.stop().await;
}

#[tokio::test]
async fn metrics_and_readiness_are_on_the_same_port() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    fixture.append(NAME, b"content").await;
    assert!(fixture.http("/debug/ready").await.starts_with("HTTP/1.1 200"));
    let metrics = fixture.http("/debug/metrics").await;
    for line in [
        r#"gazette_journal_server_completed_totals{operation="Append",status="ok"}"#,
        r#"gazette_write_head{journal="a/journal"} 7"#,
        "courant_append_seconds_count 1",
        "courant_append_group_appends_sum 1",
        "courant_append_group_bytes_sum 7",
        "# TYPE courant_read_copy_failures_total counter",
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Append",grpc_service="protocol.Journal","#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    fixture.apply(vec![support::delete(NAME, -1)]).await;
    eventually("the series of the journal is dropped", async || {
        (!fixture.http("/debug/metrics").await.contains("gazette_write_head{")).then_some(())
    })
    .await;
    fixture.stop().await;
}

#[tokio::test]
async fn two_brokers_share_the_journals_and_one_takes_all_when_the_other_leaves() {
    let mut first = Fixture::start().await;
    let etcd = first.broker.etcd_address().to_owned();
    let mut second = Fixture::start_in(tempfile::tempdir().unwrap(), |options| {
        options.etcd = broker::EtcdChoice::Address(etcd);
        options.lease_ttl = Duration::from_secs(5);
        // Replicas of one broker cannot be copied to another yet, so that it leaves when this is over.
        options.drain_timeout = Duration::from_millis(100);
    })
    .await;
    assert_ne!(first.broker.id(), second.broker.id());
    let names: Vec<String> = (0..6).map(|i| format!("shared/{i}")).collect();
    let specs = names.iter().map(|name| {
        let mut spec = journal(name);
        spec.fragment.as_mut().unwrap().stores.clear();
        upsert(spec, 0)
    });
    first.apply(specs.collect()).await;
    for name in &names {
        // Whoever is asked answers, or passes the request on.
        assert_eq!(first.append(name, b"one").await.commit.unwrap().end, 3);
        assert_eq!(second.append(name, b"two").await.commit.unwrap().end, 6);
        for fixture in [&mut first, &mut second] {
            let request = ReadRequest { journal: name.clone(), ..Default::default() };
            assert_eq!(content(&fixture.read_all(request).await), b"onetwo");
            let request = FragmentsRequest { journal: name.clone(), ..Default::default() };
            let listed = fixture.fragments(request).await.fragments;
            assert_eq!(listed.last().unwrap().spec.as_ref().unwrap().end, 6);
        }
    }
    let served = |fixture: &Fixture| fixture.broker.id().to_proto();
    let (one, two) = (served(&first), served(&second));
    let listed = first.list(Default::default()).await;
    let owners: Vec<_> =
        listed[0].journals.iter().map(|j| j.route.as_ref().unwrap().members[0].clone()).collect();
    assert!(owners.contains(&one) && owners.contains(&two), "{owners:?}");

    let id = two.clone();
    second.stop().await;
    eventually("the first broker has every journal", async || {
        let listed = first.list(Default::default()).await;
        let routes = listed[0].journals.iter().map(|j| j.route.clone().unwrap());
        routes.into_iter().all(|r| r.primary == 0 && r.members[0] != id).then_some(())
    })
    .await;
    first.stop().await;
}

#[tokio::test]
async fn headers_of_other_clusters_and_processes_are_refused() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    let read = fixture.read_all(ReadRequest { journal: NAME.to_owned(), ..Default::default() }).await;
    let good = read[0].header.clone().unwrap();
    let etcd = good.etcd.unwrap();
    let with =
        |header: Header| ReadRequest { journal: NAME.to_owned(), header: Some(header), ..Default::default() };
    fixture.read(with(good.clone())).await.unwrap();

    let cluster = Header { etcd: Some(header::Etcd { cluster_id: 8, ..etcd }), ..good.clone() };
    let error = fixture.read(with(cluster)).await.unwrap_err();
    let expected = format!("request Etcd ClusterId doesn't match our own (8 vs {})", etcd.cluster_id);
    assert_eq!((error.code(), error.message()), (Code::Unknown, expected.as_str()));

    let other = proto::MemberId::new("zone", "other-process").unwrap().to_proto();
    let error = fixture.read(with(Header { process_id: Some(other), ..good.clone() })).await.unwrap_err();
    assert!(
        error.message().starts_with("request ProcessId doesn't match our own (zone:"),
        "{}",
        error.message()
    );

    // A revision of the future is waited for.
    let future = Header { etcd: Some(header::Etcd { revision: etcd.revision + 1, ..etcd }), ..good };
    let mut waiting = fixture.client.clone();
    let (answer, ()) = tokio::join!(waiting.read(with(future)), async {
        fixture.apply(vec![upsert(journal("b/journal"), 0)]).await;
    });
    let first = within(answer.unwrap().into_inner().message()).await.unwrap().unwrap();
    assert!(first.header.unwrap().etcd.unwrap().revision > etcd.revision);
    fixture.stop().await;
}

#[tokio::test]
async fn store_health_is_told_of_stores_that_journals_name() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal(NAME)).await;
    let health = async |fixture: &mut Fixture, store: &str, prefix: Option<&str>| {
        let request = FragmentStoreHealthRequest {
            fragment_store: store.to_owned(),
            check_delete: prefix.is_some(),
            check_delete_prefix: prefix.unwrap_or_default().to_owned(),
        };
        let response = within(fixture.client.fragment_store_health(request)).await?.into_inner();
        Ok::<_, tonic::Status>((response.status(), response.store_health_error))
    };
    assert_eq!(health(&mut fixture, "file:///", None).await.unwrap(), (Status::Ok, String::new()));
    assert_eq!(health(&mut fixture, "file:///", Some("")).await.unwrap().0, Status::Ok);
    assert_eq!(health(&mut fixture, "file:///", Some("a/")).await.unwrap().0, Status::Ok);
    let (status, error) = health(&mut fixture, "file:///", Some("some/where/")).await.unwrap();
    assert_eq!(status, Status::FragmentStoreUnhealthy);
    assert!(error.contains("no journal of that store is there"), "{error}");
    let (status, error) = health(&mut fixture, "file:///elsewhere/", None).await.unwrap();
    assert_eq!(status, Status::FragmentStoreUnhealthy);
    assert!(error.contains("no journal names it"), "{error}");
    assert!(health(&mut fixture, "azure-ad://tenant/acct", None).await.is_err());
    assert!(health(&mut fixture, "file:///", Some("../up/")).await.is_err());
    fixture.stop().await;
}

#[tokio::test]
async fn malformed_replication_streams_are_refused() {
    let mut fixture = Fixture::start().await;
    fixture.create(journal("repli/cated")).await;
    let empty = proto::protocol::Fragment {
        journal: "repli/cated".to_owned(),
        compression_codec: CompressionCodec::None as i32,
        ..Default::default()
    };
    let proposal = ReplicateRequest {
        proposal: Some(empty),
        registers: Some(Default::default()),
        acknowledge: true,
        ..Default::default()
    };
    for (messages, expected) in [
        (vec![], "EOF"),
        (vec![ReplicateRequest::default()], "expected Content or Proposal"),
        (vec![proposal], "expected first ReplicateRequest to have Header"),
    ] {
        let error = fixture.client.replicate(futures::stream::iter(messages)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::Unknown, expected));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_unix_socket_serves_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let bind = format!("unix://{}", dir.path().join("broker.sock").display());
    let mut fixture = Fixture::start_in(dir, |options| options.bind = bind).await;
    fixture.create(journal(NAME)).await;
    assert_eq!(fixture.append(NAME, b"content").await.commit.unwrap().end, 7);
    fixture.stop().await;
}

#[tokio::test]
async fn diagnostics_may_have_a_port_of_their_own() {
    let (address, listener) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap().to_string(), listener)
    };
    drop(listener);
    let fixture = Fixture::start_in(tempfile::tempdir().unwrap(), |options| {
        options.debug_bind = Some(address.clone());
        options.debug_private = true;
    })
    .await;
    assert!(fixture.http("/debug/metrics").await.starts_with("HTTP/1.1 404"));
    assert!(support::http(&address, "/debug/metrics").await.contains("gazette_store_active"));
    fixture.stop().await;
}

#[tokio::test]
async fn clients_of_the_embedded_etcd_do_not_hold_a_stopping_broker() {
    let fixture = Fixture::start().await;
    let tasks = runtime::TaskGroup::new("client");
    let options = keyspace::EtcdOptions {
        lease_ttl: Duration::from_secs(10),
        tls: Default::default(),
        clock: runtime::Clock::system(),
        tasks: tasks.clone(),
    };
    let etcd = within(keyspace::Etcd::connect(fixture.broker.etcd_address(), options)).await.unwrap();
    let lease = within(etcd.grant(Duration::from_secs(10))).await.unwrap();
    let clock = runtime::Clock::system();
    let mut other = fixture.client.clone();
    let watch =
        within(other.list(proto::protocol::ListRequest { watch: true, ..Default::default() })).await.unwrap();
    let began = clock.now();
    fixture.stop().await;
    assert!(clock.now() - began < Duration::from_secs(5), "it waited for its clients");
    drop((lease, watch));
    tasks.cancel();
}

#[tokio::test]
async fn a_journal_that_is_made_again_at_once_keeps_what_it_acknowledges() {
    let mut fixture = Fixture::start().await;
    // Without a store: what the former journal stored would be part of the latter, which then begins after it.
    let spec = || {
        let mut spec = journal("a/gain");
        spec.fragment.as_mut().unwrap().stores.clear();
        spec
    };
    fixture.create(spec()).await;
    for _ in 0..8 {
        fixture.append("a/gain", b"former").await;
        fixture.apply(vec![delete("a/gain", -1)]).await;
        fixture.apply(vec![upsert(spec(), 0)]).await;
    }
    let commit = fixture.append("a/gain", b"latest").await.commit.unwrap();
    let dir = fixture.stop().await;
    let mut fixture = Fixture::start_in(dir, |_| {}).await;
    fixture.append("a/gain", b"").await;
    let request = ReadRequest { journal: "a/gain".to_owned(), offset: commit.begin, ..Default::default() };
    assert_eq!(content(&fixture.read_all(request).await), b"latest");
    fixture.stop().await;
}
