//! The blocking part of a replica's work: a group's way into the pipeline and the spool's file.
//!
//! The cumulative SHA-1 of the fragment is taken here, on the thread that writes; the sum of each append is taken by its
//! handler at the same time. Two passes over the bytes are what the protocol asks for; on two threads, one append of a
//! megabyte does not wait for both.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fragment::Fragment;
use proto::Revision;
use proto::protocol::LabelSet;
use runtime::trace;
use tracing::Span;

use crate::append::Content;
use crate::pipeline::Scatter;
use crate::spool::{CompletedSpool, SpoolDir, SpoolError, Written};

/// The spool and the sending half of the pipeline, which see the same messages.
pub(super) struct Writer {
    pub(super) dir: SpoolDir,
    pub(super) scatter: Scatter,
}

/// A group to be written.
pub(super) struct GroupWork {
    /// An empty fragment to roll to first.
    pub(super) roll: Option<Fragment>,
    /// The content of its appends, in order.
    pub(super) contents: Vec<Arc<Content>>,
    /// Bytes of all contents.
    pub(super) bytes: i64,
    /// The registers after it.
    pub(super) registers: Arc<LabelSet>,
    /// The present, since the Unix epoch.
    pub(super) now: Duration,
    /// Of its commit.
    pub(super) span: Span,
}

/// What became of a group.
pub(super) struct GroupResult {
    /// The fragment that its roll completed, whether or not the rest succeeded.
    pub(super) completed: Option<CompletedSpool>,
    /// The spool after it.
    pub(super) written: Written,
    /// Bytes of its content.
    pub(super) bytes: u64,
    /// Whether its content is committed. If not, nothing of it is there.
    pub(super) outcome: Result<(), SpoolError>,
}

impl GroupWork {
    /// Whether writing it needs no file to be made and no other one to be read.
    pub(super) fn is_plain(&self) -> bool {
        self.roll.is_none() && self.contents.iter().all(|content| content.in_memory().is_some())
    }
}

impl Writer {
    /// Writes a group, and proposes it to the peers. Blocks.
    pub(super) fn write(&mut self, work: &GroupWork) -> GroupResult {
        let (completed, rolled) = match self.roll(work) {
            Ok(completed) => (completed, Ok(())),
            Err(err) => (None, Err(err)),
        };
        let outcome = rolled.and_then(|()| self.write_content(work)).and_then(|()| self.commit(work));
        if outcome.is_err() {
            self.dir.undo();
        }
        let written = self.dir.written();
        // After a failure this is what was committed before, and rolls the peers back.
        let first_append = self.dir.spool().first_append();
        let context = trace::context_of(&work.span);
        let proposal = written.fragment.to_proto();
        self.scatter.propose(&proposal, &written.registers, first_append, true, context);
        let bytes = u64::try_from(work.bytes).expect("a length");
        GroupResult { completed, written, bytes, outcome }
    }

    /// Proposes `proposal` to the peers of the route of `revision`, and rolls the spool there if it is empty. Blocks.
    pub(super) fn synchronise(
        &mut self,
        proposal: &Fragment,
        registers: &LabelSet,
        revision: Revision,
        now: Duration,
    ) -> Result<Option<CompletedSpool>, SpoolError> {
        let completed = match proposal.is_empty() {
            true => self.dir.roll(proposal, registers, now)?,
            false => None,
        };
        // Before anybody can agree: whoever finds this spool must not take it for one that was left behind.
        self.dir.mark_synced(revision)?;
        self.scatter.propose(&proposal.to_proto(), registers, self.dir.spool().first_append(), true, None);
        Ok(completed)
    }

    fn roll(&mut self, work: &GroupWork) -> Result<Option<CompletedSpool>, SpoolError> {
        let Some(proposal) = &work.roll else { return Ok(None) };
        let registers = self.dir.spool().registers().clone();
        let completed = self.dir.roll(proposal, &registers, work.now)?;
        self.scatter.propose(&proposal.to_proto(), &registers, None, false, None);
        Ok(completed)
    }

    fn write_content(&mut self, work: &GroupWork) -> Result<(), SpoolError> {
        // Everything that is in memory goes out in one system call.
        let mut blocks: Vec<Bytes> = Vec::new();
        for content in &work.contents {
            match content.in_memory() {
                Some(chunks) => blocks.extend_from_slice(chunks),
                None => {
                    self.write_blocks(&std::mem::take(&mut blocks))?;
                    content.for_each(|block| self.write_blocks(&[block]))?;
                }
            }
        }
        self.write_blocks(&blocks)
    }

    fn write_blocks(&mut self, blocks: &[Bytes]) -> Result<(), SpoolError> {
        if blocks.is_empty() {
            return Ok(());
        }
        self.scatter.content(blocks, self.dir.spool().uncommitted());
        self.dir.write(blocks)
    }

    fn commit(&mut self, work: &GroupWork) -> Result<(), SpoolError> {
        assert_eq!(self.dir.spool().uncommitted(), work.bytes, "all of the group's content was written");
        self.dir.commit(&work.registers, work.now)
    }
}
