//! The journal service: validates, resolves, and hands each request to whoever answers it.
//!
//! Requests that arrive while the broker still starts wait for it: with an embedded etcd the port is open before there is
//! a mirror to answer from. A panic in one request ends that request alone.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use auth::{Access, before_expiry};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use proto::protocol::journal_server::Journal;
use proto::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, ApplyResponse, FragmentStoreHealthRequest,
    FragmentStoreHealthResponse, FragmentsRequest, FragmentsResponse, ListRequest, ListResponse, ReadRequest,
    ReadResponse, ReplicateRequest, ReplicateResponse, Status,
};
use proto::{Canonical, Revision, Validate};
use runtime::{CancellationToken, Clock, panic_text};
use tokio::sync::watch;
use tonic::{Request, Response, Streaming};
use tracing::Span;

use crate::append::{self, AppendContext};
use crate::error::ServiceError;
use crate::gate::{access_of, until_expiry};
use crate::metrics::BrokerMetrics;
use crate::read::ReadContext;
use crate::resolver::{Resolution, ResolveArgs, Resolver};
use crate::{apply, fragments, health, list, read, replicate};

/// What answers requests, once the broker has started.
pub struct Shell {
    /// Finds who answers.
    pub resolver: Resolver,
    /// Of appends.
    pub append: AppendContext,
    /// Of reads.
    pub read: ReadContext,
    /// Fires when the broker stops: streams without an end of their own then end.
    pub stop: CancellationToken,
}

/// The journal service.
#[derive(Clone)]
pub struct JournalService {
    shell: watch::Receiver<Option<Arc<Shell>>>,
    metrics: BrokerMetrics,
    clock: Clock,
}

type Answer<T> = Result<Response<T>, tonic::Status>;

impl JournalService {
    /// A service whose requests wait until there is a shell. It is to be served behind a guard of [`crate::gate::METHODS`].
    pub fn new(
        shell: watch::Receiver<Option<Arc<Shell>>>,
        metrics: BrokerMetrics,
        clock: Clock,
    ) -> JournalService {
        JournalService { shell, metrics, clock }
    }

    /// Shows the end of a journal that this broker, rather than a peer, has appended to. Not of one which was taken from it
    /// meanwhile: nobody would drop the series then.
    fn note_write_head(&self, shell: &Shell, response: &AppendResponse) {
        let process = response.header.as_ref().and_then(|header| header.process());
        let is_here = process.is_some_and(|id| shell.resolver.me() == id);
        if let Some(commit) = response.commit.as_ref().filter(|_| is_here)
            && shell.resolver.serves(&commit.journal)
        {
            self.metrics.write_head(&commit.journal, commit.end);
        }
    }

    async fn shell(&self) -> Result<Arc<Shell>, tonic::Status> {
        let mut shell = self.shell.clone();
        let shell = shell.wait_for(Option::is_some).await;
        let shell = shell.map_err(|_| tonic::Status::unavailable("the broker did not start"))?;
        Ok(Arc::clone(shell.as_ref().expect("it was waited for")))
    }

    /// Runs a request that has one answer. `status_of` says which status the answer has.
    ///
    /// The future which makes the answer is large, and so would be each which holds it: it is passed on as a pointer.
    async fn unary<T>(
        &self,
        operation: &'static str,
        answer: BoxFuture<'_, Result<T, tonic::Status>>,
        status_of: impl FnOnce(&T) -> Status,
    ) -> Answer<T> {
        let mut completion = Completion::begin(&self.metrics, operation);
        let answer = caught(operation, answer).await;
        completion.status = answer.as_ref().ok().map(status_of);
        answer.map(Response::new).inspect_err(|status| log_failure(operation, status))
    }

    /// The stream which `answer` comes to; it ends cleanly when the token of its request expires.
    async fn stream_until_expiry<T: Send + 'static>(
        &self,
        access: &Access,
        answer: impl Future<Output = Result<BoxStream<'static, T>, tonic::Status>>,
    ) -> Result<BoxStream<'static, T>, tonic::Status> {
        let stream = before_expiry(&self.clock, access, answer).await??;
        Ok(until_expiry(&self.clock, access, stream))
    }

    /// Runs a request that is answered by a stream.
    async fn streaming<T: Send + 'static>(
        &self,
        operation: &'static str,
        answer: BoxFuture<'_, Result<BoxStream<'static, Result<T, tonic::Status>>, tonic::Status>>,
        status_of: fn(&T) -> Status,
    ) -> Answer<BoxStream<'static, Result<T, tonic::Status>>> {
        let mut completion = Completion::begin(&self.metrics, operation);
        match caught(operation, answer).await {
            Ok(stream) => Ok(Response::new(Counted { stream, completion, status_of }.boxed())),
            Err(status) => {
                completion.status = None;
                log_failure(operation, &status);
                Err(status)
            }
        }
    }
}

#[tonic::async_trait]
impl Journal for JournalService {
    type ListStream = BoxStream<'static, Result<ListResponse, tonic::Status>>;
    type ReadStream = BoxStream<'static, Result<ReadResponse, tonic::Status>>;
    type ReplicateStream = BoxStream<'static, Result<ReplicateResponse, tonic::Status>>;

    async fn list(&self, request: Request<ListRequest>) -> Answer<Self::ListStream> {
        let answer = async {
            let access = access_of(&request)?;
            let listed = async { self.shell().await?.list(request.into_inner(), &access).await };
            self.stream_until_expiry(&access, listed).await
        };
        self.streaming("List", answer.boxed(), ListResponse::status).await
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<ApplyResponse> {
        let answer = async {
            let access = access_of(&request)?;
            let applied = async { self.shell().await?.apply(request.into_inner(), &access).await };
            before_expiry(&self.clock, &access, applied).await?
        };
        self.unary("Apply", answer.boxed(), ApplyResponse::status).await
    }

    async fn read(&self, request: Request<ReadRequest>) -> Answer<Self::ReadStream> {
        let answer = async {
            let access = access_of(&request)?;
            let read = async { self.shell().await?.read(request.into_inner(), &access).await };
            self.stream_until_expiry(&access, read).await
        };
        self.streaming("Read", answer.boxed(), ReadResponse::status).await
    }

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Answer<AppendResponse> {
        let answer = async {
            let access = access_of(&request)?;
            let shell = self.shell().await?;
            let response = append::serve_append(&shell.append, access, request.into_inner()).await?;
            self.note_write_head(&shell, &response);
            Ok(response)
        };
        self.unary("Append", answer.boxed(), AppendResponse::status).await
    }

    async fn replicate(
        &self,
        request: Request<Streaming<ReplicateRequest>>,
    ) -> Answer<Self::ReplicateStream> {
        let answer = async {
            let access = access_of(&request)?;
            let shell = self.shell().await?;
            replicate::serve(&shell.resolver, &self.clock, &access, request.into_inner()).await
        };
        self.streaming("Replicate", answer.boxed(), ReplicateResponse::status).await
    }

    async fn list_fragments(&self, request: Request<FragmentsRequest>) -> Answer<FragmentsResponse> {
        let answer = async {
            let access = access_of(&request)?;
            let listed = async { self.shell().await?.list_fragments(request.into_inner(), &access).await };
            before_expiry(&self.clock, &access, listed).await?
        };
        self.unary("ListFragments", answer.boxed(), FragmentsResponse::status).await
    }

    async fn fragment_store_health(
        &self,
        request: Request<FragmentStoreHealthRequest>,
    ) -> Answer<FragmentStoreHealthResponse> {
        let answer = async {
            let access = access_of(&request)?;
            let checked =
                async { self.shell().await?.fragment_store_health(request.into_inner(), &access).await };
            before_expiry(&self.clock, &access, checked).await?
        };
        self.unary("FragmentStoreHealth", answer.boxed(), FragmentStoreHealthResponse::status).await
    }
}

impl Shell {
    async fn list(
        &self,
        request: ListRequest,
        access: &Access,
    ) -> Result<BoxStream<'static, Result<ListResponse, tonic::Status>>, tonic::Status> {
        request.validate().map_err(ServiceError::from)?;
        Ok(list::serve(self.resolver.clone(), request, access.selector.clone(), self.stop.clone()))
    }

    async fn apply(&self, request: ApplyRequest, access: &Access) -> Result<ApplyResponse, tonic::Status> {
        apply::validate(&request).map_err(ServiceError::from)?;
        apply::authorize(&request, access)?;
        Ok(apply::serve(&self.resolver, request).await?)
    }

    async fn read(&self, request: ReadRequest, access: &Access) -> Result<read::ReadStream, tonic::Status> {
        request.validate().map_err(ServiceError::from)?;
        Span::current().record("journal", &request.journal);
        let args = ResolveArgs {
            journal: &request.journal,
            may_proxy: !request.do_not_proxy,
            require_primary: false,
            min_revision: Revision(request.min_etcd_revision),
            proxy_header: request.header.as_ref(),
            visible: Some(&access.selector),
        };
        let resolution = self.resolver.resolve(args).await.map_err(ServiceError::from)?;
        let status = readable_status(&resolution);
        if status != Status::Ok {
            let header = Some(resolution.header.canonical());
            let refused = ReadResponse { status: status as i32, header, ..ReadResponse::default() };
            Ok(futures::stream::iter([Ok(refused)]).boxed())
        } else if resolution.is_local {
            Ok(read::serve(self.read.clone(), self.resolver.peers().clone(), request, resolution))
        } else {
            Ok(read::proxy(self.resolver.peers(), request, resolution, self.stop.clone()).await?)
        }
    }

    async fn list_fragments(
        &self,
        mut request: FragmentsRequest,
        access: &Access,
    ) -> Result<FragmentsResponse, tonic::Status> {
        request.validate().map_err(ServiceError::from)?;
        if request.page_limit == 0 {
            request.page_limit = fragments::PAGE_LIMIT_DEFAULT;
        }
        let args = ResolveArgs {
            journal: &request.journal,
            may_proxy: !request.do_not_proxy,
            require_primary: false,
            min_revision: Revision(0),
            proxy_header: request.header.as_ref(),
            visible: Some(&access.selector),
        };
        let resolution = self.resolver.resolve(args).await.map_err(ServiceError::from)?;
        let status = readable_status(&resolution);
        if status != Status::Ok {
            Ok(fragments::refused(status, resolution))
        } else if resolution.replica.is_some() {
            Ok(fragments::serve(&self.read, &request, resolution).await?)
        } else {
            Ok(fragments::proxy(self.resolver.peers(), request, resolution).await?)
        }
    }

    async fn fragment_store_health(
        &self,
        request: FragmentStoreHealthRequest,
        access: &Access,
    ) -> Result<FragmentStoreHealthResponse, tonic::Status> {
        request.validate().map_err(ServiceError::from)?;
        let header = self.resolver.unrouted_header();
        let key_space = self.resolver.key_space();
        Ok(health::serve(&self.read.stores, &key_space, &access.selector, header, &request).await)
    }
}

/// The status of a request that reads: a journal which may not be read is `NOT_ALLOWED`.
fn readable_status(resolution: &Resolution) -> Status {
    let is_readable = resolution.item.as_ref().is_none_or(|item| item.spec.is_readable());
    match resolution.status {
        Status::Ok if !is_readable => Status::NotAllowed,
        status => status,
    }
}

/// The answer, or an error in place of a panic.
async fn caught<T>(
    operation: &str,
    answer: BoxFuture<'_, Result<T, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(answer) => answer,
        Err(panic) => {
            let text = panic_text(&*panic);
            tracing::error!(operation, panic = %text, "request panicked");
            Err(tonic::Status::internal(format!("{operation} panicked: {text}")))
        }
    }
}

fn log_failure(operation: &str, status: &tonic::Status) {
    tracing::warn!(code = ?status.code(), error = status.message(), "served {operation} RPC failed");
}

/// Counts a request when it is over. One that its client abandons counts as fine.
struct Completion {
    metrics: BrokerMetrics,
    operation: &'static str,
    /// The outcome so far; `None` is a failure.
    status: Option<Status>,
}

impl Completion {
    fn begin(metrics: &BrokerMetrics, operation: &'static str) -> Completion {
        metrics.started(operation);
        Completion { metrics: metrics.clone(), operation, status: Some(Status::Ok) }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.metrics.completed(self.operation, self.status);
    }
}

/// A stream of answers which is counted when it ends, by its last status.
struct Counted<T> {
    stream: BoxStream<'static, Result<T, tonic::Status>>,
    completion: Completion,
    status_of: fn(&T) -> Status,
}

impl<T> Stream for Counted<T> {
    type Item = Result<T, tonic::Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        match &next {
            Poll::Ready(Some(Ok(message))) => self.completion.status = Some((self.status_of)(message)),
            Poll::Ready(Some(Err(status))) => {
                self.completion.status = None;
                log_failure(self.completion.operation, status);
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use runtime::Metrics;

    use super::*;

    fn service(shell: watch::Receiver<Option<Arc<Shell>>>, metrics: &Metrics) -> JournalService {
        JournalService::new(shell, BrokerMetrics::new(metrics), Clock::system())
    }

    #[tokio::test]
    async fn a_panic_ends_its_request_alone() {
        let registry = Metrics::new();
        let (_shells, shell) = watch::channel(None);
        let service = service(shell, &registry);
        let panics = async { panic!("of one request") };
        let error = service.unary("Apply", panics.boxed(), ApplyResponse::status).await.unwrap_err();
        assert_eq!(
            (error.code(), error.message()),
            (tonic::Code::Internal, "Apply panicked: of one request")
        );
        let answers = async { Ok(ApplyResponse::default()) };
        service.unary("Apply", answers.boxed(), ApplyResponse::status).await.unwrap();
        let metrics = registry.render();
        for line in
            [r#"totals{operation="Apply",status="<error>"} 1"#, r#"totals{operation="Apply",status="ok"} 1"#]
        {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
    }

    #[tokio::test]
    async fn requests_fail_as_unavailable_if_the_broker_never_starts() {
        let (shells, shell) = watch::channel(None);
        let service = service(shell, &Metrics::new());
        drop(shells);
        let mut request = Request::new(ApplyRequest::default());
        request.extensions_mut().insert(Access::unlimited());
        let error = service.apply(request).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unavailable);
    }
}
