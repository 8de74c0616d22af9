//! Rules of the messages which others are made of, and their helpers.

use super::*;
use crate::consumer::{ConsumerSpec, ReplicaStatus, replica_status::Code};
use crate::protocol::{BrokerSpec, ProcessSpec};
use crate::{MemberId, Revision};

#[test]
fn process_ids() {
    assert_eq!(verdict(&id("a", "abcd")), "ok");
    for (zone, suffix, text) in [
        ("", "abcd", "Zone: invalid length (0; expected 1 <= length <= 32)"),
        ("a=b", "abcd", "Zone: not a valid token (a=b)"),
        ("a", "abc", "Suffix: invalid length (3; expected 4 <= length <= 128)"),
        ("a", "a#bcd", "Suffix: not a valid token (a#bcd)"),
    ] {
        assert_eq!(verdict(&id(zone, suffix)), text);
        assert_eq!(MemberId::new(zone, suffix).unwrap_err().to_string(), text);
    }
    let member = MemberId::new("zone", "suffix").unwrap();
    assert_eq!(member.to_string(), "zone#suffix");
    assert_eq!(MemberId::try_from(&member.to_proto()), Ok(member.clone()));
    assert_eq!(member, id("zone", "suffix"));
    // Zones order before suffixes, as keys do: '#' is below everything permitted.
    assert!(MemberId::new("a", "zzzz").unwrap() < MemberId::new("a+", "aaaa").unwrap());
}

#[test]
fn member_specs() {
    let process = ProcessSpec { id: Some(id("a", "abcd")), endpoint: "http://h:1".into() };
    let broker = BrokerSpec { process_spec: Some(process.clone()), journal_limit: 5, exiting: true };
    assert_eq!(verdict(&broker), "ok");
    assert_eq!(broker.member_id().unwrap(), id("a", "abcd"));
    assert_eq!(broker.endpoint(), "http://h:1");
    assert_eq!(
        edited(&broker, |b| b.journal_limit = 1 << 18),
        "invalid JournalLimit (262144; expected JournalLimit <= 131072)"
    );
    assert_eq!(
        edited(&broker, |b| b.process_spec = None),
        "ProcessSpec.Id.Zone: invalid length (0; expected 1 <= length <= 32)"
    );
    let consumer = ConsumerSpec { process_spec: Some(process), shard_limit: u32::MAX, exiting: false };
    assert_eq!(verdict(&consumer), "ok");
    let relative = |c: &mut ConsumerSpec| c.process_spec.as_mut().unwrap().endpoint = "host:1".into();
    assert!(edited(&consumer, relative).starts_with("ProcessSpec.Endpoint: missing host: host:1"));
}

#[test]
fn routes() {
    let route = valid_route();
    assert_eq!(verdict(&route), "ok");
    assert_eq!(verdict(&Route::unrouted()), "ok");
    assert_eq!(verdict(&Route::default()), "invalid Primary (0; expected -1 <= Primary < 0)");
    assert_eq!(
        edited(&route, |r| r.members[0].zone.clear()),
        "Members[0].Zone: invalid length (0; expected 1 <= length <= 32)"
    );
    assert_eq!(
        edited(&route, |r| r.members.swap(0, 1)),
        "Members not in unique, sorted order (index 1; {Zone:zone-a Suffix:broker-1} <= {Zone:zone-b Suffix:broker-2})"
    );
    assert_eq!(edited(&route, |r| r.primary = -2), "invalid Primary (-2; expected -1 <= Primary < 2)");
    assert_eq!(edited(&route, |r| r.primary = 2), "invalid Primary (2; expected -1 <= Primary < 2)");
    assert_eq!(
        edited(&route, |r| r.endpoints.truncate(1)),
        "len(Endpoints) != 0, and != len(Members) (1 vs 2)"
    );
    assert_eq!(edited(&route, |r| r.endpoints[1] = "/bad".into()), "Endpoints[1]: not absolute: /bad");

    assert_eq!(route.primary_id(), Some(&id("zone-a", "broker-1")));
    assert_eq!(route.primary_endpoint(), Some("http://broker-1:8080"));
    assert_eq!(route.endpoint_of(&id("zone-b", "broker-2")), None);
    assert_eq!(Route::unrouted().primary_id(), None);
    assert!(route.equivalent(&route.without_endpoints()));
    assert!(!route.equivalent(&Route { primary: 1, ..route.clone() }));
}

#[test]
fn headers() {
    let header = valid_header();
    assert_eq!(verdict(&header), "ok");
    assert_eq!(header.revision(), Revision(56));
    assert_eq!(verdict(&Header::unrouted(None, header.etcd.unwrap())), "ok");
    assert_eq!(Header::unrouted(None, header.etcd.unwrap()).process(), None);
    assert_eq!(edited(&header, |h| h.process_id = None), "ok");
    assert_eq!(
        edited(&header, |h| h.process_id = Some(id("", "abcd"))),
        "ProcessId.Zone: invalid length (0; expected 1 <= length <= 32)"
    );
    assert_eq!(edited(&header, |h| h.route = None), "Route: invalid Primary (0; expected -1 <= Primary < 0)");
    let etcd = |edit: fn(&mut header::Etcd)| edited(&header, |h| edit(h.etcd.as_mut().unwrap()));
    assert_eq!(etcd(|e| e.cluster_id = 0), "Etcd: invalid ClusterId (expected != 0)");
    assert_eq!(etcd(|e| e.member_id = 0), "Etcd: invalid MemberId (expected != 0)");
    assert_eq!(etcd(|e| e.revision = 0), "Etcd: invalid Revision (0; expected > 0)");
    assert_eq!(etcd(|e| e.raft_term = 0), "Etcd: invalid RaftTerm (expected != 0)");
    assert_eq!(edited(&header, |h| h.etcd = None), "Etcd: invalid ClusterId (expected != 0)");
}

#[test]
fn fragments() {
    let fragment = valid_fragment();
    assert_eq!(verdict(&fragment), "ok");
    assert_eq!(edited(&fragment, |f| f.path_postfix = "a=b/c%d".into()), "ok");
    assert_eq!(
        edited(&fragment, |f| f.journal.clear()),
        "Journal: invalid length (0; expected 4 <= length <= 512)"
    );
    assert_eq!(edited(&fragment, |f| f.begin = 7), "expected Begin <= End (have 7, 6)");
    assert_eq!(edited(&fragment, |f| f.compression_codec = 0), "CompressionCodec: invalid value (INVALID)");
    assert_eq!(edited(&fragment, |f| f.compression_codec = 99), "CompressionCodec: invalid value (99)");
    assert_eq!(
        edited(&fragment, |f| f.path_postfix = "/abs".into()),
        "PathPostfix: cannot begin with '/' (/abs)"
    );
    assert_eq!(
        edited(&fragment, |f| f.path_postfix = "../other".into()),
        "PathPostfix: cannot have a '..' element (../other)"
    );
    let extreme = Fragment { begin: i64::MIN, end: i64::MAX, sum: None, ..fragment };
    assert_eq!((extreme.content_length(), extreme.sum_or_zero()), (i64::MAX, Sha1Sum::ZERO));
}

#[test]
fn replica_statuses_reduce_to_the_highest() {
    assert_eq!(verdict(&ReplicaStatus::new(Code::Primary)), "ok");
    assert_eq!(verdict(&ReplicaStatus::failed("boom")), "ok");
    assert_eq!(verdict(&ReplicaStatus::new(Code::Failed)), "expected non-empty Errors with Code FAILED");
    let status = ReplicaStatus { code: Code::Idle.into(), errors: vec!["x".into()] };
    assert_eq!(verdict(&status), "expected Code FAILED with non-empty Errors");
    assert_eq!(verdict(&ReplicaStatus { code: 7, errors: vec![] }), "Code: invalid code (7)");

    let mut status = ReplicaStatus::new(Code::Standby);
    status.reduce(&ReplicaStatus::new(Code::Backfill));
    assert_eq!(status, ReplicaStatus::new(Code::Standby));
    status.reduce(&ReplicaStatus::failed("first"));
    let mut newer = ReplicaStatus::failed("second");
    newer.reduce(&status);
    assert_eq!(
        newer,
        ReplicaStatus { code: Code::Failed.into(), errors: vec!["second".into(), "first".into()] }
    );
}
