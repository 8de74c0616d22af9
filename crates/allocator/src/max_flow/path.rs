//! Augmenting paths: one more assignment for an item, by moving others out of the way.
//!
//! A path leads from an item to a member, from there with an item that moves away to the next member, and so on to one
//! which has room. Between members lie the items and zones of the flow network; each move passes through those of one
//! item, so paths over members alone find the same flows, and there are few members.
//!
//! The cost of a path is the number of replicas it crowds into a zone, then that of assignments it makes which are not
//! current, less those it takes back; among paths of equal cost the shortest is taken. As long as the costs of the flow
//! are least, no round trip costs less than nothing, and then a shortest path passes no item or zone twice. Beyond fair
//! shares they may not be; if a path then passes one twice, what costs least is crowding alone, or the fewest steps, for
//! which that holds always.

use std::collections::{BTreeSet, VecDeque};

use super::placing::Placing;

/// Which assignments a path may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arcs {
    /// Current ones only.
    Current,
    /// Any.
    All,
}

/// What a path costs, besides one for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Costs {
    /// A replica that is crowded into a zone.
    crowding: i64,
    /// An assignment that is not current.
    moves: i64,
}

impl Costs {
    const STEPS: Costs = Costs { crowding: 0, moves: 0 };
}

/// An item leaves one member for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) item: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// The member which the item is placed on.
    pub(super) entry: usize,
    /// What makes room there, the move to be made last first.
    pub(super) moves: Vec<Step>,
}

impl Placing<'_> {
    /// A path of least cost for one more assignment of `item`. If there is none, the members that could be reached are
    /// dead.
    pub(super) fn find_path(&mut self, item: usize, arcs: Arcs) -> Option<Path> {
        let unit = self.members() as i64 + 1;
        for costs in
            [Costs { crowding: unit * unit, moves: unit }, Costs { crowding: unit, moves: 0 }, Costs::STEPS]
        {
            match Search::new(self, arcs, costs).run(item) {
                Found::Path(path) if costs == Costs::STEPS || self.is_simple(item, &path) => {
                    return Some(path);
                }
                Found::Path(_) | Found::RoundTrip => {}
                Found::None(reached) => {
                    for (dead, reached) in self.dead.iter_mut().zip(reached) {
                        *dead |= reached;
                    }
                    return None;
                }
            }
        }
        None
    }

    /// Whether all moves of a path together leave its items where they may be.
    fn is_simple(&self, item: usize, path: &Path) -> bool {
        path.moves.iter().map(|step| step.item).chain([item]).all(|one| {
            let moves = path.moves.iter().filter(|step| step.item == one);
            let (from, mut to): (Vec<usize>, Vec<usize>) = moves.map(|step| (step.from, step.to)).unzip();
            to.extend((one == item).then_some(path.entry));
            from.len() + to.len() <= 2 || self.is_permitted(one, &from, &to)
        })
    }
}

enum Found {
    Path(Path),
    /// There is none; which members were reached.
    None(Vec<bool>),
    /// Costs are not least: a round trip saves some.
    RoundTrip,
}

/// How a member was reached.
#[derive(Clone, Copy)]
enum Via {
    Entry,
    Move { item: usize, from: usize },
}

/// The cheapest move to each member, if there is one: its cost and the item.
type Row = Vec<Option<(i64, usize)>>;

/// Shortest paths by relaxation, since taking an assignment back costs less than nothing.
struct Search<'a, 'b> {
    placing: &'a Placing<'b>,
    arcs: Arcs,
    costs: Costs,
    reached: Vec<Option<(i64, Via)>>,
    rows: Vec<Option<Row>>,
}

impl<'a, 'b> Search<'a, 'b> {
    fn new(placing: &'a Placing<'b>, arcs: Arcs, costs: Costs) -> Search<'a, 'b> {
        let members = placing.members();
        Search { placing, arcs, costs, reached: vec![None; members], rows: vec![None; members] }
    }

    fn run(mut self, item: usize) -> Found {
        let members = self.placing.members();
        let mut queue = VecDeque::new();
        for member in 0..members {
            if !self.is_entry(item, member) {
                continue;
            }
            self.reached[member] = Some((self.cost(item, None, member), Via::Entry));
            queue.push_back(member);
        }
        let mut is_queued: Vec<bool> = self.reached.iter().map(Option::is_some).collect();
        for _ in 0..=members * members {
            let Some(from) = queue.pop_front() else { return self.finish() };
            is_queued[from] = false;
            for to in self.relax(from) {
                if !std::mem::replace(&mut is_queued[to], true) {
                    queue.push_back(to);
                }
            }
        }
        Found::RoundTrip
    }

    fn is_entry(&self, item: usize, member: usize) -> bool {
        let placing = self.placing;
        let has_arc = self.arcs == Arcs::All || placing.is_current(item, member);
        has_arc && !placing.dead[member] && placing.can_take(item, member)
    }

    /// Of placing an item on `to`, instead of on `from`.
    fn cost(&self, item: usize, from: Option<usize>, to: usize) -> i64 {
        let placing = self.placing;
        let is_new = |member: usize| i64::from(!placing.is_current(item, member));
        let moves = is_new(to) - from.map_or(0, is_new);
        let crowding = if placing.may_crowd() { placing.crowding(item, from, to) } else { 0 };
        crowding * self.costs.crowding + moves * self.costs.moves + 1
    }

    /// Members which are cheaper to reach over `from` than before.
    fn relax(&mut self, from: usize) -> Vec<usize> {
        if self.placing.has_room(from) {
            return Vec::new(); // Paths end here.
        }
        let row = self.rows[from].take().unwrap_or_else(|| self.row(from));
        let (base, _) = self.reached[from].expect("only members that were reached are relaxed");
        let mut cheaper = Vec::new();
        for (to, entry) in row.iter().enumerate() {
            let Some((cost, item)) = *entry else { continue };
            if self.reached[to].is_none_or(|(known, _)| base + cost < known) {
                self.reached[to] = Some((base + cost, Via::Move { item, from }));
                cheaper.push(to);
            }
        }
        self.rows[from] = Some(row);
        cheaper
    }

    /// The cheapest moves away from a member.
    fn row(&self, from: usize) -> Row {
        let placing = self.placing;
        let mut row: Row = vec![None; placing.members()];
        for item in placing.loose.iter().filter(|item| placing.is_placed(**item, from)) {
            for to in &placing.items[*item].current {
                if !placing.dead[*to] && placing.can_move(*item, from, *to) {
                    let cost = self.cost(*item, Some(from), *to);
                    row[*to] = row[*to].into_iter().chain([(cost, *item)]).min();
                }
            }
        }
        if self.arcs == Arcs::All {
            self.complete(&mut row, from, &placing.added[from], 1);
            self.complete(&mut row, from, &placing.kept[from], 1 + self.costs.moves);
        }
        row
    }

    /// Adds moves of `items` to members where they are not now. None costs less than `least`, unless it undoes a crowd.
    fn complete(&self, row: &mut Row, from: usize, items: &BTreeSet<usize>, least: i64) {
        let placing = self.placing;
        let is_least =
            |row: &Row, to: usize| !placing.may_crowd() && row[to].is_some_and(|(known, _)| known <= least);
        let mut open: Vec<usize> =
            (0..row.len()).filter(|to| *to != from && !placing.dead[*to] && !is_least(row, *to)).collect();
        for item in items {
            if open.is_empty() {
                return;
            }
            open.retain(|to| {
                if !placing.is_current(*item, *to) && placing.can_move(*item, from, *to) {
                    let cost = self.cost(*item, Some(from), *to);
                    if row[*to].is_none_or(|(known, _)| cost < known) {
                        row[*to] = Some((cost, *item));
                    }
                }
                !is_least(row, *to)
            });
        }
    }

    fn finish(self) -> Found {
        let ends = (0..self.reached.len()).filter(|member| self.placing.has_room(*member));
        let reached = ends.filter_map(|member| self.reached[member].map(|(cost, _)| (cost, member)));
        let Some((_, mut at)) = reached.min() else {
            return Found::None(self.reached.iter().map(Option::is_some).collect());
        };
        let mut moves = Vec::new();
        while let Some((_, Via::Move { item, from })) = self.reached[at] {
            moves.push(Step { item, from, to: at });
            at = from;
            if moves.len() > self.reached.len() {
                return Found::RoundTrip;
            }
        }
        moves.reverse();
        Found::Path(Path { entry: at, moves })
    }
}
