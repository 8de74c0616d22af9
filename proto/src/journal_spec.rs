//! Journal specifications: their rules, and what they mean.
//!
//! There are two checks. [`Validate::validate`] is for specifications which are about to be applied; it also refuses `..`
//! elements in names and store paths. [`JournalSpec::validate_stored`] is for those decoded from etcd or listed by
//! a peer: a member which refuses what its peers accept takes their journals for deleted ones and stalls the cluster when it
//! leads, so it is exactly as strict as the protocol. Neither looks into `path_postfix_template`: evaluating templates is the
//! business of fragment naming, and whoever applies specifications checks it there.

use crate::duration::{format_go, to_nanos, to_std};
use crate::invalid::{Invalid, Validate, ensure};
use crate::label_set::EMPTY;
use crate::labels::{CONTENT_TYPE, MESSAGE_SUBTYPE, MESSAGE_TYPE, NAME, PREFIX};
use crate::media_type::check_media_type;
use crate::names::{self, JournalName, Parents};
use crate::protocol::journal_spec::{Flag, Fragment, Suspend, suspend};
use crate::protocol::{CompressionCodec, JournalSpec, LabelSet};
use crate::status::check_codec;
use crate::store_url;
use std::time::Duration;

/// Replicas which a specification may ask for at most.
pub const REPLICATION_MAX: i32 = 5;
/// Bounds of the length at which fragments are closed, in bytes.
pub const FRAGMENT_LENGTH: std::ops::RangeInclusive<i64> = 1 << 10..=1 << 34;

const SECOND: i64 = 1_000_000_000;
const REFRESH_INTERVAL_NANOS: (i64, i64) = (SECOND, 24 * 3600 * SECOND);
const FLUSH_INTERVAL_NANOS_MIN: i64 = 60 * SECOND;

static EMPTY_FRAGMENT: Fragment = Fragment {
    length: 0,
    compression_codec: 0,
    stores: Vec::new(),
    refresh_interval: None,
    retention: None,
    flush_interval: None,
    path_postfix_template: String::new(),
};

impl JournalSpec {
    /// The name, if it may be served: see [`JournalName::parse`].
    pub fn journal_name(&self) -> Result<JournalName, Invalid> {
        JournalName::parse(&self.name).map_err(|e| e.within("Name"))
    }

    /// The labels; empty where they are absent.
    pub fn label_set(&self) -> &LabelSet {
        self.labels.as_ref().unwrap_or(&EMPTY)
    }

    /// The labels and the meta-label `name`: what selectors are matched against.
    pub fn labels_with_name(&self) -> LabelSet {
        self.label_set().clone().with(NAME, self.name.as_str())
    }

    /// How content is cut into fragments and stored; zero values where it is absent.
    pub fn fragment(&self) -> &Fragment {
        self.fragment.as_ref().unwrap_or(&EMPTY_FRAGMENT)
    }

    /// Codec of stored fragments; INVALID if it is not known.
    pub fn codec(&self) -> CompressionCodec {
        self.fragment().compression_codec()
    }

    /// Interval between listings of the stores.
    pub fn refresh_interval(&self) -> Duration {
        to_std(self.fragment().refresh_interval.as_ref())
    }

    /// Interval at whose UTC multiples fragments are closed, if they are.
    pub fn flush_interval(&self) -> Option<Duration> {
        Some(to_std(self.fragment().flush_interval.as_ref())).filter(|d| !d.is_zero())
    }

    /// Age after which stored fragments may be deleted; none keeps them.
    pub fn retention(&self) -> Option<Duration> {
        Some(to_std(self.fragment().retention.as_ref())).filter(|d| !d.is_zero())
    }

    /// Whether the flags permit reads.
    pub fn is_readable(&self) -> bool {
        self.flags == 0 || self.flags == Flag::ORdonly as u32 || self.flags == Flag::ORdwr as u32
    }

    /// Whether the flags permit appends.
    pub fn is_writable(&self) -> bool {
        self.flags == 0 || self.flags == Flag::OWronly as u32 || self.flags == Flag::ORdwr as u32
    }

    /// How far the journal is suspended; NONE where that is absent.
    pub fn suspend_level(&self) -> suspend::Level {
        self.suspend.map_or(suspend::Level::None, |s| s.level())
    }

    /// Replicas to assign: as specified, but one while partially suspended and none while fully; at most `max`.
    pub fn desired_replication(&self, max: i32) -> i32 {
        let wanted = match self.suspend_level() {
            suspend::Level::None => self.replication,
            suspend::Level::Partial => 1,
            suspend::Level::Full => 0,
        };
        wanted.min(max)
    }

    /// The rules for specifications which are already in etcd; see the module's documentation.
    pub fn validate_stored(&self) -> Result<(), Invalid> {
        self.check(Parents::Permit)
    }

    fn check(&self, parents: Parents) -> Result<(), Invalid> {
        names::check_journal(&self.name, parents).map_err(|e| e.within("Name"))?;
        if let (_, Some(meta)) = names::split(&self.name) {
            return Err(Invalid::new(format!(
                "Name cannot have a metadata path segment (;{meta}; expected no segment)"
            )));
        }
        ensure!(
            (1..=REPLICATION_MAX).contains(&self.replication),
            "invalid Replication ({}; expected 1 <= Replication <= {REPLICATION_MAX})",
            self.replication
        );
        let labels = self.label_set();
        labels.validate().map_err(|e| e.within("Labels"))?;
        for reserved in [NAME, PREFIX] {
            ensure!(labels.value_of(reserved).is_none(), "Labels cannot include label {reserved:?}");
        }
        check_label_constraints(labels).map_err(|e| e.within("Labels"))?;
        check_fragment(self.fragment(), parents).map_err(|e| e.within("Fragment"))?;
        check_flags(self.flags).map_err(|e| e.within("Flags"))?;
        ensure!(self.max_append_rate >= 0, "invalid MaxAppendRate ({}; expected >= 0)", self.max_append_rate);
        self.suspend.map_or(Ok(()), check_suspend).map_err(|e| e.within("Suspend"))
    }
}

impl Validate for JournalSpec {
    fn validate(&self) -> Result<(), Invalid> {
        self.check(Parents::Refuse)
    }
}

fn check_label_constraints(labels: &LabelSet) -> Result<(), Invalid> {
    labels.check_single_values()?;
    let content_type = labels.value_of(CONTENT_TYPE);
    if let Some(media_type) = content_type {
        check_media_type(media_type).map_err(|e| Invalid::new(format!("parsing {CONTENT_TYPE}: {e}")))?;
    }
    let message_type = labels.value_of(MESSAGE_TYPE);
    ensure!(
        message_type.is_none() || content_type.is_some(),
        "expected {CONTENT_TYPE} label alongside {MESSAGE_TYPE}"
    );
    ensure!(
        labels.value_of(MESSAGE_SUBTYPE).is_none() || message_type.is_some(),
        "expected {MESSAGE_TYPE} label alongside {MESSAGE_SUBTYPE}"
    );
    Ok(())
}

fn check_fragment(fragment: &Fragment, parents: Parents) -> Result<(), Invalid> {
    ensure!(
        FRAGMENT_LENGTH.contains(&fragment.length),
        "invalid Length ({}; expected {} <= length <= {})",
        fragment.length,
        FRAGMENT_LENGTH.start(),
        FRAGMENT_LENGTH.end()
    );
    check_codec(fragment.compression_codec)?;
    for (i, store) in fragment.stores.iter().enumerate() {
        let parts = store_url::check(store, parents).map_err(|e| e.within(format!("Stores[{i}]")))?;
        let offload = fragment.compression_codec() == CompressionCodec::GzipOffloadDecompression;
        ensure!(
            i != 0 || !offload || parts.scheme != "file",
            "GZIP_OFFLOAD_DECOMPRESSION is incompatible with file:// stores ({store})"
        );
    }
    let nanos =
        |field: &str, d: &Option<prost_types::Duration>| to_nanos(d.as_ref()).map_err(|e| e.within(field));
    let refresh = nanos("RefreshInterval", &fragment.refresh_interval)?;
    let (min, max) = REFRESH_INTERVAL_NANOS;
    ensure!(
        (min..=max).contains(&refresh),
        "invalid RefreshInterval ({}; expected {} <= interval <= {})",
        format_go(refresh),
        format_go(min),
        format_go(max)
    );
    let flush = nanos("FlushInterval", &fragment.flush_interval)?;
    ensure!(
        flush == 0 || flush >= FLUSH_INTERVAL_NANOS_MIN,
        "invalid FlushInterval ({}; expected >= {})",
        format_go(flush),
        format_go(FLUSH_INTERVAL_NANOS_MIN)
    );
    nanos("Retention", &fragment.retention).map(|_any| ())
}

fn check_flags(flags: u32) -> Result<(), Invalid> {
    let known = i32::try_from(flags).is_ok_and(|f| Flag::try_from(f).is_ok());
    ensure!(known, "invalid combination ({flags})");
    Ok(())
}

fn check_suspend(suspend: Suspend) -> Result<(), Invalid> {
    ensure!(suspend::Level::try_from(suspend.level).is_ok(), "invalid Level ({})", suspend.level);
    ensure!(suspend.offset >= 0, "invalid Offset ({}; expected >= 0)", suspend.offset);
    Ok(())
}

#[cfg(test)]
mod tests;
