//! The whole checker against a server that is right, and against servers that lose, double, forget or hide samples: it must find
//! each of them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use clap::Parser;
use regex::Regex;

use super::*;

/// How the server is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is not.
    Right,
    /// It acknowledges a sample that it does not keep.
    Loses,
    /// It keeps a sample twice.
    Doubles,
    /// It answers as it was a while ago.
    Stale,
    /// It leaves out a series, and says so.
    Partial,
    /// It keeps what nobody wrote.
    Invents,
    /// It refuses every third write once, and keeps half of them nevertheless: it is right to.
    Refuses,
}

type Rows = Vec<(i64, f64)>;

struct Server {
    fault: Fault,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writes: usize,
    reads: usize,
    series: BTreeMap<(usize, usize), Rows>,
    earlier: BTreeMap<(usize, usize), Rows>,
    lost: Option<((usize, usize), (i64, f64))>,
}

fn varint(b: &mut &[u8]) -> u64 {
    let (mut n, mut shift) = (0, 0);
    loop {
        let byte = b[0];
        *b = &b[1..];
        n |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return n;
        }
    }
}

/// A message's fields: number, and bytes or the number's little-endian form.
fn fields(mut b: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    while !b.is_empty() {
        let key = varint(&mut b);
        let length = match key & 7 {
            0 => {
                out.push((key >> 3, varint(&mut b).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            _ => varint(&mut b) as usize,
        };
        out.push((key >> 3, b.split_off(..length).unwrap().to_vec()));
    }
    out
}

impl Server {
    fn write(&self, body: &[u8]) -> u16 {
        let mut state = self.state.lock().unwrap();
        state.writes += 1;
        let refused = self.fault == Fault::Refuses && state.writes.is_multiple_of(3);
        if refused && state.writes.is_multiple_of(2) {
            return 503;
        }
        let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
        for (_, series) in fields(&raw) {
            let (mut key, mut sample) = ((0, 0), (0, 0.0));
            for (field, bytes) in fields(&series) {
                let parts = fields(&bytes);
                if field == 1 {
                    let text = |i: usize| String::from_utf8(parts[i].1.clone()).unwrap();
                    match text(0).as_str() {
                        "writer" => key.0 = text(1).parse().unwrap(),
                        "series" => key.1 = text(1).parse().unwrap(),
                        _ => {}
                    }
                } else {
                    let word = |i: usize| <[u8; 8]>::try_from(parts[i].1.clone()).unwrap();
                    sample = (i64::from_le_bytes(word(1)), f64::from_le_bytes(word(0)));
                }
            }
            let chosen = state.writes == 7 && key.1 == 1;
            let State { series, lost, .. } = &mut *state;
            let rows = series.entry(key).or_default();
            if chosen && self.fault == Fault::Loses {
                *lost = Some((key, sample));
            }
            // The request may be sent again; it is lost again.
            if *lost == Some((key, sample)) {
                continue;
            }
            // As a database does: what is there already is not stored twice.
            let wrong = chosen && self.fault == Fault::Doubles;
            if !rows.contains(&sample) || wrong {
                rows.push(sample);
            }
            if wrong {
                rows.push(sample);
            }
            if chosen && self.fault == Fault::Invents {
                rows.push((sample.0 - 1, 5.0));
            }
            rows.sort_by_key(|r| r.0);
        }
        if state.writes == 5 {
            state.earlier = state.series.clone();
        }
        if refused { 503 } else { 204 }
    }

    fn read(&self, target: &str) -> String {
        let decoded = decoded(target);
        let mut state = self.state.lock().unwrap();
        state.reads += 1;
        let stale = self.fault == Fault::Stale && state.writes > 10 && state.reads.is_multiple_of(5);
        let series = if stale { &state.earlier } else { &state.series };
        let number = |pattern: &str| {
            let found = Regex::new(pattern).unwrap().captures(&decoded)?;
            found[1].parse::<f64>().ok()
        };
        let ms = |s: f64| (s * 1000.0).round() as i64;
        let writer = number("writer=\"(\\d+)\"").unwrap() as usize;
        let mut result = Vec::new();
        let newest = |rows: &Rows, at: i64| rows.iter().rev().find(|(t, _)| *t <= at).map(|(_, v)| *v);
        let point = |t: i64, v: f64| serde_json::json!([t as f64 / 1000.0, v.to_string()]);
        let mut counted = 0;
        for (key, rows) in series.range((writer, 0)..(writer + 1, 0)) {
            if self.fault == Fault::Partial && key.1 == 1 && state.reads.is_multiple_of(5) {
                continue;
            }
            let metric = serde_json::json!({"writer": key.0.to_string(), "series": key.1.to_string()});
            if let (Some(start), Some(end), Some(step)) =
                (number("start=([\\d.]+)"), number("end=([\\d.]+)"), number("step=([\\d.]+)"))
            {
                let steps = (ms(start)..=ms(end)).step_by(ms(step) as usize);
                let values: Vec<_> = steps.filter_map(|t| Some(point(t, newest(rows, t)?))).collect();
                if !values.is_empty() {
                    result.push(serde_json::json!({"metric": metric, "values": values}));
                }
                continue;
            }
            let at = ms(number("time=([\\d.]+)").unwrap());
            if let Some(range) = number("\\[(\\d+)ms\\]") {
                let within = |t: i64| t > at - range as i64 && t <= at;
                let values: Vec<_> =
                    rows.iter().filter(|(t, _)| within(*t)).map(|(t, v)| point(*t, *v)).collect();
                counted += values.len();
                if !values.is_empty() && !decoded.contains("count_over_time") {
                    result.push(serde_json::json!({"metric": metric, "values": values}));
                }
            } else if let Some(v) = newest(rows, at) {
                result.push(serde_json::json!({"metric": metric, "value": point(at, v)}));
            }
        }
        if counted > 0 && decoded.contains("count_over_time") {
            let metric = serde_json::json!({"writer": writer.to_string()});
            result.push(serde_json::json!({"metric": metric, "value": point(0, counted as f64)}));
        }
        serde_json::json!({"status": "success", "data": {"result": result}}).to_string()
    }

    fn serve(&self, stream: TcpStream) {
        let mut input = BufReader::new(stream);
        loop {
            let (mut first, mut length) = (String::new(), 0);
            if input.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                if input.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                if let Some(n) = line.strip_prefix("Content-Length: ") {
                    length = n.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            input.read_exact(&mut body).unwrap();
            let target = first.split(' ').nth(1).unwrap();
            let (status, text) = match target.split('?').next().unwrap() {
                "/api/v1/push" => (self.write(&body), String::new()),
                "/api/v1/query" | "/api/v1/query_range" => (200, self.read(target)),
                "/ready" => (200, "ready".to_owned()),
                "/api/v1/admin/flush" => (204, String::new()),
                other => panic!("{other}"),
            };
            let length =
                if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", text.len()) };
            if input
                .get_mut()
                .write_all(format!("HTTP/1.1 {status} X\r\n{length}\r\n{text}").as_bytes())
                .is_err()
            {
                return;
            }
        }
    }
}

fn decoded(target: &str) -> String {
    let escape = Regex::new("%([0-9A-F]{2})").unwrap();
    let byte = |c: &regex::Captures<'_>| char::from(u8::from_str_radix(&c[1], 16).unwrap()).to_string();
    escape.replace_all(target, byte).into_owned()
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// Runs the checker against such a server. Returns what it found wrong, and its report.
fn checked(fault: Fault) -> (Option<String>, String) {
    let server = Arc::new(Server { fault, state: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = server.clone();
            std::thread::spawn(move || server.serve(stream));
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let cluster = serde_json::json!({"version": 1, "name": "x", "replication": 1, "shards": 1,
        "object_store": {"url": "file:///nowhere"},
        "processes": [{"name": "all-1", "role": "all", "pid": null, "folder": dir.path(), "netns": null, "zone": "a",
                       "listeners": {"http": address}}]});
    let (file, report) = (dir.path().join("cluster.json"), dir.path().join("report.md"));
    std::fs::write(&file, cluster.to_string()).unwrap();
    let cli = Cli::parse_from([
        "x",
        &format!("--cluster={}", file.display()),
        &format!("--report={}", report.display()),
        "--duration=1500ms",
        "--writers=2",
        "--series=3",
        "--interval=10ms",
        "--flush-every=200ms",
        "--faults=none,cut",
        "--without-blocks",
    ]);
    let outcome = run(&cli.args);
    (outcome.err().map(|e| format!("{e:#}")), std::fs::read_to_string(report).unwrap())
}

#[test]
fn a_right_server_is_right_and_its_report_is_whole() {
    let (wrong, report) = checked(Fault::Right);
    assert_eq!(wrong, None);
    for part in [
        "# Checker, seed 1",
        "**Nothing is wrong.**",
        "| monotonic violations | 0 |",
        "Cut: the processes have no",
    ] {
        assert!(report.contains(part), "{part:?} is not in\n{report}");
    }
    assert!(!report.contains("| acknowledged | 0 |") && !report.contains("| reads | 0 |"), "{report}");
}

#[test]
fn refused_writes_are_repeated_or_unknown_and_no_error() {
    let (wrong, report) = checked(Fault::Refuses);
    assert_eq!(wrong, None);
    assert!(!report.contains("| attempts repeated | 0 |"), "{report}");
    assert!(report.contains("write: ###"), "{report}");
}

#[test]
fn a_lost_sample_is_found() {
    let wrong = checked(Fault::Loses).0.unwrap();
    assert!(wrong.contains("1 missing, 0 doubled, 0 foreign"), "{wrong}");
}

#[test]
fn a_doubled_sample_is_found() {
    let wrong = checked(Fault::Doubles).0.unwrap();
    assert!(wrong.contains("0 missing, 1 doubled, 0 foreign"), "{wrong}");
}

#[test]
fn an_invented_sample_is_found() {
    let wrong = checked(Fault::Invents).0.unwrap();
    assert!(wrong.contains("0 missing, 0 doubled, 1 foreign"), "{wrong}");
}

#[test]
fn a_stale_read_is_found_and_that_it_goes_back() {
    let wrong = checked(Fault::Stale).0.unwrap();
    assert!(wrong.contains("Stale") && wrong.contains("Backwards"), "{wrong}");
}

#[test]
fn a_partial_answer_is_found() {
    let wrong = checked(Fault::Partial).0.unwrap();
    assert!(wrong.contains("Partial"), "{wrong}");
}
