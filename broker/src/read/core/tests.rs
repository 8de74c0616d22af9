use std::fmt::Write;

use expect_test::{Expect, expect};
use fragment::index::{Index, RemoteSet};
use fragment::{Codec, Sum};
use proto::JournalName;
use proto::protocol::Route;

use super::*;

const HOUR: i64 = 3600;
const NOW: i64 = 100 * HOUR;
const HOLE_AGE: Duration = Duration::from_secs(6 * 3600);

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn fragment(begin: i64, end: i64, mod_time: i64) -> Fragment {
    Fragment {
        sum: Sum([1; 20]),
        end,
        mod_time,
        backing_store: (mod_time != 0).then(|| "file:///".into()),
        ..Fragment::empty(journal(), begin, Codec::None)
    }
}

/// Local fragments and stored ones with their age in hours.
fn index(local: &[(i64, i64)], stored: &[(i64, i64, i64)]) -> Index<()> {
    let mut index = Index::new(journal());
    let remote: RemoteSet = stored.iter().map(|&(b, e, age)| fragment(b, e, NOW - age * HOUR)).collect();
    drop(index.replace_remote(remote));
    for &(begin, end) in local {
        drop(index.insert_local(fragment(begin, end, 0), ()));
    }
    index
}

/// Runs `request` to its end, or to where it waits, and writes down what it did.
fn check(request: ReadRequest, index: &Index<()>, expected: Expect) {
    let header = Header::routed(Default::default(), Route::unrouted(), Default::default());
    let mut core =
        ReadCore::new(&ReadRequest { journal: journal().to_string(), ..request }, header, HOLE_AGE);
    let mut log = String::new();
    loop {
        match core.on_answer(index.query(&core.query(NOW, index.end())), index.end()) {
            Step::Wait { retry_at_unix } => {
                let retry = retry_at_unix.map(|at| format!(", retry in {}s", at - NOW)).unwrap_or_default();
                writeln!(log, "wait at {}{retry}", core.query(0, index.end()).offset).unwrap();
                break;
            }
            Step::Finish(r) => {
                let header = if r.header.is_some() { " with header" } else { "" };
                writeln!(log, "{:?} offset={} head={}{header}", r.status(), r.offset, r.write_head).unwrap();
                break;
            }
            Step::Visit(visit) => {
                let Visit { response: r, fragment: f, content, .. } = *visit;
                let header = if r.header.is_some() { " with header" } else { "" };
                writeln!(
                    log,
                    "{:?} offset={} head={} fragment={}..{}{header}",
                    r.status(),
                    r.offset,
                    r.write_head,
                    f.begin,
                    f.end
                )
                .unwrap();
                let Some((begin, end)) = content else {
                    log += "end\n";
                    break;
                };
                writeln!(log, "  content {begin}..{end}").unwrap();
                if !core.sent(end) {
                    log += "end\n";
                    break;
                }
            }
        }
    }
    expected.assert_eq(&log);
}

#[test]
fn a_blocking_read_goes_through_store_and_spool_and_waits_at_the_head() {
    check(
        ReadRequest { offset: 20, block: true, ..Default::default() },
        &index(&[(100, 150)], &[(0, 60, 1), (60, 100, 1)]),
        expect![[r#"
            Ok offset=20 head=150 fragment=0..60 with header
              content 20..60
            Ok offset=60 head=150 fragment=60..100
              content 60..100
            Ok offset=100 head=150 fragment=100..150
              content 100..150
            wait at 150
        "#]],
    );
}

#[test]
fn the_write_head_is_looked_up_once() {
    let index = index(&[(0, 50)], &[]);
    check(
        ReadRequest { offset: -1, ..Default::default() },
        &index,
        expect![[r#"
            OffsetNotYetAvailable offset=50 head=50 with header
        "#]],
    );
    check(
        ReadRequest { offset: -1, block: true, ..Default::default() },
        &index,
        expect![[r#"
            wait at 50
        "#]],
    );
}

#[test]
fn an_end_offset_is_exact_and_may_lie_in_a_gap() {
    let index = index(&[], &[(0, 60, 1), (80, 100, 10)]);
    check(
        ReadRequest { end_offset: 30, ..Default::default() },
        &index,
        expect![[r#"
            Ok offset=0 head=100 fragment=0..60 with header
              content 0..30
            end
        "#]],
    );
    check(
        ReadRequest { end_offset: 70, ..Default::default() },
        &index,
        expect![[r#"
            Ok offset=0 head=100 fragment=0..60 with header
              content 0..60
            Ok offset=80 head=100 fragment=80..100
            end
        "#]],
    );
}

#[test]
fn a_young_gap_is_waited_for_with_a_time() {
    let index = index(&[], &[(0, 60, 1), (80, 100, 5)]);
    check(
        ReadRequest { offset: 60, block: true, ..Default::default() },
        &index,
        expect![[r#"
            wait at 60, retry in 3601s
        "#]],
    );
    check(
        ReadRequest { offset: 60, ..Default::default() },
        &index,
        expect![[r#"
            OffsetNotYetAvailable offset=60 head=100 with header
        "#]],
    );
}

#[test]
fn metadata_only_and_do_not_proxy_end_after_the_metadata() {
    let index = index(&[(60, 70)], &[(0, 60, 1)]);
    check(
        ReadRequest { metadata_only: true, ..Default::default() },
        &index,
        expect![[r#"
            Ok offset=0 head=70 fragment=0..60 with header
            end
        "#]],
    );
    check(
        ReadRequest { do_not_proxy: true, ..Default::default() },
        &index,
        expect![[r#"
            Ok offset=0 head=70 fragment=0..60 with header
            end
        "#]],
    );
    check(
        ReadRequest { do_not_proxy: true, offset: 65, ..Default::default() },
        &index,
        expect![[r#"
            Ok offset=65 head=70 fragment=60..70 with header
              content 65..70
            OffsetNotYetAvailable offset=70 head=70
        "#]],
    );
}

#[test]
fn old_fragments_are_skipped() {
    check(
        ReadRequest { begin_mod_time: NOW - 2 * HOUR, ..Default::default() },
        &index(&[], &[(0, 60, 5), (60, 100, 1)]),
        expect![[r#"
            Ok offset=60 head=100 fragment=60..100 with header
              content 60..100
            OffsetNotYetAvailable offset=100 head=100
        "#]],
    );
}

#[test]
fn gaps_are_what_the_index_waits_for_or_skips_although_the_journal_goes_on() {
    let gap = |request: ReadRequest, index: &Index<()>, end: i64| {
        let header = Header::routed(Default::default(), Route::unrouted(), Default::default());
        let core = ReadCore::new(&request, header, HOLE_AGE);
        let query = core.query(NOW, end);
        core.gap(&index.query(&query), query.offset, end)
    };
    let at = |offset| ReadRequest { offset, ..Default::default() };
    let new_replica = index(&[(100, 120)], &[(0, 40, 1)]);
    assert_eq!(gap(at(10), &new_replica, 120), None);
    assert_eq!(gap(at(50), &new_replica, 120), Some((50, 120)));
    assert_eq!(gap(ReadRequest { end_offset: 60, ..at(50) }, &new_replica, 120), Some((50, 60)));
    assert_eq!(gap(at(110), &new_replica, 120), None);
    assert_eq!(gap(at(120), &new_replica, 120), None, "that is the end");
    assert_eq!(gap(at(-1), &new_replica, 120), None);
    let nothing_yet = index(&[], &[(0, 40, 1)]);
    assert_eq!(gap(at(40), &nothing_yet, 100), Some((40, 100)));
    assert_eq!(gap(at(-1), &nothing_yet, 100), None, "it begins at the end");
    let pruned = index(&[], &[(70, 90, 1)]);
    assert_eq!(gap(at(0), &pruned, 90), Some((0, 70)));
    let old = ReadRequest { begin_mod_time: NOW - 2 * HOUR, ..at(0) };
    assert_eq!(gap(old, &index(&[], &[(0, 40, 5), (40, 90, 1)]), 90), None, "it is left out for its age");
}
