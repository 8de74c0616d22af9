//! One attempt to run a shard: recover, wait as a standby, take over, open the store, and run transactions
//! (consumer protocol §5.2).
//!
//! ```text
//! BACKFILL  a player reads the recovery log           (no log: STANDBY at once)
//! STANDBY   it has reached the end and follows        … until the assignment moves to slot 0
//! PRIMARY   fenced, store open, checkpoint restored   … until the shard is given up, or something fails
//! ```
//!
//! Whatever the outcome, when the attempt has ended its tasks are told to stop, the store is closed and its local files
//! are gone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use client::AppendService;
use futures::FutureExt;
use message::ClockSource;
use proto::consumer::replica_status::Code;
use proto::consumer::{Checkpoint, ReplicaStatus};
use recoverylog::Recorder;
use runtime::{OnError, TaskGroup, panic_text};

use super::core::{Attempt, Core, Shard};
use super::failure::{Failure, is_fenced};
use super::hint_writer::HintWriter;
use super::process::SharedProcess;
use super::recovery::{self, Recovered, Standby};
use crate::txn::{self, LoopError};
use crate::{Application, Store};

/// What serving needs, once the store is open.
struct Primary<S> {
    shard: Shard,
    appends: TaskGroup,
    store: S,
    checkpoint: Checkpoint,
    recorder: Option<Recorder>,
}

/// Runs attempt `number` of a shard in `tasks`. `Ok` means that the shard was given up.
pub async fn run<A: Application>(
    process: &SharedProcess<A>,
    core: &Arc<Core>,
    number: u64,
    tasks: &TaskGroup,
) -> Result<(), Failure> {
    let standby = tokio::select! {
        biased;
        () = core.cede.cancelled() => return Ok(()),
        () = tasks.token().cancelled() => return Ok(()),
        standby = Standby::begin(process, core, number, tasks) => standby.map_err(Failure::starting("beginRecovery"))?,
    };
    let Some(recovered) = standby.take_over(process, core, number).await? else { return Ok(()) };
    let directory = recovered.as_ref().map(|recovered| recovered.directory.clone());
    // A panic of the application ends this attempt, as an error would.
    let outcome = AssertUnwindSafe(serve(process, core, number, tasks, recovered)).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| Err(Failure::panicked(&panic_text(&*panic))));
    core.reader.send_replace(None);
    if let Some(directory) = directory {
        recovery::remove(tasks, directory).await;
    }
    outcome
}

async fn serve<A: Application>(
    process: &SharedProcess<A>,
    core: &Arc<Core>,
    number: u64,
    tasks: &TaskGroup,
    recovered: Option<Recovered>,
) -> Result<(), Failure> {
    let workers = tasks.child("workers");
    let hints = recovered.as_ref().map(|recovered| recovered.hints.clone());
    let opened = tokio::select! {
        biased;
        () = tasks.token().cancelled() => return Ok(()),
        opened = open(process, core, tasks, &workers, recovered) => opened?,
    };
    let Primary { shard, appends, mut store, checkpoint, recorder } = opened;
    let writer = HintWriter::new(process, core, recorder.clone(), hints);
    if let Some(writer) = &writer {
        workers.spawn("hints", OnError::Log, writer.clone().run(workers.token().clone()));
    }
    txn::seed_progress(core, &checkpoint);
    core.reader.send_replace(Some(Arc::new(store.reader())));
    core.availability.send_modify(|availability| availability.was_ready = true);
    core.report(number, ReplicaStatus::new(Code::Primary));
    tracing::info!(shard = %core.id, "the shard is primary");

    let outcome = txn::run(process, &shard, &mut store, checkpoint).await;
    if outcome.is_err() {
        // A commit may be under way, and the store must not be closed under it.
        appends.cancel();
    }
    workers.cancel();
    if let Err(error) = workers.join().await {
        tracing::debug!(shard = %core.id, %error, "a task of the shard ended with an error");
    }
    let outcome = match (outcome, &recorder) {
        (Ok(()), Some(recorder)) if process.lease_lost.is_cancelled() => probe_fence(process, recorder).await,
        (outcome, _) => outcome,
    };
    if let (Ok(()), Some(recorder), Some(writer)) = (&outcome, &recorder, &writer) {
        writer.record_last().await;
        conclude(process, core, recorder).await;
    }
    drop((recorder, writer, shard));
    tasks.spawn_blocking("destroy store", move || store.destroy()).await;
    outcome.map_err(|error| Failure::serving("runTransactions")(error.into()))
}

/// Lets a successor know that everything is committed.
async fn conclude<A: Application>(process: &SharedProcess<A>, core: &Core, recorder: &Recorder) {
    match process.clock.timeout(txn::PROBE_LIMIT, recorder.conclude()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(shard = %core.id, %error, "a successor was faster"),
        Err(_) => tracing::debug!(shard = %core.id, "no time to tell a successor of the end"),
    }
}

/// A process which lost its lease may find out only here that another one is primary: it had nothing to commit.
async fn probe_fence<A: Application>(
    process: &SharedProcess<A>,
    recorder: &Recorder,
) -> Result<(), LoopError> {
    let barrier = recorder.barrier(Vec::new());
    match process.clock.timeout(txn::PROBE_LIMIT, barrier).await {
        Ok(Err(error)) if is_fenced(&error) => Err(LoopError::Commit(error)),
        _ => Ok(()),
    }
}

async fn open<A: Application>(
    process: &SharedProcess<A>,
    core: &Arc<Core>,
    tasks: &TaskGroup,
    workers: &TaskGroup,
    recovered: Option<Recovered>,
) -> Result<Primary<A::Store>, Failure> {
    let append_tasks = tasks.child("appends");
    let appends = AppendService::new(process.client.clone(), append_tasks.clone());
    let response = recovered.as_ref().map(|recovered| recovered.response.clone());
    let recorder = match recovered {
        Some(recovered) => {
            Some(recovered.record(appends.clone()).await.map_err(Failure::starting("completeRecovery"))?)
        }
        None => None,
    };
    let shard = Shard {
        inner: Arc::new(Attempt {
            core: Arc::clone(core),
            appends,
            clock: Arc::new(ClockSource::new()),
            recovered_hints: response,
            tasks: workers.clone(),
        }),
    };
    let store = process.app.new_store(&shard, recorder.clone()).await;
    let mut store = store.map_err(Failure::starting("completeRecovery: app.NewStore"))?;
    match store.restore_checkpoint().await {
        Ok(checkpoint) => Ok(Primary { shard, appends: append_tasks, store, checkpoint, recorder }),
        Err(error) => {
            tasks.spawn_blocking("destroy store", move || store.destroy()).await;
            Err(Failure::starting("completeRecovery: store.RestoreCheckpoint")(error))
        }
    }
}
