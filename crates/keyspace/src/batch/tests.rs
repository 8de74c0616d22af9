use std::collections::BTreeMap;

use etcd_client::proto::PbResponseHeader;
use proptest::prelude::*;
use proto::{Invalid, MemberId};

use super::*;
use crate::keys::AssignmentKey;

/// Values are text; `bad` does not decode.
struct Text;

fn text(value: &[u8]) -> Result<String, Invalid> {
    match std::str::from_utf8(value) {
        Ok(text) if text != "bad" => Ok(text.to_owned()),
        _ => Err(Invalid::new("a bad value")),
    }
}

impl Schema for Text {
    type Item = String;
    type Member = String;
    type Assignment = String;

    fn decode_item(&self, _: &str, value: &[u8]) -> Result<String, Invalid> {
        text(value)
    }

    fn decode_member(&self, _: &MemberId, value: &[u8]) -> Result<String, Invalid> {
        text(value)
    }

    fn decode_assignment(&self, _: &AssignmentKey, value: &[u8]) -> Result<String, Invalid> {
        text(value)
    }

    fn endpoint(member: &String) -> &str {
        member
    }
}

const CLUSTER: u64 = 5;

fn prefix() -> KeyPrefix {
    KeyPrefix::parse("/p").unwrap()
}

fn header(revision: i64) -> PbResponseHeader {
    PbResponseHeader { cluster_id: CLUSTER, member_id: 1, revision, raft_term: 2 }
}

fn put(key: &str, value: &str, revision: i64) -> PbEvent {
    let kv = PbKeyValue {
        key: key.into(),
        value: value.into(),
        create_revision: 1,
        mod_revision: revision,
        version: 1,
        lease: 0,
    };
    PbEvent { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: None }
}

fn delete(key: &str, revision: i64) -> PbEvent {
    let kv = PbKeyValue { key: key.into(), mod_revision: revision, ..Default::default() };
    PbEvent { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None }
}

fn response(revision: i64, events: Vec<PbEvent>) -> PbWatchResponse {
    PbWatchResponse { header: Some(header(revision)), events, ..Default::default() }
}

fn empty(revision: i64) -> KeySpace<Text> {
    KeySpace::empty(header(revision).into())
}

fn after(space: &KeySpace<Text>, responses: Vec<PbWatchResponse>) -> KeySpace<Text> {
    let mut batch = Batch::default();
    for response in responses {
        batch.push(response, CLUSTER, space.revision()).unwrap();
    }
    batch.apply(space, &Text, &prefix()).0
}

fn item(space: &KeySpace<Text>, id: &str) -> Option<(String, i64)> {
    space.items().get(id).map(|entry| (entry.value.to_string(), entry.mod_revision.0))
}

#[test]
fn a_bad_new_key_is_absent_and_a_bad_update_keeps_the_previous_value() {
    let key = "/p/items/x";
    let space = after(&empty(1), vec![response(2, vec![put(key, "bad", 2)])]);
    assert_eq!(item(&space, "x"), None);
    assert!(space.has_undecodable_item(&prefix(), "x"), "it exists though it cannot be read");
    assert_eq!((space.revision(), space.raw_keys()), (Revision(2), 1));

    let space = after(&space, vec![response(3, vec![put(key, "good", 3)])]);
    assert_eq!(item(&space, "x"), Some(("good".into(), 3)));
    assert!(!space.has_undecodable_item(&prefix(), "x"));

    let space = after(&space, vec![response(4, vec![put(key, "bad", 4)])]);
    assert_eq!(item(&space, "x"), Some(("good".into(), 3)));
    assert_eq!((space.revision(), space.raw_keys()), (Revision(4), 1));

    // Versions between may have been skipped.
    let space = after(&space, vec![response(9, vec![put(key, "better", 9)])]);
    assert_eq!(item(&space, "x"), Some(("better".into(), 9)));

    let space =
        after(&space, vec![response(10, vec![put(key, "bad", 10)]), response(11, vec![delete(key, 11)])]);
    assert_eq!((item(&space, "x"), space.raw_keys()), (None, 0));
    assert_eq!(space.undecodable().count(), 0);
}

#[test]
fn keys_without_meaning_count_but_are_not_shown() {
    let keys = ["/p/other", "/p/members/no-hash", "/p/assign/x#z#abcd#01"];
    let events = keys.iter().map(|key| put(key, "v", 2)).collect();
    let space = after(&empty(1), vec![response(2, events)]);
    assert_eq!((space.items().len(), space.members().len(), space.assignments().len()), (0, 0, 0));
    assert_eq!(space.raw_keys(), 3);
    let space = after(&space, vec![response(3, keys.iter().map(|key| delete(key, 3)).collect())]);
    assert_eq!(space.raw_keys(), 0);
}

#[test]
fn progress_moves_the_resume_point_and_not_the_revision() {
    let mut batch = Batch::default();
    batch.push(response(2, vec![put("/p/items/x", "v", 2)]), CLUSTER, Revision(1)).unwrap();
    batch.push(response(8, vec![]), CLUSTER, Revision(1)).unwrap();
    assert_eq!(batch.progress(), Revision(8));
    let (space, _) = batch.apply(&empty(1), &Text, &prefix());
    assert_eq!(space.revision(), Revision(2));
    assert_eq!(space.header().member_id, 1);
}

#[test]
fn what_a_sound_etcd_cannot_send_is_refused() {
    let other = PbResponseHeader { cluster_id: 6, ..header(9) };
    let other = PbWatchResponse { header: Some(other), ..Default::default() };
    let fault = Batch::default().push(other, CLUSTER, Revision(1));
    assert_eq!(fault, Err(DataLost::ClusterChanged { expected: 5, found: 6 }.into()));
    for (applied, revisions) in [(5, vec![5]), (5, vec![4]), (1, vec![3, 2])] {
        let events = revisions.iter().map(|r| put("/p/items/x", "v", *r)).collect();
        let fault = Batch::default().push(response(9, events), CLUSTER, Revision(applied));
        assert!(matches!(fault, Err(MirrorFault::RevisionWentBack { .. })), "{applied} {revisions:?}");
    }
    // A revision is not split over responses, so it cannot come again in the next one.
    let mut batch = Batch::default();
    batch.push(response(2, vec![put("/p/items/x", "v", 2)]), CLUSTER, Revision(1)).unwrap();
    assert!(batch.push(response(2, vec![put("/p/items/y", "v", 2)]), CLUSTER, Revision(1)).is_err());
}

#[test]
fn loading_shows_what_decodes_at_the_revision_that_was_read() {
    let kvs = [put("/p/items/x", "v", 3), put("/p/items/y", "bad", 4)].map(|event| event.kv.unwrap());
    let (space, skipped) =
        load(kvs.into(), EtcdHeader { revision: Revision(7), ..header(0).into() }, &Text, &prefix());
    assert_eq!(item(&space, "x"), Some(("v".into(), 3)));
    assert_eq!((space.revision(), space.raw_keys(), skipped.len()), (Revision(7), 2, 1));
}

#[test]
fn routes_list_members_in_key_order_with_their_endpoints() {
    let events = vec![
        put("/p/members/a#peer", "http://a", 2),
        put("/p/assign/j#b#peer#0", "", 2),
        put("/p/assign/j#a#peer#1", "", 2),
        put("/p/assign/j/k#a#peer#0", "", 2),
        put("/p/assign/i#a#peer#0", "", 2),
    ];
    let space = after(&empty(1), vec![response(2, events)]);
    let route = space.route("j");
    let members: Vec<&str> = route.members.iter().map(|m| &*m.zone).collect();
    assert_eq!((members, route.primary), (vec!["a", "b"], 1));
    assert_eq!(route.endpoints, ["http://a", ""], "the second member is unknown");
    let nobody = space.route("none");
    assert_eq!((nobody.primary, nobody.members.len(), nobody.endpoints.len()), (-1, 0, 0));
}

proptest! {
    /// However responses are batched, the end is the same, and the count of raw keys is that of the keys.
    #[test]
    fn batches_add_up(
        events in prop::collection::vec((0usize..6, 0usize..4), 1..40),
        cuts in prop::collection::vec(any::<bool>(), 40),
    ) {
        let keys = ["/p/items/x", "/p/items/y", "/p/members/z#abcd", "/p/assign/x#z#abcd#0", "/p/odd", "/p/items/a#b"];
        let (mut one_by_one, mut batched) = (empty(1), empty(1));
        let (mut batch, mut raw) = (Vec::new(), BTreeMap::new());
        for (n, (key, value)) in events.iter().enumerate() {
            let (key, revision) = (keys[*key], i64::try_from(n).unwrap() + 2);
            let event = match value {
                0 => delete(key, revision),
                1 => put(key, "bad", revision),
                _ => put(key, &revision.to_string(), revision),
            };
            if *value == 0 { raw.remove(key); } else { raw.insert(key, ()); }
            one_by_one = after(&one_by_one, vec![response(revision, vec![event.clone()])]);
            batch.push(response(revision, vec![event]));
            if cuts[n] {
                batched = after(&batched, std::mem::take(&mut batch));
            }
            prop_assert_eq!(one_by_one.raw_keys(), raw.len());
        }
        batched = after(&batched, batch);
        prop_assert_eq!(item(&one_by_one, "x"), item(&batched, "x"));
        prop_assert_eq!(item(&one_by_one, "y"), item(&batched, "y"));
        prop_assert_eq!(one_by_one.revision(), batched.revision());
        prop_assert_eq!(one_by_one.raw_keys(), batched.raw_keys());
        prop_assert_eq!(one_by_one.members().len(), batched.members().len());
        prop_assert_eq!(one_by_one.assignments().len(), batched.assignments().len());
    }
}
