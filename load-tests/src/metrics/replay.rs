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
    /// Peak resident memory of the server after it, MiB.
    pub peak_mib: f64,
    /// Answers of 429 or 5xx, after which the request was sent again.
    pub retries: u64,
}

/// Sends everything.
pub fn send(folder: &Path, connections: usize, peer: &mut Peer) -> Result<Ingest> {
    let cpu = peer.cpu_seconds();
    let begin = Instant::now();
    let retries = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections)
            .map(|c| {
                let (address, path) = (peer.address.clone(), peer.write_path.clone());
                scope.spawn(move || send_one(&folder.join(format!("requests-{c}.bin")), &address, &path))
            })
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
    Ok(Ingest { wall_s, cpu_s: peer.cpu_seconds() - cpu, peak_mib: peer.peak_mib(), retries })
}

fn send_one(file: &Path, address: &str, path: &str) -> Result<u64> {
    let mut input = BufReader::with_capacity(1 << 20, std::fs::File::open(file)?);
    let mut client = Client::new(address);
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let mut length = [0; 4];
    let mut body = Vec::new();
    let mut retries = 0;
    while input.read_exact(&mut length).is_ok() {
        body.resize(u32::from_le_bytes(length) as usize, 0);
        input.read_exact(&mut body).context("a cut request file")?;
        loop {
            let answer = client.request("POST", path, &headers, &body)?;
            match answer.status {
                200 | 202 | 204 => break,
                429 | 500..=599 if retries < 10_000 => {
                    retries += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                status => {
                    bail!("{address}{path} answered {status}: {}", String::from_utf8_lossy(&answer.body))
                }
            }
        }
    }
    Ok(retries)
}
