use keyspace::EtcdHeader;
use proto::protocol::journal_spec::Suspend;

use super::*;
use crate::fixtures::{journal_spec, member};

const READ: Question = Question { may_proxy: true, require_primary: false };
const READ_HERE: Question = Question { may_proxy: false, ..READ };
const APPEND: Question = Question { may_proxy: true, require_primary: true };
const APPEND_HERE: Question = Question { may_proxy: false, ..APPEND };

const ETCD: EtcdHeader = EtcdHeader { cluster_id: 7, member_id: 8, revision: Revision(9), raft_term: 1 };

/// The facts of a journal which is assigned to these members, of which the first is this process: `me`.
fn facts(members: &[(&str, u32)]) -> Facts {
    let keys = members.iter().map(|(suffix, slot)| AssignmentKey {
        item: "a/journal".into(),
        member: member(suffix),
        slot: *slot,
    });
    let assignments: Vec<Assigned> = keys
        .map(|key| Assigned { key, route: Arc::new(Route::unrouted()), mod_revision: Revision(3) })
        .collect();
    let item = Item {
        spec: Arc::new(journal_spec("a/journal")),
        create_revision: Revision(1),
        mod_revision: Revision(2),
    };
    Facts {
        local: member("me").to_proto(),
        item: Some(item),
        route: crate::key_space::implied_route(assignments.iter().map(|a| &a.key)),
        assignments,
        etcd: ETCD.into(),
    }
}

#[track_caller]
fn check(facts: &Facts, question: Question, status: Status, process: Option<&str>) {
    let decision = decide(facts.clone(), question);
    let expected = process.map(|suffix| member(suffix).to_proto());
    assert_eq!((decision.status, decision.header.process().cloned()), (status, expected));
    assert_eq!(decision.is_local, process == Some("me"));
    assert_eq!(decision.header.route.as_ref(), Some(&facts.route));
    assert_eq!(decision.header.revision(), ETCD.revision);
}

#[test]
fn the_primary_answers_everything() {
    let facts = facts(&[("me", 0), ("peer", 1)]);
    for question in [READ, READ_HERE, APPEND, APPEND_HERE] {
        check(&facts, question, Status::Ok, Some("me"));
    }
}

#[test]
fn a_replica_answers_reads_and_passes_appends_on() {
    let facts = facts(&[("me", 1), ("peer", 0)]);
    check(&facts, READ, Status::Ok, Some("me"));
    check(&facts, READ_HERE, Status::Ok, Some("me"));
    check(&facts, APPEND, Status::Ok, Some("peer"));
    check(&facts, APPEND_HERE, Status::NotJournalPrimaryBroker, Some("me"));
}

#[test]
fn others_pass_everything_on() {
    let facts = facts(&[("peer", 0)]);
    check(&facts, READ, Status::Ok, None);
    check(&facts, READ_HERE, Status::NotJournalBroker, Some("me"));
    check(&facts, APPEND, Status::Ok, Some("peer"));
    check(&facts, APPEND_HERE, Status::NotJournalPrimaryBroker, Some("me"));
}

#[test]
fn a_journal_without_primary_or_without_members_says_so() {
    let replicas = facts(&[("me", 1), ("peer", 2)]);
    check(&replicas, READ, Status::Ok, Some("me"));
    check(&replicas, APPEND, Status::NoJournalPrimaryBroker, Some("me"));
    let unassigned = facts(&[]);
    check(&unassigned, READ, Status::InsufficientJournalBrokers, Some("me"));
    check(&unassigned, APPEND, Status::NoJournalPrimaryBroker, Some("me"));
}

#[test]
fn a_missing_item_is_not_found_with_the_route_that_is_left() {
    let facts = Facts { item: None, ..facts(&[("peer", 0)]) };
    check(&facts, READ, Status::JournalNotFound, Some("me"));
    check(&facts, APPEND_HERE, Status::JournalNotFound, Some("me"));
}

#[test]
fn full_suspension_comes_before_missing_brokers() {
    let mut facts = facts(&[]);
    let mut spec = journal_spec("a/journal");
    spec.suspend = Some(Suspend { level: suspend::Level::Full as i32, offset: 5 });
    facts.item.as_mut().unwrap().spec = Arc::new(spec.clone());
    check(&facts, READ, Status::Suspended, Some("me"));
    check(&facts, APPEND, Status::Suspended, Some("me"));
    spec.suspend = Some(Suspend { level: suspend::Level::Partial as i32, offset: 5 });
    facts.item.as_mut().unwrap().spec = Arc::new(spec);
    check(&facts, READ, Status::InsufficientJournalBrokers, Some("me"));
}

#[test]
fn a_member_that_left_etcd_still_passes_requests_on() {
    let key_space = KeySpace::empty(ETCD);
    let placeholder = key_space.local_id(&member("me"), MISSING_ZONE);
    assert_eq!(
        (placeholder.zone.as_str(), placeholder.suffix.as_str()),
        ("local-BrokerSpec", "missing-from-Etcd")
    );
    assert!(key_space.unrouted_header(&member("me")).process().is_none());
    let facts = Facts { local: placeholder, ..facts(&[("peer", 0)]) };
    assert_eq!(decide(facts.clone(), APPEND).status, Status::Ok);
    assert_eq!(decide(facts, READ_HERE).status, Status::NotJournalBroker);
}
