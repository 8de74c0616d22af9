//! The broker's answers to requests that are malformed, aborted or out of order, as any client sees them.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::time::Duration;

use proto::protocol::journal_client::JournalClient;
use proto::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, Label, LabelSelector, LabelSet, ListRequest, ReadRequest,
    ReadResponse, Status, apply_request,
};
use runtime::CancellationToken;
use tests::cluster::{Cluster, ClusterOptions};
use tonic::Code;
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(30);
const JOURNAL: &str = "wire/one";
const SPECS: &str = "\
name: wire/
replication: 1
fragment: {length: 16384, compression_codec: SNAPPY, refresh_interval: 1s, stores: ['file:///']}
children: [{name: wire/one}, {name: wire/two}]
";

async fn started() -> (Cluster, JournalClient<Channel>) {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let specs = cluster.dir().join("specs.yaml");
    std::fs::write(&specs, SPECS).unwrap();
    cluster.courant(&["journals", "apply", "--specs", specs.to_str().unwrap()]).await.unwrap();
    let mut client = JournalClient::new(runtime::grpc::channel(&cluster.broker_address()).unwrap());
    // The journal has its primary a moment after its specification.
    let deadline = cluster.clock().now() + LIMIT;
    while append(&mut client, vec![opening(), AppendRequest::default()])
        .await
        .is_none_or(|r| r.status() != Status::Ok)
    {
        assert!(cluster.clock().now() < deadline, "the journal has no primary");
        cluster.clock().sleep(Duration::from_millis(20)).await;
    }
    (cluster, client)
}

fn opening() -> AppendRequest {
    AppendRequest { journal: JOURNAL.to_owned(), ..Default::default() }
}

fn content(bytes: &'static str) -> AppendRequest {
    AppendRequest { content: bytes.into(), ..Default::default() }
}

async fn append(client: &mut JournalClient<Channel>, messages: Vec<AppendRequest>) -> Option<AppendResponse> {
    client.append(futures::stream::iter(messages)).await.ok().map(tonic::Response::into_inner)
}

async fn read(client: &mut JournalClient<Channel>, request: ReadRequest) -> Vec<ReadResponse> {
    let mut stream = client.read(request).await.unwrap().into_inner();
    let mut responses = Vec::new();
    while let Some(response) = stream.message().await.unwrap() {
        responses.push(response);
    }
    responses
}

/// The write head, by a read that does not block.
async fn head(client: &mut JournalClient<Channel>) -> i64 {
    let request = ReadRequest { journal: JOURNAL.to_owned(), offset: -1, ..Default::default() };
    let responses = read(client, request).await;
    assert_eq!(responses.last().unwrap().status(), Status::OffsetNotYetAvailable);
    responses.last().unwrap().write_head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_streams_fail_with_their_reason_and_leave_no_byte() {
    let (_cluster, mut client) = started().await;
    let cases: Vec<(&str, Vec<AppendRequest>, &str)> = vec![
        ("no message", vec![], "EOF"),
        ("no commit", vec![opening(), content("lost")], "append stream: unexpected EOF"),
        (
            "content after the commit",
            vec![opening(), content("a"), AppendRequest::default(), content("b")],
            "append stream: expected EOF after empty Content chunk",
        ),
        ("two openings", vec![opening(), opening()], "append stream: expected Content chunk"),
        (
            "an offset within content",
            vec![opening(), AppendRequest { offset: 4, ..content("a") }],
            "append stream: ",
        ),
        ("content in the opening", vec![AppendRequest { content: "a".into(), ..opening() }], "Content"),
        (
            "a bad name",
            vec![AppendRequest { journal: "/bad/name".to_owned(), ..Default::default() }],
            "cannot begin with '/' (/bad/name)",
        ),
        ("a negative offset", vec![AppendRequest { offset: -1, ..opening() }], "Offset"),
        (
            "registers without content",
            vec![
                AppendRequest { union_registers: Some(LabelSet::default()), ..opening() },
                AppendRequest::default(),
            ],
            "append stream: register modification requires non-empty Append",
        ),
    ];
    for (case, messages, text) in cases {
        let status = client.append(futures::stream::iter(messages)).await.expect_err(case);
        assert_eq!(status.code(), Code::Unknown, "{case}: {status:?}");
        assert!(status.message().contains(text), "{case}: expected {text:?} in {:?}", status.message());
    }
    assert_eq!(head(&mut client).await, 0);
    let committed =
        append(&mut client, vec![opening(), content("kept"), AppendRequest::default()]).await.unwrap();
    assert_eq!((committed.status(), committed.commit.unwrap().end), (Status::Ok, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_before_its_commit_leaves_no_byte() {
    let (_cluster, mut client) = started().await;
    let sent = CancellationToken::new();
    let reached = sent.clone();
    let stream = then_silence(vec![opening(), content("never committed")], reached);
    let request = client.append(stream);
    tokio::select! {
        biased;
        outcome = request => panic!("the append must wait for its commit: {outcome:?}"),
        () = sent.cancelled() => {} // Dropping the request resets its stream, as a client that dies does.
    }
    let committed =
        append(&mut client, vec![opening(), content("kept"), AppendRequest::default()]).await.unwrap();
    let commit = committed.commit.unwrap();
    assert_eq!((commit.begin, commit.end), (0, 4));
    assert_eq!(head(&mut client).await, 4);
}

/// Yields the messages, says so, and then never ends.
fn then_silence(
    messages: Vec<AppendRequest>,
    sent: CancellationToken,
) -> impl futures::Stream<Item = AppendRequest> + Send + 'static {
    use futures::StreamExt;
    let silence = futures::stream::once(async move {
        sent.cancel();
        futures::future::pending::<AppendRequest>().await
    });
    futures::stream::iter(messages).chain(silence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_out_of_bounds_are_refused_by_name() {
    let (_cluster, mut client) = started().await;
    for (request, text) in [
        (ReadRequest { journal: JOURNAL.to_owned(), offset: -2, ..Default::default() }, "invalid Offset (-2"),
        (
            ReadRequest { journal: JOURNAL.to_owned(), offset: 9, end_offset: 3, ..Default::default() },
            "EndOffset",
        ),
        (ReadRequest { journal: "a/../../etc/passwd".to_owned(), ..Default::default() }, ".."),
        (ReadRequest { journal: "x".repeat(513), ..Default::default() }, "513"),
    ] {
        let status = match client.read(request).await {
            Err(status) => status,
            Ok(response) => response.into_inner().message().await.expect_err(text),
        };
        assert!(status.message().contains(text), "expected {text:?} in {:?}", status.message());
    }
    let label = Label { name: "prefix".to_owned(), value: "no-slash".to_owned(), prefix: false };
    let include = Some(LabelSet { labels: vec![label] });
    let selector = Some(LabelSelector { include, exclude: None });
    let status = match client.list(ListRequest { selector, ..Default::default() }).await {
        Err(status) => status,
        Ok(response) => response.into_inner().message().await.expect_err("an unslashed prefix"),
    };
    assert!(status.message().contains("expected trailing '/'"), "{status:?}");
    let change = apply_request::Change { expect_mod_revision: 0, upsert: None, delete: JOURNAL.to_owned() };
    let status =
        client.apply(ApplyRequest { changes: vec![change] }).await.expect_err("a delete needs a revision");
    assert!(status.message().contains("Changes[0]"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_come_in_ordinary_responses() {
    let (_cluster, mut client) = started().await;
    let absent = AppendRequest { journal: "absent/journal".to_owned(), ..Default::default() };
    let response = append(&mut client, vec![absent, AppendRequest::default()]).await.unwrap();
    assert_eq!(response.status(), Status::JournalNotFound);
    let etcd = response.header.unwrap().etcd.unwrap();
    assert!(etcd.cluster_id != 0 && etcd.member_id != 0 && etcd.revision > 0 && etcd.raft_term != 0);

    let first = append(&mut client, vec![opening(), content("abc"), AppendRequest::default()]).await.unwrap();
    assert_eq!(first.total_chunks, 2);
    let wrong = AppendRequest { offset: 7, ..opening() };
    let response = append(&mut client, vec![wrong, content("d"), AppendRequest::default()]).await.unwrap();
    assert_eq!(response.status(), Status::WrongAppendOffset);
    let right = AppendRequest { offset: 3, ..opening() };
    let response = append(&mut client, vec![right, content("d"), AppendRequest::default()]).await.unwrap();
    assert_eq!(response.commit.map(|commit| (commit.begin, commit.end)), Some((3, 4)));

    let responses =
        read(&mut client, ReadRequest { journal: JOURNAL.to_owned(), offset: 4, ..Default::default() }).await;
    assert_eq!(responses.last().unwrap().status(), Status::OffsetNotYetAvailable);
    let request = ReadRequest { journal: JOURNAL.to_owned(), offset: 1, end_offset: 4, ..Default::default() };
    let bytes: Vec<u8> = read(&mut client, request).await.iter().flat_map(|r| r.content.to_vec()).collect();
    assert_eq!(bytes, b"bcd");
}
