//! Which faults happen when: a schedule that depends on the seed and on the cluster's processes alone.

use std::{fmt, time::Duration};

use clap::ValueEnum;

use super::{
    cluster::{Cluster, Process},
    random::Random,
};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// No fault at all.
    None,
    /// `kill -9`, and a new start some seconds later.
    Kill,
    /// SIGSTOP, and SIGCONT some seconds later.
    Stop,
    /// The network between two processes, or between one and all others, carries nothing: both ways or one.
    Cut,
    /// An ingester's disk is full.
    DiskFull,
    /// The object store answers 503, resets connections, or does not answer.
    StoreRefuse,
    /// The object store takes up to two seconds longer.
    StoreSlow,
    /// The object store does what it is asked to, and its answers are lost.
    StoreLose,
    /// The object store's listings lack what is new.
    StoreStale,
    /// A process's clock jumps, and jumps back.
    ClockStep,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the process of this name.
    Kill(String),
    /// To the process of this name.
    Stop(String),
    /// What the first of a pair sends does not arrive at the second.
    Cut(Vec<(String, String)>),
    /// The disk of the process of this name.
    DiskFull(String),
    /// A mode of the proxy in front of the object store.
    Store(String),
    /// The process of this name, by so many seconds.
    Clock(String, i64),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(p) => write!(f, "kill -9 {p}"),
            Self::Stop(p) => write!(f, "stop {p}"),
            Self::Cut(pairs) if pairs.len() > 2 => write!(f, "cut {} off from all others", pairs[0].0),
            Self::Cut(pairs) => {
                let text: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} → {b}")).collect();
                write!(f, "cut {}", text.join(", "))
            }
            Self::DiskFull(p) => write!(f, "fill the disk of {p}"),
            Self::Store(mode) => write!(f, "object store: {mode}"),
            Self::Clock(p, seconds) => write!(f, "clock of {p} {seconds:+} s"),
        }
    }
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins, after the start of the run.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What it is.
    pub action: Action,
}

/// Why a kind of fault can't happen in this cluster; `None` where it can.
pub fn left_out(kind: Kind, cluster: &Cluster) -> Option<&'static str> {
    let any = |has: fn(&Process) -> bool| cluster.processes.iter().any(|p| p.is_sextant() && has(p));
    let (possible, why) = match kind {
        Kind::None | Kind::Kill | Kind::Stop => return None,
        Kind::Cut => {
            (any(|p| p.netns.is_some()), "the processes have no network namespaces (xtask cluster --netns)")
        }
        Kind::DiskFull => (
            any(|p| p.disk.is_some()),
            "no process has a disk of its own (xtask cluster --ingester-disk 256m)",
        ),
        Kind::ClockStep => (
            any(|p| p.clock_file.is_some()),
            "the processes' clocks can't be moved (xtask cluster --clock-steps)",
        ),
        Kind::StoreRefuse | Kind::StoreSlow | Kind::StoreLose | Kind::StoreStale => {
            (cluster.object_store.control.is_some(), "no proxy is in front of the object store")
        }
    };
    (!possible).then_some(why)
}

/// Pauses between faults and their length, in milliseconds: the least, and what is added at random.
const PAUSE_MS: (u64, u64) = (1000, 2000);
const LASTS_MS: (u64, u64) = (1000, 5000);
/// One fault in so many is three times as long, where the run has time for it.
const LONG_ONE_IN: usize = 6;
const TIME_FOR_LONG: Duration = Duration::from_secs(300);
/// What is left of the run behind the last fault.
const CALM: Duration = Duration::from_secs(3);

/// The faults of a run, one after the other: every kind in turn, in an order of the seed.
pub fn schedule(seed: u64, duration: Duration, kinds: &[Kind], cluster: &Cluster) -> Vec<Fault> {
    let mut random = Random::new(seed, 1);
    let mut kinds: Vec<Kind> =
        kinds.iter().copied().filter(|k| *k != Kind::None && left_out(*k, cluster).is_none()).collect();
    let mut faults = Vec::new();
    let mut at = Duration::ZERO;
    for i in 0.. {
        if kinds.is_empty() {
            break;
        }
        if i % kinds.len() == 0 {
            random.shuffle(&mut kinds);
        }
        let mut some = |(least, more): (u64, u64)| Duration::from_millis(least + random.next() % more);
        let (pause, mut lasts) = (some(PAUSE_MS), some(LASTS_MS));
        if duration >= TIME_FOR_LONG && random.once_in(LONG_ONE_IN) {
            lasts *= 3;
        }
        at += pause;
        if at + lasts + CALM > duration {
            break;
        }
        if let Some(action) = action(kinds[i % kinds.len()], cluster, &mut random) {
            faults.push(Fault { at, lasts, action });
            at += lasts;
        }
    }
    faults
}

fn action(kind: Kind, cluster: &Cluster, random: &mut Random) -> Option<Action> {
    let processes = |fits: &dyn Fn(&Process) -> bool| -> Vec<&Process> {
        cluster.processes.iter().filter(|p| fits(p)).collect()
    };
    let one = |random: &mut Random, fits: &dyn Fn(&Process) -> bool| {
        random.pick(&processes(&|p| p.is_sextant() && fits(p))).map(|p| p.name.clone())
    };
    Some(match kind {
        Kind::None => return None,
        Kind::Kill => Action::Kill(one(random, &|_| true)?),
        Kind::Stop => Action::Stop(one(random, &|_| true)?),
        Kind::Cut => Action::Cut(cut(&processes(&|p| p.netns.is_some()), random)?),
        Kind::DiskFull => Action::DiskFull(one(random, &|p| p.disk.is_some())?),
        Kind::StoreRefuse => Action::Store(random.pick(&["refuse", "reset", "hang"])?.to_string()),
        Kind::StoreSlow => Action::Store(format!("delay {}", 200 + random.below(1800))),
        Kind::StoreLose => Action::Store("lose".to_owned()),
        Kind::StoreStale => Action::Store("stale".to_owned()),
        Kind::ClockStep => {
            let seconds = 1 + random.below(900) as i64;
            let name = one(random, &|p| p.clock_file.is_some())?;
            Action::Clock(name, if random.once_in(2) { -seconds } else { seconds })
        }
    })
}

/// Roles that talk to each other.
const LINKS: [(&str, &str); 6] = [
    ("ingester", "ingester"),
    ("distributor", "ingester"),
    ("querier", "ingester"),
    ("querier", "querier"),
    ("ingester", "object_store"),
    ("compactor", "object_store"),
];

fn cut(processes: &[&Process], random: &mut Random) -> Option<Vec<(String, String)>> {
    let name = |p: &Process| p.name.clone();
    if random.once_in(3) {
        // One process and all others.
        let sextant: Vec<_> = processes.iter().filter(|p| p.is_sextant()).collect();
        let alone = random.pick(&sextant)?;
        let others = processes.iter().filter(|p| p.netns != alone.netns);
        return Some(others.flat_map(|o| [(name(alone), name(o)), (name(o), name(alone))]).collect());
    }
    let mut links = Vec::new();
    for (from, to) in LINKS {
        for a in processes.iter().filter(|p| p.plays(from)) {
            for b in processes.iter().filter(|p| p.plays(to) && p.netns != a.netns) {
                links.push((name(a), name(b)));
            }
        }
    }
    let (a, b) = random.pick(&links)?.clone();
    Some(match random.below(4) {
        0 => vec![(a, b)],
        1 => vec![(b, a)],
        _ => vec![(a.clone(), b.clone()), (b, a)],
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::cluster::example, *};

    const ALL: &[Kind] = &[
        Kind::Kill,
        Kind::Stop,
        Kind::Cut,
        Kind::DiskFull,
        Kind::StoreRefuse,
        Kind::StoreSlow,
        Kind::StoreLose,
        Kind::StoreStale,
        Kind::ClockStep,
    ];

    #[test]
    fn a_seed_gives_the_same_faults_one_after_the_other_and_every_kind() {
        let cluster = example(Path::new("/x"));
        let hour = Duration::from_secs(3600);
        let faults = schedule(7, hour, ALL, &cluster);
        assert_eq!(faults, schedule(7, hour, ALL, &cluster));
        assert_ne!(faults, schedule(8, hour, ALL, &cluster));
        assert!(faults.len() > 300);
        for two in faults.windows(2) {
            assert!(two[0].at + two[0].lasts < two[1].at);
        }
        let last = faults.last().unwrap();
        assert!(last.at + last.lasts + CALM <= hour);
        let words = |f: &Fault| f.action.to_string().split(' ').take(1).collect::<String>();
        let first: std::collections::BTreeSet<String> = faults[..ALL.len()].iter().map(words).collect();
        assert_eq!(first.len(), 6, "four kinds are the object store's: {first:?}");
        // One way, both ways, and one process alone.
        let mut cuts: Vec<usize> = faults
            .iter()
            .filter_map(|f| if let Action::Cut(p) = &f.action { Some(p.len()) } else { None })
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        assert_eq!(cuts, [1, 2, 16]);
    }

    #[test]
    fn what_the_cluster_can_not_have_is_left_out_with_its_reason() {
        let mut cluster = example(Path::new("/x"));
        cluster.object_store.control = None;
        for p in &mut cluster.processes {
            (p.netns, p.disk, p.clock_file) = (None, None, None);
        }
        let possible: Vec<Kind> = ALL.iter().copied().filter(|k| left_out(*k, &cluster).is_none()).collect();
        assert_eq!(possible, [Kind::Kill, Kind::Stop]);
        assert!(schedule(1, Duration::from_secs(60), &ALL[2..], &cluster).is_empty());
        assert!(schedule(1, Duration::from_secs(60), &[Kind::None], &cluster).is_empty());
        assert!(schedule(1, Duration::from_secs(2), ALL, &cluster).is_empty());
    }
}
