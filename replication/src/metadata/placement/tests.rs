//! Whatever joins, drains, leaves or moves: steps come to an end, and the end is good.

use proptest::prelude::*;

use super::*;
use crate::{
    ClusterId,
    metadata::{Command, MemberInfo},
};

const SHARDS: u32 = 12;

fn do_it(state: &mut State, command: Command) {
    state.apply(&command).unwrap();
}

fn cluster(replication: u32) -> State {
    let mut state = State::default();
    do_it(&mut state, Command::Init { cluster: ClusterId(1), shards: SHARDS, replication });
    state
}

fn join(state: &mut State, node: u64, zone: &str, capacity: u32) {
    let info = MemberInfo {
        name: format!("n{node}"),
        address: format!("n{node}:1"),
        zone: zone.to_owned(),
        role: INGESTER.to_owned(),
        capacity,
        ..MemberInfo::default()
    };
    do_it(state, Command::Register { node: NodeId(node), info });
    do_it(state, Command::SetMemberState { node: NodeId(node), state: MemberState::Active });
}

fn leave(state: &mut State, node: u64, how: MemberState) {
    do_it(state, Command::SetMemberState { node: NodeId(node), state: how });
}

/// Carries a step out.
fn make(state: &mut State, step: &Move) {
    let shard = step.shard();
    let expected = state.shards[&shard].replicas.clone();
    let mut replicas = expected.clone();
    match step {
        Move::Create { replicas: first, .. } => replicas = first.clone(),
        Move::Add { node, .. } => replicas.push(*node),
        Move::Remove { node, .. } => replicas.retain(|r| r != node),
        Move::Prefer { node, .. } => {
            replicas.retain(|r| r != node);
            replicas.insert(0, *node);
        }
    }
    do_it(state, Command::SetReplicas { shard, expected, replicas });
}

fn good(state: &State, shard: u32) -> usize {
    state.shards[&shard].replicas.iter().filter(|r| is_good(&state.members[r])).count()
}

/// Carries plans out until there is nothing to do, and checks every step. Gives the steps other than changes of the leader.
fn settle(state: &mut State) -> usize {
    let options = PlanOptions::default();
    let mut moved = 0;
    for _ in 0..1000 {
        let steps = plan(state, &options);
        assert_eq!(steps, plan(state, &options), "not deterministic");
        if steps.is_empty() {
            return moved;
        }
        let shards: BTreeSet<u32> = steps.iter().map(Move::shard).collect();
        assert_eq!(shards.len(), steps.len(), "two steps for one shard");
        let replication = state.cluster.unwrap().replication as usize;
        let moving = steps.iter().filter(|s| matches!(s, Move::Add { .. } | Move::Remove { .. })).count();
        assert!(moving <= options.moving_max, "{moving} shards move at once");
        for step in &steps {
            let (shard, before) = (step.shard(), state.shards[&step.shard()].replicas.len());
            let good_before = good(state, shard);
            make(state, step);
            let after = state.shards[&shard].replicas.len();
            let created = matches!(step, Move::Create { .. });
            assert!(created || after.abs_diff(before) <= 1, "{step:?}");
            if matches!(step, Move::Remove { .. }) {
                assert!(good(state, shard) >= replication, "{step:?} leaves too few");
            } else {
                assert!(good(state, shard) >= good_before);
            }
            moved += usize::from(!created && after != before);
        }
    }
    panic!("no end: {:?}", plan(state, &options));
}

fn loads(state: &State, of: impl Fn(&[NodeId], NodeId) -> bool) -> BTreeMap<u64, usize> {
    let good = state.members.iter().filter(|(_, m)| is_good(m)).map(|(id, _)| *id);
    good.map(|n| (n.0, state.shards.values().filter(|s| of(&s.replicas, n)).count())).collect()
}

fn spread(loads: &BTreeMap<u64, usize>) -> usize {
    loads.values().max().unwrap_or(&0) - loads.values().min().unwrap_or(&0)
}

/// What holds whenever nothing is left to do.
fn check_end(state: &State, all_zones_equal: bool) {
    let replication = state.cluster.unwrap().replication as usize;
    let active: Vec<_> = state.members.values().filter(|m| is_good(m)).collect();
    if active.len() < replication {
        return;
    }
    let zones: BTreeSet<_> = active.iter().map(|m| m.info.zone.clone()).collect();
    for (shard, record) in &*state.shards {
        assert_eq!(record.replicas.len(), replication, "shard {shard}");
        assert_eq!(good(state, *shard), replication, "shard {shard}");
        let used: BTreeSet<_> = record.replicas.iter().map(|r| state.members[r].info.zone.clone()).collect();
        let possible = replication.min(zones.len());
        assert!(zones.contains("") || used.len() == possible, "shard {shard} is in {used:?} of {zones:?}");
    }
    if all_zones_equal {
        let held = loads(state, |replicas, n| replicas.contains(&n));
        assert!(spread(&held) <= 1, "replicas {held:?}");
        let led = loads(state, |replicas, n| replicas.first() == Some(&n));
        assert!(spread(&led) <= 2, "leaders {led:?}");
    }
}

#[test]
fn shards_are_made_when_there_are_enough_members_and_spread_over_zones() {
    let mut state = cluster(3);
    for (node, zone) in [(1, "a"), (2, "a"), (3, "b"), (4, "b")] {
        join(&mut state, node, zone, 1);
        if node < 3 {
            assert!(plan(&state, &PlanOptions::default()).is_empty(), "too few members");
        }
    }
    join(&mut state, 5, "c", 1);
    join(&mut state, 6, "c", 1);
    assert_eq!(settle(&mut state), 0, "what is made needs no moves");
    check_end(&state, true);
}

#[test]
fn a_new_member_gets_its_share_and_no_more_moves_than_that() {
    let mut state = cluster(3);
    for node in 1..=3 {
        join(&mut state, node, "", 1);
    }
    settle(&mut state);
    join(&mut state, 4, "", 1);
    // 36 replicas on 4 members are 9 each: 9 replicas move, each in two steps.
    assert_eq!(settle(&mut state), 18);
    check_end(&state, true);
}

#[test]
fn who_drains_keeps_its_shards_until_there_is_somebody_else() {
    let mut state = cluster(3);
    for node in 1..=3 {
        join(&mut state, node, "", 1);
    }
    settle(&mut state);
    leave(&mut state, 2, MemberState::Draining);
    settle(&mut state);
    let held = |state: &State| state.shards.values().filter(|s| s.replicas.contains(&NodeId(2))).count();
    assert_eq!(held(&state), SHARDS as usize);
    assert!(state.shards.values().all(|s| s.replicas[0] != NodeId(2)), "it leads none");
    join(&mut state, 4, "", 1);
    assert_eq!(settle(&mut state), 2 * SHARDS as usize);
    assert_eq!(held(&state), 0);
    check_end(&state, true);
}

#[test]
fn capacity_counts() {
    let mut state = cluster(1);
    join(&mut state, 1, "", 1);
    join(&mut state, 2, "", 3);
    settle(&mut state);
    let held = loads(&state, |replicas, n| replicas.contains(&n));
    assert_eq!(held, BTreeMap::from([(1, 3), (2, 9)]));
}

#[test]
fn the_number_of_moves_at_once_is_bounded() {
    let mut state = cluster(2);
    for node in 1..=3 {
        join(&mut state, node, "", 1);
    }
    settle(&mut state);
    leave(&mut state, 1, MemberState::Left);
    let moves = plan(&state, &PlanOptions { moving_max: 3, leaders_max: 0 });
    assert_eq!(moves.len(), 3);
    assert!(moves.iter().all(|m| matches!(m, Move::Add { .. })), "{moves:?}");
}

#[derive(Debug, Clone)]
enum Event {
    Join {
        zone: usize,
        capacity: u32,
    },
    Drain(prop::sample::Index),
    Leave(prop::sample::Index),
    Return(prop::sample::Index),
    Replication(u32),
    /// A few plans are carried out, then something else happens.
    Steps(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0usize..3, 1u32..3).prop_map(|(zone, capacity)| Event::Join { zone, capacity }),
        2 => any::<prop::sample::Index>().prop_map(Event::Drain),
        2 => any::<prop::sample::Index>().prop_map(Event::Leave),
        1 => any::<prop::sample::Index>().prop_map(Event::Return),
        1 => (1u32..4).prop_map(Event::Replication),
        3 => (1usize..8).prop_map(Event::Steps),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_history_ends_well(events in proptest::collection::vec(event(), 1..25), zones in 1usize..4) {
        let mut state = cluster(3);
        let mut next = 0;
        for event in events {
            let nodes: Vec<u64> = state.members.keys().map(|n| n.0).collect();
            match event {
                Event::Join { zone, capacity } => {
                    next += 1;
                    let zone = if zones == 1 { String::new() } else { format!("z{}", zone % zones) };
                    join(&mut state, next, &zone, capacity);
                }
                Event::Drain(i) if !nodes.is_empty() => leave(&mut state, nodes[i.index(nodes.len())], MemberState::Draining),
                Event::Leave(i) if !nodes.is_empty() => leave(&mut state, nodes[i.index(nodes.len())], MemberState::Left),
                Event::Return(i) if !nodes.is_empty() => leave(&mut state, nodes[i.index(nodes.len())], MemberState::Active),
                Event::Replication(replication) => do_it(&mut state, Command::SetReplication { replication }),
                Event::Steps(n) => {
                    for _ in 0..n {
                        for step in plan(&state, &PlanOptions::default()) {
                            make(&mut state, &step);
                        }
                    }
                }
                _ => {}
            }
        }
        settle(&mut state);
        let capacities: BTreeSet<_> = state.members.values().map(|m| m.info.capacity).collect();
        check_end(&state, zones == 1 && capacities.len() == 1);
    }
}
