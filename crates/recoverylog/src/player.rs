//! The player: rebuilds a directory from recovery logs, and stands by to take over (consumer protocol §4.9).
//!
//! A player reads what its hints ask for, then follows the log as it grows, until it is asked to complete: at the head
//! of the log, or by handing the log over to a new author. What to read and what to do is decided by [`Playback`]; this
//! is the task which does it. File operations run on threads which may block. On any failure the directory is removed.

mod task;

use crate::play_error::PlayError;
use crate::playback::Playback;
use crate::{Author, Fsm, Tally};
use client::JournalClient;
use proto::JournalName;
use proto::recoverylog::FsmHints;
use runtime::{OnError, TaskGroup};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use task::Task;
use tokio::sync::watch;

/// What a completed playback leaves.
#[derive(Clone, Debug)]
pub struct Played {
    /// The state of the files, with exact offsets in its hints.
    pub fsm: Fsm,
    /// The log which was played last, that of the hints.
    pub log: JournalName,
    /// The rebuilt directory.
    pub dir: PathBuf,
    /// What was read.
    pub read: Tally,
    /// What of it was read after the request to complete: little, if the player was at the head.
    pub read_after_request: Tally,
}

/// How far a playback has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The log which is read.
    pub log: JournalName,
    /// Up to where it was read, in bytes.
    pub offset: i64,
    /// Its write head as far as it is known.
    pub head: i64,
    /// Whether the head of the last log was reached.
    pub tailing: bool,
    /// Whether the log's author has said that nothing more of them follows.
    pub concluded: bool,
}

#[derive(Clone, Copy)]
enum Request {
    Finish,
    HandOff(Author),
}

type Outcome = Result<Played, PlayError>;

struct Shared {
    request: watch::Sender<Option<Request>>,
    progress: watch::Receiver<Option<Progress>>,
    outcome: watch::Receiver<Option<Outcome>>,
}

/// A running playback. Clones are the same one.
#[derive(Clone)]
pub struct Player {
    shared: Arc<Shared>,
}

impl Progress {
    /// Bytes of the log which were not read yet, as far as is known.
    pub fn remaining(&self) -> i64 {
        self.head.saturating_sub(self.offset).max(0)
    }
}

impl Player {
    /// Starts to play `hints` into `dir`, which is wiped, as a task of `tasks`. When they are cancelled, so is it.
    ///
    /// # Errors
    /// If the hints cannot be used.
    pub fn start(
        hints: FsmHints,
        dir: PathBuf,
        client: JournalClient,
        tasks: &TaskGroup,
    ) -> Result<Player, PlayError> {
        let playback = Playback::new(Fsm::new(&hints)?);
        let (request, requests) = watch::channel(None);
        let (progress, progress_rx) = watch::channel(None);
        let (outcome, outcome_rx) = watch::channel(None);
        let task = Task { client, tasks: tasks.clone(), requests, progress };
        let play = async move {
            let played = task.run(playback, dir).await;
            if let Err(error) = &played
                && !error.is_cancelled()
            {
                tracing::error!(%error, "recovery log playback failed");
            }
            outcome.send_replace(Some(played));
            Ok(())
        };
        tasks.spawn("player", OnError::Log, play);
        Ok(Player { shared: Arc::new(Shared { request, progress: progress_rx, outcome: outcome_rx }) })
    }

    /// Asks to complete at the head of the log. The first request counts.
    pub fn finish_at_write_head(&self) {
        self.ask(Request::Finish);
    }

    /// Asks to complete by handing the log over to `author`, which fences every recorder before. The first request counts.
    pub fn inject_handoff(&self, author: Author) {
        self.ask(Request::HandOff(author));
    }

    fn ask(&self, request: Request) {
        self.shared.request.send_if_modified(|present| {
            let first = present.is_none();
            present.get_or_insert(request);
            first
        });
    }

    /// Waits until the head of the log was reached. Of a playback which ends before, it never returns: wait for
    /// [`Player::done`], too.
    pub async fn tailing(&self) {
        self.reaches(|progress| progress.tailing).await;
    }

    /// Waits until the log's author has said that nothing more of them follows: see [`crate::Recorder::conclude`]. Of a
    /// playback which ends before, it never returns.
    pub async fn concluded(&self) {
        self.reaches(|progress| progress.concluded).await;
    }

    async fn reaches(&self, condition: impl Fn(&Progress) -> bool) {
        let mut progress = self.shared.progress.clone();
        if progress.wait_for(|now| now.as_ref().is_some_and(&condition)).await.is_err() {
            std::future::pending().await
        }
    }

    /// How far the playback has come, once it has begun.
    pub fn progress(&self) -> Option<Progress> {
        self.shared.progress.borrow().clone()
    }

    /// Follows how far the playback has come; `None` before it has begun.
    pub fn subscribe(&self) -> watch::Receiver<Option<Progress>> {
        self.shared.progress.clone()
    }

    /// Waits until the playback completed, as it was asked to. May be called again.
    ///
    /// # Errors
    /// Why it failed. The directory is gone then.
    pub async fn done(&self) -> Result<Played, PlayError> {
        let mut outcome = self.shared.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Err(PlayError::Cancelled)),
            Err(_) => Err(PlayError::Cancelled),
        }
    }
}

impl fmt::Debug for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Player").field(&self.progress()).finish()
    }
}
