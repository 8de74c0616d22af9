//! Applying changes to shard specifications (consumer protocol §1.6): the one etcd transaction which does it. Pure.

use auth::{Access, AuthError};
use keyspace::{Compare, KeyPrefix, Op, PutLease, Txn};
use prost::Message;
use proto::consumer::{ApplyRequest, apply_request};
use proto::protocol::LabelSet;
use proto::{Canonical, Invalid, Revision};

/// The revision by which a change says "whatever it is".
const ANY_REVISION: i64 = -1;

/// Checks that a request changes nothing beyond what its token reaches: a shard that is written by the labels which it gets,
/// one that is deleted by its id alone.
///
/// # Errors
/// Names the first change which goes too far.
pub fn authorize(request: &ApplyRequest, access: &Access) -> Result<(), AuthError> {
    for change in &request.changes {
        match &change.upsert {
            Some(spec) => access.require(&spec.labels_with_id(), &spec.id)?,
            None => require_id(access, &change.delete)?,
        }
    }
    Ok(())
}

/// Checks that a token reaches a shard by its id alone.
///
/// # Errors
/// If not.
pub fn require_id(access: &Access, shard: &str) -> Result<(), AuthError> {
    access.require(&LabelSet::from_pairs([("id", shard)]), shard)
}

/// The transaction of a valid request: every expected revision is compared, then everything is written.
///
/// # Errors
/// If it is larger than etcd takes.
pub fn transaction(prefix: &KeyPrefix, request: ApplyRequest) -> Result<Txn, Invalid> {
    let mut txn = Txn::default();
    for change in request.changes {
        let apply_request::Change { expect_mod_revision, upsert, delete, primary_hints } = change;
        let key = prefix.item(upsert.as_ref().map_or(&delete, |spec| &spec.id));
        if expect_mod_revision != ANY_REVISION {
            txn.compares
                .push(Compare::ModRevision { key: key.clone(), equals: Revision(expect_mod_revision) });
        }
        let Some(spec) = upsert else {
            txn.then.push(Op::Delete { key });
            continue;
        };
        if let Some(hints) = primary_hints {
            let value = recoverylog::hints::to_json(&hints).into();
            txn.then.push(Op::Put { key: spec.hint_primary_key(), value, lease: PutLease::None });
        }
        let value = spec.canonical().encode_to_vec().into();
        txn.then.push(Op::Put { key, value, lease: PutLease::None });
    }
    let (operations, limit) = (txn.then.len(), Txn::OPS_MAX);
    if operations > limit {
        return Err(Invalid::new(format!(
            "{operations} changes do not fit one transaction (at most {limit} do)"
        ))
        .within("Changes"));
    }
    Ok(txn)
}

#[cfg(test)]
mod tests {
    use proto::consumer::ShardSpec;
    use proto::recoverylog::FsmHints;

    use super::*;

    fn spec(id: &str) -> ShardSpec {
        ShardSpec { id: id.to_owned(), hint_prefix: "/hints".to_owned(), ..ShardSpec::default() }
    }

    fn upsert(id: &str, expect_mod_revision: i64) -> apply_request::Change {
        let upsert = Some(spec(id));
        apply_request::Change { expect_mod_revision, upsert, ..apply_request::Change::default() }
    }

    #[test]
    fn changes_become_one_guarded_transaction() {
        let delete = apply_request::Change {
            expect_mod_revision: 7,
            delete: "shard-old".to_owned(),
            ..apply_request::Change::default()
        };
        let mut hinted = upsert("shard-hinted", 0);
        hinted.primary_hints = Some(FsmHints { log: "a/log".to_owned(), ..FsmHints::default() });
        let changes = vec![upsert("shard-any", ANY_REVISION), delete, hinted];
        let request = ApplyRequest { changes, ..ApplyRequest::default() };
        let txn = transaction(&KeyPrefix::parse("/p").unwrap(), request).unwrap();

        let compared =
            |key: &str, equals| Compare::ModRevision { key: key.to_owned(), equals: Revision(equals) };
        assert_eq!(txn.compares, [compared("/p/items/shard-old", 7), compared("/p/items/shard-hinted", 0)]);
        let put = |key: &str, value: Vec<u8>| Op::Put {
            key: key.to_owned(),
            value: value.into(),
            lease: PutLease::None,
        };
        assert_eq!(
            txn.then,
            [
                put("/p/items/shard-any", spec("shard-any").canonical().encode_to_vec()),
                Op::Delete { key: "/p/items/shard-old".to_owned() },
                put(
                    "/hints/shard-hinted.primary",
                    br#"{"log":"a/log","live_nodes":null,"properties":null}"#.to_vec()
                ),
                put("/p/items/shard-hinted", spec("shard-hinted").canonical().encode_to_vec()),
            ]
        );
    }

    #[test]
    fn changes_are_authorized_one_by_one() {
        let access = |selector: &str| Access { selector: selector.parse().unwrap(), expires: None };
        let mut labelled = upsert("shard-a", 0);
        labelled.upsert.as_mut().unwrap().labels = Some(LabelSet::from_pairs([("team", "red")]));
        let delete =
            apply_request::Change { delete: "shard-a".to_owned(), ..apply_request::Change::default() };
        let check = |changes: &[&apply_request::Change], selector: &str| {
            let changes = changes.iter().map(|change| (*change).clone()).collect();
            let request = ApplyRequest { changes, ..ApplyRequest::default() };
            authorize(&request, &access(selector)).map_err(|e| e.to_string())
        };
        let refused = |id: &str| Err(format!("not authorized to {id}"));
        assert_eq!(check(&[&labelled], "team=red"), Ok(()));
        assert_eq!(check(&[&labelled, &delete], "id=shard-a"), Ok(()));
        assert_eq!(check(&[&labelled, &upsert("shard-b", 0)], "team=red"), refused("shard-b"));
        assert_eq!(check(&[&delete], "team=red"), refused("shard-a"));
        assert_eq!(check(&[&delete, &upsert("shard-b", 0)], ""), Ok(()));
    }

    #[test]
    fn more_than_a_transaction_holds_is_refused() {
        let changes = (0..=Txn::OPS_MAX).map(|i| upsert(&format!("shard-{i}"), 0)).collect();
        let request = ApplyRequest { changes, ..ApplyRequest::default() };
        let error = transaction(&KeyPrefix::parse("/p").unwrap(), request).unwrap_err();
        assert_eq!(error.to_string(), "Changes: 129 changes do not fit one transaction (at most 128 do)");
    }
}
