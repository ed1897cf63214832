//! A query whose client leaves, or whose time is over, stops working: seen by the CPU time of the threads that answer queries.
//! CPU time and not the clock is measured, so a busy machine makes no difference.

use std::{
    io::Write,
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::binary::{Sextant, encode, remote_write};

/// What work may go on for after the client has left: 100 ms on each of the query threads.
const MORE: u64 = 100;
const SAMPLES: i64 = 2000;

fn filled(folder: &std::path::Path) -> Sextant {
    let args = ["--agent.host-metrics=false", "--querier.timeout=300s", "--querier.max-samples=500000000"];
    let sextant = Sextant::start(folder, &args, None);
    for part in 0..4 {
        let series: Vec<_> = (part * 50..part * 50 + 50)
            .map(|pod| {
                let labels = vec![("__name__", "m".to_owned()), ("pod", format!("pod-{pod}"))];
                let value = |i: i64| ((i * 7919 + pod * 104_729) % 10_007) as f64;
                (labels, (0..SAMPLES).map(|i| (i * 15_000, value(i))).collect())
            })
            .collect();
        let (status, text) =
            sextant.post("/api/v1/push", "application/x-protobuf", remote_write(&series)).unwrap();
        assert_eq!(status, 204, "{text}");
    }
    sextant
}

/// CPU milliseconds of the query threads, and how many there are.
fn query_cpu_ms(sextant: &Sextant) -> (u64, u64) {
    let mut sum = (0, 0);
    for thread in std::fs::read_dir(format!("/proc/{}/task", sextant.child.id())).unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(thread.path().join("stat")) else { continue };
        let (Some(begin), Some(end)) = (stat.find('('), stat.rfind(')')) else { continue };
        if &stat[begin + 1..end] == "query" {
            let fields: Vec<&str> = stat[end + 1..].split_whitespace().collect();
            let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
            // A tick is a hundredth of a second on every Linux.
            sum = (sum.0 + ticks * 10, sum.1 + 1);
        }
    }
    sum
}

/// Waits until the query threads have worked for `ms` more than at `since`.
fn wait_for_work(sextant: &Sextant, since: u64, ms: u64, what: &str) {
    let until = Instant::now() + Duration::from_secs(120);
    while query_cpu_ms(sextant).0 < since + ms {
        assert!(Instant::now() < until, "{what} does not work");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How much the query threads work from now on, until they have done nothing for a while or far too much.
fn work_from_now(sextant: &Sextant) -> u64 {
    let (begin, threads) = query_cpu_ms(sextant);
    let (mut last, mut idle) = (begin, 0);
    while idle < 25 && last < begin + 10 * MORE * threads {
        std::thread::sleep(Duration::from_millis(20));
        let now = query_cpu_ms(sextant).0;
        idle = if now == last { idle + 1 } else { 0 };
        last = now;
    }
    last - begin
}

fn paths() -> Vec<(&'static str, String)> {
    let end = SAMPLES * 15;
    let range =
        |q: &str, step: i64| format!("/api/v1/query_range?query={}&start=0&end={end}&step={step}", encode(q));
    let instant = |q: &str| format!("/api/v1/query?query={}&time={end}", encode(q));
    let sql = |q: &str| format!("/api/v1/sql?q={}", encode(q));
    vec![
        ("quantiles over long windows", range("quantile_over_time(0.5, m[8h])", 3)),
        ("a subquery of many steps", instant("max_over_time(sum by (pod) (stddev_over_time(m[4h]))[8h:1s])")),
        (
            "a match of many with one",
            range("max_over_time((m * on () group_left () sum(mad_over_time(m[1h])))[8h:5s])", 30),
        ),
        (
            "a cross join in SQL",
            sql("select sum(a.value * b.value) from samples a, samples b where a.value + b.value > 3"),
        ),
        (
            "promql() in SQL",
            sql(
                "select count(*) from promql('quantile_over_time(0.5, m[8h])', '1970-01-01T00:00:00Z', '1970-01-01T08:20:00Z', '3s')",
            ),
        ),
    ]
}

#[test]
fn the_work_ends_when_the_client_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    for (what, path) in paths() {
        let before = query_cpu_ms(&sextant).0;
        let mut client = TcpStream::connect(sextant.url.trim_start_matches("http://")).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        wait_for_work(&sextant, before, 300, what);
        drop(client);
        let (more, threads) = (work_from_now(&sextant), query_cpu_ms(&sextant).1);
        assert!(more <= MORE * threads, "{what}: {more} ms of work after the client left");
    }
}

#[test]
fn the_work_ends_with_its_time() {
    let folder = tempfile::tempdir().unwrap();
    let sextant = filled(folder.path());
    for (what, path) in paths().into_iter().filter(|(_, path)| path.contains("/query")) {
        let (status, body) = sextant.get(&format!("{path}&timeout=50ms"));
        let begin = &body[..body.len().min(300)];
        assert_eq!(status, 503, "{what}: {begin}");
        assert!(begin.contains("\"errorType\":\"timeout\""), "{what}: {begin}");
        let (more, threads) = (work_from_now(&sextant), query_cpu_ms(&sextant).1);
        assert!(more <= MORE * threads, "{what}: {more} ms of work after the time was over");
    }
}
