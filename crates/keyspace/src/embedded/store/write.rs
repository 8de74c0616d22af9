//! Puts, deletions and transactions.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{
    PbDeleteRequest, PbDeleteResponse, PbPutRequest, PbPutResponse, PbResponseOp, PbTxnOpResponse,
    PbTxnRequest, PbTxnResponse,
};

use super::plan::{Plan, Step, check_intervals, check_put, check_txn, is_read_only};
use super::range::{Span, header};
use super::{Change, Effect, Kv, STORE_BYTES_MAX, Store, StoreError, TXN_OPS_MAX};

/// Makes the changes of one revision. Reads through it see the changes made so far.
pub(super) struct Writer<'a> {
    store: &'a mut Store,
    changes: Vec<Change>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(store: &'a mut Store) -> Writer<'a> {
        Writer { store, changes: Vec::new() }
    }

    /// The newest revision, as a read between the changes sees it.
    fn current(&self) -> i64 {
        self.store.revision + i64::from(!self.changes.is_empty())
    }

    fn get(&self, key: &[u8]) -> Option<&Arc<Kv>> {
        self.store.get(key, self.current())
    }

    fn change(&mut self, kv: Kv, deleted: bool) {
        let change = Change { kv: Arc::new(kv), deleted };
        self.store.record(&change);
        self.changes.push(change);
    }

    /// Carries out a put which was checked. A put that keeps the value or lease of a key which the transaction itself
    /// deleted keeps nothing.
    fn put(&mut self, request: &PbPutRequest) -> PbPutResponse {
        let revision = self.store.revision + 1;
        let previous = self.get(&request.key).cloned();
        let known = previous.as_ref();
        let value = match known {
            Some(kv) if request.ignore_value => kv.value.clone(),
            _ => Bytes::copy_from_slice(&request.value),
        };
        let lease = match known {
            Some(kv) if request.ignore_lease => kv.lease,
            _ => request.lease,
        };
        let kv = Kv {
            key: Bytes::copy_from_slice(&request.key),
            value,
            create_revision: known.map_or(revision, |kv| kv.create_revision),
            mod_revision: revision,
            version: known.map_or(0, |kv| kv.version) + 1,
            lease,
        };
        self.change(kv, false);
        let prev_kv = previous.filter(|_| request.prev_kv).map(|kv| kv.to_pb());
        PbPutResponse { header: Some(header(revision)), prev_kv }
    }

    /// Deletes the keys of a span; gives them as they were.
    pub(super) fn delete(&mut self, span: &Span) -> Vec<Arc<Kv>> {
        let revision = self.store.revision + 1;
        let gone: Vec<Arc<Kv>> = self.store.live(span, self.current()).cloned().collect();
        for kv in &gone {
            let tombstone = Kv {
                key: kv.key.clone(),
                value: Bytes::new(),
                create_revision: 0,
                mod_revision: revision,
                version: 0,
                lease: 0,
            };
            self.change(tombstone, true);
        }
        gone
    }

    fn delete_range(&mut self, request: &PbDeleteRequest) -> PbDeleteResponse {
        let gone = self.delete(&Span::parse(&request.key, &request.range_end));
        let prev_kvs = if request.prev_kv { gone.iter().map(|kv| kv.to_pb()).collect() } else { Vec::new() };
        PbDeleteResponse {
            header: Some(header(self.current())),
            deleted: i64::try_from(gone.len()).unwrap_or(i64::MAX),
            prev_kvs,
        }
    }

    /// Carries out the steps of a checked plan.
    fn run(&mut self, plan: &Plan<'_>) -> Result<Vec<PbResponseOp>, StoreError> {
        let mut responses = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let response = match step {
                Step::Range(request) => {
                    PbTxnOpResponse::ResponseRange(self.store.range_at(request, self.current())?)
                }
                Step::Put(request) => PbTxnOpResponse::ResponsePut(self.put(request)),
                Step::Delete(request) => PbTxnOpResponse::ResponseDeleteRange(self.delete_range(request)),
                // etcd leaves the revision of a nested answer unset.
                Step::Txn(nested) => PbTxnOpResponse::ResponseTxn(PbTxnResponse {
                    header: Some(header(0)),
                    succeeded: nested.succeeded,
                    responses: self.run(nested)?,
                }),
            };
            responses.push(PbResponseOp { response: Some(response) });
        }
        Ok(responses)
    }

    /// Closes the revision, if anything changed.
    pub(super) fn finish(self) -> Option<Effect> {
        if self.changes.is_empty() {
            return None;
        }
        let changes: Arc<[Change]> = self.changes.into();
        self.store.advance(Arc::clone(&changes));
        Some(Effect::Revision { revision: self.store.revision, changes })
    }
}

impl Store {
    pub(super) fn put(&mut self, request: &PbPutRequest) -> Result<(PbPutResponse, Vec<Effect>), StoreError> {
        check_put(request)?;
        self.check_space()?;
        if request.lease != 0 && !self.has_lease(request.lease) {
            return Err(StoreError::LeaseNotFound);
        }
        let keeps = request.ignore_value || request.ignore_lease;
        if keeps && self.get(&request.key, self.revision).is_none() {
            return Err(StoreError::KeyNotFound);
        }
        let mut writer = Writer::new(self);
        let response = writer.put(request);
        Ok((response, writer.finish().into_iter().collect()))
    }

    pub(super) fn delete(
        &mut self,
        request: &PbDeleteRequest,
    ) -> Result<(PbDeleteResponse, Vec<Effect>), StoreError> {
        if request.key.is_empty() {
            return Err(StoreError::EmptyKey);
        }
        let mut writer = Writer::new(self);
        let response = writer.delete_range(request);
        Ok((response, writer.finish().into_iter().collect()))
    }

    pub(super) fn txn(&mut self, request: &PbTxnRequest) -> Result<(PbTxnResponse, Vec<Effect>), StoreError> {
        check_txn(request, TXN_OPS_MAX)?;
        check_intervals(&request.success)?;
        check_intervals(&request.failure)?;
        let plan = self.plan(request);
        if plan.has_put() {
            self.check_space()?;
        }
        self.check_plan(&plan)?;
        let mut writer = Writer::new(self);
        let responses = writer.run(&plan)?;
        let effects: Vec<Effect> = writer.finish().into_iter().collect();
        let response =
            PbTxnResponse { header: Some(header(self.revision)), succeeded: plan.succeeded, responses };
        Ok((response, effects))
    }

    /// Answers a transaction that only reads; `None` if it may write.
    pub(crate) fn read_txn(&self, request: &PbTxnRequest) -> Option<Result<PbTxnResponse, StoreError>> {
        is_read_only(request).then(|| self.clone().txn(request).map(|(response, _)| response))
    }

    pub(super) fn check_space(&self) -> Result<(), StoreError> {
        if self.bytes > STORE_BYTES_MAX { Err(StoreError::NoSpace) } else { Ok(()) }
    }
}
