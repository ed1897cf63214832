//! The metrics benchmark: generator, replay, queries, table.

mod generator;
pub mod head_memory;
mod peers;
mod queries;
mod replay;
mod report;
pub mod wire;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use self::{
    generator::{Natives, Shape, Totals},
    report::Phase,
};

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
    /// Native histogram series per thousand; 0 leaves them out.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(..=1000))]
    native: u16,
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
            native_per_thousand: usize::from(self.native),
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
    /// A running server: `NAME=http://HOST:PORT/WRITE/PATH` and, after commas, its process id (for CPU and memory), the path in
    /// front of `/api/v1`, and `floats-only` if it does not store native histograms.
    #[arg(long = "peer", value_name = "NAME=URL[,PID][,/PREFIX][,floats-only]")]
    peers: Vec<String>,
    /// When queries are asked: before everything is flushed, after it, or both.
    #[arg(long, value_enum, default_value_t = QueriesFrom::Both)]
    queries_from: QueriesFrom,
    /// How often each query is asked at least; the first is counted too, result caches are off. Fast ones are asked more often.
    #[arg(long, default_value_t = 10)]
    repeat: usize,
    /// Also write the table here.
    #[arg(long)]
    report: Option<PathBuf>,
}

/// Where queries find their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QueriesFrom {
    Head,
    Blocks,
    Both,
}

impl QueriesFrom {
    fn asks(self, phase: Phase) -> bool {
        match self {
            Self::Head => phase == Phase::Head,
            Self::Blocks => phase == Phase::Blocks,
            Self::Both => true,
        }
    }
}

/// Writes the requests.
pub fn generate(args: &GenerateArgs) -> Result<()> {
    let totals = generator::write(&args.shape.shape(), Natives::Sent, &args.out)?;
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
    let mut requests = Requests { shape, folder: args.dir.clone(), made: Vec::new() };
    let mut results = Vec::new();
    for server in &args.servers {
        let (kind, path) = server.split_once('=').context("--server KIND=PATH")?;
        let peer = peers::start(kind, Path::new(path), &args.dir.join(kind), &[])?;
        results.push(measure(&mut requests, peer, args)?);
    }
    for peer in &args.peers {
        results.push(measure(&mut requests, peers::running(peer)?, args)?);
    }
    let table = report::table(&requests.shape, &results);
    println!("{table}");
    if let Some(path) = &args.report {
        std::fs::write(path, table).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The streams of requests, each made when a server first needs it.
struct Requests {
    shape: Shape,
    folder: PathBuf,
    made: Vec<(Natives, PathBuf, Totals)>,
}

impl Requests {
    fn get(&mut self, natives: Natives) -> Result<(PathBuf, Totals)> {
        let natives = if self.shape.native_per_thousand == 0 { Natives::Sent } else { natives };
        if let Some((_, folder, totals)) = self.made.iter().find(|(n, ..)| *n == natives) {
            return Ok((folder.clone(), *totals));
        }
        eprintln!("generating …");
        let name = if natives == Natives::Sent { "requests" } else { "requests-floats" };
        let folder = self.folder.join(name);
        let totals = generator::write(&self.shape, natives, &folder)?;
        self.made.push((natives, folder.clone(), totals));
        Ok((folder, totals))
    }
}

fn measure(requests: &mut Requests, mut peer: peers::Peer, args: &RunArgs) -> Result<report::Measured> {
    let (folder, totals) = requests.get(peer.natives)?;
    let shape = &requests.shape;
    eprintln!("{}: sending …", peer.name);
    let ingest = replay::send(&folder, shape.connections, &peer)?;
    let background_s = peer.rest()?;
    let mut peaks_mib = vec![("sending", peer.peak_mib())];
    let mut queries = Vec::new();
    if args.queries_from.asks(Phase::Head) {
        eprintln!("{}: queries from the head …", peer.name);
        queries.push((Phase::Head, queries::run(shape, &peer, args.repeat)?));
        peaks_mib.push(("queries from the head", peer.peak_mib()));
    }
    eprintln!("{}: flush and compaction …", peer.name);
    let mut settled = peer.settle()?;
    settled.cpu_s += background_s;
    peaks_mib.push(("flush and compaction", peer.peak_mib()));
    if args.queries_from.asks(Phase::Blocks) {
        eprintln!("{}: queries from blocks …", peer.name);
        queries.push((Phase::Blocks, queries::run(shape, &peer, args.repeat)?));
        peaks_mib.push(("queries from blocks", peer.peak_mib()));
    }
    Ok(report::Measured { name: peer.name.clone(), totals, ingest, settled, queries, peaks_mib })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        net::{TcpListener, TcpStream},
        sync::{Arc, Mutex},
    };

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: RunArgs,
    }

    /// Takes writes and gives every query the same answer; keeps the lines and the bodies' sizes.
    fn serve(stream: TcpStream, seen: &Mutex<Vec<(String, usize)>>) {
        let mut input = BufReader::new(stream);
        loop {
            let (mut first, mut length) = (String::new(), 0);
            if input.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                input.read_line(&mut line).unwrap();
                if let Some(n) = line.strip_prefix("Content-Length: ") {
                    length = n.trim().parse().unwrap();
                }
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; length];
            input.read_exact(&mut body).unwrap();
            let answer = if first.starts_with("POST") {
                "HTTP/1.1 204 No Content\r\n\r\n".to_owned()
            } else {
                let json = r#"{"data":{"result":[{"value":[1,"2"]}]}}"#;
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{json}", json.len())
            };
            seen.lock().unwrap().push((first, length));
            input.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    }

    fn fake() -> (String, Arc<Mutex<Vec<(String, usize)>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
        let of_thread = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = of_thread.clone();
                std::thread::spawn(move || serve(stream, &seen));
            }
        });
        (address, seen)
    }

    #[test]
    fn running_peers_get_the_same_floats_and_every_query_before_and_after_settling() {
        let dir = tempfile::tempdir().unwrap();
        let report = dir.path().join("report.md");
        let ((all, seen), (floats, of_floats)) = (fake(), fake());
        let cli = Cli::parse_from([
            "x",
            "--series=1000",
            "--scrapes=4",
            "--batch=100",
            "--start=1700000000",
            "--repeat=1",
            &format!("--dir={}", dir.path().join("data").display()),
            &format!("--peer=all=http://{all}/push"),
            &format!("--peer=floats=http://{floats}/write,floats-only,/api"),
            &format!("--report={}", report.display()),
        ]);
        run(&cli.args).unwrap();
        let text = std::fs::read_to_string(report).unwrap();
        for part in [
            "4000 samples (40 of them native histograms) of 1000 series",
            "floats, which does not store native histograms, was sent the 3960 floats",
            "| CPU s per million samples, sent | – | – | – |",
            "| bytes per sample, everything on disk | – | – | – |",
            "Queries from the head",
            "Queries from blocks",
            "1 series, equal to floats",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let count = |seen: &Mutex<Vec<(String, usize)>>, start: &str| {
            let seen = seen.lock().unwrap();
            seen.iter()
                .filter(|(line, _)| line.starts_with(start))
                .map(|(l, _)| l.clone())
                .collect::<Vec<_>>()
        };
        assert!(count(&seen, "POST /push ").len() >= 40);
        let mut asked = count(&seen, "GET /api/v1/query");
        asked.dedup();
        assert_eq!(asked.len(), queries::QUERIES.len() * 2);
        assert!(asked.iter().all(|l| l.contains("&nocache=1")));
        let mut asked = count(&of_floats, "GET /api/api/v1/query");
        asked.dedup();
        assert_eq!(asked.len(), (queries::QUERIES.len() - 1) * 2);
        let bytes = |seen: &Mutex<Vec<(String, usize)>>| -> usize {
            seen.lock().unwrap().iter().map(|(_, length)| length).sum()
        };
        assert!(bytes(&of_floats) > 0 && bytes(&of_floats) < bytes(&seen));
    }

    #[test]
    fn one_phase_can_be_asked_alone() {
        assert!(QueriesFrom::Head.asks(Phase::Head) && !QueriesFrom::Head.asks(Phase::Blocks));
        assert!(QueriesFrom::Blocks.asks(Phase::Blocks) && !QueriesFrom::Blocks.asks(Phase::Head));
        assert!(QueriesFrom::Both.asks(Phase::Head) && QueriesFrom::Both.asks(Phase::Blocks));
    }
}
