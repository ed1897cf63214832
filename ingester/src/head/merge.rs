//! Joins one series' samples of two generations. The later generation was written later, so it wins where both have a
//! sample of one time, whatever its kind.

use sextant_model::{HistogramSample, NO_START, SeriesBuf};

/// Adds `newer` to `older`.
pub(crate) fn join(older: &mut SeriesBuf, newer: &mut SeriesBuf) {
    if !older.start.is_empty() || !newer.start.is_empty() {
        older.start.resize(older.t.len(), NO_START);
        newer.start.resize(newer.t.len(), NO_START);
    }
    match (last_time(older), first_time(newer)) {
        (Some(last), Some(first)) if last >= first => {}
        _ => {
            older.t.append(&mut newer.t);
            older.v.append(&mut newer.v);
            older.start.append(&mut newer.start);
            older.h.append(&mut newer.h);
            return;
        }
    }
    join_floats(older, newer);
    join_histograms(older, newer);
}

fn last_time(s: &SeriesBuf) -> Option<i64> {
    s.t.last().copied().max(s.h.last().map(|h| h.t))
}

fn first_time(s: &SeriesBuf) -> Option<i64> {
    s.t.first().copied().into_iter().chain(s.h.first().map(|h| h.t)).min()
}

fn has_histogram(h: &[HistogramSample], t: i64) -> bool {
    h.binary_search_by_key(&t, |h| h.t).is_ok()
}

fn join_floats(older: &mut SeriesBuf, newer: &SeriesBuf) {
    let mut out = SeriesBuf::default();
    let push = |out: &mut SeriesBuf, from: &SeriesBuf, i: usize| {
        out.t.push(from.t[i]);
        out.v.push(from.v[i]);
        out.start.extend(from.start.get(i));
    };
    let mut k = 0;
    for i in 0..older.t.len() {
        let t = older.t[i];
        while k < newer.t.len() && newer.t[k] < t {
            push(&mut out, newer, k);
            k += 1;
        }
        let replaced = newer.t.get(k) == Some(&t) || has_histogram(&newer.h, t);
        if !replaced {
            push(&mut out, older, i);
        }
    }
    for i in k..newer.t.len() {
        push(&mut out, newer, i);
    }
    (older.t, older.v, older.start) = (out.t, out.v, out.start);
}

fn join_histograms(older: &mut SeriesBuf, newer: &mut SeriesBuf) {
    older.h.retain(|h| newer.t.binary_search(&h.t).is_err() && !has_histogram(&newer.h, h.t));
    older.h.append(&mut newer.h);
    older.h.sort_by_key(|h| h.t);
}
