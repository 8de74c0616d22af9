//! Keeps one shard running: attempt after attempt, until it is given up, fenced, or its failure budget is spent.
//!
//! A failure is reported as status FAILED with its reason, and stays visible for the wait before the next attempt, which
//! starts from the last commit. A shard which was *fenced* is not started again: another process is its primary now, and
//! what this one believes of it is of the past.

use std::sync::Arc;

use runtime::BoxError;

use super::attempt;
use super::budget::{Budget, Restart};
use super::core::Core;
use super::failure::Failure;
use super::process::SharedProcess;
use super::status;
use crate::Application;

/// Runs `core` until it is given up. The tasks of the shard end with it.
pub async fn run<A: Application>(process: SharedProcess<A>, core: Arc<Core>) -> Result<(), BoxError> {
    supervise(&process, &core).await;
    core.ended();
    core.tasks.cancel();
    Ok(())
}

async fn supervise<A: Application>(process: &SharedProcess<A>, core: &Arc<Core>) {
    let mut budget = Budget::default();
    for number in 1.. {
        let began = process.clock.now();
        let tasks = core.tasks.child("attempt");
        let run = attempt::run(process, core, number, &tasks).await;
        tasks.cancel();
        if let Err(error) = tasks.join().await {
            tracing::debug!(shard = %core.id, %error, "a task of the shard ended with an error");
        }
        let Err(failure) = run else { return };
        if core.is_ceding() && !process.lease_lost.is_cancelled() {
            // A primary which moves may be fenced before its last transaction is durable: that starts over elsewhere.
            tracing::info!(shard = %core.id, reason = %failure, "the shard was given up");
            return;
        }
        if failure.is_fenced() {
            let log = core.spec().recovery_log_str().unwrap_or_default();
            core.metrics.fenced();
            tracing::error!(shard = %core.id, %log, reason = %failure,
                "fenced: another process has taken over the shard and its log");
        }
        core.metrics.failed();
        core.report(number, status::failed(&failure.to_string()));
        core.availability.send_modify(|availability| availability.has_ended = true);
        let served = if failure.was_serving() { process.clock.now() - began } else { Default::default() };
        let restart = if failure.is_fenced() { Restart::GiveUp } else { budget.on_failure(served) };
        if !wait_for_restart(process, core, restart, &failure).await {
            return;
        }
        core.availability.send_modify(|availability| availability.has_ended = false);
    }
}

/// False if the shard was given up meanwhile.
async fn wait_for_restart<A: Application>(
    process: &SharedProcess<A>,
    core: &Core,
    restart: Restart,
    failure: &Failure,
) -> bool {
    let wait = async {
        match restart {
            Restart::After(wait) => {
                tracing::error!(shard = %core.id, reason = %failure, ?wait, "the shard failed and will be started again");
                process.clock.sleep(wait).await;
            }
            Restart::GiveUp => {
                tracing::error!(shard = %core.id, reason = %failure, "the shard failed and stays so until it is unassigned");
                std::future::pending().await
            }
        }
    };
    tokio::select! {
        biased;
        () = core.tasks.token().cancelled() => false,
        () = core.cede.cancelled() => false,
        () = wait => true,
    }
}
