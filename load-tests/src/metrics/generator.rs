//! Kubernetes-like series, deterministic by seed: pods of workloads, scraped as targets.
//!
//! Of a hundred series 45 are integer counters (10 of one name), 20 integer gauges, 15 float gauges, 14 belong to classic
//! histograms, the rest are constants and native histograms. Series have 11 to 15 labels. A target's series share its scrape
//! times: every 15 s with 0 to 5 ms of jitter. Half way a part of the targets is replaced by new pods.

mod series;
#[cfg(test)]
mod tests;

use std::{fs::File, io::Write, path::Path};

use anyhow::{Context, Result};

use self::series::{Random, SERIES_PER_TARGET, Target, Value};
use super::wire;

#[cfg(test)]
pub(super) use self::tests::Catalogue;

/// What is generated.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Series alive at a time.
    pub series: usize,
    /// Scrapes.
    pub scrapes: usize,
    /// Samples per request.
    pub batch: usize,
    /// Connections of the sender.
    pub connections: usize,
    /// Percent of targets replaced half way.
    pub churn_percent: usize,
    /// Native histogram series per thousand.
    pub native_per_thousand: usize,
    /// Seed.
    pub seed: u64,
    /// Time of the first scrape, milliseconds.
    pub start_ms: i64,
}

/// What was generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Samples, native histograms included.
    pub samples: u64,
    /// Native histograms among them.
    pub natives: u64,
    /// Distinct series.
    pub series: u64,
    /// Requests.
    pub requests: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// Whether the stream holds native histograms. The floats are the same either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Natives {
    /// It does.
    Sent,
    /// They are left out, for a server that does not store them.
    LeftOut,
}

const INTERVAL_MS: i64 = 15_000;

impl Shape {
    /// Time of the last scrape, seconds, before targets' offsets.
    pub fn end_s(&self) -> i64 {
        (self.start_ms + (self.scrapes as i64 - 1) * INTERVAL_MS) / 1000
    }
}

/// Takes requests as they are made.
pub trait Sink {
    /// A compressed request for a connection.
    fn request(&mut self, connection: usize, body: Vec<u8>) -> Result<()>;

    /// So many scrapes are generated. Samples of the last may still wait for their request to be full.
    fn scraped(&mut self, _scrapes: usize) -> Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Connection {
    raw: Vec<u8>,
    samples: usize,
}

/// Generates everything into a sink, in order of time.
pub fn generate(shape: &Shape, natives: Natives, sink: &mut impl Sink) -> Result<Totals> {
    let mut connections: Vec<Connection> = (0..shape.connections).map(|_| Connection::default()).collect();
    let count = shape.series.div_ceil(SERIES_PER_TARGET);
    let mut targets: Vec<Target> = (0..count).map(|i| Target::new(shape, i, 0)).collect();
    let sent =
        |t: &Target| t.series.iter().filter(|s| natives == Natives::Sent || !s.is_native()).count() as u64;
    let mut totals = Totals { series: targets.iter().map(sent).sum(), ..Totals::default() };
    let mut random = Random(shape.seed.wrapping_mul(77));
    let mut encoder = snap::raw::Encoder::new();
    let mut scratch = Vec::new();
    for scrape in 0..shape.scrapes {
        if scrape > 0 && scrape == shape.scrapes / 2 {
            let replaced = count * shape.churn_percent / 100;
            for (i, t) in targets.iter_mut().enumerate().take(replaced) {
                *t = Target::new(shape, i, 1);
                totals.series += sent(t);
            }
        }
        for t in &mut targets {
            let at = shape.start_ms + scrape as i64 * INTERVAL_MS + t.offset_ms + random.below(6) as i64;
            t.step(&mut random);
            for s in &t.series {
                let c = &mut connections[s.connection];
                match s.value() {
                    Value::Float(v) => wire::series(&mut c.raw, &mut scratch, &s.labels, v, at),
                    Value::Native(_) if natives == Natives::LeftOut => continue,
                    Value::Native(h) => {
                        wire::native_series(&mut c.raw, &mut scratch, &s.labels, h, at);
                        totals.natives += 1;
                    }
                }
                c.samples += 1;
                totals.samples += 1;
                if c.samples == shape.batch {
                    flush(s.connection, c, &mut encoder, sink, &mut totals)?;
                }
            }
        }
        sink.scraped(scrape + 1)?;
    }
    for (i, c) in connections.iter_mut().enumerate().filter(|(_, c)| c.samples > 0) {
        flush(i, c, &mut encoder, sink, &mut totals)?;
    }
    Ok(totals)
}

fn flush(
    connection: usize,
    c: &mut Connection,
    encoder: &mut snap::raw::Encoder,
    sink: &mut impl Sink,
    totals: &mut Totals,
) -> Result<()> {
    let body = encoder.compress_vec(&c.raw)?;
    totals.requests += 1;
    totals.bytes += body.len() as u64;
    c.raw.clear();
    c.samples = 0;
    sink.request(connection, body)
}

struct Files(Vec<std::io::BufWriter<File>>);

impl Sink for Files {
    fn request(&mut self, connection: usize, body: Vec<u8>) -> Result<()> {
        let file = &mut self.0[connection];
        file.write_all(&(body.len() as u32).to_le_bytes())?;
        Ok(file.write_all(&body)?)
    }
}

/// Writes `requests-<connection>.bin`: for each request its length (u32, little-endian) and its body.
pub fn write(shape: &Shape, natives: Natives, folder: &Path) -> Result<Totals> {
    std::fs::create_dir_all(folder)?;
    let files = (0..shape.connections)
        .map(|c| {
            let path = folder.join(format!("requests-{c}.bin"));
            let file = File::create(&path).with_context(|| path.display().to_string())?;
            Ok(std::io::BufWriter::with_capacity(1 << 20, file))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut files = Files(files);
    let totals = generate(shape, natives, &mut files)?;
    for file in &mut files.0 {
        file.flush()?;
    }
    Ok(totals)
}
