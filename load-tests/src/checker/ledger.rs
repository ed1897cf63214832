//! What was written, what became of it, and how that compares with what is there.

use std::{collections::BTreeMap, sync::Mutex};

use anyhow::Result;

use crate::metrics::wire;

/// The metric that is written.
pub const METRIC: &str = "checker_sequence";
/// Values of a series are this far apart from the next one's.
const PER_SERIES: u64 = 1_000_000_000;
/// More writers than this would make values that a double does not hold.
pub const WRITERS_MAX: usize = 80;
/// More series of a writer would meet the next writer's values.
pub const SERIES_MAX: usize = 100;

/// What the writers write: request `n` of a writer (from 1) holds one sample for each of its series, at a time that belongs to
/// `n`, with a value that names writer, series and `n`.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Tells this run's series from those of others.
    pub run: String,
    /// Writers.
    pub writers: usize,
    /// Series of each.
    pub series: usize,
    /// Milliseconds between samples of a series.
    pub interval_ms: i64,
    /// Time of sequence 0, Unix milliseconds.
    pub start_ms: i64,
}

impl Shape {
    /// When a request's samples are, Unix milliseconds.
    pub fn time(&self, sequence: u64) -> i64 {
        self.start_ms + sequence as i64 * self.interval_ms
    }

    /// A sample's value.
    pub fn value(writer: usize, series: usize, sequence: u64) -> f64 {
        ((writer * SERIES_MAX + series) as u64 * PER_SERIES + sequence) as f64
    }

    /// The request that a value of a series is of; `None` where it is not one of that series.
    pub fn sequence(writer: usize, series: usize, value: f64) -> Option<u64> {
        let sequence = value - Self::value(writer, series, 0);
        (sequence.fract() == 0.0 && sequence >= 1.0 && sequence < PER_SERIES as f64)
            .then_some(sequence as u64)
    }

    /// The request that a sample of a series is of; `None` where time or value are not of one.
    pub fn request(&self, writer: usize, series: usize, time: i64, value: f64) -> Option<u64> {
        Self::sequence(writer, series, value).filter(|n| self.time(*n) == time)
    }

    /// The body of a request: remote write 1.0, snappy.
    pub fn body(&self, writer: usize, sequence: u64) -> Result<Vec<u8>> {
        let (mut raw, mut scratch) = (Vec::new(), Vec::new());
        for series in 0..self.series {
            let labels = [("__name__", METRIC.to_owned()), ("run", self.run.clone())];
            let own = [("series", series.to_string()), ("writer", writer.to_string())];
            let pairs: Vec<_> = labels.into_iter().chain(own).map(|(n, v)| (n.to_owned(), v)).collect();
            let value = Self::value(writer, series, sequence);
            wire::series(&mut raw, &mut scratch, &wire::labels(&pairs), value, self.time(sequence));
        }
        Ok(snap::raw::Encoder::new().compress_vec(&raw)?)
    }
}

/// What is known of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on its way, or nobody knows: its samples may be there.
    Unknown,
    /// Its samples must be there.
    Acknowledged,
}

/// One writer's requests, in order from 1.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Outcome>>);

impl Ledger {
    fn outcomes(&self) -> std::sync::MutexGuard<'_, Vec<Outcome>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A new request's number; it is noted before it is sent.
    pub fn begin(&self) -> u64 {
        let mut outcomes = self.outcomes();
        outcomes.push(Outcome::Unknown);
        outcomes.len() as u64
    }

    /// The request was acknowledged.
    pub fn acknowledge(&self, sequence: u64) {
        if let Some(o) = self.outcomes().get_mut(sequence as usize - 1) {
            *o = Outcome::Acknowledged;
        }
    }

    /// The latest request, 0 before the first.
    pub fn latest(&self) -> u64 {
        self.outcomes().len() as u64
    }

    /// The latest acknowledged request, 0 before the first.
    pub fn latest_acknowledged(&self) -> u64 {
        let outcomes = self.outcomes();
        outcomes.iter().rposition(|o| *o == Outcome::Acknowledged).map_or(0, |i| i as u64 + 1)
    }

    /// Outcomes of requests `from..=to`, as far as these exist.
    pub fn window(&self, from: u64, to: u64) -> Vec<(u64, Outcome)> {
        let outcomes = self.outcomes();
        (from.max(1)..=to).filter_map(|n| Some((n, *outcomes.get(n as usize - 1)?))).collect()
    }
}

/// Samples as an answer or a block gives them, by writer and series: time and value.
pub type Samples = BTreeMap<(usize, usize), Vec<(i64, f64)>>;

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged samples that are there once.
    pub acknowledged: u64,
    /// Samples of unknown requests that are there.
    pub unknown_there: u64,
    /// Samples of unknown requests that are not.
    pub unknown_absent: u64,
    /// Acknowledged samples that are not there.
    pub missing: u64,
    /// Samples that are there more than once, counted each time after the first.
    pub doubled: u64,
    /// Samples that nobody wrote.
    pub foreign: u64,
    /// Some of the last three.
    pub examples: Vec<String>,
}

const EXAMPLES_MAX: usize = 20;

impl Findings {
    /// Nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.missing + self.doubled + self.foreign == 0
    }

    fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(text());
        }
    }

    /// Adds another comparison's.
    pub fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unknown_there += other.unknown_there;
        self.unknown_absent += other.unknown_absent;
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.foreign += other.foreign;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// Compares what is there with one writer's requests `window`, sample by sample.
pub fn compare(shape: &Shape, writer: usize, window: &[(u64, Outcome)], samples: &Samples) -> Findings {
    let mut found = Findings::default();
    let first = window.first().map_or(1, |w| w.0);
    for (&(of, series), rows) in samples.range((writer, 0)..=(writer, usize::MAX)) {
        if series >= shape.series {
            found.foreign += rows.len() as u64;
            found.example(|| format!("writer {of} has no series {series}"));
        }
    }
    for series in 0..shape.series {
        let mut times = vec![0u64; window.len()];
        for &(time, value) in samples.get(&(writer, series)).map_or(&[][..], Vec::as_slice) {
            let at = shape.request(writer, series, time, value).and_then(|n| n.checked_sub(first));
            match at.and_then(|i| times.get_mut(i as usize)) {
                Some(times) => *times += 1,
                None => {
                    found.foreign += 1;
                    found.example(|| format!("foreign: writer {writer}, series {series}: {value} at {time}"));
                }
            }
        }
        for (&(n, outcome), &times) in window.iter().zip(&times) {
            match (outcome, times) {
                (Outcome::Acknowledged, 0) => {
                    found.missing += 1;
                    let time = shape.time(n);
                    found.example(|| {
                        format!("missing: writer {writer}, series {series}, request {n} at {time}")
                    });
                }
                (Outcome::Acknowledged, _) => found.acknowledged += 1,
                (Outcome::Unknown, 0) => found.unknown_absent += 1,
                (Outcome::Unknown, _) => found.unknown_there += 1,
            }
            if times > 1 {
                found.doubled += times - 1;
                found.example(|| {
                    format!("doubled: writer {writer}, series {series}, request {n} is there {times} times")
                });
            }
        }
    }
    found
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn shape() -> Shape {
        Shape { run: "r".to_owned(), writers: 2, series: 3, interval_ms: 100, start_ms: 1_700_000_000_000 }
    }

    /// Requests 1 to 5 of which 3 is unknown, and all samples of the others.
    fn stored() -> (Ledger, Samples) {
        let ledger = Ledger::default();
        let mut samples = Samples::new();
        for n in (0..5).map(|_| ledger.begin()) {
            if n != 3 {
                ledger.acknowledge(n);
                for s in 0..3 {
                    samples.entry((1, s)).or_default().push((shape().time(n), Shape::value(1, s, n)));
                }
            }
        }
        (ledger, samples)
    }

    fn compared(change: impl FnOnce(&mut Samples)) -> Findings {
        let (ledger, mut samples) = stored();
        change(&mut samples);
        compare(&shape(), 1, &ledger.window(1, 5), &samples)
    }

    #[test]
    fn what_is_there_exactly_once_is_clean_and_unknown_requests_may_be_there() {
        let found = compared(|_| ());
        let expected = Findings { acknowledged: 12, unknown_absent: 3, ..Findings::default() };
        assert_eq!(found, expected);
        assert!(found.is_clean());
        let found = compared(|s| s.get_mut(&(1, 2)).unwrap().push((shape().time(3), Shape::value(1, 2, 3))));
        let expected =
            Findings { acknowledged: 12, unknown_there: 1, unknown_absent: 2, ..Findings::default() };
        assert_eq!(found, expected);
    }

    #[test]
    fn one_sample_that_is_missing_doubled_or_foreign_is_found() {
        let found = compared(|s| s.get_mut(&(1, 0)).unwrap().retain(|(time, _)| *time != shape().time(2)));
        assert_eq!((found.missing, found.doubled, found.foreign), (1, 0, 0));
        assert!(found.examples[0].contains("writer 1, series 0, request 2"), "{:?}", found.examples);

        let found = compared(|s| drop(s.remove(&(1, 1))));
        assert_eq!((found.missing, found.is_clean()), (4, false));

        let twice = (shape().time(4), Shape::value(1, 2, 4));
        let found = compared(|s| s.get_mut(&(1, 2)).unwrap().push(twice));
        assert_eq!((found.missing, found.doubled, found.foreign), (0, 1, 0));
        let unknown = (shape().time(3), Shape::value(1, 2, 3));
        let found = compared(|s| s.get_mut(&(1, 2)).unwrap().extend([unknown; 3]));
        assert_eq!((found.unknown_there, found.doubled), (1, 2));

        for foreign in [
            (shape().time(6), Shape::value(1, 2, 6)),
            (shape().time(2), Shape::value(1, 1, 2)),
            (shape().time(2), Shape::value(1, 2, 1)),
            (shape().time(2) + 1, Shape::value(1, 2, 2)),
            (shape().time(2), f64::NAN),
        ] {
            let found = compared(|s| s.get_mut(&(1, 2)).unwrap().push(foreign));
            assert_eq!((found.missing, found.doubled, found.foreign), (0, 0, 1), "{foreign:?}");
        }
        let found = compared(|s| drop(s.insert((1, 3), vec![(0, 0.0)])));
        assert_eq!(found.foreign, 1);
    }

    #[test]
    fn values_name_writer_series_and_request() {
        let last = Shape::value(WRITERS_MAX - 1, SERIES_MAX - 1, PER_SERIES - 1);
        assert_eq!(Shape::sequence(WRITERS_MAX - 1, SERIES_MAX - 1, last), Some(PER_SERIES - 1));
        assert!(last < 2f64.powi(53));
        assert_eq!(Shape::sequence(1, 2, Shape::value(1, 2, 7)), Some(7));
        assert_eq!(Shape::sequence(1, 3, Shape::value(1, 2, 7)), None);
        assert_eq!(Shape::sequence(1, 2, Shape::value(1, 2, 0)), None);
    }

    #[test]
    fn a_ledger_knows_its_latest() {
        let ledger = Ledger::default();
        assert_eq!((ledger.latest(), ledger.latest_acknowledged()), (0, 0));
        let (one, two) = (ledger.begin(), ledger.begin());
        ledger.acknowledge(one);
        assert_eq!((ledger.latest(), ledger.latest_acknowledged(), two), (2, 1, 2));
        assert_eq!(ledger.window(0, 9), [(1, Outcome::Acknowledged), (2, Outcome::Unknown)]);
    }
}
