//! How recovered hints enter the list of backups (consumer protocol §4.8). Pure.
//!
//! The new hints become the first backup, and each older one moves down a place, up to the first place which was free;
//! the last falls off. Every touched place is guarded by what was seen there, so that two primaries cannot mix lists.

use bytes::Bytes;
use keyspace::{Compare, KeyValue, Op, PutLease, Txn};
use proto::Revision;

/// The transaction which puts `hints` first, given what each backup key holds now (`None` is absent), in order.
/// `guard` must hold too.
pub fn rotate(guard: Compare, keys: &[String], stored: &[Option<KeyValue>], hints: Bytes) -> Txn {
    let mut txn = Txn { compares: vec![guard], ..Txn::default() };
    let mut incoming = hints;
    for (key, now) in keys.iter().zip(stored) {
        let equals = now.as_ref().map_or(Revision(0), |kv| kv.mod_revision);
        txn.compares.push(Compare::ModRevision { key: key.clone(), equals });
        txn.then.push(Op::Put { key: key.clone(), value: incoming, lease: PutLease::None });
        match now {
            Some(kv) => incoming = kv.value.clone(),
            None => break,
        }
    }
    txn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(value: &'static str, revision: i64) -> Option<KeyValue> {
        Some(KeyValue {
            key: String::new(),
            value: Bytes::from_static(value.as_bytes()),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            version: 1,
            lease: 0,
        })
    }

    /// Puts as `key=value`, comparisons as `key@revision`.
    fn check(stored: &[Option<KeyValue>], expected: &[&str]) {
        let keys: Vec<String> = (0..stored.len()).map(|i| format!("b{i}")).collect();
        let guard = Compare::CreateRevision { key: "guard".to_owned(), equals: Revision(7) };
        let txn = rotate(guard.clone(), &keys, stored, Bytes::from_static(b"new"));
        assert_eq!(txn.compares[0], guard);
        let compares = txn.compares[1..].iter().map(|compare| match compare {
            Compare::ModRevision { key, equals } => format!("{key}@{equals}"),
            other => panic!("{other:?}"),
        });
        let puts = txn.then.iter().map(|op| match op {
            Op::Put { key, value, lease: PutLease::None } => {
                format!("{key}={}", String::from_utf8_lossy(value))
            }
            other => panic!("{other:?}"),
        });
        assert_eq!(compares.chain(puts).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn older_hints_move_down_to_the_first_free_place() {
        check(&[], &[]);
        check(&[None, None], &["b0@0", "b0=new"]);
        check(&[stored("one", 3), None], &["b0@3", "b1@0", "b0=new", "b1=one"]);
        check(&[stored("one", 3), stored("two", 4)], &["b0@3", "b1@4", "b0=new", "b1=one"]);
        check(&[None, stored("two", 4)], &["b0@0", "b0=new"]);
    }
}
