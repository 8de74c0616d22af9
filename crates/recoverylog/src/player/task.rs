//! The task of a player: takes the steps of a playback.

use super::{Outcome, Played, Progress, Request};
use crate::play_error::PlayError;
use crate::playback::Playback;
use crate::staging::{Staging, remove_all};
use crate::step::{FileOp, Step};
use bytes::Bytes;
use client::{JournalClient, ReadError, RetryReader};
use proto::JournalName;
use proto::protocol::{AppendRequest, ReadRequest};
use runtime::TaskGroup;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

/// What the task works with.
pub(super) struct Task {
    pub(super) client: JournalClient,
    pub(super) tasks: TaskGroup,
    pub(super) requests: watch::Receiver<Option<Request>>,
    pub(super) progress: watch::Sender<Option<Progress>>,
}

/// What a wait for the next bytes ended with.
enum Event {
    Chunk(i64, Bytes),
    /// The log has nothing before this offset.
    Gap(i64),
    /// The log ends, at this offset.
    Head(i64),
    /// There is a request, or another reason to read anew.
    Again,
}

/// A read which goes on at `offset` of `log`.
struct OpenRead {
    reader: RetryReader,
    log: JournalName,
    offset: i64,
    blocking: bool,
}

impl Task {
    pub(super) async fn run(mut self, playback: Playback, dir: PathBuf) -> Outcome {
        let staging = {
            let dir = dir.clone();
            self.blocking(move || Staging::prepare(&dir)).await?
        };
        let outcome = self.play(playback, staging, &dir).await;
        if outcome.is_err() {
            self.blocking(move || remove_all(&dir)).await?;
        }
        outcome
    }

    async fn play(&mut self, mut playback: Playback, mut staging: Staging, dir: &Path) -> Outcome {
        playback.on_heads(self.learn_heads(&playback).await?)?;
        let mut open: Option<OpenRead> = None;
        loop {
            match *self.requests.borrow_and_update() {
                Some(Request::Finish) => playback.finish_at_write_head(),
                Some(Request::HandOff(author)) => playback.inject_handoff(author),
                None => {}
            }
            let step = playback.next_step()?;
            self.report(&playback);
            match step {
                Step::Complete => return self.complete(playback, staging, dir).await,
                Step::Inject { log, author, frame } => {
                    let fence = Some(author.take_fence());
                    let request = AppendRequest { union_registers: fence, ..plain(&log) };
                    playback.on_injected(self.append("taking over", &log, request, frame).await?);
                }
                Step::Read { log, offset, blocking } => {
                    let read = self.open_read(open.take(), log, offset, blocking);
                    match self.next_event(open.insert(read)).await? {
                        // The read is dropped: the answer to a request may need another one.
                        Event::Again => open = None,
                        Event::Head(head) => playback.on_head(head)?,
                        Event::Gap(to) => playback.on_gap(to)?,
                        Event::Chunk(at, bytes) => {
                            let file_ops = playback.on_chunk(at, bytes)?;
                            staging = self.re_enact(staging, file_ops).await?;
                        }
                    }
                }
            }
        }
    }

    /// Learns where each log ends, by an append of nothing.
    async fn learn_heads(&self, playback: &Playback) -> Result<BTreeMap<JournalName, i64>, PlayError> {
        let mut heads = BTreeMap::new();
        for log in playback.logs() {
            let head = self.append("determining the head of", &log, plain(&log), Bytes::new()).await?;
            heads.insert(log, head);
        }
        Ok(heads)
    }

    /// Appends, and returns where the append ends.
    async fn append(
        &self,
        action: &'static str,
        log: &JournalName,
        request: AppendRequest,
        content: Bytes,
    ) -> Result<i64, PlayError> {
        let failed = |cause: String| PlayError::Append { action, log: log.clone(), cause };
        let append = self.client.append(request, content);
        let response = tokio::select! {
            biased;
            () = self.tasks.token().cancelled() => return Err(PlayError::Cancelled),
            response = append => response.map_err(|e| failed(e.to_string()))?,
        };
        let commit = response.commit.ok_or_else(|| failed("the response has no commit".into()))?;
        Ok(commit.end)
    }

    /// The open read, if it goes on where the next one begins.
    fn open_read(&self, open: Option<OpenRead>, log: JournalName, offset: i64, blocking: bool) -> OpenRead {
        if let Some(open) = open
            && open.log == log
            && open.offset == offset
            && open.blocking == blocking
        {
            return open;
        }
        let request =
            ReadRequest { journal: String::from(&log), offset, block: blocking, ..ReadRequest::default() };
        OpenRead { reader: RetryReader::new(self.client.clone(), request), log, offset, blocking }
    }

    async fn next_event(&mut self, read: &mut OpenRead) -> Result<Event, PlayError> {
        let result = tokio::select! {
            biased;
            () = self.tasks.token().cancelled() => return Err(PlayError::Cancelled),
            // Without anyone left to ask, the playback goes on until it is cancelled.
            Ok(()) = self.requests.changed() => return Ok(Event::Again),
            result = read.reader.next() => result,
        };
        match result {
            Ok(chunk) => {
                read.offset = chunk.offset.saturating_add_unsigned(chunk.bytes.len() as u64);
                Ok(Event::Chunk(chunk.offset, chunk.bytes))
            }
            Err(ReadError::OffsetJump { to, .. }) => {
                read.offset = to;
                Ok(Event::Gap(to))
            }
            Err(ReadError::NotYetAvailable { write_head, .. }) => Ok(Event::Head(write_head)),
            // The log fell asleep while nobody wrote to it: an append wakes it up.
            Err(ReadError::Suspended(_)) => {
                self.append("resuming", &read.log, plain(&read.log), Bytes::new()).await?;
                Ok(Event::Again)
            }
            Err(ReadError::Cancelled) => Err(PlayError::Cancelled),
            Err(error) => {
                Err(PlayError::Read { log: read.log.clone(), offset: read.offset, cause: error.to_string() })
            }
        }
    }

    async fn re_enact(&self, mut staging: Staging, file_ops: Vec<FileOp>) -> Result<Staging, PlayError> {
        if file_ops.is_empty() {
            return Ok(staging);
        }
        self.blocking(move || staging.apply(file_ops).map(|()| staging)).await
    }

    async fn complete(&self, playback: Playback, staging: Staging, dir: &Path) -> Outcome {
        let log = playback.position().0.clone();
        let (read, read_after_request) = playback.tally();
        let fsm = playback.into_fsm();
        let fsm = self.blocking(move || staging.make_live(&fsm).map(|()| fsm)).await?;
        let files = fsm.live_nodes().count();
        tracing::info!(%log, files, next_seq_no = fsm.next_seq_no(), ?read, ?read_after_request,
            "completed playback");
        Ok(Played { fsm, log, dir: dir.to_owned(), read, read_after_request })
    }

    fn report(&self, playback: &Playback) {
        let (log, offset, head) = playback.position();
        let (tailing, concluded) = (playback.is_tailing(), playback.is_concluded());
        self.progress.send_replace(Some(Progress { log: log.clone(), offset, head, tailing, concluded }));
    }

    async fn blocking<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> Result<T, PlayError> + Send + 'static,
    ) -> Result<T, PlayError> {
        self.tasks.spawn_blocking("player files", f).await
    }
}

fn plain(log: &JournalName) -> AppendRequest {
    AppendRequest { journal: String::from(log), ..AppendRequest::default() }
}
