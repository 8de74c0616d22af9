use super::*;
use proptest::prelude::*;

fn op(seq_no: i64, checksum: u32, author: u32, action: Action) -> Op {
    Op { seq_no, checksum, author: Author::new(author).unwrap(), action }
}

fn create(path: &str) -> Action {
    Action::Create { path: path.into() }
}

fn encoded(op: &Op) -> (Vec<u8>, Vec<u8>) {
    let mut frame = Vec::new();
    let begin = op.encode(&mut frame);
    let payload = frame[begin..].to_vec();
    (frame, payload)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn frames_and_checksums_equal_the_vectors() {
    let first = op(1, 0, 1234, create("/path/to/file"));
    let (frame, payload) = encoded(&first);
    assert_eq!(hex(&frame), "663393361800000008011dd2040000220f0a0d2f706174682f746f2f66696c65");
    let checksum = chain(0, &payload);
    assert_eq!(checksum, 0x568e8e4e);

    let unlink = op(2, checksum, 1234, Action::Unlink { fnode: Fnode(1), path: "/path/to/file".into() });
    assert_eq!(chain(checksum, &encoded(&unlink).1), 0x8ee45505);

    for (path, next) in [("/target/path", 0x5ccbeeaa), ("/delete/path", 0x950c2859)] {
        let (frame, payload) = encoded(&op(1, 0, 1234, create(path)));
        assert_eq!((frame.len(), chain(0, &payload)), (31, next));
    }
}

#[test]
fn a_no_op_by_another_author_equals_the_vector() {
    let checksum = chain(0, &encoded(&op(1, 0, 1234, create("/file1"))).1);
    let (frame, payload) = encoded(&op(2, checksum, 5678, Action::Nothing));
    assert_eq!(hex(&frame), "663393360c00000008021557bf191f1d2e160000");
    assert_eq!(chain(checksum, &payload), 0x61669370);
}

#[test]
fn checksums_of_literal_payloads_equal_the_vectors() {
    let first = chain(0, b"1");
    assert_eq!((first, chain(first, b"2")), (0x90f599e3, 0x7355c460));
}

#[test]
fn what_no_recorder_writes_is_refused() {
    use prost::Message;
    let valid = RecordedOp { seq_no: 1, author: 1, ..RecordedOp::default() };
    let write = |offset, length| Some(recorded_op::Write { fnode: 1, offset, length });
    for (op, error) in [
        (RecordedOp { seq_no: 0, ..valid.clone() }, "RecordedOp: invalid SeqNo (0; expected > 0)"),
        (RecordedOp { author: 0, ..valid.clone() }, "RecordedOp: invalid Author (0; expected > 0)"),
        (
            RecordedOp { write: write(-1, 1), ..valid.clone() },
            "RecordedOp: invalid Write (offset -1, length 1)",
        ),
        (
            RecordedOp { write: write(1, -1), ..valid.clone() },
            "RecordedOp: invalid Write (offset 1, length -1)",
        ),
        (
            RecordedOp { write: write(i64::MAX, 1), ..valid.clone() },
            "RecordedOp: invalid Write (offset 9223372036854775807, length 1)",
        ),
        (
            RecordedOp { write: write(0, 0), create: Some(recorded_op::Create::default()), ..valid.clone() },
            "RecordedOp: more than one action",
        ),
    ] {
        assert_eq!(Op::decode(&op.encode_to_vec()).unwrap_err().to_string(), error);
    }
    assert!(Op::decode(&valid.encode_to_vec()).is_ok());
}

#[test]
fn unknown_fields_are_accepted() {
    let (_, mut payload) = encoded(&op(1, 0, 7, create("/a")));
    payload.extend_from_slice(&[0xa5, 0x06, 1, 2, 3, 4]); // Field 100, fixed32.
    assert_eq!(Op::decode(&payload).unwrap(), op(1, 0, 7, create("/a")));
}

fn any_action() -> impl Strategy<Value = Action> {
    let link = || (any::<i64>(), "[/a-z.]{0,9}");
    prop_oneof![
        Just(Action::Nothing),
        ".{0,9}".prop_map(|path| Action::Create { path }),
        link().prop_map(|(fnode, path)| Action::Link { fnode: Fnode(fnode), path }),
        link().prop_map(|(fnode, path)| Action::Unlink { fnode: Fnode(fnode), path }),
        (any::<i64>(), 0..i64::MAX / 2, 0..i64::MAX / 2).prop_map(|(fnode, offset, length)| Action::Write {
            fnode: Fnode(fnode),
            offset,
            length
        }),
        (".{0,9}", ".{0,30}").prop_map(|(path, content)| Action::Property { path, content }),
    ]
}

proptest! {
    #[test]
    fn operations_round_trip(seq_no in 1..i64::MAX, checksum: u32, author in 1..u32::MAX, action in any_action()) {
        let before = op(seq_no, checksum, author, action);
        let (frame, payload) = encoded(&before);
        prop_assert_eq!(frame.len(), fixed::HEADER_LEN + payload.len());
        prop_assert_eq!(Op::decode(&payload).unwrap(), before);
    }

    #[test]
    fn mutated_operations_do_not_panic(action in any_action(), at: prop::sample::Index, byte: u8, junk: Vec<u8>) {
        let (_, mut payload) = encoded(&op(3, 9, 7, action));
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = Op::decode(&payload);
        let _ = Op::decode(&payload[..at]);
        let _ = Op::decode(&junk);
    }
}
