//! The state machine of a recovery log: which files exist, under which paths, and where their operations are (consumer
//! protocol §4.4).
//!
//! Operations apply in one order only: each names its sequence number and the checksum of all before it. Hints let the
//! machine skip what no longer matters. Hinted segments say which author's operations come next, so that branches which
//! lost are ignored; hinted files say which of the created ones are still alive at the end of the segments. The machine
//! does no I/O: players re-enact what it accepts, recorders write what it was asked to accept.

use crate::hints::{self, HintsError};
use crate::op::{self, Action, Fnode, Op};
use crate::segment::Segment;
use proto::JournalName;
use proto::recoverylog::{FnodeSegments, FsmHints, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Why an operation was not applied. All but [`ApplyError::NotTracked`] leave the machine as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Another author's operation comes next, say the hints.
    #[error("op author does not match the next hinted author")]
    NotHintedAuthor,
    /// Another sequence number comes next.
    #[error("wrong sequence number")]
    WrongSeqNo,
    /// The operation is of another history.
    #[error("checksum mismatch")]
    ChecksumMismatch,
    /// Hints say that a file was created here.
    #[error("op is not create, and an Fnode was hinted")]
    ExpectedHintedFnode,
    /// The path is that of a file.
    #[error("link exists")]
    LinkExists,
    /// The path is that of a property.
    #[error("property exists")]
    PropertyExists,
    /// The file does not have this path.
    #[error("fnode has no such link")]
    NoSuchLink,
    /// The operation is of this history, and the machine has moved on, but its file is known to be gone later.
    #[error("fnode not tracked")]
    NotTracked,
}

/// Where in which log an operation is.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The log.
    pub log: &'a JournalName,
    /// Offset at or before which the operation begins, in bytes.
    pub first_offset: i64,
    /// Offset at or after which the operation and its written bytes end; zero is unknown.
    pub last_offset: i64,
}

/// A live file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    links: BTreeSet<String>,
    /// At most one for each run of an author in a log.
    segments: Vec<Segment>,
}

/// The state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fsm {
    next_seq_no: i64,
    next_checksum: u32,
    last_log: JournalName,
    properties: BTreeMap<String, String>,
    live_nodes: BTreeMap<Fnode, Node>,
    links: BTreeMap<String, Fnode>,
    hinted_segments: VecDeque<Segment>,
    hinted_fnodes: VecDeque<Fnode>,
}

impl Fsm {
    /// A machine which is prepared to apply what `hints` say. Hints which name a log alone give an empty directory.
    pub fn new(hints: &FsmHints) -> Result<Fsm, HintsError> {
        let live = hints::live_log_segments(hints)?;
        let hinted_segments = VecDeque::from(live.set.into_segments());
        let (next_seq_no, next_checksum) = hinted_segments.front().map_or((1, 0), starts_at);
        Ok(Fsm {
            next_seq_no,
            next_checksum,
            last_log: live.log,
            properties: hints.properties.iter().map(|p| (p.path.clone(), p.content.clone())).collect(),
            live_nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            hinted_segments,
            hinted_fnodes: live.fnodes.into(),
        })
    }

    /// Applies `op`, whose frame has this payload. [`ApplyError::NotTracked`] is a transition as success is.
    pub fn apply(&mut self, op: &Op, payload: &[u8], span: Span<'_>) -> Result<(), ApplyError> {
        if self.hinted_segments.front().is_some_and(|hinted| hinted.author != op.author) {
            return Err(ApplyError::NotHintedAuthor);
        }
        if op.seq_no != self.next_seq_no {
            return Err(ApplyError::WrongSeqNo);
        }
        if op.checksum != self.next_checksum {
            return Err(ApplyError::ChecksumMismatch);
        }
        let outcome = self.act(op, span);
        if outcome.is_ok() || outcome == Err(ApplyError::NotTracked) {
            self.step(payload, span);
        }
        outcome
    }

    fn act(&mut self, op: &Op, span: Span<'_>) -> Result<(), ApplyError> {
        if let Action::Create { path } = &op.action {
            return self.create(op, path, span);
        }
        if self.hinted_fnodes.front() == Some(&Fnode(op.seq_no)) {
            return Err(ApplyError::ExpectedHintedFnode);
        }
        match &op.action {
            Action::Create { .. } | Action::Nothing => Ok(()),
            Action::Link { fnode, path } => self.link(op, *fnode, path, span),
            Action::Unlink { fnode, path } => self.unlink(op, *fnode, path, span),
            Action::Write { fnode, .. } => self.tracked(*fnode).map(|node| node.extend(op, span)),
            Action::Property { path, content } => {
                self.ensure_no_link(path)?;
                self.properties.insert(path.clone(), content.clone());
                Ok(())
            }
        }
    }

    fn create(&mut self, op: &Op, path: &str, span: Span<'_>) -> Result<(), ApplyError> {
        self.ensure_unused(path)?;
        let fnode = Fnode(op.seq_no);
        match self.hinted_fnodes.front() {
            Some(hinted) if *hinted == fnode => {
                self.hinted_fnodes.pop_front();
            }
            Some(_) => return Err(ApplyError::NotTracked),
            // Hints name all files which live at the end of their segments: within those, others are gone later. To
            // follow such a file could miss its removal, which may be between two segments.
            None if !self.hinted_segments.is_empty() => return Err(ApplyError::NotTracked),
            None => {}
        }
        let mut node = Node { links: BTreeSet::from([path.to_owned()]), segments: Vec::new() };
        node.extend(op, span);
        self.live_nodes.insert(fnode, node);
        self.links.insert(path.to_owned(), fnode);
        Ok(())
    }

    fn link(&mut self, op: &Op, fnode: Fnode, path: &str, span: Span<'_>) -> Result<(), ApplyError> {
        self.ensure_unused(path)?;
        let node = self.tracked(fnode)?;
        node.links.insert(path.to_owned());
        node.extend(op, span);
        self.links.insert(path.to_owned(), fnode);
        Ok(())
    }

    fn unlink(&mut self, op: &Op, fnode: Fnode, path: &str, span: Span<'_>) -> Result<(), ApplyError> {
        let node = self.tracked(fnode)?;
        if !node.links.remove(path) {
            return Err(ApplyError::NoSuchLink);
        }
        node.extend(op, span);
        if node.links.is_empty() {
            self.live_nodes.remove(&fnode);
        }
        self.links.remove(path);
        Ok(())
    }

    fn tracked(&mut self, fnode: Fnode) -> Result<&mut Node, ApplyError> {
        self.live_nodes.get_mut(&fnode).ok_or(ApplyError::NotTracked)
    }

    fn ensure_unused(&self, path: &str) -> Result<(), ApplyError> {
        self.ensure_no_link(path)?;
        if self.properties.contains_key(path) { Err(ApplyError::PropertyExists) } else { Ok(()) }
    }

    fn ensure_no_link(&self, path: &str) -> Result<(), ApplyError> {
        if self.links.contains_key(path) { Err(ApplyError::LinkExists) } else { Ok(()) }
    }

    /// Moves past an operation, and on to the next hinted segment at the end of one.
    fn step(&mut self, payload: &[u8], span: Span<'_>) {
        self.next_checksum = op::chain(self.next_checksum, payload);
        self.next_seq_no = self.next_seq_no.saturating_add(1);
        if self.last_log != *span.log {
            self.last_log = span.log.clone();
        }
        if self.hinted_segments.front().is_some_and(|hinted| hinted.last_seq_no < self.next_seq_no) {
            self.hinted_segments.pop_front();
            if let Some(hinted) = self.hinted_segments.front() {
                (self.next_seq_no, self.next_checksum) = starts_at(hinted);
            }
        }
    }

    /// Hints by which another machine rebuilds the state of this one. `log` is where operations go from now on.
    pub fn build_hints(&self, log: &JournalName) -> FsmHints {
        let live_nodes = self.live_nodes.iter().map(|(fnode, node)| FnodeSegments {
            fnode: fnode.0,
            segments: node.segments.iter().map(|s| s.to_proto(log)).collect(),
        });
        let properties = self
            .properties
            .iter()
            .map(|(path, content)| Property { path: path.clone(), content: content.clone() });
        FsmHints {
            log: String::from(log),
            live_nodes: live_nodes.collect(),
            properties: properties.collect(),
        }
    }

    /// Sequence number of the next operation.
    pub fn next_seq_no(&self) -> i64 {
        self.next_seq_no
    }

    /// Checksum of all operations so far.
    pub fn next_checksum(&self) -> u32 {
        self.next_checksum
    }

    /// Log of the last applied operation, or of the hints.
    pub fn last_log(&self) -> &JournalName {
        &self.last_log
    }

    /// Paths of live files.
    pub fn links(&self) -> &BTreeMap<String, Fnode> {
        &self.links
    }

    /// Small files which are kept as values, by path.
    pub fn properties(&self) -> &BTreeMap<String, String> {
        &self.properties
    }

    /// The live files in the order of their creation.
    pub fn live_nodes(&self) -> impl Iterator<Item = Fnode> + '_ {
        self.live_nodes.keys().copied()
    }

    /// Whether a file is live.
    pub fn is_live(&self, fnode: Fnode) -> bool {
        self.live_nodes.contains_key(&fnode)
    }

    /// Segments which are yet to be read, in order.
    pub fn hinted_segments(&self) -> impl Iterator<Item = &Segment> {
        self.hinted_segments.iter()
    }

    /// Whether there are operations which the hints speak of and which were not applied.
    pub fn has_unused_hints(&self) -> bool {
        !self.hinted_segments.is_empty() || !self.hinted_fnodes.is_empty()
    }

    /// The log of the newest operation of a live file; none without live files.
    pub(crate) fn newest_live_log(&self) -> Option<&JournalName> {
        let last = self.live_nodes.values().filter_map(|node| node.segments.last());
        last.max_by_key(|segment| segment.last_seq_no).map(|segment| &segment.log)
    }

    /// Learns where a file's operations end, if the last one is not after `through_seq_no`. Says whether it was learned.
    pub(crate) fn settle(&mut self, fnode: Fnode, through_seq_no: i64, end: i64) -> bool {
        let Some(segment) = self.live_nodes.get_mut(&fnode).and_then(|node| node.segments.last_mut()) else {
            return true; // The file is gone, and nothing remains to be learned.
        };
        let covered = segment.last_seq_no <= through_seq_no;
        if covered && end > segment.first_offset {
            segment.last_offset = end;
        }
        covered
    }
}

impl Node {
    fn extend(&mut self, op: &Op, span: Span<'_>) {
        if let Some(last) = self.segments.last_mut().filter(|s| s.author == op.author && s.log == *span.log) {
            (last.last_seq_no, last.last_offset) = (op.seq_no, span.last_offset);
            return;
        }
        self.segments.push(Segment {
            author: op.author,
            first_seq_no: op.seq_no,
            first_offset: span.first_offset,
            first_checksum: op.checksum,
            last_seq_no: op.seq_no,
            last_offset: span.last_offset,
            log: span.log.clone(),
        });
    }
}

fn starts_at(segment: &Segment) -> (i64, u32) {
    (segment.first_seq_no, segment.first_checksum)
}

#[cfg(test)]
mod tests;
