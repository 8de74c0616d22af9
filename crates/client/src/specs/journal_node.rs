//! One node of a journal tree: a directory, or a journal with its specification, perhaps partial.
//!
//! Fields are in the order in which they are printed. A zero field is not printed, and means "as the parent says".

use super::{
    CodecName, FlagsName, GoDuration, LabelList, SuspendLevelName, drop_equal, inherit, is_zero, keep_equal,
};
use proto::protocol::{JournalSpec, journal_spec};
use serde::{Deserialize, Serialize};

/// A directory (its name is empty or ends in `/`) or a journal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalNode {
    /// For readers; nothing else looks at it.
    #[serde(skip_serializing_if = "is_zero")]
    pub comment: String,
    /// Whether the journals are to be deleted; inherited where it is not set.
    #[serde(skip_serializing_if = "is_zero")]
    pub delete: Option<bool>,
    /// Full name, not relative to the parent.
    #[serde(skip_serializing_if = "is_zero")]
    pub name: String,
    /// See [`JournalSpec`], as the fields below.
    #[serde(skip_serializing_if = "is_zero")]
    pub replication: i32,
    /// Merged by name; a child's values win.
    #[serde(skip_serializing_if = "is_zero")]
    pub labels: LabelList,
    /// How content is cut into fragments and stored.
    #[serde(skip_serializing_if = "is_zero")]
    pub fragment: FragmentNode,
    /// What the journal permits.
    #[serde(skip_serializing_if = "is_zero")]
    pub flags: FlagsName,
    /// Bytes per second.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_append_rate: i64,
    /// Managed by brokers; neither inherited nor hoisted.
    #[serde(skip_serializing_if = "is_zero")]
    pub suspend: Option<SuspendNode>,
    /// Expected revision: zero creates, -1 does not care. Only journals have one.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision: i64,
    /// In ascending order of name. Only directories have them.
    #[serde(skip_serializing_if = "is_zero")]
    pub children: Vec<JournalNode>,
}

/// See [`journal_spec::Fragment`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FragmentNode {
    /// Bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub length: i64,
    /// Codec of stored fragments.
    #[serde(skip_serializing_if = "is_zero")]
    pub compression_codec: CodecName,
    /// Replaced wholesale by a child's; an empty list counts as set.
    #[serde(skip_serializing_if = "is_zero")]
    pub stores: Option<Vec<String>>,
    /// Interval between listings.
    #[serde(skip_serializing_if = "is_zero")]
    pub refresh_interval: GoDuration,
    /// Age after which stored fragments may be deleted.
    #[serde(skip_serializing_if = "is_zero")]
    pub retention: GoDuration,
    /// Interval at which fragments are closed.
    #[serde(skip_serializing_if = "is_zero")]
    pub flush_interval: GoDuration,
    /// Template of a path below the journal's directory.
    #[serde(skip_serializing_if = "is_zero")]
    pub path_postfix_template: String,
}

/// See [`journal_spec::Suspend`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuspendNode {
    /// How far.
    #[serde(skip_serializing_if = "is_zero")]
    pub level: SuspendLevelName,
    /// Lowest offset at which it resumes.
    #[serde(skip_serializing_if = "is_zero")]
    pub offset: i64,
}

impl JournalNode {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.name.is_empty() || self.name.ends_with('/')
    }

    /// The node of a listed journal.
    pub(super) fn from_spec(spec: &JournalSpec, revision: i64) -> JournalNode {
        let fragment = spec.fragment();
        JournalNode {
            name: spec.name.clone(),
            replication: spec.replication,
            labels: LabelList(spec.label_set().clone()),
            fragment: FragmentNode {
                length: fragment.length,
                compression_codec: CodecName(fragment.compression_codec),
                stores: Some(fragment.stores.clone()).filter(|s| !s.is_empty()),
                refresh_interval: GoDuration::from_proto(fragment.refresh_interval.as_ref()),
                retention: GoDuration::from_proto(fragment.retention.as_ref()),
                flush_interval: GoDuration::from_proto(fragment.flush_interval.as_ref()),
                path_postfix_template: fragment.path_postfix_template.clone(),
            },
            flags: FlagsName(spec.flags),
            max_append_rate: spec.max_append_rate,
            suspend: spec.suspend.map(|s| SuspendNode { level: SuspendLevelName(s.level), offset: s.offset }),
            revision,
            ..JournalNode::default()
        }
    }

    /// The specification which this node holds.
    pub fn to_spec(&self) -> JournalSpec {
        let fragment = &self.fragment;
        JournalSpec {
            name: self.name.clone(),
            replication: self.replication,
            labels: Some(self.labels.0.clone()),
            fragment: Some(journal_spec::Fragment {
                length: fragment.length,
                compression_codec: fragment.compression_codec.0,
                stores: fragment.stores.clone().unwrap_or_default(),
                refresh_interval: fragment.refresh_interval.to_proto(),
                retention: fragment.retention.to_proto(),
                flush_interval: fragment.flush_interval.to_proto(),
                path_postfix_template: fragment.path_postfix_template.clone(),
            }),
            flags: self.flags.0,
            max_append_rate: self.max_append_rate,
            suspend: self
                .suspend
                .as_ref()
                .map(|s| journal_spec::Suspend { level: s.level.0, offset: s.offset }),
        }
    }

    /// Takes from `parent` what this node leaves open.
    pub(super) fn inherit_from(&mut self, parent: &JournalNode) {
        inherit!(self, parent, delete, replication, flags, max_append_rate);
        self.labels.0 = self.labels.0.union(&parent.labels.0);
        inherit!(
            self.fragment,
            parent.fragment,
            length,
            compression_codec,
            stores,
            refresh_interval,
            retention
        );
        inherit!(self.fragment, parent.fragment, flush_interval, path_postfix_template);
    }

    /// Keeps of the fields which can be hoisted those which are equal in `other`.
    pub(super) fn keep_shared_with(&mut self, other: &JournalNode) {
        keep_equal!(self, other, replication, flags, max_append_rate);
        self.labels.0 = self.labels.0.intersect(&other.labels.0);
        keep_equal!(
            self.fragment,
            other.fragment,
            length,
            compression_codec,
            stores,
            refresh_interval,
            retention
        );
        keep_equal!(self.fragment, other.fragment, flush_interval, path_postfix_template);
    }

    /// Drops the fields which `parent` says already.
    pub(super) fn drop_shared_with(&mut self, parent: &JournalNode) {
        drop_equal!(self, parent, replication, flags, max_append_rate);
        self.labels.0 = self.labels.0.subtract(&parent.labels.0);
        drop_equal!(
            self.fragment,
            parent.fragment,
            length,
            compression_codec,
            stores,
            refresh_interval,
            retention
        );
        drop_equal!(self.fragment, parent.fragment, flush_interval, path_postfix_template);
    }
}
