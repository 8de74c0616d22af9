//! The appends of one journal, in order: batches which wait, one which is being written, one which is being sent.

use super::buffer::{Budget, Buffer, Content};
use crate::op::{AppendFuture, OpError, OpFuture, Promise};
use proto::protocol::{AppendRequest, AppendResponse};
use runtime::{HeldCounter, trace};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tracing::Span;

/// Bytes after which a batch takes no further appends. A broker holds an append until it is complete, and no more than a
/// few MiB of it in memory; larger calls would save few round trips and cost it a temporary file.
pub(super) const BATCH_BYTES_MAX: u64 = 3 << 20;

/// Appends which share a call, and its response.
pub(super) struct Batch {
    pub(super) request: Arc<AppendRequest>,
    /// What must have succeeded before the call.
    pub(super) deps: Vec<OpFuture>,
    /// Gone while it is written to, and once it is sent.
    buffer: Option<Buffer>,
    promise: Promise<Arc<AppendResponse>>,
    future: AppendFuture,
    /// Appends which were released into it.
    appends: usize,
    sent: bool,
    /// From the first of its appends until it is committed: part of the trace of that one.
    span: Span,
}

impl Batch {
    fn accepts(&self, request: &Arc<AppendRequest>, deps: &[OpFuture]) -> bool {
        !self.sent
            && self.buffer.as_ref().is_some_and(|buffer| buffer.len() < BATCH_BYTES_MAX)
            && (Arc::ptr_eq(&self.request, request) || self.request == *request)
            && deps.iter().all(|dep| self.deps.contains(dep))
    }
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    /// A writer holds the journal's slot, and the buffer of the last batch.
    writing: bool,
    /// A task sends batches.
    sending: bool,
    /// Why the journal takes no more appends.
    failed: Option<OpError>,
}

/// The queue of one journal.
pub(super) struct Queue {
    pub(super) journal: Arc<str>,
    /// Held so that it stays between appends.
    _series: Option<HeldCounter>,
    state: Mutex<State>,
    /// The slot was released.
    slot: Condvar,
    /// The slot was released, for the sender.
    pub(super) changed: Notify,
}

/// What the sender does next.
pub(super) enum Next {
    /// Wait for these, which may have ended already, and ask again.
    Await(Vec<OpFuture>),
    /// Send the first batch.
    Send(Arc<AppendRequest>, Content, Span),
    /// Wait until the slot is released, and ask again.
    Wait,
    /// Nothing is queued: the sender ends.
    Idle,
}

impl Queue {
    /// `series` is held for as long as the queue is there.
    pub(super) fn new(journal: &str, series: Option<HeldCounter>) -> Queue {
        Queue {
            journal: journal.into(),
            _series: series,
            state: Mutex::default(),
            slot: Condvar::new(),
            changed: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the slot, waiting for whoever holds it, and the buffer to write to. An error is why the journal failed; then
    /// the slot is not taken.
    pub(super) fn begin(
        &self,
        request: &Arc<AppendRequest>,
        mut deps: Vec<OpFuture>,
        budget: &Arc<Budget>,
    ) -> Result<Buffer, OpError> {
        deps.retain(|dep| !matches!(dep.try_result(), Some(Ok(()))));
        let mut state = self.lock();
        while state.writing {
            state = self.slot.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let joined = state.batches.back_mut().filter(|open| open.accepts(request, &deps));
        let buffer = match joined.and_then(|open| open.buffer.take()) {
            Some(buffer) => buffer,
            None => {
                let (promise, future) = AppendFuture::pair();
                let request = Arc::clone(request);
                state.batches.push_back(Batch {
                    request,
                    deps,
                    buffer: None,
                    promise,
                    future,
                    appends: 0,
                    sent: false,
                    span: Span::none(),
                });
                Buffer::new(Arc::clone(budget))
            }
        };
        state.writing = true;
        Ok(buffer)
    }

    /// Returns the slot with an append. Says whether a sender must be started.
    pub(super) fn release(&self, buffer: Buffer) -> (AppendFuture, bool) {
        let (future, start) = {
            let mut state = self.lock();
            state.writing = false;
            match state.failed.clone() {
                Some(error) => {
                    state.batches.clear();
                    (AppendFuture::resolved(Err(error)), false)
                }
                None => {
                    let open = state.batches.back_mut().expect("the batch which was begun is still last");
                    open.buffer = Some(buffer);
                    if open.appends == 0 {
                        let journal = &*self.journal;
                        open.span = tracing::info_span!(target: trace::TARGET, "append batch", journal);
                    }
                    open.appends += 1;
                    let future = open.future.clone();
                    (future, !std::mem::replace(&mut state.sending, true))
                }
            }
        };
        self.slot.notify_one();
        self.changed.notify_one();
        (future, start)
    }

    /// Returns the slot without an append; the buffer is as it was.
    pub(super) fn rollback(&self, buffer: Buffer) {
        {
            let mut state = self.lock();
            state.writing = false;
            match state.batches.back_mut() {
                Some(open) if open.appends != 0 => open.buffer = Some(buffer),
                _ => drop(state.batches.pop_back()),
            }
        }
        self.slot.notify_one();
        self.changed.notify_one();
    }

    /// What to do about the first batch.
    pub(super) fn next(&self) -> Next {
        let mut state = self.lock();
        let is_written = state.writing && state.batches.len() == 1;
        let Some(first) = state.batches.front_mut() else {
            state.sending = false;
            return Next::Idle;
        };
        if first.deps.iter().any(|dep| !matches!(dep.try_result(), Some(Ok(())))) {
            return Next::Await(first.deps.clone());
        }
        match first.buffer.take_if(|_| !is_written) {
            Some(buffer) => {
                first.sent = true;
                Next::Send(Arc::clone(&first.request), buffer.freeze(), first.span.clone())
            }
            None => Next::Wait,
        }
    }

    /// The batch which was sent is committed.
    pub(super) fn committed(&self, response: AppendResponse) {
        let batch = self.lock().batches.pop_front();
        if let Some(batch) = batch {
            batch.promise.resolve(Ok(Arc::new(response)));
        }
    }

    /// The first batch failed, and with it all others and all which follow. Ends the sender.
    pub(super) fn fail(&self, error: &OpError) {
        let failed = {
            let mut state = self.lock();
            state.failed = Some(error.clone());
            state.sending = false;
            // The batch which is being written has no buffer here: its writer finds the failure on release.
            std::mem::take(&mut state.batches)
        };
        for batch in failed {
            batch.promise.resolve(Err(error.clone()));
        }
    }

    /// Operations of all appends which were released and are not committed, and of the journal's failure.
    pub(super) fn pending(&self, into: &mut Vec<OpFuture>) {
        let state = self.lock();
        into.extend(state.failed.clone().map(|error| OpFuture::resolved(Err(error))));
        into.extend(state.batches.iter().filter(|batch| batch.appends != 0).map(|batch| batch.future.op()));
    }
}
