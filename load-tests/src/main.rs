//! Benchmarks that anyone can run: deterministic data, the same bytes to every server, one table per run. And a checker of clusters:
//! what was acknowledged is there exactly once, whatever is done to the processes.
//!
//! Nothing of the project imports this crate, and it imports nothing of the project: it sees servers as clients do.

mod checker;
mod client;
mod metrics;
mod process;

use anyhow::Result;
use clap::Parser;

/// Sextant's load tests.
#[derive(Parser)]
enum Command {
    /// Write a deterministic stream of remote-write requests into a folder.
    Generate(metrics::GenerateArgs),
    /// Replay the stream to servers, ask queries, and print one table.
    Metrics(Box<metrics::RunArgs>),
    /// Fill a sextant's head without a flush and tell its memory per series.
    HeadMemory(metrics::head_memory::Args),
    /// Write to and read from a cluster while faults are injected, and check that nothing acknowledged is lost or doubled.
    Checker(Box<checker::Args>),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Generate(args) => metrics::generate(&args),
        Command::Metrics(args) => metrics::run(&args),
        Command::HeadMemory(args) => metrics::head_memory::run(&args),
        Command::Checker(args) => checker::run(&args),
    }
}
