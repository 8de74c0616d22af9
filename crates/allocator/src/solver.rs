//! The interface of assignment solvers, and the balanced one.

use std::sync::Arc;

use proto::MemberId;

/// What is to be solved, in key order throughout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    /// Items by name.
    pub items: Vec<ProblemItem>,
    /// Members by id.
    pub members: Vec<ProblemMember>,
}

/// An item which wants assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemItem {
    /// Its name.
    pub id: Arc<str>,
    /// Members it should be assigned to; 0 is none.
    pub replication: u32,
    /// Members (by index) it is assigned to now, the primary first.
    pub current: Vec<usize>,
}

/// A member which takes assignments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemMember {
    /// Its zone and name.
    pub id: MemberId,
    /// Assignments it takes at most.
    pub limit: u32,
}

/// Which members each item should be assigned to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assignment {
    /// Pairs of item and member, sorted.
    pub pairs: Vec<(Arc<str>, MemberId)>,
}

impl Assignment {
    /// Members that `item` should be assigned to.
    pub fn of<'a>(&'a self, item: &'a str) -> impl Iterator<Item = &'a MemberId> {
        let begin = self.pairs.partition_point(|(id, _)| &**id < item);
        self.pairs[begin..].iter().take_while(move |(id, _)| &**id == item).map(|(_, member)| member)
    }
}

/// Solves for a desired assignment. Must be deterministic.
pub trait Solver: Send + Sync {
    /// An assignment which respects every limit and meets as much of the desired replication as it can.
    fn solve(&self, problem: &Problem) -> Assignment;
}

/// Balances assignments over members, spreads an item over zones, and keeps current assignments where their members
/// have room.
///
/// A member keeps current assignments up to its fair share: its part of all wanted assignments, in proportion to its
/// limit, rounded up; and a zone keeps all but one of an item, if there is another zone. What is missing goes to another
/// zone first, then within fair shares, and uses what is left of the limits last.
#[derive(Debug, Clone, Copy, Default)]
pub struct BalancedSolver;

impl Solver for BalancedSolver {
    fn solve(&self, problem: &Problem) -> Assignment {
        let mut placing = Placing::new(problem);
        placing.keep_current();
        placing.place_missing();
        placing.into_assignment()
    }
}

/// A solution that grows.
struct Placing<'a> {
    problem: &'a Problem,
    fair: Vec<u32>,
    used: Vec<u32>,
    /// Members of each item, by index.
    chosen: Vec<Vec<usize>>,
    /// Whether members with a limit are in more than one zone.
    is_zoned: bool,
}

impl<'a> Placing<'a> {
    fn new(problem: &'a Problem) -> Placing<'a> {
        let wanted: u64 = problem.items.iter().map(|item| u64::from(item.replication)).sum();
        let room: u64 = problem.members.iter().map(|member| u64::from(member.limit)).sum();
        let share = |member: &ProblemMember| {
            let limit = u64::from(member.limit);
            // At most `limit`, since wanted is capped by room.
            (limit * wanted.min(room)).div_ceil(room.max(1)) as u32
        };
        let mut zones: Vec<_> =
            problem.members.iter().filter(|member| member.limit > 0).map(|member| &member.id.zone).collect();
        zones.dedup();
        Placing {
            is_zoned: zones.len() > 1,
            problem,
            fair: problem.members.iter().map(share).collect(),
            used: vec![0; problem.members.len()],
            chosen: vec![Vec::new(); problem.items.len()],
        }
    }

    fn keep_current(&mut self) {
        for (at, item) in self.problem.items.iter().enumerate() {
            for member in &item.current {
                let wants_more = self.chosen[at].len() < item.replication as usize;
                // One zone keeps all but one, so that the last goes elsewhere if it can.
                let zone_max = if self.is_zoned {
                    (item.replication as usize).saturating_sub(1).max(1)
                } else {
                    usize::MAX
                };
                let has_room = self.is_below_fair_share(*member) && self.in_zone_of(at, *member) < zone_max;
                if wants_more && has_room && !self.chosen[at].contains(member) {
                    self.choose(at, *member);
                }
            }
        }
    }

    fn place_missing(&mut self) {
        for (at, item) in self.problem.items.iter().enumerate() {
            while self.chosen[at].len() < item.replication as usize {
                let Some(member) = self.best(at) else { break };
                self.choose(at, member);
            }
        }
    }

    /// The member for one more assignment of an item: in the zone which has fewest of it, one within its fair share
    /// before others, a current one before others, then the least loaded.
    fn best(&self, at: usize) -> Option<usize> {
        let item = &self.problem.items[at];
        let chosen = &self.chosen[at];
        let candidates = (0..self.problem.members.len()).filter(|member| {
            !chosen.contains(member) && self.used[*member] < self.problem.members[*member].limit
        });
        candidates.min_by(|a, b| {
            let (limit_a, limit_b) = (self.problem.members[*a].limit, self.problem.members[*b].limit);
            let load = u64::from(self.used[*a]) * u64::from(limit_b);
            let by_load = load.cmp(&(u64::from(self.used[*b]) * u64::from(limit_a)));
            let rank = |member: usize| {
                (
                    self.in_zone_of(at, member),
                    !self.is_below_fair_share(member),
                    !item.current.contains(&member),
                )
            };
            rank(*a).cmp(&rank(*b)).then(by_load).then(a.cmp(b))
        })
    }

    /// How many assignments of an item are in the zone of `member` already.
    fn in_zone_of(&self, at: usize, member: usize) -> usize {
        let zone = &self.problem.members[member].id.zone;
        self.chosen[at].iter().filter(|other| self.problem.members[**other].id.zone == *zone).count()
    }

    fn is_below_fair_share(&self, member: usize) -> bool {
        self.used[member] < self.fair[member]
    }

    fn choose(&mut self, at: usize, member: usize) {
        self.chosen[at].push(member);
        self.used[member] += 1;
    }

    fn into_assignment(self) -> Assignment {
        let mut pairs = Vec::new();
        for (item, mut members) in self.problem.items.iter().zip(self.chosen) {
            members.sort_unstable();
            let ids =
                members.into_iter().map(|member| (item.id.clone(), self.problem.members[member].id.clone()));
            pairs.extend(ids);
        }
        Assignment { pairs }
    }
}

#[cfg(test)]
mod tests;
