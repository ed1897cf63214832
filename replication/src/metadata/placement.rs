//! Where the shards' replicas should be, one step at a time. Pure and deterministic: every leader of the metadata finds the same
//! steps in the same state, so that one that takes over goes on where the one before stopped.
//!
//! A replica is *good* when its member is an active ingester. A shard moves by getting a replica too many, then losing one, so
//! it never has fewer good replicas than before. Steps are looked for in this order:
//!
//! 1. A shard without replicas is made, once there are as many active ingesters as replicas.
//! 2. A replica too many is removed: one that is not good (when enough good ones are left), else one in a zone that has
//!    another, else the one on the fullest member.
//! 3. A replica that is missing, or that has to replace one that is not good, is added.
//! 4. A replica is added in a zone that has none, when two share a zone.
//! 5. A replica is added on a member that is emptier, when a fuller one has the shard and zones get no worse.
//! 6. The preferred leader is changed: away from members that are not good, and from those that lead more than others.
//!
//! Steps 4 to 6 each make a sum smaller that no step makes larger (shared zones, then the squares of the members' load over their
//! capacity), so they come to an end.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    NodeId,
    metadata::{INGESTER, MemberRecord, MemberState, ShardRecord, State},
};

/// One step towards the placement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Move {
    /// The shard has no replicas: these make its group. The first is the preferred leader.
    Create {
        /// The shard.
        shard: u32,
        /// Its first members.
        replicas: Vec<NodeId>,
    },
    /// One more replica: a learner, then a voter.
    Add {
        /// The shard.
        shard: u32,
        /// Who gets it.
        node: NodeId,
    },
    /// One replica less.
    Remove {
        /// The shard.
        shard: u32,
        /// Who gives it up.
        node: NodeId,
    },
    /// Another preferred leader.
    Prefer {
        /// The shard.
        shard: u32,
        /// One of its replicas.
        node: NodeId,
    },
}

impl Move {
    /// The shard that moves.
    pub fn shard(&self) -> u32 {
        match self {
            Self::Create { shard, .. }
            | Self::Add { shard, .. }
            | Self::Remove { shard, .. }
            | Self::Prefer { shard, .. } => *shard,
        }
    }
}

/// Bounds of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanOptions {
    /// Shards whose replicas change at once: each new one costs the catching up of a learner. Default 2.
    pub moving_max: usize,
    /// Changes of the preferred leader in one plan. Default 4.
    pub leaders_max: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self { moving_max: 2, leaders_max: 4 }
    }
}

/// The next steps, at most one per shard, in the order of their urgency. None: everything is where it should be, or there are not
/// enough members.
pub fn plan(state: &State, options: &PlanOptions) -> Vec<Move> {
    let Some(cluster) = state.cluster else { return Vec::new() };
    let mut planner = Planner::new(state, cluster.replication as usize);
    let mut moves = Vec::new();
    planner.create(&mut moves);
    let waiting = planner.remove(options.moving_max, &mut moves);
    planner.add(options.moving_max.saturating_sub(waiting), &mut moves);
    planner.prefer(options.leaders_max, &mut moves);
    moves
}

/// What weighs on a member, over its capacity. Compared by the squares' sum, see the module's text.
#[derive(Debug, Clone, Copy)]
struct Load {
    count: u64,
    capacity: u64,
}

impl Load {
    /// Whether one unit less here and one more there makes the sum of squares smaller:
    /// (2a − 1) / capA > (2b + 1) / capB.
    fn should_give_to(self, other: Load) -> bool {
        (2 * self.count).saturating_sub(1) * other.capacity > (2 * other.count + 1) * self.capacity
    }

    /// What one unit more costs, comparable by cross-multiplication.
    fn cost_of_more(self) -> (u64, u64) {
        (2 * self.count + 1, self.capacity)
    }
}

fn fraction(a: (u64, u64), b: (u64, u64)) -> std::cmp::Ordering {
    (a.0 * b.1).cmp(&(b.0 * a.1))
}

struct Planner<'a> {
    members: &'a BTreeMap<NodeId, MemberRecord>,
    replication: usize,
    good: BTreeSet<NodeId>,
    /// As they will be after the steps found so far.
    shards: BTreeMap<u32, Vec<NodeId>>,
    /// Shards that take no further step in this plan.
    busy: BTreeSet<u32>,
    replicas: BTreeMap<NodeId, Load>,
    leaders: BTreeMap<NodeId, Load>,
}

fn is_good(member: &MemberRecord) -> bool {
    member.info.role == INGESTER && member.state == MemberState::Active
}

impl<'a> Planner<'a> {
    fn new(state: &'a State, replication: usize) -> Self {
        let members = &*state.members;
        let shards: BTreeMap<u32, Vec<NodeId>> =
            state.shards.iter().map(|(id, ShardRecord { replicas })| (*id, replicas.clone())).collect();
        let load = |count: usize, m: &MemberRecord| Load {
            count: count as u64,
            capacity: u64::from(m.info.capacity.max(1)),
        };
        let holds = |node: &NodeId| shards.values().filter(|r| r.contains(node)).count();
        let leads = |node: &NodeId| shards.values().filter(|r| r.first() == Some(node)).count();
        Self {
            members,
            replication,
            good: members.iter().filter(|(_, m)| is_good(m)).map(|(id, _)| *id).collect(),
            replicas: members.iter().map(|(id, m)| (*id, load(holds(id), m))).collect(),
            leaders: members.iter().map(|(id, m)| (*id, load(leads(id), m))).collect(),
            busy: BTreeSet::new(),
            shards,
        }
    }

    /// A member without a zone is a zone of its own.
    fn zone(&self, node: NodeId) -> String {
        match self.members.get(&node).map(|m| m.info.zone.as_str()) {
            None | Some("") => format!("\0{node}"),
            Some(zone) => zone.to_owned(),
        }
    }

    /// How many of these replicas are in the node's zone, itself not counted.
    fn neighbours(&self, node: NodeId, replicas: &[NodeId]) -> usize {
        let zone = self.zone(node);
        replicas.iter().filter(|r| **r != node && self.zone(**r) == zone).count()
    }

    fn good_of(&self, replicas: &[NodeId]) -> Vec<NodeId> {
        replicas.iter().copied().filter(|r| self.good.contains(r)).collect()
    }

    fn load(&self, node: NodeId) -> Load {
        self.replicas.get(&node).copied().unwrap_or(Load { count: 0, capacity: 1 })
    }

    fn count(loads: &mut BTreeMap<NodeId, Load>, node: NodeId, more: bool) {
        if let Some(load) = loads.get_mut(&node) {
            load.count = if more { load.count + 1 } else { load.count.saturating_sub(1) };
        }
    }

    /// The best member to get a replica beside these: in a zone of its own, then the emptiest, then the lowest id.
    fn candidate(&self, beside: &[NodeId], not: &[NodeId]) -> Option<NodeId> {
        let free = self.good.iter().copied().filter(|n| !not.contains(n) && !beside.contains(n));
        free.min_by(|a, b| {
            let zones = self.neighbours(*a, beside).cmp(&self.neighbours(*b, beside));
            let loads = || fraction(self.load(*a).cost_of_more(), self.load(*b).cost_of_more());
            zones.then_with(loads).then_with(|| a.cmp(b))
        })
    }

    fn create(&mut self, moves: &mut Vec<Move>) {
        if self.good.len() < self.replication {
            return;
        }
        let empty: Vec<u32> = self.shards.iter().filter(|(_, r)| r.is_empty()).map(|(id, _)| *id).collect();
        for shard in empty {
            let mut replicas = Vec::new();
            while replicas.len() < self.replication
                && let Some(node) = self.candidate(&replicas, &[])
            {
                replicas.push(node);
            }
            // The one that leads least goes first.
            let leads = |n: &NodeId| self.leaders.get(n).map_or((1, 1), |l| l.cost_of_more());
            let first =
                (0..replicas.len()).min_by(|a, b| fraction(leads(&replicas[*a]), leads(&replicas[*b])));
            replicas.swap(0, first.unwrap_or(0));
            replicas.iter().for_each(|n| Self::count(&mut self.replicas, *n, true));
            replicas.first().iter().for_each(|n| Self::count(&mut self.leaders, **n, true));
            self.busy.insert(shard);
            self.shards.insert(shard, replicas.clone());
            moves.push(Move::Create { shard, replicas });
        }
    }

    /// Finds what is to be removed; gives the number of shards that wait for it. One with too many replicas of which too few are
    /// good is not among them: it needs another one first.
    fn remove(&mut self, room: usize, moves: &mut Vec<Move>) -> usize {
        let surplus: Vec<u32> =
            self.shards.iter().filter(|(_, r)| r.len() > self.replication).map(|(id, _)| *id).collect();
        let mut waiting = 0;
        for shard in surplus {
            let Some(node) = self.victim(&self.shards[&shard]) else { continue };
            self.busy.insert(shard);
            waiting += 1;
            if waiting > room {
                continue;
            }
            Self::count(&mut self.replicas, node, false);
            if self.shards[&shard].first() == Some(&node) {
                Self::count(&mut self.leaders, node, false);
            }
            moves.push(Move::Remove { shard, node });
        }
        waiting
    }

    fn victim(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let good = self.good_of(replicas);
        if good.len() < self.replication {
            return None;
        }
        if let Some(bad) = replicas.iter().copied().filter(|r| !self.good.contains(r)).min() {
            return Some(bad);
        }
        good.iter().copied().max_by(|a, b| {
            let zones = self.neighbours(*a, &good).cmp(&self.neighbours(*b, &good));
            let less = |l: Load| ((2 * l.count).saturating_sub(1), l.capacity);
            let loads = || fraction(less(self.load(*a)), less(self.load(*b)));
            // A replica that has been there longer stays.
            let position = |n: &NodeId| replicas.iter().position(|r| r == n);
            zones.then_with(loads).then_with(|| position(a).cmp(&position(b)))
        })
    }

    fn add(&mut self, mut room: usize, moves: &mut Vec<Move>) {
        let steps: [fn(&Self, &[NodeId]) -> Option<NodeId>; 3] =
            [Self::missing, Self::better_zone, Self::emptier];
        for step in steps {
            let shards: Vec<u32> = self.shards.keys().copied().filter(|s| !self.busy.contains(s)).collect();
            for shard in shards {
                if room == 0 {
                    return;
                }
                let Some(node) = step(self, &self.shards[&shard]) else { continue };
                Self::count(&mut self.replicas, node, true);
                self.busy.insert(shard);
                moves.push(Move::Add { shard, node });
                room -= 1;
            }
        }
    }

    fn missing(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let good = self.good_of(replicas);
        if replicas.is_empty() || good.len() >= self.replication {
            return None;
        }
        self.candidate(&good, replicas)
    }

    fn better_zone(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let is_shared = replicas.iter().any(|r| self.neighbours(*r, replicas) > 0);
        let found = self.candidate(replicas, &[]).filter(|_| is_shared)?;
        // Without the worst placed one, the new one must have fewer neighbours than that had.
        let worst = replicas.iter().map(|r| self.neighbours(*r, replicas)).max()?;
        (self.neighbours(found, replicas) < worst).then_some(found)
    }

    /// Looks for the pair of a replica and a member that evens out most.
    fn emptier(&self, replicas: &[NodeId]) -> Option<NodeId> {
        let others = self.good.iter().copied().filter(|n| !replicas.contains(n));
        let mut best: Option<(NodeId, NodeId)> = None;
        for to in others {
            for &from in replicas {
                let rest: Vec<_> = replicas.iter().copied().filter(|r| *r != from).collect();
                if self.neighbours(to, &rest) > self.neighbours(from, &rest)
                    || !self.load(from).should_give_to(self.load(to))
                {
                    continue;
                }
                let is_better = best.is_none_or(|(f, t)| {
                    let to_now = fraction(self.load(to).cost_of_more(), self.load(t).cost_of_more());
                    let from_now = fraction(self.load(f).cost_of_more(), self.load(from).cost_of_more());
                    to_now.then(from_now).is_lt()
                });
                if is_better {
                    best = Some((from, to));
                }
            }
        }
        best.map(|(_, to)| to)
    }

    fn prefer(&mut self, mut room: usize, moves: &mut Vec<Move>) {
        let shards: Vec<u32> = self.shards.keys().copied().filter(|s| !self.busy.contains(s)).collect();
        for shard in shards {
            let replicas = &self.shards[&shard];
            let (Some(&first), true) = (replicas.first(), room > 0) else { continue };
            let lead = |n: &NodeId| self.leaders.get(n).copied().unwrap_or(Load { count: 0, capacity: 1 });
            let others = replicas[1..].iter().copied().filter(|n| self.good.contains(n));
            let Some(best) = others.min_by(|a, b| {
                fraction(lead(a).cost_of_more(), lead(b).cost_of_more()).then_with(|| a.cmp(b))
            }) else {
                continue;
            };
            if self.good.contains(&first) && !lead(&first).should_give_to(lead(&best)) {
                continue;
            }
            Self::count(&mut self.leaders, first, false);
            Self::count(&mut self.leaders, best, true);
            moves.push(Move::Prefer { shard, node: best });
            room -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
