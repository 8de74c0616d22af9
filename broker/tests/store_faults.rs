//! Object stores that fail in the ways that they do (journal protocol §7.2, §10.4): appends go on meanwhile, nothing
//! acknowledged is lost, and everything is stored once the store works.

#![allow(clippy::unwrap_used, reason = "tests show what is missing by failing")]

mod support;

use std::time::Duration;

use futures::future::join_all;
use proto::protocol::{
    AppendRequest, FragmentStoreHealthRequest, FragmentsRequest, JournalSpec, ReadRequest, Status,
};
use store_servers::{Effect, Fault, FaultProxy, S3Server};
use support::{Fixture, content, eventually, journal, upsert, within};
use tempfile::TempDir;

/// Fills a fragment of the journals here.
const FULL: usize = 1500;

/// One way to fail, and whether health checks fail by it too.
struct Row {
    name: &'static str,
    fault: fn() -> Fault,
    is_noticed: bool,
}

fn rows() -> Vec<Row> {
    let row = |name, fault, is_noticed| Row { name, fault, is_noticed };
    vec![
        row("fails", || Fault::always(Effect::Status(500, "InternalError")), true),
        row("is-busy", || Fault::always(Effect::Status(503, "SlowDown")), true),
        row("denies", || Fault::always(Effect::Status(403, "AccessDenied")), true),
        row("lost-its-bucket", || Fault::always(Effect::Status(404, "NoSuchBucket")), true),
        row("is-slow", || Fault::always(Effect::Slow(Duration::from_millis(300))), false),
        // The object is there, and nobody is told.
        row(
            "loses-replies",
            || {
                Fault::always(Effect::LoseReply)
                    .only(|method, path| method == "PUT" && !path.contains(".test"))
            },
            false,
        ),
        row("truncates", || Fault::always(Effect::Truncate).only(|method, _| method == "GET"), true),
    ]
}

/// A journal whose store is behind a proxy of its own.
struct Journal {
    row: Row,
    name: String,
    store: String,
    proxy: FaultProxy,
    expected: Vec<u8>,
}

impl Journal {
    async fn append(&mut self, fixture: &mut Fixture, byte: u8) {
        let piece = [byte; FULL];
        let request = AppendRequest { journal: self.name.clone(), ..Default::default() };
        let response = fixture.try_append(request, &piece).await.unwrap();
        assert_eq!(response.status(), Status::Ok, "{}: {}", self.name, response.store_health_error);
        self.expected.extend(piece);
    }

    async fn is_unhealthy(&self, fixture: &mut Fixture) -> bool {
        let request = FragmentStoreHealthRequest { fragment_store: self.store.clone(), ..Default::default() };
        let response = within(fixture.client.fragment_store_health(request)).await.unwrap().into_inner();
        response.status() == Status::FragmentStoreUnhealthy
    }

    /// Spans of the fragments which the broker knows to be stored.
    async fn stored(&self, fixture: &mut Fixture) -> Vec<(i64, i64)> {
        let request = FragmentsRequest { journal: self.name.clone(), ..Default::default() };
        let fragments = fixture.fragments(request).await.fragments.into_iter().filter_map(|f| f.spec);
        fragments.filter(|spec| spec.mod_time != 0).map(|spec| (spec.begin, spec.end)).collect()
    }
}

fn spec(name: &str, store: &str) -> JournalSpec {
    let mut spec = journal(name);
    let fragment = spec.fragment.as_mut().unwrap();
    (fragment.length, fragment.stores) = (1024, vec![store.to_owned()]);
    spec
}

async fn start(server: &S3Server) -> (Fixture, Vec<Journal>) {
    let environment = server.environment().into_iter().collect();
    let dir = TempDir::with_prefix("courant-store-faults-").unwrap();
    let mut fixture = Fixture::start_in(dir, |options| {
        options.environment = environment;
        options.store_unhealthy_min_free = 0;
    })
    .await;
    let proxied = rows().into_iter().map(async |row| {
        let proxy = FaultProxy::start(server.endpoint()).await.unwrap();
        let store = server.store_url("bucket", &format!("{}/", row.name), proxy.endpoint());
        Journal { name: format!("faults/{}", row.name), row, store, proxy, expected: Vec::new() }
    });
    let mut journals = join_all(proxied).await;
    for journal in &mut journals {
        fixture.apply(vec![upsert(spec(&journal.name, &journal.store), 0)]).await;
        // The store worked once.
        fixture.append(&journal.name, b"").await;
        journal.append(&mut fixture, b'a').await;
    }
    (fixture, journals)
}

#[tokio::test]
async fn appends_go_on_whatever_the_store_does_and_all_is_stored_once_it_works() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let (mut fixture, mut journals) = start(&server).await;
    for journal in &mut journals {
        journal.proxy.set_fault((journal.row.fault)());
        journal.proxy.take_requests();
    }
    for byte in *b"bcd" {
        for journal in &mut journals {
            journal.append(&mut fixture, byte).await;
        }
    }
    for journal in &mut journals {
        eventually("the fault is met", async || {
            journal.proxy.take_requests().iter().any(|request| request.contains("0000-0000")).then_some(())
        })
        .await;
        if journal.row.is_noticed {
            eventually("the store counts as unhealthy", async || {
                journal.is_unhealthy(&mut fixture).await.then_some(())
            })
            .await;
        }
        journal.append(&mut fixture, b'e').await;
    }
    for journal in &mut journals {
        journal.proxy.clear();
    }
    for journal in &mut journals {
        // The next append completes the last fragment.
        journal.append(&mut fixture, b'f').await;
        let offset = |number: usize| i64::try_from(number * FULL).unwrap();
        let expected: Vec<_> = (0..5).map(|number| (offset(number), offset(number + 1))).collect();
        eventually(&format!("all of {} is stored, once", journal.name), async || {
            (journal.stored(&mut fixture).await == expected).then_some(())
        })
        .await;
        let read = ReadRequest { journal: journal.name.clone(), ..Default::default() };
        assert!(content(&fixture.read_all(read).await) == journal.expected, "{}", journal.name);
    }
    fixture.stop().await;
}
