//! Cloud stores, against servers: the suite, and what happens when something goes wrong on the way.

use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::BoxError;
use store_servers::{
    AzureServer, Effect, FakeAzureAd, FakeGoogleServer, Fault, FaultProxy, S3Server, Variables,
};

use super::*;

/// Stores of a process with these variables in its environment.
fn cloud_stores(variables: Variables) -> Stores {
    Stores::new(StoresConfig {
        file_root: None,
        environment: variables.into_iter().collect(),
        ..config(std::path::Path::new("/"))
    })
}

/// A new prefix for each store.
fn prefix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("prefix of/{}/", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test]
async fn s3_stores_conform() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let stores = cloud_stores(server.environment());
    let url = || server.store_url("bucket", &prefix(), server.endpoint());
    conformance::run(async || stores.get(&url()).unwrap()).await;
}

#[tokio::test]
async fn azure_stores_conform() {
    let server = AzureServer::start().await.unwrap();
    server.create_container("container").await.unwrap();
    let stores = cloud_stores(server.environment(server.endpoint()));
    conformance::run(async || stores.get(&format!("azure://container/{}", prefix())).unwrap()).await;
}

#[tokio::test]
async fn azure_stores_of_an_application_conform() {
    let server = AzureServer::start().await.unwrap();
    server.create_container("container").await.unwrap();
    let fake = FakeAzureAd::start(&server).await.unwrap();
    let stores = cloud_stores(fake.environment());
    conformance::run(async || stores.get(&fake.store_url("container", &prefix())).unwrap()).await;

    // An application which is not known is denied.
    let mut variables = fake.environment();
    variables.push(("AZURE_CLIENT_SECRET".to_owned(), "another".to_owned()));
    let store = cloud_stores(variables).get(&fake.store_url("container", "")).unwrap();
    let error = store.exists(&small()).await.unwrap_err();
    assert!(error.is_auth(), "{error}");
}

#[tokio::test]
async fn google_stores_conform() {
    let server = FakeGoogleServer::start().await.unwrap();
    server.create_bucket("bucket");
    let stores = cloud_stores(server.environment(server.endpoint()));
    conformance::run(async || stores.get(&format!("gs://bucket/{}", prefix())).unwrap()).await;
}

/// An S3 server with a bucket, a proxy before it, and a store which was found healthy.
async fn faulty_s3() -> (S3Server, FaultProxy, Store) {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let proxy = FaultProxy::start(server.endpoint()).await.unwrap();
    let url = server.store_url("bucket", "", proxy.endpoint());
    let store = cloud_stores(server.environment()).get(&url).unwrap();
    assert_eq!(store.checked_health().await, Health::Healthy);
    proxy.take_requests();
    (server, proxy, store)
}

fn small() -> Fragment {
    fragment_of("a/journal", 0, Codec::Snappy, b"content")
}

/// More than two parts, and its content.
fn large() -> (Fragment, Vec<u8>) {
    let content = content((11 << 20) + 4321);
    (fragment_of("a/journal", 0, Codec::None, &content), content)
}

fn is_part(path: &str, number: usize) -> bool {
    path.contains(&format!("partNumber={number}&"))
}

/// How many of `requests` are of `method`, with a path that has `part`.
fn count(requests: &[String], method: &str, part: &str) -> usize {
    requests.iter().filter(|request| request.starts_with(method) && request.contains(part)).count()
}

#[tokio::test]
async fn settings_of_the_url_are_those_of_objects() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let url = server.store_url("bucket", "", server.endpoint());
    let url = format!("{url}&storageClass=STANDARD_IA&sse=AES256&acl=bucket-owner-full-control");
    let store = cloud_stores(server.environment()).get(&url).unwrap();
    let (large, content) = large();
    store.put(&large, source(&content)).await.unwrap();
    let offload = fragment_of("b/journal", 0, Codec::GzipOffload, b"content");
    store.put(&offload, source(b"content")).await.unwrap();
    let gzip = fragment_of("b/journal", 0, Codec::Gzip, b"content");
    store.put(&gzip, source(b"content")).await.unwrap();
    for (fragment, encoding) in [(&large, None), (&offload, Some("gzip")), (&gzip, None)] {
        let headers = server.head("bucket", &fragment.content_path()).await.unwrap();
        let value = |name: &str| {
            let found = headers.iter().find(|(found, _)| found == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("x-amz-storage-class"), Some("STANDARD_IA"));
        assert_eq!(value("x-amz-server-side-encryption"), Some("AES256"));
        assert_eq!(value("content-encoding"), encoding);
    }
}

#[tokio::test]
async fn foreign_objects_do_not_end_listings() {
    let (server, _proxy, store) = faulty_s3().await;
    store.put(&small(), source(b"content")).await.unwrap();
    for key in ["a/journal//x", "a/journal/./y", "a/journal/folder/"] {
        server.put("bucket", key).await.unwrap();
    }
    let listed = store.list(&small().journal).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
}

#[tokio::test]
async fn passing_faults_of_a_server_are_not_seen() {
    let (_server, proxy, store) = faulty_s3().await;
    let effects = [
        Effect::Status(503, "SlowDown"),
        Effect::Status(500, "InternalError"),
        Effect::Status(429, "TooManyRequests"),
        Effect::Slow(Duration::from_millis(200)),
        Effect::LoseReply,
    ];
    let fragment = small();
    for effect in effects {
        let fail = |method: &'static str| {
            let fault = Fault::always(effect.clone()).times(2);
            proxy.set_fault(fault.only(move |found, path| found == method && !path.contains(".test/")));
        };
        fail("PUT");
        store.put(&fragment, source(b"content")).await.unwrap();
        fail("HEAD");
        assert!(store.exists(&fragment).await.unwrap(), "{effect:?}");
        fail("GET");
        assert_eq!(read(&store, &fragment, 0).await.unwrap(), b"content", "{effect:?}");
        fail("GET");
        assert_eq!(store.list(&fragment.journal).await.unwrap().len(), 1, "{effect:?}");
        fail("DELETE");
        store.remove(&fragment).await.unwrap();
        proxy.clear();
        assert!(!store.exists(&fragment).await.unwrap(), "{effect:?}");
    }
}

#[tokio::test]
async fn one_operation_is_asked_for_a_few_times_only() {
    let (_server, proxy, store) = faulty_s3().await;
    store.put(&small(), source(b"content")).await.unwrap();
    proxy.take_requests();
    proxy
        .set_fault(Fault::always(Effect::Status(503, "SlowDown")).only(|_, path| path.contains("a/journal")));
    let error = read(&store, &small(), 0).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_auth(), "{error}");
    assert!(store.exists(&small()).await.unwrap_err().is_retryable());
    assert!(store.put(&small(), source(b"content")).await.unwrap_err().is_retryable());
    let requests = proxy.take_requests();
    let attempts = 1 + RETRY_WAITS.len();
    for method in ["GET", "HEAD", "PUT"] {
        assert_eq!(count(&requests, method, "a/journal"), attempts, "{method}: {requests:?}");
    }
}

#[tokio::test]
async fn a_part_that_fails_is_sent_again_without_the_others() {
    let (_server, proxy, store) = faulty_s3().await;
    let (fragment, content) = large();
    let fault = Fault::always(Effect::Status(503, "SlowDown")).times(2);
    proxy.set_fault(fault.only(|_, path| is_part(path, 2)));
    store.put(&fragment, source(&content)).await.unwrap();
    let requests = proxy.take_requests();
    assert_eq!(count(&requests, "POST", "uploads"), 1, "{requests:?}");
    for (part, times) in [(1, 1), (2, 3), (3, 1)] {
        let sent = requests.iter().filter(|request| is_part(request, part)).count();
        assert_eq!(sent, times, "part {part}: {requests:?}");
    }
    assert!(read(&store, &fragment, 0).await.unwrap() == content);
}

/// A put whose reply is lost took effect: it ends as a success, under the one name.
#[tokio::test]
async fn a_lost_reply_ends_as_success_under_one_name() {
    let (_server, proxy, store) = faulty_s3().await;
    let (large, content) = large();
    proxy.set_fault(Fault::always(Effect::LoseReply).times(1).only(|method, _| method == "PUT"));
    let small = fragment_of("b/journal", 0, Codec::None, b"content");
    store.put(&small, source(b"content")).await.unwrap();
    let completes = |method: &str, path: &str| method == "POST" && path.contains("uploadId=");
    proxy.set_fault(Fault::always(Effect::LoseReply).times(1).only(completes));
    store.put(&large, source(&content)).await.unwrap();
    proxy.clear();
    for fragment in [&small, &large] {
        let listed = store.list(&fragment.journal).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].content_path(), fragment.content_path());
    }
    assert!(read(&store, &large, 0).await.unwrap() == content);
}

#[tokio::test]
async fn content_goes_on_where_it_broke_off() {
    let (_server, proxy, store) = faulty_s3().await;
    let (fragment, content) = large();
    store.put(&fragment, source(&content)).await.unwrap();
    for offset in [0, 1 << 20] {
        proxy.set_fault(Fault::always(Effect::Truncate).times(2).only(|method, _| method == "GET"));
        assert!(read(&store, &fragment, offset).await.unwrap() == content[offset as usize..]);
    }
    // If it never goes on, that is an error, and never content which is too short.
    proxy.set_fault(
        Fault::always(Effect::Truncate).only(|method, path| method == "GET" && path.contains("a/journal")),
    );
    let error = read(&store, &fragment, 0).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

/// Nothing of an upload which is given up stays: not an object, and not its parts, for which the store would be paid.
#[tokio::test]
async fn an_upload_that_is_dropped_is_aborted() {
    let (_server, proxy, store) = faulty_s3().await;
    let (fragment, content) = large();
    proxy.set_fault(Fault::always(Effect::Silence).only(|_, path| is_part(path, 2)));
    let mut seen = Vec::new();
    let mut put = Box::pin(store.put(&fragment, source(&content)));
    while !seen.iter().any(|request: &String| is_part(request, 2)) {
        tokio::select! {
            biased;
            outcome = &mut put => panic!("the upload ended: {outcome:?}"),
            () = tokio::task::yield_now() => seen.extend(proxy.take_requests()),
        }
    }
    drop(put);
    while count(&seen, "DELETE", "uploadId=") == 0 {
        tokio::task::yield_now().await;
        seen.extend(proxy.take_requests());
    }
    proxy.clear();
    assert!(!store.exists(&fragment).await.unwrap());
}

#[tokio::test]
async fn refusals_are_told_from_failures() {
    let (_server, proxy, store) = faulty_s3().await;
    for (status, code) in [(403, "AccessDenied"), (400, "ExpiredToken"), (401, "InvalidAccessKeyId")] {
        proxy.set_fault(Fault::always(Effect::Status(status, code)));
        let errors = [
            store.put(&small(), source(b"content")).await.unwrap_err(),
            read(&store, &small(), 0).await.unwrap_err(),
            store.list(&small().journal).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, StoreError::Denied { .. }) && error.is_auth(), "{code}: {error}");
            assert!(error.to_string().contains(code), "{error}");
        }
        let requests = proxy.take_requests();
        assert_eq!(count(&requests, "PUT", "a/journal"), 1, "refusals are not tried again: {requests:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_empty_store() -> Result<(), BoxError> {
    async fn check(store: &Store) {
        let errors = [
            store.list(&small().journal).await.unwrap_err(),
            store.put(&small(), source(b"content")).await.unwrap_err(),
            store.put(&large().0, source(&large().1)).await.unwrap_err(),
            read(store, &small(), 0).await.unwrap_err(),
        ];
        for error in errors {
            assert!(error.is_auth() && !error.is_not_found(), "{error}");
        }
        let unhealthy = store.checked_health().await;
        let text = unhealthy.result().unwrap_err();
        assert!(text.starts_with("health check PUT failed: put "), "{text}");
    }
    let server = S3Server::start().await?;
    let stores = cloud_stores(server.environment());
    check(&stores.get(&server.store_url("bucket", "", server.endpoint()))?).await;
    let server = AzureServer::start().await?;
    check(&cloud_stores(server.environment(server.endpoint())).get("azure://container/")?).await;
    let server = FakeGoogleServer::start().await?;
    check(&cloud_stores(server.environment(server.endpoint())).get("gs://bucket/")?).await;
    Ok(())
}

#[tokio::test]
async fn a_server_which_does_not_answer_is_asked_again() {
    let (_server, proxy, store) = faulty_s3().await;
    proxy.set_fault(Fault::always(Effect::Silence).times(1).only(|method, _| method == "HEAD"));
    assert!(!store.exists(&small()).await.unwrap());
    assert_eq!(count(&proxy.take_requests(), "HEAD", "a/journal"), 2);
}

#[tokio::test]
async fn a_listing_that_lags_is_not_a_loss() {
    let (_server, proxy, store) = faulty_s3().await;
    proxy.set_fault(Fault::always(Effect::ListingsLag));
    store.put(&small(), source(b"content")).await.unwrap();
    assert_eq!(store.list(&small().journal).await.unwrap(), []);
    assert!(store.exists(&small()).await.unwrap());
    proxy.clear();
    assert_eq!(store.list(&small().journal).await.unwrap().len(), 1);
}

/// Others read by URL: a store is not healthy whose URLs do not work, and the text does not show the signature.
#[tokio::test]
async fn health_needs_urls_which_can_be_fetched() {
    let server = S3Server::start().await.unwrap();
    server.create_bucket("bucket").await.unwrap();
    let proxy = FaultProxy::start(server.endpoint()).await.unwrap();
    let is_signed = |_: &str, path: &str| path.contains("X-Amz-Signature");
    let expectations = [
        (Effect::Status(403, "AccessDenied"), "health check fetch returned status 403"),
        (Effect::LoseReply, "health check fetch failed: "),
        (Effect::Truncate, "health check fetch read failed: "),
    ];
    for (effect, expected) in expectations {
        proxy.set_fault(Fault::always(effect).only(is_signed));
        let url = server.store_url("bucket", &prefix(), proxy.endpoint());
        let store = cloud_stores(server.environment()).get(&url).unwrap();
        let health = store.checked_health().await;
        let text = health.result().unwrap_err();
        assert!(text.starts_with(expected) && !text.contains("Signature"), "{text}");
    }
}
