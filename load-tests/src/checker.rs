//! The checker: writers that keep a record of each acknowledgement, readers that know what they must see, faults by a schedule, and at
//! the end a comparison, sample by sample, of what was acknowledged with what is there.

mod answers;
mod clients;
mod cluster;
mod faults;
mod inject;
mod ledger;
mod random;
mod report;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};

use self::{
    clients::{Counts, Run},
    cluster::Cluster,
    faults::Kind,
    inject::Injector,
    ledger::{Ledger, SERIES_MAX, Shape, WRITERS_MAX},
    report::{Comparison, Outcome},
};

/// Arguments of `checker`.
#[derive(clap::Args)]
pub struct Args {
    /// `cluster.json`, as `cargo xtask cluster` writes it.
    #[arg(long)]
    cluster: PathBuf,
    /// Seed: the same one gives the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long clients write and read while faults happen.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Writers, each with series of its own.
    #[arg(long, default_value_t = 4)]
    writers: usize,
    /// Readers.
    #[arg(long, default_value_t = 2)]
    readers: usize,
    /// Series of a writer; a request has one sample of each.
    #[arg(long, default_value_t = 10)]
    series: usize,
    /// Time between a writer's requests.
    #[arg(long, default_value = "100ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Kinds of faults.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "none")]
    faults: Vec<Kind>,
    /// How often everything is flushed, and every other time compacted, meanwhile; 0s is never.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    flush_every: Duration,
    /// How long a client waits for an answer.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    request_timeout: Duration,
    /// How long a write is sent again; no outage may be longer, of reads either.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    retry_for: Duration,
    /// How long the cluster may take to be ready, and to flush, when all faults are healed.
    #[arg(long, default_value = "120s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// The tenant that is written to, for finding its blocks.
    #[arg(long, default_value = "anonymous")]
    tenant: String,
    /// Do not read the blocks with DuckDB.
    #[arg(long)]
    without_blocks: bool,
    /// A Python that can import duckdb.
    #[arg(long, default_value = "python3")]
    python: PathBuf,
    /// Also write the report here.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Runs it; an error where anything is wrong.
pub fn run(args: &Args) -> Result<()> {
    if !(1..=WRITERS_MAX).contains(&args.writers) || !(1..=SERIES_MAX).contains(&args.series) {
        bail!("from 1 to {WRITERS_MAX} writers, with 1 to {SERIES_MAX} series each");
    }
    let cluster = Cluster::read(&args.cluster)?;
    let injector = Injector::new(&args.cluster)?;
    cluster.wait_ready(args.settle)?;
    let left_out: Vec<String> = args
        .faults
        .iter()
        .filter_map(|k| Some(format!("{k:?}: {}", faults::left_out(*k, &cluster)?)))
        .collect();
    let schedule = faults::schedule(args.seed, args.duration, &args.faults, &cluster);
    eprintln!("seed {}: {} faults in {} s", args.seed, schedule.len(), args.duration.as_secs());
    for why in &left_out {
        eprintln!("left out: {why}");
    }
    let run = new_run(args, &cluster)?;
    let mut troubles = Vec::new();
    let happened = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..args.writers)
            .map(|w| {
                let run = &run;
                scope.spawn(move || run.write(w))
            })
            .collect();
        for r in 0..args.readers {
            let run = &run;
            scope.spawn(move || run.read(r));
        }
        if !args.flush_every.is_zero() {
            scope.spawn(|| run.flush(args.flush_every));
        }
        let faults = scope.spawn(|| injector.run(&schedule, &run));
        while run.began.elapsed() < args.duration {
            std::thread::sleep(Duration::from_millis(50));
        }
        run.stop.store(true, Relaxed);
        let happened = faults.join();
        // Nothing may wait for a process that stands still.
        injector.heal();
        for writer in writers {
            match writer.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => troubles.push(format!("a writer: {e:#}")),
                Err(_) => troubles.push("a writer panicked".to_owned()),
            }
        }
        happened.unwrap_or_else(|_| {
            troubles.push("the injector of faults panicked".to_owned());
            Vec::new()
        })
    });
    drop(injector);
    let mut outcome = Outcome {
        run: &run,
        cluster: &cluster,
        duration: args.duration,
        schedule: &schedule,
        happened,
        left_out,
        troubles,
        comparisons: Vec::new(),
    };
    if let Err(e) = cluster.wait_ready(args.settle) {
        outcome.troubles.push(format!("after the faults: {e:#}"));
    }
    compare(args, &mut outcome);
    let text = outcome.markdown();
    println!("{text}");
    if let Some(path) = &args.report {
        std::fs::write(path, &text).with_context(|| path.display().to_string())?;
    }
    let wrong = outcome.wrong();
    if !wrong.is_empty() {
        bail!("{}", wrong.join("; "));
    }
    Ok(())
}

fn new_run(args: &Args, cluster: &Cluster) -> Result<Run> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let interval_ms = (args.interval.as_millis() as i64).max(1);
    let shape = Shape {
        run: format!("{}-{now}", args.seed),
        writers: args.writers,
        series: args.series,
        interval_ms,
        start_ms: now / interval_ms * interval_ms,
    };
    let run = Run {
        shape,
        ledgers: (0..args.writers).map(|_| Ledger::default()).collect(),
        distributors: cluster.http_of("distributor"),
        queriers: cluster.http_of("querier"),
        flushers: cluster.processes.iter().filter(|p| p.is_sextant()).map(|p| p.http().to_owned()).collect(),
        seed: args.seed,
        request_timeout: args.request_timeout,
        retry_for: args.retry_for,
        stop: AtomicBool::new(false),
        counts: Counts::default(),
        began: Instant::now(),
    };
    if run.distributors.is_empty() || run.queriers.is_empty() {
        bail!("{} names no distributor or no querier", args.cluster.display());
    }
    Ok(run)
}

/// Asks every querier for everything, from memory and blocks and then from blocks alone, and reads the blocks as they are after the
/// flush and after compaction: merging hides what was stored twice.
fn compare(args: &Args, outcome: &mut Outcome<'_>) {
    let run = outcome.run;
    let mut add = |what: &str, found: Result<ledger::Findings>| {
        eprintln!("compared: {what}");
        outcome
            .comparisons
            .push(Comparison { what: what.to_owned(), found: found.map_err(|e| format!("{e:#}")) });
    };
    let blocks = || {
        let read = verify::read_blocks(outcome.cluster, &run.shape.run, &args.tenant, &args.python)?;
        eprintln!("{} blocks in manifest {}", read.count, read.manifest);
        Ok(verify::by_blocks(run, &read))
    };
    for querier in &run.queriers {
        add(&format!("querier {querier}, as it is"), verify::by_query(run, querier));
    }
    for (compact, state) in [(false, "flushed"), (true, "compacted")] {
        if let Err(e) = verify::flush_all(run, compact, args.settle) {
            outcome.troubles.push(format!("{state}: {e:#}"));
            continue;
        }
        for querier in &run.queriers {
            add(&format!("querier {querier}, {state}"), verify::by_query(run, querier));
        }
        if !args.without_blocks {
            add(&format!("blocks by DuckDB, {state}"), blocks());
        }
    }
}
