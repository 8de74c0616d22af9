//! The append service: many small appends of many writers, as few calls of large content, in order (consumer protocol
//! §2.5).
//!
//! Each journal has a queue. A writer takes the journal's *slot*, writes, and releases: its bytes join the last batch of
//! the queue if that has an equal request, waits for at least the same operations, and is not sent yet. One call per
//! journal runs at a time; while it does, the next batch grows. So a lone append leaves at once, and a busy journal
//! makes calls of a few MiB.
//!
//! Calls are repeated until they succeed or cannot: a fatal error fails the batch and everything behind it, and the
//! journal takes no more appends of this service. Since a call of unknown outcome is repeated, content is appended *at
//! least once*; but it is never reordered, and never split.
//!
//! Slots are taken and released by synchronous code on any thread, also by threads which run no async code. A slot
//! must not be held while waiting for anything, and a thread which holds one must not take another of the same journal.

mod buffer;
mod queue;
mod verdict;

use crate::client::{JournalClient, backoff, bare_name};
use crate::op::{AppendFuture, OpError, OpFuture};
use crate::outage::Outage;
use buffer::{Budget, Buffer, MEMORY_BYTES_MAX};
use futures::StreamExt;
use proto::protocol::AppendRequest;
use queue::{Next, Queue};
use runtime::{BoxError, OnError, TaskGroup};
use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::Instrument;
use verdict::{Verdict, judge};

struct Inner {
    client: JournalClient,
    tasks: TaskGroup,
    budget: Arc<Budget>,
    sent: Arc<AtomicU64>,
    queues: Mutex<BTreeMap<Arc<str>, Arc<Queue>>>,
}

/// Appends in the background, in order per journal. Clones are the same service.
#[derive(Clone)]
pub struct AppendService {
    inner: Arc<Inner>,
}

/// A journal's queue, found once: for those who append to a journal often.
#[derive(Clone)]
pub(crate) struct Target {
    queue: Arc<Queue>,
    request: Arc<AppendRequest>,
}

impl AppendService {
    /// A service whose calls run as `tasks`. When they are cancelled, appends which are not committed fail.
    pub fn new(client: JournalClient, tasks: TaskGroup) -> AppendService {
        let budget = Arc::new(Budget::new(MEMORY_BYTES_MAX));
        let sent = Arc::default();
        AppendService { inner: Arc::new(Inner { client, tasks, budget, sent, queues: Mutex::default() }) }
    }

    /// The client which makes the calls.
    pub fn client(&self) -> &JournalClient {
        &self.inner.client
    }

    /// Takes the journal's slot, blocking while another writer holds it. The append will be sent when all of `deps`
    /// succeeded; if one fails, it fails, and so do the journal's later appends. `request` has no content of its own.
    pub fn start_append(&self, request: AppendRequest, deps: Vec<OpFuture>) -> AppendSlot {
        let queue = self.queue(bare_name(&request.journal));
        self.start(Target { queue, request: Arc::new(request) }, deps)
    }

    /// Operations of all appends to other journals than `journal` which were released and are not committed. A journal
    /// which failed has one which failed. The empty name excludes none.
    pub fn pending_except(&self, journal: &str) -> Vec<OpFuture> {
        let excluded = bare_name(journal);
        let mut pending = Vec::new();
        for (name, queue) in self.queues().iter() {
            if **name != *excluded {
                queue.pending(&mut pending);
            }
        }
        pending
    }

    /// Bytes which wait to be committed, in memory and in temporary files; up to a chunk of 512 KiB per journal is not
    /// counted. A writer may want to pause when this grows.
    pub fn buffered_bytes(&self) -> u64 {
        self.inner.budget.buffered()
    }

    /// Bytes which calls have taken, those of a repeated call each time: shows that a large append goes on.
    pub fn sent_bytes(&self) -> u64 {
        self.inner.sent.load(Ordering::Relaxed)
    }

    /// Finds the queue of appends which ask for nothing special.
    pub(crate) fn target(&self, journal: &str) -> Target {
        let request = AppendRequest { journal: journal.to_owned(), ..Default::default() };
        Target { queue: self.queue(bare_name(journal)), request: Arc::new(request) }
    }

    /// As `start_append`, for a queue which was found.
    pub(crate) fn start(&self, target: Target, deps: Vec<OpFuture>) -> AppendSlot {
        let (buffer, failed) = match target.queue.begin(&target.request, deps, &self.inner.budget) {
            Ok(buffer) => (buffer, None),
            Err(error) => (Buffer::new(Arc::clone(&self.inner.budget)), Some(error)),
        };
        AppendSlot {
            service: self.clone(),
            mark: buffer.len(),
            buffer: Some(buffer),
            target,
            failed,
            write_error: None,
            not_send: PhantomData,
        }
    }

    fn queue(&self, journal: &str) -> Arc<Queue> {
        let mut queues = self.queues();
        if let Some(queue) = queues.get(journal) {
            return Arc::clone(queue);
        }
        let series = self.inner.client.series().map(|series| series.appended(journal));
        let queue = Arc::new(Queue::new(journal, series));
        queues.insert(Arc::clone(&queue.journal), Arc::clone(&queue));
        queue
    }

    fn queues(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Queue>>> {
        self.inner.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the batches of a queue until there is none.
    async fn send_all(self, mut sender: Sender) -> Result<(), BoxError> {
        let token = self.inner.tasks.token().clone();
        let sent = tokio::select! {
            biased;
            () = token.cancelled() => Err(OpError::Cancelled),
            outcome = self.send_until_idle(&sender.queue) => outcome,
        };
        sender.ended = true;
        if let Err(error) = sent {
            if !error.is_cancelled() {
                tracing::warn!(journal = &*sender.queue.journal, %error, "append failed for good");
            }
            sender.queue.fail(&error);
        }
        Ok(())
    }

    async fn send_until_idle(&self, queue: &Queue) -> Result<(), OpError> {
        loop {
            match queue.next() {
                Next::Idle => return Ok(()),
                Next::Wait => queue.changed.notified().await,
                Next::Await(deps) => {
                    for dep in deps {
                        dep.await.map_err(|error| OpError::Dependency(Arc::new(error)))?;
                    }
                }
                Next::Send(request, content, span) => {
                    self.send(queue, &request, &content).instrument(span).await?;
                }
            }
        }
    }

    /// Repeats the call of one batch until it is committed, or an error says that it never will be.
    async fn send(
        &self,
        queue: &Queue,
        request: &AppendRequest,
        content: &buffer::Content,
    ) -> Result<(), OpError> {
        let (mut backoff, mut outage, mut attempts) = (backoff(), Outage::default(), 0u32);
        loop {
            let sent = Arc::clone(&self.inner.sent);
            let chunks = content.stream(&self.inner.tasks).inspect(move |chunk| {
                let bytes = chunk.as_ref().map_or(0, |bytes| bytes.len() as u64);
                sent.fetch_add(bytes, Ordering::Relaxed);
            });
            let outcome = self.inner.client.append_once(request.clone(), chunks).await;
            let error = match judge(request, attempts, outcome) {
                Verdict::Committed(response) => {
                    queue.committed(response);
                    return Ok(());
                }
                Verdict::Fatal(error) => return Err(error),
                Verdict::Retry(error) => error,
            };
            attempts = attempts.saturating_add(1);
            outage.failed(&error, self.inner.client.options().clock.now(), |failing| {
                tracing::warn!(journal = &*queue.journal, %error, %failing, "append failed (will retry)");
            });
            self.inner.client.pause(backoff.next()).await?;
        }
    }
}

/// The sending task's hold of its queue. If the task is dropped midway (its runtime ends, or it panics), nobody may wait
/// for its appends.
struct Sender {
    queue: Arc<Queue>,
    ended: bool,
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.ended {
            self.queue.fail(&OpError::Abandoned);
        }
    }
}

/// Exclusive right to append to a journal. Dropping it takes back what was written.
///
/// It cannot be sent to another thread, so that a task cannot hold it while it awaits something.
pub struct AppendSlot {
    service: AppendService,
    target: Target,
    /// Present until the slot is returned.
    buffer: Option<Buffer>,
    /// Bytes of earlier appends.
    mark: u64,
    /// The journal takes no appends: the slot is not really held.
    failed: Option<OpError>,
    /// Why bytes are missing: the append cannot be released.
    write_error: Option<Arc<io::Error>>,
    not_send: PhantomData<*const ()>,
}

impl AppendSlot {
    /// The request which will be made.
    pub fn request(&self) -> &AppendRequest {
        &self.target.request
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len() - self.mark)
    }

    /// Whether nothing was written: releasing then makes a barrier, which is committed after all before it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes through `encode`, which appends to the vector it is given and leaves alone what is there. On error,
    /// nothing is written.
    pub fn write_with<E>(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        let before = buffer.tail().len();
        let encoded = encode(buffer.tail());
        assert!(buffer.tail().len() >= before, "an encoder removed bytes of others");
        if encoded.is_err() {
            buffer.tail().truncate(before);
            return encoded;
        }
        if let Err(error) = buffer.finish_full_chunk() {
            self.write_error.get_or_insert(Arc::new(error));
        }
        Ok(())
    }

    /// Queues the append. If bytes could not be written it fails, and leaves nothing behind.
    pub fn release(mut self) -> AppendFuture {
        let buffer = self.buffer.take();
        let error = match (self.failed.take(), self.write_error.take()) {
            (Some(error), _) => error,
            (None, Some(error)) => {
                self.return_slot(buffer);
                OpError::Client(crate::ClientError::Content(error))
            }
            (None, None) => return self.queue_append(buffer),
        };
        AppendFuture::resolved(Err(error))
    }

    /// Takes back what was written.
    pub fn rollback(self) {}

    fn queue_append(&self, buffer: Option<Buffer>) -> AppendFuture {
        let Some(buffer) = buffer else { return AppendFuture::resolved(Err(OpError::Abandoned)) };
        let queue = &self.target.queue;
        let (future, start) = queue.release(buffer);
        if start {
            let sender = Sender { queue: Arc::clone(queue), ended: false };
            let task = self.service.clone().send_all(sender);
            self.service.inner.tasks.spawn(&format!("append {}", queue.journal), OnError::Log, task);
        }
        future
    }

    fn return_slot(&self, buffer: Option<Buffer>) {
        if let Some(mut buffer) = buffer {
            buffer.truncate(self.mark);
            self.target.queue.rollback(buffer);
        }
    }
}

impl Drop for AppendSlot {
    fn drop(&mut self) {
        if self.failed.is_none() {
            let buffer = self.buffer.take();
            self.return_slot(buffer);
        }
    }
}

impl io::Write for AppendSlot {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        if let (Some(buffer), None) = (&mut self.buffer, &self.failed)
            && let Err(error) = buffer.write(content)
        {
            let error = Arc::new(error);
            self.write_error = Some(Arc::clone(&error));
            return Err(io::Error::new(error.kind(), error));
        }
        Ok(content.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
