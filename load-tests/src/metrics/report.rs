//! The tables of a run.

use std::fmt::Write;

use super::{
    generator::{Shape, Totals},
    peers::Settled,
    queries::{Outcome, QUERIES, QueryFigures},
    replay::Ingest,
};

/// Everything measured of one server.
pub struct Measured {
    /// The server.
    pub name: String,
    /// What it was sent.
    pub totals: Totals,
    /// Sending.
    pub ingest: Ingest,
    /// Flushing and compacting, and what went on in the background before.
    pub settled: Settled,
    /// Queries of recent data and queries after everything was written out, for each of [`QUERIES`].
    pub queries: Vec<(Phase, Vec<Outcome>)>,
    /// Peak memory so far after each step, MiB; the steps are the same for every server.
    pub peaks_mib: Vec<(&'static str, f64)>,
}

/// Where queries find their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// As it is after sending.
    Head,
    /// After flush and compaction.
    Blocks,
}

/// The tables, in Markdown. Ratios are of the first server to each other one.
pub fn table(shape: &Shape, results: &[Measured]) -> String {
    let mut out = String::new();
    sent(&mut out, shape, results);
    resources(&mut out, results);
    let Some(first) = results.first() else { return out };
    for (at, (phase, _)) in first.queries.iter().enumerate() {
        let title = match phase {
            Phase::Head => "Queries from the head, before anything is flushed",
            Phase::Blocks => "Queries from blocks, after flush and compaction",
        };
        let _ = writeln!(out, "\n{title}: median / p99 ms, CPU ms; ratios of median, of CPU\n");
        let figures: Vec<(&str, &[Outcome])> =
            results.iter().map(|r| (r.name.as_str(), r.queries[at].1.as_slice())).collect();
        queries(&mut out, &figures);
    }
    out
}

fn sent(out: &mut String, shape: &Shape, results: &[Measured]) {
    let Some(first) = results.first() else { return };
    let t = &first.totals;
    let _ = write!(
        out,
        "{} samples ({} of them native histograms) of {} series: {} scrapes, requests of {}, {} connections, seed {}, \
         {:.1} bytes a sample on the wire.",
        t.samples,
        t.natives,
        t.series,
        shape.scrapes,
        shape.batch,
        shape.connections,
        shape.seed,
        t.bytes as f64 / t.samples as f64
    );
    for r in results.iter().filter(|r| r.totals != *t) {
        let _ = write!(
            out,
            " {}, which does not store native histograms, was sent the {} floats; its figures are per sample that it was sent.",
            r.name, r.totals.samples
        );
    }
    out.push_str("\n\n");
}

fn resources(out: &mut String, results: &[Measured]) {
    let names: Vec<&str> = results.iter().map(|r| r.name.as_str()).collect();
    let Some(first) = names.first() else { return };
    out.push_str("| |");
    for (i, n) in names.iter().enumerate() {
        let _ = write!(out, " {n} |");
        if i > 0 {
            let _ = write!(out, " {first} / {n} |");
        }
    }
    let _ = writeln!(out, "\n|---|{}", "---:|".repeat(names.len() * 2 - 1));
    let million = |r: &Measured| r.totals.samples as f64 / 1e6;
    let mut row = |name: &str, f: &dyn Fn(&Measured) -> f64| {
        let values: Vec<f64> = results.iter().map(f).collect();
        let _ = write!(out, "| {name} |");
        for (i, v) in values.iter().enumerate() {
            let _ = write!(out, " {} |", number(*v, 3));
            if i > 0 {
                let _ = write!(out, " {} |", number(values[0] / v, 2));
            }
        }
        out.push('\n');
    };
    row("CPU s per million samples, sent", &|r| r.ingest.cpu_s / million(r));
    row("CPU s per million samples, flush and compaction included", &|r| {
        (r.ingest.cpu_s + r.settled.cpu_s) / million(r)
    });
    row("thousand samples per second", &|r| r.totals.samples as f64 / r.ingest.wall_s / 1e3);
    row("requests sent again", &|r| r.ingest.retries as f64);
    for (i, (step, _)) in results[0].peaks_mib.iter().enumerate() {
        row(&format!("peak memory after {step}, MiB"), &|r| r.peaks_mib[i].1);
    }
    row("bytes per sample, everything on disk", &|r| r.settled.bytes / r.totals.samples as f64);
}

/// What is not known is a dash.
fn number(v: f64, digits: usize) -> String {
    if v.is_finite() { format!("{v:.digits$}") } else { "–".to_owned() }
}

fn queries(out: &mut String, results: &[(&str, &[Outcome])]) {
    let Some(((first, own), peers)) = results.split_first() else { return };
    let _ = write!(out, "| query | {first} |");
    for (n, _) in peers {
        let _ = write!(out, " {n} | {first} / {n} |");
    }
    let _ = writeln!(out, " answers |\n|---|{}---|", "---:|".repeat(1 + 2 * peers.len()));
    for (i, q) in QUERIES.iter().enumerate() {
        let _ = write!(out, "| {} | {} |", q.name, figures(&own[i]));
        for (_, theirs) in peers {
            let _ = write!(out, " {} |", figures(&theirs[i]));
            match (own[i].figures(), theirs[i].figures()) {
                (Some(a), Some(b)) => {
                    let cpu = number(a.cpu_ms / b.cpu_ms, 2);
                    let _ = write!(out, " {}, {cpu} |", number(a.median_ms / b.median_ms, 2));
                }
                _ => out.push_str(" – |"),
            }
        }
        let _ = writeln!(out, " {} |", answers(own[i].figures(), peers, i));
    }
    let answered_by_all = |i: &usize| results.iter().all(|(_, outcomes)| outcomes[*i].figures().is_some());
    let sums = |outcomes: &[Outcome]| {
        let of_all = (0..QUERIES.len()).filter(answered_by_all).filter_map(|i| outcomes[i].figures());
        of_all.fold((0.0, 0.0), |(median, cpu), f| (median + f.median_ms, cpu + f.cpu_ms))
    };
    let (median, cpu) = sums(own);
    let _ = write!(out, "| sum of those that all answered | {}, {} |", ms(median), ms(cpu));
    for (_, theirs) in peers {
        let (m, c) = sums(theirs);
        let _ = write!(out, " {}, {} | {}, {} |", ms(m), ms(c), number(median / m, 2), number(cpu / c, 2));
    }
    out.push_str(" |\n");
    let _ = write!(out, "| geometric mean | |");
    for (_, theirs) in peers {
        let median = geometric_mean(own, theirs, |q| q.median_ms);
        let _ = write!(
            out,
            " | {}, {} |",
            number(median, 2),
            number(geometric_mean(own, theirs, |q| q.cpu_ms), 2)
        );
    }
    out.push_str(" |\n\n");
    for (n, theirs) in peers {
        let above = |f: fn(&QueryFigures) -> f64| {
            let list: Vec<String> = ratios(own, theirs, f)
                .filter(|(_, r)| *r > 1.0)
                .map(|(i, r)| format!("{} ({r:.2})", QUERIES[i].name))
                .collect();
            if list.is_empty() { "none".to_owned() } else { list.join(", ") }
        };
        let _ = writeln!(
            out,
            "- Median above {n}'s: {}. CPU above: {}.",
            above(|q| q.median_ms),
            above(|q| q.cpu_ms)
        );
    }
    for (n, outcomes) in results {
        for (q, outcome) in QUERIES.iter().zip(*outcomes) {
            if let Outcome::Failed(why) = outcome {
                let _ = writeln!(out, "- {n} refused {}: `{why}`", q.name);
            }
        }
    }
}

/// Milliseconds with what digits say something.
fn ms(v: f64) -> String {
    number(v, if v < 1.0 { 2 } else { usize::from(v < 100.0) })
}

fn figures(q: &Outcome) -> String {
    match q {
        Outcome::Answered(f) => format!("{} / {}, {}", ms(f.median_ms), ms(f.p99_ms), ms(f.cpu_ms)),
        Outcome::NotHeld => "–".to_owned(),
        Outcome::Failed(_) => "refused".to_owned(),
    }
}

/// By query of both, the first server's figure by the other's, where both are known.
fn ratios<'a>(
    own: &'a [Outcome],
    theirs: &'a [Outcome],
    f: fn(&QueryFigures) -> f64,
) -> impl Iterator<Item = (usize, f64)> + 'a {
    own.iter()
        .zip(theirs)
        .enumerate()
        .filter_map(move |(i, (a, b))| Some((i, f(a.figures()?) / f(b.figures()?))))
        .filter(|(_, r)| r.is_finite() && *r > 0.0)
}

fn geometric_mean(own: &[Outcome], theirs: &[Outcome], f: fn(&QueryFigures) -> f64) -> f64 {
    let (sum, n) = ratios(own, theirs, f).fold((0.0, 0), |(sum, n), (_, r)| (sum + r.ln(), n + 1));
    if n == 0 { f64::NAN } else { (sum / f64::from(n)).exp() }
}

fn answers(own: Option<&QueryFigures>, peers: &[(&str, &[Outcome])], i: usize) -> String {
    let Some(own) = own else { return "–".to_owned() };
    let (series, sum) = own.digest;
    let mut out = format!("{series} series");
    let (mut equal, mut other) = (Vec::new(), Vec::new());
    for (name, q) in peers.iter().filter_map(|(n, theirs)| Some((*n, theirs[i].figures()?))) {
        if q.digest.0 == series && (q.digest.1 - sum).abs() <= 1e-6 * sum.abs().max(1.0) {
            equal.push(name);
        } else if q.digest.0 == series {
            other.push(format!("{name}: sum {:+.2} %", (q.digest.1 / sum - 1.0) * 100.0));
        } else {
            other.push(format!("{name}: {} series", q.digest.0));
        }
    }
    if !equal.is_empty() {
        let _ = write!(out, ", equal to {}", equal.join(", "));
    }
    if !other.is_empty() {
        let _ = write!(out, "; {}", other.join("; "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(median_ms: f64, cpu_ms: f64, sum: f64) -> Outcome {
        Outcome::Answered(QueryFigures { median_ms, p99_ms: median_ms * 2.0, cpu_ms, digest: (3, sum) })
    }

    fn measured(name: &str, natives: u64, queries: Vec<Outcome>) -> Measured {
        let totals =
            Totals { samples: 2_000_000 + natives, natives, series: 10, requests: 5, bytes: 40_000_000 };
        Measured {
            name: name.to_owned(),
            totals,
            ingest: Ingest { wall_s: 2.0, cpu_s: 1.0, retries: 0 },
            settled: Settled { cpu_s: 0.5, bytes: 2e6 },
            queries: vec![(Phase::Head, queries.clone()), (Phase::Blocks, queries)],
            peaks_mib: vec![("sending", 100.0), ("queries from blocks", f64::NAN)],
        }
    }

    #[test]
    fn tables_name_ratios_means_and_what_is_above_a_peer() {
        let mut own = vec![figures(1.0, 1.0, 5.0); QUERIES.len()];
        own[1] = figures(4.0, 1.0, 6.0);
        let mut theirs = vec![figures(2.0, 4.0, 5.0); QUERIES.len()];
        theirs[0] = Outcome::NotHeld;
        theirs[2] = Outcome::Failed("422 too many".to_owned());
        let shape = Shape {
            series: 10,
            scrapes: 240,
            batch: 2000,
            connections: 2,
            churn_percent: 5,
            native_per_thousand: 10,
            seed: 1,
            start_ms: 0,
        };
        let text = table(&shape, &[measured("a", 1000, own), measured("b", 0, theirs)]);
        let n = (QUERIES.len() - 2) as f64;
        let own_sum = n + 3.0;
        for part in [
            "2001000 samples (1000 of them native histograms)",
            "b, which does not store native histograms, was sent the 2000000 floats",
            "| CPU s per million samples, sent | 0.500 | 0.500 | 1.00 |",
            "| peak memory after sending, MiB | 100.000 | 100.000 | 1.00 |",
            "| peak memory after queries from blocks, MiB | – | – | – |",
            "Queries from the head",
            "Queries from blocks",
            "| few series, instant | 1.0 / 2.0, 1.0 | – | – | 3 series |",
            "| sum of rates, instant | 4.0 / 8.0, 1.0 | 2.0 / 4.0, 4.0 | 2.00, 0.25 | 3 series; b: sum -16.67 % |",
            "| 0.50, 0.25 | 3 series, equal to b |",
            "| count of all series | 1.0 / 2.0, 1.0 | refused | – | 3 series |",
            // Both answered all but two: own medians are one and once four, the other's are two.
            &format!(
                "| sum of those that all answered | {own_sum:.1}, {n:.1} | {:.1}, {:.1} |",
                2.0 * n,
                4.0 * n
            ),
            "- b refused count of all series: `422 too many`",
            "- Median above b's: sum of rates, instant (2.00). CPU above: none.",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        // All but two queries have a ratio; one of them is two, the others a half.
        let mean = (2f64.ln() * (1.0 - (n - 1.0)) / n).exp();
        assert!(text.contains(&format!("| geometric mean | | | {mean:.2}, 0.25 | |")), "{text}");
    }
}
