//! What becomes of the spools that a replica finds when it starts.
//!
//! They are read, and then held until the replica has a part to play: nothing of them is shown or stored before. At that
//! moment etcd knows the revision of the last route whose replicas agreed and could be written to ([`crate::sync_mark`]).
//! Spools as of that revision, or of a later attempt, hold everything that was acknowledged, and go on. Older ones were left
//! behind: others have gone on from what was acknowledged, and what these hold beyond it may contradict them. They are set
//! aside. So are spools of which etcd knows nothing: nothing of them was acknowledged, or not under this etcd.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::BoxFuture;
use proto::Revision;
use runtime::BoxError;
use runtime::backoff::Backoff;

use super::owner::{Owner, Worked};
use super::writer::Writer;
use super::{AppendError, Outcome};
use crate::pipeline::Scatter;
use crate::spool::{Adopted, CompletedSpool, SpoolDir, SpoolError};

/// The answer of etcd: the revision of the last route that was agreed on.
pub(super) type Mark = Result<Option<Revision>, BoxError>;

/// How far adoption has come.
pub(super) struct Adoption {
    backoff: Backoff,
    /// Older files than the writer's, each a complete fragment.
    completed: Vec<CompletedSpool>,
    /// Etcd is being asked.
    asking: Option<BoxFuture<'static, Mark>>,
    /// There is nothing to find out any more.
    is_over: bool,
    /// The spools were found to hold everything that was acknowledged.
    is_current: bool,
}

impl Default for Adoption {
    fn default() -> Adoption {
        Adoption {
            backoff: Backoff::journal(),
            completed: Vec::new(),
            asking: None,
            is_over: false,
            is_current: false,
        }
    }
}

impl Adoption {
    /// Whether spools were adopted that hold everything acknowledged before.
    pub(super) fn is_current(&self) -> bool {
        self.is_current
    }

    /// The answer of etcd, if it was asked.
    pub(super) async fn answered(&mut self) -> Mark {
        super::owner::finished(&mut self.asking).await
    }
}

impl Owner {
    pub(super) fn adopt(&mut self) {
        let place = self.place.clone();
        let adopted = self.deps.tasks.spawn_blocking("adopt spools", || SpoolDir::adopt(place));
        self.work = Some(adopted.map(Worked::Adopted).boxed());
    }

    pub(super) fn on_adopted(&mut self, adopted: Result<Adopted, SpoolError>) {
        let adopted = match adopted {
            Ok(adopted) => adopted,
            Err(err) => return self.retry_adoption(&Arc::new(err)),
        };
        let written = adopted.dir.written();
        self.latest_file = written.file.clone();
        // Without files there is nothing to be wrong about.
        self.adoption.is_over = written.file.is_none() && adopted.completed.is_empty();
        self.adoption.completed = adopted.completed;
        self.writer = Some(Writer { dir: adopted.dir, scatter: Scatter::default() });
    }

    fn retry_adoption(&mut self, err: &Arc<SpoolError>) {
        tracing::error!(journal = %self.place.head.journal, error = %err, "failed to adopt spools (will retry)");
        let failed = || AppendError::Write(Arc::clone(err));
        self.queue.drain(..).for_each(|job| job.answer(Outcome::Failed(failed())));
        let replies = self.wish.take().into_iter().flat_map(|wish| wish.replies);
        replies.for_each(|reply| drop(reply.send(Err(failed()))));
        self.follows.clear();
        if self.is_leaving() {
            return;
        }
        let (clock, wait, place) =
            (self.deps.clock.clone(), self.adoption.backoff.next(), self.place.clone());
        let tasks = self.deps.tasks.clone();
        let retry = async move {
            clock.sleep(wait).await;
            tasks.spawn_blocking("adopt spools", || SpoolDir::adopt(place)).await
        };
        self.work = Some(retry.map(Worked::Adopted).boxed());
    }

    /// Whether what was found is known to be current. If not, etcd is asked.
    pub(super) fn has_adopted(&mut self) -> bool {
        if !self.adoption.is_over && self.adoption.asking.is_none() {
            let marks = Arc::clone(&self.deps.marks);
            let (journal, create_revision) =
                (self.place.head.journal.clone(), Revision(self.place.head.create_revision));
            self.adoption.asking = Some(async move { marks.last(&journal, create_revision).await }.boxed());
        }
        self.adoption.is_over
    }

    pub(super) fn on_mark(&mut self, mark: Mark) {
        let mark = match mark {
            // Beyond every spool.
            Ok(mark) => mark.unwrap_or(Revision(i64::MAX)),
            Err(error) => {
                let error: Arc<str> = format!("reading the journal's synchronisation mark: {error}").into();
                tracing::warn!(journal = %self.place.head.journal, %error, "cannot adopt spools yet");
                let replies = self.wish.take().into_iter().flat_map(|wish| wish.replies);
                replies.for_each(|reply| drop(reply.send(Err(AppendError::Unknowable(Arc::clone(&error))))));
                self.follows.clear();
                return;
            }
        };
        let completed = std::mem::take(&mut self.adoption.completed);
        let writer = self.writer.take().expect("nothing else happens before");
        if writer.dir.synced_at() >= mark {
            (self.adoption.is_over, self.adoption.is_current) = (true, true);
            // The mark will do until the route changes. That of a later attempt was not written.
            if writer.dir.synced_at() == mark {
                self.marked.store(i64::MAX, Ordering::Relaxed);
            }
            for spool in completed {
                self.hold(spool.completed.fragment.end, Some(spool), None);
            }
            let written = writer.dir.written();
            self.hold(written.fragment.end, None, Some(written));
            self.writer = Some(writer);
            return;
        }
        self.latest_file = None;
        let set_aside = move || {
            let dir = writer.dir.set_aside(&completed, mark)?;
            Ok(Adopted { dir, completed: Vec::new() })
        };
        let fresh = self.deps.tasks.spawn_blocking("set spools aside", set_aside);
        self.work = Some(fresh.map(Worked::Adopted).boxed());
    }
}
