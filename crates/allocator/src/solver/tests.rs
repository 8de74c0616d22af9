//! The balanced solver: bounds, balance, zones and movement.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::MemberId;

use super::*;

fn member(zone: &str, name: &str, limit: u32) -> ProblemMember {
    ProblemMember { id: MemberId { zone: zone.into(), suffix: name.into() }, limit }
}

fn item(at: usize, replication: u32, current: &[usize]) -> ProblemItem {
    ProblemItem { id: format!("item-{at:03}").into(), replication, current: current.to_vec() }
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
    let solution = BalancedSolver.solve(&Problem { items, members });
    assert_eq!(counts(&solution), [("first".to_owned(), 4), ("second".to_owned(), 4)].into());
    let kept = solution.pairs.iter().filter(|(_, member)| &*member.suffix == "first").count();
    assert_eq!(kept, 4);
}

#[test]
fn replicas_spread_over_zones() {
    let members = vec![member("a", "a-one", 10), member("a", "a-two", 10), member("b", "b-one", 10)];
    let items: Vec<_> = (0..6).map(|at| item(at, 2, &[])).collect();
    let solution = BalancedSolver.solve(&Problem { items: items.clone(), members });
    for item in &items {
        let zones: Vec<_> = solution.of(&item.id).map(|member| member.zone.clone()).collect();
        assert_eq!(zones.len(), 2);
        assert_ne!(zones[0], zones[1], "{}", item.id);
    }
}

#[test]
fn what_does_not_fit_is_left_out_in_order() {
    let members = vec![member("a", "only-one", 2)];
    let items: Vec<_> = (0..3).map(|at| item(at, 1, &[])).collect();
    let solution = BalancedSolver.solve(&Problem { items, members });
    let placed: Vec<_> = solution.pairs.iter().map(|(id, _)| id.to_string()).collect();
    assert_eq!(placed, ["item-000", "item-001"]);
}

proptest! {
    #[test]
    fn solutions_respect_limits_and_reach_what_is_reachable(
        limits in prop::collection::vec(0u32..6, 1..6),
        wants in prop::collection::vec((0u32..4, prop::collection::vec(0usize..6, 0..3)), 0..20),
    ) {
        let zones = ["a", "b", "c"];
        let mut members: Vec<_> = limits.iter().enumerate()
            .map(|(at, limit)| member(zones[at % 3], &format!("member-{at}"), *limit)).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id)); // Problems are in key order.
        let items: Vec<_> = wants.iter().enumerate().map(|(at, (replication, current))| {
            let current: Vec<_> = current.iter().map(|one| one % limits.len()).collect();
            item(at, *replication, &current)
        }).collect();
        let problem = Problem { items, members };
        let solution = BalancedSolver.solve(&problem);
        prop_assert_eq!(&solution, &BalancedSolver.solve(&problem), "deterministic");
        prop_assert!(solution.pairs.windows(2).all(|pair| pair[0] < pair[1]), "sorted, no pair twice");
        for one in &problem.members {
            let used = solution.pairs.iter().filter(|(_, id)| *id == one.id).count();
            prop_assert!(used <= one.limit as usize);
        }
        for one in &problem.items {
            let placed: Vec<_> = solution.of(&one.id).collect();
            prop_assert!(placed.len() <= one.replication as usize);
            // An item is short only if no other member has room.
            if placed.len() < one.replication as usize {
                for other in problem.members.iter().filter(|other| !placed.contains(&&other.id)) {
                    let used = solution.pairs.iter().filter(|(_, id)| *id == other.id).count();
                    prop_assert_eq!(used, other.limit as usize, "{} has room for {}", other.id, one.id);
                }
            }
        }
    }

    #[test]
    fn a_solution_is_stable(
        limits in prop::collection::vec(0u32..20, 1..6),
        zones in 1usize..4,
        wants in prop::collection::vec(0u32..4, 0..30),
    ) {
        let mut members: Vec<_> = limits.iter().enumerate()
            .map(|(at, limit)| member(["a", "b", "c"][at % zones], &format!("member-{at}"), *limit)).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id)); // Problems are in key order.
        let list: Vec<_> = wants.iter().enumerate().map(|(at, replication)| item(at, *replication, &[])).collect();
        let first = BalancedSolver.solve(&Problem { items: list.clone(), members: members.clone() });
        let current: Vec<_> = list.iter().map(|one| {
            let current = first.of(&one.id).filter_map(|id| members.iter().position(|other| other.id == *id));
            ProblemItem { current: current.collect(), ..one.clone() }
        }).collect();
        let second = BalancedSolver.solve(&Problem { items: current, members });
        prop_assert_eq!(first, second);
    }
}
