//! Playback: from the bytes of logs to the file operations which rebuild a directory (consumer protocol §4.9).
//!
//! This is the decision half of a player; it reads and writes nothing. The driver asks for the [`Step`] to take, takes
//! it, and reports back: the bytes of a log, that its head was reached, that a hand-off was appended. Bytes become
//! [`FileOp`]s. Hints let it skip what no longer matters; past the last hinted segment it follows the log to its head.
//!
//! Playback must never present an older state than was acknowledged. A log may hold operations which do not apply and
//! mean nothing: repeated appends, branches of recorders which lost a race, bytes of no operation at all. So an operation
//! which does not apply is an error where it shows that one before it is missing: if it is of the author whose
//! operations are being followed, which writes them one after the other; or if bytes were skipped since the last one that
//! applied. That hints remain at the head is an error, too.

use crate::Author;
use crate::fsm::{ApplyError, Fsm, Span};
use crate::op::{Action, FRAME_BYTES_MAX, Fnode, Op};
use crate::path;
use crate::play_error::{BrokenChain, Doubt, PlayError};
use crate::step::{FileOp, Step};
use crate::tally::Tally;
use bytes::{Buf, Bytes, BytesMut};
use message::{Split, fixed};
use proto::JournalName;
use std::collections::{BTreeMap, BTreeSet};

/// Most hand-offs which are appended to win one: each lost one has fenced all older recorders, so few are needed.
const HANDOFFS_MAX: u32 = 100;

/// When to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Not yet: follow the log.
    Tail,
    /// At the head.
    Finish,
    /// Having taken over the log from the head on.
    Inject(Author),
    /// The hand-off is to be appended.
    AtHead(Author),
    /// The hand-off ends there, and must be read back.
    ReadBack { author: Author, end: i64 },
    /// Done.
    Complete,
}

/// A write of which bytes are yet to come.
#[derive(Clone, Copy, Debug)]
struct Writing {
    /// The file, if the write applied.
    fnode: Option<Fnode>,
    offset: u64,
    remaining: u64,
}

/// The state of a playback.
#[derive(Debug)]
pub struct Playback {
    fsm: Fsm,
    /// The log of the hints, which goes on beyond them.
    log: JournalName,
    /// Known write heads of the logs.
    heads: BTreeMap<JournalName, i64>,
    /// The log which is read.
    reading: JournalName,
    /// Where in that log the next undecoded byte is.
    offset: i64,
    /// Bytes from `offset` on which do not make a whole frame.
    pending: BytesMut,
    /// How many bytes the frame has of which `pending` is the beginning, where known.
    needed: usize,
    writing: Option<Writing>,
    goal: Goal,
    handoffs: u32,
    /// Who wrote the last operation which applied.
    last_author: Option<Author>,
    /// Who said that nothing more of them follows: an author takes over by an operation of nothing, and so ends.
    concluded: Option<Author>,
    /// Bytes which were skipped since the last operation which applied.
    doubt: Option<Doubt>,
    tailing: bool,
    read: Tally,
    /// What had been read when the request to complete came.
    read_before_request: Tally,
}

impl Playback {
    /// A playback of what `fsm`, as made of hints, is prepared to apply.
    pub fn new(fsm: Fsm) -> Playback {
        let log = fsm.last_log().clone();
        let doubt = if fsm.has_unused_hints() { None } else { Some(Doubt::Beginning) };
        Playback {
            reading: log.clone(),
            log,
            fsm,
            heads: BTreeMap::new(),
            offset: 0,
            pending: BytesMut::new(),
            needed: 0,
            writing: None,
            goal: Goal::Tail,
            handoffs: 0,
            last_author: None,
            concluded: None,
            doubt,
            tailing: false,
            read: Tally::default(),
            read_before_request: Tally::default(),
        }
    }

    /// The logs whose write heads must be known to begin.
    pub fn logs(&self) -> BTreeSet<JournalName> {
        self.fsm.hinted_segments().map(|s| &s.log).chain([&self.log]).cloned().collect()
    }

    /// Begins, given the write heads of [`Playback::logs`]. Fails if a log ends before the hints say that it does.
    pub fn on_heads(&mut self, heads: BTreeMap<JournalName, i64>) -> Result<(), PlayError> {
        self.heads = heads;
        for segment in self.fsm.hinted_segments() {
            let head = self.head_of(&segment.log);
            if segment.first_offset >= head || segment.last_offset > head {
                return Err(PlayError::ShortLog { segment: Box::new(segment.clone()), head });
            }
        }
        Ok(())
    }

    /// Asks to complete at the head of the log as it is then.
    pub fn finish_at_write_head(&mut self) {
        self.complete_with(Goal::Finish);
    }

    /// Asks to complete by handing the log over to `author`, which fences every older recorder.
    pub fn inject_handoff(&mut self, author: Author) {
        self.complete_with(Goal::Inject(author));
    }

    /// The first request counts.
    fn complete_with(&mut self, goal: Goal) {
        if self.goal == Goal::Tail {
            self.goal = goal;
            self.read_before_request = self.read;
        }
    }

    /// Whether the head of the log was reached.
    pub fn is_tailing(&self) -> bool {
        self.tailing
    }

    /// Whether the author of the log has said that nothing more of them follows: see [`crate::Recorder::conclude`].
    pub fn is_concluded(&self) -> bool {
        self.concluded.is_some() && self.concluded == self.last_author
    }

    /// What was read, in all and since the request to complete.
    pub fn tally(&self) -> (Tally, Tally) {
        (self.read, self.read.since(self.read_before_request))
    }

    /// Where the playback is: the log, the offset up to which it was read, and the log's known write head.
    pub fn position(&self) -> (&JournalName, i64, i64) {
        (&self.reading, self.read_offset(), self.head_of(&self.reading))
    }

    /// The state machine of a completed playback.
    pub fn into_fsm(self) -> Fsm {
        self.fsm
    }

    /// The state machine as of now.
    pub fn fsm(&self) -> &Fsm {
        &self.fsm
    }

    /// What to do next.
    pub fn next_step(&mut self) -> Result<Step, PlayError> {
        self.seek_to_hint(&mut Bytes::new());
        let (offset, head) = (self.read_offset(), self.head_of(&self.reading));
        if let Some(segment) = self.fsm.hinted_segments().next() {
            if offset >= head {
                let (log, segment) = (self.reading.clone(), Box::new(segment.clone()));
                return Err(PlayError::UnusedHints {
                    log,
                    offset,
                    next_seq_no: self.fsm.next_seq_no(),
                    segment,
                });
            }
            return Ok(self.read(true));
        }
        match self.goal {
            Goal::Complete => Ok(Step::Complete),
            Goal::Tail => {
                self.tailing |= offset >= head;
                Ok(self.read(true))
            }
            Goal::Finish | Goal::Inject(_) => Ok(self.read(offset < head)),
            Goal::AtHead(author) => {
                let op = Op {
                    seq_no: self.fsm.next_seq_no(),
                    checksum: self.fsm.next_checksum(),
                    author,
                    action: Action::Nothing,
                };
                let mut frame = Vec::new();
                op.encode(&mut frame);
                Ok(Step::Inject { log: self.log.clone(), author, frame: frame.into() })
            }
            Goal::ReadBack { end, .. } if offset < end => Ok(self.read(true)),
            Goal::ReadBack { author, end } => {
                Err(PlayError::LostHandoff { log: self.log.clone(), author, end })
            }
        }
    }

    fn read(&self, blocking: bool) -> Step {
        Step::Read { log: self.reading.clone(), offset: self.read_offset(), blocking }
    }

    /// Takes bytes which begin at `offset` of the log that is read.
    pub fn on_chunk(&mut self, offset: i64, bytes: Bytes) -> Result<Vec<FileOp>, PlayError> {
        if offset != self.read_offset() {
            self.on_gap(offset)?;
        }
        let mut input = bytes;
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(&input);
            if self.pending.len() < self.needed {
                return Ok(Vec::new());
            }
            input = std::mem::take(&mut self.pending).freeze();
        }
        let mut file_ops = Vec::new();
        while self.goal != Goal::Complete && self.decode(&mut input, &mut file_ops)? {}
        self.pending = BytesMut::from(&input[..]);
        Ok(file_ops)
    }

    /// Notes that the log has nothing before `to`, as where fragments were deleted. Fails if something needed was there.
    pub fn on_gap(&mut self, to: i64) -> Result<(), PlayError> {
        let from = self.read_offset();
        let log = self.reading.clone();
        if to < from || self.writing.is_some() || !self.pending.is_empty() {
            return Err(PlayError::TornByJump { log, from, to });
        }
        if let Some(segment) = self.fsm.hinted_segments().next()
            && segment.last_offset != 0
            && segment.last_offset <= to
        {
            return Err(PlayError::JumpOverHints { from, to, segment: Box::new(segment.clone()) });
        }
        tracing::warn!(%log, from, to, "recovery log has a gap");
        self.offset = to;
        self.doubt = Some(Doubt::Gap { from, to });
        Ok(())
    }

    /// Notes that a read which does not block found no bytes, and that the log ends at `write_head`.
    pub fn on_head(&mut self, write_head: i64) -> Result<(), PlayError> {
        if write_head > self.read_offset() {
            self.heads.insert(self.reading.clone(), write_head); // It grew meanwhile.
            return Ok(());
        }
        if self.writing.is_some() || self.pending.starts_with(&fixed::MAGIC) {
            return Err(PlayError::TornOp {
                log: self.reading.clone(),
                offset: self.offset,
                head: self.read_offset(),
            });
        }
        if !self.pending.is_empty() {
            self.skip(self.pending.len());
            self.pending.clear();
        }
        self.tailing = true;
        self.goal = match self.goal {
            Goal::Finish => Goal::Complete,
            Goal::Inject(_) if self.handoffs == HANDOFFS_MAX => {
                return Err(PlayError::ContendedHandoff { log: self.log.clone(), handoffs: self.handoffs });
            }
            Goal::Inject(author) => Goal::AtHead(author),
            other => other,
        };
        Ok(())
    }

    /// Notes that the hand-off of [`Step::Inject`] was appended and ends at `end`.
    pub fn on_injected(&mut self, end: i64) {
        if let Goal::AtHead(author) = self.goal {
            self.handoffs += 1;
            self.goal = Goal::ReadBack { author, end };
            self.heads.insert(self.log.clone(), end);
        }
    }

    fn read_offset(&self) -> i64 {
        self.offset.saturating_add_unsigned(self.pending.len() as u64)
    }

    fn head_of(&self, log: &JournalName) -> i64 {
        self.heads.get(log).copied().unwrap_or(0)
    }

    /// Moves on to the next hinted segment, if it is elsewhere, dropping undecoded bytes before it. Says whether `input`
    /// still holds what comes next.
    fn seek_to_hint(&mut self, input: &mut Bytes) -> bool {
        let Some(segment) = self.fsm.hinted_segments().next() else { return true };
        if self.writing.is_some() || (segment.log == self.reading && self.offset >= segment.first_offset) {
            return true;
        }
        let ahead = usize::try_from(segment.first_offset.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let (log, offset) = (segment.log.clone(), segment.first_offset);
        let within = log == self.reading && ahead <= input.len();
        if within {
            input.advance(ahead);
        } else {
            input.clear();
            self.pending.clear();
        }
        (self.reading, self.offset) = (log, offset);
        within
    }

    /// Passes over bytes which are no operation.
    fn skip(&mut self, bytes: usize) {
        tracing::warn!(log = %self.reading, offset = self.offset, bytes, "recovery log has bytes of no operation");
        self.doubt = Some(Doubt::Desync { offset: self.offset });
        self.offset = self.offset.saturating_add_unsigned(bytes as u64);
    }

    /// Decodes one operation, or one piece of a write. Says whether `input` may hold more.
    fn decode(&mut self, input: &mut Bytes, file_ops: &mut Vec<FileOp>) -> Result<bool, PlayError> {
        if !self.seek_to_hint(input) || input.is_empty() {
            return Ok(false);
        }
        if let Some(writing) = self.writing.take() {
            self.take_written(writing, input, file_ops);
            return Ok(true);
        }
        match fixed::split(input, false) {
            Split::Desync { skip } => {
                self.skip(skip);
                input.advance(skip);
                Ok(true)
            }
            Split::Frame { consumed, payload } => {
                let frame = input.split_to(consumed);
                self.play(&frame[payload], consumed, file_ops)?;
                Ok(true)
            }
            // At the end of input too, a frame is only known to be incomplete once the head is reached.
            Split::NeedMore | Split::End | Split::Truncated => {
                self.needed = frame_len(input);
                if self.needed > FRAME_BYTES_MAX {
                    return Err(self.bad_op(format!(
                        "a frame of {} bytes (expected <= {FRAME_BYTES_MAX})",
                        self.needed
                    )));
                }
                Ok(false)
            }
        }
    }

    /// Takes bytes of a write from the front of `input`.
    fn take_written(&mut self, mut writing: Writing, input: &mut Bytes, file_ops: &mut Vec<FileOp>) {
        let taken = usize::try_from(writing.remaining).unwrap_or(usize::MAX).min(input.len());
        let data = input.split_to(taken);
        let taken = taken as u64;
        if let Some(fnode) = writing.fnode {
            file_ops.push(FileOp::Write { fnode, offset: writing.offset, data });
        }
        writing.offset += taken;
        writing.remaining -= taken;
        self.offset = self.offset.saturating_add_unsigned(taken);
        self.writing = Some(writing).filter(|w| w.remaining != 0);
    }

    /// Plays the operation of a frame of `frame_len` bytes which begins at the present offset.
    fn play(
        &mut self,
        payload: &[u8],
        frame_len: usize,
        file_ops: &mut Vec<FileOp>,
    ) -> Result<(), PlayError> {
        let op = Op::decode(payload).map_err(|e| self.bad_op(e.to_string()))?;
        let written = op.bytes_after_frame();
        let first_offset = self.offset;
        let end = first_offset.saturating_add_unsigned(frame_len as u64);
        let log = self.reading.clone();
        let span = Span { log: &log, first_offset, last_offset: end.saturating_add_unsigned(written) };
        self.read.add(frame_len as u64 + written);

        let applied = match self.fsm.apply(&op, payload, span) {
            Ok(()) => {
                self.check_path(&op)?;
                true
            }
            Err(ApplyError::NotTracked) => false,
            Err(error) => return self.refuse(&op, error, end),
        };
        self.offset = end;
        if op.action == Action::Nothing && self.last_author == Some(op.author) {
            self.concluded = Some(op.author);
        }
        (self.last_author, self.doubt) = (Some(op.author), None);
        if applied {
            self.re_enact(&op, file_ops);
        }
        self.expect_written(&op, applied);
        if let Goal::ReadBack { author, .. } = self.goal
            && author == op.author
        {
            self.goal = Goal::Complete;
        }
        Ok(())
    }

    /// Passes over an operation which did not apply, unless that shows that another one is missing.
    fn refuse(&mut self, op: &Op, error: ApplyError, end: i64) -> Result<(), PlayError> {
        let followed = self.fsm.hinted_segments().next().map(|s| s.author).or(self.last_author);
        let broken = match error {
            ApplyError::NotHintedAuthor => false,
            ApplyError::WrongSeqNo if op.seq_no < self.fsm.next_seq_no() => false,
            ApplyError::WrongSeqNo | ApplyError::ChecksumMismatch => {
                followed == Some(op.author) || self.doubt.is_some()
            }
            // The operation is of this very history, but the state to which the hints led contradicts it.
            _ => true,
        };
        if broken {
            return Err(PlayError::BrokenChain(Box::new(BrokenChain {
                log: self.reading.clone(),
                offset: self.offset,
                seq_no: op.seq_no,
                author: op.author,
                expected_seq_no: self.fsm.next_seq_no(),
                error,
                doubt: self.doubt,
            })));
        }
        tracing::debug!(log = %self.reading, offset = self.offset, seq_no = op.seq_no, author = %op.author, %error, "operation of another branch");
        self.offset = end;
        self.expect_written(op, false);
        if let Goal::ReadBack { author, .. } = self.goal
            && author == op.author
        {
            self.goal = Goal::Inject(author); // Another recorder or player was faster, and is fenced now.
        }
        Ok(())
    }

    fn re_enact(&self, op: &Op, file_ops: &mut Vec<FileOp>) {
        match &op.action {
            Action::Create { .. } => file_ops.push(FileOp::Create(Fnode(op.seq_no))),
            Action::Unlink { fnode, .. } if !self.fsm.is_live(*fnode) => {
                file_ops.push(FileOp::Remove(*fnode))
            }
            // Links and properties take effect at completion, written bytes as they come.
            _ => {}
        }
    }

    fn expect_written(&mut self, op: &Op, applied: bool) {
        if let Action::Write { fnode, offset, length } = op.action
            && length > 0
        {
            let (offset, remaining) = (offset.unsigned_abs(), length.unsigned_abs());
            self.writing = Some(Writing { fnode: applied.then_some(fnode), offset, remaining });
        }
    }

    fn check_path(&self, op: &Op) -> Result<(), PlayError> {
        match &op.action {
            Action::Create { path }
            | Action::Link { path, .. }
            | Action::Unlink { path, .. }
            | Action::Property { path, .. } => path::check(path).map_err(|e| self.bad_op(e.to_string())),
            Action::Nothing | Action::Write { .. } => Ok(()),
        }
    }

    fn bad_op(&self, cause: String) -> PlayError {
        PlayError::BadOp { log: self.reading.clone(), offset: self.offset, cause }
    }
}

/// How many bytes the frame has which begins with `input`, as far as its header is there.
fn frame_len(input: &[u8]) -> usize {
    match input.first_chunk::<{ fixed::HEADER_LEN }>() {
        Some([_, _, _, _, length @ ..]) => {
            (u32::from_le_bytes(*length) as usize).saturating_add(fixed::HEADER_LEN)
        }
        None => fixed::HEADER_LEN,
    }
}

#[cfg(test)]
mod tests;
