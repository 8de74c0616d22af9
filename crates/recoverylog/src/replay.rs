//! Plays logs which are already here, without a broker: copies made for inspection, and logs made up by tests.

use crate::Fsm;
use crate::play_error::PlayError;
use crate::playback::Playback;
use crate::staging::{Staging, remove_all};
use crate::step::{FileOp, Step};
use bytes::Bytes;
use proto::JournalName;
use proto::recoverylog::FsmHints;
use std::collections::BTreeMap;
use std::path::Path;

/// Bytes of a log which are offered at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Plays `logs`, each from its offset zero, into `dir`, which is wiped first and removed on failure. Blocks this thread.
pub fn replay(hints: &FsmHints, logs: &BTreeMap<JournalName, Bytes>, dir: &Path) -> Result<Fsm, PlayError> {
    let playback = Playback::new(Fsm::new(hints)?);
    let mut staging = Staging::prepare(dir)?;
    let played = drive(playback, logs, CHUNK_BYTES, |file_ops| staging.apply(file_ops));
    let outcome = played.and_then(|fsm| staging.make_live(&fsm).map(|()| fsm));
    if outcome.is_err() {
        remove_all(dir)?;
    }
    outcome
}

/// Plays to the heads of `logs`, offering `chunk_bytes` at once.
pub(crate) fn drive(
    mut playback: Playback,
    logs: &BTreeMap<JournalName, Bytes>,
    chunk_bytes: usize,
    mut apply: impl FnMut(Vec<FileOp>) -> Result<(), PlayError>,
) -> Result<Fsm, PlayError> {
    playback.on_heads(logs.iter().map(|(name, log)| (name.clone(), log.len() as i64)).collect())?;
    playback.finish_at_write_head();
    loop {
        match playback.next_step()? {
            Step::Complete => return Ok(playback.into_fsm()),
            Step::Inject { .. } => unreachable!("no hand-off was asked for"),
            Step::Read { log, offset, .. } => {
                let bytes = logs.get(&log).ok_or_else(|| missing(&log, offset))?;
                let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = begin.saturating_add(chunk_bytes).min(bytes.len());
                if begin == end {
                    playback.on_head(offset)?;
                } else {
                    apply(playback.on_chunk(offset, bytes.slice(begin..end))?)?;
                }
            }
        }
    }
}

fn missing(log: &JournalName, offset: i64) -> PlayError {
    PlayError::Read { log: log.clone(), offset, cause: "no such log".into() }
}
