use super::*;
use proptest::prelude::*;

fn segment(
    author: u32,
    seqs: (i64, i64),
    offsets: (i64, i64),
    first_checksum: u32,
    log: &str,
) -> ProtoSegment {
    ProtoSegment {
        author,
        first_seq_no: seqs.0,
        first_offset: offsets.0,
        first_checksum,
        last_seq_no: seqs.1,
        last_offset: offsets.1,
        log: log.into(),
    }
}

fn node(fnode: i64, segments: Vec<ProtoSegment>) -> FnodeSegments {
    FnodeSegments { fnode, segments }
}

fn fixture() -> FsmHints {
    FsmHints {
        log: "other/log".into(),
        live_nodes: vec![
            node(2, vec![segment(1, (2, 7), (200, 700), 0x22, "a/log")]),
            node(4, vec![segment(1, (4, 9), (400, 901), 0x44, "a/log")]),
            node(10, vec![segment(2, (10, 10), (1000, 1001), 0x10, "")]),
        ],
        properties: vec![Property { path: "/IDENTITY".into(), content: "<id>".into() }],
    }
}

#[test]
fn hints_flatten_into_files_and_segments() {
    let live = live_log_segments(&fixture()).unwrap();
    assert_eq!(live.fnodes, [Fnode(2), Fnode(4), Fnode(10)]);
    let found: Vec<_> = live.set.segments().iter().map(|s| s.to_proto(&live.log)).collect();
    assert_eq!(
        found,
        [segment(1, (2, 9), (200, 901), 0x22, "a/log"), segment(2, (10, 10), (1000, 1001), 0x10, "")]
    );
    assert_eq!(last_seq_no(&fixture()), 10);
}

#[test]
fn contradictory_hints_are_refused() {
    type Change = fn(&mut FsmHints);
    let rows: [(Change, &str); 9] = [
        (|h| h.log.clear(), "hinted log not provided"),
        (|h| h.log = "../../log".into(), "hints: Log: cannot have a '..' element (../../log)"),
        (
            |h| h.live_nodes[2].segments[0].log = "whoops".into(),
            "expected hints.Log other/log to equal the last Segment Log whoops",
        ),
        (|h| h.live_nodes[2].fnode = 13, "expected Fnode to match Segment FirstSeqNo: fnode 13 vs Some(10)"),
        (
            |h| h.live_nodes[2].segments.clear(),
            "expected Fnode to match Segment FirstSeqNo: fnode 10 vs None",
        ),
        (
            |h| h.live_nodes[1].segments[0].author = 3,
            "hints: expected Segment Author equality: operations 2..=7 of author 1 in a/log at 200..700 vs operations 4..=9 of author 3 in a/log at 400..901",
        ),
        (|h| h.live_nodes.swap(0, 1), "expected monotonic Fnode ordering: 4 vs 2"),
        (
            |h| h.live_nodes[0].segments[0].author = 0,
            "hints: LiveNodes[0].Segments.invalid Author (0; expected > 0)",
        ),
        (
            |h| h.properties[0].path = "/../x".into(),
            "hints: Properties[0].Path: path is not clean (\"/../x\")",
        ),
    ];
    for (change, error) in rows {
        let mut hints = fixture();
        change(&mut hints);
        let found = live_log_segments(&hints).unwrap_err().to_string();
        assert_eq!(found, error.replace("Segments.invalid", "Segments: invalid"));
        assert!(parse(&to_json(&hints)).is_err());
    }
}

#[test]
fn stored_hints_have_the_shape_of_go() {
    let json = String::from_utf8(to_json(&fixture())).unwrap();
    expect_test::expect![[r#"{"log":"other/log","live_nodes":[{"fnode":2,"segments":[{"author":1,"first_seq_no":2,"first_offset":200,"first_checksum":34,"last_seq_no":7,"last_offset":700,"log":"a/log"}]},{"fnode":4,"segments":[{"author":1,"first_seq_no":4,"first_offset":400,"first_checksum":68,"last_seq_no":9,"last_offset":901,"log":"a/log"}]},{"fnode":10,"segments":[{"author":2,"first_seq_no":10,"first_offset":1000,"first_checksum":16,"last_seq_no":10,"last_offset":1001}]}],"properties":[{"path":"/IDENTITY","content":"\u003cid\u003e"}]}"#]]
    .assert_eq(&json);
    let empty = FsmHints { log: "a/log".into(), ..FsmHints::default() };
    assert_eq!(to_json(&empty), br#"{"log":"a/log","live_nodes":null,"properties":null}"#);
}

#[test]
fn json_and_protobuf_are_both_read() {
    assert_eq!(parse(&to_json(&fixture())).unwrap(), fixture());
    assert_eq!(parse(&fixture().encode_to_vec()).unwrap(), fixture());
    // Fields which this reader does not know are left alone.
    let json = br#"{"log":"a/log","live_nodes":null,"more":[1]}"#;
    assert_eq!(parse(json).unwrap(), FsmHints { log: "a/log".into(), ..FsmHints::default() });
}

#[test]
fn undecodable_values_are_errors() {
    for (value, error) in [
        (b"".as_slice(), "the stored hints are empty"),
        (b"{", "the stored hints are not JSON: "),
        (br#"{"log":7}"#, "the stored hints are not JSON: "),
        (br#"{"log":"a/log","live_nodes":[{"fnode":1e99}]}"#, "the stored hints are not JSON: "),
        (b"\xff", "the stored hints are not protobuf: "),
        (b"{}", "hinted log not provided"),
    ] {
        let found = parse(value).unwrap_err().to_string();
        assert!(found.starts_with(error), "{found}");
    }
}

proptest! {
    #[test]
    fn mutated_hints_do_not_panic(at: prop::sample::Index, byte: u8, binary: bool, junk: Vec<u8>) {
        let mut value = if binary { fixture().encode_to_vec() } else { to_json(&fixture()) };
        let at = at.index(value.len());
        value[at] = byte;
        for value in [&value[..], &value[..at], &junk] {
            if let Ok(hints) = parse(value) {
                prop_assert_eq!(parse(&to_json(&hints)).unwrap(), hints);
            }
        }
    }
}
