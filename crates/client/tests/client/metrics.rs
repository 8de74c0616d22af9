//! What a client counts, and for how long.

use crate::common::{Fixture, append_to, read_from, soon};
use client::{AppendService, ClientOptions, JournalClient, RetryReader, ShardClient};
use fragment::Sum;
use proto::protocol::{CompressionCodec, Fragment, LabelSelector, ReadRequest, ReadResponse};
use runtime::{Metrics, TaskGroup};
use std::io::Write;
use tonic::Code;

const A: &str = "test/journal-a";
const B: &str = "test/journal-b";

fn assert_lines(metrics: &Metrics, expected: &[String]) {
    let text = metrics.render();
    for line in expected {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn calls_are_counted_by_method_and_outcome() {
    let it = Fixture::start(&[A]).await;
    let metrics = Metrics::new();
    let options = |tasks: &TaskGroup| ClientOptions {
        metrics: Some(metrics.clone()),
        ..ClientOptions::new(tasks.clone())
    };
    let client = JournalClient::new(it.broker.endpoint(), options(&it.tasks)).unwrap();
    client.append(append_to(A), "content".into()).await.unwrap();
    client.list(LabelSelector::everything()).await.unwrap();
    it.broker.fault_read(client::testing::Fault::Grpc(Code::PermissionDenied));
    soon(client.read(read_from(A, 0, false)).next()).await.unwrap_err();
    let mut reader = client.read(read_from(A, 0, true));
    soon(reader.next()).await.unwrap();
    drop(reader);
    let method =
        |kind, name| format!(r#"grpc_method="{name}",grpc_service="protocol.Journal",grpc_type="{kind}""#);
    let (append, list) = (method("client_stream", "Append"), method("server_stream", "List"));
    let read = method("server_stream", "Read");
    assert_lines(
        &metrics,
        &[
            format!("grpc_client_started_total{{{append}}} 1"),
            format!("grpc_client_started_total{{{read}}} 2"),
            format!("grpc_client_started_total{{{}}} 0", method("unary", "Apply")),
            // The request, the content, and the commit.
            format!("grpc_client_msg_sent_total{{{append}}} 3"),
            format!("grpc_client_msg_received_total{{{append}}} 1"),
            format!("grpc_client_msg_received_total{{{list}}} 1"),
            format!(r#"grpc_client_handled_total{{grpc_code="OK",{append}}} 1"#),
            format!(r#"grpc_client_handled_total{{grpc_code="OK",{list}}} 1"#),
            format!(r#"grpc_client_handled_total{{grpc_code="PermissionDenied",{read}}} 1"#),
            format!(r#"grpc_client_handled_total{{grpc_code="Canceled",{read}}} 1"#),
            format!("grpc_client_handling_seconds_count{{{read}}} 2"),
        ],
    );

    // Nobody listens at the port of a server which has ended.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tasks = TaskGroup::new("cancelled");
    tasks.cancel();
    let shards = ShardClient::new(&format!("http://{gone}"), options(&tasks)).unwrap();
    soon(shards.list(Default::default())).await.unwrap_err();
    let list = r#"grpc_method="List",grpc_service="consumer.Shard",grpc_type="unary""#;
    assert_lines(
        &metrics,
        &[
            format!("grpc_client_started_total{{{list}}} 1"),
            format!(r#"grpc_client_handled_total{{grpc_code="Unavailable",{list}}} 1"#),
        ],
    );
}

/// Has the broker say that `content` is stored in `file`, to be read from `offset`.
fn store(it: &Fixture, root: &std::path::Path, content: &[u8], offset: i64) -> u64 {
    let file = std::fs::File::create(root.join("fragment.gz")).unwrap();
    let mut gzip = fragment::compress::Compressor::new(fragment::Codec::Gzip, None, file).unwrap();
    gzip.write_all(content).unwrap();
    gzip.finish().unwrap();
    let fragment = Fragment {
        journal: A.to_owned(),
        end: content.len() as i64,
        sum: Some(Sum::of(content).into()),
        compression_codec: CompressionCodec::Gzip as i32,
        ..Default::default()
    };
    it.broker.fault_read(client::testing::Fault::Frames(vec![ReadResponse {
        offset,
        write_head: fragment.end,
        fragment: Some(fragment),
        fragment_url: "file:///fragment.gz".to_owned(),
        ..Default::default()
    }]));
    std::fs::metadata(root.join("fragment.gz")).unwrap().len()
}

#[tokio::test]
async fn series_of_journals_are_there_while_somebody_reads_or_appends() {
    let it = Fixture::start(&[A, B]).await;
    let (metrics, root) = (Metrics::new(), tempfile::tempdir().unwrap());
    let options = ClientOptions {
        metrics: Some(metrics.clone()),
        file_root: Some(root.path().to_owned()),
        ..ClientOptions::new(it.tasks.clone())
    };
    let client = JournalClient::new(it.broker.endpoint(), options).unwrap();

    let content = b"0123456789".repeat(50_000);
    let stored = store(&it, root.path(), &content, 5);
    let request = ReadRequest { do_not_proxy: true, ..read_from(A, 5, true) };
    let mut reader = RetryReader::new(client.clone(), request);
    while reader.offset() < content.len() as i64 {
        soon(reader.next()).await.unwrap();
    }
    let appends = AppendService::new(client.clone(), it.tasks.child("appends"));
    let mut slot = appends.start_append(append_to(B), Vec::new());
    slot.write_all(b"appended").unwrap();
    soon(slot.release()).await.unwrap();
    client.append(append_to(A), "once".into()).await.unwrap();
    let of_fragment = format!(r#"{{codec="GZIP",journal="{A}"}}"#);
    let read = content.len() - 5;
    assert_lines(
        &metrics,
        &[
            format!("gazette_fragment_open_total{of_fragment} 1"),
            format!("gazette_fragment_open_bytes_total{of_fragment} {}", content.len()),
            format!("gazette_fragment_open_content_length_total{of_fragment} {stored}"),
            format!("gazette_read_fragment_bytes_total{of_fragment} {read}"),
            format!("gazette_discard_fragment_bytes_total{of_fragment} 5"),
            format!(r#"gazette_read_bytes_total{{journal="{A}"}} {read}"#),
            format!(r#"gazette_append_bytes_total{{journal="{B}"}} 8"#),
            // Its appender is gone; it is shown nevertheless, once.
            format!(r#"gazette_append_bytes_total{{journal="{A}"}} 4"#),
        ],
    );
    let kept = [
        format!(r#"gazette_read_bytes_total{{journal="{A}"}} {read}"#),
        format!(r#"gazette_append_bytes_total{{journal="{B}"}} 8"#),
    ];
    assert_lines(&metrics, &kept);
    assert!(!metrics.render().contains(&format!(r#"gazette_append_bytes_total{{journal="{A}"}}"#)));

    drop(reader);
    drop(appends);
    let gone = async {
        while metrics.render().contains("journal=\"test/") {
            tokio::task::yield_now().await;
        }
    };
    soon(gone).await;
}
