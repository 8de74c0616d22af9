//! YAML forms of values: durations as `1m30s`, enumerations by name, labels as lists.

use proto::duration::{WireDuration, format_go, parse_go};
use proto::protocol::journal_spec::{Flag, suspend::Level};
use proto::protocol::{CompressionCodec, Label, LabelSet};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// A duration in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GoDuration(pub i64);

/// A compression codec, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CodecName(pub i32);

/// Journal flags: a name, or a number where there is no name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlagsName(pub u32);

/// A level of suspension: a name, or a number where there is no name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SuspendLevelName(pub i32);

/// Labels, as a list of names and values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelList(pub LabelSet);

impl GoDuration {
    /// From the wire form; malformed durations, which validation refuses, become zero.
    pub(crate) fn from_proto(duration: Option<&WireDuration>) -> GoDuration {
        GoDuration(proto::duration::to_nanos(duration).unwrap_or(0))
    }

    /// The wire form.
    pub(crate) fn to_proto(self) -> Option<WireDuration> {
        Some(proto::duration::from_nanos(self.0))
    }
}

/// Parses the text of a scalar as it is written. Failing within the visitor lets the error name the key.
struct ScalarVisitor<P>(P);

impl<T, P: FnOnce(&str) -> Result<T, String>> Visitor<'_> for ScalarVisitor<P> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

/// Either a number, or one of the named values.
fn number_or_name<T: std::str::FromStr>(
    text: &str,
    by_name: impl Fn(&str) -> Option<T>,
    options: &str,
) -> Result<T, String> {
    let named = || by_name(text).ok_or_else(|| format!("{text:?} is not known (options are {options})"));
    text.parse().or_else(|_not_a_number| named())
}

fn parse_duration(text: &str) -> Result<GoDuration, String> {
    // A plain number counts nanoseconds.
    let nanos = text.parse().or_else(|_not_a_number| parse_go(text));
    nanos.map(GoDuration).map_err(|e| e.to_string())
}

fn parse_codec(text: &str) -> Result<CodecName, String> {
    let codec = CompressionCodec::from_str_name(text).ok_or_else(|| {
        let options = "NONE, GZIP, ZSTANDARD, SNAPPY, GZIP_OFFLOAD_DECOMPRESSION";
        format!("{text:?} is not a compression codec (options are {options})")
    })?;
    Ok(CodecName(codec.into()))
}

fn parse_flags(text: &str) -> Result<FlagsName, String> {
    let by_name = |name: &str| Flag::from_str_name(name).map(|flag| flag as u32);
    number_or_name(text, by_name, "NOT_SPECIFIED, O_RDONLY, O_WRONLY, O_RDWR, or a number").map(FlagsName)
}

fn parse_level(text: &str) -> Result<SuspendLevelName, String> {
    let by_name = |name: &str| Level::from_str_name(name).map(i32::from);
    number_or_name(text, by_name, "NONE, PARTIAL, FULL, or a number").map(SuspendLevelName)
}

macro_rules! deserialize_scalar {
    ($($type:ident by $parse:ident),+) => { $(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(ScalarVisitor($parse))
            }
        }
    )+ };
}

deserialize_scalar!(GoDuration by parse_duration, CodecName by parse_codec, FlagsName by parse_flags);
deserialize_scalar!(SuspendLevelName by parse_level);

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_go(self.0))
    }
}

impl Serialize for CodecName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = CompressionCodec::try_from(self.0).map_or("INVALID", |codec| codec.as_str_name());
        serializer.serialize_str(name)
    }
}

impl Serialize for FlagsName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let flag = i32::try_from(self.0).ok().and_then(|f| Flag::try_from(f).ok());
        match flag {
            Some(flag) => serializer.serialize_str(flag.as_str_name()),
            None => serializer.serialize_u32(self.0),
        }
    }
}

impl Serialize for SuspendLevelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Level::try_from(self.0) {
            Ok(level) => serializer.serialize_str(level.as_str_name()),
            Err(_unnamed) => serializer.serialize_i32(self.0),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LabelEntry<'a> {
    name: Cow<'a, str>,
    #[serde(default)]
    value: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "super::is_zero")]
    prefix: bool,
}

impl<'de> Deserialize<'de> for LabelList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Vec::<LabelEntry<'_>>::deserialize(deserializer)?;
        let labels = entries.into_iter().map(|LabelEntry { name, value, prefix }| Label {
            name: name.into_owned(),
            value: value.into_owned(),
            prefix,
        });
        // Order and duplicates are for validation to judge.
        Ok(LabelList(LabelSet { labels: labels.collect() }))
    }
}

impl Serialize for LabelList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.labels.iter().map(|label| LabelEntry {
            name: Cow::Borrowed(&label.name),
            value: Cow::Borrowed(&label.value),
            prefix: label.prefix,
        }))
    }
}
