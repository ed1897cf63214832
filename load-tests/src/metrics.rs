//! The metrics benchmark: generator, replay, queries, table.

mod generator;
mod peers;
mod queries;
mod replay;
mod report;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

pub use self::generator::Shape;

/// What the data looks like.
#[derive(Args, Clone)]
pub struct ShapeArgs {
    /// Series alive at a time.
    #[arg(long, default_value_t = 100_000)]
    series: usize,
    /// Scrapes, 15 s apart.
    #[arg(long, default_value_t = 240)]
    scrapes: usize,
    /// Samples per request.
    #[arg(long, default_value_t = 2_000)]
    batch: usize,
    /// Connections of the sender; a series always uses the same one.
    #[arg(long, default_value_t = 2)]
    connections: usize,
    /// Percent of targets that are replaced by new ones half way.
    #[arg(long, default_value_t = 5)]
    churn: usize,
    /// Native histogram series per thousand.
    #[arg(long, default_value_t = 0)]
    native: usize,
    /// Seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Time of the first scrape, Unix seconds; 0 is so that the last scrape was two minutes ago.
    #[arg(long, default_value_t = 0)]
    start: i64,
}

impl ShapeArgs {
    fn shape(&self) -> Shape {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() as i64);
        let start_s =
            if self.start > 0 { self.start } else { (now - 120 - self.scrapes as i64 * 15) / 60 * 60 };
        Shape {
            series: self.series,
            scrapes: self.scrapes,
            batch: self.batch,
            connections: self.connections.max(1),
            churn_percent: self.churn,
            native_per_thousand: self.native,
            seed: self.seed,
            start_ms: start_s * 1000,
        }
    }
}

/// Arguments of `generate`.
#[derive(Args)]
pub struct GenerateArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Folder to write `requests-N.bin` into.
    #[arg(long)]
    out: PathBuf,
}

/// Arguments of `metrics`.
#[derive(Args)]
pub struct RunArgs {
    #[command(flatten)]
    shape: ShapeArgs,
    /// Folder for requests and the servers' data; emptied first.
    #[arg(long, default_value = "target/load-test")]
    dir: PathBuf,
    /// A server to start: `sextant=PATH`, `victoria-metrics=PATH`, `prometheus=PATH`. Repeat it to compare.
    #[arg(long = "server", value_name = "KIND=PATH")]
    servers: Vec<String>,
    /// A running server: `NAME=http://HOST:PORT/WRITE/PATH`, with its process id after a comma for CPU and memory.
    #[arg(long = "peer", value_name = "NAME=URL[,PID]")]
    peers: Vec<String>,
    /// How often each query is asked; the first is counted too, caches are off where a peer can.
    #[arg(long, default_value_t = 5)]
    repeat: usize,
    /// Also write the table here.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Writes the requests.
pub fn generate(args: &GenerateArgs) -> Result<()> {
    let totals = generator::write(&args.shape.shape(), &args.out)?;
    println!(
        "{} samples of {} series in {} requests, {} bytes",
        totals.samples, totals.series, totals.requests, totals.bytes
    );
    Ok(())
}

/// Runs the benchmark.
pub fn run(args: &RunArgs) -> Result<()> {
    let shape = args.shape.shape();
    if args.dir.exists() {
        std::fs::remove_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    }
    let requests = args.dir.join("requests");
    eprintln!("generating …");
    let totals = generator::write(&shape, &requests)?;
    let mut results = Vec::new();
    for server in &args.servers {
        let (kind, path) = server.split_once('=').context("--server KIND=PATH")?;
        eprintln!("{kind} …");
        let peer = peers::start(kind, Path::new(path), &args.dir.join(kind))?;
        results.push(measure(&shape, &requests, peer, args.repeat)?);
    }
    for peer in &args.peers {
        results.push(measure(&shape, &requests, peers::running(peer)?, args.repeat)?);
    }
    let table = report::table(&shape, &totals, &results);
    println!("{table}");
    if let Some(path) = &args.report {
        std::fs::write(path, table).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn measure(shape: &Shape, requests: &Path, mut peer: peers::Peer, repeat: usize) -> Result<report::Measured> {
    let ingest = replay::send(requests, shape.connections, &mut peer)?;
    let settled = peer.settle()?;
    let queries = queries::run(shape, &mut peer, repeat)?;
    Ok(report::Measured { name: peer.name.clone(), ingest, settled, queries, peak_mib_end: peer.peak_mib() })
}
