//! The writers, the readers and who flushes: a thread each, until they are told to stop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    answers::{self, Violation, Wrong},
    ledger::{Ledger, METRIC, Outcome, Samples, Shape},
    random::Random,
};
use crate::client::{Answer, Client, percent_encoded};

/// What all threads of a run share.
pub struct Run {
    /// What is written.
    pub shape: Shape,
    /// Requests of each writer.
    pub ledgers: Vec<Ledger>,
    /// `host:port` of those that take writes.
    pub distributors: Vec<String>,
    /// `host:port` of those that answer queries.
    pub queriers: Vec<String>,
    /// `host:port` of those that flush.
    pub flushers: Vec<String>,
    /// Seed of everything random.
    pub seed: u64,
    /// How long a request may take.
    pub request_timeout: Duration,
    /// How long a request is sent again before its outcome is left unknown.
    pub retry_for: Duration,
    /// The threads go on until this is set.
    pub stop: AtomicBool,
    /// What happened.
    pub counts: Counts,
    /// When the run began.
    pub began: Instant,
}

/// What happened.
#[derive(Default)]
pub struct Counts {
    /// Attempts that failed and were repeated.
    pub retried: AtomicU64,
    /// Requests whose outcome was left unknown after a failure, on purpose.
    pub abandoned: AtomicU64,
    /// Requests whose sender closed the connection without waiting for the answer.
    pub left: AtomicU64,
    /// Requests that were not acknowledged within the time for retries.
    pub gave_up: AtomicU64,
    /// Acknowledged requests that were sent once more to another distributor.
    pub repeated: AtomicU64,
    /// Longest time from sending to acknowledgement, milliseconds.
    pub slowest_write_ms: AtomicU64,
    /// Reads that were answered.
    pub reads: AtomicU64,
    /// Reads that were not.
    pub read_errors: AtomicU64,
    /// Longest time in which all reads of a reader failed, milliseconds.
    pub longest_read_outage_ms: AtomicU64,
    /// Flushes that were answered.
    pub flushes: AtomicU64,
    /// Flushes that were not.
    pub flush_errors: AtomicU64,
    /// Writes that were refused for good: how many, and the first reasons.
    pub refusals: Mutex<(u64, Vec<String>)>,
    /// Wrong reads by kind: how many, and the first of them.
    pub violations: Mutex<BTreeMap<Wrong, (u64, Vec<String>)>>,
    /// Errors of writes and reads, without what differs from one to the next, and how often each was.
    pub errors: Mutex<BTreeMap<String, u64>>,
}

const EXAMPLES_MAX: usize = 10;
const ERRORS_MAX: usize = 500;

impl Counts {
    fn violations(&self, at: Duration, of: Vec<Violation>, who: &str) {
        let mut all = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, text) in of {
            let (n, examples) = all.entry(kind).or_default();
            *n += 1;
            if examples.len() < EXAMPLES_MAX {
                examples.push(format!("{:.1} s, {who}: {text}", at.as_secs_f64()));
            }
        }
    }

    /// How many reads were wrong in these ways.
    pub fn wrong(&self, kinds: &[Wrong]) -> u64 {
        let all = self.violations.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(k, _)| kinds.contains(k)).map(|(_, (n, _))| n).sum()
    }

    fn error(&self, what: &str, text: &str) {
        let text: String = text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(160).collect();
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = format!("{what}: {text}");
        if errors.len() >= ERRORS_MAX && !errors.contains_key(&key) {
            key = format!("{what}: others");
        }
        *errors.entry(key).or_default() += 1;
    }
}

/// A connection to each server.
struct Clients {
    timeout: Duration,
    of: HashMap<String, Client>,
}

impl Clients {
    fn new(timeout: Duration) -> Self {
        Self { timeout, of: HashMap::new() }
    }

    fn of(&mut self, address: &str) -> &mut Client {
        let new = || Client::with_timeout(address, self.timeout);
        self.of.entry(address.to_owned()).or_insert_with(new)
    }
}

const WRITE_PATH: &str = "/api/v1/push";
const WRITE_HEADERS: [(&str, &str); 3] = [
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];
/// One request in so many is left unknown at its first failure.
const ABANDON_ONE_IN: usize = 4;
/// The sender of one request in so many does not wait for the answer.
const LEAVE_ONE_IN: usize = 50;
/// One acknowledged request in so many is sent again elsewhere, as by a sender that did not hear of it.
const REPEAT_ONE_IN: usize = 20;

impl Run {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    fn sleep_until(&self, at: Instant) {
        while self.goes_on() && Instant::now() < at {
            std::thread::sleep(at.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
    }

    /// A writer's thread.
    pub fn write(&self, writer: usize) -> Result<()> {
        let mut random = Random::new(self.seed, 1000 + writer as u64);
        let mut clients = Clients::new(self.request_timeout);
        let interval = Duration::from_millis(self.shape.interval_ms as u64);
        let mut next = Instant::now();
        let mut at = writer;
        while self.goes_on() {
            let sequence = self.ledgers[writer].begin();
            let body = self.shape.body(writer, sequence)?;
            if random.once_in(LEAVE_ONE_IN) {
                at += 1;
                let distributor = &self.distributors[at % self.distributors.len()];
                let _ = clients.of(distributor).send_and_leave("POST", WRITE_PATH, &WRITE_HEADERS, &body);
                self.counts.left.fetch_add(1, Relaxed);
                continue;
            }
            let abandons = random.once_in(ABANDON_ONE_IN);
            if self.deliver(&mut clients, &mut at, &body, abandons) {
                self.ledgers[writer].acknowledge(sequence);
                if random.once_in(REPEAT_ONE_IN) {
                    at += 1;
                    let _ = self.send(&mut clients, at, &body);
                    self.counts.repeated.fetch_add(1, Relaxed);
                }
            }
            next = (next + interval).max(Instant::now());
            self.sleep_until(next);
        }
        Ok(())
    }

    fn send(&self, clients: &mut Clients, at: usize, body: &[u8]) -> Result<Answer> {
        let distributor = &self.distributors[at % self.distributors.len()];
        clients.of(distributor).request("POST", WRITE_PATH, &WRITE_HEADERS, body)
    }

    /// Sends a request until it is acknowledged, going on to the next distributor after each failure.
    fn deliver(&self, clients: &mut Clients, at: &mut usize, body: &[u8], abandons: bool) -> bool {
        let began = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let why = match self.send(clients, *at, body) {
                Ok(answer) if answer.status < 300 => {
                    self.counts.slowest_write_ms.fetch_max(began.elapsed().as_millis() as u64, Relaxed);
                    return true;
                }
                Ok(answer) => {
                    let text = format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body).trim());
                    if answer.status < 500 && answer.status != 429 {
                        let mut refusals =
                            self.counts.refusals.lock().unwrap_or_else(PoisonError::into_inner);
                        refusals.0 += 1;
                        if refusals.1.len() < EXAMPLES_MAX {
                            refusals.1.push(text);
                        }
                        return false;
                    }
                    text
                }
                Err(e) => format!("{e:#}"),
            };
            self.counts.error("write", &why);
            *at += 1;
            if abandons {
                self.counts.abandoned.fetch_add(1, Relaxed);
                return false;
            }
            if began.elapsed() > self.retry_for {
                self.counts.gave_up.fetch_add(1, Relaxed);
                return false;
            }
            self.counts.retried.fetch_add(1, Relaxed);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// A reader's thread.
    pub fn read(&self, reader: usize) {
        let mut random = Random::new(self.seed, 2000 + reader as u64);
        let mut clients = Clients::new(self.request_timeout);
        let mut seen = vec![vec![0; self.shape.series]; self.shape.writers];
        let mut at = reader;
        let mut failing_since: Option<Instant> = None;
        while self.goes_on() {
            let writer = random.below(self.shape.writers);
            if self.ledgers[writer].latest() == 0 {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let querier = &self.queriers[at % self.queriers.len()];
            // A reader changes its querier now and then, and after each error.
            at += random.below(2);
            let kind = random.below(4);
            match self.read_once(&mut clients, querier, kind, writer, &mut random, &mut seen[writer]) {
                Ok(violations) => {
                    self.counts.reads.fetch_add(1, Relaxed);
                    let who = format!("reader {reader} of {querier}, {}", KINDS[kind]);
                    self.counts.violations(self.began.elapsed(), violations, &who);
                    failing_since = None;
                }
                Err(e) => {
                    self.counts.read_errors.fetch_add(1, Relaxed);
                    self.counts.error("read", &format!("{e:#}"));
                    let outage = failing_since.get_or_insert_with(Instant::now).elapsed();
                    self.counts.longest_read_outage_ms.fetch_max(outage.as_millis() as u64, Relaxed);
                    at += 1;
                }
            }
            self.sleep_until(Instant::now() + Duration::from_millis(20));
        }
    }

    fn read_once(
        &self,
        clients: &mut Clients,
        querier: &str,
        kind: usize,
        writer: usize,
        random: &mut Random,
        seen: &mut [u64],
    ) -> Result<Vec<Violation>> {
        let ledger = &self.ledgers[writer];
        let (sent, acknowledged) = (ledger.latest(), ledger.latest_acknowledged());
        // Half of the windows end with the latest request, the others anywhere before.
        let to = if random.once_in(2) { sent } else { 1 + random.below(sent as usize) as u64 }.max(1);
        let from = to.saturating_sub(random.below(WINDOW_MAX) as u64).max(1);
        let window = ledger.window(from, to);
        let path = match kind {
            0 => self.instant(&self.selector(writer), sent + 1),
            1 => self.instant(&self.range(writer, from, to), to),
            2 => self.steps(writer, from, to),
            _ => {
                let range = self.range(writer, from, to);
                self.instant(&format!("sum by (writer) (count_over_time({range}))"), to)
            }
        };
        let answer = clients.of(querier).request("GET", &path, &[], b"")?;
        let samples = match answers::parse(answer.status, &answer.body)? {
            Ok(samples) => samples,
            Err(partial) => return Ok(vec![partial]),
        };
        Ok(match kind {
            0 => answers::check_newest(&self.shape, writer, &samples, acknowledged, ledger.latest(), seen),
            1 => answers::check_window(&self.shape, writer, &samples, &window),
            2 => answers::check_range(&self.shape, writer, &samples, &window),
            _ => answers::check_count(&self.shape, writer, &samples, &window),
        })
    }

    fn selector(&self, writer: usize) -> String {
        format!("{METRIC}{{run=\"{}\",writer=\"{writer}\"}}", self.shape.run)
    }

    /// A range selector that, at the time of request `to`, holds the requests `from..=to` and nothing between them and `from - 1`.
    fn range(&self, writer: usize, from: u64, to: u64) -> String {
        format!("{}[{}ms]", self.selector(writer), (to - from + 1) as i64 * self.shape.interval_ms)
    }

    fn instant(&self, query: &str, at: u64) -> String {
        let time = self.shape.time(at) as f64 / 1e3;
        format!("/api/v1/query?query={}&time={time:.3}", percent_encoded(query))
    }

    fn steps(&self, writer: usize, from: u64, to: u64) -> String {
        let [start, end, step] =
            [self.shape.time(from), self.shape.time(to), self.shape.interval_ms].map(|ms| ms as f64 / 1e3);
        let query = percent_encoded(&self.selector(writer));
        format!("/api/v1/query_range?query={query}&start={start:.3}&end={end:.3}&step={step:.3}")
    }

    /// The requests `from..=to` of a writer as a querier has them.
    pub fn stored(&self, querier: &str, writer: usize, from: u64, to: u64) -> Result<Samples> {
        let mut client = Client::with_timeout(querier, Duration::from_secs(120));
        let path = self.instant(&self.range(writer, from, to), to);
        let answer = client.request("GET", &path, &[], b"")?;
        answers::parse(answer.status, &answer.body)?.map_err(|(_, text)| anyhow::anyhow!(text))
    }

    /// The thread that flushes, with and without compaction, so that reads meet blocks.
    pub fn flush(&self, every: Duration) {
        let mut random = Random::new(self.seed, 3000);
        while self.goes_on() {
            self.sleep_until(Instant::now() + every);
            let address = random.pick(&self.flushers).map_or("", String::as_str);
            let path = FLUSHES[random.below(FLUSHES.len())];
            if !self.goes_on() {
                return;
            }
            match flush(address, path, Duration::from_secs(30)) {
                Ok(()) => self.counts.flushes.fetch_add(1, Relaxed),
                Err(e) => {
                    self.counts.error("flush", &format!("{e:#}"));
                    self.counts.flush_errors.fetch_add(1, Relaxed)
                }
            };
        }
    }
}

const KINDS: [&str; 4] = ["newest", "samples", "range", "count"];
/// Requests of a window at most.
const WINDOW_MAX: usize = 100;

/// Flushes of the cluster: without and with compaction.
pub const FLUSHES: [&str; 2] = ["/api/v1/admin/flush", "/api/v1/admin/flush?compact=true"];

/// Asks for a flush.
pub fn flush(address: &str, path: &str, timeout: Duration) -> Result<()> {
    let answer = Client::with_timeout(address, timeout).request("POST", path, &[], b"")?;
    anyhow::ensure!(
        answer.status < 300,
        "{}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.body).trim()
    );
    Ok(())
}

/// Requests that are acknowledged, and that are not, over all writers.
pub fn outcomes(ledgers: &[Ledger]) -> (u64, u64) {
    let of = |o| ledgers.iter().flat_map(|l| l.window(1, l.latest())).filter(|(_, x)| *x == o).count() as u64;
    (of(Outcome::Acknowledged), of(Outcome::Unknown))
}
