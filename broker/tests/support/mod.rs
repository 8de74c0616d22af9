//! A broker in this process with a client of its port, and the few requests that every test makes.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "only tests use it")]

pub mod cluster;

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use broker::{Broker, BrokerOptions};
use bytes::Bytes;
use fragment::{Codec, Fragment, Sum};
use futures::StreamExt;
use proto::JournalName;
use proto::protocol::apply_request::Change;
use proto::protocol::journal_client::JournalClient;
use proto::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, ApplyResponse, CompressionCodec, FragmentsRequest,
    FragmentsResponse, JournalSpec, LabelSelector, LabelSet, ListRequest, ListResponse, ReadRequest,
    ReadResponse, Status, journal_spec,
};
use runtime::Clock;
use tempfile::TempDir;
use tonic::Streaming;
use tonic::transport::Channel;

/// Longest wait for anything that must happen.
const LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(10);

pub struct Fixture {
    pub dir: TempDir,
    pub broker: Broker,
    pub client: JournalClient<Channel>,
}

impl Fixture {
    pub async fn start() -> Fixture {
        let dir = TempDir::with_prefix("courant-broker-").unwrap();
        Fixture::start_in(dir, |_| {}).await
    }

    pub async fn start_in(dir: TempDir, adjust: impl FnOnce(&mut BrokerOptions)) -> Fixture {
        let mut options = BrokerOptions::embedded(dir.path().join("data"));
        adjust(&mut options);
        let broker = within(Broker::start(options)).await.unwrap();
        let channel = runtime::grpc::channel(broker.endpoint()).unwrap();
        let client =
            JournalClient::new(channel).max_decoding_message_size(runtime::grpc::MAX_MESSAGE_RECV_CLIENT);
        Fixture { dir, broker, client }
    }

    pub async fn stop(self) -> TempDir {
        within(self.broker.stop()).await.unwrap();
        self.dir
    }

    pub async fn try_apply(&mut self, changes: Vec<Change>) -> Result<ApplyResponse, tonic::Status> {
        within(self.client.apply(ApplyRequest { changes })).await.map(tonic::Response::into_inner)
    }

    pub async fn apply(&mut self, changes: Vec<Change>) -> ApplyResponse {
        let response = self.try_apply(changes).await.unwrap();
        assert_eq!(response.status(), Status::Ok);
        response
    }

    /// Creates a journal, and waits until it takes appends.
    pub async fn create(&mut self, spec: JournalSpec) {
        let name = spec.name.clone();
        self.apply(vec![upsert(spec, 0)]).await;
        self.append(&name, b"").await;
    }

    pub async fn try_append(
        &mut self,
        request: AppendRequest,
        content: &[u8],
    ) -> Result<AppendResponse, tonic::Status> {
        let mut messages = vec![request];
        for chunk in content.chunks(100_000) {
            messages.push(AppendRequest { content: Bytes::copy_from_slice(chunk), ..Default::default() });
        }
        messages.push(AppendRequest::default());
        within(self.client.append(futures::stream::iter(messages))).await.map(tonic::Response::into_inner)
    }

    /// Appends, waiting for the journal to be assigned.
    pub async fn append(&mut self, journal: &str, content: &[u8]) -> AppendResponse {
        let request = AppendRequest { journal: journal.to_owned(), ..Default::default() };
        eventually("the append succeeds", async || {
            let response = self.try_append(request.clone(), content).await.unwrap();
            match response.status() {
                Status::Ok => Some(response),
                Status::NoJournalPrimaryBroker | Status::InsufficientJournalBrokers => None,
                status => panic!("{status:?}"),
            }
        })
        .await
    }

    pub async fn read(&mut self, request: ReadRequest) -> Result<Streaming<ReadResponse>, tonic::Status> {
        within(self.client.read(request)).await.map(tonic::Response::into_inner)
    }

    /// Reads to the end of the stream.
    pub async fn read_all(&mut self, request: ReadRequest) -> Vec<ReadResponse> {
        let stream = self.read(request).await.unwrap();
        within(stream.map(Result::unwrap).collect()).await
    }

    pub async fn list(&mut self, selector: LabelSelector) -> Vec<ListResponse> {
        let request = ListRequest { selector: Some(selector), ..Default::default() };
        let stream = within(self.client.list(request)).await.unwrap().into_inner();
        within(stream.map(Result::unwrap).collect()).await
    }

    pub async fn watch(&mut self, request: ListRequest) -> Watch {
        let request = ListRequest { watch: true, ..request };
        Watch { stream: within(self.client.list(request)).await.unwrap().into_inner() }
    }

    pub async fn fragments(&mut self, request: FragmentsRequest) -> FragmentsResponse {
        within(self.client.list_fragments(request)).await.unwrap().into_inner()
    }

    /// The answer to a plain HTTP request to the broker's port.
    pub async fn http(&self, path: &str) -> String {
        http(self.broker.endpoint().trim_start_matches("http://"), path).await
    }
}

/// The answer to a plain HTTP request.
pub async fn http(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    within(stream.read_to_string(&mut response)).await.unwrap();
    response
}

/// A watch of a listing.
pub struct Watch {
    stream: Streaming<ListResponse>,
}

impl Watch {
    /// The next message.
    pub async fn message(&mut self) -> Option<ListResponse> {
        within(self.stream.message()).await.unwrap()
    }

    /// The next snapshot: its first message and the names in it.
    pub async fn snapshot(&mut self) -> (ListResponse, Vec<String>) {
        let first = self.message().await.expect("a watch does not end");
        assert!(first.header.as_ref().unwrap().etcd.unwrap().revision > 0);
        let mut journals = first.journals.clone();
        loop {
            let next = self.message().await.expect("a watch does not end");
            if next.journals.is_empty() {
                return (first, names(&journals));
            }
            journals.extend(next.journals);
        }
    }
}

pub fn names(journals: &[proto::protocol::list_response::Journal]) -> Vec<String> {
    journals.iter().map(|j| j.spec.as_ref().unwrap().name.clone()).collect()
}

/// Content of the chunks of a read, after checking that their offsets follow one another within each fragment.
pub fn content(responses: &[ReadResponse]) -> Vec<u8> {
    let mut content = Vec::new();
    let mut next = None;
    for response in responses {
        if response.fragment.is_some() {
            next = Some(response.offset);
        } else if !response.content.is_empty() {
            assert_eq!(Some(response.offset), next);
            next = Some(response.offset + response.content.len() as i64);
            content.extend_from_slice(&response.content);
        }
    }
    content
}

pub fn journal(name: &str) -> JournalSpec {
    JournalSpec {
        name: name.to_owned(),
        replication: 1,
        labels: Some(LabelSet::default()),
        fragment: Some(journal_spec::Fragment {
            length: 1 << 20,
            compression_codec: CompressionCodec::Snappy as i32,
            stores: vec!["file:///".to_owned()],
            refresh_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            retention: None,
            flush_interval: None,
            path_postfix_template: String::new(),
        }),
        flags: 0,
        max_append_rate: 0,
        suspend: None,
    }
}

/// Lets two paths change places in one step: a store which is exchanged for a file is never missing.
pub fn exchange(one: &Path, other: &Path) {
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        one,
        rustix::fs::CWD,
        other,
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
}

/// Puts a fragment which holds `content` and is `age` old into the directory of a journal in a file store. Returns its
/// file.
pub fn store_fragment(dir: &Path, begin: i64, content: &[u8], age: Duration) -> PathBuf {
    let (end, name) = (begin + content.len() as i64, JournalName::parse("any/journal").unwrap());
    let fragment = Fragment { end, sum: Sum::of(content), ..Fragment::empty(name, begin, Codec::None) };
    let path = dir.join(fragment.content_name());
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(&path, content).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(UNIX_EPOCH + Clock::system().unix_now() - age).unwrap();
    path
}

pub fn upsert(spec: JournalSpec, expect_mod_revision: i64) -> Change {
    Change { expect_mod_revision, upsert: Some(spec), delete: String::new() }
}

pub fn delete(name: &str, expect_mod_revision: i64) -> Change {
    Change { expect_mod_revision, upsert: None, delete: name.to_owned() }
}

/// The outcome of `future`, which must come soon.
pub async fn within<F: Future>(future: F) -> F::Output {
    // Boxed, since requests of generated clients are large and a test has a small stack.
    Clock::system().timeout(LIMIT, Box::pin(future)).await.expect("it takes too long")
}

/// What `look` finds, once it finds it.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = Clock::system();
    let deadline = clock.now() + LIMIT;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(clock.now() < deadline, "not within {LIMIT:?}: {what}");
        clock.sleep(POLL).await;
    }
}
