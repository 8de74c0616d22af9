//! A slow solver whose answers are beyond doubt: minimum-cost flow over the whole network, one unit at a time.

use crate::solver::{Problem, ProblemItem};

/// What a solution costs, each weighing more than all that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Cost {
    /// Assignments that are missing.
    pub(super) missing: i64,
    /// Items which have all replicas in one zone, although there are others.
    pub(super) crowded: i64,
    /// Assignments beyond fair shares.
    pub(super) unfair: i64,
    /// Assignments that are not current.
    pub(super) moves: i64,
}

const CROWDED: i64 = 1 << 40;
const UNFAIR: i64 = 1 << 20;

struct Arc {
    to: usize,
    cap: u32,
    cost: i64,
}

#[derive(Default)]
struct Network {
    arcs: Vec<Arc>,
    out: Vec<Vec<usize>>,
}

impl Network {
    fn node(&mut self) -> usize {
        self.out.push(Vec::new());
        self.out.len() - 1
    }

    /// An arc and, next to it, the one that takes its flow back.
    fn arc(&mut self, from: usize, to: usize, cap: u32, cost: i64) {
        self.out[from].push(self.arcs.len());
        self.arcs.push(Arc { to, cap, cost });
        self.out[to].push(self.arcs.len());
        self.arcs.push(Arc { to: from, cap: 0, cost: -cost });
    }

    /// Sends one unit along a cheapest path, and gives its cost.
    fn augment(&mut self, source: usize, sink: usize) -> Option<i64> {
        let mut reached: Vec<Option<(i64, usize)>> = vec![None; self.out.len()];
        reached[source] = Some((0, usize::MAX));
        let mut changed = true;
        while changed {
            changed = false;
            for from in 0..self.out.len() {
                let Some((base, _)) = reached[from] else { continue };
                for at in &self.out[from] {
                    let Arc { to, cap, cost } = self.arcs[*at];
                    if cap > 0 && reached[to].is_none_or(|(known, _)| base + cost < known) {
                        reached[to] = Some((base + cost, *at));
                        changed = true;
                    }
                }
            }
        }
        let (cost, _) = reached[sink]?;
        let mut at = sink;
        while at != source {
            let (_, arc) = reached[at].unwrap();
            self.arcs[arc].cap -= 1;
            self.arcs[arc ^ 1].cap += 1;
            at = self.arcs[arc ^ 1].to;
        }
        Some(cost)
    }
}

/// The least cost of any solution which gives items at most `wants` assignments, for a problem of one slice whose members
/// have these fair shares.
pub(super) fn least(problem: &Problem, fair: &[u32], wants: &[u32]) -> Cost {
    let mut network = Network::default();
    let (source, sink) = (network.node(), network.node());
    let members: Vec<usize> = problem.members.iter().map(|_| network.node()).collect();
    for ((node, member), fair) in members.iter().zip(&problem.members).zip(fair) {
        network.arc(*node, sink, *fair, 0);
        network.arc(*node, sink, member.limit - fair, UNFAIR);
    }
    let zones = zones(problem);
    for (item, wanted) in problem.items.iter().zip(wants) {
        let node = network.node();
        network.arc(source, node, *wanted, 0);
        let spread = spread(item, zones.len());
        for zone in &zones {
            let within = network.node();
            network.arc(node, within, spread, 0);
            network.arc(node, within, item.replication - spread.min(item.replication), CROWDED);
            for (at, member) in problem.members.iter().enumerate() {
                if *member.id.zone == **zone {
                    let cost = i64::from(!item.current.contains(&at));
                    network.arc(within, members[at], 1, cost);
                }
            }
        }
    }
    let wanted: i64 = wants.iter().map(|wanted| i64::from(*wanted)).sum();
    let (mut placed, mut total) = (0, 0);
    while let Some(cost) = network.augment(source, sink) {
        placed += 1;
        total += cost;
    }
    Cost {
        missing: wanted - placed,
        crowded: total / CROWDED,
        unfair: total % CROWDED / UNFAIR,
        moves: total % UNFAIR,
    }
}

/// What a solution costs.
pub(super) fn cost(problem: &Problem, fair: &[u32], solution: &super::Assignment) -> Cost {
    let zones = zones(problem);
    let mut cost = Cost::default();
    for item in &problem.items {
        let places: Vec<usize> = solution
            .of(&item.id)
            .map(|id| problem.members.iter().position(|member| member.id == *id).unwrap())
            .collect();
        cost.missing += i64::from(item.replication) - places.len() as i64;
        cost.moves += places.iter().filter(|member| !item.current.contains(member)).count() as i64;
        for zone in &zones {
            let within = places.iter().filter(|member| *problem.members[**member].id.zone == **zone).count();
            cost.crowded += (within as i64 - i64::from(spread(item, zones.len()))).max(0);
        }
    }
    for (member, fair) in problem.members.iter().zip(fair) {
        let used = solution.pairs.iter().filter(|(_, id)| *id == member.id).count();
        cost.unfair += (used as i64 - i64::from(*fair)).max(0);
    }
    cost
}

fn zones(problem: &Problem) -> Vec<&str> {
    let taking = problem.members.iter().filter(|member| member.limit > 0);
    let mut zones: Vec<&str> = taking.map(|member| &*member.id.zone).collect();
    zones.dedup();
    zones
}

fn spread(item: &ProblemItem, zones: usize) -> u32 {
    if zones > 1 { item.replication.saturating_sub(1).max(1) } else { item.replication }
}
