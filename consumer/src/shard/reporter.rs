//! Writes what a replica reports of itself to the value of its assignment, which the allocator and peers read.
//!
//! A report is folded into what stands there, so that the code never goes back during one attempt to run the shard; the
//! first report of a new attempt replaces it. Only the newest report matters. Writing is tried for ever: without it the
//! shard would never count as available.

use std::sync::Arc;

use keyspace::{Op, PutLease, Txn};
use prost::Message;
use proto::MemberId;
use proto::consumer::ReplicaStatus;
use runtime::backoff::Backoff;
use runtime::{BoxError, Clock};

use super::core::{Core, Report};
use super::held::Held;
use super::status;
use crate::schema::Mirror;

/// Follows the reports of `core` until the shard's tasks are cancelled.
pub async fn run(core: Arc<Core>, mirror: Mirror, me: MemberId, clock: Clock) -> Result<(), BoxError> {
    let mut reports = core.report.subscribe();
    // Something may have been reported before this task came to run.
    reports.mark_changed();
    let mut written_attempt = 0;
    let token = core.tasks.token().clone();
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            changed = reports.changed() => if changed.is_err() { return Ok(()) },
        }
        let mut backoff = Backoff::journal();
        loop {
            // A report which came meanwhile replaces the one that could not be written.
            let report = reports.borrow_and_update().clone();
            if report.attempt == 0 {
                break;
            }
            match write(&core.id, &mirror, &me, &report, written_attempt).await {
                Ok(true) => {
                    written_attempt = report.attempt;
                    break;
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(shard = %core.id, %error, "cannot write the shard's status (will retry)")
                }
            }
            tokio::select! {
                biased;
                () = token.cancelled() => return Ok(()),
                () = clock.sleep(backoff.next()) => {}
            }
        }
    }
}

/// Writes a report once; false if the assignment changed at the same time, or is not there.
async fn write(
    id: &str,
    mirror: &Mirror,
    me: &MemberId,
    report: &Report,
    written_attempt: u64,
) -> Result<bool, BoxError> {
    let Some(held) = Held::find(&mirror.snapshot(), me, id) else { return Ok(false) };
    let next = if report.attempt == written_attempt {
        match status::reduced(&report.status, &held.status) {
            Some(next) => next,
            None => return Ok(true),
        }
    } else {
        report.status.clone()
    };
    let key = mirror.assignment_key(&held.key);
    let put = Op::Put { key: key.clone(), value: encode(&next), lease: PutLease::Keep };
    let txn = Txn { compares: vec![held.unchanged(key)], then: vec![put], ..Txn::default() };
    let outcome = mirror.etcd().txn(txn).await?;
    // Without seeing our own write, the next one would compare with what was before it.
    mirror.wait_for(outcome.header.revision).await?;
    Ok(outcome.succeeded)
}

fn encode(status: &ReplicaStatus) -> bytes::Bytes {
    status.encode_to_vec().into()
}
