use std::sync::Mutex;

use proto::MemberId;
use proto::Revision;
use proto::protocol::header::Etcd;

use super::*;

fn id(suffix: &str) -> Id {
    MemberId::new("zone", suffix).unwrap().to_proto()
}

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn header() -> Header {
    let members = vec![id("peer-a"), id("peer-b"), id("self")];
    let endpoints = ["http://a", "http://b", "http://self"].map(str::to_owned).to_vec();
    let etcd = Etcd { cluster_id: 1, member_id: 2, revision: 9, raft_term: 4 };
    Header::routed(id("self"), Route { members, primary: 2, endpoints }, etcd)
}

/// The far end of a peer's stream.
struct Far {
    requests: mpsc::Receiver<ReplicateRequest>,
    responses: mpsc::Sender<Result<ReplicateResponse, tonic::Status>>,
}

/// Connects to nobody.
struct Nobody;

impl PeerConnector for Nobody {
    fn connect(&self, _: &JournalName, _: &Id, _: &Header) -> Result<PeerChannels, String> {
        Err("nobody is there".to_owned())
    }
}

#[derive(Default)]
struct Connector {
    far: Mutex<Vec<Far>>,
}

impl PeerConnector for Connector {
    fn connect(&self, _: &JournalName, _: &Id, _: &Header) -> Result<PeerChannels, String> {
        let (requests, far_requests) = mpsc::channel(8);
        let (far_responses, responses) = mpsc::channel(8);
        self.far.lock().unwrap().push(Far { requests: far_requests, responses: far_responses });
        Ok(PeerChannels { requests, responses })
    }
}

fn started() -> (Scatter, Gather, Vec<Far>) {
    let connector = Connector::default();
    let (scatter, gather) = start(&journal(), &header(), &connector).unwrap();
    (scatter, gather, connector.far.into_inner().unwrap())
}

fn fragment(begin: i64, end: i64) -> Fragment {
    Fragment { journal: "a/journal".to_owned(), begin, end, ..Fragment::default() }
}

fn response(status: Status) -> ReplicateResponse {
    ReplicateResponse { status: status.into(), ..ReplicateResponse::default() }
}

#[test]
fn peers_get_the_same_messages_and_only_the_first_has_a_header() {
    let (mut scatter, _gather, mut far) = started();
    let registers = LabelSet::from_pairs([("a-name", "value")]);
    scatter.propose(&fragment(0, 0), &registers, None, true, None);
    scatter.content(&[Bytes::from_static(b"foo")], 0);
    scatter.content(&[Bytes::from_static(b"b"), Bytes::from_static(b"ar")], 3);
    scatter.propose(
        &fragment(0, 6),
        &registers,
        Some(std::time::Duration::new(3, 7)),
        true,
        Some("trace".to_owned()),
    );
    for (peer, suffix) in far.iter_mut().zip(["peer-a", "peer-b"]) {
        let got: Vec<_> = std::iter::from_fn(|| peer.requests.try_recv().ok()).collect();
        let opening = &got[0];
        assert_eq!(opening.header.as_ref().unwrap().process_id, Some(id(suffix)));
        assert_eq!(opening.header.as_ref().unwrap().route, header().route);
        assert_eq!(opening.deprecated_journal, "a/journal");
        assert_eq!((opening.proposal.clone(), opening.acknowledge), (Some(fragment(0, 0)), true));
        assert_eq!((&got[1].content[..], got[1].content_delta), (&b"foo"[..], 0));
        assert_eq!((&got[2].content[..], got[2].content_delta), (&b"bar"[..], 3));
        let commit = ReplicateRequest {
            proposal: Some(fragment(0, 6)),
            registers: Some(registers.clone()),
            acknowledge: true,
            settled_through: Some(0),
            first_append: Some(3_000_000_007),
            trace_context: "trace".to_owned(),
            ..ReplicateRequest::default()
        };
        assert_eq!(got[3..], [commit]);
    }
    assert_eq!(scatter.failed(), None);
}

#[test]
fn small_blocks_share_a_message_and_large_ones_are_not_copied() {
    let (mut scatter, _gather, mut far) = started();
    let large = Bytes::from(vec![7; COPIED_BYTES_MAX]);
    let small = |text: &'static str| Bytes::from_static(text.as_bytes());
    scatter.content(&[small("a"), small("b"), large.clone(), small("c"), small("d")], 0);
    let got: Vec<_> = std::iter::from_fn(|| far[0].requests.try_recv().ok()).collect();
    let contents: Vec<_> = got.iter().map(|message| &message.content[..]).collect();
    assert_eq!(contents, [b"ab", &large[..], b"cd"]);
    assert_eq!(got[1].content.as_ptr(), large.as_ptr());
    let deltas: Vec<_> = got.iter().map(|message| message.content_delta).collect();
    assert_eq!(deltas, [0, 2, 2 + COPIED_BYTES_MAX as i64]);
}

#[test]
fn content_is_cut_into_messages_that_peers_take() {
    let (mut scatter, _gather, mut far) = started();
    let content = Bytes::from(vec![7; 2 * CONTENT_BYTES_MAX + 5]);
    scatter.content(std::slice::from_ref(&content), 100);
    let got = std::iter::from_fn(|| far[0].requests.try_recv().ok());
    let got: Vec<_> = got.map(|message| (message.content_delta, message.content.len())).collect();
    let step = CONTENT_BYTES_MAX as i64;
    assert_eq!(got, [(100, CONTENT_BYTES_MAX), (100 + step, CONTENT_BYTES_MAX), (100 + 2 * step, 5)]);
}

#[tokio::test]
async fn a_round_takes_one_response_of_each_peer_and_may_be_interrupted() {
    let (_scatter, mut gather, far) = started();
    far[0].responses.send(Ok(response(Status::Ok))).await.unwrap();
    assert!(futures::FutureExt::now_or_never(gather.round()).is_none());
    far[0].responses.send(Ok(response(Status::WrongRoute))).await.unwrap();
    far[1].responses.send(Ok(response(Status::Ok))).await.unwrap();
    gather.acknowledged().await.unwrap();
    far[1].responses.send(Ok(response(Status::Ok))).await.unwrap();
    let error = gather.acknowledged().await.unwrap_err().to_string();
    assert_eq!(error, r#"recv from zone:"zone" suffix:"peer-a" : unexpected !OK response: WRONG_ROUTE"#);
}

#[tokio::test]
async fn the_first_peer_that_fails_is_named() {
    let (mut scatter, mut gather, mut far) = started();
    drop(far.pop());
    far[0].responses.send(Ok(response(Status::Ok))).await.unwrap();
    let error = gather.round().await.unwrap_err().to_string();
    assert_eq!(error, r#"recv from zone:"zone" suffix:"peer-b" : unexpected EOF"#);
    let scatter = std::thread::spawn(move || {
        scatter.propose(&fragment(0, 0), &LabelSet::default(), None, true, None);
        scatter
    });
    let scatter = scatter.join().unwrap();
    assert_eq!(
        scatter.failed().unwrap().to_string(),
        r#"send to zone:"zone" suffix:"peer-b" : the stream has ended"#
    );
    assert!(far[0].requests.try_recv().is_ok(), "the other peer has it");
}

#[tokio::test]
async fn a_peer_that_died_is_unavailable_to_clients() {
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    for (status, code, text) in [
        (Some(tonic::Status::unavailable("gone")), Code::Unavailable, "rpc error: code = Unavailable"),
        (Some(tonic::Status::unknown("disk full")), Code::Unknown, "rpc error: code = Unknown"),
        // Not of the client's token.
        (Some(tonic::Status::unauthenticated("no")), Code::Unknown, "rpc error: code = Unauthenticated"),
        (Some(tonic::Status::from_error(Box::new(reset))), Code::Unavailable, "rpc error: code = "),
        (None, Code::Unavailable, "unexpected EOF"),
    ] {
        let (_scatter, mut gather, mut far) = started();
        let first = far.remove(0);
        if let Some(status) = status {
            first.responses.send(Err(status)).await.unwrap();
        }
        drop(first);
        let error = gather.round().await.unwrap_err();
        let begin = format!("recv from zone:\"zone\" suffix:\"peer-a\" : {text}");
        assert!(error.to_string().starts_with(&begin), "{error}");
        assert_eq!(error.code(), code, "{error}");
    }
    assert_eq!(PipelineError::Send { peer: String::new() }.code(), Code::Unavailable);
}

#[test]
fn without_peers_there_is_nobody_to_wait_for() {
    let mut header = header();
    header.route = Some(Route { members: vec![id("self")], primary: 0, endpoints: Vec::new() });
    let (mut scatter, mut gather) = start(&journal(), &header, &Nobody).unwrap();
    scatter.propose(&fragment(0, 0), &LabelSet::default(), None, true, None);
    assert!(scatter.is_empty());
    let round = futures::FutureExt::now_or_never(gather.round()).unwrap();
    assert_eq!(round, Ok(Vec::new()));
    let error = start(&journal(), &super::tests::header(), &Nobody).unwrap_err().to_string();
    assert!(error.starts_with(r#"connecting to zone:"zone" suffix:"peer-a" : nobody is there"#), "{error}");
}

fn mismatch(begin: i64, end: i64, registers: &str) -> ReplicateResponse {
    ReplicateResponse {
        fragment: Some(fragment(begin, end)),
        registers: Some(LabelSet::from_pairs([("of", registers)])),
        ..response(Status::ProposalMismatch)
    }
}

fn wrong_route(revision: i64, primary: i32) -> ReplicateResponse {
    let mut header = header();
    header.route.as_mut().unwrap().primary = primary;
    header.etcd.as_mut().unwrap().revision = revision;
    ReplicateResponse { header: Some(header), ..response(Status::WrongRoute) }
}

#[test]
fn sync_responses_are_classified() {
    let route = header().route.unwrap();
    let registers = |of| Some(LabelSet::from_pairs([("of", of)]));
    let ok = || response(Status::Ok);
    let table = [
        (ok(), ok(), Ok(SyncOutcome::Synchronised)),
        (ok(), wrong_route(10, 1), Ok(SyncOutcome::ReadThrough(Revision(10)))),
        (wrong_route(12, 1), wrong_route(11, 0), Ok(SyncOutcome::ReadThrough(Revision(12)))),
        (wrong_route(9, 1), ok(), Err("unexpected WRONG_ROUTE: route as of revision 9")),
        (wrong_route(10, 2), ok(), Err("unexpected WRONG_ROUTE: route as of revision 10")),
        (mismatch(567, 892, "a"), ok(), Ok(SyncOutcome::RollTo { offset: 892, registers: registers("a") })),
        (
            mismatch(0, 200, "a"),
            mismatch(0, 300, "b"),
            Ok(SyncOutcome::RollTo { offset: 300, registers: registers("b") }),
        ),
        (mismatch(100, 100, "a"), ok(), Ok(SyncOutcome::RollTo { offset: 100, registers: None })),
        (mismatch(50, 100, "a"), ok(), Err("unexpected PROPOSAL_MISMATCH: fragment 50..100")),
        (mismatch(0, 99, "a"), ok(), Err("unexpected PROPOSAL_MISMATCH: fragment 0..99")),
        (ok(), response(Status::JournalNotFound), Err("unexpected JOURNAL_NOT_FOUND: no detail")),
        (
            wrong_route(10, 1),
            mismatch(0, 300, "b"),
            Ok(SyncOutcome::RollTo { offset: 300, registers: registers("b") }),
        ),
    ];
    for (a, b, expected) in table {
        let responses = [(id("peer-a"), a), (id("peer-b"), b)];
        let outcome = classify(100, &route, Revision(9), &responses).map_err(|err| err.to_string());
        match (outcome, expected) {
            (Ok(outcome), Ok(expected)) => assert_eq!(outcome, expected),
            (Err(error), Err(expected)) => assert!(error.ends_with(expected), "{error}"),
            (outcome, expected) => panic!("{outcome:?}, expected {expected:?}"),
        }
    }
}
