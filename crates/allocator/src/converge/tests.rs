//! Single rounds, each as the transactions that it gives, and whole allocations.

mod scenarios;

use expect_test::{Expect, expect};

use super::*;
use crate::fixtures::{Plain, World, id, prefix, render};

/// One round towards `desired` (item, members); the loads it leaves are not looked at.
fn round(world: &World, desired: &[(&str, &[&str])]) -> (Vec<Txn>, Counts) {
    round_in(world.space(), desired)
}

fn round_in(space: KeySpace<Plain>, desired: &[(&str, &[&str])]) -> (Vec<Txn>, Counts) {
    let mut state = State::derive(&space, &Plain);
    let mut pairs: Vec<_> = desired
        .iter()
        .flat_map(|(item, members)| members.iter().map(|member| ((*item).into(), id(member))))
        .collect();
    pairs.sort();
    converge(&space, &Plain, &prefix(), &mut state, &Assignment { pairs })
}

#[track_caller]
fn check(world: &World, desired: &[(&str, &[&str])], expected: Expect) {
    expected.assert_eq(&render(&round(world, desired).0));
}

const TWO: &[(&str, u32)] = &[("a/member-1", 10), ("a/member-2", 10)];

#[test]
fn assignments_are_added_under_the_lease_of_their_member() {
    let world = World::new(TWO, &[("x", 2)]);
    check(
        &world,
        &[("x", &["a/member-1", "a/member-2"])],
        expect![[r#"
            if members/a#member-1 at 1
            if members/a#member-1 at 1
            if members/a#member-2 at 2
              put assign/x#a#member-1#0 = "" under 1
              put assign/x#a#member-2#1 = "" under 2
        "#]],
    );
}

#[test]
fn a_member_which_is_full_is_not_added_to() {
    let mut world = World::new(&[("a/member-1", 1), ("a/member-2", 0)], &[("x", 1), ("y", 1)]);
    world.assign("y", "a/member-1", 0, "ready");
    check(&world, &[("x", &["a/member-1", "a/member-2"]), ("y", &["a/member-1"])], expect![[""]]);
}

#[test]
fn assignments_of_items_which_are_gone_are_deleted() {
    let mut world = World::new(TWO, &[]);
    world.assign("gone", "a/member-1", 0, "ready");
    world.assign("gone", "a/member-2", 1, "");
    world.assign("other", "a/member-2", 0, "");
    check(
        &world,
        &[],
        expect![[r#"
            if members/a#member-1 at 1
            if items/gone created at 0
            if assign/gone#a#member-1#0 at 3
            if assign/gone#a#member-2#1 at 4
            if items/other created at 0
            if assign/other#a#member-2#0 at 5
              delete assign/gone#a#member-1#0
              delete assign/gone#a#member-2#1
              delete assign/other#a#member-2#0
        "#]],
    );
}

#[test]
fn nothing_is_removed_before_enough_others_are_consistent() {
    let mut world = World::new(TWO, &[("x", 1)]);
    world.assign("x", "a/member-1", 0, "ready");
    let desired: &[(&str, &[&str])] = &[("x", &["a/member-2"])];
    check(
        &world,
        desired,
        expect![[r#"
            if members/a#member-1 at 1
            if members/a#member-2 at 2
              put assign/x#a#member-2#1 = "" under 2
        "#]],
    );
    world.assign("x", "a/member-2", 1, "");
    check(&world, desired, expect![[""]]);
    // The removal of the primary and the promotion of the other are one transaction; its value and lease stay.
    world.assign("x", "a/member-2", 1, "ready");
    check(
        &world,
        desired,
        expect![[r#"
            if members/a#member-1 at 1
            if items/x at 3
            if assign/x#a#member-1#0 at 4
            if assign/x#a#member-2#1 at 6
              delete assign/x#a#member-1#0
              delete assign/x#a#member-2#1
              put assign/x#a#member-2#0 = "ready" under 2
        "#]],
    );
}

#[test]
fn inconsistent_assignments_are_removed_only_beside_enough_consistent_ones() {
    let mut world = World::new(&[("a/member-1", 9), ("a/member-2", 9), ("a/member-3", 9)], &[("x", 2)]);
    world.assign("x", "a/member-1", 0, "ready");
    world.assign("x", "a/member-2", 1, "ready");
    world.assign("x", "a/member-3", 2, "");
    let desired: &[(&str, &[&str])] = &[("x", &["a/member-1", "a/member-2"])];
    check(
        &world,
        desired,
        expect![[r#"
            if members/a#member-1 at 1
            if items/x at 4
            if assign/x#a#member-3#2 at 7
              delete assign/x#a#member-3#2
        "#]],
    );
    world.assign("x", "a/member-2", 1, "");
    check(&world, desired, expect![[""]]);
    // An item that wants nobody keeps nobody.
    world.item("x", 0);
    let (txns, counts) = round(&world, &[]);
    assert_eq!((txns.len(), counts.removed), (1, 3));
}

#[test]
fn the_heaviest_member_is_relieved_first() {
    let mut world =
        World::new(&[("a/member-1", 9), ("a/member-2", 9), ("a/member-3", 9)], &[("x", 1), ("y", 1)]);
    world.assign("x", "a/member-1", 0, "ready");
    world.assign("x", "a/member-2", 1, "ready");
    world.assign("y", "a/member-2", 0, "ready");
    check(
        &world,
        &[("x", &["a/member-3"]), ("y", &["a/member-2"])],
        expect![[r#"
            if members/a#member-1 at 1
            if members/a#member-3 at 3
            if items/x at 4
            if assign/x#a#member-2#1 at 7
              put assign/x#a#member-3#2 = "" under 3
              delete assign/x#a#member-2#1
        "#]],
    );
}

#[test]
fn the_least_loaded_consistent_assignment_is_promoted() {
    let mut world =
        World::new(&[("a/member-1", 9), ("a/member-2", 9), ("a/member-3", 9)], &[("x", 3), ("y", 1)]);
    world.assign("x", "a/member-1", 1, "");
    world.assign("x", "a/member-2", 2, "ready");
    world.assign("x", "a/member-3", 3, "ready");
    world.assign("y", "a/member-2", 0, "ready");
    check(
        &world,
        &[("x", &["a/member-1", "a/member-2", "a/member-3"]), ("y", &["a/member-2"])],
        expect![[r#"
            if members/a#member-1 at 1
            if assign/x#a#member-3#3 at 8
              delete assign/x#a#member-3#3
              put assign/x#a#member-3#0 = "ready" under 3
        "#]],
    );
}

#[test]
fn slots_are_packed_one_at_a_time() {
    let mut world = World::new(&[("a/member-1", 9), ("a/member-2", 9), ("a/member-3", 9)], &[("x", 3)]);
    world.assign("x", "a/member-1", 0, "ready");
    world.assign("x", "a/member-2", 4, "");
    world.assign("x", "a/member-3", 7, "ready");
    let desired: &[(&str, &[&str])] = &[("x", &["a/member-1", "a/member-2", "a/member-3"])];
    check(
        &world,
        desired,
        expect![[r#"
            if members/a#member-1 at 1
            if assign/x#a#member-2#4 at 6
              delete assign/x#a#member-2#4
              put assign/x#a#member-2#1 = "" under 2
        "#]],
    );
    assert_eq!(round(&world, desired).1, Counts { packed: 1, ..Counts::default() });
}

#[test]
fn transactions_are_bounded_and_each_is_guarded() {
    let items: Vec<(String, u32)> = (0..100).map(|n| (format!("item-{n:03}"), 2)).collect();
    let items: Vec<(&str, u32)> = items.iter().map(|(item, r)| (&**item, *r)).collect();
    let world = World::new(&[("a/member-1", 100), ("a/member-2", 100)], &items);
    let both: &[&str] = &["a/member-1", "a/member-2"];
    let desired: Vec<(&str, &[&str])> = items.iter().map(|(item, _)| (*item, both)).collect();
    let (txns, counts) = round(&world, &desired);
    assert_eq!(counts.added, 200);
    // The guard takes one comparison, so 63 items of two fit.
    assert_eq!(txns.iter().map(|txn| txn.then.len()).collect::<Vec<_>>(), [126, 74]);
    let guard = Compare::ModRevision { key: prefix().member(&id("a/member-1")), equals: Revision(1) };
    assert!(txns.iter().all(|txn| txn.compares[0] == guard && txn.compares.len() == txn.then.len() + 1));
}

#[test]
fn damaged_keys_are_left_alone_and_others_go_on() {
    let members = &[("a/member-1", 9), ("a/member-2", 9), ("a/member-3", 9)];
    let mut world = World::new(members, &[("item", 1), ("own", 1), ("sound", 1)]);
    for (item, value) in [("gone", "ready"), ("item", "ready"), ("own", "ready"), ("sound", "ready")] {
        world.assign(item, "a/member-1", 0, value);
        world.assign(item, "a/member-2", 1, value);
    }
    let p = prefix();
    let assignment = |item: &str, member: &str, slot: u32| {
        p.assignment(&AssignmentKey { item: item.into(), member: id(member), slot })
    };
    let damaged = |space: KeySpace<Plain>| {
        // The item was damaged before it was ever seen, so it looks as if it were gone.
        let space = space.with_undecodable(&p, &p.item("gone"));
        let space = space.with_undecodable(&p, &p.item("item"));
        let space = space.with_undecodable(&p, &assignment("own", "a/member-1", 0));
        space.with_undecodable(&p, &p.member(&id("a/member-3")))
    };
    let desired: &[(&str, &[&str])] =
        &[("item", &["a/member-2"]), ("own", &["a/member-2"]), ("sound", &["a/member-2", "a/member-3"])];
    expect![[r#"
        if members/a#member-1 at 1
        if items/sound at 6
        if assign/sound#a#member-1#0 at 13
        if assign/sound#a#member-2#1 at 14
          delete assign/sound#a#member-1#0
          delete assign/sound#a#member-2#1
          put assign/sound#a#member-2#0 = "ready" under 2
    "#]]
    .assert_eq(&render(&round_in(damaged(world.space()), desired).0));
}
