//! Hints of shards in etcd: where they are, what is read, and what primaries write (consumer protocol §4.8).
//!
//! There is one *primary* key, which the running primary records to, and a list of *backups*, which hold what was
//! verified by a recovery. Hints are an index into the recovery log: losing them costs time, but hints that no reader
//! accepts would stop every recovery. So nothing is stored which does not build a state machine.

mod rotate;

use bytes::Bytes;
use keyspace::{Compare, Etcd, EtcdError, KeyValue, Op, OpResponse, PutLease, Txn};
use proto::consumer::ShardSpec;
use proto::recoverylog::FsmHints;
use recoverylog::{Fsm, HintsError};

pub use recoverylog::hints::pick;
use rotate::rotate;

/// Backups beyond this number are neither read nor written: all keys of a shard fit one transaction, with its guard.
const BACKUPS_MAX: usize = Txn::OPS_MAX - 2;

/// Why hints could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HintsStoreError {
    /// etcd failed.
    #[error("{0}")]
    Etcd(#[from] EtcdError),
    /// A stored value is not hints, or no reader would accept what is to be stored.
    #[error("hints of {key}: {source}")]
    Invalid {
        /// The etcd key.
        key: String,
        /// What is wrong with it.
        source: HintsError,
    },
    /// Stored hints are of another log.
    #[error("hints of {key}: recovered log {found} does not match the shard's log {expected}")]
    WrongLog {
        /// The etcd key.
        key: String,
        /// Log of the hints.
        found: String,
        /// Log of the shard.
        expected: String,
    },
}

/// The hints of a shard, as they are stored.
#[derive(Debug, Default)]
pub struct Stored {
    /// What the primary recorded last.
    pub primary: Option<FsmHints>,
    /// What recoveries verified, the newest first: one entry for each backup that the specification asks for.
    pub backups: Vec<Option<FsmHints>>,
}

fn backup_keys(spec: &ShardSpec) -> Vec<String> {
    let mut keys = spec.hint_backup_keys();
    keys.truncate(BACKUPS_MAX);
    keys
}

async fn get_all(etcd: &Etcd, keys: &[String]) -> Result<Vec<Option<KeyValue>>, EtcdError> {
    let then = keys.iter().map(|key| Op::Get { key: key.clone() }).collect();
    let outcome = etcd.txn(Txn { then, ..Txn::default() }).await?;
    let found = outcome.responses.into_iter().map(|response| match response {
        OpResponse::Get(kv) => kv,
        OpResponse::Put | OpResponse::Deleted(_) => None,
    });
    Ok(found.collect())
}

/// Reads and checks all hints of a shard which has a recovery log.
///
/// # Errors
/// If etcd fails, or one of the values is not hints of the shard's log.
pub async fn fetch(etcd: &Etcd, spec: &ShardSpec) -> Result<Stored, HintsStoreError> {
    let mut keys = vec![spec.hint_primary_key()];
    keys.extend(backup_keys(spec));
    let values = get_all(etcd, &keys).await?;
    let log = spec.recovery_log_str().unwrap_or_default();
    let mut decoded = Vec::with_capacity(keys.len());
    for (key, value) in keys.iter().zip(values) {
        decoded.push(value.map(|kv| decode(key, &kv.value, &log)).transpose()?);
    }
    let mut decoded = decoded.into_iter();
    let primary = decoded.next().flatten();
    let mut backups: Vec<_> = decoded.collect();
    backups.resize(usize::try_from(spec.hint_backups).unwrap_or(0).max(backups.len()), None);
    Ok(Stored { primary, backups })
}

fn decode(key: &str, value: &[u8], log: &str) -> Result<FsmHints, HintsStoreError> {
    let invalid = |source| HintsStoreError::Invalid { key: key.to_owned(), source };
    let hints = recoverylog::hints::parse(value).map_err(invalid)?;
    Fsm::new(&hints).map_err(invalid)?;
    if hints.log != log {
        return Err(HintsStoreError::WrongLog {
            key: key.to_owned(),
            found: hints.log,
            expected: log.to_owned(),
        });
    }
    Ok(hints)
}

fn encode(key: &str, hints: &FsmHints) -> Result<Bytes, HintsStoreError> {
    Fsm::new(hints).map_err(|source| HintsStoreError::Invalid { key: key.to_owned(), source })?;
    Ok(recoverylog::hints::to_json(hints).into())
}

/// What became of hints that were to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// They are stored.
    Written,
    /// The guard did not hold, or another process wrote at the same time.
    Conflict,
}

/// Records the hints of the running primary, if `guard` holds.
///
/// # Errors
/// If etcd fails, or no reader would accept the hints.
pub async fn record(
    etcd: &Etcd,
    spec: &ShardSpec,
    guard: Compare,
    hints: &FsmHints,
) -> Result<Outcome, HintsStoreError> {
    let key = spec.hint_primary_key();
    let value = encode(&key, hints)?;
    let then = vec![Op::Put { key, value, lease: PutLease::None }];
    commit(etcd, Txn { compares: vec![guard], then, ..Txn::default() }).await
}

/// Stores hints which a recovery has verified as the first backup, if `guard` holds.
///
/// # Errors
/// If etcd fails, or no reader would accept the hints.
pub async fn store_recovered(
    etcd: &Etcd,
    spec: &ShardSpec,
    guard: Compare,
    hints: &FsmHints,
) -> Result<Outcome, HintsStoreError> {
    let keys = backup_keys(spec);
    let Some(first) = keys.first() else { return Ok(Outcome::Written) };
    let value = encode(first, hints)?;
    let stored = get_all(etcd, &keys).await?;
    commit(etcd, rotate(guard, &keys, &stored, value)).await
}

async fn commit(etcd: &Etcd, txn: Txn) -> Result<Outcome, HintsStoreError> {
    let outcome = etcd.txn(txn).await?;
    Ok(if outcome.succeeded { Outcome::Written } else { Outcome::Conflict })
}
