//! etcd loses all its data: the one fault that specifications and assignments do not survive.
//!
//! Promised is that journals stop with a clear answer, and that after the specifications are applied again everything that
//! was stored is served. What was acknowledged and not yet stored is not promised, and shards have lost their hints; so a
//! fleet ends with this fault.

use std::time::Duration;

use proto::protocol::Status;
use runtime::BoxError;

use crate::fleet::{Fleet, Kind};

/// Longest wait for every process to notice, to leave, and to come back.
const NOTICE_LIMIT: Duration = Duration::from_secs(120);
/// How often brokers are asked.
const TICK: Duration = Duration::from_millis(200);

/// What was served after the loss.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Journals with stored content.
    pub journals: usize,
    /// Bytes of it.
    pub bytes: i64,
}

/// Wipes etcd, and checks what must hold. Nothing may be using the fleet.
pub async fn lose_etcd(fleet: &mut Fleet) -> Result<Served, BoxError> {
    let readback = fleet.readback();
    let stored = readback.stored().await?;
    let journal = stored.keys().next().ok_or("nothing is stored yet")?.clone();
    let etcd = fleet.names(Kind::Etcd);
    fleet.kill(&etcd).await?;
    fleet.wipe(&etcd[0]);
    fleet.start_members(&etcd).await?;

    // Every broker answers again, and knows nothing of the journal.
    let deadline = fleet.clock().now() + NOTICE_LIMIT;
    for broker in fleet.broker_urls() {
        loop {
            let status = readback.append_nothing(&broker, &journal).await;
            if matches!(status, Ok(Status::JournalNotFound)) {
                break;
            }
            if fleet.clock().now() > deadline {
                return Err(format!("{broker} answers {status:?} after {NOTICE_LIMIT:?}").into());
            }
            fleet.let_pass(TICK).await?;
        }
    }
    let names = [fleet.names(Kind::Broker), fleet.names(Kind::Summer)].concat();
    fleet.wait_ready(&names, NOTICE_LIMIT).await?;
    fleet.apply_journals_again().await?;
    fleet.reset_heads(NOTICE_LIMIT).await?;
    readback.check_served(&stored).await?;
    Ok(Served { journals: stored.len(), bytes: stored.values().sum() })
}
