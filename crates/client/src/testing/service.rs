//! The calls of the stub broker.

use super::*;

type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

/// Messages which are sent ahead of the client.
const MESSAGES_AHEAD: usize = 4;

#[tonic::async_trait]
impl Service for StubBroker {
    type ListStream = Frames<ListResponse>;
    type ReadStream = Frames<ReadResponse>;
    type ReplicateStream = Frames<ReplicateResponse>;

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<AppendResponse>, tonic::Status> {
        let mut messages = request.into_inner();
        let opening = messages.message().await?.ok_or_else(|| tonic::Status::unknown("EOF"))?;
        opening.validate().map_err(refused)?;
        let fault = self.change(|state| state.append_faults.pop_front());
        let mut after_effect = None;
        match fault {
            Some(Fault::Grpc(code)) => return Err(tonic::Status::new(code, "injected")),
            Some(Fault::GrpcAfterEffect(code)) => after_effect = Some(code),
            Some(Fault::Status(status)) => {
                let (header, status) = (Some(self.lock().header()), status as i32);
                return Ok(Response::new(AppendResponse { status, header, ..Default::default() }));
            }
            Some(Fault::Hold(permits)) => permits.acquire().await.expect("the test keeps it open").forget(),
            Some(Fault::Frames(_)) | None => {}
        }
        let (mut content, mut chunks) = (Vec::new(), 0);
        loop {
            let message = messages.message().await?;
            let message = message.ok_or_else(|| tonic::Status::unknown("append stream: unexpected EOF"))?;
            if message.content.is_empty() {
                break;
            }
            chunks += 1;
            content.extend_from_slice(&message.content);
        }
        let response = self.change(|state| state.append(opening, content, chunks));
        match after_effect {
            Some(code) => Err(tonic::Status::new(code, "injected after effect")),
            None => Ok(Response::new(response)),
        }
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, tonic::Status> {
        let request = request.into_inner();
        request.validate().map_err(refused)?;
        let fault = self.change(|state| {
            state.reads.push(request.clone());
            state.read_faults.pop_front()
        });
        let (frames, stream) = mpsc::channel(MESSAGES_AHEAD);
        match fault {
            Some(Fault::Grpc(code) | Fault::GrpcAfterEffect(code)) => {
                return Err(tonic::Status::new(code, "injected"));
            }
            Some(Fault::Status(status)) => {
                let (header, status) = (Some(self.lock().header()), status as i32);
                let frame = ReadResponse { status, header, ..Default::default() };
                return Ok(Response::new(Box::pin(futures::stream::iter([Ok(frame)]))));
            }
            Some(Fault::Frames(frames)) => {
                let frames = frames.into_iter().map(Ok);
                return Ok(Response::new(Box::pin(futures::stream::iter(frames))));
            }
            Some(Fault::Hold(permits)) => permits.acquire().await.expect("the test keeps it open").forget(),
            None => {}
        }
        let broker = self.clone();
        let serve = async move { broker.serve_read(request, frames).await };
        Ok(Response::new(while_serving(serve, stream)))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, tonic::Status> {
        let request = request.into_inner();
        request.validate().map_err(refused)?;
        let fault = self.change(|state| {
            state.lists.push(request.clone());
            state.list_faults.pop_front()
        });
        if let Some(Fault::Grpc(code)) = fault {
            return Err(tonic::Status::new(code, "injected"));
        }
        let (pages, stream) = mpsc::channel(MESSAGES_AHEAD);
        let broker = self.clone();
        let serve = async move { broker.serve_list(request, pages).await };
        Ok(Response::new(while_serving(serve, stream)))
    }

    async fn apply(&self, _: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, tonic::Status> {
        let header = Some(Header { route: Some(Route::unrouted()), ..self.lock().header() });
        Ok(Response::new(ApplyResponse { status: Status::Ok as i32, header }))
    }

    async fn list_fragments(
        &self,
        request: Request<FragmentsRequest>,
    ) -> Result<Response<FragmentsResponse>, tonic::Status> {
        // One fragment of a hundred bytes per page, three in all.
        let request = request.into_inner();
        let begin = request.next_page_token;
        let spec = Fragment { begin, ..fragment(&request.journal, begin + 100) };
        let fragments = vec![proto::protocol::fragments_response::Fragment {
            spec: Some(spec),
            signed_url: String::new(),
        }];
        let next_page_token = if begin < 200 { begin + 100 } else { 0 };
        let header = Some(self.lock().header());
        Ok(Response::new(FragmentsResponse { status: Status::Ok as i32, header, fragments, next_page_token }))
    }

    async fn replicate(
        &self,
        _: Request<Streaming<ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("the stub broker has no peers"))
    }

    async fn fragment_store_health(
        &self,
        _: Request<FragmentStoreHealthRequest>,
    ) -> Result<Response<FragmentStoreHealthResponse>, tonic::Status> {
        let header = Some(self.lock().header());
        let response =
            FragmentStoreHealthResponse { status: Status::Ok as i32, header, ..Default::default() };
        Ok(Response::new(response))
    }
}

impl StubBroker {
    /// Sends content as it is there; a blocking read goes on until it is broken.
    async fn serve_read(
        &self,
        request: ReadRequest,
        frames: mpsc::Sender<Result<ReadResponse, tonic::Status>>,
    ) {
        let (mut changes, mut breaks) = (self.changes.subscribe(), self.breaks.subscribe());
        let (mut offset, mut header) = (request.offset, Some(self.lock().header()));
        loop {
            changes.mark_unchanged();
            let next = self.lock().read(&request, offset, header.clone());
            let is_at_head = next[0].status() == Status::OffsetNotYetAvailable;
            if !(is_at_head && request.block) {
                let ends = next[0].status() != Status::Ok;
                for frame in next {
                    offset = frame.offset + frame.content.len() as i64;
                    if frames.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
                header = None;
                if ends || request.metadata_only || request.end_offset != 0 && offset >= request.end_offset {
                    return;
                }
                continue;
            } else if offset == -1 {
                offset = next[0].write_head;
            }
            tokio::select! {
                biased;
                _ = breaks.changed() => return,
                _ = frames.closed() => return,
                _ = changes.changed() => {}
            }
        }
    }

    async fn serve_list(
        &self,
        request: ListRequest,
        pages: mpsc::Sender<Result<ListResponse, tonic::Status>>,
    ) {
        let (mut changes, mut breaks) = (self.changes.subscribe(), self.breaks.subscribe());
        let resumed = request.watch_resume.as_ref().and_then(|header| header.etcd.as_ref());
        let mut last = resumed.map_or(0, |etcd| etcd.revision);
        loop {
            changes.mark_unchanged();
            let (revision, snapshot) = {
                let state = self.lock();
                (state.revision, state.list(&request))
            };
            if revision > last || !request.watch {
                last = revision;
                let terminator = request.watch.then(ListResponse::default);
                for page in snapshot.into_iter().chain(terminator) {
                    if pages.send(Ok(page)).await.is_err() {
                        return;
                    }
                }
                if !request.watch {
                    return;
                }
            }
            tokio::select! {
                biased;
                _ = breaks.changed() => return,
                () = pages.closed() => return,
                _ = changes.changed() => {}
            }
        }
    }
}

/// The messages of a channel, for as long as the future which sends them runs: it is driven by whoever polls the stream.
fn while_serving<T: Send + 'static>(
    serve: impl Future<Output = ()> + Send + 'static,
    messages: mpsc::Receiver<Result<T, tonic::Status>>,
) -> Frames<T> {
    let serve = futures::FutureExt::into_stream(serve);
    let served = futures::StreamExt::filter_map(serve, |()| futures::future::ready(None));
    Box::pin(futures::stream::select(ReceiverStream::new(messages), served))
}
