//! What the allocator derives from the mirror at each revision: members with their loads and effective limits, items,
//! and who leads (journal protocol §11.5).
//!
//! Pure. Every process computes the same state from the same key space, so no process needs to be told who leads or how
//! much capacity exiting members have shed.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use keyspace::{AssignmentKey, KeySpace};
use proto::{MemberId, Revision};

use crate::schema::Allocatable;
use crate::solver::{Problem, ProblemItem, ProblemMember};

/// A member, its load and its capacity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberState {
    pub(crate) id: MemberId,
    pub(crate) mod_revision: Revision,
    pub(crate) create_revision: Revision,
    pub(crate) lease: i64,
    pub(crate) exiting: bool,
    /// Its own limit, less what it has shed.
    pub(crate) limit: u32,
    /// Capacity it has shed because it is exiting.
    pub(crate) shed: u32,
    /// Assignments of existing items.
    pub(crate) total: u32,
    /// Those of slot 0.
    pub(crate) primary: u32,
}

/// An item and how many assignments it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemState {
    pub(crate) id: Arc<str>,
    pub(crate) replication: u32,
    pub(crate) mod_revision: Revision,
}

/// A share of a limit. Compares without rounding; a load on a limit of zero is heavier than any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    count: u32,
    limit: u32,
}

impl Load {
    pub(crate) fn of(count: u32, limit: u32) -> Load {
        Load { count, limit }
    }

    /// The load of a member whose key is gone.
    pub(crate) fn of_absent() -> Load {
        Load { count: u32::MAX, limit: 0 }
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Load) -> Ordering {
        let infinite = |load: &Load| load.limit == 0 && load.count > 0;
        match (infinite(self), infinite(other)) {
            (true, true) => self.count.cmp(&other.count),
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let ours = u64::from(self.count) * u64::from(other.limit.max(1));
                ours.cmp(&(u64::from(other.count) * u64::from(self.limit.max(1))))
            }
        }
    }
}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    /// In key order.
    pub(crate) members: Vec<MemberState>,
    /// In key order.
    pub(crate) items: Vec<ItemState>,
    index: HashMap<MemberId, usize>,
    leader: Option<usize>,
}

impl State {
    /// Derives the state of `space`.
    pub(crate) fn derive<S: Allocatable>(space: &KeySpace<S>, schema: &S) -> State {
        let mut members: Vec<MemberState> = Vec::with_capacity(space.members().len());
        for (id, entry) in space.members() {
            members.push(MemberState {
                id: id.clone(),
                mod_revision: entry.mod_revision,
                create_revision: entry.create_revision,
                lease: entry.lease,
                exiting: schema.exiting(&entry.value),
                limit: schema.limit(&entry.value),
                shed: 0,
                total: 0,
                primary: 0,
            });
        }
        let items: Vec<ItemState> = space
            .items()
            .iter()
            .map(|(id, entry)| ItemState {
                id: id.clone(),
                replication: schema.replication(&entry.value),
                mod_revision: entry.mod_revision,
            })
            .collect();
        let index: HashMap<_, _> =
            members.iter().enumerate().map(|(at, member)| (member.id.clone(), at)).collect();
        for key in space.assignments().keys() {
            if let Some(at) = index.get(&key.member)
                && space.items().contains_key(&key.item)
            {
                members[*at].total += 1;
                members[*at].primary += u32::from(key.slot == 0);
            }
        }
        shed(&mut members, &items);
        let leader = leader_of(space).and_then(|id| index.get(id).copied());
        State { members, items, index, leader }
    }

    /// The state of a member, if its key is there.
    pub(crate) fn member(&self, id: &MemberId) -> Option<&MemberState> {
        self.index.get(id).map(|at| &self.members[*at])
    }

    pub(crate) fn member_mut(&mut self, id: &MemberId) -> Option<&mut MemberState> {
        self.index.get(id).map(|at| &mut self.members[*at])
    }

    /// The member which leads: the one that was announced first.
    pub(crate) fn leader(&self) -> Option<&MemberState> {
        self.leader.map(|at| &self.members[at])
    }

    /// Load of a member over all its assignments.
    pub(crate) fn total_load(&self, id: &MemberId) -> Load {
        self.member(id).map_or_else(Load::of_absent, |member| Load::of(member.total, member.limit))
    }

    /// Load of a member as a primary.
    pub(crate) fn primary_load(&self, id: &MemberId) -> Load {
        self.member(id).map_or_else(Load::of_absent, |member| Load::of(member.primary, member.limit))
    }

    /// Assignments that all items want together.
    pub(crate) fn item_slots(&self) -> u64 {
        self.items.iter().map(|item| u64::from(item.replication)).sum()
    }

    /// What a solver needs to know.
    pub(crate) fn problem<S: Allocatable>(&self, space: &KeySpace<S>) -> Problem {
        let members =
            self.members.iter().map(|member| ProblemMember { id: member.id.clone(), limit: member.limit });
        let items = self.items.iter().map(|item| {
            let mut current: Vec<&AssignmentKey> =
                space.assignments_of(&item.id).map(|(key, _)| key).collect();
            current.sort_by_key(|key| key.slot);
            ProblemItem {
                id: item.id.clone(),
                replication: item.replication,
                current: current.into_iter().filter_map(|key| self.index.get(&key.member).copied()).collect(),
            }
        });
        Problem { items: items.collect(), members: members.collect() }
    }

    /// A digest of all that a solution depends on: a solution is computed anew only when it changes.
    pub(crate) fn digest(&self) -> u64 {
        let crc = crc::Crc::<u64>::new(&crc::CRC_64_XZ);
        let mut digest = crc.digest();
        let mut fold = |key: &str, value: u32| {
            digest.update(key.as_bytes());
            digest.update(value.to_string().as_bytes());
        };
        for member in &self.members {
            fold(&member.id.to_string(), member.limit + member.shed);
        }
        for item in &self.items {
            fold(&item.id, item.replication);
        }
        for member in self.members.iter().filter(|member| member.exiting) {
            fold(&member.id.to_string(), member.shed);
        }
        digest.finalize()
    }
}

/// The member which leads: the one that was announced first.
pub(crate) fn leader_of<S: Allocatable>(space: &KeySpace<S>) -> Option<&MemberId> {
    let announced = space.members().iter().map(|(id, entry)| (entry.create_revision, id));
    announced.min().map(|(_, id)| id)
}

/// Takes capacity from exiting members, oldest first, as far as the others can carry all items.
fn shed(members: &mut [MemberState], items: &[ItemState]) {
    let item_slots: u64 = items.iter().map(|item| u64::from(item.replication)).sum();
    let member_slots: u64 = members.iter().map(|member| u64::from(member.limit)).sum();
    let mut excess = member_slots.saturating_sub(item_slots);
    let replication_max = items.iter().map(|item| item.replication as usize).max().unwrap_or(0);
    let shedding_max = members.len().saturating_sub(replication_max);
    let mut exiting: Vec<usize> = (0..members.len()).filter(|at| members[*at].exiting).collect();
    exiting.sort_by_key(|at| (members[*at].create_revision, *at));
    for at in exiting.into_iter().take(shedding_max) {
        let member = &mut members[at];
        let amount = u64::from(member.limit).min(excess) as u32;
        member.limit -= amount;
        member.shed = amount;
        excess -= u64::from(amount);
    }
}

#[cfg(test)]
mod tests;
