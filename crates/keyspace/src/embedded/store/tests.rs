use std::collections::BTreeMap;

use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbLeaseTimeToLiveRequest, PbRangeRequest, PbTargetUnion, PbTxnOpRequest,
    PbTxnRequestOp,
};
use proptest::prelude::*;

use super::*;

/// Time does not matter to most writes.
const NOW: Duration = Duration::ZERO;

pub(crate) fn put(key: &str, value: &str, lease: i64) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: value.into(), lease, ..Default::default() }
}

fn delete(key: &str, end: &str) -> PbDeleteRequest {
    PbDeleteRequest { key: key.into(), range_end: end.into(), prev_kv: false }
}

fn everything() -> PbRangeRequest {
    PbRangeRequest { key: vec![0], range_end: vec![0], ..Default::default() }
}

fn apply(store: &mut Store, write: Write) -> Vec<Effect> {
    store.apply(&write, NOW).unwrap().1
}

fn grant(store: &mut Store, id: i64, ttl: i64, now: Duration) {
    store.apply(&Write::Grant(PbLeaseGrantRequest { ttl, id }), now).unwrap();
}

/// All keys and values at a revision, or why they cannot be read.
pub(crate) fn contents(store: &Store, revision: i64) -> Result<Vec<PbKeyValue>, StoreError> {
    store.range(&PbRangeRequest { revision, ..everything() }).map(|response| response.kvs)
}

/// Random writes over a few keys and leases, valid and not.
pub(crate) fn any_write() -> impl Strategy<Value = Write> {
    let key = || prop::sample::select(vec!["a", "a/b", "b", "c", "c/d"]);
    let lease = || prop::sample::select(vec![0i64, 0, 1, 2, 3]);
    let end = prop::sample::select(vec!["", "", "b", "c0", "\0"]);
    let put = (key(), "[x-z]{0,3}", lease()).prop_map(|(k, v, l)| put(k, &v, l));
    let delete = (key(), end).prop_map(|(k, e)| delete(k, e));
    let op = prop_oneof![
        put.clone().prop_map(PbTxnOpRequest::RequestPut),
        delete.clone().prop_map(PbTxnOpRequest::RequestDeleteRange)
    ];
    let ops = prop::collection::vec(op.prop_map(|op| PbTxnRequestOp { request: Some(op) }), 0..4);
    let txn = ops.prop_map(|success| PbTxnRequest { success, ..Default::default() });
    prop_oneof![
        6 => put.prop_map(Write::Put),
        2 => delete.prop_map(Write::Delete),
        3 => txn.prop_map(Write::Txn),
        1 => (0i64..30).prop_map(|revision| Write::Compact(PbCompactionRequest { revision, physical: true })),
        1 => (1i64..4).prop_map(|id| Write::Grant(PbLeaseGrantRequest { ttl: 60, id })),
        1 => (1i64..4).prop_map(Write::Revoke),
    ]
}

#[test]
fn a_key_counts_its_revisions_and_versions() {
    let mut store = Store::new();
    assert_eq!(store.revision(), 1);
    apply(&mut store, Write::Put(put("k", "1", 0)));
    apply(&mut store, Write::Put(put("other", "", 0)));
    apply(&mut store, Write::Put(put("k", "2", 0)));
    let kv = contents(&store, 0).unwrap().remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version, &*kv.value), (2, 4, 2, &b"2"[..]));
    apply(&mut store, Write::Delete(delete("k", "")));
    apply(&mut store, Write::Put(put("k", "3", 0)));
    let kv = contents(&store, 0).unwrap().remove(0);
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (6, 6, 1));
    assert_eq!(contents(&store, 4).unwrap()[0].value, b"2");
    assert_eq!(contents(&store, 5).unwrap().len(), 1);
    assert_eq!(contents(&store, 7), Err(StoreError::FutureRevision));
}

#[test]
fn a_write_that_changes_nothing_makes_no_revision() {
    let mut store = Store::new();
    for write in [
        Write::Delete(delete("absent", "")),
        Write::Delete(delete("z", "a")),
        Write::Txn(PbTxnRequest::default()),
        Write::KeepAlive(9),
    ] {
        assert_eq!(apply(&mut store, write.clone()), [], "{write:?}");
    }
    assert_eq!(store.revision(), 1);
}

#[test]
fn a_transaction_happens_at_one_revision_or_not_at_all() {
    let mut store = Store::new();
    let mut txn = PbTxnRequest::default();
    txn.success.push(PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put("a", "1", 0))) });
    txn.success.push(PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put("b", "1", 77))) });
    assert_eq!(store.apply(&Write::Txn(txn.clone()), NOW), Err(StoreError::LeaseNotFound));
    assert_eq!(contents(&store, 0).unwrap(), []);
    grant(&mut store, 77, 60, NOW);
    apply(&mut store, Write::Txn(txn));
    let revisions: Vec<i64> = contents(&store, 0).unwrap().iter().map(|kv| kv.mod_revision).collect();
    assert_eq!(revisions, [2, 2]);
}

#[test]
fn comparisons_are_decided_on_the_state_before() {
    let mut store = Store::new();
    let compare = PbCompare {
        result: 0,
        target: PbCompareTarget::Create as i32,
        key: b"a".to_vec(),
        range_end: Vec::new(),
        target_union: Some(PbTargetUnion::CreateRevision(0)),
    };
    let inner = PbTxnRequest {
        compare: vec![compare],
        success: vec![PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put("b", "absent", 0))) }],
        failure: vec![PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put("b", "present", 0))) }],
    };
    let outer = PbTxnRequest {
        success: vec![
            PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestPut(put("a", "", 0))) },
            PbTxnRequestOp { request: Some(PbTxnOpRequest::RequestTxn(inner)) },
        ],
        ..Default::default()
    };
    apply(&mut store, Write::Txn(outer));
    assert_eq!(contents(&store, 0).unwrap()[1].value, b"absent");
}

#[test]
fn leases_end_with_their_keys_unless_they_are_renewed() {
    let mut store = Store::new();
    let at = Duration::from_secs;
    grant(&mut store, 1, 10, at(0));
    grant(&mut store, 2, 10, at(0));
    apply(&mut store, Write::Put(put("mine", "", 1)));
    apply(&mut store, Write::Put(put("moved", "", 1)));
    apply(&mut store, Write::Put(put("moved", "", 2)));
    assert!(store.expired(at(9)).is_empty());
    store.apply(&Write::KeepAlive(2), at(9)).unwrap();
    assert_eq!(store.expired(at(10)), [1]);
    let request = PbLeaseTimeToLiveRequest { id: 2, keys: true };
    let left = store.time_to_live(&request, at(10));
    assert_eq!((left.ttl, left.granted_ttl, left.keys), (9, 10, vec![b"moved".to_vec()]));
    apply(&mut store, Write::Revoke(1));
    let keys: Vec<Vec<u8>> = contents(&store, 0).unwrap().into_iter().map(|kv| kv.key).collect();
    assert_eq!(keys, [b"moved".to_vec()]);
    store.extend_leases(at(100));
    assert!(store.expired(at(100)).is_empty());
    assert_eq!(store.apply(&Write::Revoke(1), NOW), Err(StoreError::LeaseNotFound));
}

#[test]
fn too_much_history_is_forgotten_from_its_beginning() {
    let mut store = Store::new();
    let value = "v".repeat(1 << 20);
    while store.surplus_history().is_none() {
        apply(&mut store, Write::Put(put("k", &value, 0)));
    }
    let revision = store.surplus_history().unwrap();
    assert!(store.forget(revision).is_some());
    assert_eq!(store.surplus_history(), None);
    assert!(store.history_bytes <= HISTORY_BYTES_MAX / 2 + 2 * value.len());
    assert!(store.bytes() < HISTORY_BYTES_MAX);
    assert_eq!(store.events(&all_events(), revision - 1, 1), Caught::Compacted(revision));
}

#[test]
fn a_full_store_refuses_puts_and_takes_deletions() {
    let mut store = Store::new();
    apply(&mut store, Write::Put(put("k", "", 0)));
    store.bytes = STORE_BYTES_MAX + 1;
    assert_eq!(store.apply(&Write::Put(put("k", "", 0)), NOW), Err(StoreError::NoSpace));
    assert!(store.apply(&Write::Delete(delete("k", "")), NOW).is_ok());
}

fn all_events() -> WatchSpec {
    WatchSpec { span: Span::parse(&[0], &[0]), no_put: false, no_delete: false, prev_kv: false }
}

/// Checks what must hold after any sequence of writes.
pub(crate) fn check_invariants(store: &Store) {
    let bytes: usize = store.keys.iter().flat_map(|(k, vs)| vs.iter().map(|v| v.bytes(k))).sum();
    assert_eq!(store.bytes, bytes);
    let history: usize = store.history.values().flat_map(|c| c.iter()).map(|c| c.kv.bytes()).sum();
    assert_eq!(store.history_bytes, history);
    let live = contents(store, 0).unwrap();
    for (id, lease) in &store.leases {
        let expected: Vec<&[u8]> = live.iter().filter(|kv| kv.lease == *id).map(|kv| &*kv.key).collect();
        let found: Vec<&[u8]> = lease.keys.iter().map(|key| &**key).collect();
        assert_eq!(found, expected, "lease {id}");
    }
    for kv in &live {
        assert!(kv.lease == 0 || store.has_lease(kv.lease), "{kv:?}");
        assert!(
            kv.create_revision <= kv.mod_revision && kv.mod_revision <= store.revision && kv.version >= 1
        );
    }
}

/// The state at each revision, computed from the events alone.
fn by_events(store: &Store, from: i64) -> BTreeMap<i64, Vec<PbKeyValue>> {
    let mut state: BTreeMap<Vec<u8>, PbKeyValue> =
        contents(store, from).unwrap().into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    let (mut states, mut next) = (BTreeMap::new(), from + 1);
    while next <= store.revision() {
        // One byte at most is one revision at most.
        let Caught::Up { events, next: after } = store.events(&all_events(), next, 1) else {
            panic!("history from {next} is compacted")
        };
        for event in events {
            let kv = event.kv.unwrap();
            if event.r#type == 1 {
                state.remove(&kv.key)
            } else {
                state.insert(kv.key.clone(), kv)
            };
        }
        states.insert(after - 1, state.values().cloned().collect());
        next = after;
    }
    states
}

proptest! {
    #[test]
    fn history_events_and_effects_tell_the_same_story(writes in prop::collection::vec(any_write(), 1..60)) {
        let (mut store, mut replayed) = (Store::new(), Store::new());
        let mut past: BTreeMap<i64, Vec<PbKeyValue>> = BTreeMap::from([(1, vec![])]);
        for write in &writes {
            let before = store.clone();
            match store.apply(write, NOW) {
                Ok((_, effects)) => {
                    for effect in effects {
                        replayed.replay(effect, NOW).unwrap();
                    }
                }
                Err(_) => prop_assert_eq!(store.revision(), before.revision()),
            }
            check_invariants(&store);
            prop_assert!(store.revision() - before.revision() <= 1);
            past.insert(store.revision(), contents(&store, 0).unwrap());
        }
        let first = store.compacted().max(1);
        for revision in 1..=store.revision() {
            let found = contents(&store, revision);
            prop_assert_eq!(&found, &contents(&replayed, revision));
            if revision < first {
                prop_assert_eq!(found, Err(StoreError::Compacted));
            } else {
                prop_assert_eq!(&found.unwrap(), &past[&revision]);
            }
        }
        for (revision, state) in by_events(&store, first) {
            prop_assert_eq!(&state, &past[&revision]);
        }
        check_invariants(&replayed);
        prop_assert_eq!(store.leases().collect::<Vec<_>>(), replayed.leases().collect::<Vec<_>>());
    }
}
