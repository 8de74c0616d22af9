//! Shard specifications: their rules, and what they mean.
//!
//! As for journals there are two checks: [`Validate::validate`] for specifications which are about to be applied, and
//! [`ShardSpec::validate_stored`], as lax as the protocol permits, for those decoded from etcd or listed by a peer.

use crate::consumer::{ShardSpec, shard_spec};
use crate::duration::{to_nanos, to_std};
use crate::invalid::{Invalid, Validate, ensure};
use crate::label_set::EMPTY;
use crate::labels::ID;
use crate::names::{JournalName, Parents, ShardId, check_journal, check_shard_id, check_stored_shard_id};
use crate::protocol::LabelSet;
use crate::token::is_clean;
use std::time::Duration;

/// Backup hints which a specification may ask for at most; more of a stored one are ignored.
pub const HINT_BACKUPS_MAX: i32 = 1024;

impl ShardSpec {
    /// The id, if it is valid.
    pub fn shard_id(&self) -> Result<ShardId, Invalid> {
        ShardId::parse(&self.id).map_err(|e| e.within("Id"))
    }

    /// The labels; empty where they are absent.
    pub fn label_set(&self) -> &LabelSet {
        self.labels.as_ref().unwrap_or(&EMPTY)
    }

    /// The labels and the meta-label `id`: what selectors are matched against.
    pub fn labels_with_id(&self) -> LabelSet {
        self.label_set().clone().with(ID, self.id.as_str())
    }

    /// Name of the recovery log's journal as specified; none if the shard has no log.
    pub fn recovery_log_str(&self) -> Option<String> {
        (!self.recovery_log_prefix.is_empty()).then(|| format!("{}/{}", self.recovery_log_prefix, self.id))
    }

    /// The recovery log's journal; none if the shard has no log, or its name is not valid.
    pub fn recovery_log(&self) -> Option<JournalName> {
        self.recovery_log_str().and_then(|log| JournalName::parse(&log).ok())
    }

    /// Etcd key of the hints which the primary records.
    pub fn hint_primary_key(&self) -> String {
        format!("{}/{}.primary", self.hint_prefix, self.id)
    }

    /// Etcd keys of the hints which were verified by recovery, newest first. At most [`HINT_BACKUPS_MAX`].
    pub fn hint_backup_keys(&self) -> Vec<String> {
        let count = self.hint_backups.min(HINT_BACKUPS_MAX);
        (0..count).map(|i| format!("{}/{}.backup.{i}", self.hint_prefix, self.id)).collect()
    }

    /// Longest duration of a transaction which has work to do.
    pub fn max_txn(&self) -> Duration {
        to_std(self.max_txn_duration.as_ref())
    }

    /// Shortest duration of a transaction.
    pub fn min_txn(&self) -> Duration {
        to_std(self.min_txn_duration.as_ref())
    }

    /// Replicas to assign: the primary and up to `max_standbys` hot standbys; none while disabled.
    pub fn desired_replication(&self, max_standbys: u32) -> u32 {
        if self.disable { 0 } else { self.hot_standbys.min(max_standbys).saturating_add(1) }
    }

    /// The rules for specifications which are already in etcd.
    pub fn validate_stored(&self) -> Result<(), Invalid> {
        check_stored_shard_id(&self.id).map_err(|e| e.within("Id"))?;
        self.check(Parents::Permit)
    }

    /// Every rule but that of the id.
    fn check(&self, parents: Parents) -> Result<(), Invalid> {
        self.check_log(parents)?;
        ensure!(self.hint_backups >= 0, "invalid HintBackups ({}; expected >= 0)", self.hint_backups);
        let min_txn = to_nanos(self.min_txn_duration.as_ref()).map_err(|e| e.within("MinTxnDuration"))?;
        ensure!(min_txn >= 0, "invalid MinTxnDuration ({min_txn}; expected >= 0)");
        let max_txn = to_nanos(self.max_txn_duration.as_ref()).map_err(|e| e.within("MaxTxnDuration"))?;
        ensure!(max_txn > 0, "invalid MaxTxnDuration ({max_txn}; expected > 0)");

        let labels = self.label_set();
        labels.validate().and_then(|()| labels.check_single_values()).map_err(|e| e.within("LabelSet"))?;
        ensure!(labels.value_of(ID).is_none(), "Labels cannot include label \"id\"");

        for (i, source) in self.sources.iter().enumerate() {
            check_source(source, parents).map_err(|e| e.within(format!("Sources[{i}]")))?;
            let previous = i.checked_sub(1).map(|p| self.sources[p].journal.as_str());
            ensure!(
                previous.is_none_or(|p| p < source.journal.as_str()),
                "Sources.Journal not in unique, sorted order (index {i}; {} <= {})",
                source.journal,
                previous.unwrap_or_default()
            );
        }
        Ok(())
    }

    fn check_log(&self, parents: Parents) -> Result<(), Invalid> {
        let hints = &self.hint_prefix;
        let Some(log) = self.recovery_log_str() else {
            ensure!(hints.is_empty(), "invalid non-empty HintPrefix with empty RecoveryLogPrefix ({hints})");
            return Ok(());
        };
        // A log is written as well as read, so its name has no metadata segment; a stored one may have.
        match parents {
            Parents::Refuse => JournalName::parse(&log).map(drop),
            Parents::Permit => check_journal(&log, parents),
        }
        .map_err(|e| e.within("RecoveryLogPrefix"))?;
        ensure!(
            hints.starts_with('/') && is_clean(hints),
            "HintPrefix is not an absolute, clean, non-directory path ({hints})"
        );
        Ok(())
    }
}

impl Validate for ShardSpec {
    fn validate(&self) -> Result<(), Invalid> {
        check_shard_id(&self.id).map_err(|e| e.within("Id"))?;
        self.check(Parents::Refuse)?;
        ensure!(
            self.hint_backups <= HINT_BACKUPS_MAX,
            "invalid HintBackups ({}; expected <= {HINT_BACKUPS_MAX})",
            self.hint_backups
        );
        Ok(())
    }
}

fn check_source(source: &shard_spec::Source, parents: Parents) -> Result<(), Invalid> {
    check_journal(&source.journal, parents).map_err(|e| e.within("Journal"))?;
    ensure!(source.min_offset >= 0, "invalid MinOffset ({}; expected >= 0)", source.min_offset);
    Ok(())
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::valid_shard_spec;
