//! What is there at the end: asked of each querier, and read from the blocks by another engine.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{
    clients::{FLUSHES, Run, flush},
    cluster::Cluster,
    ledger::{Findings, METRIC, Samples, compare},
};

/// Requests of one query.
const WINDOW: u64 = 500;

/// Compares what a querier answers with everything that was written.
pub fn by_query(run: &Run, querier: &str) -> Result<Findings> {
    let mut found = Findings::default();
    for (writer, ledger) in run.ledgers.iter().enumerate() {
        let latest = ledger.latest();
        let mut from = 1;
        while from <= latest {
            let to = (from + WINDOW - 1).min(latest);
            let samples = run
                .stored(querier, writer, from, to)
                .with_context(|| format!("{querier}: writer {writer}, requests {from} to {to}"))?;
            found.add(compare(&run.shape, writer, &ledger.window(from, to), &samples));
            from = to + 1;
        }
    }
    Ok(found)
}

/// Flushes everything, trying each process again and again.
pub fn flush_all(run: &Run, compact: bool, timeout: Duration) -> Result<()> {
    let until = Instant::now() + timeout;
    for address in run.flushers.iter().cycle() {
        match flush(address, FLUSHES[usize::from(compact)], timeout) {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() > until => return Err(e).with_context(|| format!("flush by {address}")),
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
    bail!("no process flushes")
}

/// What the blocks hold.
#[derive(Debug, Default)]
pub struct Blocks {
    /// How many there are.
    pub count: u64,
    /// The newest manifest's name.
    pub manifest: String,
    /// Every sample, from each block that holds it.
    pub samples: Samples,
}

/// Reads the run's samples from the tenant's live blocks with DuckDB.
pub fn read_blocks(cluster: &Cluster, run: &str, tenant: &str, python: &Path) -> Result<Blocks> {
    let store = match (&cluster.object_store.direct, &cluster.object_store.endpoint) {
        (Some(endpoint), _) | (None, Some(endpoint)) => {
            let path = cluster.object_store.url.strip_prefix("s3://").context("not an S3 store")?;
            format!("{endpoint}/{path}")
        }
        (None, None) => {
            cluster.object_store.url.strip_prefix("file://").context("no known store")?.to_owned()
        }
    };
    let keys = [
        ("AWS_ACCESS_KEY_ID", &cluster.object_store.access_key_id),
        ("AWS_SECRET_ACCESS_KEY", &cluster.object_store.secret_access_key),
    ];
    let credentials = keys.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let folder = tempfile::tempdir()?;
    let (script, document) = (folder.path().join("read_blocks.py"), folder.path().join("block-format.md"));
    std::fs::write(&script, include_str!("read_blocks.py"))?;
    std::fs::write(&document, include_str!("../../../docs/block-format.md"))?;
    let mut child = Command::new(python)
        .args([&script, &document])
        .args([&store, tenant, METRIC, run])
        .envs(credentials)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", python.display()))?;
    let mut blocks = Blocks::default();
    let lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    for line in lines {
        read_line(&line?, &mut blocks)?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("reading blocks with DuckDB: {status}; see above (pip install duckdb)");
    }
    Ok(blocks)
}

fn read_line(line: &str, blocks: &mut Blocks) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Line {
        Series { writer: usize, series: usize, samples: Vec<(i64, f64)> },
        End { manifest: String, blocks: u64 },
    }
    match serde_json::from_str(line).with_context(|| line.chars().take(100).collect::<String>())? {
        Line::Series { writer, series, samples } => {
            blocks.samples.entry((writer, series)).or_default().extend(samples);
        }
        Line::End { manifest, blocks: count } => (blocks.manifest, blocks.count) = (manifest, count),
    }
    Ok(())
}

/// Compares what blocks hold with everything that was written.
pub fn by_blocks(run: &Run, blocks: &Blocks) -> Findings {
    let mut found = Findings::default();
    for (writer, ledger) in run.ledgers.iter().enumerate() {
        found.add(compare(&run.shape, writer, &ledger.window(1, ledger.latest()), &blocks.samples));
    }
    for (&(writer, series), rows) in blocks.samples.range((run.ledgers.len(), 0)..) {
        let foreign = rows.len() as u64;
        let examples = vec![format!("foreign: writer {writer}, series {series}: no such writer")];
        found.add(Findings { foreign, examples, ..Findings::default() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_same_series_add_up() {
        let mut blocks = Blocks::default();
        for line in [
            r#"{"writer": 1, "series": 2, "samples": [[5, 7.0]]}"#,
            r#"{"writer": 1, "series": 2, "samples": [[5, 7.0], [6, 8.0]]}"#,
            r#"{"manifest": "1.json", "blocks": 2}"#,
        ] {
            read_line(line, &mut blocks).unwrap();
        }
        assert_eq!(blocks.samples[&(1, 2)], [(5, 7.0), (5, 7.0), (6, 8.0)]);
        assert_eq!((blocks.count, blocks.manifest.as_str()), (2, "1.json"));
        assert!(read_line("Traceback", &mut blocks).is_err());
    }
}
