//! The maximum-flow solver of the journal protocol §11.7: assignments are flow from items over zones to members.
//!
//! Preferences, the strongest first:
//!
//! 1. Assign as much as the limits of members permit, never an item to a member twice.
//! 2. Leave one replica of an item in another zone than the rest, if there is another zone which has room.
//! 3. Keep members within their *fair share*: their part of all wanted assignments, in proportion to their limits.
//! 4. Move as little as possible.
//! 5. Place what is new in zones that have the item already, then evenly over zones, then on the least loaded members.
//!
//! Items are solved in slices of [`SLICE_ITEMS`], in key order, each with its part of every member's limit. A slice is
//! filled in levels ([`Level`]) which only ever widen what a member or a zone takes, so flow that an earlier level
//! found is never given up and preferences 1 to 3 hold one after the other: what goes beyond fair shares is no more
//! than what did not fit in them. (Only where zones are too small for preference 2, it may be missed for a few items
//! more than it must.) Each level keeps the largest possible number of current assignments, then adds the
//! missing ones along shortest augmenting paths (see [`path`]).
//!
//! **Movement.** Say that K current assignments of a slice can be kept within fair shares and zones. A solution that
//! places V assignments there makes at least V − K new ones. This one makes the fewest that any makes: V − K, plus one
//! for each kept assignment that a path must displace, which happens only where no member with room may take the item.
//! What does not fit in fair shares or zones may add two moves for each such assignment. So an unchanged input moves
//! nothing, a member which leaves moves its own assignments, and one which joins moves what exceeds the fair shares of
//! the others. An item which comes or goes shifts the border of each later slice by one item, whose assignments may
//! move. Leadership is no input, so another leader finds the same solution.

mod path;
mod placing;

use proto::MemberId;

use crate::max_flow::placing::{Level, Placing};
use crate::solver::{Assignment, Problem, ProblemMember, Solver};

/// Items which are solved together.
const SLICE_ITEMS: usize = 10_000;

/// See the module.
#[derive(Debug, Clone, Copy, Default)]
pub struct MaxFlowSolver;

impl Solver for MaxFlowSolver {
    fn solve(&self, problem: &Problem) -> Assignment {
        let zones = Zones::of(&problem.members);
        let shares = Shares::of(problem);
        let mut used = vec![0; problem.members.len()];
        let mut slices = Vec::new();
        for items in problem.items.chunks(SLICE_ITEMS) {
            let wanted = items.iter().map(|item| u64::from(item.replication)).sum();
            let limits = shares.limits(wanted, &used);
            let mut placing = Placing::new(items, &zones);
            let fair = shares.fair(&limits);
            placing.fill(Level { caps: fair.clone(), spread: true });
            placing.fill(Level { caps: limits.clone(), spread: true });
            // What is beyond fair shares by now stays there.
            let caps = fair.iter().zip(placing.used()).map(|(fair, used)| *fair.max(used)).collect();
            placing.fill(Level { caps, spread: false });
            placing.fill(Level { caps: limits, spread: false });
            add(&mut used, placing.used());
            slices.push((placing, fair));
        }
        for (placing, fair) in &mut slices {
            // What one slice had no part in may be left over from the parts of others.
            let before = placing.used().to_vec();
            let left = shares.limits.iter().zip(&used).map(|(limit, used)| limit - used);
            let caps: Vec<u32> = before.iter().zip(left).map(|(used, left)| used + left).collect();
            placing.fill(Level { caps: caps.clone(), spread: true });
            placing.fill(Level { caps: caps.clone(), spread: false });
            placing.stay_if_no_worse(fair, caps);
            used.iter_mut().zip(&before).for_each(|(used, before)| *used -= before);
            add(&mut used, placing.used());
        }
        Assignment {
            pairs: slices.iter().flat_map(|(placing, _)| pairs(placing, &problem.members)).collect(),
        }
    }
}

fn add(used: &mut [u32], more: &[u32]) {
    used.iter_mut().zip(more).for_each(|(used, more)| *used += more);
}

fn pairs(placing: &Placing<'_>, members: &[ProblemMember]) -> Vec<(std::sync::Arc<str>, MemberId)> {
    let mut pairs = Vec::new();
    for (item, places) in placing.places() {
        let mut places = places.to_vec();
        places.sort_unstable();
        pairs.extend(places.into_iter().map(|member| (item.id.clone(), members[member].id.clone())));
    }
    pairs
}

/// The zones of members.
struct Zones {
    /// Zone of each member, by index.
    of: Vec<usize>,
    /// Zones which have a member that takes assignments.
    count: usize,
}

impl Zones {
    fn of(members: &[ProblemMember]) -> Zones {
        let mut names: Vec<&str> = members.iter().map(|member| &*member.id.zone).collect();
        names.dedup();
        let zone = |member: &ProblemMember| names.partition_point(|name| *name < &*member.id.zone);
        let mut taking: Vec<usize> = members.iter().filter(|member| member.limit > 0).map(zone).collect();
        taking.dedup();
        Zones { of: members.iter().map(zone).collect(), count: taking.len() }
    }
}

/// How limits are divided. Every division rounds up, and never exceeds what it divides.
struct Shares {
    limits: Vec<u32>,
    /// Assignments that all items want together.
    wanted: u64,
    /// Limits of all members together.
    room: u64,
}

impl Shares {
    fn of(problem: &Problem) -> Shares {
        let limits: Vec<u32> = problem.members.iter().map(|member| member.limit).collect();
        Shares {
            wanted: problem.items.iter().map(|item| u64::from(item.replication)).sum(),
            room: limits.iter().map(|limit| u64::from(*limit)).sum(),
            limits,
        }
    }

    /// Limits for a slice which wants `wanted` assignments, where `used` are taken by other slices.
    fn limits(&self, wanted: u64, used: &[u32]) -> Vec<u32> {
        let part = |limit: u32| scale(limit, wanted, self.wanted);
        self.limits.iter().zip(used).map(|(limit, used)| part(*limit).min(limit - used)).collect()
    }

    /// Fair shares within `limits`: as much of each as all items need of all members.
    fn fair(&self, limits: &[u32]) -> Vec<u32> {
        limits.iter().map(|limit| scale(*limit, self.wanted.min(self.room), self.room)).collect()
    }
}

/// `whole · part / parts`, rounded up. `part` is at most `parts`.
fn scale(whole: u32, part: u64, parts: u64) -> u32 {
    let scaled = (u128::from(whole) * u128::from(part)).div_ceil(u128::from(parts.max(1)));
    u32::try_from(scaled).expect("a part of the whole is at most the whole")
}

#[cfg(test)]
mod tests;
