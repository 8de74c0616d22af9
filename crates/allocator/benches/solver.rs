//! The maximum-flow solver: 10,000 and 100,000 items of replication 3 over 20 members in 3 zones, from nothing and after
//! one member left.

use std::hint::black_box;
use std::time::Duration;

use allocator::{Assignment, MaxFlowSolver, Problem, ProblemItem, ProblemMember, Solver};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::MemberId;

const MEMBERS: usize = 20;
const ZONES: [&str; 3] = ["zone-a", "zone-b", "zone-c"];
const REPLICATION: u32 = 3;
/// Far above what is needed, as limits are.
const LIMIT: u32 = 131_072;

/// Nothing is assigned yet.
fn cold(items: usize) -> Problem {
    let member = |n: usize| ProblemMember {
        id: MemberId::new(ZONES[n % 3], &format!("member-{n:02}")).expect("a valid id"),
        limit: LIMIT,
    };
    let mut members: Vec<ProblemMember> = (0..MEMBERS).map(member).collect();
    members.sort_by(|a, b| a.id.cmp(&b.id));
    let item = |n: usize| ProblemItem {
        id: format!("bench/journals/part-{n:06}").into(),
        replication: REPLICATION,
        current: Vec::new(),
    };
    Problem { items: (0..items).map(item).collect(), members }
}

/// All is assigned, and then the member at `gone` leaves.
fn after_one_left(cold: &Problem, solution: &Assignment, gone: usize) -> Problem {
    let mut members = cold.members.clone();
    members.remove(gone);
    let current = |item: &ProblemItem| {
        let places = solution.of(&item.id);
        places.filter_map(|id| members.binary_search_by(|member| member.id.cmp(id)).ok()).collect()
    };
    let items = cold.items.iter().map(|item| ProblemItem { current: current(item), ..item.clone() });
    Problem { items: items.collect(), members }
}

/// Assignments of the solution which are not current.
fn moves(problem: &Problem) -> usize {
    let solution = MaxFlowSolver.solve(problem);
    let is_new = |item: &ProblemItem, id: &MemberId| {
        item.current.iter().all(|member| problem.members[*member].id != *id)
    };
    problem.items.iter().map(|item| solution.of(&item.id).filter(|id| is_new(item, id)).count()).sum()
}

fn solve(c: &mut Criterion) {
    let mut group = c.benchmark_group("solve");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    for items in [10_000, 100_000] {
        let cold = cold(items);
        let solution = MaxFlowSolver.solve(&cold);
        assert_eq!(solution.pairs.len(), items * REPLICATION as usize);
        let left = after_one_left(&cold, &solution, 7);
        let missing: usize = left.items.iter().map(|item| REPLICATION as usize - item.current.len()).sum();
        assert_eq!(moves(&left), missing, "only what the member had moves");
        group.throughput(Throughput::Elements(items as u64));
        for (name, problem) in [("cold", &cold), ("one member left", &left)] {
            group.bench_with_input(BenchmarkId::new(name, items), problem, |b, problem| {
                b.iter(|| black_box(MaxFlowSolver.solve(problem)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, solve);
criterion_main!(benches);
