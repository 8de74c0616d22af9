//! Reading ranges of keys, now or in the past.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{PbRangeRequest, PbRangeResponse, PbResponseHeader};
use etcd_client::{SortOrder, SortTarget};
use imbl::Vector;

use super::{Kv, Store, StoreError, Version};

/// The keys that a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    first: Bytes,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// The first key alone.
    First,
    /// Every key before this one.
    Before(Bytes),
    /// Every key.
    Unbounded,
}

/// Beginning and end of a range of keys.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl Span {
    /// Of a request's `key` and `range_end`, where `"\0"` as the end means no end.
    pub(crate) fn parse(key: &[u8], range_end: &[u8]) -> Span {
        let end = match range_end {
            [] => End::First,
            [0] => End::Unbounded,
            end => End::Before(Bytes::copy_from_slice(end)),
        };
        Span { first: Bytes::copy_from_slice(key), end }
    }

    /// One key.
    pub(crate) fn key(key: Bytes) -> Span {
        Span { first: key, end: End::First }
    }

    /// Whether it has an end which lies at or before its beginning.
    pub(crate) fn is_reversed(&self) -> bool {
        matches!(&self.end, End::Before(end) if *end <= self.first)
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::First => self.first == key,
            End::Before(end) => *self.first <= *key && *key < **end,
            End::Unbounded => *self.first <= *key,
        }
    }

    fn bounds(&self) -> Option<Bounds<'_>> {
        let first = &*self.first;
        match &self.end {
            End::First => Some((Bound::Included(first), Bound::Included(first))),
            End::Before(_) if self.is_reversed() => None,
            End::Before(end) => Some((Bound::Included(first), Bound::Excluded(&**end))),
            End::Unbounded => Some((Bound::Included(first), Bound::Unbounded)),
        }
    }
}

pub(super) fn header(revision: i64) -> PbResponseHeader {
    PbResponseHeader { cluster_id: 0, member_id: 0, revision, raft_term: 0 }
}

/// The version of a key which was newest at `revision`.
fn version_at(versions: &Vector<Version>, revision: i64) -> Option<&Arc<Kv>> {
    let newest = versions.back().filter(|v| v.revision <= revision);
    let version = newest.or_else(|| {
        let (mut low, mut high) = (0, versions.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match versions.get(middle) {
                Some(v) if v.revision <= revision => low = middle + 1,
                _ => high = middle,
            }
        }
        versions.get(low.checked_sub(1)?)
    });
    version.and_then(|v| v.kv.as_ref())
}

pub(super) fn check_range(request: &PbRangeRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    let known =
        SortOrder::try_from(request.sort_order).is_ok() && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(StoreError::InvalidSortOption) }
}

impl Store {
    /// Answers a range request on its own.
    pub(crate) fn range(&self, request: &PbRangeRequest) -> Result<PbRangeResponse, StoreError> {
        check_range(request)?;
        self.range_at(request, self.revision)
    }

    /// Answers a range request while `current` is the newest revision, which within a transaction is one that has not
    /// been closed yet.
    pub(super) fn range_at(
        &self,
        request: &PbRangeRequest,
        current: i64,
    ) -> Result<PbRangeResponse, StoreError> {
        let revision = if request.revision <= 0 { current } else { request.revision };
        if revision > current {
            return Err(StoreError::FutureRevision);
        }
        if revision < self.compacted {
            return Err(StoreError::Compacted);
        }
        let span = Span::parse(&request.key, &request.range_end);
        let live = self.live(&span, revision);
        let mut response =
            PbRangeResponse { header: Some(header(current)), kvs: Vec::new(), more: false, count: 0 };
        if request.count_only {
            response.count = count(live.count());
            return Ok(response);
        }
        let all: Vec<&Arc<Kv>> = live.collect();
        response.count = count(all.len());
        let mut kvs = select(all, request);
        if request.limit > 0 && count(kvs.len()) > request.limit {
            kvs.truncate(usize::try_from(request.limit).unwrap_or(usize::MAX));
            response.more = true;
        }
        response.kvs = kvs.into_iter().map(|kv| kv.to_pb()).collect();
        if request.keys_only {
            response.kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        Ok(response)
    }

    /// Keys of `span` that existed at `revision`, in key order.
    pub(super) fn live<'a>(&'a self, span: &'a Span, revision: i64) -> impl Iterator<Item = &'a Arc<Kv>> {
        let bounds = span.bounds();
        let range = bounds.map(|bounds| self.keys.range::<_, [u8]>(bounds));
        range.into_iter().flatten().filter_map(move |(_, versions)| version_at(versions, revision))
    }

    /// One key as it was at `revision`, if that can still be read.
    pub(super) fn get(&self, key: &[u8], revision: i64) -> Option<&Arc<Kv>> {
        if revision < self.compacted {
            return None;
        }
        self.keys.get(key).and_then(|versions| version_at(versions, revision))
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Filters and sorts. Where a limit is given with neither filter nor order, only the keys within it (and one more) are
/// sorted by a target other than the key: so does etcd.
fn select<'a>(mut kvs: Vec<&'a Arc<Kv>>, request: &PbRangeRequest) -> Vec<&'a Arc<Kv>> {
    let order = SortOrder::try_from(request.sort_order).unwrap_or(SortOrder::None);
    let target = SortTarget::try_from(request.sort_target).unwrap_or(SortTarget::Key);
    let bounds = [
        request.max_mod_revision,
        request.min_mod_revision,
        request.max_create_revision,
        request.min_create_revision,
    ];
    if order == SortOrder::None && bounds == [0; 4] && request.limit > 0 {
        kvs.truncate(usize::try_from(request.limit).unwrap_or(usize::MAX).saturating_add(1));
    }
    let [max_mod, min_mod, max_create, min_create] = bounds;
    kvs.retain(|kv| {
        (max_mod == 0 || kv.mod_revision <= max_mod)
            && (min_mod == 0 || kv.mod_revision >= min_mod)
            && (max_create == 0 || kv.create_revision <= max_create)
            && (min_create == 0 || kv.create_revision >= min_create)
    });
    let compare = |a: &Kv, b: &Kv| -> Ordering {
        match target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        }
    };
    if order == SortOrder::Descend {
        kvs.sort_by(|a, b| compare(b, a));
    } else if order == SortOrder::Ascend || target != SortTarget::Key {
        kvs.sort_by(|a, b| compare(a, b));
    }
    kvs
}
