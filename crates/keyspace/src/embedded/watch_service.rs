//! The Watch service.
//!
//! A stream of watches holds no buffer of its own: each watch is a cursor into the history of the published store, and is
//! moved when the client takes what came before. So a slow client costs nothing but history, and when it falls behind
//! what is kept, its watches are cancelled as compacted, which clients answer by reading anew. All watches of a stream
//! have been shown everything up to a revision before anything is said about the progress to that revision.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto as pb;
use futures::stream::{self, BoxStream, StreamExt};
use runtime::Instant;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::store::{Caught, Span, Store, WatchSpec};
use super::{EmbeddedEtcd, stopped};

/// Events in one response, bytes, about. A revision is not split.
const RESPONSE_BYTES: usize = 1 << 20;
/// Most watches of one stream.
const WATCHES_MAX: usize = 10_000;
/// How often watches that asked for it are told how far they are, when they had nothing else to be told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Filters of a watch, as numbered on the wire.
const FILTER_NO_PUT: i32 = 0;
const FILTER_NO_DELETE: i32 = 1;

#[async_trait]
impl pb::PbWatchService for EmbeddedEtcd {
    type WatchStream = BoxStream<'static, Result<pb::PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut published = self.shared.published.clone();
        let store = Arc::clone(&published.borrow_and_update());
        let session = Session {
            etcd: self.clone(),
            requests: Some(request.into_inner()),
            published,
            store,
            watches: BTreeMap::new(),
            next_id: 0,
            outbox: VecDeque::new(),
            progress_at: self.shared.clock.now() + PROGRESS_INTERVAL,
        };
        let responses = stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(responses.boxed()))
    }
}

struct Watch {
    spec: WatchSpec,
    /// The first revision that it has not been shown.
    next: i64,
    progress_notify: bool,
    /// Whether it was told anything since the last progress notification.
    told: bool,
    /// Whether it was told that what it asks for is compacted. It keeps its id until the client cancels it.
    ended: bool,
}

struct Session {
    etcd: EmbeddedEtcd,
    /// `None` once the client has closed its side.
    requests: Option<Streaming<pb::PbWatchRequest>>,
    published: watch::Receiver<Arc<Store>>,
    /// What the watches have been shown, or are being shown.
    store: Arc<Store>,
    watches: BTreeMap<i64, Watch>,
    next_id: i64,
    outbox: VecDeque<pb::PbWatchResponse>,
    progress_at: Instant,
}

enum Input {
    Request(Option<pb::PbWatchRequest>),
    Published,
    Progress,
}

impl Session {
    /// The next response, as soon as there is one.
    async fn next(&mut self) -> Result<pb::PbWatchResponse, Status> {
        loop {
            self.show();
            if let Some(response) = self.outbox.pop_front() {
                return Ok(response);
            }
            match self.input().await? {
                Input::Request(Some(request)) => self.request(request),
                Input::Request(None) => self.requests = None,
                Input::Published => self.store = Arc::clone(&self.published.borrow_and_update()),
                Input::Progress => self.notify_progress(),
            }
        }
    }

    async fn input(&mut self) -> Result<Input, Status> {
        let stop = self.etcd.shared.tasks.token();
        let requests = &mut self.requests;
        let request = async {
            match requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(stopped()),
            request = request => Ok(Input::Request(request?)),
            changed = self.published.changed() => changed.map(|()| Input::Published).map_err(|_| stopped()),
            () = self.etcd.shared.clock.sleep_until(self.progress_at) => Ok(Input::Progress),
        }
    }

    /// Shows each watch what is new, one response at most, until all have seen the store.
    fn show(&mut self) {
        if !self.outbox.is_empty() {
            return;
        }
        let newest = self.store.revision();
        let behind = |watch: &Watch| watch.next <= newest && !watch.ended;
        for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| behind(watch)) {
            match self.store.events(&watch.spec, watch.next, RESPONSE_BYTES) {
                Caught::Up { events, next } => {
                    watch.next = next;
                    if !events.is_empty() {
                        watch.told = true;
                        let header = self.etcd.header(newest);
                        self.outbox.push_back(pb::PbWatchResponse {
                            header,
                            watch_id: *id,
                            events,
                            ..Default::default()
                        });
                    }
                }
                Caught::Compacted(revision) => {
                    watch.ended = true;
                    self.outbox.push_back(pb::PbWatchResponse {
                        header: self.etcd.header(0),
                        watch_id: *id,
                        canceled: true,
                        compact_revision: revision,
                        ..Default::default()
                    });
                }
            }
        }
    }

    fn request(&mut self, request: pb::PbWatchRequest) {
        let newest = self.etcd.store().revision();
        match request.request_union {
            Some(pb::PbWatchRequestUnion::CreateRequest(create)) => {
                // An empty key stands for the smallest one.
                let key = if create.key.is_empty() { vec![0] } else { create.key };
                let spec = WatchSpec {
                    span: Span::parse(&key, &create.range_end),
                    no_put: create.filters.contains(&FILTER_NO_PUT),
                    no_delete: create.filters.contains(&FILTER_NO_DELETE),
                    prev_kv: create.prev_kv,
                };
                let next = if create.start_revision == 0 { newest + 1 } else { create.start_revision };
                let watch =
                    Watch { spec, next, progress_notify: create.progress_notify, told: false, ended: false };
                let outcome = self.create(create.watch_id, watch);
                self.outbox.push_back(pb::PbWatchResponse {
                    header: self.etcd.header(newest),
                    watch_id: outcome.unwrap_or(-1),
                    created: true,
                    canceled: outcome.is_err(),
                    cancel_reason: outcome.err().unwrap_or_default().to_owned(),
                    ..Default::default()
                });
            }
            Some(pb::PbWatchRequestUnion::CancelRequest(cancel)) => {
                let header = self.etcd.header(newest);
                let cancelled = self.watches.remove(&cancel.watch_id).map(|_| pb::PbWatchResponse {
                    header,
                    watch_id: cancel.watch_id,
                    canceled: true,
                    ..Default::default()
                });
                self.outbox.extend(cancelled);
            }
            Some(pb::PbWatchRequestUnion::ProgressRequest(_)) => {
                // The watches have been shown the store before this request was looked at.
                let header = self.etcd.header(self.store.revision());
                self.outbox.push_back(pb::PbWatchResponse { header, watch_id: -1, ..Default::default() });
            }
            None => {}
        }
    }

    /// Adds a watch, under the id that the client chose or, if it is zero, the next free one.
    fn create(&mut self, id: i64, watch: Watch) -> Result<i64, &'static str> {
        if watch.spec.span.is_reversed() {
            return Err("mvcc: watcher range is empty");
        }
        if self.watches.len() >= WATCHES_MAX {
            return Err("mvcc: too many watches on the stream");
        }
        let id = if id != 0 {
            id
        } else {
            while self.watches.contains_key(&self.next_id) {
                self.next_id += 1;
            }
            self.next_id += 1;
            self.next_id - 1
        };
        if self.watches.contains_key(&id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream");
        }
        self.watches.insert(id, watch);
        Ok(id)
    }

    fn notify_progress(&mut self) {
        self.progress_at = self.etcd.shared.clock.now() + PROGRESS_INTERVAL;
        let shown = self.store.revision();
        for (id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.progress_notify && !watch.ended)
        {
            if !std::mem::take(&mut watch.told) {
                let header = self.etcd.header(shown);
                self.outbox.push_back(pb::PbWatchResponse { header, watch_id: *id, ..Default::default() });
            }
        }
    }
}
