//! Answers of the Prometheus API, and what they must hold.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::ledger::{Findings, Outcome, Samples, Shape, compare};

/// What a read must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// It lacks what was acknowledged before it began.
    Stale,
    /// It lacks what an earlier read had shown.
    Backwards,
    /// It is a part of the answer, or lacks whole series.
    Partial,
    /// It shows a sample more than once.
    Doubled,
    /// It shows what nobody wrote.
    Foreign,
}

/// A read that was wrong, and how.
pub type Violation = (Wrong, String);

/// An answer's rows by writer and series; an error where it is none. `Err(Some)` inside: it says that it is a part.
pub fn parse(status: u16, body: &[u8]) -> Result<Result<Samples, Violation>> {
    let shown = || String::from_utf8_lossy(body).trim().chars().take(200).collect::<String>();
    if status != 200 {
        bail!("{status}: {}", shown());
    }
    let answer: Value = serde_json::from_slice(body).with_context(shown)?;
    if answer["status"] != "success" {
        bail!("not a success: {}", shown());
    }
    if answer["warnings"].as_array().is_some_and(|w| !w.is_empty()) {
        return Ok(Err((Wrong::Partial, format!("warnings: {}", answer["warnings"]))));
    }
    let mut samples = Samples::new();
    for element in answer["data"]["result"].as_array().with_context(shown)? {
        let number = |label: &str| element["metric"][label].as_str().and_then(|t| t.parse::<usize>().ok());
        // Sums have no series.
        let key = (number("writer").with_context(shown)?, number("series").unwrap_or(0));
        let rows = samples.entry(key).or_default();
        let points = match element["values"].as_array() {
            Some(points) => points.iter().collect(),
            None => vec![&element["value"]],
        };
        for point in points {
            let time = point[0].as_f64().with_context(shown)?;
            let value = point[1].as_str().and_then(|v| v.parse().ok()).with_context(shown)?;
            rows.push(((time * 1000.0).round() as i64, value));
        }
    }
    Ok(Ok(samples))
}

/// Checks an instant query for a writer's series at a time after its latest request. `acknowledged`: the latest when the query
/// began; `sent`: the latest that was sent when it ended; `seen`: the newest that earlier reads of this reader showed, by series.
pub fn check_newest(
    shape: &Shape,
    writer: usize,
    samples: &Samples,
    acknowledged: u64,
    sent: u64,
    seen: &mut [u64],
) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for (series, seen) in seen.iter_mut().enumerate().take(shape.series) {
        let about = format!("writer {writer}, series {series}");
        let rows = samples.get(&(writer, series)).map_or(&[][..], Vec::as_slice);
        let [(_, value)] = rows else {
            if acknowledged.max(*seen) > 0 || !rows.is_empty() {
                wrong.push((Wrong::Partial, format!("{about}: {} rows, not one", rows.len())));
            }
            continue;
        };
        let Some(n) = Shape::sequence(writer, series, *value).filter(|n| *n <= sent) else {
            wrong.push((Wrong::Foreign, format!("{about}: {value}; {sent} requests were sent")));
            continue;
        };
        if n < acknowledged {
            wrong.push((Wrong::Stale, format!("{about}: {n}, but {acknowledged} was acknowledged before")));
        }
        if n < *seen {
            wrong.push((Wrong::Backwards, format!("{about}: {n} after {seen}")));
        }
        *seen = n.max(*seen);
    }
    wrong
}

/// Checks the samples of a range selector over the requests `window`, as these were when the query began.
pub fn check_window(
    shape: &Shape,
    writer: usize,
    samples: &Samples,
    window: &[(u64, Outcome)],
) -> Vec<Violation> {
    let Findings { missing, doubled, foreign, examples, .. } = compare(shape, writer, window, samples);
    let kinds = [(Wrong::Stale, missing), (Wrong::Doubled, doubled), (Wrong::Foreign, foreign)];
    let text = examples.join("; ");
    kinds
        .into_iter()
        .filter(|(_, n)| *n > 0)
        .map(|(wrong, n)| (wrong, format!("{n} samples: {text}")))
        .collect()
}

/// Checks a range query with a step at the time of each request of `window`: each step shows the request of its time, or, where
/// that is unknown, one since the latest acknowledged before.
pub fn check_range(
    shape: &Shape,
    writer: usize,
    samples: &Samples,
    window: &[(u64, Outcome)],
) -> Vec<Violation> {
    let mut wrong = Vec::new();
    for series in 0..shape.series {
        let rows = samples.get(&(writer, series)).map_or(&[][..], Vec::as_slice);
        let mut rows = rows.iter().peekable();
        let mut acknowledged = 0;
        for &(n, outcome) in window {
            let about = || format!("writer {writer}, series {series}, step of request {n}");
            if outcome == Outcome::Acknowledged {
                acknowledged = n;
            }
            let Some(&(_, value)) = rows.next_if(|(time, _)| *time == shape.time(n)) else {
                if acknowledged > 0 {
                    wrong.push((Wrong::Stale, format!("{}: nothing", about())));
                }
                continue;
            };
            match Shape::sequence(writer, series, value) {
                Some(shown) if shown > n => wrong.push((Wrong::Foreign, format!("{}: {shown}", about()))),
                Some(shown) if shown < acknowledged => {
                    wrong.push((Wrong::Stale, format!("{}: {shown}, not {acknowledged}", about())));
                }
                Some(_) => {}
                None => wrong.push((Wrong::Foreign, format!("{}: {value}", about()))),
            }
        }
        if let Some((time, _)) = rows.next() {
            wrong.push((
                Wrong::Foreign,
                format!("writer {writer}, series {series}: a row at {time} is of no step"),
            ));
        }
    }
    wrong
}

/// Checks a count of all samples of a writer's requests `window`, as these were when the query began.
pub fn check_count(
    shape: &Shape,
    writer: usize,
    samples: &Samples,
    window: &[(u64, Outcome)],
) -> Vec<Violation> {
    let least = window.iter().filter(|(_, o)| *o == Outcome::Acknowledged).count() * shape.series;
    let most = window.len() * shape.series;
    let rows = samples.get(&(writer, 0)).map_or(&[][..], Vec::as_slice);
    let counted = match rows {
        [] => 0.0,
        [(_, value)] => *value,
        _ => return vec![(Wrong::Doubled, format!("writer {writer}: {} counts", rows.len()))],
    };
    let text = format!("writer {writer}: {counted} samples are counted, of {least} to {most}");
    if counted < least as f64 {
        return vec![(Wrong::Stale, text)];
    }
    if counted <= most as f64 { Vec::new() } else { vec![(Wrong::Doubled, text)] }
}

#[cfg(test)]
mod tests {
    use super::{super::ledger::tests::shape, *};

    const NEWEST: &[u8] = br#"{"status":"success","data":{"resultType":"vector","result":[
        {"metric":{"writer":"1","series":"0"},"value":[1700000000.5,"100000000005"]},
        {"metric":{"writer":"1","series":"1"},"value":[1700000000.5,"101000000005"]},
        {"metric":{"writer":"1","series":"2"},"value":[1700000000.5,"102000000006"]}]}}"#;

    fn kinds(violations: &[Violation]) -> Vec<Wrong> {
        violations.iter().map(|(w, _)| *w).collect()
    }

    #[test]
    fn answers_are_parsed_and_errors_and_parts_told_apart() {
        let samples = parse(200, NEWEST).unwrap().unwrap();
        assert_eq!(samples[&(1, 2)], [(1_700_000_000_500, 102_000_000_006.0)]);
        let matrix = br#"{"status":"success","data":{"result":[{"metric":{"writer":"0","series":"1"},"values":[[1.1,"1"],[2,"NaN"]]}]}}"#;
        assert_eq!(parse(200, matrix).unwrap().unwrap()[&(0, 1)].len(), 2);
        assert!(parse(503, NEWEST).is_err());
        assert!(parse(200, br#"{"status":"error","error":"x"}"#).is_err());
        assert!(parse(200, b"{").is_err());
        let part = br#"{"status":"success","warnings":["shard 1 did not answer"],"data":{"result":[]}}"#;
        assert_eq!(parse(200, part).unwrap().unwrap_err().0, Wrong::Partial);
    }

    #[test]
    fn a_newest_value_that_is_stale_or_goes_back_is_found() {
        let samples = parse(200, NEWEST).unwrap().unwrap();
        let check = |acknowledged, sent, mut seen: [u64; 3]| {
            let wrong = check_newest(&shape(), 1, &samples, acknowledged, sent, &mut seen);
            (kinds(&wrong), seen)
        };
        assert_eq!(check(5, 6, [0, 4, 6]), (vec![], [5, 5, 6]));
        assert_eq!(check(6, 6, [0; 3]).0, [Wrong::Stale, Wrong::Stale]);
        assert_eq!(check(5, 7, [5, 6, 7]), (vec![Wrong::Backwards, Wrong::Backwards], [5, 6, 7]));
        assert_eq!(check(5, 5, [0; 3]).0, [Wrong::Foreign]);
        let mut fewer = samples.clone();
        fewer.remove(&(1, 1));
        assert_eq!(kinds(&check_newest(&shape(), 1, &fewer, 1, 9, &mut [0; 3])), [Wrong::Partial]);
        assert_eq!(kinds(&check_newest(&shape(), 1, &Samples::new(), 0, 9, &mut [0; 3])), []);
        assert_eq!(
            kinds(&check_newest(&shape(), 1, &Samples::new(), 0, 9, &mut [0, 1, 0])),
            [Wrong::Partial]
        );
    }

    fn window() -> Vec<(u64, Outcome)> {
        use Outcome::{Acknowledged as A, Unknown as U};
        vec![(3, A), (4, U), (5, A)]
    }

    fn rows(sequences: &[(u64, u64)]) -> Samples {
        let row = |s, (at, n): &(u64, u64)| (shape().time(*at), Shape::value(1, s, *n));
        (0..3).map(|s| ((1, s), sequences.iter().map(|r| row(s, r)).collect())).collect()
    }

    #[test]
    fn windows_and_ranges_hold_every_acknowledged_request() {
        let wrong = |r: &[(u64, u64)]| kinds(&check_window(&shape(), 1, &rows(r), &window()));
        assert_eq!(wrong(&[(3, 3), (5, 5)]), []);
        assert_eq!(wrong(&[(3, 3), (4, 4), (5, 5)]), []);
        assert_eq!(wrong(&[(3, 3), (4, 4)]), [Wrong::Stale]);
        assert_eq!(wrong(&[(3, 3), (3, 3), (5, 5)]), [Wrong::Doubled]);
        assert_eq!(wrong(&[(3, 3), (5, 5), (6, 6)]), [Wrong::Foreign]);

        let wrong = |r: &[(u64, u64)]| {
            let mut found = kinds(&check_range(&shape(), 1, &rows(r), &window()));
            found.dedup();
            found
        };
        assert_eq!(wrong(&[(3, 3), (4, 3), (5, 5)]), []);
        assert_eq!(wrong(&[(3, 3), (4, 4), (5, 5)]), []);
        assert_eq!(wrong(&[(3, 3), (4, 4), (5, 4)]), [Wrong::Stale]);
        assert_eq!(wrong(&[(3, 2), (4, 4), (5, 5)]), [Wrong::Stale]);
        assert_eq!(wrong(&[(3, 3), (5, 5)]), [Wrong::Stale]);
        assert_eq!(wrong(&[(3, 3), (4, 5), (5, 5)]), [Wrong::Foreign]);
        assert_eq!(wrong(&[(3, 3), (4, 4), (5, 5), (6, 5)]), [Wrong::Foreign]);
    }

    #[test]
    fn counts_are_between_what_was_acknowledged_and_what_was_sent() {
        let wrong = |n: f64| {
            let samples = Samples::from([((1, 0), vec![(0, n)])]);
            kinds(&check_count(&shape(), 1, &samples, &window()))
        };
        assert_eq!(wrong(6.0), []);
        assert_eq!(wrong(9.0), []);
        assert_eq!(wrong(5.0), [Wrong::Stale]);
        assert_eq!(wrong(10.0), [Wrong::Doubled]);
        assert_eq!(kinds(&check_count(&shape(), 1, &Samples::new(), &window())), [Wrong::Stale]);
    }
}
