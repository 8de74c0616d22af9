//! How the state of the embedded etcd is written down.
//!
//! Pure. A log file is a magic line and then frames: a header with the length, number and checksum of a payload and a
//! checksum of itself, and the payload, which is a protobuf message with entries. What is acknowledged together is one
//! frame, written in one go and synced before the next one is begun. So only the last frame can be torn, and damage
//! anywhere else is not the work of a crash. A file begins with a snapshot: identity, leases, the keys as they were at
//! the last compaction, the history since then, and a mark of its end.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::store::{Change, Effect, Kv, Store};

/// First bytes of a log file. The digit is the version of the format.
pub(crate) const MAGIC: &[u8; 16] = b"courant-etcd-1\n\0";
/// Length, number, checksum of the payload, checksum of the header.
pub(crate) const FRAME_HEADER_BYTES: usize = 20;
/// Payload of a snapshot's frames, about.
const SNAPSHOT_FRAME_BYTES: usize = 1 << 20;

/// Who this etcd is. Random, chosen when the directory is created; the term grows each time it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    pub(crate) raft_term: u64,
}

/// One entry of a log. Field numbers are stored.
#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Identity(StoredIdentity),
    /// The snapshot is of a store that was compacted at this revision.
    #[prost(int64, tag = "2")]
    Base(i64),
    /// A key as it was at that compaction.
    #[prost(message, tag = "3")]
    BaseKey(StoredKv),
    #[prost(message, tag = "4")]
    Revision(StoredRevision),
    #[prost(message, tag = "5")]
    Grant(StoredLease),
    #[prost(int64, tag = "6")]
    Revoke(i64),
    #[prost(int64, tag = "7")]
    Compact(i64),
    /// The snapshot is whole; what follows are effects.
    #[prost(bool, tag = "8")]
    SnapshotEnd(bool),
}

#[derive(Clone, PartialEq, Message)]
struct StoredIdentity {
    #[prost(fixed64, tag = "1")]
    cluster_id: u64,
    #[prost(fixed64, tag = "2")]
    member_id: u64,
    #[prost(uint64, tag = "3")]
    raft_term: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StoredKv {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
    #[prost(int64, tag = "3")]
    create_revision: i64,
    #[prost(int64, tag = "4")]
    mod_revision: i64,
    #[prost(int64, tag = "5")]
    version: i64,
    #[prost(int64, tag = "6")]
    lease: i64,
    #[prost(bool, tag = "7")]
    deleted: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StoredRevision {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<StoredKv>,
}

#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl_seconds: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<Entry>,
}

fn stored_kv(kv: &Kv, deleted: bool) -> StoredKv {
    StoredKv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
        deleted,
    }
}

fn kv_of(stored: StoredKv) -> Kv {
    Kv {
        key: stored.key,
        value: stored.value,
        create_revision: stored.create_revision,
        mod_revision: stored.mod_revision,
        version: stored.version,
        lease: stored.lease,
    }
}

fn kind_of(effect: &Effect) -> Kind {
    match effect {
        Effect::Revision { revision, changes } => Kind::Revision(StoredRevision {
            revision: *revision,
            changes: changes.iter().map(|c| stored_kv(&c.kv, c.deleted)).collect(),
        }),
        Effect::Grant { id, ttl_seconds } => Kind::Grant(StoredLease { id: *id, ttl_seconds: *ttl_seconds }),
        Effect::Revoke { id } => Kind::Revoke(*id),
        Effect::Compact { revision } => Kind::Compact(*revision),
    }
}

/// Appends a frame with `payload` to `out`.
fn put_frame(out: &mut Vec<u8>, number: u64, payload: &Payload) {
    let start = out.len();
    out.resize(start + FRAME_HEADER_BYTES, 0);
    payload.encode(out).expect("a vector has room for every message");
    let body = start + FRAME_HEADER_BYTES;
    let length = u32::try_from(out.len() - body).expect("a batch is bounded far below 4 GiB");
    let checksum = crc32c::crc32c(&out[body..]);
    let header = &mut out[start..body];
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4..12].copy_from_slice(&number.to_le_bytes());
    header[12..16].copy_from_slice(&checksum.to_le_bytes());
    let own = crc32c::crc32c(&header[..16]);
    header[16..20].copy_from_slice(&own.to_le_bytes());
}

/// The frame which makes `effects` durable.
pub(crate) fn effects_frame(number: u64, effects: &[Effect]) -> Vec<u8> {
    let entries = effects.iter().map(|effect| Entry { kind: Some(kind_of(effect)) }).collect();
    let mut out = Vec::new();
    put_frame(&mut out, number, &Payload { entries });
    out
}

/// A whole new log file which holds `store`, and the number of its next frame.
pub(crate) fn snapshot(identity: Identity, store: &Store) -> (Vec<u8>, u64) {
    let mut writer = SnapshotWriter { out: MAGIC.to_vec(), number: 0, entries: Vec::new(), bytes: 0 };
    let Identity { cluster_id, member_id, raft_term } = identity;
    writer.add(Kind::Identity(StoredIdentity { cluster_id, member_id, raft_term }));
    writer.add(Kind::Base(store.compacted()));
    for (id, ttl_seconds) in store.leases() {
        writer.add(Kind::Grant(StoredLease { id, ttl_seconds }));
    }
    for kv in store.base() {
        writer.add(Kind::BaseKey(stored_kv(kv, false)));
    }
    for (revision, changes) in store.revisions() {
        writer.add(kind_of(&Effect::Revision { revision, changes: Arc::clone(changes) }));
    }
    writer.add(Kind::SnapshotEnd(true));
    writer.flush();
    (writer.out, writer.number)
}

struct SnapshotWriter {
    out: Vec<u8>,
    number: u64,
    entries: Vec<Entry>,
    bytes: usize,
}

impl SnapshotWriter {
    fn add(&mut self, kind: Kind) {
        let entry = Entry { kind: Some(kind) };
        self.bytes += entry.encoded_len();
        self.entries.push(entry);
        if self.bytes >= SNAPSHOT_FRAME_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let payload = Payload { entries: std::mem::take(&mut self.entries) };
        put_frame(&mut self.out, self.number, &payload);
        self.number += 1;
        self.bytes = 0;
    }
}

/// A log file is damaged in a way that a crash cannot cause.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("damaged at offset {offset}: {what}")]
pub struct Damage {
    /// Byte offset in the file.
    pub offset: usize,
    /// What was found there.
    pub what: String,
}

fn damage<T>(offset: usize, what: impl Into<String>) -> Result<T, Damage> {
    Err(Damage { offset, what: what.into() })
}

/// A log file, read.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    /// Length of the file without a torn last frame.
    pub(crate) length: usize,
    /// Number of the next frame.
    pub(crate) next_number: u64,
    /// Length of the snapshot that the file begins with.
    pub(crate) snapshot_bytes: usize,
}

/// Reads a log file. Leases get their whole time from `now` on.
pub(crate) fn load(file: &[u8], now: Duration) -> Result<Loaded, Damage> {
    if !file.starts_with(MAGIC) {
        return damage(0, "it does not begin as a log of the embedded etcd");
    }
    let mut loader = Loader::default();
    let (mut offset, mut number) = (MAGIC.len(), 0);
    while let Some(payload) = next_frame(file, offset, number)? {
        let decoded = match Payload::decode(&file[payload.clone()]) {
            Ok(decoded) => decoded,
            Err(error) => return damage(offset, format!("frame {number}: {error}")),
        };
        for entry in decoded.entries {
            if let Err(what) = loader.add(entry, payload.end, now) {
                return damage(offset, format!("frame {number}: {what}"));
            }
        }
        offset = payload.end;
        number += 1;
    }
    match (loader.identity, loader.store, loader.snapshot_bytes) {
        (Some(identity), Some(store), Some(snapshot_bytes)) => {
            Ok(Loaded { identity, store, length: offset, next_number: number, snapshot_bytes })
        }
        // A file gets its name when its snapshot is durable.
        _ => damage(offset, "the snapshot at its beginning is incomplete"),
    }
}

/// Where the payload of the frame at `offset` lies; `None` at the end, and where the last frame is torn.
fn next_frame(file: &[u8], offset: usize, number: u64) -> Result<Option<Range<usize>>, Damage> {
    let Some(header) = FrameHeader::read(file, offset) else {
        let later = (offset + 1..file.len()).find(|at| is_frame(file, *at, number));
        return match later {
            Some(at) => {
                damage(offset, format!("frame {number} has no valid header, though one follows at {at}"))
            }
            None => Ok(None),
        };
    };
    if header.number != number {
        return damage(offset, format!("frame {} where frame {number} was expected", header.number));
    }
    let Some(payload) = header.payload(file, offset) else { return Ok(None) };
    if crc32c::crc32c(&file[payload.clone()]) == header.checksum {
        Ok(Some(payload))
    } else if payload.end == file.len() {
        Ok(None)
    } else {
        damage(offset, format!("frame {number} does not match its checksum"))
    }
}

/// Whether a whole frame, numbered `number` or later, begins at `offset`.
fn is_frame(file: &[u8], offset: usize, number: u64) -> bool {
    FrameHeader::read(file, offset).is_some_and(|header| {
        let payload = header.payload(file, offset);
        header.number >= number && payload.is_some_and(|p| crc32c::crc32c(&file[p]) == header.checksum)
    })
}

struct FrameHeader {
    length: usize,
    number: u64,
    checksum: u32,
}

impl FrameHeader {
    /// The header at `offset`, if one is there and is sound.
    fn read(file: &[u8], offset: usize) -> Option<FrameHeader> {
        let header: &[u8; FRAME_HEADER_BYTES] = file.get(offset..)?.first_chunk()?;
        let u32_at =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if crc32c::crc32c(&header[..16]) != u32_at(16) {
            return None;
        }
        let number = u64::from(u32_at(4)) | u64::from(u32_at(8)) << 32;
        Some(FrameHeader { length: usize::try_from(u32_at(0)).ok()?, number, checksum: u32_at(12) })
    }

    fn payload(&self, file: &[u8], offset: usize) -> Option<Range<usize>> {
        let start = offset + FRAME_HEADER_BYTES;
        let end = start.checked_add(self.length)?;
        (end <= file.len()).then_some(start..end)
    }
}

#[derive(Default)]
struct Loader {
    identity: Option<Identity>,
    store: Option<Store>,
    snapshot_bytes: Option<usize>,
}

impl Loader {
    fn add(&mut self, entry: Entry, frame_end: usize, now: Duration) -> Result<(), String> {
        let kind = entry.kind.ok_or("an entry of an unknown kind")?;
        match (kind, &mut self.store) {
            (Kind::Identity(stored), _) => {
                let StoredIdentity { cluster_id, member_id, raft_term } = stored;
                if cluster_id == 0 || member_id == 0 || raft_term == 0 {
                    return Err("an identity with a zero".to_owned());
                }
                self.identity = Some(Identity { cluster_id, member_id, raft_term });
                Ok(())
            }
            (Kind::Base(compacted), None) if (-1..i64::MAX).contains(&compacted) => {
                self.store = Some(Store::at(compacted));
                Ok(())
            }
            (Kind::Base(_), _) => Err("a second or malformed base".to_owned()),
            (_, None) => Err("an entry before the base".to_owned()),
            (Kind::BaseKey(_), _) if self.snapshot_bytes.is_some() => {
                Err("a base key after the snapshot".to_owned())
            }
            (Kind::BaseKey(kv), Some(store)) => store.restore_base(kv_of(kv)),
            (Kind::SnapshotEnd(_), Some(_)) => {
                self.snapshot_bytes = Some(frame_end);
                Ok(())
            }
            (Kind::Revision(stored), Some(store)) => {
                let changes = stored.changes.into_iter().map(|kv| {
                    let deleted = kv.deleted;
                    Change { kv: Arc::new(kv_of(kv)), deleted }
                });
                store.replay(Effect::Revision { revision: stored.revision, changes: changes.collect() }, now)
            }
            (Kind::Grant(lease), Some(store)) => {
                store.replay(Effect::Grant { id: lease.id, ttl_seconds: lease.ttl_seconds }, now)
            }
            (Kind::Revoke(id), Some(store)) => store.replay(Effect::Revoke { id }, now),
            (Kind::Compact(revision), Some(store)) => store.replay(Effect::Compact { revision }, now),
        }
    }
}

/// The frame which records that the store was opened anew, under a new term.
pub(crate) fn identity_frame(number: u64, identity: Identity) -> Vec<u8> {
    let Identity { cluster_id, member_id, raft_term } = identity;
    let kind = Kind::Identity(StoredIdentity { cluster_id, member_id, raft_term });
    let mut out = Vec::new();
    put_frame(&mut out, number, &Payload { entries: vec![Entry { kind: Some(kind) }] });
    out
}

#[cfg(test)]
mod tests;
