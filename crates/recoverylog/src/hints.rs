//! Hints: what a player must read to rebuild the live files, and their stored form (consumer protocol §4.3, §4.8).
//!
//! Stored hints are JSON in the shapes that Go's encoder gives: 64-bit integers as numbers, zero scalars left out, empty
//! lists as `null`. Binary protobuf is read too; the first byte tells them apart. Hints come from etcd, which others
//! write to: whatever they hold must end in an error, not in a panic, and never in a path outside of the directory.

mod pick;

use crate::segment::{Segment, SegmentError, SegmentSet};
use crate::{Fnode, path};
use message::json;
use prost::Message;
use proto::recoverylog::{FnodeSegments, FsmHints, Property, Segment as ProtoSegment};
use proto::{Invalid, JournalName};
use serde::{Deserialize, Serialize};

pub use pick::pick;

/// Why hints cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HintsError {
    /// The stored value has no bytes.
    #[error("the stored hints are empty (expected JSON or protobuf)")]
    Empty,
    /// The stored value is not what its first byte says it is.
    #[error("the stored hints are not {format}: {cause}")]
    Undecodable {
        /// `JSON` or `protobuf`.
        format: &'static str,
        /// What the decoder says.
        cause: String,
    },
    /// The hints name no log.
    #[error("hinted log not provided")]
    NoLog,
    /// A value is out of its bounds.
    #[error("hints: {0}")]
    Invalid(#[from] Invalid),
    /// The segments contradict each other.
    #[error("hints: {0}")]
    Segments(#[from] SegmentError),
    /// A file's first segment does not begin with its creation.
    #[error("expected Fnode to match Segment FirstSeqNo: fnode {} vs {first:?}", fnode.0)]
    FnodeSegment {
        /// The file.
        fnode: Fnode,
        /// Sequence number of its first segment, if it has one.
        first: Option<i64>,
    },
    /// The files are not in strictly ascending order.
    #[error("expected monotonic Fnode ordering: {} vs {}", before.0, fnode.0)]
    FnodeOrder {
        /// The preceding file.
        before: Fnode,
        /// The file which is not larger.
        fnode: Fnode,
    },
    /// The last segment is of another log.
    #[error("expected hints.Log {log} to equal the last Segment Log {last}")]
    LastLog {
        /// The log of the hints.
        log: JournalName,
        /// The log of the last segment.
        last: JournalName,
    },
}

/// What hints say once checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSegments {
    /// The log to read on after the last segment.
    pub log: JournalName,
    /// The live files in ascending order.
    pub fnodes: Vec<Fnode>,
    /// The parts of logs which hold them.
    pub set: SegmentSet,
}

/// Checks hints, and flattens them into files and segments.
pub fn live_log_segments(hints: &FsmHints) -> Result<LiveSegments, HintsError> {
    if hints.log.is_empty() {
        return Err(HintsError::NoLog);
    }
    let log = JournalName::parse(&hints.log).map_err(|e| e.within("Log"))?;
    let (mut fnodes, mut set) = (Vec::<Fnode>::new(), SegmentSet::default());

    for (index, node) in hints.live_nodes.iter().enumerate() {
        let fnode = Fnode(node.fnode);
        let first = node.segments.first().map(|s| s.first_seq_no);
        if first != Some(node.fnode) {
            return Err(HintsError::FnodeSegment { fnode, first });
        }
        if let Some(before) = fnodes.last().copied().filter(|before| *before >= fnode) {
            return Err(HintsError::FnodeOrder { before, fnode });
        }
        fnodes.push(fnode);
        for segment in &node.segments {
            let segment = Segment::parse(segment, &log)
                .map_err(|e| e.within(format!("LiveNodes[{index}].Segments")))?;
            set.add(segment)?;
        }
    }
    if let Some(last) = set.segments().last().filter(|last| last.log != log) {
        return Err(HintsError::LastLog { log, last: last.log.clone() });
    }
    for (index, property) in hints.properties.iter().enumerate() {
        path::check(&property.path).map_err(|e| e.within(format!("Properties[{index}].Path")))?;
    }
    Ok(LiveSegments { log, fnodes, set })
}

/// The last sequence number that hints know of: of two hints of one history, the newer has the larger one.
pub fn last_seq_no(hints: &FsmHints) -> i64 {
    hints.live_nodes.iter().flat_map(|n| &n.segments).map(|s| s.last_seq_no).max().unwrap_or(0)
}

/// Decodes stored hints, JSON or protobuf, and checks them.
pub fn parse(value: &[u8]) -> Result<FsmHints, HintsError> {
    let hints = match value.first() {
        None => return Err(HintsError::Empty),
        Some(b'{') => json::decode::<HintsJson>(value)
            .map(HintsJson::into_proto)
            .map_err(|e| HintsError::Undecodable { format: "JSON", cause: e.to_string() })?,
        Some(_) => FsmHints::decode(value)
            .map_err(|e| HintsError::Undecodable { format: "protobuf", cause: e.to_string() })?,
    };
    live_log_segments(&hints)?;
    Ok(hints)
}

/// Encodes hints as stored.
pub fn to_json(hints: &FsmHints) -> Vec<u8> {
    let mut out = Vec::new();
    json::encode(&HintsJson::from_proto(hints), &mut out).expect("strings and integers always encode");
    out.truncate(out.len() - 1); // The line feed which ends a document of a journal.
    out
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct HintsJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    log: String,
    live_nodes: Option<Vec<NodeJson>>,
    properties: Option<Vec<PropertyJson>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct NodeJson {
    #[serde(skip_serializing_if = "is_zero")]
    fnode: i64,
    segments: Option<Vec<SegmentJson>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct SegmentJson {
    #[serde(skip_serializing_if = "is_zero")]
    author: u32,
    #[serde(skip_serializing_if = "is_zero")]
    first_seq_no: i64,
    #[serde(skip_serializing_if = "is_zero")]
    first_offset: i64,
    #[serde(skip_serializing_if = "is_zero")]
    first_checksum: u32,
    #[serde(skip_serializing_if = "is_zero")]
    last_seq_no: i64,
    #[serde(skip_serializing_if = "is_zero")]
    last_offset: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    log: String,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct PropertyJson {
    #[serde(skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    content: String,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An empty list is written as `null`.
fn list<T, U>(items: &[T], map: impl Fn(&T) -> U) -> Option<Vec<U>> {
    (!items.is_empty()).then(|| items.iter().map(map).collect())
}

fn unlist<T, U>(items: Option<Vec<T>>, map: impl Fn(T) -> U) -> Vec<U> {
    items.unwrap_or_default().into_iter().map(map).collect()
}

impl HintsJson {
    fn from_proto(hints: &FsmHints) -> HintsJson {
        HintsJson {
            log: hints.log.clone(),
            live_nodes: list(&hints.live_nodes, |node| NodeJson {
                fnode: node.fnode,
                segments: list(&node.segments, SegmentJson::from_proto),
            }),
            properties: list(&hints.properties, |p| PropertyJson {
                path: p.path.clone(),
                content: p.content.clone(),
            }),
        }
    }

    fn into_proto(self) -> FsmHints {
        FsmHints {
            log: self.log,
            live_nodes: unlist(self.live_nodes, |node| FnodeSegments {
                fnode: node.fnode,
                segments: unlist(node.segments, SegmentJson::into_proto),
            }),
            properties: unlist(self.properties, |p| Property { path: p.path, content: p.content }),
        }
    }
}

impl SegmentJson {
    fn from_proto(s: &ProtoSegment) -> SegmentJson {
        SegmentJson {
            author: s.author,
            first_seq_no: s.first_seq_no,
            first_offset: s.first_offset,
            first_checksum: s.first_checksum,
            last_seq_no: s.last_seq_no,
            last_offset: s.last_offset,
            log: s.log.clone(),
        }
    }

    fn into_proto(self) -> ProtoSegment {
        ProtoSegment {
            author: self.author,
            first_seq_no: self.first_seq_no,
            first_offset: self.first_offset,
            first_checksum: self.first_checksum,
            last_seq_no: self.last_seq_no,
            last_offset: self.last_offset,
            log: self.log,
        }
    }
}

#[cfg(test)]
mod tests;
