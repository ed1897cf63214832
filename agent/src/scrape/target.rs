//! One target: what is known of it before relabelling, its labels after, where it is and when it is asked.

use std::{sync::Arc, time::Duration};

use sextant_model::{Labels, LabelsBuilder};
use url::Url;
use xxhash_rust::xxh3::xxh3_64;

use super::config::JobConfig;
use crate::{
    relabel::relabel,
    yaml::{format_duration, parse_duration},
};

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const METRICS_PATH: &str = "__metrics_path__";
const INTERVAL: &str = "__scrape_interval__";
const TIMEOUT: &str = "__scrape_timeout__";
const PARAM_PREFIX: &str = "__param_";

/// A target that is scraped.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its job.
    pub job: Arc<JobConfig>,
    /// Labels before relabelling.
    pub discovered: Labels,
    /// Labels of its series.
    pub labels: Labels,
    /// Where it is.
    pub url: Url,
    /// How often it is asked.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// What became of a discovered target.
pub(crate) enum Discovered {
    /// It is scraped.
    Kept(Target),
    /// Relabelling dropped it.
    Dropped(Labels),
}

impl Target {
    /// Makes a target of an address and its group's labels.
    pub(crate) fn discover(
        job: &Arc<JobConfig>,
        address: &str,
        group_labels: &[(String, String)],
    ) -> Result<Discovered, String> {
        let mut labels = LabelsBuilder::default();
        labels.set(ADDRESS, address);
        for (n, v) in group_labels {
            labels.set(n, v);
        }
        let mut default = |name: &str, value: &str| {
            if labels.get(name).is_none() {
                labels.set(name, value);
            }
        };
        default("job", &job.job_name);
        default(INTERVAL, &format_duration(job.scrape_interval));
        default(TIMEOUT, &format_duration(job.scrape_timeout));
        default(METRICS_PATH, &job.metrics_path);
        default(SCHEME, &job.scheme);
        for (name, values) in &job.params {
            if let Some(first) = values.first() {
                default(&format!("{PARAM_PREFIX}{name}"), first);
            }
        }
        let discovered = labels.build();
        if !relabel(&job.relabel_configs, &mut labels) {
            return Ok(Discovered::Dropped(discovered));
        }
        Self::of_labels(job, discovered, labels).map(Discovered::Kept)
    }

    fn of_labels(
        job: &Arc<JobConfig>,
        discovered: Labels,
        mut labels: LabelsBuilder,
    ) -> Result<Self, String> {
        let get = |name: &str| labels.get(name).unwrap_or("").to_owned();
        let address = get(ADDRESS);
        if address.is_empty() {
            return Err("no address".into());
        }
        if address.contains('/') {
            return Err(format!("{address:?} is not a valid hostname"));
        }
        let duration = |name: &str| {
            let text = get(name);
            parse_duration(&text)
                .filter(|d| !d.is_zero())
                .ok_or_else(|| format!("{name}: {text:?} is not a duration above 0"))
        };
        let (interval, timeout) = (duration(INTERVAL)?, duration(TIMEOUT)?);
        if timeout > interval {
            return Err("scrape timeout cannot be greater than scrape interval".into());
        }
        let url = url(job, &labels, &address)?;
        if labels.get("instance").is_none() {
            labels.set("instance", &address);
        }
        let labels = labels.build().filter(|n| !n.starts_with("__"));
        Ok(Self { job: Arc::clone(job), discovered, labels, url, interval, timeout })
    }

    /// Its URL as others see it: with the host's name where the address is only this host's own.
    pub fn global_url(&self, host: &str) -> String {
        let is_local = matches!(self.url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let mut url = self.url.clone();
        if is_local && url.set_host(Some(host)).is_err() {
            return self.url.to_string();
        }
        url.to_string()
    }

    /// What makes it one target: the same labels at the same place are scraped once.
    pub fn key(&self) -> u64 {
        let mut bytes = self.labels.as_bytes().to_vec();
        bytes.extend(self.url.as_str().as_bytes());
        xxh3_64(&bytes)
    }

    /// Its place in the interval, in milliseconds: the same after a restart, spread over targets and over hosts.
    pub fn offset_ms(&self, host_seed: u64) -> i64 {
        let interval = u64::try_from(self.interval.as_millis()).unwrap_or(u64::MAX).max(1);
        ((self.key() ^ host_seed) % interval) as i64
    }

    /// The first time after `after_ms` at which it is asked.
    pub fn next_scrape_ms(&self, host_seed: u64, after_ms: i64) -> i64 {
        let interval = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let offset = self.offset_ms(host_seed);
        (after_ms - offset).div_euclid(interval) * interval + interval + offset
    }
}

fn url(job: &JobConfig, labels: &LabelsBuilder, address: &str) -> Result<Url, String> {
    let scheme = labels.get(SCHEME).unwrap_or("http");
    if scheme != "http" && scheme != "https" {
        return Err(format!("scheme {scheme:?} is neither http nor https"));
    }
    let path = labels.get(METRICS_PATH).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let text = format!("{scheme}://{address}{slash}{path}");
    let mut url = Url::parse(&text).map_err(|e| format!("{text:?}: {e}"))?;
    // A relabelled `__param_x` stands for the first value of the parameter x.
    let mut params: Vec<(String, Vec<String>)> = job.params.clone();
    for (name, value) in labels.iter().filter_map(|(n, v)| Some((n.strip_prefix(PARAM_PREFIX)?, v))) {
        match params.iter_mut().find(|(n, _)| n == name) {
            Some((_, values)) if !values.is_empty() => values[0] = value.to_owned(),
            Some((_, values)) => values.push(value.to_owned()),
            None => params.push((name.to_owned(), vec![value.to_owned()])),
        }
    }
    if !params.is_empty() {
        let mut query = url.query_pairs_mut();
        for (name, values) in &params {
            for v in values {
                query.append_pair(name, v);
            }
        }
        drop(query);
    }
    Ok(url)
}
