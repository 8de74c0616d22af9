//! Listings which do not show for a while what was written, though it can be read.

use futures::StreamExt;
use proto::protocol::{AppendRequest, ReadRequest, Status};
use store_servers::{Effect, Fault, FaultProxy, S3Server};
use tempfile::TempDir;

use super::faulty::{FULL, Faulty, stores};
use super::support::{Fixture, eventually, within};

/// Listings of the journal which were asked for since this was last called.
fn listings(proxy: &FaultProxy) -> usize {
    let is_listing = |request: &String| request.contains("list-type=2") && !request.contains(".test");
    proxy.take_requests().iter().filter(|request| is_listing(request)).count()
}

async fn until_listed_again(proxy: &FaultProxy) {
    listings(proxy);
    // The last one may not have been taken over yet, the one before has.
    let mut seen = 0;
    eventually("the store is listed", async || {
        seen += listings(proxy);
        (seen > 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_was_stored_stays_readable_while_listings_lag() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let proxy = FaultProxy::start(server.endpoint()).await.unwrap();
    proxy.set_fault(Fault::always(Effect::ListingsLag).only(|_, path| !path.contains(".test")));
    let (url, direct_url) = (
        server.store_url("bucket", "late/", proxy.endpoint()),
        server.store_url("bucket", "late/", server.endpoint()),
    );
    let direct = stores(server.environment());
    let environment: Vec<_> = server.environment();
    let start = async |dir| {
        let environment = environment.clone().into_iter().collect();
        Fixture::start_in(dir, |options| options.environment = environment).await
    };
    let mut fixture = start(TempDir::with_prefix("courant-late-").unwrap()).await;
    let mut journal = Faulty::create(&mut fixture, "listings/late", &url, &direct_url).await;
    journal.append(&mut fixture, b"abcd").await;
    journal.until_objects_are(&direct, 0..3).await;

    // With nothing to be seen, every listing is from the beginning, and none shows what the broker knows to be there.
    until_listed_again(&proxy).await;
    journal.reads_from(&mut fixture, 0).await;
    journal.until_stored(&mut fixture, &direct, 0..3).await;

    // Others see what listings show. A broker that begins anew does not take the journal for a shorter one, and readers wait.
    let mut fixture = start(fixture.stop().await).await;
    eventually("the journal takes appends again", async || {
        let request = AppendRequest { journal: journal.name.clone(), ..Default::default() };
        let response = fixture.try_append(request, b"").await.unwrap();
        (response.status() == Status::Ok).then_some(())
    })
    .await;
    journal.append(&mut fixture, b"ef").await;
    let request = ReadRequest {
        journal: journal.name.clone(),
        block: true,
        end_offset: i64::try_from(6 * FULL).unwrap(),
        ..Default::default()
    };
    let mut reader = fixture.read(request).await.unwrap();
    until_listed_again(&proxy).await;
    proxy.clear();
    let mut read = Vec::new();
    while let Some(response) = within(reader.next()).await {
        let response = response.unwrap();
        assert!(response.content.is_empty() || response.offset == read.len() as i64, "nothing is skipped");
        read.extend_from_slice(&response.content);
    }
    assert!(read == journal.expected);
    journal.until_stored(&mut fixture, &direct, 0..5).await;
    journal.reads_from(&mut fixture, 0).await;
    fixture.stop().await;
}
