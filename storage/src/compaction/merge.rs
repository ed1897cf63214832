//! Merges blocks, series by series, with bounded memory.
//!
//! Each input is read in batches of series; at any time there is one batch per input, one block writer per output
//! window, and the finished outputs.

use std::collections::BTreeMap;

use sextant_model::{Exemplar, HistogramSample, Labels, MetadataTable, MetricMetadata, SeriesBuf};

use crate::{
    BlockFiles, BlockId, BlockOptions, BlockReader, BlockWriter, LogRange, ReadStats, Result,
    block::{SeriesBatch, order},
    merge_sets::{Part, merge_parts},
};

/// Samples of one batch of an input: 16 bytes each in memory.
const BATCH_SAMPLES: usize = 1 << 20;
/// Output windows open at the same time; a job that spans more has larger windows.
const WINDOWS_MAX: i64 = 64;

/// What a merge gives.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// The outputs' level.
    pub level: u8,
    /// Outputs are split at multiples of this, milliseconds; `None` does not split.
    pub window_ms: Option<i64>,
    /// Samples before it are dropped.
    pub cutoff_ms: Option<i64>,
    /// At most so many series in one output.
    pub series_max: usize,
    /// At most so many samples in one output, by a series more or less.
    pub samples_max: u64,
    /// How outputs are written.
    pub block: BlockOptions,
}

/// Merges blocks into new ones. For equal timestamps the block that arrived last ([`crate::BlockMeta::arrival`]) wins.
/// What the readers' tombstones delete of an input is not in the outputs, and hides no row of another input.
/// The outputs' ids are new, made when the merge is done, and their place in the order of arrival is that of the
/// inputs they come from. CPU-bound between reads: run it where it blocks nothing else.
pub async fn merge_blocks(readers: &[BlockReader], options: &MergeOptions) -> Result<Vec<BlockFiles>> {
    let stats = ReadStats::default();
    let mut readers: Vec<&BlockReader> = readers.iter().collect();
    readers.sort_by_key(|r| r.meta().arrival());
    let mut inputs = Vec::with_capacity(readers.len());
    let mut families = MetadataTable::default();
    for &reader in &readers {
        inputs.push(Input::open(reader, &stats).await?);
    }
    for reader in readers.iter().rev() {
        reader.metadata(&stats).await?.iter().for_each(|e| families.add_older(&e.name, &e.metadata));
    }
    let min_t = readers.iter().map(|r| r.meta().min_t).min().unwrap_or(0);
    let max_t = readers.iter().map(|r| r.meta().max_t).max().unwrap_or(0);
    let mut outputs = Outputs {
        window_ms: options.window_ms.map(|w| wide_enough(w, min_t, max_t)),
        options,
        open: BTreeMap::new(),
        done: Vec::new(),
        families,
        readers,
    };
    let mut buf = SeriesBuf::default();
    loop {
        let next = inputs
            .iter()
            .filter_map(Input::labels)
            .min_by(|a, b| order::block_order(a.as_bytes(), b.as_bytes()));
        let Some(labels) = next.cloned() else { break };
        let same: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].labels() == Some(&labels)).collect();
        let parts: Vec<Part<'_>> = same.iter().map(|&i| inputs[i].part()).collect();
        buf.clear();
        merge_parts(&parts, &mut buf);
        let exemplars = merge_exemplars(same.iter().flat_map(|&i| inputs[i].exemplars()));
        let metadata = same.iter().rev().find_map(|&i| inputs[i].metadata());
        let whole = !same.iter().any(|&i| inputs[i].is_cut());
        let key = same.iter().fold(0u64, |key, &i| {
            let target = inputs[i].target().map_or(0, |t| u64::from(t) + 1);
            (key ^ target ^ ((i as u64) << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        outputs.push(&labels, Some(key).filter(|_| whole), &buf, &exemplars, metadata.as_ref(), &same)?;
        for &i in &same {
            inputs[i].advance(&stats).await?;
        }
    }
    outputs.finish()
}

/// Exemplars of all parts in order of time, equal ones once.
fn merge_exemplars<'a>(parts: impl Iterator<Item = &'a Exemplar>) -> Vec<Exemplar> {
    let mut all: Vec<Exemplar> = parts.cloned().collect();
    all.sort_by(|a, b| {
        (a.t, a.labels.as_bytes(), a.v.to_bits()).cmp(&(b.t, b.labels.as_bytes(), b.v.to_bits()))
    });
    all.dedup_by(|a, b| a.t == b.t && a.v.to_bits() == b.v.to_bits() && a.labels == b.labels);
    all
}

/// The window, or the smallest multiple of it that gives few enough of them.
fn wide_enough(window_ms: i64, min_t: i64, max_t: i64) -> i64 {
    let mut w = window_ms.max(1);
    while max_t.div_euclid(w).saturating_sub(min_t.div_euclid(w)) >= WINDOWS_MAX {
        match w.checked_mul(2) {
            Some(wider) => w = wider,
            None => break,
        }
    }
    w
}

/// A block that is read from its first series to its last.
struct Input<'a> {
    reader: &'a BlockReader,
    batch: SeriesBatch,
    /// The current series in the batch.
    at: usize,
    /// The first series after the batch.
    next: u32,
    exemplars: BTreeMap<u32, Vec<Exemplar>>,
}

impl<'a> Input<'a> {
    async fn open(reader: &'a BlockReader, stats: &ReadStats) -> Result<Self> {
        let exemplars = reader.all_exemplars(stats).await?;
        let mut input = Self { reader, batch: SeriesBatch::default(), at: 0, next: 0, exemplars };
        input.fill(stats).await?;
        Ok(input)
    }

    async fn fill(&mut self, stats: &ReadStats) -> Result<()> {
        self.at = 0;
        self.batch = self.reader.batch(self.next, BATCH_SAMPLES, stats).await?;
        self.next += self.batch.set.len() as u32;
        Ok(())
    }

    async fn advance(&mut self, stats: &ReadStats) -> Result<()> {
        self.at += 1;
        if self.at >= self.batch.set.len() {
            self.fill(stats).await?;
        }
        Ok(())
    }

    fn labels(&self) -> Option<&Labels> {
        self.batch.set.labels.get(self.at)
    }

    fn part(&self) -> Part<'_> {
        Part::of(&self.batch.set, self.at)
    }

    fn target(&self) -> Option<u32> {
        self.batch.targets.get(self.at).copied().flatten()
    }

    fn is_cut(&self) -> bool {
        self.batch.cut.get(self.at).copied().unwrap_or(false)
    }

    fn metadata(&self) -> Option<MetricMetadata> {
        self.batch.metadata.get(self.at).cloned().flatten()
    }

    fn exemplars(&self) -> &[Exemplar] {
        let first = self.next - self.batch.set.len() as u32;
        self.exemplars.get(&(first + self.at as u32)).map(Vec::as_slice).unwrap_or_default()
    }
}

struct Outputs<'a> {
    options: &'a MergeOptions,
    window_ms: Option<i64>,
    /// By start of the window.
    open: BTreeMap<i64, Output>,
    done: Vec<BlockFiles>,
    families: MetadataTable,
    readers: Vec<&'a BlockReader>,
}

struct Output {
    writer: BlockWriter,
    /// Which inputs have samples in it.
    from: Vec<bool>,
}

impl Outputs<'_> {
    /// Appends a series' samples to the outputs of their windows.
    fn push(
        &mut self,
        labels: &Labels,
        key: Option<u64>,
        all: &SeriesBuf,
        exemplars: &[Exemplar],
        metadata: Option<&MetricMetadata>,
        from: &[usize],
    ) -> Result<()> {
        let cutoff = self.options.cutoff_ms.unwrap_or(i64::MIN);
        let mut buf = SeriesBuf::default();
        let mut start = cutoff;
        loop {
            let t = all.t.get(all.t.partition_point(|t| *t < start)).copied();
            let h = all.h.get(all.h.partition_point(|h| h.t < start)).map(|h| h.t);
            let Some(first) = t.into_iter().chain(h).min() else { break };
            let window = self.window_ms.map_or(0, |w| first.div_euclid(w).saturating_mul(w));
            let end = self.window_ms.map_or(i64::MAX, |w| window.saturating_add(w - 1));
            slice(all, start, end, &mut buf);
            let exemplars =
                exemplars.iter().filter(|e| cutoff <= e.t && in_window(e.t, window, self.window_ms));
            self.put(window, labels, key, &buf, exemplars.cloned().collect(), metadata, from)?;
            match end.checked_add(1) {
                Some(next) => start = next,
                None => break,
            }
        }
        Ok(())
    }

    fn put(
        &mut self,
        window: i64,
        labels: &Labels,
        key: Option<u64>,
        buf: &SeriesBuf,
        exemplars: Vec<Exemplar>,
        metadata: Option<&MetricMetadata>,
        from: &[usize],
    ) -> Result<()> {
        let full = self.open.get(&window).is_some_and(|o| {
            let samples = o.writer.samples() + buf.len() as u64;
            o.writer.series() >= self.options.series_max.max(1) || samples > self.options.samples_max
        });
        if full && let Some(output) = self.open.remove(&window) {
            self.end(output)?;
        }
        let output = match self.open.entry(window) {
            std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
            std::collections::btree_map::Entry::Vacant(e) => {
                let block = BlockOptions { level: self.options.level, ..self.options.block.clone() };
                let writer = writer_of(block, &self.families)?;
                e.insert(Output { writer, from: vec![false; self.readers.len()] })
            }
        };
        output.writer.push(labels, key, buf, exemplars, metadata)?;
        from.iter().for_each(|&i| output.from[i] = true);
        Ok(())
    }

    fn end(&mut self, output: Output) -> Result<()> {
        let Some(mut files) = output.writer.finish()? else { return Ok(()) };
        let metas =
            || self.readers.iter().zip(&output.from).filter(|(_, from)| **from).map(|(r, _)| r.meta());
        files.meta.seq = metas().map(|m| m.seq).max().unwrap_or(0);
        files.meta.seq_min = metas().map(|m| m.seq_min).min().unwrap_or(0);
        files.meta.log = merge_log(metas().flat_map(|m| &m.log));
        self.done.push(files);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<BlockFiles>> {
        for (_, output) in std::mem::take(&mut self.open) {
            self.end(output)?;
        }
        if self.done.is_empty() && self.readers.iter().all(|r| r.meta().samples == 0) {
            let block = BlockOptions {
                id: BlockId::generate(),
                level: self.options.level,
                ..self.options.block.clone()
            };
            let writer = writer_of(block, &self.families)?;
            self.end(Output { writer, from: vec![true; self.readers.len()] })?;
        }
        // A merge may take longer than a block's id may be old at its commit.
        for files in &mut self.done {
            files.meta.id = BlockId::generate();
        }
        Ok(self.done)
    }
}

/// A block that has families' metadata, before that of series: what series know may be older.
fn writer_of(options: BlockOptions, families: &MetadataTable) -> Result<BlockWriter> {
    let mut writer = BlockWriter::new(options)?;
    families.iter().for_each(|(name, m)| writer.push_family(name, m));
    Ok(writer)
}

fn in_window(t: i64, start: i64, window_ms: Option<i64>) -> bool {
    window_ms.is_none_or(|w| t.div_euclid(w).saturating_mul(w) == start)
}

fn slice(all: &SeriesBuf, start: i64, end: i64, out: &mut SeriesBuf) {
    out.clear();
    let (a, b) = (all.t.partition_point(|t| *t < start), all.t.partition_point(|t| *t <= end));
    out.t.extend_from_slice(&all.t[a..b]);
    out.v.extend_from_slice(&all.v[a..b]);
    if !all.start.is_empty() {
        out.start.extend_from_slice(&all.start[a..b]);
    }
    let bound = |to: fn(&HistogramSample, i64) -> bool, at: i64| all.h.partition_point(|h| to(h, at));
    let (a, b) = (bound(|h, at| h.t < at, start), bound(|h, at| h.t <= at, end));
    out.h.extend_from_slice(&all.h[a..b]);
}

fn merge_log<'a>(ranges: impl Iterator<Item = &'a LogRange>) -> Vec<LogRange> {
    let mut by_shard: BTreeMap<u32, LogRange> = BTreeMap::new();
    for r in ranges {
        let e = by_shard.entry(r.shard).or_insert(*r);
        e.from = e.from.min(r.from);
        e.to = e.to.max(r.to);
    }
    by_shard.into_values().collect()
}
