//! Memory of recent data: many series written into a sextant that does not flush, and its resident memory per series as the
//! samples of each grow.

use std::{
    fmt::Write,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    ShapeArgs,
    generator::{self, Natives, Sink, Totals},
    peers::{self, Peer},
    replay::Sender,
};
use crate::{
    client::Client,
    process::{CpuMark, Memory, memory},
};

/// Arguments of `head-memory`.
#[derive(clap::Args)]
pub struct Args {
    /// The sextant binary.
    #[arg(long)]
    sextant: PathBuf,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Folder for the server's data, its log included; emptied first.
    #[arg(long, default_value = "target/head-memory")]
    dir: PathBuf,
    /// Bound of the head's memory: `ingester.head_memory_max`.
    #[arg(long, default_value = "16GiB")]
    head_memory_max: String,
    /// Rows of the table: how often memory is read while samples arrive.
    #[arg(long, default_value_t = 8)]
    rows: usize,
    /// Also write the table here.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Requests that wait for a connection: enough that it never idles.
const WAITING: usize = 16;

/// Runs it.
pub fn run(args: &Args) -> Result<()> {
    let shape = args.shape.shape();
    if args.dir.exists() {
        std::fs::remove_dir_all(&args.dir).with_context(|| args.dir.display().to_string())?;
    }
    // Neither age nor size flushes within the run.
    let flags = [
        "--ingester.flush-age=30d".to_owned(),
        format!("--ingester.flush-samples={}", u64::MAX / 2),
        format!("--ingester.head-memory-max={}", args.head_memory_max),
    ];
    let peer = peers::start("sextant", &args.sextant, &args.dir, &flags)?;
    let pid = peer.pid().context("no process")?;
    let mut live = Live::new(&peer, shape.connections, pid, (shape.scrapes / args.rows.max(1)).max(1))?;
    let begin = Instant::now();
    let mark = CpuMark::now(pid)?;
    let totals = generator::generate(&shape, Natives::Sent, &mut live)?;
    let retries = live.finish()?;
    let (wall_s, cpu_s) = (begin.elapsed().as_secs_f64(), mark.seconds_since()?);
    live.read(shape.scrapes)?;
    if metric(&live.metrics()?, "seals_total") != Some(0.0) {
        bail!("the head was flushed within the run: the figures are not of a head");
    }
    let text = report(shape.series, &totals, &live.rows, retries, wall_s, cpu_s);
    println!("{text}");
    if let Some(path) = &args.report {
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Memory after so many scrapes.
struct Row {
    scrapes: usize,
    memory: Memory,
    /// What the server says of itself, bytes.
    head: f64,
    log: f64,
}

/// Sends requests while they are generated: together they would take more disk than most have.
struct Live {
    connections: Vec<(SyncSender<Vec<u8>>, JoinHandle<Result<u64>>)>,
    address: String,
    pid: u32,
    every: usize,
    rows: Vec<Row>,
}

impl Live {
    fn new(peer: &Peer, connections: usize, pid: u32, every: usize) -> Result<Self> {
        let connections = (0..connections)
            .map(|_| {
                let (send, receive) = sync_channel(WAITING);
                let sender = Sender::new(&peer.address, &peer.write_path);
                (send, std::thread::spawn(move || deliver(&receive, sender)))
            })
            .collect();
        let rows = vec![Row { scrapes: 0, memory: memory(pid)?, head: 0.0, log: 0.0 }];
        Ok(Self { connections, address: peer.address.clone(), pid, every, rows })
    }

    fn metrics(&self) -> Result<String> {
        let answer = Client::new(&self.address).request("GET", "/metrics", &[], b"")?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    fn read(&mut self, scrapes: usize) -> Result<()> {
        let text = self.metrics()?;
        let bytes = |name| metric(&text, name).unwrap_or(f64::NAN);
        let memory = memory(self.pid)?;
        let (head, log) = (bytes("head_memory_bytes"), bytes("log_bytes"));
        self.rows.retain(|r| r.scrapes != scrapes);
        self.rows.push(Row { scrapes, memory, head, log });
        eprintln!("{scrapes} scrapes: {} MiB resident", memory.resident >> 20);
        Ok(())
    }

    /// Waits until everything is sent. Returns how many requests were sent again.
    fn finish(&mut self) -> Result<u64> {
        let mut retries = 0;
        for (send, thread) in self.connections.drain(..) {
            drop(send);
            retries += thread.join().map_err(|_| anyhow!("a sender failed"))??;
        }
        Ok(retries)
    }
}

fn deliver(requests: &Receiver<Vec<u8>>, mut sender: Sender) -> Result<u64> {
    for body in requests {
        sender.send(&body)?;
    }
    Ok(sender.retries)
}

impl Sink for Live {
    fn request(&mut self, connection: usize, body: Vec<u8>) -> Result<()> {
        if self.connections[connection].0.send(body).is_err() {
            self.finish()?;
            bail!("a sender ended before its requests");
        }
        Ok(())
    }

    fn scraped(&mut self, scrapes: usize) -> Result<()> {
        if scrapes == 1 || scrapes.is_multiple_of(self.every) {
            self.read(scrapes)?;
        }
        Ok(())
    }
}

/// A value of the ingester's from `/metrics`.
fn metric(text: &str, name: &str) -> Option<f64> {
    let name = format!("sextant_ingester_{name}");
    let line = text.lines().find(|l| l.split([' ', '{']).next() == Some(&name))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// The table; bytes per series are per series that is alive at a time, so that those which churn left behind weigh on them.
fn report(alive: usize, totals: &Totals, rows: &[Row], retries: u64, wall_s: f64, cpu_s: f64) -> String {
    let mut out = String::new();
    let series = alive as f64;
    let start = rows.first().map_or(0, |r| r.memory.resident);
    let _ = writeln!(
        out,
        "{} samples ({} of them native histograms) of {} series, {alive} at a time, in {wall_s:.0} s: {:.3} CPU s per million \
         samples, {retries} requests sent again. {} MiB were resident before the first.\n",
        totals.samples,
        totals.natives,
        totals.series,
        cpu_s * 1e6 / totals.samples as f64,
        start >> 20
    );
    out.push_str(
        "| scrapes | resident MiB | bytes per series | anonymous, per series | head's own count, per series | log, MiB |\n\
         |---:|---:|---:|---:|---:|---:|\n",
    );
    for r in rows.iter().skip(1) {
        let _ = writeln!(
            out,
            "| {} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
            r.scrapes,
            r.memory.resident >> 20,
            r.memory.resident as f64 / series,
            r.memory.anonymous as f64 / series,
            r.head / series,
            r.log / 1048576.0
        );
    }
    if let Some(last) = rows.last() {
        let _ = writeln!(
            out,
            "\nPeak: {} MiB, {:.0} bytes per series; at the end {:.0} bytes per series.",
            last.memory.peak >> 20,
            last.memory.peak as f64 / series,
            last.memory.resident as f64 / series
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_found_by_their_whole_name() {
        let text = "# HELP sextant_ingester_log_bytes x\nsextant_ingester_log_bytes_total 1\nsextant_ingester_log_bytes 7\n\
                    sextant_ingester_refused_samples_total{reason=\"a\"} 3\n";
        assert_eq!(metric(text, "log_bytes"), Some(7.0));
        assert_eq!(metric(text, "refused_samples_total"), Some(3.0));
        assert_eq!(metric(text, "head"), None);
    }

    #[test]
    fn the_table_is_per_series_alive() {
        let totals = Totals { samples: 4000, natives: 40, series: 1100, requests: 2, bytes: 9 };
        let memory = |resident| Memory { peak: 5 << 20, resident, anonymous: resident / 2 };
        let row = |scrapes, resident| Row { scrapes, memory: memory(resident), head: 1000.0, log: 1048576.0 };
        let text = report(1000, &totals, &[row(0, 1 << 20), row(4, 4_000_000)], 0, 2.0, 0.5);
        for part in [
            "4000 samples (40 of them native histograms) of 1100 series, 1000 at a time",
            "125.000 CPU s per million samples",
            "1 MiB were resident before",
            "| 4 | 3 | 4000 | 2000 | 1 | 1 |",
            "Peak: 5 MiB, 5243 bytes per series; at the end 4000 bytes per series.",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
