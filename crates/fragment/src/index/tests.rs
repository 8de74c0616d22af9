use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::{Codec, PathPostfix, Sum};

const HOUR: i64 = 3600;

fn journal() -> JournalName {
    JournalName::parse("a/journal").unwrap()
}

fn local(begin: i64, end: i64) -> Fragment {
    Fragment { end, ..Fragment::empty(journal(), begin, Codec::None) }
}

fn remote(begin: i64, end: i64, mod_time: i64) -> Fragment {
    Fragment { mod_time, backing_store: Some("file:///".into()), ..local(begin, end) }
}

/// An index of remote fragments `(begin, end, mod_time)` and local ones, whose files are their insertion order.
fn index(remotes: &[(i64, i64, i64)], locals: &[(i64, i64)]) -> Index<usize> {
    let mut index = Index::new(journal());
    let remotes = remotes.iter().map(|&(begin, end, mod_time)| remote(begin, end, mod_time));
    assert!(index.replace_remote(remotes.collect()).is_empty());
    for (file, &(begin, end)) in locals.iter().enumerate() {
        let _ = index.insert_local(local(begin, end), file);
    }
    index
}

fn show(index: &Index<usize>, query: Query) -> String {
    match index.query(&query) {
        Answer::Found(Found { entry: Entry { fragment, file }, offset, write_head }) => {
            let (begin, end) = (fragment.begin, fragment.end);
            let file = file.map_or("stored".to_owned(), |file| format!("file {file}"));
            format!("at {offset} of {write_head}: {begin}..{end} {file}")
        }
        Answer::NotYet(NotYet { offset, write_head, retry_at_unix: None }) => {
            format!("not yet at {offset} of {write_head}")
        }
        Answer::NotYet(NotYet { offset, write_head, retry_at_unix: Some(at) }) => {
            format!("not yet at {offset} of {write_head}, until {at}")
        }
    }
}

fn check(index: &Index<usize>, begin_mod_time: i64, now_unix: i64, offsets: &[i64], expected: Expect) {
    let show = |&offset: &i64| {
        let query = Query { offset, begin_mod_time, now_unix, jump_age_seconds: OFFSET_JUMP_AGE_SECONDS };
        format!("{offset}: {}\n", show(index, query))
    };
    expected.assert_eq(&offsets.iter().map(show).collect::<String>());
}

#[test]
fn reads_take_the_fragment_which_reaches_furthest() {
    let index = index(&[(0, 100, 5), (50, 150, 5), (300, 400, 5)], &[(150, 250), (200, 300), (350, 450)]);
    check(
        &index,
        0,
        9,
        &[0, 49, 50, 149, 150, 199, 200, 299, 300, 349, 350, 449, 450, 9999, -1],
        expect![[r#"
            0: at 0 of 450: 0..100 stored
            49: at 49 of 450: 0..100 stored
            50: at 50 of 450: 50..150 stored
            149: at 149 of 450: 50..150 stored
            150: at 150 of 450: 150..250 file 0
            199: at 199 of 450: 150..250 file 0
            200: at 200 of 450: 200..300 file 1
            299: at 299 of 450: 200..300 file 1
            300: at 300 of 450: 300..400 stored
            349: at 349 of 450: 300..400 stored
            350: at 350 of 450: 350..450 file 2
            449: at 449 of 450: 350..450 file 2
            450: not yet at 450 of 450
            9999: not yet at 9999 of 450
            -1: not yet at 450 of 450
        "#]],
    );
    assert_eq!((index.begin(), index.end(), index.is_empty()), (0, 450, false));
}

#[test]
fn an_empty_index_has_a_head_of_zero() {
    check(
        &index(&[], &[]),
        0,
        9,
        &[-1, 0, 7],
        expect![[r#"
            -1: not yet at 0 of 0
            0: not yet at 0 of 0
            7: not yet at 7 of 0
        "#]],
    );
}

#[test]
fn pruned_beginnings_are_jumped_over_only_if_stored() {
    check(
        &index(&[(100, 200, 5)], &[]),
        0,
        6,
        &[0, 99],
        expect![[r#"
            0: at 100 of 200: 100..200 stored
            99: at 100 of 200: 100..200 stored
        "#]],
    );
    // A spool which begins above zero may still be preceded by what another replica is about to store.
    check(
        &index(&[], &[(100, 200)]),
        0,
        6,
        &[0],
        expect![[r#"
            0: not yet at 0 of 200
        "#]],
    );
}

#[test]
fn holes_are_jumped_over_once_their_end_is_old() {
    let mod_time = 1_000;
    let index = index(&[(0, 100, mod_time), (200, 300, mod_time)], &[(400, 500)]);
    let at = mod_time + 6 * HOUR;
    let young = expect![[r#"
        150: not yet at 150 of 500, until 22601
        350: not yet at 350 of 500
    "#]];
    check(&index, 0, at, &[150, 350], young);
    let old = expect![[r#"
        150: at 200 of 500: 200..300 stored
        350: not yet at 350 of 500
    "#]];
    check(&index, 0, at + 1, &[150, 350], old);
}

#[test]
fn old_fragments_are_skipped_by_modification_time() {
    let index = index(&[(0, 100, 10), (100, 200, 20), (250, 300, 30)], &[(300, 400)]);
    check(
        &index,
        20,
        40,
        &[0, 150, 220, 300],
        expect![[r#"
            0: at 100 of 400: 100..200 stored
            150: at 150 of 400: 100..200 stored
            220: not yet at 220 of 400, until 21631
            300: at 300 of 400: 300..400 file 0
        "#]],
    );
    // The fragment after the hole is skipped too; what comes next is local and always recent.
    check(
        &index,
        99,
        7 * HOUR,
        &[0, 220, 300],
        expect![[r#"
            0: at 300 of 400: 300..400 file 0
            220: at 300 of 400: 300..400 file 0
            300: at 300 of 400: 300..400 file 0
        "#]],
    );
}

#[test]
fn covered_locals_leave_with_the_listing_which_covers_them() {
    let mut index = index(&[(0, 100, 5)], &[(100, 200), (150, 260), (300, 400)]);
    assert!(matches!(index.insert_local(local(10, 90), 7), Insertion::Ignored(_)));
    assert!(matches!(index.insert_local(local(0, 100), 7), Insertion::Ignored(_)));
    assert!(matches!(index.insert_local(local(100, 100), 7), Insertion::Ignored(_)));
    let published = index.clone();

    let ends = |dropped: Vec<Arc<Local<usize>>>| dropped.iter().map(|local| local.end()).collect::<Vec<_>>();
    // 0..120 and 110..230 jointly cover the first local fragment, but not the second.
    let listing = [remote(0, 120, 6), remote(110, 230, 6)];
    assert_eq!(ends(index.replace_remote(listing.into_iter().collect())), [200]);
    assert_eq!(index.locals().count(), 2);
    assert_eq!(ends(index.insert_remote(remote(220, 260, 6))), [260]);
    assert_eq!(ends(index.insert_remote(remote(300, 400, 6))), [400]);
    assert_eq!(index.locals().count(), 0);
    assert_eq!(index.remote().len(), 4);
    assert_eq!(published.locals().count(), 3, "snapshots are not changed");
}

#[test]
fn a_growing_spool_replaces_itself() {
    let mut index = index(&[], &[(0, 100)]);
    let Insertion::Added { displaced } = index.insert_local(local(0, 150), 1) else { panic!("it is larger") };
    assert_eq!(displaced.iter().map(|local| local.file).collect::<Vec<_>>(), [0]);
    assert_eq!(index.end(), 150);
}

#[test]
fn stored_fragments_keep_their_description() {
    let stored = Fragment {
        sum: Sum::of(b"content"),
        codec: Codec::Zstandard,
        path_postfix: PathPostfix::parse("date=1").unwrap(),
        ..remote(7, 14, 99)
    };
    let mut index: Index<()> = Index::new(journal());
    assert!(index.replace_remote([remote(0, 7, 98), stored.clone()].into_iter().collect()).is_empty());
    let listed: Vec<Fragment> = index.entries_from(1).map(|entry| entry.fragment).collect();
    assert_eq!(listed, std::slice::from_ref(&stored));
    // A second store with the same range is listed later, and wins.
    let second = Fragment { backing_store: Some("file:///other/".into()), ..stored.clone() };
    assert!(index.replace_remote([stored, second.clone()].into_iter().collect()).is_empty());
    assert_eq!(index.entries_from(0).next().map(|entry| entry.fragment), Some(second));
}

/// The definition, word for word: fragments in order of offset, each with its modification time (zero: local).
fn naive(remotes: &[(i64, i64, i64)], locals: &[(i64, i64)]) -> Vec<(i64, i64, i64)> {
    // Of equal ranges in one store, that which was modified last is kept.
    let mut remotes = remotes.to_vec();
    remotes.sort_by_key(|one| one.2);
    let stored = |offset| remotes.iter().any(|&(begin, end, _)| begin <= offset && offset < end);
    let locals = locals.iter().filter(|&&(begin, end)| !(begin..end).all(stored)).map(|&(b, e)| (b, e, 0));
    let mut all: Vec<(i64, i64, i64)> = Vec::new();
    for new in remotes.iter().copied().chain(locals).filter(|new| new.0 < new.1) {
        let within = |a: (i64, i64, i64), b: (i64, i64, i64)| b.0 <= a.0 && a.1 <= b.1;
        if !all.iter().any(|&old| within(new, old) && (old.0, old.1) != (new.0, new.1)) {
            all.retain(|&old| !within(old, new));
            all.push(new);
        }
    }
    all.sort_unstable();
    all
}

/// Journal protocol §8.3, over a list.
fn naive_query(all: &[(i64, i64, i64)], query: Query) -> Result<(i64, i64, i64), i64> {
    let mut offset = if query.offset < 0 { all.last().map_or(0, |last| last.1) } else { query.offset };
    loop {
        let covering = all.iter().filter(|one| one.0 <= offset && offset < one.1).max_by_key(|one| one.1);
        let next = all.iter().position(|one| one.0 > offset);
        let jump = next
            .filter(|&i| all[i].2 != 0 && (i == 0 || all[i].2 < query.now_unix - 6 * HOUR))
            .map(|i| &all[i]);
        let Some(&(begin, end, mod_time)) = covering.or(jump) else { return Err(offset) };
        offset = offset.max(begin);
        if mod_time == 0 || mod_time >= query.begin_mod_time {
            return Ok((begin, end, offset));
        }
        offset = end;
    }
}

fn remotes() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
    let one =
        (0..60i64, 0..15i64, 1..5i64).prop_map(|(begin, len, age)| (begin, begin + len, age * 2 * HOUR));
    prop::collection::vec(one, 0..20)
}

fn locals() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((0..70i64, 0..15i64).prop_map(|(begin, len)| (begin, begin + len)), 0..10)
}

proptest! {
    #[test]
    fn entries_agree_with_the_definition(remotes in remotes(), locals in locals(), begin in -1..80i64) {
        let index = index(&remotes, &locals);
        let mut expected = naive(&remotes, &locals);
        prop_assert_eq!(index.end(), expected.last().map_or(0, |last| last.1));
        prop_assert_eq!(index.begin(), expected.first().map_or(0, |first| first.0));
        expected.retain(|one| one.0 >= begin);
        let found: Vec<_> =
            index.entries_from(begin).map(|e| (e.fragment.begin, e.fragment.end, e.fragment.mod_time)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn queries_agree_with_the_definition(
        remotes in remotes(),
        locals in locals(),
        (offset, begin_mod_time, now_unix) in (-1..90i64, 0..10 * HOUR, 0..20 * HOUR),
    ) {
        let index = index(&remotes, &locals);
        let all = naive(&remotes, &locals);
        let query = Query { offset, begin_mod_time, now_unix, jump_age_seconds: OFFSET_JUMP_AGE_SECONDS };
        match (index.query(&query), naive_query(&all, query)) {
            (Answer::Found(found), Ok(expected)) => {
                let Fragment { begin, end, .. } = found.entry.fragment;
                prop_assert_eq!((begin, end, found.offset), expected);
            }
            (Answer::NotYet(not_yet), Err(expected)) => {
                prop_assert_eq!(not_yet.offset, expected);
                // Exactly at the promised time, and not a second before, the same index answers.
                if let Some(at) = not_yet.retry_at_unix {
                    prop_assert_eq!(naive_query(&all, Query { now_unix: at - 1, ..query }), Err(expected));
                    let later = naive_query(&all, Query { now_unix: at, ..query });
                    prop_assert!(later != Err(expected));
                }
            }
            (found, expected) => prop_assert!(false, "{:?} but expected {:?}", found, expected),
        }
    }

    #[test]
    fn storing_one_by_one_agrees_with_a_listing(remotes in remotes(), locals in locals()) {
        let mut one_by_one = index(&[], &locals);
        for &(begin, end, mod_time) in &remotes {
            let _ = one_by_one.insert_remote(remote(begin, end, mod_time));
        }
        let shown = |index: &Index<usize>| {
            index.entries_from(0).map(|e| (e.fragment.begin, e.fragment.end, e.file.is_some())).collect::<Vec<_>>()
        };
        let mut listed = index(&[], &locals);
        let _ = listed.replace_remote(remotes.iter().map(|&(b, e, m)| remote(b, e, m)).collect());
        prop_assert_eq!(shown(&one_by_one), shown(&listed));
    }
}
