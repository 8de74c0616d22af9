use super::*;
use crate::fixtures::{Plain, World, id};

fn state(world: &World) -> State {
    State::derive(&world.space(), &Plain)
}

/// Effective limits of members, in key order.
fn limits(world: &World) -> Vec<u32> {
    state(world).members.iter().map(|member| member.limit).collect()
}

#[test]
fn the_member_announced_first_leads() {
    let mut world = World::new(&[("z/member-1", 1), ("a/member-2", 1)], &[]);
    assert_eq!(state(&world).leader().unwrap().id, id("z/member-1"));
    world.exit("z/member-1");
    assert_eq!(state(&world).leader().unwrap().id, id("z/member-1"), "an update does not make it younger");
    world.die("z/member-1");
    world.join("z/member-1", 1);
    assert_eq!(state(&world).leader().unwrap().id, id("a/member-2"));
    world.die("a/member-2");
    world.die("z/member-1");
    assert!(state(&world).leader().is_none());
}

#[test]
fn assignments_of_existing_items_are_load() {
    let mut world = World::new(&[("a/member-1", 4), ("a/member-2", 2)], &[("x", 2), ("y", 1)]);
    world.assign("x", "a/member-1", 0, "");
    world.assign("x", "a/member-2", 1, "");
    world.assign("y", "a/member-2", 0, "");
    world.assign("gone", "a/member-1", 0, "");
    let state = state(&world);
    let of = |member: &str| {
        let member = state.member(&id(member)).unwrap();
        (member.total, member.primary)
    };
    assert_eq!((of("a/member-1"), of("a/member-2")), ((1, 1), (2, 1)));
    assert!(state.total_load(&id("a/member-1")) < state.total_load(&id("a/member-2")));
    assert!(state.total_load(&id("a/member-2")) < state.total_load(&id("a/unknown")));
    assert_eq!(state.item_slots(), 3);
}

#[test]
fn loads_compare_as_ratios() {
    let ordered = [
        vec![Load::of(0, 0), Load::of(0, 5)],
        vec![Load::of(1, 3)],
        vec![Load::of(1, 2), Load::of(2, 4)],
        vec![Load::of(5, 5)],
        vec![Load::of(1, 0)],
        vec![Load::of_absent()],
    ];
    for (a, group) in ordered.iter().enumerate() {
        for (b, other) in ordered.iter().enumerate() {
            for (x, y) in group.iter().flat_map(|x| other.iter().map(move |y| (x, y))) {
                assert_eq!(x.cmp(y), a.cmp(&b), "{x:?} and {y:?}");
            }
        }
    }
}

#[test]
fn exiting_members_shed_what_the_others_can_carry() {
    // Three members with 10 slots each; items want 8 of them, replicated over two members at most.
    let members = [("a/member-1", 10), ("a/member-2", 10), ("a/member-3", 10)];
    let mut world = World::new(&members, &[("x", 2), ("y", 2), ("z", 2), ("w", 2)]);
    assert_eq!(limits(&world), [10, 10, 10]);
    // Only one may shed, since two members are needed: the oldest.
    world.exit("a/member-2");
    world.exit("a/member-1");
    assert_eq!(limits(&world), [0, 10, 10]);
    // A fourth member makes room for the second, up to what is left over.
    world.join("a/member-4", 1);
    assert_eq!(limits(&world), [0, 0, 10, 1]);
    // Capacity that is needed is kept.
    world.die("a/member-4");
    world.die("a/member-3");
    world.join("a/member-3", 3);
    assert_eq!(limits(&world), [0, 10, 3], "10 + 3 slots carry the items");
    world.item("more", 2);
    world.item("yet-more", 2);
    world.item("and-more", 2);
    assert_eq!(limits(&world), [1, 10, 3], "14 are needed");
}

#[test]
fn a_lone_member_sheds_only_if_no_item_wants_it() {
    let mut world = World::new(&[("a/member-1", 10)], &[("x", 1)]);
    world.exit("a/member-1");
    assert_eq!(limits(&world), [10]);
    world.item("x", 0);
    assert_eq!(limits(&world), [0]);
}

#[test]
fn the_digest_changes_with_what_a_solution_depends_on() {
    let mut world = World::new(&[("a/member-1", 10), ("a/member-2", 10)], &[("x", 1)]);
    let mut digests = vec![state(&world).digest()];
    world.assign("x", "a/member-1", 0, "");
    world.assign("x", "a/member-1", 0, "ready");
    assert_eq!(state(&world).digest(), digests[0], "assignments come and go on the way to the solution");
    world.join("a/member-3", 5);
    digests.push(state(&world).digest());
    world.item("x", 2);
    digests.push(state(&world).digest());
    world.item("y", 0);
    digests.push(state(&world).digest());
    world.exit("a/member-1");
    digests.push(state(&world).digest());
    world.die("a/member-2");
    digests.push(state(&world).digest());
    let mut distinct = digests.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), digests.len(), "{digests:?}");
}
