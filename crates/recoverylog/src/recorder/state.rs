//! What a recorder's lock guards: the recording, its outcome so far, and the appends to learn it from.

use crate::RecordError;
use crate::recording::Recording;
use client::{AppendFuture, AppendSlot, OpError};

/// A started append and the operations that are committed with it.
#[derive(Clone)]
pub(super) struct Watched {
    pub(super) append: AppendFuture,
    pub(super) through_seq_no: i64,
}

pub(super) struct State {
    pub(super) recording: Recording,
    /// The oldest append of which the outcome is not known, among those that are watched.
    pub(super) oldest: Option<Watched>,
    /// The last append. Appends end in order, so these two tell all that there is to know.
    newest: Option<Watched>,
    pub(super) failure: Option<RecordError>,
    pub(super) frames: Vec<u8>,
}

impl State {
    pub(super) fn new(recording: Recording) -> State {
        State { recording, oldest: None, newest: None, failure: None, frames: Vec::new() }
    }

    /// Learns from appends which ended.
    pub(super) fn observe(&mut self) {
        while let Some(result) = self.oldest.as_ref().and_then(|watched| watched.append.try_result()) {
            let Some(watched) = self.oldest.take() else { return };
            self.oldest = self.newest.take();
            match result {
                Ok(response) => {
                    let (begin, end) =
                        response.commit.as_ref().map_or((0, 0), |commit| (commit.begin, commit.end));
                    self.committed(watched.through_seq_no, begin, end);
                }
                Err(cause) => drop(self.fail_append(cause)),
            }
        }
    }

    fn committed(&mut self, through_seq_no: i64, begin: i64, end: i64) {
        let head = self.recording.write_head();
        // Appends of one batch have one answer, so an answer may be seen again.
        if end < head || (begin < head && end != head) {
            let log = self.recording.log().clone();
            self.fail(RecordError::WentBack { log, head, begin, end });
        }
        self.recording.on_committed(through_seq_no, end);
    }

    pub(super) fn check(&mut self) -> Result<(), RecordError> {
        self.observe();
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Releases an append, and watches it.
    pub(super) fn watch(&mut self, slot: AppendSlot) -> AppendFuture {
        let append = slot.release();
        let watched = Watched { append: append.clone(), through_seq_no: self.recording.last_seq_no() };
        match self.oldest {
            None => self.oldest = Some(watched),
            Some(_) => self.newest = Some(watched),
        }
        append
    }

    /// Fails the recorder, if it has not failed before, and returns why it did.
    pub(super) fn fail(&mut self, error: RecordError) -> RecordError {
        if self.failure.is_none() {
            tracing::warn!(%error, "recorder failed");
        }
        self.failure.get_or_insert(error).clone()
    }

    pub(super) fn fail_append(&mut self, cause: OpError) -> RecordError {
        self.fail(RecordError::of_append(&self.recording, cause))
    }
}
