//! Which journals this broker serves, and what a change of the key space means for each of them (journal protocol §1).
//!
//! A replica is started when its journal is newly assigned here. It is replaced by a fresh one when this broker was
//! demoted from primary, or when the journal was deleted and created again. Requests which wait for a replica are woken
//! (*invalidated*) when its assignments or its stores change, so that they resolve anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use keyspace::AssignmentKey;
use proto::protocol::JournalSpec;
use proto::{JournalName, MemberId, Revision};

use crate::key_space::KeySpace;

/// A journal which is assigned to this broker.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its specification.
    pub spec: Arc<JournalSpec>,
    /// When its item came into being.
    pub create_revision: Revision,
    is_primary: bool,
    /// Every assignment of the journal, with the revision of its last write.
    assignments: Vec<(AssignmentKey, Revision)>,
}

/// What is to be done about one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Start a replica.
    Start,
    /// Stop the replica and start a fresh one.
    Replace,
    /// Tell the replica its specification, and wake the requests which wait for it.
    Invalidate,
    /// Tell the replica its specification.
    Update,
    /// Stop the replica.
    Stop,
}

/// The journals assigned to `me` whose items exist.
pub fn wanted(key_space: &KeySpace, me: &MemberId) -> BTreeMap<JournalName, Wanted> {
    let mine = key_space.assignments().iter().filter(|(key, _)| key.member == *me);
    mine.filter_map(|(key, _)| {
        // A name with `..` elements may be stored by others; serving it could leave the data directory.
        let journal = JournalName::parse(&key.item).ok()?;
        let item = key_space.items().get(&key.item)?;
        let assignments =
            key_space.assignments_of(&key.item).map(|(k, e)| (k.clone(), e.mod_revision)).collect();
        let wanted = Wanted {
            spec: Arc::clone(&item.value),
            create_revision: item.create_revision,
            is_primary: key.slot == 0,
            assignments,
        };
        Some((journal, wanted))
    })
    .collect()
}

/// What the step from `before` to `after` asks for, journal by journal.
pub fn changes(
    before: &BTreeMap<JournalName, Wanted>,
    after: &BTreeMap<JournalName, Wanted>,
) -> Vec<(JournalName, Change)> {
    let gone =
        before.keys().filter(|journal| !after.contains_key(*journal)).map(|j| (j.clone(), Change::Stop));
    let stays = after.iter().filter_map(|(journal, now)| {
        let change = match before.get(journal) {
            None => Some(Change::Start),
            Some(was) => was.change_to(now),
        };
        Some((journal.clone(), change?))
    });
    gone.chain(stays).collect()
}

impl Wanted {
    fn change_to(&self, now: &Wanted) -> Option<Change> {
        let stores = |w: &Wanted| w.spec.fragment().stores.clone();
        if (self.is_primary && !now.is_primary) || self.create_revision != now.create_revision {
            Some(Change::Replace)
        } else if self.assignments != now.assignments || stores(self) != stores(now) {
            Some(Change::Invalidate)
        } else if self.spec != now.spec {
            Some(Change::Update)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{journal_spec, member};

    fn key(suffix: &str, slot: u32) -> AssignmentKey {
        AssignmentKey { item: "a/journal".into(), member: member(suffix), slot }
    }

    fn base() -> Wanted {
        Wanted {
            spec: Arc::new(journal_spec("a/journal")),
            create_revision: Revision(3),
            is_primary: true,
            assignments: vec![(key("me", 0), Revision(5))],
        }
    }

    fn one(wanted: Option<Wanted>) -> BTreeMap<JournalName, Wanted> {
        wanted.into_iter().map(|w| (JournalName::parse("a/journal").unwrap(), w)).collect()
    }

    #[track_caller]
    fn check(before: Option<Wanted>, after: Option<Wanted>, expected: Option<Change>) {
        let got: Vec<Change> = changes(&one(before), &one(after)).into_iter().map(|(_, c)| c).collect();
        assert_eq!(got, Vec::from_iter(expected));
    }

    #[test]
    fn replicas_follow_their_assignments() {
        check(None, Some(base()), Some(Change::Start));
        check(Some(base()), None, Some(Change::Stop));
        check(Some(base()), Some(base()), None);
    }

    #[test]
    fn demotion_replaces_and_promotion_keeps() {
        let replica = Wanted { is_primary: false, assignments: vec![(key("me", 1), Revision(6))], ..base() };
        check(Some(base()), Some(replica.clone()), Some(Change::Replace));
        check(Some(replica), Some(base()), Some(Change::Invalidate));
    }

    #[test]
    fn a_journal_created_anew_gets_a_fresh_replica() {
        check(Some(base()), Some(Wanted { create_revision: Revision(4), ..base() }), Some(Change::Replace));
    }

    #[test]
    fn only_assignments_and_stores_wake_requests() {
        let touched = Wanted { assignments: vec![(key("me", 0), Revision(6))], ..base() };
        check(Some(base()), Some(touched), Some(Change::Invalidate));
        let joined = Wanted {
            assignments: vec![(key("me", 0), Revision(5)), (key("peer", 1), Revision(6))],
            ..base()
        };
        check(Some(base()), Some(joined), Some(Change::Invalidate));

        let mut spec = journal_spec("a/journal");
        spec.max_append_rate = 5;
        check(Some(base()), Some(Wanted { spec: Arc::new(spec.clone()), ..base() }), Some(Change::Update));
        spec.fragment.as_mut().unwrap().stores = vec!["file:///".to_owned()];
        check(Some(base()), Some(Wanted { spec: Arc::new(spec), ..base() }), Some(Change::Invalidate));
    }
}
