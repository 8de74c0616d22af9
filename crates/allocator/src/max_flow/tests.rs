//! Solutions: what they cost against the least that any costs, and how little they move.

mod reference;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::MemberId;

use super::*;
use crate::fixtures::config;
use crate::solver::ProblemItem;

const ZONES: [&str; 4] = ["a", "b", "c", "d"];

fn member(zone: &str, name: &str, limit: u32) -> ProblemMember {
    ProblemMember { id: MemberId { zone: zone.into(), suffix: name.into() }, limit }
}

/// Members of these limits, dealt to `zones` zones, in key order.
fn members(limits: &[u32], zones: usize) -> Vec<ProblemMember> {
    let named = limits.iter().enumerate();
    let mut members: Vec<_> =
        named.map(|(at, limit)| member(ZONES[at % zones], &format!("member-{at:02}"), *limit)).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    members
}

fn item(at: usize, replication: u32, current: &[usize]) -> ProblemItem {
    ProblemItem { id: format!("item-{at:06}").into(), replication, current: current.to_vec() }
}

fn items(count: usize, replication: u32) -> Vec<ProblemItem> {
    (0..count).map(|at| item(at, replication, &[])).collect()
}

/// The same problem once `solution` has been brought about, with `members` as they are then.
fn after(problem: &Problem, solution: &Assignment, members: &[ProblemMember]) -> Problem {
    let current = |item: &ProblemItem| {
        let places = solution.of(&item.id);
        places.filter_map(|id| members.iter().position(|other| other.id == *id)).collect()
    };
    let items = problem.items.iter().map(|item| ProblemItem { current: current(item), ..item.clone() });
    Problem { items: items.collect(), members: members.to_vec() }
}

fn fair(problem: &Problem) -> Vec<u32> {
    let shares = Shares::of(problem);
    shares.fair(&shares.limits(shares.wanted, &vec![0; problem.members.len()]))
}

/// Assignments which are not current.
fn moves(problem: &Problem, solution: &Assignment) -> i64 {
    reference::cost(problem, &fair(problem), solution).moves
}

fn counts(solution: &Assignment) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, member) in &solution.pairs {
        *counts.entry(member.suffix.to_string()).or_default() += 1;
    }
    counts
}

#[test]
fn a_new_member_takes_its_fair_share_and_no_more_moves() {
    let members = vec![member("a", "first", 32), member("a", "second", 32)];
    let items: Vec<_> = (0..8).map(|at| item(at, 1, &[0])).collect();
    let problem = Problem { items, members };
    let solution = MaxFlowSolver.solve(&problem);
    assert_eq!(counts(&solution), [("first".to_owned(), 4), ("second".to_owned(), 4)].into());
    assert_eq!(moves(&problem, &solution), 4);
}

#[test]
fn replicas_spread_over_zones() {
    let members = members(&[10; 4], 2);
    let problem = Problem { items: items(6, 2), members };
    let solution = MaxFlowSolver.solve(&problem);
    for item in &problem.items {
        let zones: Vec<_> = solution.of(&item.id).map(|member| member.zone.to_string()).collect();
        assert_eq!(zones, ["a", "b"], "{}", item.id);
    }
}

#[test]
fn zones_which_have_an_item_keep_it() {
    // The second member of zone a is leaving. Its assignments stay in the zone, though another has none of them.
    let members =
        vec![member("a", "one", 40), member("a", "two", 0), member("b", "one", 40), member("c", "one", 1)];
    let problem = Problem { items: (0..4).map(|at| item(at, 2, &[1, 2])).collect(), members };
    let solution = MaxFlowSolver.solve(&problem);
    let in_a = solution.pairs.iter().filter(|(_, member)| &*member.zone == "a").count();
    assert_eq!((moves(&problem, &solution), in_a), (4, 4));
}

#[test]
fn a_zone_has_all_replicas_only_if_there_is_no_room_elsewhere() {
    let crowded = |room: u32| {
        let members = vec![member("a", "one", 9), member("a", "two", 9), member("b", "one", room)];
        let problem = Problem { items: (0..4).map(|at| item(at, 2, &[0, 1])).collect(), members };
        let solution = MaxFlowSolver.solve(&problem);
        let cost = reference::cost(&problem, &fair(&problem), &solution);
        (cost.missing, cost.crowded)
    };
    assert_eq!(crowded(9), (0, 0));
    assert_eq!(crowded(1), (0, 3));
    assert_eq!(crowded(0), (0, 0), "there is one zone");
}

#[test]
fn what_does_not_fit_is_left_out_in_order() {
    let members = vec![member("a", "only-one", 2)];
    let problem = Problem { items: items(3, 1), members };
    let solution = MaxFlowSolver.solve(&problem);
    let placed: Vec<_> = solution.pairs.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(placed, ["item-000000", "item-000001"]);
}

#[test]
fn shares_round_up_and_never_exceed_what_they_divide() {
    assert_eq!(scale(10, 1, 3), 4);
    assert_eq!(scale(u32::MAX, u64::MAX, u64::MAX), u32::MAX);
    assert_eq!(scale(7, 0, 0), 0);
}

/// The movement of a large cluster: 20 members, a limit far above what is needed, more items than a slice.
#[test]
fn a_member_which_leaves_or_comes_moves_its_share_alone() {
    let limits = [20_000; 20];
    let all = members(&limits, 3);
    let cold = Problem { items: items(11_000, 3), members: all.clone() };
    let first = MaxFlowSolver.solve(&cold);
    let expected = 3 * 11_000 / 20;
    assert!(counts(&first).values().all(|count| count.abs_diff(expected) <= 20), "{:?}", counts(&first));
    assert_eq!(reference::cost(&cold, &fair(&cold), &first).crowded, 0);

    let quiet = after(&cold, &first, &all);
    assert_eq!(MaxFlowSolver.solve(&quiet), first, "an unchanged input moves nothing");

    let rest: Vec<_> = all.iter().filter(|member| &*member.id.suffix != "member-07").cloned().collect();
    let left = after(&cold, &first, &rest);
    let second = MaxFlowSolver.solve(&left);
    assert_eq!(moves(&left, &second), counts(&first)["member-07"] as i64, "its assignments move, no others");

    let back = after(&left, &second, &all);
    let third = MaxFlowSolver.solve(&back);
    let share = *counts(&third).get("member-07").unwrap() as i64;
    assert_eq!(moves(&back, &third), share, "what the member takes moves, nothing else");
    assert!(share.abs_diff(expected as i64) <= 3 * 20, "{share}");
}

#[test]
fn an_item_which_comes_moves_at_most_one_at_each_border_of_slices() {
    let all = members(&[20_000; 20], 3);
    let cold = Problem { items: items(11_000, 3), members: all.clone() };
    let first = MaxFlowSolver.solve(&cold);
    let mut more = after(&cold, &first, &all);
    more.items.insert(0, ProblemItem { id: "a-new-item".into(), replication: 3, current: Vec::new() });
    let second = MaxFlowSolver.solve(&more);
    let borders = more.items.len() / SLICE_ITEMS;
    assert!(moves(&more, &second) <= 3 * (1 + borders as i64), "{}", moves(&more, &second));
}

fn any_problem() -> impl Strategy<Value = Problem> {
    let wants = prop::collection::vec((0u32..5, prop::collection::vec(0usize..8, 0..5)), 0..24);
    (prop::collection::vec(0u32..12, 1..9), 1usize..5, wants).prop_map(|(limits, zones, wants)| {
        let members = members(&limits, zones);
        let items = wants.iter().enumerate().map(|(at, (replication, current))| {
            let mut current: Vec<_> = current.iter().map(|one| one % limits.len()).collect();
            current.sort_unstable();
            current.dedup();
            item(at, *replication, &current)
        });
        Problem { items: items.collect(), members }
    })
}

proptest! {
    #![proptest_config(config(512))]

    /// No solution is better in what matters more than movement, where zones are large enough; and movement is least
    /// wherever fair shares suffice. Elsewhere, each assignment beyond them may cost two moves more.
    #[test]
    fn solutions_cost_the_least(problem in any_problem()) {
        let solution = MaxFlowSolver.solve(&problem);
        prop_assert_eq!(&solution, &MaxFlowSolver.solve(&problem), "deterministic");
        prop_assert!(solution.pairs.windows(2).all(|pair| pair[0] < pair[1]), "sorted, no pair twice");
        for one in &problem.members {
            let used = solution.pairs.iter().filter(|(_, id)| *id == one.id).count();
            prop_assert!(used <= one.limit as usize);
        }
        let fair = fair(&problem);
        let cost = reference::cost(&problem, &fair, &solution);
        let wants: Vec<u32> = problem.items.iter().map(|item| item.replication).collect();
        let least = reference::least(&problem, &fair, &wants);
        prop_assert_eq!(cost.missing, least.missing);
        if least.crowded == 0 {
            prop_assert_eq!((cost.crowded, cost.unfair), (0, least.unfair));
        } else {
            // Zones that are too small are filled within fair shares first, which may crowd a few items more.
            prop_assert!(cost.crowded + cost.unfair <= 2 * (1 + least.crowded + least.unfair), "{cost:?} {least:?}");
        }
        // Where not everything fits, which item goes short is a matter of order, not of cost.
        let placed: Vec<u32> = problem.items.iter().map(|item| solution.of(&item.id).count() as u32).collect();
        let least = reference::least(&problem, &fair, &placed);
        let beyond = cost.crowded + cost.unfair;
        prop_assert!(cost.moves <= least.moves + 2 * beyond, "{} moves, {:?} would do", cost.moves, least);
    }

    #[test]
    fn a_solution_is_stable(problem in any_problem()) {
        let solution = MaxFlowSolver.solve(&problem);
        let again = MaxFlowSolver.solve(&after(&problem, &solution, &problem.members));
        prop_assert_eq!(solution, again);
    }
}
