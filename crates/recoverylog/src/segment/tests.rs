use super::*;
use proptest::prelude::*;

fn log(name: &str) -> JournalName {
    JournalName::parse(&format!("log/{name}")).unwrap()
}

/// `(author, first seq, last seq, first offset, last offset, first checksum, log)`.
type Short = (u32, i64, i64, i64, i64, u32, &'static str);

fn segment(
    (author, first_seq_no, last_seq_no, first_offset, last_offset, first_checksum, name): Short,
) -> Segment {
    let author = Author::new(author).unwrap();
    Segment { author, first_seq_no, first_offset, first_checksum, last_seq_no, last_offset, log: log(name) }
}

fn set(shorts: &[Short]) -> SegmentSet {
    SegmentSet { segments: shorts.iter().map(|s| segment(*s)).collect() }
}

fn model() -> SegmentSet {
    set(&[
        (0xa, 5, 10, 500, 1001, 0, "A"),
        (0xb, 11, 11, 1100, 1101, 0, "A"),
        (0xb, 13, 15, 1300, 1501, 0, "A"),
    ])
}

#[test]
fn invalid_segments_are_refused() {
    let valid = ProtoSegment {
        author: 0xfefe,
        first_seq_no: 10,
        first_checksum: 0xabab,
        first_offset: 0,
        last_seq_no: 10,
        last_offset: 1,
        log: "log/A".into(),
    };
    let parse = |s: &ProtoSegment| Segment::parse(s, &log("B"));
    assert_eq!(parse(&valid).unwrap().to_proto(&log("B")), valid);
    assert_eq!(parse(&ProtoSegment { last_offset: 0, ..valid.clone() }).unwrap().last_offset, 0);
    assert_eq!(parse(&ProtoSegment { log: String::new(), ..valid.clone() }).unwrap().log, log("B"));

    for (segment, error) in [
        (ProtoSegment { author: 0, ..valid.clone() }, "invalid Author (0; expected > 0)"),
        (ProtoSegment { first_seq_no: 0, ..valid.clone() }, "invalid FirstSeqNo (expected > 0)"),
        (ProtoSegment { first_seq_no: -1, ..valid.clone() }, "invalid FirstSeqNo (expected > 0)"),
        (ProtoSegment { first_offset: -1, ..valid.clone() }, "invalid FirstOffset (expected >= 0)"),
        (ProtoSegment { last_seq_no: 9, ..valid.clone() }, "invalid LastSeqNo (expected >= FirstSeqNo)"),
        (ProtoSegment { last_seq_no: i64::MAX, ..valid.clone() }, "invalid LastSeqNo (expected < 2^63 - 1)"),
        (
            ProtoSegment { first_offset: 100, last_offset: 99, ..valid.clone() },
            "invalid LastOffset (expected > FirstOffset)",
        ),
        (
            ProtoSegment { log: "x".into(), ..valid.clone() },
            "Log: invalid length (1; expected 4 <= length <= 512)",
        ),
        (
            ProtoSegment { log: "log/B".into(), ..valid.clone() },
            "invalid Log (expected none where it equals the hints' log)",
        ),
    ] {
        assert_eq!(parse(&segment).unwrap_err().to_string(), error);
    }
}

/// Name, two segments, and what they reduce to: one, or nothing because they are apart; or the rule which they break.
type Case = (&'static str, Short, Short, Result<Option<Short>, &'static str>);

#[test]
fn reductions_are_symmetric_and_follow_the_table() {
    const A: Short = (1, 2, 7, 200, 701, 0x22, "A");
    let apart = Ok(None);
    let cases: [Case; 18] = [
        ("overlap", A, (1, 4, 9, 400, 901, 0x44, "A"), Ok(Some((1, 2, 9, 200, 901, 0x22, "A")))),
        ("first offset falls", A, (1, 4, 9, 100, 901, 0x44, "A"), Err("expected monotonic FirstOffset")),
        ("last offset falls", A, (1, 4, 9, 400, 700, 0x44, "A"), Err("expected monotonic LastOffset")),
        (
            "covered, last offset rises",
            A,
            (1, 3, 6, 300, 702, 0x33, "A"),
            Err("expected monotonic LastOffset"),
        ),
        (
            "preceding has no last offset",
            (1, 2, 7, 200, 0, 0x22, "A"),
            (1, 4, 9, 400, 901, 0x44, "A"),
            Err("expected preceding Segment to also include LastOffset"),
        ),
        ("other author", A, (2, 4, 9, 400, 901, 0x44, "A"), Err("expected Segment Author equality")),
        ("other log", A, (1, 4, 9, 400, 901, 0x44, "B"), Err("expected Segment Log equality")),
        ("covered", A, (1, 3, 6, 300, 0, 0x33, "A"), Ok(Some(A))),
        ("disjoint", (1, 2, 4, 200, 401, 0x22, "A"), (1, 6, 7, 600, 0, 0x66, "A"), apart),
        ("equal last", A, (1, 4, 7, 400, 0, 0x44, "A"), Ok(Some(A))),
        ("equal last, other offset", A, (1, 4, 7, 400, 702, 0x44, "A"), Err("expected monotonic LastOffset")),
        ("equal first", A, (1, 2, 9, 210, 901, 0x22, "A"), Ok(Some((1, 2, 9, 210, 901, 0x22, "A")))),
        (
            "equal first, other checksum",
            A,
            (1, 2, 9, 210, 901, 0xbad, "A"),
            Err("expected FirstChecksum equality"),
        ),
        ("identity", (1, 2, 7, 190, 701, 0x22, "A"), (1, 2, 7, 200, 0, 0x22, "A"), Ok(Some(A))),
        ("adjacent", (1, 2, 4, 200, 401, 0x22, "A"), (1, 5, 7, 500, 701, 0x55, "A"), Ok(Some(A))),
        ("adjacent, other author", (1, 2, 4, 200, 401, 0x22, "A"), (2, 5, 7, 500, 701, 0x55, "A"), apart),
        ("adjacent, other log", (1, 2, 4, 200, 401, 0x22, "A"), (1, 5, 7, 500, 701, 0x55, "B"), apart),
        (
            "adjacent, other log, no last offset",
            (1, 2, 4, 200, 0, 0x22, "A"),
            (1, 5, 7, 500, 0, 0x55, "B"),
            Err("Segment cannot use a different log where preceding Segment.LastOffset is zero"),
        ),
    ];
    for (name, a, b, expected) in cases {
        for (x, y) in [(a, b), (b, a)] {
            match (reduce(&segment(x), &segment(y)), expected) {
                (Ok(Reduced::Merged(found)), Ok(Some(merged))) => {
                    assert_eq!(found, segment(merged), "{name}")
                }
                (Ok(Reduced::Apart), Ok(None)) => {}
                (Err(error), Err(rule)) => assert_eq!(error.rule, rule, "{name}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}

/// Adds `added` to `to` in the order that `keys` gives them.
fn add_permuted(mut to: SegmentSet, added: &[Short], keys: &[u32]) -> SegmentSet {
    let mut order: Vec<usize> = (0..added.len()).collect();
    order.sort_by_key(|i| keys[*i]);
    for i in order {
        to.add(segment(added[i])).unwrap();
    }
    to
}

proptest! {
    #[test]
    fn additions_give_one_set_in_any_order(keys in prop::collection::vec(any::<u32>(), 8)) {
        let rows: [(SegmentSet, &[Short], SegmentSet); 5] = [
            (
                SegmentSet::default(),
                &[(0xa, 5, 10, 500, 1001, 0, "A"), (0xb, 11, 11, 1100, 1101, 0, "A"), (0xb, 13, 15, 1300, 1501, 0, "A")],
                model(),
            ),
            (
                model(),
                &[
                    (0xf, 1, 4, 100, 401, 0, "A"), (0xf, 12, 12, 1200, 1201, 0, "A"),
                    (0xf, 16, 18, 1600, 1801, 0, "A"), (0xf, 19, 20, 20, 21, 0, "B"),
                ],
                set(&[
                    (0xf, 1, 4, 100, 401, 0, "A"), (0xa, 5, 10, 500, 1001, 0, "A"), (0xb, 11, 11, 1100, 1101, 0, "A"),
                    (0xf, 12, 12, 1200, 1201, 0, "A"), (0xb, 13, 15, 1300, 1501, 0, "A"),
                    (0xf, 16, 18, 1600, 1801, 0, "A"), (0xf, 19, 20, 20, 21, 0, "B"),
                ]),
            ),
            (
                model(),
                &[(0xa, 1, 4, 100, 401, 0, "A"), (0xb, 12, 12, 1200, 1201, 0, "A"), (0xb, 16, 18, 1600, 0, 0, "A")],
                set(&[(0xa, 1, 10, 100, 1001, 0, "A"), (0xb, 11, 18, 1100, 0, 0, "A")]),
            ),
            (
                model(),
                &[
                    (0xa, 5, 9, 500, 0, 0, "A"), (0xa, 6, 10, 600, 0, 0, "A"), (0xb, 11, 11, 1100, 0, 0, "A"),
                    (0xb, 13, 14, 1300, 0, 0, "A"), (0xb, 14, 15, 1400, 0, 0, "A"),
                ],
                model(),
            ),
            (
                model(),
                &[
                    (0xb, 16, 16, 1600, 1601, 0, "A"), (0xb, 17, 17, 1700, 1701, 0, "A"),
                    (0xb, 18, 18, 1800, 1801, 0, "A"), (0xc, 19, 19, 1900, 0, 0, "A"), (0xc, 20, 20, 2000, 0, 0, "A"),
                ],
                set(&[
                    (0xa, 5, 10, 500, 1001, 0, "A"), (0xb, 11, 11, 1100, 1101, 0, "A"),
                    (0xb, 13, 18, 1300, 1801, 0, "A"), (0xc, 19, 20, 1900, 0, 0, "A"),
                ]),
            ),
        ];
        for (to, added, expected) in rows {
            prop_assert_eq!(add_permuted(to, added, &keys), expected);
        }
    }

    /// Whatever is accepted keeps the set ordered, without overlap, and with unknown ends in a suffix alone.
    #[test]
    fn any_additions_keep_the_invariants(
        shorts in prop::collection::vec((1u32..3, 1i64..20, 0i64..4, 0i64..20, 0i64..40, 0u32..2, prop::bool::ANY), 0..12)
    ) {
        let mut set = SegmentSet::default();
        for (author, first, more, offset, end, checksum, other) in shorts {
            let end = if end > offset { end } else { 0 };
            let before = set.clone();
            let name = if other { "B" } else { "A" };
            if set.add(segment((author, first, first + more, offset, end, checksum, name))).is_err() {
                prop_assert_eq!(&set, &before);
            }
            for pair in set.segments().windows(2) {
                prop_assert!(pair[0].last_seq_no < pair[1].first_seq_no);
                prop_assert!(pair[0].last_offset != 0 || pair[1].last_offset == 0);
                prop_assert!(pair[0].log != pair[1].log || pair[0].first_offset <= pair[1].first_offset);
            }
        }
    }
}

#[test]
fn contradictions_with_a_set_leave_it_unchanged() {
    for (added, rule) in [
        ((0xc, 4, 5, 400, 501, 0, "A"), "expected Segment Author equality"),
        ((0xa, 10, 11, 1000, 1101, 0, "A"), "expected Segment Author equality"),
        ((0xb, 10, 11, 1000, 1101, 0, "A"), "expected Segment Author equality"),
        ((0xc, 15, 15, 1500, 1501, 0, "A"), "expected Segment Author equality"),
        ((0xa, 4, 5, 400, 501, 0, "wrong"), "expected Segment Log equality"),
        ((0xb, 12, 12, 1200, 0, 0, "A"), "expected preceding Segment to also include LastOffset"),
        ((0xb, 12, 12, 1050, 1200, 0, "A"), "expected monotonic FirstOffset"),
        ((0xa, 3, 3, 300, 1050, 0, "A"), "expected monotonic LastOffset"),
    ] {
        let mut set = model();
        assert_eq!(set.add(segment(added)).unwrap_err().rule, rule, "{added:?}");
        assert_eq!(set, model());
    }
}

#[test]
fn intersections_are_half_open() {
    let model = model();
    for (begin, end, expected) in [
        (0, 100_000, 0..3),
        (0, 500, 0..0),
        (0, 501, 0..1),
        (1000, 1001, 0..1),
        (1000, 1100, 0..1),
        (1000, 1101, 0..2),
        (1000, 1300, 0..2),
        (1000, 1301, 0..3),
        (1001, 1001, 1..1),
        (1001, 1100, 1..1),
        (1001, 1101, 1..2),
        (1101, 1300, 2..2),
        (1101, 1301, 2..3),
        (1500, 100_000, 2..3),
        (1501, 100_000, 3..3),
    ] {
        assert_eq!(model.intersect(&log("A"), begin, end), &model.segments()[expected], "{begin}..{end}");
    }
    assert!(model.intersect(&log("B"), 0, 100_000).is_empty());
}
