//! A broker that keeps nothing: it lists any journal asked for, counts the bytes of appends and answers them.
//!
//! It is the ceiling that `make bench` compares a real broker against: the same client, the same messages, gRPC alone.

use std::process::ExitCode;
use std::time::Duration;

use futures::StreamExt;
use proto::protocol::journal_server::{Journal, JournalServer};
use proto::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, ApplyResponse, CompressionCodec, Fragment,
    FragmentStoreHealthRequest, FragmentStoreHealthResponse, FragmentsRequest, FragmentsResponse, Header,
    JournalSpec, LabelSet, ListRequest, ListResponse, ReadRequest, ReadResponse, ReplicateRequest,
    ReplicateResponse, Route, Sha1Sum, header, journal_spec, list_response,
};
use runtime::server::Listener;
use runtime::{BoxError, Clock, TaskGroup};
use tonic::{Request, Response, Status, Streaming};

#[derive(Default)]
struct Noop {
    bytes: std::sync::atomic::AtomicI64,
}

type Stream<T> = futures::stream::BoxStream<'static, Result<T, Status>>;

fn header() -> Header {
    Header {
        process_id: Some(Default::default()),
        route: Some(Route { primary: -1, ..Default::default() }),
        etcd: Some(header::Etcd { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 }),
    }
}

/// A listed journal for each exact name that the selector includes.
fn listed(request: &ListRequest) -> Vec<list_response::Journal> {
    let labels = request.selector.iter().flat_map(|selector| &selector.include).flat_map(|set| &set.labels);
    let names = labels.filter(|label| label.name == "name" && !label.prefix);
    names
        .map(|label| list_response::Journal {
            spec: Some(JournalSpec {
                name: label.value.clone(),
                replication: 1,
                labels: Some(LabelSet::default()),
                fragment: Some(journal_spec::Fragment {
                    length: 1 << 28,
                    compression_codec: CompressionCodec::None as i32,
                    refresh_interval: Some(proto::duration::from_std(Duration::from_secs(60))),
                    retention: Some(Default::default()),
                    flush_interval: Some(Default::default()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            mod_revision: 1,
            route: Some(Route { primary: -1, ..Default::default() }),
            create_revision: 1,
        })
        .collect()
}

#[tonic::async_trait]
impl Journal for Noop {
    type ListStream = Stream<ListResponse>;
    type ReadStream = Stream<ReadResponse>;
    type ReplicateStream = Stream<ReplicateResponse>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let journals = listed(request.get_ref());
        let response = ListResponse { header: Some(header()), journals, ..Default::default() };
        Ok(Response::new(futures::stream::iter([Ok(response)]).boxed()))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<AppendResponse>, Status> {
        let mut stream = request.into_inner();
        let opening = stream.message().await?.ok_or_else(|| Status::unknown("EOF"))?;
        let (mut bytes, mut chunks) = (0, 0);
        while let Some(message) = stream.message().await? {
            bytes += message.content.len() as i64;
            chunks += 1;
        }
        let begin = self.bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        Ok(Response::new(AppendResponse {
            header: Some(header()),
            commit: Some(Fragment {
                journal: opening.journal,
                begin,
                end: begin + bytes,
                sum: Some(Sha1Sum { part1: 1, ..Default::default() }),
                compression_codec: CompressionCodec::None as i32,
                ..Default::default()
            }),
            registers: Some(LabelSet::default()),
            total_chunks: chunks,
            ..Default::default()
        }))
    }

    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        Ok(Response::new(ApplyResponse { header: Some(header()), ..Default::default() }))
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        Err(Status::unimplemented("the no-op broker keeps nothing"))
    }

    async fn replicate(
        &self,
        _: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        Err(Status::unimplemented("the no-op broker keeps nothing"))
    }

    async fn list_fragments(
        &self,
        _: Request<FragmentsRequest>,
    ) -> Result<Response<FragmentsResponse>, Status> {
        Err(Status::unimplemented("the no-op broker keeps nothing"))
    }

    async fn fragment_store_health(
        &self,
        _: Request<FragmentStoreHealthRequest>,
    ) -> Result<Response<FragmentStoreHealthResponse>, Status> {
        Err(Status::unimplemented("the no-op broker keeps nothing"))
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("noop-broker: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<(), BoxError> {
    let listener = Listener::bind("127.0.0.1:0").await?;
    eprintln!("noop-broker: serving on {}", listener.endpoint("127.0.0.1"));
    let service =
        JournalServer::new(Noop::default()).max_decoding_message_size(runtime::grpc::MAX_MESSAGE_RECV_SERVER);
    let router = tonic::service::Routes::new(service).into_axum_router();
    runtime::server::serve(
        listener,
        router,
        TaskGroup::new("noop-broker"),
        Clock::system(),
        Duration::from_secs(1),
    )
    .await
}
