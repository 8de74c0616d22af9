//! Sets of shards: what is common to all, and each shard with what is its own.

use super::{GoDuration, LabelList, SpecError, drop_equal, inherit, is_zero, keep_equal};
use proto::Validate;
use proto::consumer::{ApplyRequest, ListResponse, ShardSpec, apply_request, shard_spec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardSet {
    /// Holds for every shard which does not say otherwise. It has no id, comment, deletion or revision.
    #[serde(skip_serializing_if = "is_zero")]
    pub common: ShardNode,
    /// The shards.
    pub shards: Vec<ShardNode>,
}

/// A shard with its specification, perhaps partial. Fields are in the order in which they are printed; a zero field is
/// not printed, and means "as `common` says".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShardNode {
    /// For readers; nothing else looks at it.
    #[serde(skip_serializing_if = "is_zero")]
    pub comment: String,
    /// Whether the shard is to be deleted.
    #[serde(skip_serializing_if = "is_zero")]
    pub delete: Option<bool>,
    /// See [`ShardSpec`], as the fields below.
    #[serde(skip_serializing_if = "is_zero")]
    pub id: String,
    /// Replaced wholesale by a shard's own.
    #[serde(skip_serializing_if = "is_zero")]
    pub sources: Vec<SourceNode>,
    /// The recovery log is `{prefix}/{id}`.
    #[serde(skip_serializing_if = "is_zero")]
    pub recovery_log_prefix: String,
    /// Prefix of hint keys in etcd.
    #[serde(skip_serializing_if = "is_zero")]
    pub hint_prefix: String,
    /// Number of backup hints.
    #[serde(skip_serializing_if = "is_zero")]
    pub hint_backups: i32,
    /// Longest transaction.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_txn_duration: GoDuration,
    /// Shortest transaction.
    #[serde(skip_serializing_if = "is_zero")]
    pub min_txn_duration: GoDuration,
    /// Set if either the shard or `common` says so, as all flags.
    #[serde(skip_serializing_if = "is_zero")]
    pub disable: bool,
    /// Replicas beyond the primary.
    #[serde(skip_serializing_if = "is_zero")]
    pub hot_standbys: u32,
    /// Merged by name; a shard's values win.
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: LabelList,
    /// Do not hold transactions open for acknowledgements.
    #[serde(skip_serializing_if = "is_zero")]
    pub disable_wait_for_ack: bool,
    /// Messages.
    #[serde(skip_serializing_if = "is_zero")]
    pub ring_buffer_size: u32,
    /// Messages.
    #[serde(skip_serializing_if = "is_zero")]
    pub read_channel_size: u32,
    /// Expected revision: zero creates, -1 does not care.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: i64,
}

/// A journal which a shard reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceNode {
    /// Name, perhaps with `;meta`.
    pub journal: String,
    /// Lower bound of the offset from which it is read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_offset: i64,
}

impl ShardSet {
    /// Parses a set, strictly, and checks its form. Specifications may still be partial.
    pub fn parse(yaml: &str) -> Result<ShardSet, SpecError> {
        let set: ShardSet = serde_yaml_ng::from_str(yaml)?;
        set.check_form()?;
        Ok(set)
    }

    /// The changes which this set asks for: everything pushed down, and valid.
    pub fn to_apply_request(&self) -> Result<ApplyRequest, SpecError> {
        self.check_form()?;
        let mut set = self.clone();
        set.push_down();
        let changes = set.shards.iter().map(ShardNode::to_change).collect::<Result<_, _>>()?;
        Ok(ApplyRequest { changes, ..ApplyRequest::default() })
    }

    /// The set of a listing, with what all shards share hoisted into `common`.
    pub fn from_list(list: &ListResponse) -> ShardSet {
        let specs = list.shards.iter().filter_map(|s| Some((s.spec.as_ref()?, s.mod_revision)));
        let shards = specs.map(|(spec, revision)| ShardNode::from_spec(spec, revision)).collect();
        let mut set = ShardSet { common: ShardNode::default(), shards };
        set.hoist();
        set
    }

    /// Prints the set.
    pub fn to_yaml(&self) -> Result<String, SpecError> {
        Ok(serde_yaml_ng::to_string(self)?)
    }

    /// Gives every shard what `common` says.
    pub fn push_down(&mut self) {
        for shard in &mut self.shards {
            shard.inherit_from(&self.common);
        }
        self.common = ShardNode::default();
    }

    fn check_form(&self) -> Result<(), SpecError> {
        let ShardNode { comment, delete, id, revision, .. } = &self.common;
        if !(is_zero(comment) && is_zero(delete) && is_zero(id) && is_zero(revision)) {
            return Err(SpecError::new("common", "cannot have a comment, delete, id or revision"));
        }
        let mut ids = BTreeSet::new();
        for shard in &self.shards {
            if !ids.insert(&shard.id) {
                return Err(SpecError::new(&shard.id, "the shard is listed twice"));
            }
        }
        Ok(())
    }

    fn hoist(&mut self) {
        let Some((first, others)) = self.shards.split_first() else { return };
        let mut shared = first.clone();
        for shard in others {
            shared.keep_shared_with(shard);
        }
        self.common.inherit_from(&shared);
        for shard in &mut self.shards {
            shard.drop_shared_with(&self.common);
        }
    }
}

impl ShardNode {
    fn from_spec(spec: &ShardSpec, revision: i64) -> ShardNode {
        let source =
            |s: &shard_spec::Source| SourceNode { journal: s.journal.clone(), min_offset: s.min_offset };
        ShardNode {
            comment: String::new(),
            delete: None,
            id: spec.id.clone(),
            sources: spec.sources.iter().map(source).collect(),
            recovery_log_prefix: spec.recovery_log_prefix.clone(),
            hint_prefix: spec.hint_prefix.clone(),
            hint_backups: spec.hint_backups,
            max_txn_duration: GoDuration::from_proto(spec.max_txn_duration.as_ref()),
            min_txn_duration: GoDuration::from_proto(spec.min_txn_duration.as_ref()),
            disable: spec.disable,
            hot_standbys: spec.hot_standbys,
            labels: LabelList(spec.label_set().clone()),
            disable_wait_for_ack: spec.disable_wait_for_ack,
            ring_buffer_size: spec.ring_buffer_size,
            read_channel_size: spec.read_channel_size,
            revision,
        }
    }

    /// The specification which this node holds.
    pub fn to_spec(&self) -> ShardSpec {
        let source =
            |s: &SourceNode| shard_spec::Source { journal: s.journal.clone(), min_offset: s.min_offset };
        ShardSpec {
            id: self.id.clone(),
            sources: self.sources.iter().map(source).collect(),
            recovery_log_prefix: self.recovery_log_prefix.clone(),
            hint_prefix: self.hint_prefix.clone(),
            hint_backups: self.hint_backups,
            max_txn_duration: self.max_txn_duration.to_proto(),
            min_txn_duration: self.min_txn_duration.to_proto(),
            disable: self.disable,
            hot_standbys: self.hot_standbys,
            labels: Some(self.labels.0.clone()),
            disable_wait_for_ack: self.disable_wait_for_ack,
            ring_buffer_size: self.ring_buffer_size,
            read_channel_size: self.read_channel_size,
        }
    }

    fn to_change(&self) -> Result<apply_request::Change, SpecError> {
        let mut change = apply_request::Change { expect_mod_revision: self.revision, ..Default::default() };
        if self.delete == Some(true) {
            change.delete = self.id.clone();
        } else {
            change.upsert = Some(self.to_spec());
        }
        change.validate().map_err(|e| SpecError::new(&self.id, e))?;
        Ok(change)
    }

    fn inherit_from(&mut self, common: &ShardNode) {
        inherit!(self, common, sources, recovery_log_prefix, hint_prefix, hint_backups, max_txn_duration);
        inherit!(
            self,
            common,
            min_txn_duration,
            disable,
            hot_standbys,
            disable_wait_for_ack,
            ring_buffer_size
        );
        inherit!(self, common, read_channel_size);
        self.labels.0 = self.labels.0.union(&common.labels.0);
    }

    fn keep_shared_with(&mut self, other: &ShardNode) {
        keep_equal!(self, other, sources, recovery_log_prefix, hint_prefix, hint_backups, max_txn_duration);
        keep_equal!(
            self,
            other,
            min_txn_duration,
            disable,
            hot_standbys,
            disable_wait_for_ack,
            ring_buffer_size
        );
        keep_equal!(self, other, read_channel_size);
        self.labels.0 = self.labels.0.intersect(&other.labels.0);
    }

    fn drop_shared_with(&mut self, common: &ShardNode) {
        drop_equal!(self, common, sources, recovery_log_prefix, hint_prefix, hint_backups, max_txn_duration);
        drop_equal!(
            self,
            common,
            min_txn_duration,
            disable,
            hot_standbys,
            disable_wait_for_ack,
            ring_buffer_size
        );
        drop_equal!(self, common, read_channel_size);
        self.labels.0 = self.labels.0.subtract(&common.labels.0);
    }
}
