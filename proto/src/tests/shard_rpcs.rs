//! Rules of the Shard service's messages.

use super::*;
use crate::consumer::{
    ApplyRequest, ApplyResponse, Checkpoint, GetHintsRequest, GetHintsResponse, ListRequest, ListResponse,
    ReplicaStatus, ShardSpec, StatRequest, StatResponse, UnassignRequest, UnassignResponse, apply_request,
    checkpoint, get_hints_response, list_response, replica_status::Code,
};
use crate::recoverylog::FsmHints;
use crate::shard_spec::valid_shard_spec;
use std::collections::BTreeMap;

fn bad_header() -> Option<Header> {
    Some(Header { etcd: None, ..valid_header() })
}

const BAD_ETCD: &str = "Header.Etcd: invalid ClusterId (expected != 0)";

#[test]
fn lists() {
    assert_eq!(verdict(&ListRequest::default()), "ok");
    let shard = list_response::Shard {
        spec: Some(valid_shard_spec()),
        mod_revision: 1,
        route: Some(valid_route()),
        status: vec![ReplicaStatus::new(Code::Primary), ReplicaStatus::new(Code::Standby)],
        create_revision: 1,
    };
    let response = ListResponse { header: Some(valid_header()), shards: vec![shard], ..Default::default() };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.status = 9), "Status: invalid status (9)");
    assert_eq!(edited(&response, |r| r.header = bad_header()), BAD_ETCD);
    let shard = |edit: fn(&mut list_response::Shard)| edited(&response, |r| edit(&mut r.shards[0]));
    assert_eq!(
        shard(|s| s.spec.as_mut().unwrap().id = "bad id".into()),
        "Shards[0].Spec.Id: not a valid token (bad id)"
    );
    assert_eq!(shard(|s| s.mod_revision = 0), "Shards[0]: invalid ModRevision (0; expected > 0)");
    assert_eq!(shard(|s| s.route = None), "Shards[0].Route: invalid Primary (0; expected -1 <= Primary < 0)");
    assert_eq!(
        shard(|s| s.status.truncate(1)),
        "Shards[0]: length of Route.Members and Status are not equal (2 vs 1)"
    );
    assert_eq!(shard(|s| s.status[1].code = 1), "Shards[0].Status[1].Code: invalid code (1)");
}

#[test]
fn applies() {
    let hints = FsmHints { log: "a/log/name".into(), ..FsmHints::default() };
    let upsert = apply_request::Change {
        upsert: Some(valid_shard_spec()),
        primary_hints: Some(hints),
        ..Default::default()
    };
    let delete =
        apply_request::Change { delete: "a/shard".into(), expect_mod_revision: 1, ..Default::default() };
    let request = ApplyRequest { changes: vec![upsert, delete], ..Default::default() };
    assert_eq!(verdict(&request), "ok");
    let change =
        |i: usize, edit: fn(&mut apply_request::Change)| edited(&request, |r| edit(&mut r.changes[i]));
    assert_eq!(
        change(0, |c| c.delete = "x".into()),
        "Changes[0]: both Upsert and Delete are set (expected exactly one)"
    );
    assert_eq!(
        change(1, |c| c.delete.clear()),
        "Changes[1]: neither Upsert nor Delete are set (expected exactly one)"
    );
    assert_eq!(
        change(0, |c| c.upsert.as_mut().unwrap().hint_backups = -1),
        "Changes[0].Upsert: invalid HintBackups (-1; expected >= 0)"
    );
    assert_eq!(
        change(0, |c| c.expect_mod_revision = -2),
        "Changes[0]: invalid ExpectModRevision (-2; expected >= 0 or -1)"
    );
    assert_eq!(
        change(1, |c| c.expect_mod_revision = 0),
        "Changes[1]: invalid ExpectModRevision (0; expected > 0 or -1)"
    );
    assert_eq!(
        change(0, |c| c.primary_hints.as_mut().unwrap().log.clear()),
        "Changes[0].PrimaryHints.Log: invalid length (0; expected 4 <= length <= 512)"
    );
    assert_eq!(
        change(1, |c| c.primary_hints = Some(FsmHints::default())),
        "Changes[1]: unexpected PrimaryHints without Upsert"
    );
    let response = ApplyResponse { header: Some(valid_header()), ..Default::default() };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.status = -1), "Status: invalid status (-1)");
    assert_eq!(edited(&response, |r| r.header = bad_header()), BAD_ETCD);
}

#[test]
fn stats() {
    let offsets = |journal: &str, offset| BTreeMap::from([(journal.to_owned(), offset)]);
    let request = StatRequest {
        shard: "a/shard".into(),
        read_through: offsets("a/journal;meta", 0),
        header: Some(valid_header()),
        ..Default::default()
    };
    assert_eq!(verdict(&request), "ok");
    assert_eq!(edited(&request, |r| r.header = bad_header()), BAD_ETCD);
    assert_eq!(edited(&request, |r| r.shard = "#bad".into()), "Shard: not a valid token (#bad)");
    assert_eq!(
        edited(&request, |r| r.read_through = offsets("a/journal", -1)),
        "ReadThrough.Offsets[a/journal]: invalid offset (-1; expected >= 0)"
    );
    assert_eq!(
        edited(&request, |r| r.read_through = offsets("/bad", 1)),
        "ReadThrough.Offsets[/bad]: cannot begin with '/' (/bad)"
    );
    let response = StatResponse { header: Some(valid_header()), ..Default::default() };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.header = bad_header()), BAD_ETCD);
    assert!(
        edited(&response, |r| r.publish_at = offsets("x", 1))
            .starts_with("PublishAt.Offsets[x]: invalid length")
    );
}

#[test]
fn hints_and_unassign() {
    assert_eq!(verdict(&GetHintsRequest { shard: "a/shard".into(), ..Default::default() }), "ok");
    assert_eq!(
        verdict(&GetHintsRequest::default()),
        "Shard: invalid length (0; expected 4 <= length <= 512)"
    );
    let absent = get_hints_response::ResponseHints { hints: None };
    let response = GetHintsResponse {
        header: Some(valid_header()),
        primary_hints: Some(absent.clone()),
        backup_hints: vec![absent],
        ..Default::default()
    };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.header = bad_header()), BAD_ETCD);
    assert_eq!(
        edited(&response, |r| r.backup_hints[0].hints = Some(FsmHints::default())),
        "BackupHints[0].Hints.Log: invalid length (0; expected 4 <= length <= 512)"
    );

    let request = UnassignRequest { shards: vec!["a/shard".into(), "bad".into()], ..Default::default() };
    assert_eq!(verdict(&request), "Shards[1]: invalid length (3; expected 4 <= length <= 512)");
    assert_eq!(verdict(&UnassignResponse { status: 5, shards: vec![] }), "ok");
    assert_eq!(verdict(&UnassignResponse { status: 6, shards: vec![] }), "Status: invalid status (6)");
}

#[test]
fn checkpoints() {
    let producer = checkpoint::ProducerEntry { id: vec![1; 6].into(), state: None };
    let source = checkpoint::Source { read_through: 0, producers: vec![producer] };
    let checkpoint = Checkpoint {
        sources: BTreeMap::from([("a/journal;meta".to_owned(), source)]),
        ack_intents: BTreeMap::from([("b/journal".to_owned(), "x".into())]),
    };
    assert_eq!(verdict(&checkpoint), "ok");
    let source =
        |edit: fn(&mut checkpoint::Source)| edited(&checkpoint, |c| c.sources.values_mut().for_each(edit));
    assert_eq!(
        source(|s| s.read_through = -1),
        "Sources[a/journal;meta]: invalid ReadThrough (-1; expected >= 0)"
    );
    assert_eq!(
        source(|s| s.producers[0].id.truncate(5)),
        "Sources[a/journal;meta].Producers[0]: invalid Id (length 5; expected 6)"
    );
    assert_eq!(
        source(|s| s.producers[0].state = Some(crate::consumer::ProducerState { last_ack: 0, begin: -2 })),
        "Sources[a/journal;meta].Producers[0]: invalid State.Begin (-2; expected >= -1)"
    );
    assert!(verdict(&ShardSpec::default()).starts_with("Id: invalid length"));
}
