//! Random operations over a few keys and leases, valid and not.

use etcd_client::proto as pb;
use runtime::Entropy;

/// Few, so that operations meet; and at most 12, since beyond that etcd does not sort ties stably.
const KEYS: [&[u8]; 12] =
    [b"a", b"aa", b"ab", b"b", b"k/1", b"k/2", b"k/3", b"k/3/x", b"k/4", b"\xff", b"\x01", b"z"];
const ENDS: [&[u8]; 9] = [b"", b"", b"\0", b"b", b"k0", b"k/3\0", b"l", b"a", b"\xff\xff"];
const LEASES: u64 = 6;

#[derive(Debug, Clone)]
pub enum Op {
    Put(pb::PbPutRequest),
    Range(pb::PbRangeRequest),
    Delete(pb::PbDeleteRequest),
    Txn(pb::PbTxnRequest),
    Compact(pb::PbCompactionRequest),
    /// Watches of one stream.
    Watch(Vec<WatchOp>),
    Grant(pb::PbLeaseGrantRequest),
    Revoke(pb::PbLeaseRevokeRequest),
    TimeToLive(pb::PbLeaseTimeToLiveRequest),
    Leases,
    KeepAlive(pb::PbLeaseKeepAliveRequest),
}

impl Op {
    pub fn name(&self) -> &'static str {
        match self {
            Op::Put(_) => "put",
            Op::Range(_) => "range",
            Op::Delete(_) => "delete",
            Op::Txn(_) => "txn",
            Op::Compact(_) => "compact",
            Op::Watch(_) => "watch",
            Op::Grant(_) => "grant",
            Op::Revoke(_) => "revoke",
            Op::TimeToLive(_) => "time-to-live",
            Op::Leases => "leases",
            Op::KeepAlive(_) => "keep-alive",
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct WatchOp {
    key: Vec<u8>,
    range_end: Vec<u8>,
    start_revision: i64,
    prev_kv: bool,
    filters: Vec<i32>,
    watch_id: i64,
}

impl WatchOp {
    pub fn everything() -> WatchOp {
        WatchOp { range_end: vec![0], ..Default::default() }
    }

    pub fn request(&self) -> pb::PbWatchRequest {
        let mut union = pb::PbWatchRequestUnion::CreateRequest(Default::default());
        if let pb::PbWatchRequestUnion::CreateRequest(create) = &mut union {
            create.key = self.key.clone();
            create.range_end = self.range_end.clone();
            create.start_revision = self.start_revision;
            create.prev_kv = self.prev_kv;
            create.filters = self.filters.clone();
            create.watch_id = self.watch_id;
        }
        pb::PbWatchRequest { request_union: Some(union) }
    }
}

pub struct Generator {
    entropy: Entropy,
    revision: i64,
    compacted: i64,
}

impl Generator {
    pub fn new(entropy: Entropy) -> Generator {
        Generator { entropy, revision: 1, compacted: 0 }
    }

    /// The newest revision, as far as the answers told.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Takes note of an answer.
    pub fn learn(&mut self, op: &Op, revision: i64) {
        self.revision = self.revision.max(revision);
        if let (Op::Compact(request), true) = (op, revision > 0) {
            self.compacted = request.revision;
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.entropy.below(n)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }

    fn key(&mut self) -> Vec<u8> {
        if self.one_in(60) { Vec::new() } else { self.pick(&KEYS).to_vec() }
    }

    fn end(&mut self) -> Vec<u8> {
        self.pick(&ENDS).to_vec()
    }

    fn lease(&mut self) -> i64 {
        self.below(LEASES + 1).cast_signed() + 1
    }

    /// A revision around those that can be read.
    fn past(&mut self) -> i64 {
        let from = (self.compacted - 2).max(1);
        from + self.below((self.revision + 3 - from).cast_unsigned()).cast_signed()
    }

    pub fn next(&mut self) -> Op {
        match self.below(100) {
            0..30 => Op::Put(self.put()),
            30..50 => Op::Range(self.range()),
            50..60 => Op::Delete(self.delete()),
            60..80 => {
                let mut request = self.txn(2);
                if deletes_without_end(&request) {
                    clear_keeping_puts(&mut request);
                }
                Op::Txn(request)
            }
            80..81 => {
                // History stays long enough for watches and reads to have something to look at.
                let revision =
                    if self.one_in(4) { self.past() } else { (self.revision - 80).max(self.compacted) };
                Op::Compact(pb::PbCompactionRequest { revision, physical: true })
            }
            // etcd shows the past ten times a second only, so many watches share a stream.
            81 => Op::Watch((0..6).map(|_| self.watch()).collect()),
            82..87 => Op::Range(self.range()),
            87..91 => {
                let ttl = if self.one_in(20) { 9_000_000_001 } else { 600 + self.below(10).cast_signed() };
                Op::Grant(pb::PbLeaseGrantRequest { ttl, id: self.lease() })
            }
            91..94 => Op::Revoke(pb::PbLeaseRevokeRequest { id: self.lease() }),
            94..97 => Op::TimeToLive(pb::PbLeaseTimeToLiveRequest { id: self.lease(), keys: self.one_in(2) }),
            97 => Op::Leases,
            _ => Op::KeepAlive(pb::PbLeaseKeepAliveRequest { id: self.lease() }),
        }
    }

    fn put(&mut self) -> pb::PbPutRequest {
        let (ignore_value, ignore_lease) = (self.one_in(8), self.one_in(8));
        let value = if ignore_value && !self.one_in(10) { 0 } else { self.below(4) };
        let lease = if ignore_lease && !self.one_in(10) || !self.one_in(3) { 0 } else { self.lease() };
        pb::PbPutRequest {
            key: self.key(),
            value: vec![b'v'; usize::try_from(value).unwrap()],
            lease,
            prev_kv: self.one_in(2),
            ignore_value,
            ignore_lease,
        }
    }

    fn range(&mut self) -> pb::PbRangeRequest {
        let mut request = pb::PbRangeRequest { key: self.key(), range_end: self.end(), ..Default::default() };
        if self.one_in(2) {
            request.revision = self.past();
        }
        if self.one_in(3) {
            request.limit = self.below(6).cast_signed();
        }
        if self.one_in(2) {
            request.sort_order = i32::try_from(self.below(3)).unwrap();
            request.sort_target = i32::try_from(self.below(5)).unwrap();
        }
        request.keys_only = self.one_in(5);
        request.count_only = self.one_in(8);
        request.serializable = self.one_in(8);
        if self.one_in(3) {
            for bound in 0..4 {
                let revision = if self.one_in(2) { self.past() } else { 0 };
                match bound {
                    0 => request.min_mod_revision = revision,
                    1 => request.max_mod_revision = revision,
                    2 => request.min_create_revision = revision,
                    _ => request.max_create_revision = revision,
                }
            }
        }
        request
    }

    fn delete(&mut self) -> pb::PbDeleteRequest {
        let range_end = if self.one_in(3) { self.end() } else { Vec::new() };
        pb::PbDeleteRequest { key: self.key(), range_end, prev_kv: self.one_in(2) }
    }

    fn txn(&mut self, depth: u64) -> pb::PbTxnRequest {
        // Now and then, too many operations.
        let most = if self.one_in(200) { 130 } else { 5 };
        let mut request = pb::PbTxnRequest::default();
        for _ in 0..self.below(3) {
            let compare = self.compare();
            request.compare.push(compare);
        }
        for _ in 0..self.below(most) {
            let op = self.txn_op(depth);
            request.success.push(op);
        }
        for _ in 0..self.below(most) {
            let op = self.txn_op(depth);
            request.failure.push(op);
        }
        request
    }

    fn txn_op(&mut self, depth: u64) -> pb::PbTxnRequestOp {
        let request = match self.below(20) {
            0..7 => pb::PbTxnOpRequest::RequestPut(self.put()),
            7..13 => pb::PbTxnOpRequest::RequestRange(self.range()),
            13..17 => pb::PbTxnOpRequest::RequestDeleteRange(self.delete()),
            17..19 if depth > 0 => pb::PbTxnOpRequest::RequestTxn(self.txn(depth - 1)),
            _ if self.one_in(10) => return pb::PbTxnRequestOp { request: None },
            _ => pb::PbTxnOpRequest::RequestRange(self.range()),
        };
        pb::PbTxnRequestOp { request: Some(request) }
    }

    fn compare(&mut self) -> pb::PbCompare {
        let target = self.below(5);
        let number = if self.one_in(3) { 0 } else { self.past() };
        let union = match target {
            0 => pb::PbTargetUnion::Version(self.below(4).cast_signed()),
            1 => pb::PbTargetUnion::CreateRevision(number),
            2 => pb::PbTargetUnion::ModRevision(number),
            3 => pb::PbTargetUnion::Value(vec![b'v'; usize::try_from(self.below(4)).unwrap()]),
            _ => pb::PbTargetUnion::Lease(self.below(4).cast_signed()),
        };
        let target_union = if self.one_in(15) { None } else { Some(union) };
        pb::PbCompare {
            result: i32::try_from(self.below(4)).unwrap(),
            target: i32::try_from(target).unwrap(),
            key: self.key(),
            range_end: if self.one_in(4) { self.end() } else { Vec::new() },
            target_union,
        }
    }

    fn watch(&mut self) -> WatchOp {
        WatchOp {
            key: self.key(),
            range_end: self.end(),
            start_revision: if self.one_in(10) { 0 } else { self.past() },
            prev_kv: self.one_in(2),
            filters: match self.below(6) {
                0 => vec![0],
                1 => vec![1],
                2 => vec![0, 1],
                _ => vec![],
            },
            watch_id: if self.one_in(8) { 42 } else { 0 },
        }
    }
}

/// etcd does not notice that a deletion without end covers a put of the same transaction. If that put is to keep the
/// value or lease of the deleted key, the server crashes, which is not compared.
fn deletes_without_end(request: &pb::PbTxnRequest) -> bool {
    request.success.iter().chain(&request.failure).any(|op| match &op.request {
        Some(pb::PbTxnOpRequest::RequestDeleteRange(delete)) => delete.range_end == [0],
        Some(pb::PbTxnOpRequest::RequestTxn(nested)) => deletes_without_end(nested),
        _ => false,
    })
}

fn clear_keeping_puts(request: &mut pb::PbTxnRequest) {
    for op in request.success.iter_mut().chain(&mut request.failure) {
        match &mut op.request {
            Some(pb::PbTxnOpRequest::RequestPut(put)) => {
                (put.ignore_value, put.ignore_lease) = (false, false)
            }
            Some(pb::PbTxnOpRequest::RequestTxn(nested)) => clear_keeping_puts(nested),
            _ => {}
        }
    }
}
