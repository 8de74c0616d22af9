//! Changes to journal specifications as one etcd transaction (journal protocol §9.2).
//!
//! All changes are made, or none is. Nothing is read first: what a client expects to find is compared by the transaction.

use auth::{Access, AuthError};
use fragment::postfix::Template;
use keyspace::{Compare, KeyPrefix, Op, OpResponse, PutLease, Txn};
use prost::Message;
use proto::protocol::{ApplyRequest, JournalSpec, LabelSet, apply_request};
use proto::{Canonical, Invalid, Revision, Validate, labels};

/// The revision by which a change says "whatever it is".
const ANY_REVISION: i64 = -1;

/// Checks a request, its path postfix templates included.
///
/// # Errors
/// The first change which may not be applied.
pub fn validate(request: &ApplyRequest) -> Result<(), Invalid> {
    request.validate()?;
    for (index, change) in request.changes.iter().enumerate() {
        let Some(spec) = &change.upsert else { continue };
        let context = format!("Changes[{index}].Upsert.Fragment.PathPostfixTemplate");
        check_template(spec).map_err(|e| e.within(context))?;
    }
    Ok(())
}

/// Checks that a request changes nothing beyond what its token reaches: a journal that is written by the labels which it
/// gets, one that is deleted by its name alone.
///
/// # Errors
/// Names the first change which goes too far.
pub fn authorize(request: &ApplyRequest, access: &Access) -> Result<(), AuthError> {
    for change in &request.changes {
        match &change.upsert {
            Some(spec) => access.require(&spec.labels_with_name(), &spec.name)?,
            None => {
                let labels = LabelSet::from_pairs([(labels::NAME, change.delete.as_str())]);
                access.require(&labels, &change.delete)?;
            }
        }
    }
    Ok(())
}

fn check_template(spec: &JournalSpec) -> Result<(), Invalid> {
    let template = &spec.fragment().path_postfix_template;
    if template.is_empty() {
        return Ok(());
    }
    Template::parse(template).and_then(|template| template.check()).map_err(Invalid::new)
}

/// The transaction of a valid request: every expected revision is compared, then everything is written.
pub fn transaction(prefix: &KeyPrefix, request: ApplyRequest) -> Txn {
    let mut txn = Txn::default();
    for change in request.changes {
        let apply_request::Change { expect_mod_revision, upsert, delete } = change;
        let key = prefix.item(upsert.as_ref().map_or(&delete, |spec| &spec.name));
        if expect_mod_revision != ANY_REVISION {
            txn.compares
                .push(Compare::ModRevision { key: key.clone(), equals: Revision(expect_mod_revision) });
        }
        txn.then.push(match upsert {
            Some(spec) => {
                Op::Put { key, value: spec.canonical().encode_to_vec().into(), lease: PutLease::None }
            }
            None => Op::Delete { key },
        });
    }
    txn
}

/// Whether a transaction that succeeded changed anything, so that the mirror will come to its revision.
pub fn has_effect(responses: &[OpResponse]) -> bool {
    responses.iter().any(|response| match response {
        OpResponse::Put => true,
        OpResponse::Deleted(keys) => *keys > 0,
        OpResponse::Get(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use proto::protocol::LabelSelector;

    use super::*;
    use crate::fixtures::journal_spec;

    fn upsert(name: &str, expect_mod_revision: i64) -> apply_request::Change {
        apply_request::Change { expect_mod_revision, upsert: Some(journal_spec(name)), delete: String::new() }
    }

    fn delete(name: &str, expect_mod_revision: i64) -> apply_request::Change {
        apply_request::Change { expect_mod_revision, upsert: None, delete: name.to_owned() }
    }

    #[test]
    fn changes_become_one_guarded_transaction() {
        let request = ApplyRequest {
            changes: vec![upsert("a/new", 0), upsert("a/any", ANY_REVISION), delete("a/old", 7)],
        };
        validate(&request).unwrap();
        let txn = transaction(&KeyPrefix::parse("/p").unwrap(), request);
        let compared =
            |key: &str, equals| Compare::ModRevision { key: key.to_owned(), equals: Revision(equals) };
        assert_eq!(txn.compares, [compared("/p/items/a/new", 0), compared("/p/items/a/old", 7)]);
        let put = |name: &str| Op::Put {
            key: format!("/p/items/{name}"),
            value: journal_spec(name).encode_to_vec().into(),
            lease: PutLease::None,
        };
        assert_eq!(txn.then, [put("a/new"), put("a/any"), Op::Delete { key: "/p/items/a/old".to_owned() }]);
        assert!(txn.or_else.is_empty());
    }

    #[test]
    fn changes_are_authorized_one_by_one() {
        let access = |pairs: &[(&str, &str)]| Access {
            selector: LabelSelector::include(pairs.iter().copied()),
            expires: None,
        };
        let mut labelled = upsert("a/one", 0);
        labelled.upsert.as_mut().unwrap().labels = Some(LabelSet::from_pairs([("team", "red")]));
        let check = |changes: &[&apply_request::Change], access: &Access| {
            let changes = changes.iter().map(|change| (*change).clone()).collect();
            authorize(&ApplyRequest { changes }, access).map_err(|e| e.to_string())
        };
        let (red, one) = (access(&[("team", "red")]), access(&[("name", "a/one")]));
        let (delete_one, other) = (delete("a/one", -1), upsert("a/two", 0));
        assert_eq!(check(&[&labelled], &red), Ok(()));
        assert_eq!(check(&[&labelled, &delete_one], &one), Ok(()));
        assert_eq!(check(&[&labelled, &other], &red), Err("not authorized to a/two".to_owned()));
        assert_eq!(check(&[&labelled, &other], &one), Err("not authorized to a/two".to_owned()));
        // Whatever labels a journal has, it is deleted by its name.
        assert_eq!(check(&[&delete_one], &red), Err("not authorized to a/one".to_owned()));
        assert_eq!(check(&[&delete_one, &other], &Access::unlimited()), Ok(()));
    }

    #[test]
    fn a_template_that_cannot_be_evaluated_is_refused_by_place() {
        let mut change = upsert("a/new", 0);
        let spec = change.upsert.as_mut().unwrap();
        spec.fragment.as_mut().unwrap().path_postfix_template = "{{ .Spool.Nope }}".to_owned();
        let error =
            validate(&ApplyRequest { changes: vec![upsert("a/b/c", 0), change] }).unwrap_err().to_string();
        assert!(error.starts_with("Changes[1].Upsert.Fragment.PathPostfixTemplate: "), "{error}");
    }

    #[test]
    fn deleting_what_is_not_there_has_no_effect() {
        assert!(!has_effect(&[OpResponse::Deleted(0)]));
        assert!(has_effect(&[OpResponse::Deleted(0), OpResponse::Deleted(1)]));
        assert!(has_effect(&[OpResponse::Put]));
        assert!(!has_effect(&[]));
    }
}
