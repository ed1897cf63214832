//! What a test has written to a process, acknowledged or not, and the check that it is all there exactly once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::binary::{Sextant, encode, remote_write};

/// A request with the tenant's header; status and body.
pub fn ask(
    sextant: &Sextant,
    tenant: Option<&str>,
    path: &str,
    content_type: &str,
    body: Vec<u8>,
) -> Result<(u16, String), reqwest::Error> {
    let request = sextant.client.post(format!("{}{path}", sextant.url)).header("Content-Type", content_type);
    let request = tenant.into_iter().fold(request, |r, t| r.header("X-Scope-OrgID", t));
    let response = request.body(body).send()?;
    Ok((response.status().as_u16(), response.text()?))
}

/// A PromQL instant query; status and body.
pub fn promql(sextant: &Sextant, tenant: Option<&str>, query: &str, at_s: i64) -> (u16, String) {
    let form = format!("query={}&time={at_s}", encode(query));
    ask(sextant, tenant, "/api/v1/query", "application/x-www-form-urlencoded", form.into()).unwrap()
}

/// A SQL question; status and body.
pub fn sql(sextant: &Sextant, tenant: Option<&str>, question: &str) -> (u16, String) {
    ask(sextant, tenant, "/api/v1/sql", "text/plain", question.into()).unwrap()
}

/// Everything in memory into blocks; status and body.
pub fn flush(sextant: &Sextant, tenant: Option<&str>) -> (u16, String) {
    ask(sextant, tenant, "/api/v1/admin/flush", "text/plain", Vec::new()).unwrap()
}

/// Waits until something holds; for what happens by itself in the background.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        match look() {
            Ok(found) => return found,
            Err(why) => assert!(Instant::now() < until, "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How a write ended.
#[derive(Debug)]
pub enum Written {
    /// 204.
    Acknowledged,
    /// 429 or 5xx: not known whether it was stored.
    Refused(u16, String),
    /// The process is gone.
    Gone,
}

/// Batches of new series with one sample each: batch `n` is at second `n`, its series `k` has the value `1000 n + k`.
pub struct Ledger {
    /// The tenant's header.
    pub tenant: Option<String>,
    /// Series of a batch.
    pub series: i64,
    /// The metric.
    pub name: String,
    padding: usize,
    next: i64,
    /// Batches that were acknowledged.
    pub acknowledged: BTreeSet<i64>,
    /// Batches without an answer, or with an error: there or not, but not twice.
    pub unknown: BTreeSet<i64>,
}

impl Ledger {
    /// An empty ledger of a metric.
    pub fn new(tenant: Option<&str>, name: &str, series: i64) -> Self {
        Self {
            tenant: tenant.map(str::to_owned),
            series,
            name: name.to_owned(),
            padding: 1,
            next: 1,
            acknowledged: BTreeSet::new(),
            unknown: BTreeSet::new(),
        }
    }

    /// Gives every series a label of so many bytes, to fill logs and memory with few series.
    pub fn padded(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }

    /// Writes the next batch.
    pub fn write(&mut self, sextant: &Sextant) -> Written {
        let n = self.next;
        self.next += 1;
        let series: Vec<_> = (0..self.series)
            .map(|k| {
                let labels = vec![
                    ("__name__", self.name.clone()),
                    ("batch", n.to_string()),
                    ("padding", "x".repeat(self.padding)),
                    ("series", k.to_string()),
                ];
                (labels, vec![(n * 1000, (n * 1000 + k) as f64)])
            })
            .collect();
        let body = remote_write(&series);
        match ask(sextant, self.tenant.as_deref(), "/api/v1/push", "application/x-protobuf", body) {
            Ok((204, _)) => {
                self.acknowledged.insert(n);
                Written::Acknowledged
            }
            Ok((status, body)) if status >= 500 || status == 429 => {
                self.unknown.insert(n);
                Written::Refused(status, body)
            }
            Ok((status, body)) => panic!("{status}: {body}"),
            Err(_) => {
                self.unknown.insert(n);
                Written::Gone
            }
        }
    }

    /// Writes so many batches, each of which must be acknowledged.
    pub fn write_all(&mut self, sextant: &Sextant, count: usize) {
        for _ in 0..count {
            let written = self.write(sextant);
            assert!(matches!(written, Written::Acknowledged), "{written:?}");
        }
    }

    /// Writes until a batch is refused; status and reason.
    pub fn write_until_refused(&mut self, sextant: &Sextant, at_most: usize) -> (u16, String) {
        for _ in 0..at_most {
            match self.write(sextant) {
                Written::Acknowledged => {}
                Written::Refused(status, reason) => return (status, reason),
                Written::Gone => panic!("the process is gone"),
            }
        }
        panic!("{at_most} batches and none refused");
    }

    /// Checks by SQL and by PromQL that each acknowledged sample is there once, and nothing that was not sent.
    pub fn check(&self, sextant: &Sextant, what: &str) {
        let tenant = self.tenant.as_deref();
        let question = format!(
            "select batch, count(*) as n, count(distinct series) as k, sum(value) as v, min(time) = max(time) as one \
             from samples where name = '{}' group by batch",
            self.name
        );
        let (status, body) = sql(sextant, tenant, &question);
        assert_eq!(status, 200, "{what}: {body}");
        let rows: serde_json::Value = serde_json::from_str(&body).unwrap();
        let mut by_sql = BTreeMap::new();
        for row in rows.as_array().unwrap() {
            let batch: i64 = row["batch"].as_str().unwrap().parse().unwrap();
            let (n, v) = (row["n"].as_i64().unwrap(), row["v"].as_f64().unwrap());
            assert!(self.acknowledged.contains(&batch) || self.unknown.contains(&batch), "{what}: {row}");
            assert!(n <= self.series && row["k"] == row["n"] && row["one"] == true, "{what}: {row}");
            if n == self.series {
                let sum = self.series * batch * 1000 + self.series * (self.series - 1) / 2;
                assert_eq!(v, sum as f64, "{what}: {row}");
            }
            by_sql.insert(batch, n);
        }
        for batch in &self.acknowledged {
            let found = by_sql.get(batch);
            assert_eq!(found, Some(&self.series), "{what}: batch {batch} of {}", self.acknowledged.len());
        }
        let query = format!("sum by (batch) (count_over_time({}[{}s]))", self.name, self.next + 1);
        let (status, body) = promql(sextant, tenant, &query, self.next);
        assert_eq!(status, 200, "{what}: {body}");
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        let number = |v: &serde_json::Value| v.as_str().unwrap().parse::<i64>().unwrap();
        let series = answer["data"]["result"].as_array().unwrap().iter();
        let by_promql: BTreeMap<i64, i64> =
            series.map(|s| (number(&s["metric"]["batch"]), number(&s["value"][1]))).collect();
        assert_eq!(by_promql, by_sql, "{what}");
    }

    /// The same, and that what is stored is as many rows as are returned: reading would hide a row that is stored twice.
    pub fn check_stored(&self, sextant: &Sextant, what: &str) {
        self.check(sextant, what);
        let (status, body) = sql(
            sextant,
            self.tenant.as_deref(),
            &format!("select count(*) as n from samples where name = '{}'", self.name),
        );
        assert_eq!(status, 200, "{what}: {body}");
        let returned = serde_json::from_str::<serde_json::Value>(&body).unwrap()[0]["n"].as_u64().unwrap();
        let (stored, head) = self.stored(sextant);
        assert_eq!(stored + head, returned, "{what}: {stored} in blocks, {head} in memory");
    }

    /// Samples of the tenant in blocks and in memory.
    pub fn stored(&self, sextant: &Sextant) -> (u64, u64) {
        let (status, body) = sextant.get("/api/v1/overview");
        assert_eq!(status, 200, "{body}");
        let overview: serde_json::Value = serde_json::from_str(&body).unwrap();
        let name = self.tenant.as_deref().unwrap_or("anonymous");
        let tenants = overview["tenants"].as_array().unwrap();
        tenants
            .iter()
            .find(|t| t["tenant"] == name)
            .map_or((0, 0), |t| (t["block_samples"].as_u64().unwrap(), t["head_samples"].as_u64().unwrap()))
    }
}

/// Whether the process says that it is ready; its text.
pub fn readiness(sextant: &Sextant) -> (bool, String) {
    let (status, body) = sextant.get("/ready");
    assert!(status == 200 || status == 503, "{status}: {body}");
    (status == 200, body)
}

/// A line of `/metrics`, by its beginning.
pub fn metric(sextant: &Sextant, name: &str) -> f64 {
    let (_, text) = sextant.get("/metrics");
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in /metrics")).parse().unwrap()
}
