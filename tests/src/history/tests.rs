//! Each kind of violation is found, and what is allowed is not called one.

use super::*;

/// Content of the append `number`, `length` bytes long.
fn content(number: u64, length: usize) -> Vec<u8> {
    let mut content = format!("{number:016x}{length:08x}").into_bytes();
    content.resize(length, b'a' + (number % 26) as u8);
    content
}

fn append(number: u64, length: usize, unknown_attempts: u32, at: Option<i64>) -> Append {
    Append {
        number,
        sum: Sha1::digest(content(number, length)).into(),
        began: Duration::from_secs(number),
        ended: Duration::from_secs(number),
        unknown_attempts,
        acknowledged: at.map(|begin| Span { begin, end: begin + length as i64 }),
    }
}

fn replica(source: &str, content: Vec<u8>) -> Copy {
    Copy { source: source.to_owned(), begin: 0, content, is_whole: true }
}

fn stored(begin: i64, content: Vec<u8>) -> Copy {
    Copy { source: "store".to_owned(), begin, content, is_whole: false }
}

/// Acknowledged 1 (30 bytes) and 2 (40), unknown and present 3 (50), unknown and absent 4, refused 5.
fn good() -> (History, Vec<u8>) {
    let appends = vec![
        append(1, 30, 0, Some(0)),
        append(2, 40, 0, Some(30)),
        append(3, 50, 1, None),
        append(4, 60, 1, None),
        append(5, 70, 0, None),
    ];
    let bytes = [content(1, 30), content(2, 40), content(3, 50)].concat();
    (History { appends, write_heads: Vec::new() }, bytes)
}

fn violations(history: &History, copies: &[Copy]) -> Vec<String> {
    let end = copies.iter().map(|copy| copy.begin + copy.content.len() as i64).max().unwrap();
    let violations = check(history, copies, end).unwrap_err();
    violations.iter().map(ToString::to_string).collect()
}

#[test]
fn a_journal_that_keeps_its_promises_passes() {
    let (history, bytes) = good();
    let copies =
        [replica("a", bytes.clone()), replica("b", bytes.clone()), stored(30, bytes[30..70].to_vec())];
    let checked = check(&history, &copies, 120).unwrap();
    let expected = Checked { acknowledged: 2, unknown_present: 1, unknown_absent: 1, bytes: 120, copies: 3 };
    assert_eq!(checked, expected);
}

#[test]
fn replicas_which_differ_are_found() {
    let (history, bytes) = good();
    let mut other = bytes.clone();
    other[69] ^= 1;
    assert_eq!(
        violations(&history, &[replica("a", bytes.clone()), replica("b", other.clone())]),
        ["offset 69: a has other bytes than b", "offset 30: append 2 has other content than was appended"]
    );
    let copies = [replica("a", bytes.clone()), stored(60, other[60..].to_vec())];
    assert_eq!(violations(&history, &copies), ["offset 69: store has other bytes than a"]);
    let copies = [replica("a", bytes), stored(100, vec![b'x'; 40])];
    assert_eq!(violations(&history, &copies)[0], "a holds 0..120 of 0..140");
}

#[test]
fn stored_bytes_behind_the_end_are_found() {
    let (history, bytes) = good();
    let copies = [replica("a", bytes.clone()), stored(100, [&bytes[100..], b"x"].concat())];
    let found = check(&history, &copies, 120).unwrap_err();
    assert_eq!(found[0].to_string(), "offset 120: store has other bytes than a");
}

#[test]
fn a_replica_which_falls_short_is_found() {
    let (history, bytes) = good();
    let copies = [replica("a", bytes.clone()), replica("b", bytes[..70].to_vec())];
    assert_eq!(violations(&history, &copies), ["b holds 0..70 of 0..120"]);
    let late = Copy { begin: 30, ..replica("b", bytes[30..].to_vec()) };
    assert_eq!(violations(&history, &[replica("a", bytes), late]), ["b holds 30..120 of 0..120"]);
}

#[test]
fn a_lost_append_is_found() {
    let (mut history, bytes) = good();
    history.appends.push(append(6, 30, 0, Some(120)));
    assert_eq!(
        violations(&history, &[replica("a", bytes)]),
        ["append 6 was acknowledged at 120..150 and is found at []"]
    );
}

#[test]
fn an_append_at_another_offset_is_found() {
    let (mut history, bytes) = good();
    history.appends[1].acknowledged = Some(Span { begin: 31, end: 71 });
    assert_eq!(
        violations(&history, &[replica("a", bytes)]),
        ["append 2 was acknowledged at 31..71 and is found at [30]"]
    );
}

#[test]
fn an_append_which_is_there_too_often_is_found() {
    let (mut history, mut bytes) = good();
    bytes.extend(content(2, 40));
    let found = violations(&history, &[replica("a", bytes.clone())]);
    assert_eq!(found, ["append 2 is there 2 times, at [30, 120]: at most 1 may be"]);
    // One attempt more, whose outcome is unknown, explains it.
    history.appends[1].unknown_attempts = 1;
    check(&history, &[replica("a", bytes)], 160).unwrap();
}

#[test]
fn a_refused_append_must_be_absent() {
    let (history, mut bytes) = good();
    bytes.extend(content(5, 70));
    let found = violations(&history, &[replica("a", bytes)]);
    assert_eq!(found, ["append 5 is there 1 times, at [120]: at most 0 may be"]);
}

#[test]
fn half_an_append_is_found() {
    let (history, bytes) = good();
    let at_the_end = [bytes.clone(), content(4, 60)[..50].to_vec()].concat();
    assert_eq!(violations(&history, &[replica("a", at_the_end)]), ["offset 120: append 4 is cut"]);
    let within = [bytes[..60].to_vec(), content(24, 60)].concat();
    let found = violations(&history, &[replica("a", within)]);
    assert_eq!(found, ["offset 70: no append begins here"]);
}

#[test]
fn content_of_nobody_is_found() {
    let (history, mut bytes) = good();
    bytes.extend(content(9, 30));
    assert_eq!(violations(&history, &[replica("a", bytes)]), ["offset 120: nobody made append 9"]);
}

#[test]
fn altered_content_is_found() {
    let (history, mut bytes) = good();
    bytes[29] ^= 1;
    let found = violations(&history, &[replica("a", bytes)]);
    assert_eq!(found, ["offset 0: append 1 has other content than was appended"]);
}

#[test]
fn appends_out_of_order_are_found() {
    let (mut history, bytes) = good();
    let span = |begin, end| Some(Span { begin, end });
    (history.appends[0].acknowledged, history.appends[1].acknowledged) = (span(40, 70), span(0, 40));
    let bytes = [content(2, 40), content(1, 30), bytes[70..].to_vec()].concat();
    let copies = [replica("a", bytes)];
    assert_eq!(
        violations(&history, &copies),
        ["append 2 began after append 1 was acknowledged, and lies before it"]
    );
    // Appends which ran at the same time may lie in either order.
    history.appends[1].began = history.appends[0].ended;
    check(&history, &copies, 120).unwrap();
}

#[test]
fn a_write_head_which_goes_back_is_found() {
    let (mut history, bytes) = good();
    let head = |broker: &str, offset| WriteHead { broker: broker.to_owned(), offset };
    history.write_heads = vec![head("a", 30), head("b", 120), head("a", 120), head("b", 120)];
    check(&history, &[replica("a", bytes.clone())], 120).unwrap();
    history.write_heads.push(head("b", 70));
    let found = violations(&history, &[replica("a", bytes)]);
    assert_eq!(found, ["the write head of b went back from 120 to 70"]);
}

#[test]
fn the_longest_stall_lies_between_acknowledgements() {
    let (mut history, _) = good();
    history.appends.push(append(9, 30, 0, Some(70)));
    assert_eq!(longest_stall(&history), Duration::from_secs(7));
}
