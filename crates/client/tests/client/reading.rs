//! Readers against a broker which does what the test says.

use crate::common::{Fixture, append_to, read_from, soon};
use axum::http::{HeaderMap, Uri};
use client::testing::{Fault, Proxy};
use client::{ClientOptions, JournalClient, ReadError, RetryReader};
use fragment::Sum;
use proto::protocol::process_spec::Id;
use proto::protocol::{
    ApplyRequest, CompressionCodec, Fragment, FragmentsRequest, LabelSelector, ReadRequest, ReadResponse,
    Route, Status, apply_request,
};
use runtime::OnError;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tonic::Code;

const A: &str = "test/journal-a";

/// Reads until `end`.
async fn read_through(reader: &mut RetryReader, end: i64) -> Vec<u8> {
    let mut all = Vec::new();
    while reader.offset() < end {
        let chunk = soon(reader.next()).await.unwrap();
        assert_eq!(chunk.offset + chunk.bytes.len() as i64, reader.offset());
        all.extend_from_slice(&chunk.bytes);
    }
    all
}

#[tokio::test]
async fn a_blocking_reader_follows_the_journal_over_broken_calls() {
    let it = Fixture::start(&[A]).await;
    let mut reader = RetryReader::new(it.client.clone(), read_from(A, 0, true));
    let mut written = Vec::new();
    for round in 0..5u8 {
        let content = vec![round; 100_000];
        it.client.append(append_to(A), content.clone().into()).await.unwrap();
        written.extend_from_slice(&content);
        assert!(read_through(&mut reader, written.len() as i64).await == written[written.len() - 100_000..]);
        assert_eq!(reader.write_head(), written.len() as i64);
        it.broker.break_streams();
    }
}

#[tokio::test]
async fn a_reader_at_the_head_says_so_and_may_be_asked_again() {
    let it = Fixture::start(&[A]).await;
    it.broker.set_content(A, 0, b"content");
    let mut reader = RetryReader::new(it.client.clone(), read_from(A, -1, false));
    for _ in 0..2 {
        let error = soon(reader.next()).await.unwrap_err();
        assert!(matches!(error, ReadError::NotYetAvailable { offset: 7, write_head: 7 }), "{error}");
        assert_eq!((reader.offset(), reader.write_head()), (7, 7));
    }
    it.client.append(append_to(A), "more".into()).await.unwrap();
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "more");
}

#[tokio::test]
async fn a_read_ends_at_its_end_offset() {
    let it = Fixture::start(&[A]).await;
    it.broker.set_content(A, 0, b"content");
    let request = ReadRequest { end_offset: 4, ..read_from(A, 1, true) };
    let mut reader = RetryReader::new(it.client.clone(), request);
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "ont");
    for _ in 0..2 {
        let error = soon(reader.next()).await.unwrap_err();
        assert!(matches!(error, ReadError::EndOffset) && error.is_eof(), "{error}");
    }
    reader.seek(0);
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "cont");
}

#[tokio::test]
async fn a_jump_is_reported_once() {
    let it = Fixture::start(&[A]).await;
    it.broker.set_content(A, 100, b"content");
    let mut reader = RetryReader::new(it.client.clone(), read_from(A, 30, true));
    let error = soon(reader.next()).await.unwrap_err();
    assert!(matches!(error, ReadError::OffsetJump { from: 30, to: 100 }), "{error}");
    let chunk = soon(reader.next()).await.unwrap();
    assert_eq!((chunk.offset, &chunk.bytes[..]), (100, &b"content"[..]));
}

#[tokio::test]
async fn failures_and_frames_which_break_the_protocol_are_retried() {
    let it = Fixture::start(&[A]).await;
    it.broker.set_content(A, 0, b"content");
    it.broker.fault_read(Fault::Grpc(Code::Unavailable));
    it.broker.fault_read(Fault::Status(Status::InsufficientJournalBrokers));
    it.broker.fault_read(Fault::Frames(vec![ReadResponse {
        offset: 3,
        content: "x".into(),
        ..Default::default()
    }]));
    let mut reader = RetryReader::new(it.client.clone(), read_from(A, 0, true));
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "content");
    assert_eq!(it.broker.reads().len(), 4);
}

#[tokio::test]
async fn a_missing_journal_is_asked_for_a_few_times_and_a_suspended_one_is_not() {
    let it = Fixture::start(&[A]).await;
    let mut reader = RetryReader::new(it.client.clone(), read_from("test/missing", 0, true));
    let error = soon(reader.next()).await.unwrap_err();
    assert!(matches!(error, ReadError::JournalNotFound(_)), "{error}");
    assert_eq!(it.broker.reads().len(), 4);
    it.broker.fault_read(Fault::Status(Status::Suspended));
    let mut reader = RetryReader::new(it.client.clone(), read_from(A, 0, true));
    let error = soon(reader.next()).await.unwrap_err();
    assert!(matches!(error, ReadError::Suspended(_)), "{error}");
}

#[tokio::test]
async fn a_reader_survives_its_connection_and_ends_with_its_client() {
    let it = Fixture::start(&[A]).await;
    let mut proxy = Proxy::start(it.broker.endpoint(), &it.tasks).await.unwrap();
    let tasks = it.tasks.child("client");
    let client = JournalClient::new(proxy.endpoint(), ClientOptions::new(tasks.clone())).unwrap();
    let mut reader = RetryReader::new(client, read_from(A, 0, true));
    it.client.append(append_to(A), "one".into()).await.unwrap();
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "one");
    proxy.cut().await.unwrap();
    it.client.append(append_to(A), "two".into()).await.unwrap();
    proxy.restore().await.unwrap();
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "two");
    tasks.cancel();
    assert!(matches!(soon(reader.next()).await, Err(ReadError::Cancelled)));
}

/// A read which ends with the metadata of a stored fragment of `content` from offset zero.
fn stored(offset: i64, content: &[u8], url: &str) -> Fault {
    stored_as(CompressionCodec::Gzip, offset, content, url)
}

fn stored_as(codec: CompressionCodec, offset: i64, content: &[u8], url: &str) -> Fault {
    let end = content.len() as i64;
    let fragment = Fragment {
        journal: A.to_owned(),
        end,
        sum: Some(Sum::of(content).into()),
        compression_codec: codec as i32,
        ..Default::default()
    };
    let fragment_url = url.to_owned();
    Fault::Frames(vec![ReadResponse {
        offset,
        write_head: end,
        fragment: Some(fragment),
        fragment_url,
        ..Default::default()
    }])
}

#[tokio::test]
async fn fragments_are_read_from_files_or_else_through_the_broker() {
    let it = Fixture::start(&[A]).await;
    let content = b"0123456789".repeat(50_000);
    it.broker.set_content(A, 0, &content);
    let root = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(root.path().join("fragment.gz")).unwrap();
    let mut gzip = fragment::compress::Compressor::new(fragment::Codec::Gzip, None, file).unwrap();
    gzip.write_all(&content).unwrap();
    gzip.finish().unwrap();

    let options =
        ClientOptions { file_root: Some(root.path().to_owned()), ..ClientOptions::new(it.tasks.clone()) };
    let with_root = JournalClient::new(it.broker.endpoint(), options).unwrap();
    let end = content.len() as i64;
    let request = ReadRequest { do_not_proxy: true, ..read_from(A, 5, true) };

    it.broker.fault_read(stored(5, &content, "file:///fragment.gz"));
    let mut reader = RetryReader::new(with_root.clone(), request.clone());
    assert!(read_through(&mut reader, end).await == content[5..]);
    assert_eq!(it.broker.reads().len(), 1, "the broker sent no content");

    for (client, url) in [
        (&it.client, "file:///fragment.gz"),
        (&with_root, "file:///missing.gz"),
        (&with_root, "s3://bucket/fragment.gz?secret=1"),
        (&with_root, "http://127.0.0.1:1/fragment.gz?secret=1"),
    ] {
        it.broker.fault_read(stored(5, &content, url));
        let mut reader = RetryReader::new(client.clone(), request.clone());
        assert!(read_through(&mut reader, end).await == content[5..], "{url}");
        assert!(!it.broker.reads().last().unwrap().do_not_proxy, "{url}");
    }

    it.broker.fault_read(stored(0, &content[..20], "file:///fragment.gz"));
    let mut reader = with_root.read(read_from(A, 0, true));
    let too_long = loop {
        if let Err(error) = soon(reader.next()).await {
            break error;
        }
    };
    assert!(too_long.to_string().ends_with("did not read EOF at expected Fragment.End"), "{too_long}");
}

fn gzipped(content: &[u8]) -> Vec<u8> {
    compressed(CompressionCodec::Gzip, content)
}

fn compressed(codec: CompressionCodec, content: &[u8]) -> Vec<u8> {
    let codec = fragment::Codec::try_from(codec as i32).unwrap();
    let mut compressor = fragment::compress::Compressor::new(codec, Some(1), Vec::new()).unwrap();
    compressor.write_all(content).unwrap();
    compressor.finish().unwrap()
}

/// A store of `content`, which says what was asked of it: its answers differ by path.
async fn http_store(it: &Fixture, content: &[u8]) -> (String, Arc<Mutex<Vec<HeaderMap>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (plain, gzip, seen) = (content.to_vec(), gzipped(content), Arc::clone(&asked));
    let answer = move |uri: Uri, headers: HeaderMap| async move {
        let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
        seen.lock().unwrap().push(headers);
        let skip = range.map_or(0, |range| {
            range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap()
        });
        let (status, encoding, body) = match uri.path() {
            "/ranged" if skip > 0 => (206, None, plain[skip..].to_vec()),
            "/ranged" | "/unranged" => (200, None, plain),
            "/gzip" => (200, None, gzip),
            "/short" => (200, None, gzip[..gzip.len() / 2].to_vec()),
            "/other" => (200, None, gzipped(&plain.iter().rev().copied().collect::<Vec<u8>>())),
            "/offload-kept" => (200, Some("gzip"), gzip),
            "/offload-decompressed" => (200, None, plain),
            _ => (403, None, b"denied".to_vec()),
        };
        let mut response = axum::response::Response::new(axum::body::Body::from(body));
        *response.status_mut() = status.try_into().unwrap();
        if let Some(encoding) = encoding {
            response.headers_mut().insert("content-encoding", encoding.parse().unwrap());
        }
        response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    it.tasks.spawn("store", OnError::Log, async move {
        axum::serve(listener, axum::Router::new().fallback(answer)).await?;
        Ok(())
    });
    (format!("http://{address}"), asked)
}

#[tokio::test]
async fn fragments_are_read_from_the_urls_of_their_stores() {
    use CompressionCodec::{Gzip, GzipOffloadDecompression, None};
    let it = Fixture::start(&[A]).await;
    let content = b"0123456789".repeat(50_000);
    let (store, asked) = http_store(&it, &content).await;
    let end = content.len() as i64;
    let options = ClientOptions { cache_size: 10, ..ClientOptions::new(it.tasks.clone()) };
    let client = JournalClient::new(it.broker.endpoint(), options).unwrap();
    let reader_of = |codec, path: &str, from| {
        it.broker.fault_read(stored_as(codec, from, &content, &format!("{store}{path}?secret=1")));
        RetryReader::new(client.clone(), read_from(A, from, true))
    };
    for (path, codec, from, encoding, range) in [
        ("/ranged", None, 0, "identity", ""),
        ("/ranged", None, 7, "identity", "bytes=7-"),
        ("/unranged", None, 7, "identity", "bytes=7-"),
        ("/gzip", Gzip, 7, "gzip", ""),
        ("/offload-kept", GzipOffloadDecompression, 7, "identity", ""),
        ("/offload-decompressed", GzipOffloadDecompression, 7, "identity", ""),
    ] {
        let mut reader = reader_of(codec, path, from);
        assert!(read_through(&mut reader, end).await == content[from as usize..], "{path} from {from}");
        let headers = asked.lock().unwrap().pop().unwrap();
        assert_eq!(headers["accept-encoding"], encoding, "{path}");
        assert_eq!(headers.get("range").map_or("", |range| range.to_str().unwrap()), range, "{path}");
    }
    assert!(it.broker.reads().iter().all(|read| read.do_not_proxy), "the broker sent no content");

    it.broker.set_content(A, 0, &content);
    for (path, problem) in
        [("/denied", "the store answered 403 Forbidden"), ("/short", "incomplete gzip member")]
    {
        it.broker.fault_read(stored(0, &content, &format!("{store}{path}?secret=1")));
        let mut direct = client.read(ReadRequest { do_not_proxy: true, ..read_from(A, 0, true) });
        let error = loop {
            if let Err(error) = soon(direct.next()).await {
                break error.to_string();
            }
        };
        assert!(error.contains(problem) && !error.contains("secret"), "{error}");
        let mut reader = reader_of(Gzip, path, 0);
        assert!(read_through(&mut reader, end).await == content, "{path}: the broker has it");
    }
}

/// How a store treats ranges.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ranges {
    All,
    /// It cannot count from the end.
    FromBegin,
    None,
}

/// A store of one file, which says how many bytes of ranges it served.
async fn ranged_store(
    it: &Fixture,
    file: Vec<u8>,
    ranges: Ranges,
    is_encoded: bool,
) -> (String, Arc<Mutex<u64>>) {
    let served = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&served);
    let answer = move |headers: HeaderMap| async move {
        let length = file.len();
        let range = headers.get("range").and_then(|range| range.to_str().unwrap().strip_prefix("bytes="));
        let part = match range.and_then(|range| range.split_once('-')) {
            Some(("", _)) if ranges != Ranges::All => None,
            Some(("", last)) => Some(length.saturating_sub(last.parse().unwrap())..length),
            Some((begin, "")) => Some(begin.parse().unwrap()..length),
            Some((begin, end)) => Some(begin.parse().unwrap()..end.parse::<usize>().unwrap() + 1),
            None => None,
        };
        let part = part.filter(|_| ranges != Ranges::None);
        let (status, range) = match part {
            Some(part) => (206, part),
            None => (200, 0..length),
        };
        if status == 206 {
            *seen.lock().unwrap() += range.len() as u64;
        }
        let mut response =
            axum::response::Response::new(axum::body::Body::from(file[range.clone()].to_vec()));
        *response.status_mut() = status.try_into().unwrap();
        let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        response.headers_mut().insert("content-range", content_range.parse().unwrap());
        if is_encoded {
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        }
        response
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    it.tasks.spawn("store", OnError::Log, async move {
        axum::serve(listener, axum::Router::new().fallback(answer)).await?;
        Ok(())
    });
    (format!("http://{address}/fragment?secret=1"), served)
}

#[tokio::test]
async fn a_read_deep_in_a_fragment_fetches_little_where_the_file_has_an_index() {
    use CompressionCodec::{Gzip, GzipOffloadDecompression, Snappy, Zstandard};
    let it = Fixture::start(&[A]).await;
    let content: Vec<u8> =
        (0..).flat_map(|n: u64| (n * n % 9973).to_string().into_bytes()).take(6 << 20).collect();
    let end = content.len() as i64;
    let from = (5 << 20) + 7;
    let root = tempfile::tempdir().unwrap();
    let options = ClientOptions {
        cache_size: 10,
        file_root: Some(root.path().to_owned()),
        ..ClientOptions::new(it.tasks.clone())
    };
    let client = JournalClient::new(it.broker.endpoint(), options).unwrap();
    for codec in [Gzip, Zstandard, Snappy, GzipOffloadDecompression] {
        let file = compressed(codec, &content);
        // Without the index, as others write it.
        let foreign = match codec {
            Zstandard => file[..file.len() - 8 - 6 * 8 - 9].to_vec(),
            Gzip => compressed(GzipOffloadDecompression, &content),
            Snappy => file[..file.len() - 4 - 6 * 4 - 20].to_vec(),
            _ => file.clone(),
        };
        for (file, has_index) in [(file, codec != GzipOffloadDecompression), (foreign, false)] {
            std::fs::write(root.path().join("fragment"), &file).unwrap();
            for ranges in [None, Some(Ranges::All), Some(Ranges::FromBegin), Some(Ranges::None)] {
                let case = format!("{codec:?}, index: {has_index}, {ranges:?}");
                let is_encoded = codec == GzipOffloadDecompression;
                let (url, served) = match ranges {
                    None => ("file:///fragment".to_owned(), Arc::default()),
                    Some(ranges) => ranged_store(&it, file.clone(), ranges, is_encoded).await,
                };
                it.broker.fault_read(stored_as(codec, from, &content, &url));
                let mut reader = RetryReader::new(client.clone(), read_from(A, from, true));
                assert!(read_through(&mut reader, end).await == content[from as usize..], "{case}");
                let served = *served.lock().unwrap();
                let most = (64 << 10) + file.len() as u64 / 4;
                if has_index && matches!(ranges, Some(Ranges::All | Ranges::FromBegin)) {
                    assert!((1..most).contains(&served), "{case}: {served} bytes of {}", file.len());
                }
            }
        }
    }
    assert!(it.broker.reads().iter().all(|read| read.do_not_proxy), "the broker sent no content");
}

#[tokio::test]
async fn requests_follow_the_route_and_return_to_the_default_when_it_fails() {
    let it = Fixture::start(&[A]).await;
    let other = Fixture::start(&[A]).await;
    it.broker.set_content(A, 0, b"default");
    other.broker.set_content(A, 0, b"routed!");
    let proxy = Proxy::start(other.broker.endpoint(), &it.tasks).await.unwrap();
    it.broker.set_route(Some(Route {
        members: vec![Id { zone: "local".to_owned(), suffix: "other".to_owned() }],
        primary: 0,
        endpoints: vec![proxy.endpoint().to_owned()],
    }));
    other.broker.set_route(Some(Route::unrouted()));
    let read = |client: &JournalClient| {
        let mut reader = RetryReader::new(client.clone(), read_from(A, 0, false));
        async move { soon(reader.next()).await.unwrap().bytes }
    };
    assert_eq!(read(&it.client).await, "default");
    assert_eq!(read(&it.client).await, "routed!", "the header of the first response told the route");
    assert_eq!(read(&it.client).await, "default", "a route without members is forgotten");
    soon(it.client.append(append_to(A), "x".into())).await.unwrap();
    assert_eq!(other.broker.content(A), b"routed!x");
    assert_eq!(read(&it.client).await, "default");
    proxy.cut().await.unwrap();
    assert_eq!(read(&it.client).await, "default", "the member is gone, and its route with it");
}

#[tokio::test]
async fn another_broker_is_asked_while_the_first_is_gone() {
    let it = Fixture::start(&[A]).await;
    let other = Fixture::start(&[A, "test/of-the-other"]).await;
    let gone = Proxy::start(it.broker.endpoint(), &it.tasks).await.unwrap();
    gone.cut().await.unwrap();

    let both = format!("{},{}", gone.endpoint(), other.broker.endpoint());
    let client = JournalClient::new(&both, ClientOptions::new(it.tasks.clone())).unwrap();
    let listing = soon(client.list(LabelSelector::everything())).await.unwrap();
    assert_eq!(listing.journals.len(), 2);
    soon(client.append(append_to(A), "one".into())).await.unwrap();
    assert_eq!(other.broker.content(A), b"one");
}

#[tokio::test]
async fn the_brokers_of_routes_are_asked_while_the_configured_one_is_gone() {
    let it = Fixture::start(&[A]).await;
    let other = Fixture::start(&[A, "test/unrouted"]).await;
    let proxy = Proxy::start(it.broker.endpoint(), &it.tasks).await.unwrap();
    it.broker.set_route(Some(Route {
        members: vec![Id { zone: "local".to_owned(), suffix: "other".to_owned() }],
        primary: 0,
        endpoints: vec![other.broker.endpoint().to_owned()],
    }));
    let client = JournalClient::new(proxy.endpoint(), ClientOptions::new(it.tasks.clone())).unwrap();
    let mut reader = RetryReader::new(client.clone(), read_from("test/unrouted", 0, true));
    soon(client.append(append_to(A), "learns the route".into())).await.unwrap();
    proxy.cut().await.unwrap();
    soon(client.append(append_to("test/unrouted"), "two".into())).await.unwrap();
    assert_eq!(other.broker.content("test/unrouted"), b"two");
    assert_eq!(soon(reader.next()).await.unwrap().bytes, "two");
    assert_eq!(soon(client.list(LabelSelector::everything())).await.unwrap().journals.len(), 2);
}

#[tokio::test]
async fn listings_are_joined_and_wait_for_their_broker() {
    let it = Fixture::start(&["test/1", "test/2", "test/3", "other/1", "test/4"].map(|name| name)).await;
    let mut proxy = Proxy::start(it.broker.endpoint(), &it.tasks).await.unwrap();
    let client = JournalClient::new(proxy.endpoint(), ClientOptions::new(it.tasks.clone())).unwrap();
    proxy.cut().await.unwrap();
    let listing = client.list(LabelSelector::everything());
    let (listing, ()) = futures::future::join(soon(listing), async { proxy.restore().await.unwrap() }).await;
    let names: Vec<_> =
        listing.unwrap().journals.into_iter().map(|journal| journal.spec.unwrap().name).collect();
    assert_eq!(names, ["other/1", "test/1", "test/2", "test/3", "test/4"]);
    let none = soon(client.list(LabelSelector::include([("name", "no/such")]))).await.unwrap();
    assert!(none.journals.is_empty());
}

#[tokio::test]
async fn a_change_waits_for_its_broker_and_is_sent_once() {
    let it = Fixture::start(&[A]).await;
    let mut proxy = Proxy::start(it.broker.endpoint(), &it.tasks).await.unwrap();
    let client = JournalClient::new(proxy.endpoint(), ClientOptions::new(it.tasks.clone())).unwrap();
    proxy.cut().await.unwrap();
    let delete =
        apply_request::Change { expect_mod_revision: -1, delete: A.to_owned(), ..Default::default() };
    let applied = soon(client.apply(ApplyRequest { changes: vec![delete.clone(), delete] }));
    let (applied, ()) = futures::future::join(applied, async { proxy.restore().await.unwrap() }).await;
    applied.unwrap();
    let invalid = ApplyRequest { changes: vec![apply_request::Change::default()] };
    assert!(soon(client.apply(invalid)).await.unwrap_err().to_string().starts_with("invalid request: "));
}

#[tokio::test]
async fn pages_of_fragments_are_joined() {
    let it = Fixture::start(&[A]).await;
    let request = FragmentsRequest { journal: A.to_owned(), ..Default::default() };
    let fragments = soon(it.client.fragments(request)).await.unwrap().fragments;
    let begins: Vec<_> = fragments.into_iter().map(|fragment| fragment.spec.unwrap().begin).collect();
    assert_eq!(begins, [0, 100, 200]);
}

#[tokio::test]
async fn a_single_append_is_repeated_only_where_that_is_safe_to_do() {
    let it = Fixture::start(&[A]).await;
    it.broker.fault_append(Fault::Grpc(Code::Unavailable));
    it.broker.fault_append(Fault::Status(Status::NoJournalPrimaryBroker));
    let response = soon(it.client.append(append_to(A), "content".into())).await.unwrap();
    assert_eq!(response.commit.unwrap().end, 7);
    it.broker.fault_append(Fault::Grpc(Code::Unknown));
    let error = soon(it.client.append(append_to(A), "x".into())).await.unwrap_err();
    assert_eq!(error.to_string(), "rpc error: code = Unknown desc = injected");
    let error = soon(it.client.append(append_to("test/missing"), "x".into())).await.unwrap_err();
    assert_eq!(error.status(), Some(Status::JournalNotFound));
}
