//! The series that one source (a target, this host) sends now: what must get a staleness marker when it is gone.
//!
//! Rounds follow each other: `begin`, `touch` for every series, then `finish` or `abort`. A series that was touched in the
//! last round that finished and not in this one is gone.

use hashbrown::HashMap;
use sextant_model::{Histogram, HistogramSample, Labels, NO_START, Sample, SeriesId, stale_nan};
use sextant_proto::SeriesWrite;

/// The current series of one source.
#[derive(Debug, Default)]
pub struct ActiveSeries {
    round: u64,
    by_id: HashMap<SeriesId, Active>,
}

#[derive(Debug)]
struct Active {
    labels: Labels,
    is_histogram: bool,
    first: u64,
    last: u64,
}

/// What touching a series found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It was not there in the last round.
    New,
    /// It was there.
    Known,
    /// It is in this round already.
    Repeated,
}

impl ActiveSeries {
    /// Begins a round.
    pub fn begin(&mut self) {
        self.round += 1;
    }

    /// Notes a series in this round.
    pub fn touch(&mut self, id: SeriesId, labels: &Labels, is_histogram: bool) -> Touch {
        let round = self.round;
        if let Some(active) = self.by_id.get_mut(&id) {
            // A histogram's native and classic series differ by name, so a repeat is a repeat of both kinds.
            let repeated = active.last == round;
            active.last = round;
            active.is_histogram = is_histogram;
            return if repeated { Touch::Repeated } else { Touch::Known };
        }
        self.by_id.insert(id, Active { labels: labels.clone(), is_histogram, first: round, last: round });
        Touch::New
    }

    /// Ends a round that succeeded, and appends a marker for every series that is gone.
    pub fn finish(&mut self, t: i64, out: &mut Vec<SeriesWrite>) {
        let round = self.round;
        self.by_id.retain(|_, a| {
            let stays = a.last == round;
            if !stays {
                out.push(marker(a, t));
            }
            stays
        });
    }

    /// Ends a round that failed: every series of earlier rounds is gone, those of this one never were.
    pub fn abort(&mut self, t: i64, out: &mut Vec<SeriesWrite>) {
        let round = self.round;
        out.extend(self.by_id.drain().filter(|(_, a)| a.first != round).map(|(_, a)| marker(&a, t)));
    }

    /// Appends a marker for every series: their source is gone.
    pub fn end(&mut self, t: i64, out: &mut Vec<SeriesWrite>) {
        out.extend(self.by_id.drain().map(|(_, a)| marker(&a, t)));
    }
}

fn marker(a: &Active, t: i64) -> SeriesWrite {
    let mut write = SeriesWrite { labels: a.labels.clone(), ..SeriesWrite::default() };
    if a.is_histogram {
        let h = Histogram { sum: stale_nan(), ..Histogram::default() };
        write.histograms.push(HistogramSample { t, start: NO_START, h });
    } else {
        write.samples.push(Sample { t, v: stale_nan(), start: NO_START });
    }
    write
}

/// One float sample of a series.
pub fn float_write(labels: Labels, t: i64, v: f64) -> SeriesWrite {
    SeriesWrite { labels, samples: vec![Sample { t, v, start: NO_START }], ..SeriesWrite::default() }
}
