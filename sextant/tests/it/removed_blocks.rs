//! A query whose manifest names blocks that the compactor has merged and deleted since begins again over the newest manifest.
//!
//! Two processes on one object store: one writes and compacts, the other one only reads and hears of it later.

use std::path::{Path, PathBuf};

use prost::Message;
use sextant_proto::remote_write::{
    ExemplarV1, Label, MetricMetadataV1, SampleV1, TimeSeriesV1, WriteRequestV1,
};

use crate::{
    binary::Sextant,
    ledger::{ask, eventually, flush},
};

/// What the reading process logs when it begins again.
const BEGINS_AGAIN: &str = "a block was removed during a query";

fn label(name: &str, value: impl Into<String>) -> Label {
    Label { name: name.into(), value: value.into() }
}

/// Seconds at which the current two hours began: what is written there is merged when that is asked for, and not before.
fn window() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    now - now % 7200
}

/// A series with a sample and an exemplar, and metadata.
fn body(at_s: i64, n: i64) -> Vec<u8> {
    let timestamp = (at_s + n) * 1000;
    let series = TimeSeriesV1 {
        labels: vec![label("__name__", "moved_total"), label("n", n.to_string())],
        samples: vec![SampleV1 { value: n as f64, timestamp }],
        exemplars: vec![ExemplarV1 { labels: vec![label("trace_id", "x")], value: 1.0, timestamp }],
        ..TimeSeriesV1::default()
    };
    let metadata = MetricMetadataV1 {
        r#type: 1,
        metric_family_name: "moved_total".into(),
        help: "Moved.".into(),
        ..MetricMetadataV1::default()
    };
    let raw = WriteRequestV1 { timeseries: vec![series], metadata: vec![metadata] }.encode_to_vec();
    snap::raw::Encoder::new().compress_vec(&raw).unwrap()
}

fn blocks(objects: &Path) -> Vec<PathBuf> {
    let dir = objects.join("tenants/anonymous/metrics/blocks");
    std::fs::read_dir(dir).map(|d| d.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
}

/// A reading process that has taken the newest manifest and read no block yet.
fn reader(folder: &Path, store: &str) -> Sextant {
    std::fs::create_dir_all(folder).unwrap();
    let args = ["--agent.host-metrics=false", "--compactor.interval=1h", "--log.level=info", store];
    let reader = Sextant::start(folder, &args, None);
    let (status, page) = reader.get("/api/v1/overview");
    assert!(status == 200 && page.contains("\"anonymous\""), "{page}");
    reader
}

#[test]
fn a_query_begins_again_when_its_blocks_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let objects = folder.path().join("objects");
    let store = format!("--object-store=file://{}", objects.display());
    let args =
        ["--agent.host-metrics=false", "--compactor.interval=100ms", "--compactor.delete-delay=0s", &store];
    let writer = Sextant::start(folder.path(), &args, None);
    let begin = window();
    let end = begin + 100;
    let range = format!("start={begin}&end={end}");
    // Each with what its answer has when `N` series were written.
    let questions = [
        (format!("/api/v1/query?query=count(count_over_time(moved_total[100s]))&time={end}"), ",\"N\"]"),
        (format!("/api/v1/query_range?query=count(moved_total)&{range}&step=10"), ",\"N\"]"),
        (format!("/api/v1/series?match[]=moved_total&{range}"), "\"n\":\"N\""),
        (format!("/api/v1/labels?{range}"), "\"n\""),
        (format!("/api/v1/label/n/values?{range}"), "\"N\""),
        (format!("/api/v1/query_exemplars?query=moved_total&{range}"), "\"n\":\"N\""),
        ("/api/v1/metadata".to_owned(), "Moved."),
        ("/api/v1/sql?q=select+count(*)+as+n+from+samples+where+name='moved_total'".to_owned(), "\"n\":N"),
    ];
    let mut n = 0;
    let mut began_again = 0;
    for (question, expected) in &questions {
        for _ in 0..2 {
            n += 1;
            let written =
                ask(&writer, None, "/api/v1/push", "application/x-protobuf", body(begin, n)).unwrap();
            assert_eq!(written.0, 204, "{}", written.1);
            assert_eq!(flush(&writer, None), (204, String::new()));
        }
        let home = folder.path().join(format!("reader-{n}"));
        let reader = reader(&home, &store);
        let before = blocks(&objects);
        let done = ask(&writer, None, "/api/v1/admin/flush?compact=true", "", vec![]).unwrap();
        assert_eq!(done.0, 204, "{}", done.1);
        eventually("the merged blocks are deleted", || {
            let now = blocks(&objects);
            if before.iter().any(|b| now.contains(b)) { Err(format!("{now:?}")) } else { Ok(()) }
        });
        let (status, answer) = reader.get(question);
        assert_eq!(status, 200, "{question}: {answer}");
        let expected = expected.replace('N', &n.to_string());
        assert!(answer.contains(&expected), "{question}: no {expected} in {answer}");
        let log = std::fs::read_to_string(home.join("log.txt")).unwrap();
        began_again += usize::from(log.contains(BEGINS_AGAIN));
    }
    // A reader that was held up for seconds has taken the new manifest by itself.
    assert!(began_again > 0, "no query met a block that was gone");
    println!("{began_again} of {} queries began again", questions.len());
}

#[test]
fn a_block_that_is_lost_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let objects = folder.path().join("objects");
    let store = format!("--object-store=file://{}", objects.display());
    let args = ["--agent.host-metrics=false", &store];
    let writer = Sextant::start(folder.path(), &args, None);
    for n in 1..=2 {
        assert_eq!(ask(&writer, None, "/api/v1/push", "application/x-protobuf", body(0, n)).unwrap().0, 204);
        assert_eq!(flush(&writer, None), (204, String::new()));
    }
    let lost = blocks(&objects).remove(0);
    std::fs::remove_dir_all(&lost).unwrap();
    let reader = reader(&folder.path().join("reader"), &store);
    let id = lost.file_name().unwrap().to_str().unwrap();
    for question in [
        "/api/v1/query?query=count_over_time(moved_total[100s])&time=100",
        "/api/v1/series?match[]=moved_total&start=0&end=100",
        "/api/v1/sql?q=select+count(*)+as+n+from+samples",
    ] {
        let (status, answer) = reader.get(question);
        assert!(
            status == 503 && answer.contains(id) && answer.contains("does not exist"),
            "{status}: {answer}"
        );
    }
}
