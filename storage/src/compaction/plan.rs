//! Which blocks to merge. Pure: the same manifest, time and options give the same jobs.
//!
//! ## What must hold
//!
//! For equal series and timestamps the block that arrived later wins, and a merged block has one place in the order of
//! arrival, `seq_min..=seq`. A block between two merged ones that overlaps them in time would change its place:
//!
//! ```text
//! A (seq 1)  B (seq 2)  C (seq 3)   all hold series x at time t
//! merge A and C: (seq 1..3).  B is older than "3": C wins, right.  But where C has no sample at t, A wins over B: wrong.
//! ```
//! So a job takes every block that overlaps it in time and lies between its blocks in order of arrival, or is not made.

use std::collections::{BTreeSet, HashSet};

use super::CompactionOptions;
use crate::{BlockId, BlockMeta, Manifest};

/// One unit of work. Jobs of one plan have no block in common, so they may run at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompactionJob {
    /// The blocks it takes out of the manifest.
    pub inputs: Vec<BlockId>,
    /// What comes in their place.
    pub kind: JobKind,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// Merges the inputs into blocks of a level, split at multiples of a window.
    Merge {
        /// The outputs' level.
        level: u8,
        /// Their window, milliseconds.
        window_ms: i64,
        /// Samples before it are dropped.
        cutoff_ms: Option<i64>,
    },
    /// Drops the inputs: all their samples are older than the retention.
    Expire,
    /// Writes the one input again without what tombstones delete of it.
    Rewrite {
        /// Samples before it are dropped too.
        cutoff_ms: Option<i64>,
    },
}

/// The jobs that a manifest gives at a time.
pub fn plan(manifest: &Manifest, now_ms: i64, options: &CompactionOptions) -> Vec<CompactionJob> {
    let mut jobs = Vec::new();
    let mut used: HashSet<BlockId> = HashSet::new();
    let cutoff_ms = options.retention_ms.map(|r| now_ms.saturating_sub(r));
    if let Some(cutoff) = cutoff_ms {
        let inputs: Vec<BlockId> =
            manifest.blocks.iter().filter(|b| b.max_t < cutoff).map(|b| b.id).collect();
        if !inputs.is_empty() {
            used.extend(&inputs);
            jobs.push(CompactionJob { inputs, kind: JobKind::Expire });
        }
    }
    // From the largest window down: data that is old already goes straight to its last level.
    for (i, &window_ms) in options.windows_ms.iter().enumerate().rev() {
        if window_ms <= 0 {
            continue;
        }
        let level = u8::try_from(i + 1).unwrap_or(u8::MAX);
        let lower = manifest.blocks.iter().filter(|b| b.level < level);
        let starts: BTreeSet<i64> = lower
            .flat_map(|b| [b.min_t, b.max_t])
            .map(|t| t.div_euclid(window_ms).saturating_mul(window_ms))
            .collect();
        for start in starts {
            let chosen = choose(manifest, start, window_ms, level, now_ms, options, &used);
            if !chosen.is_empty() {
                let inputs: Vec<BlockId> = chosen.iter().map(|b| b.id).collect();
                used.extend(&inputs);
                jobs.push(CompactionJob { inputs, kind: JobKind::Merge { level, window_ms, cutoff_ms } });
            }
        }
    }
    jobs.retain(|job| {
        let inputs = || job.inputs.iter().filter_map(|id| manifest.block(*id));
        job.kind == JobKind::Expire || !manifest.is_divided(inputs(), now_ms)
    });
    jobs.extend(rewrites(manifest, now_ms, cutoff_ms, options.tombstone_delay_ms, &used));
    jobs
}

/// The jobs that apply all tombstones to the blocks, whatever their age.
pub fn plan_deletions(manifest: &Manifest, now_ms: i64, options: &CompactionOptions) -> Vec<CompactionJob> {
    let cutoff_ms = options.retention_ms.map(|r| now_ms.saturating_sub(r));
    rewrites(manifest, i64::MAX, cutoff_ms, 0, &HashSet::new()).collect()
}

/// Blocks with tombstones that have waited long enough. One block at a time: its place in the order of arrival stays.
fn rewrites<'a>(
    manifest: &'a Manifest,
    now_ms: i64,
    cutoff_ms: Option<i64>,
    delay_ms: i64,
    used: &'a HashSet<BlockId>,
) -> impl Iterator<Item = CompactionJob> + 'a {
    let due = move |b: &BlockMeta| {
        let mut old =
            manifest.tombstones.iter().filter(|t| now_ms.saturating_sub(t.id.created_ms()) >= delay_ms);
        old.any(|t| t.applies_to(b))
    };
    let blocks = manifest.blocks.iter().filter(move |b| !used.contains(&b.id) && due(b));
    blocks.map(move |b| CompactionJob { inputs: vec![b.id], kind: JobKind::Rewrite { cutoff_ms } })
}

/// The blocks to merge in one window; none where there is nothing to gain yet.
fn choose<'a>(
    manifest: &'a Manifest,
    start: i64,
    window_ms: i64,
    level: u8,
    now_ms: i64,
    options: &CompactionOptions,
    used: &HashSet<BlockId>,
) -> Vec<&'a BlockMeta> {
    let end = start.saturating_add(window_ms - 1);
    let over = end.saturating_add(options.settle_ms) < now_ms || (options.force && level == 1);
    let mut here: Vec<&BlockMeta> =
        manifest.blocks.iter().filter(|b| b.level <= level && b.overlaps(start, end)).collect();
    if here.iter().any(|b| used.contains(&b.id)) {
        return Vec::new();
    }
    here.sort_by_key(|b| b.arrival());
    let lower: Vec<&BlockMeta> = here.iter().copied().filter(|b| b.level < level).collect();
    let many = level == 1 && lower.len() >= options.open_window_blocks;
    if !over && !many {
        return Vec::new();
    }
    let samples = |blocks: &[&BlockMeta]| blocks.iter().map(|b| b.samples).sum::<u64>();
    let (few, all) = (samples(&lower), samples(&here));
    // A large block is not written again for a little that came late.
    let worth = options.force || lower.len() >= options.open_window_blocks || few.saturating_mul(10) >= all;
    let mut chosen = if worth && all <= options.job_samples_max { here } else { lower };
    while samples(&chosen) > options.job_samples_max && chosen.len() > 1 {
        chosen.pop();
    }
    if !close(manifest, &mut chosen, level, options, used) || chosen.len() < 2 {
        return Vec::new();
    }
    chosen
}

/// Adds the blocks that must come along, see the module's documentation; `false` where one may not.
fn close<'a>(
    manifest: &'a Manifest,
    chosen: &mut Vec<&'a BlockMeta>,
    level: u8,
    options: &CompactionOptions,
    used: &HashSet<BlockId>,
) -> bool {
    loop {
        let Some(first) = chosen.iter().map(|b| b.seq_min).min() else { return true };
        let last = chosen.iter().map(|b| b.seq).max().unwrap_or(first);
        let min_t = chosen.iter().map(|b| b.min_t).min().unwrap_or(0);
        let max_t = chosen.iter().map(|b| b.max_t).max().unwrap_or(0);
        let between = manifest.blocks.iter().find(|b| {
            b.overlaps(min_t, max_t)
                && b.seq >= first
                && b.seq_min <= last
                && !chosen.iter().any(|c| c.id == b.id)
                // Blocks of one flush, or of one merge, have no series in common.
                && !chosen.iter().any(|c| (c.seq_min, c.seq) == (b.seq_min, b.seq) && (first, last) == (b.seq_min, b.seq))
        });
        let Some(between) = between else { return true };
        let samples = chosen.iter().map(|b| b.samples).sum::<u64>().saturating_add(between.samples);
        if between.level > level || used.contains(&between.id) || samples > options.job_samples_max {
            return false;
        }
        chosen.push(between);
        chosen.sort_by_key(|b| b.arrival());
    }
}
