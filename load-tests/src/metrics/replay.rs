//! Sends the generated requests, one thread per connection, as fast as the server answers.

use std::{
    io::{BufReader, Read},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::peers::Peer;
use crate::client::Client;

/// What sending took.
#[derive(Clone, Copy, Debug)]
pub struct Ingest {
    /// Wall-clock seconds.
    pub wall_s: f64,
    /// CPU seconds of the server; NaN where it is not known.
    pub cpu_s: f64,
    /// Answers of 429 or 5xx, after which the request was sent again.
    pub retries: u64,
}

/// Sends everything.
pub fn send(folder: &Path, connections: usize, peer: &Peer) -> Result<Ingest> {
    let mark = peer.cpu_mark();
    let begin = Instant::now();
    let retries = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|c| scope.spawn(move || send_file(&folder.join(format!("requests-{c}.bin")), peer)))
            .collect();
        let mut total = 0;
        for t in threads {
            match t.join() {
                Ok(r) => total += r?,
                Err(_) => bail!("a sender failed"),
            }
        }
        Ok(total)
    })?;
    let wall_s = begin.elapsed().as_secs_f64();
    Ok(Ingest { wall_s, cpu_s: peer.cpu_since(&mark), retries })
}

fn send_file(file: &Path, peer: &Peer) -> Result<u64> {
    let input = std::fs::File::open(file).with_context(|| file.display().to_string())?;
    let mut input = BufReader::with_capacity(1 << 20, input);
    let mut sender = Sender::new(&peer.address, &peer.write_path);
    let mut length = [0; 4];
    let mut body = Vec::new();
    while input.read_exact(&mut length).is_ok() {
        body.resize(u32::from_le_bytes(length) as usize, 0);
        input.read_exact(&mut body).context("a cut request file")?;
        sender.send(&body)?;
    }
    Ok(sender.retries)
}

/// One connection that sends remote write 1.0.
pub struct Sender {
    client: Client,
    path: String,
    /// Answers of 429 or 5xx so far.
    pub retries: u64,
}

impl Sender {
    /// To `host:port` and a path.
    pub fn new(address: &str, path: &str) -> Self {
        Self { client: Client::new(address), path: path.to_owned(), retries: 0 }
    }

    /// Sends a request until it is taken.
    pub fn send(&mut self, body: &[u8]) -> Result<()> {
        let headers = [
            ("Content-Type", "application/x-protobuf"),
            ("Content-Encoding", "snappy"),
            ("X-Prometheus-Remote-Write-Version", "0.1.0"),
        ];
        loop {
            let answer = self.client.request("POST", &self.path, &headers, body)?;
            match answer.status {
                200 | 202 | 204 => return Ok(()),
                429 | 500..=599 if self.retries < 10_000 => {
                    self.retries += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                status => bail!("{} answered {status}: {}", self.path, String::from_utf8_lossy(&answer.body)),
            }
        }
    }
}
