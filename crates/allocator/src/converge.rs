//! One round of convergence: which guarded operations move the current assignments towards the desired ones
//! (journal protocol §11.6).
//!
//! Pure. Each item contributes at most one *checkpoint*: comparisons and operations that must stand in one transaction. A
//! checkpoint never takes an item below its desired number of consistent assignments, and removes a primary only
//! together with the promotion of another.
//!
//! A key whose newest value does not decode is shown with an older one, whose revision no comparison can hold. Nothing
//! is planned that compares such a key: one damaged key must not stop the convergence of all others.

use keyspace::{AssignmentKey, Compare, Entry, KeyPrefix, KeySpace, Op, PutLease, Txn};
use proto::{MemberId, Revision};

use crate::schema::Allocatable;
use crate::solver::Assignment;
use crate::state::{ItemState, State};

/// Operations counted by kind, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) packed: u64,
}

/// Comparisons and operations of one item.
#[derive(Debug, Default)]
struct Checkpoint {
    compares: Vec<Compare>,
    ops: Vec<Op>,
}

/// A current assignment of an item.
struct Current<'a, S: Allocatable> {
    key: &'a AssignmentKey,
    entry: &'a Entry<S::Assignment>,
    consistent: bool,
    /// Its newest value does not decode, so it can be neither removed nor moved.
    damaged: bool,
}

impl<S: Allocatable> Clone for Current<'_, S> {
    fn clone(&self) -> Self {
        Current { ..*self }
    }
}

/// One round over all items: transactions in their order, each guarded by the leader's unchanged member key. `state` is
/// left with the loads that the operations bring about.
pub(crate) fn converge<S: Allocatable>(
    space: &KeySpace<S>,
    schema: &S,
    prefix: &KeyPrefix,
    state: &mut State,
    desired: &Assignment,
) -> (Vec<Txn>, Counts) {
    let items = state.items.clone();
    let mut round = Round { space, schema, prefix, state, counts: Counts::default() };
    let mut checkpoints = round.dead_assignments();
    for item in &items {
        let checkpoint = round.item(item, desired);
        if !checkpoint.ops.is_empty() {
            checkpoints.push(checkpoint);
        }
    }
    let guard = round
        .state
        .leader()
        .map(|leader| Compare::ModRevision { key: prefix.member(&leader.id), equals: leader.mod_revision });
    (batch(checkpoints, guard), round.counts)
}

struct Round<'a, S: Allocatable> {
    space: &'a KeySpace<S>,
    schema: &'a S,
    prefix: &'a KeyPrefix,
    state: &'a mut State,
    counts: Counts,
}

impl<'a, S: Allocatable> Round<'a, S> {
    /// Removes assignments whose item is gone. One which exists but cannot be decoded is not gone.
    fn dead_assignments(&mut self) -> Vec<Checkpoint> {
        let mut checkpoints: Vec<(&str, Checkpoint)> = Vec::new();
        for (key, entry) in self.space.assignments() {
            let item = &*key.item;
            let exists = self.space.items().contains_key(item);
            let damaged = self.space.is_undecodable(&self.prefix.assignment(key));
            if exists || damaged || self.space.has_undecodable_item(self.prefix, item) {
                continue;
            }
            if checkpoints.last().is_none_or(|(last, _)| *last != item) {
                let absent = Compare::CreateRevision { key: self.prefix.item(item), equals: Revision(0) };
                checkpoints.push((item, Checkpoint { compares: vec![absent], ops: Vec::new() }));
            }
            let (_, checkpoint) = checkpoints.last_mut().expect("one was just made for this item");
            checkpoint.compares.push(self.unchanged(key, entry));
            checkpoint.ops.push(Op::Delete { key: self.prefix.assignment(key) });
            self.counts.removed += 1;
        }
        checkpoints.into_iter().map(|(_, checkpoint)| checkpoint).collect()
    }

    fn item(&mut self, item: &'a ItemState, desired: &Assignment) -> Checkpoint {
        let current = self.current(&item.id);
        let wanted: Vec<&MemberId> = desired.of(&item.id).collect();
        let slot_next = current.iter().map(|one| one.key.slot + 1).max().unwrap_or(0);

        let (mut kept, mut removals) = (Vec::new(), Vec::new());
        let item_damaged = self.space.has_undecodable_item(self.prefix, &item.id);
        for one in &current {
            let repeats = kept.iter().any(|other: &Current<'_, S>| other.key.member == one.key.member);
            let stays = wanted.contains(&&one.key.member) && !repeats || one.damaged || item_damaged;
            if stays { &mut kept } else { &mut removals }.push(one.clone());
        }
        let consistent = current.iter().filter(|one| one.consistent).count();
        let removed = self.constrain_removals(removals, &mut kept, consistent, item.replication as usize);
        let promoted = self.order(&mut kept);

        let mut checkpoint = Checkpoint::default();
        let mut additions: Vec<&MemberId> =
            wanted.into_iter().filter(|id| current.iter().all(|one| one.key.member != **id)).collect();
        if current.is_empty() {
            // The first becomes the primary.
            additions.sort_by_key(|id| self.state.primary_load(id));
        }
        let mut slot = slot_next;
        for member in additions {
            if self.add(&mut checkpoint, item, member, slot) {
                slot += 1;
            }
        }
        if !removed.is_empty() {
            let unchanged =
                Compare::ModRevision { key: self.prefix.item(&item.id), equals: item.mod_revision };
            checkpoint.compares.push(unchanged);
        }
        for one in &removed {
            checkpoint.compares.push(self.unchanged(one.key, one.entry));
            checkpoint.ops.push(Op::Delete { key: self.prefix.assignment(one.key) });
            self.counts.removed += 1;
            if let Some(member) = self.state.member_mut(&one.key.member) {
                member.total -= 1;
                member.primary -= u32::from(one.key.slot == 0);
            }
        }
        let is_quiet = checkpoint.ops.is_empty();
        if promoted {
            self.relocate(&mut checkpoint, &kept[0], 0);
            if let Some(member) = self.state.member_mut(&kept[0].key.member) {
                member.primary += 1;
            }
        }
        if is_quiet {
            self.pack(&mut checkpoint, &kept);
        }
        checkpoint
    }

    fn current(&self, item: &'a str) -> Vec<Current<'a, S>> {
        let found: Vec<_> = self.space.assignments_of(item).collect();
        let all: Vec<_> = found.iter().map(|(key, entry)| (*key, &*entry.value)).collect();
        let consistent: Vec<bool> =
            all.iter().map(|(key, value)| self.schema.consistent(item, key, value, &all)).collect();
        let joined = found.into_iter().zip(consistent);
        let current = joined.map(|((key, entry), consistent)| {
            let damaged = self.space.is_undecodable(&self.prefix.assignment(key));
            Current { key, entry, consistent, damaged }
        });
        current.collect()
    }

    /// Splits removals into those that may happen now, heaviest member first, and those which are kept until enough
    /// other assignments are consistent.
    fn constrain_removals(
        &self,
        mut removals: Vec<Current<'a, S>>,
        kept: &mut Vec<Current<'a, S>>,
        mut consistent: usize,
        replication: usize,
    ) -> Vec<Current<'a, S>> {
        removals.sort_by(|a, b| {
            let load = |one: &Current<'_, S>| self.state.total_load(&one.key.member);
            load(b).cmp(&load(a)).then_with(|| a.key.cmp(b.key))
        });
        let mut removed = Vec::new();
        let mut rest = removals.into_iter();
        for one in rest.by_ref() {
            if consistent < replication || one.consistent && consistent == replication {
                kept.push(one);
                break;
            }
            consistent -= usize::from(one.consistent);
            removed.push(one);
        }
        kept.extend(rest);
        removed
    }

    /// Sorts by slot; if nobody has slot 0, puts the best in front and says that it is to be promoted.
    fn order(&self, kept: &mut [Current<'a, S>]) -> bool {
        kept.sort_by_key(|one| one.key.slot);
        let Some(first) = kept.first() else { return false };
        if first.key.slot == 0 {
            return false;
        }
        let rank = |one: &Current<'_, S>| (!one.consistent, self.state.primary_load(&one.key.member));
        let movable = (0..kept.len()).filter(|at| !kept[*at].damaged);
        let Some(best) = movable.min_by_key(|at| rank(&kept[*at])) else { return false };
        kept[..=best].rotate_right(1);
        true
    }

    /// Adds an assignment, unless the member is full or gone.
    fn add(&mut self, checkpoint: &mut Checkpoint, item: &ItemState, id: &MemberId, slot: u32) -> bool {
        let damaged = self.space.is_undecodable(&self.prefix.member(id));
        let Some(member) = self.state.member_mut(id).filter(|_| !damaged) else { return false };
        if member.total >= member.limit {
            return false;
        }
        member.total += 1;
        member.primary += u32::from(slot == 0);
        let key = AssignmentKey { item: item.id.clone(), member: id.clone(), slot };
        let unchanged = Compare::ModRevision { key: self.prefix.member(id), equals: member.mod_revision };
        checkpoint.compares.push(unchanged);
        checkpoint.ops.push(Op::Put {
            key: self.prefix.assignment(&key),
            value: Default::default(),
            lease: PutLease::Id(member.lease),
        });
        self.counts.added += 1;
        true
    }

    /// Moves the first kept assignment which is not at its place down to it.
    fn pack(&mut self, checkpoint: &mut Checkpoint, kept: &[Current<'a, S>]) {
        let mut misplaced =
            kept.iter().enumerate().skip(1).filter(|(index, one)| one.key.slot as usize != *index);
        if let Some((index, one)) = misplaced.find(|(_, one)| !one.damaged) {
            self.relocate(checkpoint, one, index as u32);
            self.counts.packed += 1;
        }
    }

    /// The same value under the same lease, at another slot.
    fn relocate(&self, checkpoint: &mut Checkpoint, one: &Current<'a, S>, slot: u32) {
        let to = AssignmentKey { slot, ..one.key.clone() };
        checkpoint.compares.push(self.unchanged(one.key, one.entry));
        checkpoint.ops.push(Op::Delete { key: self.prefix.assignment(one.key) });
        checkpoint.ops.push(Op::Put {
            key: self.prefix.assignment(&to),
            value: one.entry.raw.clone(),
            lease: PutLease::Id(one.entry.lease),
        });
    }

    fn unchanged(&self, key: &AssignmentKey, entry: &Entry<S::Assignment>) -> Compare {
        Compare::ModRevision { key: self.prefix.assignment(key), equals: entry.mod_revision }
    }
}

/// Fills transactions with whole checkpoints, each transaction led by the guard.
fn batch(checkpoints: Vec<Checkpoint>, guard: Option<Compare>) -> Vec<Txn> {
    let mut txns: Vec<Txn> = Vec::new();
    for mut checkpoint in checkpoints {
        let fits = txns.last().is_some_and(|txn| {
            txn.compares.len() + checkpoint.compares.len() <= Txn::OPS_MAX
                && txn.then.len() + checkpoint.ops.len() <= Txn::OPS_MAX
        });
        if !fits {
            txns.push(Txn { compares: guard.iter().cloned().collect(), ..Txn::default() });
        }
        let txn = txns.last_mut().expect("one was pushed if there was none");
        txn.compares.append(&mut checkpoint.compares);
        txn.then.append(&mut checkpoint.ops);
    }
    txns
}

#[cfg(test)]
mod tests;
