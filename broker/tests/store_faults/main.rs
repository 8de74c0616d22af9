//! Object stores that fail in the ways that they do (journal protocol §7.2, §10.4): appends go on meanwhile, nothing
//! acknowledged is lost, and everything is stored once the store works, each fragment in one object.

#![allow(clippy::unwrap_used, reason = "tests show what is missing by failing")]

mod bombs;
mod credentials;
mod faulty;
mod late_listings;
mod lost_buckets;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use store_servers::{Effect, Fault, FaultProxy, S3Server};
use stores::StoreTimes;
use support::{Fixture, eventually};
use tempfile::TempDir;

use faulty::{FULL, Faulty, stores};

/// One way to fail.
struct Row {
    name: &'static str,
    fault: fn() -> Fault,
    /// Whether health checks fail by it too.
    is_noticed: bool,
    /// Whether what is stored can be read nevertheless.
    is_readable: bool,
}

fn rows() -> Vec<Row> {
    let row = |name, fault| Row { name, fault, is_noticed: true, is_readable: false };
    let harmless = |name, fault| Row { name, fault, is_noticed: false, is_readable: true };
    vec![
        row("fails", || Fault::always(Effect::Status(500, "InternalError"))),
        row("is-busy", || Fault::always(Effect::Status(503, "SlowDown"))),
        row("denies", || Fault::always(Effect::Status(403, "AccessDenied"))),
        row("lost-its-bucket", || Fault::always(Effect::Status(404, "NoSuchBucket"))),
        row("is-silent", || Fault::always(Effect::Silence)),
        row("stalls", || Fault::always(Effect::Stall).only(|method, _| method == "GET")),
        row("truncates", || Fault::always(Effect::Truncate).only(|method, _| method == "GET")),
        harmless("is-slow", || Fault::always(Effect::Slow(Duration::from_millis(300)))),
        // The object is there, and nobody is told.
        harmless("loses-replies", || {
            Fault::always(Effect::LoseReply).only(|method, path| method == "PUT" && !path.contains(".test"))
        }),
        harmless("lists-late", || Fault::always(Effect::ListingsLag).only(|_, path| !path.contains(".test"))),
    ]
}

/// Times which a server in this machine keeps, and a silent one soon exceeds.
fn short_times() -> StoreTimes {
    let seconds = Duration::from_secs;
    StoreTimes {
        answer: seconds(2),
        upload_answer: seconds(2),
        request: seconds(4),
        page: seconds(2),
        list_step: seconds(8),
        upload: seconds(12),
        next_bytes: seconds(8),
        check: seconds(6),
        ..StoreTimes::default()
    }
}

/// A journal whose store is behind a proxy of its own.
struct Proxied {
    row: Row,
    proxy: FaultProxy,
    journal: Faulty,
}

async fn start(server: &S3Server) -> (Fixture, Vec<Proxied>) {
    let environment = server.environment().into_iter().collect();
    let dir = TempDir::with_prefix("courant-store-faults-").unwrap();
    let mut fixture = Fixture::start_in(dir, |options| {
        options.environment = environment;
        options.store_unhealthy_min_free = 0;
        options.store_times = short_times();
    })
    .await;
    let mut journals = Vec::new();
    for row in rows() {
        let proxy = FaultProxy::start(server.endpoint()).await.unwrap();
        let url = |endpoint| server.store_url("bucket", &format!("{}/", row.name), endpoint);
        let name = format!("faults/{}", row.name);
        let journal =
            Faulty::create(&mut fixture, &name, &url(proxy.endpoint()), &url(server.endpoint())).await;
        journals.push(Proxied { row, proxy, journal });
    }
    (fixture, journals)
}

#[tokio::test]
async fn appends_go_on_whatever_the_store_does_and_all_is_stored_once_it_works() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let (mut fixture, mut journals) = start(&server).await;
    let direct = stores(server.environment());
    for Proxied { row, proxy, journal } in &mut journals {
        journal.append(&mut fixture, b"ab").await;
        journal.until_stored(&mut fixture, &direct, 0..1).await;
        proxy.set_fault((row.fault)());
        proxy.take_requests();
    }
    for byte in *b"cde" {
        for Proxied { journal, .. } in &mut journals {
            journal.append(&mut fixture, &[byte]).await;
        }
    }
    for Proxied { row, proxy, journal } in &mut journals {
        eventually("the fault is met", async || {
            proxy.take_requests().iter().any(|request| request.contains("00000000005dc-")).then_some(())
        })
        .await;
        if row.is_noticed {
            journal.until_unhealthy(&mut fixture).await;
        }
        journal.append(&mut fixture, b"f").await;
        journal.reads_from(&mut fixture, if row.is_readable { 0 } else { FULL }).await;
    }
    for Proxied { proxy, .. } in &journals {
        proxy.clear();
    }
    for Proxied { journal, .. } in &mut journals {
        // It completes the last fragment.
        journal.append(&mut fixture, b"g").await;
    }
    for Proxied { journal, .. } in &mut journals {
        journal.until_stored(&mut fixture, &direct, 0..6).await;
        journal.reads_from(&mut fixture, 0).await;
    }
    fixture.stop().await;
}
