//! One slice of items and where they are placed so far, filled level by level.

use std::collections::BTreeSet;

use super::Zones;
use super::path::{Arcs, Path};
use crate::solver::ProblemItem;

/// Loads of members are compared in steps of this part of their capacity; within a step, items spread by their names.
/// So items which share one member do not all share the others too, and the work of a dead member goes to many.
const LOAD_STEPS: u64 = 8;

/// What members and zones take.
pub(super) struct Level {
    /// Assignments of each member.
    pub(super) caps: Vec<u32>,
    /// Whether no zone may have all replicas of an item.
    pub(super) spread: bool,
}

/// What is wrong with where items are placed, each weighing more than all that follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Shortcomings {
    /// Assignments that are wanted.
    missing: usize,
    /// Items with all replicas in one zone, although there are others.
    crowded: usize,
    /// Assignments beyond fair shares.
    unfair: usize,
}

/// See the module. Items and members are named by their index.
pub(super) struct Placing<'a> {
    pub(super) items: &'a [ProblemItem],
    zones: &'a Zones,
    level: Level,
    used: Vec<u32>,
    /// Members of each item.
    places: Vec<Vec<usize>>,
    /// Items of each member which it has now and keeps.
    pub(super) kept: Vec<BTreeSet<usize>>,
    /// Items of each member which are new to it.
    pub(super) added: Vec<BTreeSet<usize>>,
    /// Items with a current member that they are not placed on, though it takes assignments.
    pub(super) loose: BTreeSet<usize>,
    /// Members from which no path leads to one with room, at this level and with the arcs that are looked at. Later
    /// paths do not change that: none of them enters this set, for none would leave it.
    pub(super) dead: Vec<bool>,
    /// Whether a path has displaced a kept assignment.
    has_displaced: bool,
}

impl<'a> Placing<'a> {
    pub(super) fn new(items: &'a [ProblemItem], zones: &'a Zones) -> Placing<'a> {
        let members = zones.of.len();
        Placing {
            items,
            zones,
            level: Level { caps: vec![0; members], spread: true },
            used: vec![0; members],
            places: vec![Vec::new(); items.len()],
            kept: vec![BTreeSet::new(); members],
            added: vec![BTreeSet::new(); members],
            loose: BTreeSet::new(),
            dead: vec![false; members],
            has_displaced: false,
        }
    }

    /// Assignments of each member.
    pub(super) fn used(&self) -> &[u32] {
        &self.used
    }

    /// Items and the members they are placed on.
    pub(super) fn places(&self) -> impl Iterator<Item = (&ProblemItem, &[usize])> {
        self.items.iter().zip(self.places.iter().map(Vec::as_slice))
    }

    /// Whether an item wants more than it has.
    pub(super) fn is_short(&self) -> bool {
        (0..self.items.len()).any(|item| self.wants_more(item))
    }

    /// Places as much as `level` permits. It must permit all that was placed before.
    pub(super) fn fill(&mut self, level: Level) {
        self.level = level;
        if !self.is_short() {
            return;
        }
        (0..self.items.len()).for_each(|item| self.note_loose(item));
        self.keep_current();
        self.dead.fill(false);
        for item in self.loose.clone() {
            while self.wants_more(item) && self.augment(item, Arcs::Current) {}
        }
        self.dead.fill(false);
        for item in 0..self.items.len() {
            while self.wants_more(item) && self.place_another(item) {}
        }
    }

    /// Goes back to current assignments, if these are no worse in all that weighs more than movement. Within fair shares
    /// and zones they are kept anyway; beyond, other paths may have led to what is as bad.
    pub(super) fn stay_if_no_worse(&mut self, fair: &[u32], caps: Vec<u32>) {
        let found = self.shortcomings(fair);
        if found == Shortcomings::default() {
            return;
        }
        let mut unmoved = Placing::new(self.items, self.zones);
        unmoved.level = Level { caps, spread: false };
        unmoved.keep_current();
        if unmoved.shortcomings(fair) <= found {
            *self = unmoved;
        }
    }

    fn shortcomings(&self, fair: &[u32]) -> Shortcomings {
        let mut found = Shortcomings::default();
        for (item, places) in self.places.iter().enumerate() {
            found.missing += self.items[item].replication as usize - places.len();
            let is_crowded = |member: &usize| self.in_zone(item, self.zones.of[*member]) > self.spread(item);
            found.crowded += usize::from(places.iter().any(is_crowded));
        }
        found.unfair =
            self.used.iter().zip(fair).map(|(used, fair)| used.saturating_sub(*fair) as usize).sum();
        found
    }

    /// Places items on current members where these have room: all primaries first, since to move one interrupts more.
    fn keep_current(&mut self) {
        let rounds = self.items.iter().map(|item| item.current.len()).max().unwrap_or(0);
        for round in 0..rounds {
            for item in 0..self.items.len() {
                if let Some(member) = self.items[item].current.get(round).copied()
                    && self.wants_more(item)
                    && self.has_room(member)
                    && self.can_take(item, member)
                {
                    self.place(item, member);
                }
            }
        }
    }

    fn place_another(&mut self, item: usize) -> bool {
        // A member with room is as good as any path as long as nothing was displaced, and always for an item that has
        // no current member to return to (see the movement bound of the parent module).
        let is_direct = !self.has_displaced || !self.loose.contains(&item);
        match self.best(item).filter(|_| is_direct) {
            Some(member) => {
                self.place(item, member);
                true
            }
            None => self.augment(item, Arcs::All),
        }
    }

    fn augment(&mut self, item: usize, arcs: Arcs) -> bool {
        let Some(Path { entry, moves }) = self.find_path(item, arcs) else { return false };
        for step in moves.into_iter().rev() {
            self.has_displaced |=
                self.is_current(step.item, step.from) && !self.is_current(step.item, step.to);
            self.unplace(step.item, step.from);
            self.place(step.item, step.to);
        }
        self.place(item, entry);
        true
    }

    /// The member with room which is best for one more assignment of `item`: in a zone which has it now, else in one
    /// which has less than its even part, then the least loaded.
    fn best(&self, item: usize) -> Option<usize> {
        let name = name_hash(&self.items[item].id);
        let rank = |member: usize| (self.page(item, member), scatter(name, member));
        let load =
            |member: usize| u64::from(self.used[member]) * LOAD_STEPS / u64::from(self.level.caps[member]);
        let candidates =
            (0..self.used.len()).filter(|member| self.has_room(*member) && self.can_take(item, *member));
        candidates.min_by(|a, b| {
            let ((page_a, scatter_a), (page_b, scatter_b)) = (rank(*a), rank(*b));
            let by_load = || load(*a).cmp(&load(*b));
            page_a.cmp(&page_b).then_with(by_load).then_with(|| scatter_a.cmp(&scatter_b))
        })
    }

    fn page(&self, item: usize, member: usize) -> u8 {
        let ProblemItem { current, replication, .. } = &self.items[item];
        let zone = self.zones.of[member];
        let now = current.iter().filter(|other| self.zones.of[**other] == zone).count();
        let placed = self.in_zone(item, zone);
        let even = (*replication as usize).div_ceil(self.zones.count.max(1));
        match placed {
            _ if placed < now.min(self.spread(item)) => 0,
            _ if placed < even => 1,
            _ => 2,
        }
    }

    fn place(&mut self, item: usize, member: usize) {
        assert!(self.has_room(member) && !self.places[item].contains(&member), "a member takes an item once");
        self.places[item].push(member);
        self.used[member] += 1;
        let is_current = self.is_current(item, member);
        let on = if is_current { &mut self.kept } else { &mut self.added };
        on[member].insert(item);
        self.note_loose(item);
    }

    fn unplace(&mut self, item: usize, member: usize) {
        self.places[item].retain(|other| *other != member);
        self.used[member] -= 1;
        self.kept[member].remove(&item);
        self.added[member].remove(&item);
        self.note_loose(item);
    }

    fn note_loose(&mut self, item: usize) {
        if self.items[item].current.iter().any(|member| self.takes_any(item, *member)) {
            self.loose.insert(item);
        } else {
            self.loose.remove(&item);
        }
    }

    pub(super) fn members(&self) -> usize {
        self.used.len()
    }

    pub(super) fn wants_more(&self, item: usize) -> bool {
        self.places[item].len() < self.items[item].replication as usize
    }

    pub(super) fn has_room(&self, member: usize) -> bool {
        self.used[member] < self.level.caps[member]
    }

    pub(super) fn is_current(&self, item: usize, member: usize) -> bool {
        self.items[item].current.contains(&member)
    }

    pub(super) fn is_placed(&self, item: usize, member: usize) -> bool {
        self.places[item].contains(&member)
    }

    /// Whether `item` may be placed on `member` as well, room apart.
    pub(super) fn can_take(&self, item: usize, member: usize) -> bool {
        let zone = self.zones.of[member];
        self.takes_any(item, member) && self.in_zone(item, zone) < self.zone_cap(item)
    }

    /// Whether `item` may be placed on `to` instead of `from`, room apart.
    pub(super) fn can_move(&self, item: usize, from: usize, to: usize) -> bool {
        let is_same_zone = self.zones.of[from] == self.zones.of[to];
        if is_same_zone { self.takes_any(item, to) } else { self.can_take(item, to) }
    }

    fn takes_any(&self, item: usize, member: usize) -> bool {
        self.level.caps[member] > 0 && !self.is_placed(item, member)
    }

    fn in_zone(&self, item: usize, zone: usize) -> usize {
        self.places[item].iter().filter(|member| self.zones.of[**member] == zone).count()
    }

    /// Replicas that a zone takes at this level.
    fn zone_cap(&self, item: usize) -> usize {
        if self.level.spread { self.spread(item) } else { self.items[item].replication as usize }
    }

    /// Replicas that a zone should have at most.
    fn spread(&self, item: usize) -> usize {
        let replication = self.items[item].replication as usize;
        if self.zones.count > 1 { replication.saturating_sub(1).max(1) } else { replication }
    }

    /// Whether zones take more than they should.
    pub(super) fn may_crowd(&self) -> bool {
        !self.level.spread
    }

    /// By how much a placement on `to`, instead of one on `from`, makes zones have more than they should.
    pub(super) fn crowding(&self, item: usize, from: Option<usize>, to: usize) -> i64 {
        let (spread, zone) = (self.spread(item), self.zones.of[to]);
        let left = from.map(|from| self.zones.of[from]);
        if left == Some(zone) {
            return 0;
        }
        let leaves_crowd = left.is_some_and(|left| self.in_zone(item, left) > spread);
        i64::from(self.in_zone(item, zone) >= spread) - i64::from(leaves_crowd)
    }

    /// Whether an item would be where it may be, without `from` and with `to`.
    pub(super) fn is_permitted(&self, item: usize, from: &[usize], to: &[usize]) -> bool {
        let stay = self.places[item].iter().filter(|member| !from.contains(member));
        let mut places: Vec<usize> = stay.chain(to).copied().collect();
        places.sort_unstable();
        let zone = |member: &usize| self.zones.of[*member];
        let in_zone = |at: &usize| places.iter().filter(|other| zone(other) == zone(at)).count();
        let is_distinct = places.windows(2).all(|pair| pair[0] != pair[1]);
        is_distinct && places.iter().all(|at| in_zone(at) <= self.zone_cap(item))
    }
}

/// FNV-1a.
fn name_hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// An order of members that differs from name to name.
fn scatter(name: u64, member: usize) -> u64 {
    let mixed =
        (name ^ (member as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 32)
}
