//! Opening the next stored fragment before the present one has been read to its end, so that a reader does not wait for a
//! store between two fragments. What is held meanwhile is the first step of its content (`stores::STEP_BYTES` at most).

use fragment::Fragment;
use fragment::index::{Answer, Query};
use runtime::OnError;
use stores::{ContentStream, StoreError};
use tokio::sync::oneshot;

use super::Read;
use crate::stored;

/// Content which remains of a fragment when the next one is opened, bytes: what a reader of 100 MB/s takes 80 ms for.
const OPEN_AHEAD_BYTES: i64 = 8 << 20;

/// What was opened ahead, if anything.
#[derive(Default)]
pub(super) struct Ahead {
    /// Where the fragment begins for which it was looked last.
    looked_at: Option<i64>,
    opening: Option<Opening>,
}

struct Opening {
    fragment: Fragment,
    offset: i64,
    content: oneshot::Receiver<Result<ContentStream, StoreError>>,
}

impl Ahead {
    /// The content of `fragment` from `offset` on, if that is what was opened. Anything else is closed, and a failure is
    /// forgotten: it may be long ago.
    pub(super) async fn take(&mut self, fragment: &Fragment, offset: i64) -> Option<ContentStream> {
        let opening = self.opening.take()?;
        if opening.fragment != *fragment || opening.offset != offset {
            return None;
        }
        // Its task ends without an answer only when the process ends.
        opening.content.await.ok()?.ok()
    }
}

impl Read {
    /// Opens what follows `end`, of whose fragment content up to `offset` was sent, if it is near and stored.
    pub(super) fn look_ahead(&mut self, offset: i64, end: i64) {
        let is_near = end - offset <= OPEN_AHEAD_BYTES;
        if !is_near || self.ahead.looked_at == Some(end) || !self.core.goes_on_at(end) {
            return;
        }
        self.ahead.looked_at = Some(end);
        let query = self.core.query(self.context.clock.unix_seconds(), end);
        let answer = self.index.borrow().index.query(&Query { offset: end, ..query });
        let Answer::Found(found) = answer else { return };
        if found.offset != end || found.entry.file.is_some() {
            return;
        }
        let (fragment, stores) = (found.entry.fragment, self.context.stores.clone());
        let (opened, content) = oneshot::channel();
        self.ahead.opening = Some(Opening { fragment: fragment.clone(), offset: end, content });
        self.context.files.spawn("open ahead", OnError::Log, async move {
            // If the reader is gone, what was opened is closed.
            drop(opened.send(stored::content(&stores, &fragment, end).await));
            Ok(())
        });
    }
}
