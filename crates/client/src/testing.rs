//! A broker in memory, which does what a test tells it: for tests of this crate and of those which use it.
//!
//! Journals are byte vectors. Each call takes the next fault of its queue, if there is one. Nothing is durable, nothing
//! is replicated, and no rule is checked which no test needs.

mod proxy;

use bytes::Bytes;
use futures::Stream;
use proto::protocol::journal_server::{Journal as Service, JournalServer};
use proto::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, ApplyResponse, CompressionCodec, Fragment,
    FragmentStoreHealthRequest, FragmentStoreHealthResponse, FragmentsRequest, FragmentsResponse, Header,
    JournalSpec, LabelSet, ListRequest, ListResponse, ReadRequest, ReadResponse, ReplicateRequest,
    ReplicateResponse, Route, Status, header, list_response,
};
use proto::{Invalid, Validate};
pub use proxy::Proxy;
use runtime::{BoxError, OnError, TaskGroup};
use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Request, Response, Streaming};

/// Content bytes of a message of a read.
const READ_CHUNK_BYTES: usize = 32 << 10;

/// What goes wrong with a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with a status, and has no effect.
    Status(Status),
    /// It fails, and has no effect.
    Grpc(Code),
    /// It takes effect, and fails.
    GrpcAfterEffect(Code),
    /// It waits for a permit before it takes effect.
    Hold(Arc<Semaphore>),
    /// A read answers with these frames and ends.
    Frames(Vec<ReadResponse>),
}

/// An append which took effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Appended {
    /// Its first message.
    pub request: AppendRequest,
    /// Its content.
    pub content: Bytes,
    /// How many messages the content had.
    pub chunks: usize,
}

#[derive(Default)]
struct Journal {
    spec: JournalSpec,
    content: Vec<u8>,
    /// Offset of the first byte.
    begin: i64,
    registers: LabelSet,
    created: i64,
}

#[derive(Default)]
struct State {
    journals: BTreeMap<String, Journal>,
    revision: i64,
    /// What responses say of every journal.
    route: Option<Route>,
    append_faults: VecDeque<Fault>,
    read_faults: VecDeque<Fault>,
    list_faults: VecDeque<Fault>,
    appended: Vec<Appended>,
    reads: Vec<ReadRequest>,
    lists: Vec<ListRequest>,
}

/// The broker. Clones are the same one.
#[derive(Clone)]
pub struct StubBroker {
    endpoint: Arc<str>,
    state: Arc<Mutex<State>>,
    /// Counts changes of any kind.
    changes: watch::Sender<u64>,
    /// Counts how often watches were told to end.
    breaks: watch::Sender<u64>,
}

impl StubBroker {
    /// Starts to serve on a free port of loopback, until `tasks` are cancelled.
    pub async fn start(tasks: &TaskGroup) -> Result<StubBroker, BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let broker = StubBroker {
            endpoint: format!("http://{}", listener.local_addr()?).into(),
            state: Arc::default(),
            changes: watch::Sender::default(),
            breaks: watch::Sender::default(),
        };
        broker.lock().revision = 1;
        let server = tonic::transport::Server::builder()
            .add_service(JournalServer::new(broker.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let token = tasks.token().clone();
        tasks.spawn("stub broker", OnError::Log, async move {
            tokio::select! {
                biased;
                () = token.cancelled() => Ok(()),
                served = server => Ok(served?),
            }
        });
        Ok(broker)
    }

    /// Where it serves.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Creates an empty journal, or changes its labels.
    pub fn add_journal(&self, name: &str, labels: LabelSet) {
        self.change(|state| {
            state.revision += 1;
            let created = state.revision;
            let journal = state
                .journals
                .entry(name.to_owned())
                .or_insert_with(|| Journal { created, ..Default::default() });
            journal.spec = JournalSpec { name: name.to_owned(), labels: Some(labels), ..spec_template() };
        });
    }

    /// Replaces the revision, which each following change increments.
    pub fn set_revision(&self, revision: i64) {
        self.lock().revision = revision;
    }

    /// Deletes a journal.
    pub fn remove_journal(&self, name: &str) {
        self.change(|state| {
            state.revision += 1;
            state.journals.remove(name);
        });
    }

    /// The bytes of a journal.
    pub fn content(&self, journal: &str) -> Vec<u8> {
        self.lock().journals.get(journal).map(|journal| journal.content.clone()).unwrap_or_default()
    }

    /// Replaces the bytes of a journal, which begin at an offset.
    pub fn set_content(&self, journal: &str, begin: i64, content: &[u8]) {
        self.change(|state| {
            let journal = state.journals.entry(journal.to_owned()).or_default();
            (journal.begin, journal.content) = (begin, content.to_vec());
        });
    }

    /// Replaces the registers of a journal.
    pub fn set_registers(&self, journal: &str, registers: LabelSet) {
        self.change(|state| state.journals.entry(journal.to_owned()).or_default().registers = registers);
    }

    /// Replaces what responses say of every journal's route.
    pub fn set_route(&self, route: Option<Route>) {
        self.change(|state| state.route = route);
    }

    /// Makes a following append go wrong.
    pub fn fault_append(&self, fault: Fault) {
        self.lock().append_faults.push_back(fault);
    }

    /// Makes a following read go wrong.
    pub fn fault_read(&self, fault: Fault) {
        self.lock().read_faults.push_back(fault);
    }

    /// Makes a following list go wrong.
    pub fn fault_list(&self, fault: Fault) {
        self.lock().list_faults.push_back(fault);
    }

    /// How many faults were not yet met by a call.
    pub fn pending_faults(&self) -> usize {
        let state = self.lock();
        state.append_faults.len() + state.read_faults.len() + state.list_faults.len()
    }

    /// Ends all watches and blocked reads.
    pub fn break_streams(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// The appends which took effect.
    pub fn appended(&self) -> Vec<Appended> {
        self.lock().appended.clone()
    }

    /// The requests of reads.
    pub fn reads(&self) -> Vec<ReadRequest> {
        self.lock().reads.clone()
    }

    /// The requests of lists.
    pub fn lists(&self) -> Vec<ListRequest> {
        self.lock().lists.clone()
    }

    /// Waits until `condition` is true. It is asked after each call and change.
    pub async fn wait_until(&self, mut condition: impl FnMut(&StubBroker) -> bool) {
        let mut changes = self.changes.subscribe();
        while !condition(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let value = change(&mut self.lock());
        self.changes.send_modify(|changes| *changes += 1);
        value
    }
}

impl State {
    fn header(&self) -> Header {
        let etcd = header::Etcd { cluster_id: 1, member_id: 2, revision: self.revision, raft_term: 3 };
        let route = self.route.clone().unwrap_or_else(Route::unrouted);
        Header { process_id: None, route: Some(route), etcd: Some(etcd) }
    }

    /// Appends `content` if the request's conditions hold.
    fn append(&mut self, request: AppendRequest, content: Vec<u8>, chunks: usize) -> AppendResponse {
        let header = Some(self.header());
        let name = crate::client::bare_name(&request.journal).to_owned();
        let answer = |status: Status| AppendResponse {
            status: status as i32,
            header: header.clone(),
            ..Default::default()
        };
        let Some(journal) = self.journals.get_mut(&name) else { return answer(Status::JournalNotFound) };
        let checked = request.check_registers.as_ref();
        if checked
            .is_some_and(|selector| !journal.registers.is_empty() && !selector.matches(&journal.registers))
        {
            let registers = Some(journal.registers.clone());
            return AppendResponse { registers, ..answer(Status::RegisterMismatch) };
        }
        let begin = journal.begin + journal.content.len() as i64;
        if request.offset != 0 && request.offset != begin {
            return answer(Status::WrongAppendOffset);
        }
        if let Some(union) = &request.union_registers {
            journal.registers = union.union(&journal.registers);
        }
        journal.content.extend_from_slice(&content);
        let end = begin + content.len() as i64;
        let commit = Some(Fragment { begin, ..fragment(&name, end) });
        let registers = Some(journal.registers.clone());
        let total_chunks = chunks as i64 + 1;
        self.appended.push(Appended { request, content: content.into(), chunks });
        AppendResponse { commit, registers, total_chunks, ..answer(Status::Ok) }
    }

    /// The frames which hold the content from `offset` to the request's end offset, or say that there is none.
    fn read(&self, request: &ReadRequest, offset: i64, header: Option<Header>) -> Vec<ReadResponse> {
        let name = crate::client::bare_name(&request.journal);
        let answer = |status: Status| ReadResponse {
            status: status as i32,
            header: header.clone(),
            ..Default::default()
        };
        let Some(journal) = self.journals.get(name) else { return vec![answer(Status::JournalNotFound)] };
        let end = journal.begin + journal.content.len() as i64;
        let offset = if offset == -1 { end } else { offset.max(journal.begin) };
        if offset >= end {
            let unavailable = answer(Status::OffsetNotYetAvailable);
            return vec![ReadResponse { offset, write_head: end, ..unavailable }];
        }
        let fragment = Some(Fragment { begin: journal.begin, ..fragment(name, end) });
        let mut frames = vec![ReadResponse { offset, write_head: end, fragment, ..answer(Status::Ok) }];
        let until = if request.end_offset == 0 { end } else { end.min(request.end_offset) };
        let bytes =
            &journal.content[(offset - journal.begin) as usize..(until.max(offset) - journal.begin) as usize];
        let mut at = offset;
        for chunk in bytes.chunks(READ_CHUNK_BYTES) {
            let content = Bytes::copy_from_slice(chunk);
            frames.push(ReadResponse { offset: at, content, ..Default::default() });
            at += chunk.len() as i64;
        }
        frames
    }

    /// The pages of a listing, two journals each.
    fn list(&self, request: &ListRequest) -> Vec<ListResponse> {
        let selector = request.selector.clone().unwrap_or_default();
        let matched =
            self.journals.values().filter(|journal| selector.matches(&journal.spec.labels_with_name()));
        let journals: Vec<_> = matched
            .map(|journal| list_response::Journal {
                spec: Some(journal.spec.clone()),
                mod_revision: journal.created.max(1),
                create_revision: journal.created.max(1),
                route: Some(self.route.clone().unwrap_or_else(Route::unrouted)),
            })
            .collect();
        let header = Header { route: Some(Route::unrouted()), ..self.header() };
        let mut pages: Vec<_> = journals
            .chunks(2)
            .map(|page| ListResponse { journals: page.to_vec(), ..Default::default() })
            .collect();
        if pages.is_empty() {
            pages.push(ListResponse::default());
        }
        pages[0].header = Some(header);
        pages
    }
}

fn spec_template() -> JournalSpec {
    JournalSpec {
        replication: 1,
        fragment: Some(proto::protocol::journal_spec::Fragment {
            length: 1 << 20,
            compression_codec: CompressionCodec::None as i32,
            refresh_interval: Some(proto::duration::from_std(Duration::from_secs(60))),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn fragment(journal: &str, end: i64) -> Fragment {
    Fragment {
        journal: journal.to_owned(),
        end,
        compression_codec: CompressionCodec::None as i32,
        ..Default::default()
    }
}

fn refused(error: Invalid) -> tonic::Status {
    tonic::Status::unknown(error.to_string())
}

mod service;
