//! Rebuilding the files of a shard from its recovery log, first as a standby and then for good.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::AppendService;
use proto::consumer::replica_status::Code;
use proto::consumer::{
    GetHintsResponse, ReplicaStatus, ShardSpec, Status, get_hints_response::ResponseHints,
};
use proto::protocol::LabelSelector;
use proto::recoverylog::FsmHints;
use proto::{JournalName, labels};
use recoverylog::{Author, PlayError, Played, Player, Progress, Recorder};
use runtime::backoff::Backoff;
use runtime::{BoxError, TaskGroup, trace};

use super::core::Core;
use super::failure::Failure;
use super::process::SharedProcess;
use crate::Application;
use crate::hints::{self, HintsStoreError};

/// How long a new primary waits for the one before to finish its transaction. It may take the log at any time: what the
/// other one has not committed by then is done again.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(5);

/// Bytes of a shard's id that the name of its directory has: ids may have 512, and names of files 255.
const ID_BYTES_MAX: usize = 200;

/// A replica which plays the shard's log, or has nothing to play.
pub struct Standby {
    playing: Option<Playing>,
}

struct Playing {
    player: Player,
    response: GetHintsResponse,
    own_log: JournalName,
    directory: PathBuf,
    tasks: TaskGroup,
}

/// The files of a shard, recovered by an author who holds the fence.
pub struct Recovered {
    /// The hints which are stored, as they were read before.
    pub response: GetHintsResponse,
    /// Where the files are.
    pub directory: PathBuf,
    /// Hints of exactly these files, verified by having been played. `None` if they were recovered from another log.
    pub hints: Option<FsmHints>,
    played: Played,
    author: Author,
    own_log: JournalName,
}

impl Standby {
    /// Starts to play the log of the shard into a new directory.
    ///
    /// # Errors
    /// If its hints cannot be read, or its log is not there or no recovery log.
    pub async fn begin<A: Application>(
        process: &SharedProcess<A>,
        core: &Arc<Core>,
        number: u64,
        tasks: &TaskGroup,
    ) -> Result<Standby, BoxError> {
        let spec = core.spec();
        let Some(log) = spec.recovery_log_str() else {
            core.report(number, ReplicaStatus::new(Code::Standby));
            return Ok(Standby { playing: None });
        };
        core.report(number, ReplicaStatus::new(Code::Backfill));
        let own_log = JournalName::parse(&log)?;
        let response = response_of(fetch_hints(process, &spec).await?);
        let picked = hints::pick(&response, &log);
        check_log(process, &picked.log).await?;
        let directory = new_directory(tasks, &core.id).await?;
        let player = Player::start(picked, directory.clone(), process.client.clone(), tasks)?;
        let playing = Playing { player, response, own_log, directory, tasks: tasks.clone() };
        Ok(Standby { playing: Some(playing) })
    }

    /// Waits until the shard's assignment is the primary's, then takes the log over. `None` if the shard was given up.
    /// The inner `None` is a shard without a log.
    ///
    /// # Errors
    /// If the log cannot be played.
    pub async fn take_over<A: Application>(
        self,
        process: &SharedProcess<A>,
        core: &Arc<Core>,
        number: u64,
    ) -> Result<Option<Option<Recovered>>, Failure> {
        let Some(playing) = self.playing else {
            let mut assigned = core.assigned.subscribe();
            return tokio::select! {
                biased;
                () = core.tasks.token().cancelled() => Ok(None),
                () = core.cede.cancelled() => Ok(None),
                _ = assigned.wait_for(|assigned| assigned.slot == 0) => Ok(Some(None)),
            };
        };
        let author = Author::random(&process.entropy);
        match playing.play(process, core, number, author).await {
            Some(Ok(played)) => {
                core.metrics.recovered(&played);
                Ok(Some(Some(playing.recovered(played, author))))
            }
            Some(Err(error)) => {
                remove(&playing.tasks, playing.directory).await;
                Err(Failure::starting("beginRecovery: playLog")(error.into()))
            }
            None => {
                playing.tasks.cancel();
                // The player has stopped once it says so; only then are its files nobody's.
                drop(playing.player.done().await);
                remove(&playing.tasks, playing.directory).await;
                Ok(None)
            }
        }
    }
}

impl Playing {
    /// Plays until `author` has taken the log over, which is when the shard's assignment is the primary's. `None` if the
    /// shard was given up before.
    async fn play<A: Application>(
        &self,
        process: &SharedProcess<A>,
        core: &Core,
        number: u64,
        author: Author,
    ) -> Option<Result<Played, PlayError>> {
        let mut assigned = core.assigned.subscribe();
        // From then on until the log is this author's: the time without a primary, as far as this process knows of it.
        let span = OnceLock::new();
        let mut turn = pin!(async {
            if assigned.wait_for(|assigned| assigned.slot == 0).await.is_ok() {
                let (shard, log) = (&core.id, &self.own_log);
                span.get_or_init(
                    || tracing::info_span!(target: trace::TARGET, parent: None, "recovery", %shard, %log),
                );
                self.await_predecessor(process, core).await;
            }
        });
        let mut progress = self.player.subscribe();
        let mut is_tailing = false;
        let mut is_injected = false;
        loop {
            tokio::select! {
                biased;
                () = core.tasks.token().cancelled() => return None,
                () = core.cede.cancelled() => return None,
                played = self.player.done() => return Some(played),
                () = &mut turn, if !is_injected => {
                    is_injected = true;
                    self.player.inject_handoff(author);
                }
                () = self.player.tailing(), if !is_tailing => {
                    is_tailing = true;
                    core.report(number, ReplicaStatus::new(Code::Standby));
                }
                Ok(()) = progress.changed() => {
                    let remaining = progress.borrow_and_update().as_ref().map_or(0, Progress::remaining);
                    core.metrics.recovering(remaining);
                }
            }
        }
    }

    /// Waits until the process which served the shard before has said that it ended its last transaction, or is gone.
    async fn await_predecessor<A: Application>(&self, process: &SharedProcess<A>, core: &Core) {
        let Some(predecessor) = core.predecessor.get() else { return };
        let mut spaces = process.mirror.subscribe();
        tokio::select! {
            biased;
            () = self.player.concluded() => {}
            _ = spaces.wait_for(|now| !now.members().contains_key(predecessor)) => {}
            () = process.clock.sleep(PREDECESSOR_LIMIT) => {
                tracing::info!(shard = %core.id, %predecessor, limit = ?PREDECESSOR_LIMIT,
                    "taking over from a primary which has not said that it ended");
            }
        }
    }

    fn recovered(self, played: Played, author: Author) -> Recovered {
        let hints = (played.log == self.own_log).then(|| played.fsm.build_hints(&played.log));
        let Playing { response, own_log, directory, .. } = self;
        Recovered { response, directory, hints, played, author, own_log }
    }
}

impl Recovered {
    /// Starts to record further operations on the files into the shard's log.
    ///
    /// # Errors
    /// If the log cannot be appended to.
    pub async fn record(self, appends: AppendService) -> Result<Recorder, BoxError> {
        Ok(Recorder::start(self.played.fsm, self.author, self.directory, self.own_log, appends).await?)
    }
}

/// Reads the stored hints. An etcd which does not answer is waited for.
async fn fetch_hints<A: Application>(
    process: &SharedProcess<A>,
    spec: &ShardSpec,
) -> Result<hints::Stored, HintsStoreError> {
    let mut backoff = Backoff::journal();
    loop {
        match hints::fetch(process.mirror.etcd(), spec).await {
            Err(HintsStoreError::Etcd(error)) if error.is_retryable() => {
                tracing::warn!(shard = %spec.id, %error, "cannot read hints (will retry)");
                process.clock.sleep(backoff.next()).await;
            }
            outcome => return outcome,
        }
    }
}

fn response_of(stored: hints::Stored) -> GetHintsResponse {
    let entry = |hints| ResponseHints { hints };
    GetHintsResponse {
        status: Status::Ok.into(),
        primary_hints: Some(entry(stored.primary)),
        backup_hints: stored.backups.into_iter().map(entry).collect(),
        ..GetHintsResponse::default()
    }
}

/// Checks that a journal exists and is a recovery log.
async fn check_log<A: Application>(process: &SharedProcess<A>, log: &str) -> Result<(), BoxError> {
    let listing = process.client.list(LabelSelector::include([(labels::NAME, log)])).await?;
    let spec = listing.journals.first().and_then(|journal| journal.spec.as_ref());
    let spec = spec.ok_or_else(|| format!("fetching log spec: named journal does not exist ({log})"))?;
    let found = spec.label_set().value_of(labels::CONTENT_TYPE).unwrap_or_default();
    let expected = labels::CONTENT_TYPE_RECOVERY_LOG;
    if found != expected {
        return Err(format!(
            "expected label {} value {expected} (got {found}; journal {log})",
            labels::CONTENT_TYPE
        )
        .into());
    }
    Ok(())
}

/// A new directory for the files of a shard, below that of temporary files.
async fn new_directory(tasks: &TaskGroup, id: &str) -> Result<PathBuf, BoxError> {
    // Ids differ at their ends.
    let begin = (id.len().saturating_sub(ID_BYTES_MAX)..).find(|at| id.is_char_boundary(*at)).unwrap_or(0);
    let prefix = format!("{}-", id[begin..].replace('/', "_"));
    let make = move || tempfile::Builder::new().prefix(&prefix).tempdir().map(tempfile::TempDir::keep);
    let made = tasks.spawn_blocking("make directory", make).await;
    made.map_err(|error| format!("making a directory for the shard's files: {error}").into())
}

/// Removes the files of a shard. Nobody uses them any more.
pub async fn remove(tasks: &TaskGroup, directory: PathBuf) {
    let removed = tasks.spawn_blocking("remove directory", move || {
        let outcome = std::fs::remove_dir_all(&directory);
        outcome.map_err(|error| (directory, error))
    });
    if let Err((directory, error)) = removed.await
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "cannot remove the files of a shard");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_with_the_longest_id_has_a_directory() {
        let tasks = TaskGroup::new("test");
        for id in ["/a/shard".to_owned(), "x".repeat(512), format!("{}x", "é/".repeat(170))] {
            let directory = new_directory(&tasks, &id).await.unwrap();
            assert!(directory.is_dir(), "{id}");
            remove(&tasks, directory.clone()).await;
            assert!(!directory.exists(), "{id}");
        }
    }
}
