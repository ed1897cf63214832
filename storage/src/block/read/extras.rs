//! Histograms, exemplars and metadata.

use std::collections::BTreeMap;

use arrow_array::{
    Array, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use roaring::RoaringBitmap;
use sextant_model::{
    Exemplar, Histogram, HistogramSample, Labels, MetricMetadata, MetricType, ResetHint, SeriesSet, Span,
};
use sextant_proto::{ExemplarSeries, MetadataEntry};

use super::BlockReader;
use crate::{
    Result,
    block::{
        opened::{decode_group, group_starts, int_bounds, row_group_range},
        order,
        stats::{BlockSelect, ReadStats},
        tables::names,
    },
};

impl BlockReader {
    /// Reads the histograms at `wanted` (first row and number, per series of `set`), puts those in the range into
    /// `set` and drops series that are left without a sample.
    pub(super) async fn put_histograms(
        &self,
        wanted: &[(u64, u64)],
        select: &BlockSelect,
        stats: &ReadStats,
        set: &mut SeriesSet,
    ) -> Result<()> {
        let bad = |e: String| self.objects.nonsense(names::HISTOGRAMS, e);
        let footer = self.opened.histograms.as_ref().ok_or_else(|| bad("the table is missing".into()))?;
        let starts = group_starts(footer);
        // In order of rows: groups follow each other, and so do the rows of each.
        let mut read: Vec<(u64, Option<HistogramSample>)> = Vec::new();
        for (group, bounds) in starts.windows(2).enumerate() {
            let (first, end) = (bounds[0], bounds[1]);
            let mut rows: Vec<std::ops::Range<u64>> = wanted
                .iter()
                .filter(|(_, n)| *n > 0)
                .map(|(at, n)| (*at).max(first)..at.saturating_add(*n).min(end))
                .filter(|r| r.start < r.end)
                .collect();
            if rows.is_empty() {
                continue;
            }
            rows.sort_unstable_by_key(|r| r.start);
            let range = row_group_range(footer, group);
            let fill = select.hints.fill_cache;
            let object =
                self.objects.ranges(names::HISTOGRAMS, &self.opened.sums, &[range], fill, stats).await?;
            let selection =
                selection(&rows, first, end).ok_or_else(|| bad("two series share rows".into()))?;
            let batch = decode_group(object, footer, None, group, None, Some(selection)).map_err(bad)?;
            let histograms = histograms(&batch).ok_or_else(|| bad("unexpected columns".into()))?;
            read.extend(rows.into_iter().flatten().zip(histograms.into_iter().map(Some)));
        }
        let in_range = |h: &HistogramSample| select.start <= h.t && h.t <= select.end;
        let mut kept = SeriesSet { offsets: vec![0], h_offsets: vec![0], ..SeriesSet::default() };
        for (i, &(at, n)) in wanted.iter().enumerate() {
            let before = kept.h.len();
            let mut earlier: Option<HistogramSample> = None;
            let first = read.partition_point(|(row, _)| *row < at);
            let mut samples = read[first..].iter_mut();
            for row in at..at + n {
                let mut h = samples
                    .next()
                    .filter(|next| next.0 == row)
                    .and_then(|next| next.1.take())
                    .ok_or_else(|| bad("rows beyond the end of the table".into()))?;
                if !in_range(&h) {
                    earlier = Some(h).filter(|h| h.t < select.start).or(earlier);
                    continue;
                }
                // Who reads everything gets what was sent.
                if kept.h.len() == before && select.start > i64::MIN {
                    h.h.reset_hint = h.h.hint_after(earlier.as_ref().map(|e| &e.h));
                }
                kept.h.push(h);
            }
            // Floats that are kept stay where they are, so a series without any leaves no gap in them.
            if kept.h.len() > before || set.offsets[i] < set.offsets[i + 1] {
                kept.labels.push(set.labels[i].clone());
                kept.offsets.push(set.offsets[i + 1]);
                kept.h_offsets.push(kept.h.len() as u32);
            }
        }
        set.labels = kept.labels;
        set.offsets = kept.offsets;
        set.h_offsets = if kept.h.is_empty() { Vec::new() } else { kept.h_offsets };
        set.h = kept.h;
        Ok(())
    }

    pub(super) async fn exemplars_of(
        &self,
        ids: &RoaringBitmap,
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<Vec<ExemplarSeries>> {
        let bad = |e: String| self.objects.nonsense(names::EXEMPLARS, e);
        let found = self.exemplars_by_series(Some(ids), select, stats).await?;
        let starts = group_starts(&self.opened.series);
        let mut out = Vec::with_capacity(found.len());
        let mut scratch = Vec::new();
        for (sid, exemplars) in found {
            let group = starts.partition_point(|s| *s <= u64::from(sid)) - 1;
            if group >= self.opened.series.num_row_groups() {
                return Err(bad(format!("series {sid} does not exist")));
            }
            let table = self.group(group, stats).await?;
            let row = (u64::from(sid) - starts[group]) as usize;
            out.push(ExemplarSeries { labels: table.labels(row, &mut scratch), exemplars });
        }
        out.sort_by(|a, b| order::compare(a.labels.as_bytes(), b.labels.as_bytes()));
        Ok(out)
    }

    /// Exemplars in the range by series; of all series without `ids`.
    pub(super) async fn exemplars_by_series(
        &self,
        ids: Option<&RoaringBitmap>,
        select: &BlockSelect,
        stats: &ReadStats,
    ) -> Result<BTreeMap<u32, Vec<Exemplar>>> {
        let mut found: BTreeMap<u32, Vec<Exemplar>> = BTreeMap::new();
        let Some(footer) = &self.opened.exemplars else { return Ok(found) };
        let bad = |e: String| self.objects.nonsense(names::EXEMPLARS, e);
        for group in 0..footer.num_row_groups() {
            let bounds = int_bounds(footer, group, 0)
                .and_then(|(a, b)| Some((u32::try_from(a).ok()?, u32::try_from(b).ok()?)));
            if let (Some((a, b)), Some(ids)) = (bounds, ids)
                && ids.range_cardinality(a..=b) == 0
            {
                continue;
            }
            let range = row_group_range(footer, group);
            let fill = select.hints.fill_cache;
            let object =
                self.objects.ranges(names::EXEMPLARS, &self.opened.sums, &[range], fill, stats).await?;
            let batch = decode_group(object, footer, None, group, None, None).map_err(bad)?;
            read_exemplars(&batch, ids, select, &mut found)
                .ok_or_else(|| bad("unexpected columns".into()))?;
        }
        if !self.deleted.is_empty() {
            found.retain(|&id, exemplars| {
                let deleted = self.deleted.of(id);
                exemplars.retain(|e| !deleted.iter().any(|d| d.0 <= e.t && e.t <= d.1));
                !exemplars.is_empty()
            });
        }
        Ok(found)
    }

    pub(super) async fn metadata_rows(&self, stats: &ReadStats) -> Result<Vec<MetadataEntry>> {
        if !self.objects.has(names::METADATA) {
            return Ok(Vec::new());
        }
        let bad = |e: String| self.objects.nonsense(names::METADATA, e);
        let size = self.objects.size(names::METADATA)?;
        let bytes = self.objects.range(names::METADATA, &self.opened.sums, 0..size, true, stats).await?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.build());
        let mut out = Vec::new();
        for batch in reader.map_err(|e| bad(e.to_string()))? {
            let batch = batch.map_err(|e| bad(e.to_string()))?;
            let column =
                |name| get::<StringArray>(&batch, name).ok_or_else(|| bad("unexpected columns".into()));
            let (name, kind) = (column("name")?, column("metric_type")?);
            let (help, unit) = (column("help")?, column("unit")?);
            out.extend((0..batch.num_rows()).map(|i| MetadataEntry {
                name: name.value(i).to_owned(),
                metadata: MetricMetadata {
                    metric_type: MetricType::from_name(kind.value(i)).unwrap_or_default(),
                    help: help.value(i).to_owned(),
                    unit: unit.value(i).to_owned(),
                },
            }));
        }
        Ok(out)
    }
}

fn get<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Option<&'a T> {
    batch.column_by_name(name)?.as_any().downcast_ref()
}

/// Rows of a row group as a selection; `None` where they overlap.
fn selection(rows: &[std::ops::Range<u64>], first: u64, end: u64) -> Option<RowSelection> {
    let mut selectors = Vec::new();
    let mut at = first;
    for r in rows {
        selectors.push(RowSelector::skip(usize::try_from(r.start.checked_sub(at)?).ok()?));
        selectors.push(RowSelector::select(usize::try_from(r.end - r.start).ok()?));
        at = r.end;
    }
    selectors.push(RowSelector::skip(usize::try_from(end.checked_sub(at)?).ok()?));
    Some(selectors.into())
}

fn histograms(batch: &RecordBatch) -> Option<Vec<HistogramSample>> {
    fn list<'a, T: Clone>(lists: &ListArray, values: &'a [T], row: usize) -> &'a [T] {
        let o = lists.value_offsets();
        values.get(o[row] as usize..o[row + 1] as usize).unwrap_or_default()
    }
    let ints = |name| get::<Int32Array>(batch, name);
    let longs = |name| get::<Int64Array>(batch, name);
    let doubles = |name| get::<Float64Array>(batch, name);
    let double_list = |name| -> Option<(&ListArray, &[f64])> {
        let lists = get::<ListArray>(batch, name)?;
        Some((lists, lists.values().as_any().downcast_ref::<Float64Array>()?.values().as_ref()))
    };
    let spans = |offsets: &str, lengths: &str| -> Option<Vec<Vec<Span>>> {
        let (a, b) = (get::<ListArray>(batch, offsets)?, get::<ListArray>(batch, lengths)?);
        let offset = a.values().as_any().downcast_ref::<Int32Array>()?.values();
        let length = b.values().as_any().downcast_ref::<Int64Array>()?.values();
        (0..batch.num_rows())
            .map(|row| {
                let pairs = list(a, offset, row).iter().zip(list(b, length, row));
                pairs.map(|(&offset, &n)| Some(Span { offset, length: u32::try_from(n).ok()? })).collect()
            })
            .collect()
    };
    let (t, start, schema) = (longs("ts")?, longs("start_ts")?, ints("schema")?);
    let (integer, hint) = (get::<BooleanArray>(batch, "is_integer")?, ints("reset_hint")?);
    let (threshold, zero) = (doubles("zero_threshold")?, doubles("zero_count")?);
    let (count, sum) = (doubles("count")?, doubles("sum")?);
    let mut positive_spans = spans("positive_offsets", "positive_lengths")?;
    let mut negative_spans = spans("negative_offsets", "negative_lengths")?;
    let positive = double_list("positive_buckets")?;
    let negative = double_list("negative_buckets")?;
    let custom = double_list("custom_values")?;
    (0..batch.num_rows())
        .map(|i| {
            let reset_hint = match hint.value(i) {
                0 => ResetHint::Unknown,
                1 => ResetHint::Reset,
                2 => ResetHint::NoReset,
                3 => ResetHint::Gauge,
                _ => return None,
            };
            let h = Histogram {
                reset_hint,
                schema: schema.value(i),
                integer: integer.value(i),
                zero_threshold: threshold.value(i),
                zero_count: zero.value(i),
                count: count.value(i),
                sum: sum.value(i),
                positive_spans: std::mem::take(&mut positive_spans[i]),
                positive_buckets: list(positive.0, positive.1, i).to_vec(),
                negative_spans: std::mem::take(&mut negative_spans[i]),
                negative_buckets: list(negative.0, negative.1, i).to_vec(),
                custom_values: list(custom.0, custom.1, i).to_vec(),
            };
            Some(HistogramSample { t: t.value(i), start: start.value(i), h })
        })
        .collect()
}

fn read_exemplars(
    batch: &RecordBatch,
    ids: Option<&RoaringBitmap>,
    select: &BlockSelect,
    out: &mut BTreeMap<u32, Vec<Exemplar>>,
) -> Option<()> {
    let (sid, ts) = (get::<Int32Array>(batch, "sid")?, get::<Int64Array>(batch, "ts")?);
    let (value, labels) = (get::<Float64Array>(batch, "value")?, get::<MapArray>(batch, "labels")?);
    let keys = labels.keys().as_any().downcast_ref::<StringArray>()?;
    let values = labels.values().as_any().downcast_ref::<StringArray>()?;
    for row in 0..batch.num_rows() {
        let id = u32::try_from(sid.value(row)).ok()?;
        let t = ts.value(row);
        if t < select.start || t > select.end || ids.is_some_and(|ids| !ids.contains(id)) {
            continue;
        }
        let o = labels.value_offsets();
        let pairs = (o[row] as usize..o[row + 1] as usize).map(|i| (keys.value(i), values.value(i)));
        let labels = Labels::from_pairs(pairs).ok()?;
        out.entry(id).or_default().push(Exemplar { t, v: value.value(row), labels });
    }
    Some(())
}
