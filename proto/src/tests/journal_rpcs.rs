//! Rules of the Journal service's messages.

use super::*;
use crate::protocol::{
    AppendRequest, AppendResponse, ApplyRequest, ApplyResponse, FragmentStoreHealthRequest,
    FragmentStoreHealthResponse, FragmentsRequest, FragmentsResponse, Label, LabelSelector, LabelSet,
    ListRequest, ListResponse, ReadRequest, ReadResponse, ReplicateRequest, ReplicateResponse, Status,
    apply_request, fragments_response, list_response,
};

fn bad_header() -> Option<Header> {
    Some(Header { etcd: None, ..valid_header() })
}

fn bad_labels() -> LabelSet {
    LabelSet { labels: vec![Label { name: "a b".into(), ..Label::default() }] }
}

const BAD_ETCD: &str = "Etcd: invalid ClusterId (expected != 0)";
const BAD_LABEL: &str = "Labels[0].Name: not a valid token (a b)";

#[test]
fn read_requests() {
    let request = ReadRequest { journal: "a/journal;meta".into(), offset: -1, ..ReadRequest::default() };
    assert_eq!(verdict(&request), "ok");
    assert_eq!(edited(&request, |r| r.end_offset = 5), "ok");
    assert_eq!(edited(&request, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(
        edited(&request, |r| r.journal = "/invalid/name".into()),
        "Journal: cannot begin with '/' (/invalid/name)"
    );
    assert_eq!(
        edited(&request, |r| r.journal = "../../invalid".into()),
        "Journal: cannot have a '..' element (../../invalid)"
    );
    assert_eq!(edited(&request, |r| r.offset = -2), "invalid Offset (-2; expected -1 <= Offset <= MaxInt64)");
    assert_eq!(
        edited(&request, |r| r.end_offset = -1),
        "invalid EndOffset (-1; expected 0 or EndOffset >= Offset -1)"
    );
    assert_eq!(
        edited(&request, |r| (r.offset, r.end_offset) = (100, 99)),
        "invalid EndOffset (99; expected 0 or EndOffset >= Offset 100)"
    );
}

#[test]
fn read_responses() {
    let content = ReadResponse { content: "foobar".into(), offset: 3, ..ReadResponse::default() };
    assert_eq!(verdict(&content), "ok");
    assert_eq!(edited(&content, |r| r.status = 99), "Status: invalid status (99)");
    assert_eq!(
        edited(&content, |r| r.status = 6),
        "unexpected Status with Content (OFFSET_NOT_YET_AVAILABLE)"
    );
    assert_eq!(edited(&content, |r| r.header = Some(valid_header())), "unexpected Header with Content");
    assert_eq!(edited(&content, |r| r.write_head = 7), "unexpected WriteHead with Content (7)");
    assert_eq!(edited(&content, |r| r.fragment = Some(valid_fragment())), "unexpected Fragment with Content");
    assert_eq!(edited(&content, |r| r.fragment_url = "x".into()), "unexpected FragmentUrl with Content (x)");

    let metadata = ReadResponse {
        header: Some(valid_header()),
        offset: 5,
        write_head: 6,
        fragment: Some(valid_fragment()),
        fragment_url: "s3://b/x?y".into(),
        ..ReadResponse::default()
    };
    assert_eq!(verdict(&metadata), "ok");
    assert_eq!(edited(&metadata, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(edited(&metadata, |r| r.write_head = -1), "invalid WriteHead (-1; expected >= 0)");
    assert_eq!(edited(&metadata, |r| r.offset = 6), "invalid Offset (6; expected 0 <= offset < 6)");
    assert_eq!(edited(&metadata, |r| r.write_head = 5), "invalid WriteHead (5; expected >= 6)");
    assert!(
        edited(&metadata, |r| r.fragment_url = ":/bad".into()).starts_with("FragmentUrl: parse \":/bad\"")
    );
    assert!(
        edited(&metadata, |r| r.fragment.as_mut().unwrap().begin = 9).starts_with("Fragment: expected Begin")
    );

    assert_eq!(edited(&metadata, |r| r.fragment = None), "unexpected Offset without Fragment or Content (5)");
    assert_eq!(
        edited(&metadata, |r| (r.fragment, r.offset) = (None, 0)),
        "unexpected FragmentUrl without Fragment (s3://b/x?y)"
    );
    let not_yet = ReadResponse {
        status: Status::OffsetNotYetAvailable.into(),
        header: Some(valid_header()),
        offset: 6,
        write_head: 6,
        ..ReadResponse::default()
    };
    assert_eq!(verdict(&not_yet), "ok");
}

#[test]
fn append_requests() {
    let opening = AppendRequest {
        header: Some(valid_header()),
        journal: "a/journal".into(),
        offset: 100,
        check_registers: Some(LabelSelector::default()),
        union_registers: Some(LabelSet::default()),
        subtract_registers: Some(LabelSet::default()),
        suspend: 4,
        min_etcd_revision: -7,
        ..AppendRequest::default()
    };
    assert_eq!(verdict(&opening), "ok");
    assert_eq!(edited(&opening, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(
        edited(&opening, |r| r.journal = "bad;".into()),
        "Journal: invalid length (3; expected 4 <= length <= 512)"
    );
    assert_eq!(edited(&opening, |r| r.offset = -1), "invalid Offset (-1; expected >= 0)");
    assert_eq!(edited(&opening, |r| r.content = "x".into()), "unexpected Content");
    let selector = LabelSelector { include: Some(bad_labels()), exclude: None };
    assert_eq!(
        edited(&opening, |r| r.check_registers = Some(selector)),
        format!("CheckRegisters.Include.{BAD_LABEL}")
    );
    assert_eq!(
        edited(&opening, |r| r.union_registers = Some(bad_labels())),
        format!("UnionRegisters.{BAD_LABEL}")
    );
    assert_eq!(
        edited(&opening, |r| r.subtract_registers = Some(bad_labels())),
        format!("SubtractRegisters.{BAD_LABEL}")
    );
    assert_eq!(edited(&opening, |r| r.suspend = 5), "invalid Suspend variant (5)");

    let chunk = AppendRequest { content: "content".into(), ..AppendRequest::default() };
    assert_eq!(verdict(&chunk), "ok");
    assert_eq!(verdict(&AppendRequest::default()), "ok");
    assert_eq!(edited(&chunk, |r| r.min_etcd_revision = 1), "ok");
    assert_eq!(edited(&chunk, |r| r.header = Some(valid_header())), "unexpected Header");
    assert_eq!(edited(&chunk, |r| r.do_not_proxy = true), "unexpected DoNotProxy");
    assert_eq!(edited(&chunk, |r| r.offset = 1), "unexpected Offset");
    assert_eq!(
        edited(&chunk, |r| r.check_registers = Some(LabelSelector::default())),
        "unexpected CheckRegisters"
    );
    assert_eq!(
        edited(&chunk, |r| r.union_registers = Some(LabelSet::default())),
        "unexpected UnionRegisters"
    );
    assert_eq!(
        edited(&chunk, |r| r.subtract_registers = Some(LabelSet::default())),
        "unexpected SubtractRegisters"
    );
    assert_eq!(edited(&chunk, |r| r.suspend = 1), "unexpected Suspend");
}

#[test]
fn append_responses() {
    let response = AppendResponse {
        header: Some(valid_header()),
        commit: Some(valid_fragment()),
        registers: Some(LabelSet::default()),
        ..AppendResponse::default()
    };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.status = 101), "Status: invalid status (101)");
    assert_eq!(
        edited(&response, |r| r.header = None),
        "Header.Route: invalid Primary (0; expected -1 <= Primary < 0)"
    );
    assert_eq!(edited(&response, |r| r.commit = None), "expected Commit");
    assert_eq!(edited(&response, |r| r.registers = None), "expected Registers");
    let mismatch =
        AppendResponse { status: Status::RegisterMismatch.into(), commit: None, ..response.clone() };
    assert_eq!(verdict(&mismatch), "ok");
    assert_eq!(edited(&mismatch, |r| r.registers = None), "expected Registers");
    assert_eq!(
        edited(&response, |r| r.commit.as_mut().unwrap().compression_codec = 0),
        "Commit.CompressionCodec: invalid value (INVALID)"
    );
    assert_eq!(edited(&response, |r| r.registers = Some(bad_labels())), format!("Registers.{BAD_LABEL}"));
    let refused =
        AppendResponse { status: Status::NotAllowed.into(), commit: None, registers: None, ..response };
    assert_eq!(verdict(&refused), "ok");
}

#[test]
fn replicate_requests() {
    let proposal = ReplicateRequest {
        header: Some(valid_header()),
        proposal: Some(valid_fragment()),
        registers: Some(LabelSet::default()),
        acknowledge: true,
        deprecated_journal: "a/journal".into(),
        ..ReplicateRequest::default()
    };
    assert_eq!(verdict(&proposal), "ok");
    assert_eq!(edited(&proposal, |r| r.registers = None), "ok");
    assert_eq!(edited(&proposal, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(edited(&proposal, |r| r.acknowledge = false), "expected Acknowledge with Header");
    assert_eq!(edited(&proposal, |r| (r.acknowledge, r.header) = (false, None)), "ok");
    assert!(
        edited(&proposal, |r| r.proposal.as_mut().unwrap().begin = 7).starts_with("Proposal: expected Begin")
    );
    assert_eq!(edited(&proposal, |r| r.registers = Some(bad_labels())), format!("Registers.{BAD_LABEL}"));
    assert_eq!(edited(&proposal, |r| r.content = "abc".into()), "unexpected Content with Proposal (len 3)");
    assert_eq!(edited(&proposal, |r| r.content_delta = 1), "unexpected ContentDelta with Proposal (1)");
    assert_eq!(
        edited(&proposal, |r| r.deprecated_journal = "other".into()),
        "DeprecatedJournal and Proposal.Journal mismatch (other vs a/journal)"
    );

    let content = ReplicateRequest { content: "abc".into(), content_delta: 5, ..ReplicateRequest::default() };
    assert_eq!(verdict(&content), "ok");
    assert_eq!(edited(&content, |r| r.content.clear()), "expected Content or Proposal");
    assert_eq!(edited(&content, |r| r.content_delta = -1), "invalid ContentDelta (-1; expected >= 0)");
    assert_eq!(edited(&content, |r| r.header = Some(valid_header())), "unexpected Header with Content");
    assert_eq!(
        edited(&content, |r| r.registers = Some(LabelSet::default())),
        "unexpected Registers with Content"
    );
    assert_eq!(edited(&content, |r| r.acknowledge = true), "unexpected Acknowledge with Content");
    assert_eq!(
        edited(&content, |r| r.deprecated_journal = "j".into()),
        "unexpected DeprecatedJournal with Content"
    );
}

#[test]
fn replicate_responses() {
    assert_eq!(verdict(&ReplicateResponse::default()), "ok");
    let wrong_route =
        ReplicateResponse { status: 7, header: Some(valid_header()), ..ReplicateResponse::default() };
    assert_eq!(verdict(&wrong_route), "ok");
    assert_eq!(edited(&wrong_route, |r| r.header = None), "expected Header");
    assert_eq!(edited(&wrong_route, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(edited(&wrong_route, |r| r.status = 0), "unexpected Header");
    let mismatch = ReplicateResponse {
        status: 8,
        fragment: Some(valid_fragment()),
        registers: Some(LabelSet::default()),
        header: None,
    };
    assert_eq!(verdict(&mismatch), "ok");
    assert_eq!(edited(&mismatch, |r| r.fragment = None), "expected Fragment");
    assert_eq!(edited(&mismatch, |r| r.registers = None), "expected Registers");
    assert_eq!(edited(&mismatch, |r| r.registers = Some(bad_labels())), format!("Registers.{BAD_LABEL}"));
    assert_eq!(edited(&mismatch, |r| r.status = 0), "unexpected Fragment");
    assert_eq!(edited(&mismatch, |r| (r.status, r.fragment) = (0, None)), "unexpected Registers");
    assert_eq!(
        verdict(&ReplicateResponse { status: -1, ..Default::default() }),
        "Status: invalid status (-1)"
    );
}

#[test]
fn lists() {
    assert_eq!(verdict(&ListRequest::default()), "ok");
    let request =
        ListRequest { selector: Some(LabelSelector::include([("prefix", "foo/")])), ..Default::default() };
    assert_eq!(verdict(&request), "ok");
    assert_eq!(
        edited(&request, |r| r.selector = Some(LabelSelector::include([("prefix", "foo")]))),
        "Selector.Include.Labels[\"prefix\"]: expected trailing '/' (foo)"
    );
    let exclude = LabelSelector { include: None, exclude: Some(bad_labels()) };
    assert_eq!(edited(&request, |r| r.selector = Some(exclude)), format!("Selector.Exclude.{BAD_LABEL}"));
    assert_eq!(edited(&request, |r| r.watch_resume = bad_header()), format!("WatchResume.{BAD_ETCD}"));

    let journal = list_response::Journal {
        spec: Some(valid_journal_spec()),
        mod_revision: 1,
        route: Some(valid_route()),
        create_revision: 1,
    };
    let response =
        ListResponse { header: Some(valid_header()), journals: vec![journal], ..Default::default() };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.status = 92), "Status: invalid status (92)");
    assert_eq!(edited(&response, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(
        edited(&response, |r| r.journals[0].spec = None),
        "Journals[0].Spec.Name: invalid length (0; expected 4 <= length <= 512)"
    );
    assert_eq!(
        edited(&response, |r| r.journals[0].mod_revision = 0),
        "Journals[0]: invalid ModRevision (0; expected > 0)"
    );
    assert_eq!(
        edited(&response, |r| r.journals[0].route = None),
        "Journals[0].Route: invalid Primary (0; expected -1 <= Primary < 0)"
    );
    // One journal of a lax peer must not hide the others.
    assert_eq!(edited(&response, |r| r.journals[0].spec.as_mut().unwrap().name = "../up".into()), "ok");
}

#[test]
fn applies() {
    let upsert = apply_request::Change { upsert: Some(valid_journal_spec()), ..Default::default() };
    let delete = apply_request::Change { delete: "a/journal".into(), expect_mod_revision: 1, upsert: None };
    let request = ApplyRequest { changes: vec![upsert, delete] };
    assert_eq!(verdict(&request), "ok");
    assert_eq!(edited(&request, |r| r.changes.iter_mut().for_each(|c| c.expect_mod_revision = -1)), "ok");
    for (text, edit) in [
        (
            "Changes[0]: both Upsert and Delete are set (expected exactly one)",
            (|c| c[0].delete = "x".into()) as fn(&mut [apply_request::Change]),
        ),
        ("Changes[0]: neither Upsert nor Delete are set (expected exactly one)", |c| c[0].upsert = None),
        ("Changes[0].Upsert: invalid Replication (0; expected 1 <= Replication <= 5)", |c| {
            c[0].upsert.as_mut().unwrap().replication = 0;
        }),
        ("Changes[0].Upsert.Name: cannot have a '..' element (../a/b)", |c| {
            c[0].upsert.as_mut().unwrap().name = "../a/b".into();
        }),
        ("Changes[0]: invalid ExpectModRevision (-2; expected >= 0 or -1)", |c| {
            c[0].expect_mod_revision = -2
        }),
        ("Changes[1].Delete: not a valid token (a b c)", |c| c[1].delete = "a b c".into()),
        ("Changes[1]: invalid ExpectModRevision (0; expected > 0 or -1)", |c| c[1].expect_mod_revision = 0),
    ] {
        assert_eq!(edited(&request, |r| edit(&mut r.changes)), text);
    }
    let response = ApplyResponse { status: 9, header: Some(valid_header()) };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.status = 99), "Status: invalid status (99)");
    assert_eq!(edited(&response, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
}

#[test]
fn fragment_listings() {
    let request = FragmentsRequest { journal: "a/journal".into(), page_limit: 10_000, ..Default::default() };
    assert_eq!(verdict(&request), "ok");
    assert_eq!(edited(&request, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert_eq!(edited(&request, |r| r.journal = "a b c".into()), "Journal: not a valid token (a b c)");
    assert_eq!(
        edited(&request, |r| (r.begin_mod_time, r.end_mod_time) = (6, 5)),
        "invalid EndModTime (5 must be after 6)"
    );
    assert_eq!(edited(&request, |r| r.next_page_token = -1), "invalid NextPageToken (-1; must be >= 0)");
    for limit in [-1, 10_001] {
        assert_eq!(
            edited(&request, |r| r.page_limit = limit),
            format!("invalid PageLimit ({limit}; must be >= 0 and <= 10000)")
        );
    }
    let ttl = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    assert_eq!(edited(&request, |r| r.signature_ttl = ttl(1, 0)), "ok");
    assert_eq!(edited(&request, |r| r.signature_ttl = ttl(0, 0)), "invalid SignatureTTL (0s; must be > 0s)");
    assert_eq!(
        edited(&request, |r| r.signature_ttl = ttl(-60, 0)),
        "invalid SignatureTTL (-1m0s; must be > 0s)"
    );
    assert_eq!(
        edited(&request, |r| r.signature_ttl = ttl(1, -1)),
        "SignatureTTL: malformed duration (1s, -1ns)"
    );

    let item = fragments_response::Fragment { spec: Some(valid_fragment()), signed_url: "http://x/y".into() };
    let response =
        FragmentsResponse { header: Some(valid_header()), fragments: vec![item], ..Default::default() };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.status = 99), "Status: invalid status (99)");
    assert_eq!(edited(&response, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
    assert!(
        edited(&response, |r| r.fragments[0].spec = None)
            .starts_with("Fragments[0].Spec.Journal: invalid length")
    );
    assert!(
        edited(&response, |r| r.fragments[0].signed_url = ":x".into())
            .starts_with("Fragments[0].SignedUrl: parse")
    );
}

#[test]
fn store_health() {
    let request = FragmentStoreHealthRequest { fragment_store: "s3://bucket/".into(), ..Default::default() };
    assert_eq!(verdict(&request), "ok");
    assert_eq!(edited(&request, |r| (r.check_delete, r.check_delete_prefix) = (true, "a/b/".into())), "ok");
    assert_eq!(
        edited(&request, |r| r.fragment_store = "azure-ad://tenant/acct".into()),
        "FragmentStore: missing storage container (azure-ad://tenant/acct)"
    );
    assert_eq!(
        edited(&request, |r| r.check_delete_prefix = "a/".into()),
        "unexpected CheckDeletePrefix without CheckDelete (a/)"
    );
    for (prefix, text) in [
        ("a", "CheckDeletePrefix doesn't end in '/' (a)"),
        ("../", "CheckDeletePrefix cannot have a '..' element (../)"),
        ("../a/", "CheckDeletePrefix cannot have a '..' element (../a/)"),
        ("/", "CheckDeletePrefix: invalid length (0; expected 1 <= length <= 512)"),
        ("/a/", "CheckDeletePrefix: cannot begin with '/' (/a)"),
        ("a//", "CheckDeletePrefix: must be a clean path (a/)"),
    ] {
        assert_eq!(
            edited(&request, |r| (r.check_delete, r.check_delete_prefix) = (true, prefix.into())),
            text
        );
    }
    let response =
        FragmentStoreHealthResponse { status: 15, header: Some(valid_header()), ..Default::default() };
    assert_eq!(verdict(&response), "ok");
    assert_eq!(edited(&response, |r| r.header = bad_header()), format!("Header.{BAD_ETCD}"));
}
