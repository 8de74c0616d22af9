//! What a transaction may do, and what it is going to do.
//!
//! A transaction is checked as a whole, then all its comparisons, nested ones too, are decided on the state before it;
//! that gives the plan: the operations which will run. Each is checked before the first one runs, so that a transaction
//! happens entirely or not at all.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use etcd_client::CompareOp;
use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest,
    PbTxnRequest, PbTxnRequestOp,
};

use super::range::{Span, check_range};
use super::{Kv, Store, StoreError};

/// The operations of a transaction which will run.
pub(super) struct Plan<'a> {
    pub(super) succeeded: bool,
    pub(super) steps: Vec<Step<'a>>,
}

pub(super) enum Step<'a> {
    Range(&'a PbRangeRequest),
    Put(&'a PbPutRequest),
    Delete(&'a PbDeleteRequest),
    Txn(Plan<'a>),
}

impl Plan<'_> {
    pub(super) fn has_put(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Put(_) => true,
            Step::Txn(nested) => nested.has_put(),
            Step::Range(_) | Step::Delete(_) => false,
        })
    }
}

pub(super) fn check_put(request: &PbPutRequest) -> Result<(), StoreError> {
    if request.key.is_empty() {
        Err(StoreError::EmptyKey)
    } else if request.ignore_value && !request.value.is_empty() {
        Err(StoreError::ValueProvided)
    } else if request.ignore_lease && request.lease != 0 {
        Err(StoreError::LeaseProvided)
    } else {
        Ok(())
    }
}

/// Counts and keys. A nested transaction has what its parent leaves of the budget of operations.
pub(super) fn check_txn(request: &PbTxnRequest, ops_max: usize) -> Result<(), StoreError> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(StoreError::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(StoreError::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(PbTxnOpRequest::RequestRange(request)) => check_range(request)?,
            Some(PbTxnOpRequest::RequestPut(request)) => check_put(request)?,
            Some(PbTxnOpRequest::RequestDeleteRange(request)) if request.key.is_empty() => {
                return Err(StoreError::EmptyKey);
            }
            Some(PbTxnOpRequest::RequestDeleteRange(_)) => {}
            Some(PbTxnOpRequest::RequestTxn(nested)) => check_txn(nested, ops_max - ops)?,
            None => return Err(StoreError::KeyNotFound),
        }
    }
    Ok(())
}

pub(super) fn is_read_only(request: &PbTxnRequest) -> bool {
    let mut ops = request.success.iter().chain(&request.failure);
    ops.all(|op| matches!(op.request, Some(PbTxnOpRequest::RequestRange(_))))
}

/// What the operations of one branch write: a key may be put once, and not be both put and deleted.
#[derive(Default)]
pub(super) struct Intervals<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a PbDeleteRequest>,
}

impl<'a> Intervals<'a> {
    fn is_deleted(&self, key: &[u8]) -> bool {
        // Ends are taken as written: a deletion without end (`"\0"`) covers no put here, as in etcd.
        self.deletes.iter().any(|delete| match &*delete.range_end {
            [] => delete.key == key,
            end => *delete.key <= *key && key < end,
        })
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), StoreError> {
        if self.is_deleted(key) || !self.puts.insert(key) { Err(StoreError::DuplicateKey) } else { Ok(()) }
    }
}

pub(super) fn check_intervals(ops: &[PbTxnRequestOp]) -> Result<Intervals<'_>, StoreError> {
    let mut found = Intervals::default();
    for op in ops {
        if let Some(PbTxnOpRequest::RequestDeleteRange(delete)) = &op.request {
            found.deletes.push(delete);
        }
    }
    for op in ops {
        if let Some(PbTxnOpRequest::RequestTxn(nested)) = &op.request {
            let then = check_intervals(&nested.success)?;
            let or_else = check_intervals(&nested.failure)?;
            for key in &then.puts {
                found.put(key)?;
            }
            for key in &or_else.puts {
                // Only one of the two branches runs, so both may put the same key.
                if found.is_deleted(key) || (!found.puts.insert(key) && !then.puts.contains(key)) {
                    return Err(StoreError::DuplicateKey);
                }
            }
            found.deletes.extend(then.deletes);
            found.deletes.extend(or_else.deletes);
        }
    }
    for op in ops {
        if let Some(PbTxnOpRequest::RequestPut(put)) = &op.request {
            found.put(&put.key)?;
        }
    }
    Ok(found)
}

impl Store {
    /// Decides every comparison, and so which operations will run.
    pub(super) fn plan<'a>(&self, request: &'a PbTxnRequest) -> Plan<'a> {
        let succeeded = request.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &request.success } else { &request.failure };
        let steps = ops.iter().filter_map(|op| {
            Some(match op.request.as_ref()? {
                PbTxnOpRequest::RequestRange(request) => Step::Range(request),
                PbTxnOpRequest::RequestPut(request) => Step::Put(request),
                PbTxnOpRequest::RequestDeleteRange(request) => Step::Delete(request),
                PbTxnOpRequest::RequestTxn(nested) => Step::Txn(self.plan(nested)),
            })
        });
        Plan { succeeded, steps: steps.collect() }
    }

    /// Whether every operation can be carried out. Puts are checked before ranges.
    pub(super) fn check_plan(&self, plan: &Plan<'_>) -> Result<(), StoreError> {
        self.check_steps(plan, &|step| match step {
            Step::Put(put) => self.check_planned_put(put),
            _ => Ok(()),
        })?;
        self.check_steps(plan, &|step| match step {
            Step::Range(range) if range.revision == 0 => Ok(()),
            Step::Range(range) if range.revision > self.revision => Err(StoreError::FutureRevision),
            Step::Range(range) if range.revision < self.compacted => Err(StoreError::Compacted),
            _ => Ok(()),
        })
    }

    fn check_steps(
        &self,
        plan: &Plan<'_>,
        check: &dyn Fn(&Step<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        plan.steps.iter().try_for_each(|step| match step {
            Step::Txn(nested) => self.check_steps(nested, check),
            step => check(step),
        })
    }

    fn check_planned_put(&self, put: &PbPutRequest) -> Result<(), StoreError> {
        let keeps = put.ignore_value || put.ignore_lease;
        if keeps && self.get(&put.key, self.revision).is_none() {
            return Err(StoreError::KeyNotFound);
        }
        if put.lease != 0 && !self.has_lease(put.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        Ok(())
    }

    /// Whether a comparison holds, for every key of its range. If there is none, it is made with an absent key, except
    /// that a value never equals nor differs from what does not exist.
    fn holds(&self, compare: &PbCompare) -> bool {
        let span = Span::parse(&compare.key, &compare.range_end);
        let mut any = false;
        for kv in self.live(&span, self.revision) {
            any = true;
            if !holds_for(compare, kv) {
                return false;
            }
        }
        any || (compare.target != PbCompareTarget::Value as i32 && holds_for(compare, &absent()))
    }
}

fn absent() -> Kv {
    Kv {
        key: bytes::Bytes::new(),
        value: bytes::Bytes::new(),
        create_revision: 0,
        mod_revision: 0,
        version: 0,
        lease: 0,
    }
}

fn holds_for(compare: &PbCompare, kv: &Kv) -> bool {
    let expected = compare.target_union.as_ref();
    let ordering = match PbCompareTarget::try_from(compare.target) {
        Ok(PbCompareTarget::Value) => {
            let value = match expected {
                Some(PbTargetUnion::Value(value)) => value.as_slice(),
                _ => &[],
            };
            (*kv.value).cmp(value)
        }
        Ok(PbCompareTarget::Version) => kv.version.cmp(&match expected {
            Some(PbTargetUnion::Version(version)) => *version,
            _ => 0,
        }),
        Ok(PbCompareTarget::Create) => kv.create_revision.cmp(&match expected {
            Some(PbTargetUnion::CreateRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(PbCompareTarget::Mod) => kv.mod_revision.cmp(&match expected {
            Some(PbTargetUnion::ModRevision(revision)) => *revision,
            _ => 0,
        }),
        Ok(PbCompareTarget::Lease) => kv.lease.cmp(&match expected {
            Some(PbTargetUnion::Lease(lease)) => *lease,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareOp::try_from(compare.result) {
        Ok(CompareOp::Equal) => ordering == Ordering::Equal,
        Ok(CompareOp::NotEqual) => ordering != Ordering::Equal,
        Ok(CompareOp::Greater) => ordering == Ordering::Greater,
        Ok(CompareOp::Less) => ordering == Ordering::Less,
        Err(_) => true,
    }
}
