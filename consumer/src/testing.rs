//! For tests of stores: a recovery log in a broker in memory, recorders of it, and checkpoints which are told apart.
//!
//! What fails here fails the test.
#![allow(clippy::unwrap_used, reason = "only tests use it")]

use std::path::PathBuf;

use client::testing::StubBroker;
use client::{AppendService, ClientOptions, JournalClient, OpError};
use proto::JournalName;
use proto::consumer::{Checkpoint, checkpoint::Source};
use proto::protocol::LabelSet;
use proto::recoverylog::FsmHints;
use recoverylog::{Author, PlayError, Played, Player, Recorder};
use runtime::{Entropy, TaskGroup};
use tempfile::TempDir;

use crate::Store;

/// The recovery log.
pub const LOG: &str = "a/recovery/log";

/// A broker with a recovery log, a client, and room for directories.
pub struct World {
    /// Of everything.
    pub tasks: TaskGroup,
    /// Has [`LOG`].
    pub broker: StubBroker,
    /// Of the broker.
    pub client: JournalClient,
    /// Where stores have their directories.
    pub dirs: TempDir,
}

impl World {
    /// One whose log is empty.
    pub async fn new() -> World {
        let tasks = TaskGroup::new("test");
        let broker = StubBroker::start(&tasks).await.unwrap();
        broker.add_journal(LOG, LabelSet::default());
        let client = JournalClient::new(broker.endpoint(), ClientOptions::new(tasks.clone())).unwrap();
        World { tasks, broker, client, dirs: tempfile::tempdir().unwrap() }
    }

    /// The directory of this name.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.dirs.path().join(name)
    }

    /// Plays the log into a directory of this name, and takes it over.
    ///
    /// # Errors
    /// If it cannot be played.
    pub async fn taken_over(&self, hints: &FsmHints, dir: &str, author: Author) -> Result<Played, PlayError> {
        let player = Player::start(hints.clone(), self.dir(dir), self.client.clone(), &self.tasks).unwrap();
        player.inject_handoff(author);
        player.done().await
    }

    /// Takes the log over, and goes on recording.
    pub async fn recorder(&self, hints: &FsmHints, dir: &str, id: u32) -> Recorder {
        let author = Author::new(id).unwrap();
        let played = self.taken_over(hints, dir, author).await.unwrap();
        self.record_on(played, author, &self.tasks).await
    }

    /// Goes on recording what was played; the appends are of `tasks`.
    pub async fn record_on(&self, played: Played, author: Author, tasks: &TaskGroup) -> Recorder {
        let appends = AppendService::new(self.client.clone(), tasks.child("appends"));
        let log = JournalName::parse(LOG).unwrap();
        Recorder::start(played.fsm, author, played.dir, log, appends).await.unwrap()
    }
}

/// Hints which say nothing but which log it is.
pub fn no_hints() -> FsmHints {
    FsmHints { log: LOG.into(), ..FsmHints::default() }
}

/// A checkpoint which is told from others by a number.
pub fn checkpoint(number: i64) -> Checkpoint {
    let source = Source { read_through: number, ..Source::default() };
    Checkpoint { sources: [("a/source".to_owned(), source)].into(), ..Checkpoint::default() }
}

/// The number of a checkpoint; zero for the empty one.
pub fn number_of(checkpoint: &Checkpoint) -> i64 {
    checkpoint.sources.get("a/source").map_or(0, |source| source.read_through)
}

/// Commits without dependencies, and waits for it.
///
/// # Errors
/// Those of the commit.
pub async fn commit(store: &mut impl Store, number: i64) -> Result<(), OpError> {
    store.start_commit(checkpoint(number), Vec::new()).await
}

/// The number of the checkpoint which the store restores.
pub async fn restored(store: &mut impl Store) -> i64 {
    number_of(&store.restore_checkpoint().await.unwrap())
}

/// The seed of a random test: that of `COURANT_SEED`, else a new one. It is printed, so that a failure can be repeated.
pub fn seed() -> u64 {
    let given = std::env::var_os("COURANT_SEED").map(|seed| seed.to_str().unwrap().parse().unwrap());
    let seed = given.unwrap_or_else(|| Entropy::system().u64());
    println!("repeat with COURANT_SEED={seed}");
    seed
}
