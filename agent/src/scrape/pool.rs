//! The running targets of a configuration: one task each, started and ended as the configuration says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sextant_model::{Matcher, MetricMetadata};
use sextant_proto::WriteRequest;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    config::{Authorization, JobConfig, ScrapeConfigs},
    fetch::{FetchError, Fetched, Fetcher},
    report::{DroppedTarget, Health, TargetMetadata, TargetReport, TargetState},
    session::{ScrapeCounts, Session, SharedMetadata},
    target::{Discovered, Target},
};
use crate::{
    clock,
    error::AgentError,
    host::host_name,
    metrics::{AgentMetrics, add, set},
    queue::WriteQueue,
    yaml::format_duration,
};

/// A scrape that begins at most this much after its time is stored at its time: even distances compress better, and the
/// wake-up of a timer is late by about a millisecond.
const ALIGN_TOLERANCE_MS: i64 = 2;

/// Why a target's task ends.
#[derive(Clone, Copy, PartialEq)]
enum Control {
    Run,
    /// The configuration does not have it any more: its series are gone.
    Removed,
    /// Another task or another process will go on: its series are not gone.
    Shutdown,
}

/// Everything that a configuration runs.
pub(crate) struct ScrapePool {
    queue: Arc<WriteQueue>,
    metrics: Arc<AgentMetrics>,
    bodies: Arc<Semaphore>,
    host: String,
    host_seed: u64,
    targets: HashMap<u64, Running>,
    registry: Arc<Mutex<Registry>>,
}

struct Running {
    control: watch::Sender<Control>,
    task: JoinHandle<()>,
    generation: u64,
}

/// What the report is made of.
#[derive(Default)]
pub(crate) struct Registry {
    jobs: Vec<Arc<JobConfig>>,
    states: BTreeMap<u64, Watched>,
    dropped: Vec<DroppedTarget>,
    dropped_counts: BTreeMap<String, u64>,
}

/// What a target's task lets others see.
#[derive(Clone)]
struct Watched {
    state: Arc<Mutex<TargetState>>,
    metadata: SharedMetadata,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    pub(crate) fn report(&self) -> TargetReport {
        let mut active: Vec<TargetState> = self.states.values().map(|w| locked(&w.state).clone()).collect();
        active.sort_by(|a, b| {
            (&a.scrape_pool, &a.scrape_url, &a.labels).cmp(&(&b.scrape_pool, &b.scrape_url, &b.labels))
        });
        TargetReport {
            active_targets: active,
            dropped_targets: self.dropped.clone(),
            dropped_target_counts: Some(self.dropped_counts.clone()),
        }
    }

    /// The names of the jobs, in order.
    pub(crate) fn scrape_pools(&self) -> Vec<String> {
        self.dropped_counts.keys().cloned().collect()
    }

    /// A job by its name.
    pub(crate) fn job(&self, name: &str) -> Option<Arc<JobConfig>> {
        self.jobs.iter().find(|j| j.job_name == name).cloned()
    }

    /// What the targets that match say of their metrics. As in Prometheus, no further target is taken once there are
    /// `limit` entries.
    pub(crate) fn metadata(
        &self,
        matchers: &[Matcher],
        metric: Option<&str>,
        limit: Option<usize>,
    ) -> Vec<TargetMetadata> {
        let place = |w: &Watched| {
            let state = locked(&w.state);
            (state.scrape_pool.clone(), state.scrape_url.clone(), state.labels.clone())
        };
        let mut targets: Vec<_> = self.states.values().map(|w| (place(w), &w.metadata)).collect();
        targets.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut found = Vec::new();
        for ((_, _, labels), known) in targets {
            if limit.is_some_and(|limit| found.len() >= limit) {
                break;
            }
            if !matchers.iter().all(|m| m.matches(labels.get(&m.name).unwrap_or(""))) {
                continue;
            }
            let known = locked(known);
            match metric {
                Some(name) => {
                    found.extend(known.get(name).map(|(m, _)| TargetMetadata::new(labels, None, m)));
                }
                None => {
                    let mut names: Vec<_> = known.iter().collect();
                    names.sort_by_key(|(name, _)| *name);
                    let entry = |(name, (m, _)): (&String, &(MetricMetadata, u64))| {
                        TargetMetadata::new(labels.clone(), Some(name.clone()), m)
                    };
                    found.extend(names.into_iter().map(entry));
                }
            }
        }
        found
    }
}

impl ScrapePool {
    pub(crate) fn new(
        queue: Arc<WriteQueue>,
        metrics: Arc<AgentMetrics>,
        concurrent_max: usize,
        registry: Arc<Mutex<Registry>>,
    ) -> Self {
        let bodies = Arc::new(Semaphore::new(concurrent_max.max(1)));
        let host = host_name();
        let host_seed = xxh3_64(host.as_bytes());
        Self { queue, metrics, bodies, host, host_seed, targets: HashMap::new(), registry }
    }

    /// Starts the targets that are new, ends those that are gone, and restarts those whose job changed.
    pub(crate) async fn apply(&mut self, config: ScrapeConfigs) -> Result<(), AgentError> {
        let external: Arc<[(String, String)]> = config.external_labels.into();
        let mut wanted: HashMap<u64, (Arc<Target>, Fetcher, u64)> = HashMap::new();
        let mut registry = Registry::default();
        for job in config.jobs {
            let fetcher = Fetcher::new(&job)?;
            let generation = fingerprint(&job, &external, fetcher.trust());
            let job = Arc::new(job);
            registry.jobs.push(Arc::clone(&job));
            let found = discover(&job, &mut registry);
            if job.target_limit > 0 && found.len() as u64 > job.target_limit {
                let reason = format!("target_limit exceeded (number of targets: {})", found.len());
                return Err(AgentError::Client { job: job.job_name.clone(), reason });
            }
            for target in found {
                // Labels of the target may set these two.
                let times = [target.interval, target.timeout].map(|d| d.as_millis() as u64);
                let generation =
                    times.iter().fold(generation, |seed, ms| xxh3_64_with_seed(&ms.to_le_bytes(), seed));
                wanted.insert(target.key(), (Arc::new(target), fetcher.clone(), generation));
            }
        }
        self.end(|key, _| !wanted.contains_key(key), Control::Removed).await;
        // Those whose job changed go on under the new one, so their series do not end.
        let changed =
            |key: &u64, running: &Running| wanted.get(key).is_some_and(|w| w.2 != running.generation);
        self.end(changed, Control::Shutdown).await;
        let old = std::mem::take(&mut self.lock().states);
        for (key, (target, fetcher, generation)) in wanted {
            let mut state = first_state(&target, &self.host);
            if let Some(before) = old.get(&key) {
                let before_state = locked(&before.state).clone();
                if self.targets.contains_key(&key) {
                    locked(&before.state).discovered_labels = state.discovered_labels;
                    registry.states.insert(key, before.clone());
                    continue;
                }
                state.take_last_scrape(before_state);
            }
            let state = Arc::new(Mutex::new(state));
            let session = Session::new(Arc::clone(&target), Arc::clone(&external));
            registry.states.insert(key, Watched { state: Arc::clone(&state), metadata: session.metadata() });
            let running = self.start(target, fetcher, session, state, generation);
            self.targets.insert(key, running);
        }
        *self.lock() = registry;
        set(&self.metrics.targets, self.targets.len() as u64);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        locked(&self.registry)
    }

    fn start(
        &self,
        target: Arc<Target>,
        fetcher: Fetcher,
        session: Session,
        state: Arc<Mutex<TargetState>>,
        generation: u64,
    ) -> Running {
        let (control, receiver) = watch::channel(Control::Run);
        let task = TargetTask {
            session,
            target,
            fetcher,
            state,
            queue: Arc::clone(&self.queue),
            metrics: Arc::clone(&self.metrics),
            bodies: Arc::clone(&self.bodies),
            host_seed: self.host_seed,
        };
        Running { control, task: tokio::spawn(task.run(receiver)), generation }
    }

    /// Ends the process' scrapes without saying that their series are gone.
    pub(crate) async fn shutdown(&mut self) {
        self.end(|_, _| true, Control::Shutdown).await;
    }

    async fn end(&mut self, which: impl Fn(&u64, &Running) -> bool, how: Control) {
        let keys: Vec<u64> = self.targets.iter().filter(|(k, r)| which(k, r)).map(|(k, _)| *k).collect();
        let ended: Vec<Running> = keys.iter().filter_map(|k| self.targets.remove(k)).collect();
        for running in &ended {
            // A task that has ended already has no receiver.
            let _ = running.control.send(how);
        }
        for running in ended {
            if let Err(error) = running.task.await {
                tracing::error!(%error, "a scrape task failed");
            }
        }
    }
}

/// What makes a job's targets start anew: everything but the list of them; also secrets, which its `Debug` hides, and the
/// contents of the files that it trusts.
fn fingerprint(job: &JobConfig, external: &[(String, String)], trust: u64) -> u64 {
    let shape = JobConfig { static_configs: Vec::new(), ..job.clone() };
    let secrets: Vec<&str> = job.authorization.iter().flat_map(Authorization::secrets).collect();
    xxh3_64(format!("{shape:?}{external:?}{secrets:?}{trust}").as_bytes())
}

fn discover(job: &Arc<JobConfig>, registry: &mut Registry) -> Vec<Target> {
    let mut found = Vec::new();
    registry.dropped_counts.insert(job.job_name.clone(), 0);
    for group in &job.static_configs {
        for address in &group.targets {
            match Target::discover(job, address, &group.labels) {
                Ok(Discovered::Kept(target)) => found.push(target),
                Ok(Discovered::Dropped(discovered_labels)) => {
                    let count = registry.dropped_counts.entry(job.job_name.clone()).or_default();
                    *count += 1;
                    if job.keep_dropped_targets == 0 || *count <= job.keep_dropped_targets {
                        let scrape_pool = job.job_name.clone();
                        registry.dropped.push(DroppedTarget { discovered_labels, scrape_pool });
                    }
                }
                Err(reason) => {
                    tracing::warn!(job = job.job_name, address, reason, "target cannot be scraped")
                }
            }
        }
    }
    found
}

fn first_state(target: &Target, host: &str) -> TargetState {
    TargetState {
        discovered_labels: target.discovered.clone(),
        labels: target.labels.clone(),
        scrape_pool: target.job.job_name.clone(),
        scrape_url: target.url.to_string(),
        global_url: target.global_url(host),
        last_error: String::new(),
        last_scrape: 0,
        last_scrape_duration: 0.0,
        health: Health::Unknown,
        scrape_interval: format_duration(target.interval),
        scrape_timeout: format_duration(target.timeout),
    }
}

struct TargetTask {
    target: Arc<Target>,
    fetcher: Fetcher,
    session: Session,
    state: Arc<Mutex<TargetState>>,
    queue: Arc<WriteQueue>,
    metrics: Arc<AgentMetrics>,
    bodies: Arc<Semaphore>,
    host_seed: u64,
}

impl TargetTask {
    async fn run(mut self, mut control: watch::Receiver<Control>) {
        let mut last = clock::now_ms();
        loop {
            // The pool that started this task holds the sender; without it nobody wants the samples.
            let state = if control.has_changed().is_err() { Control::Shutdown } else { *control.borrow() };
            match state {
                Control::Run => {}
                Control::Removed => {
                    let request = self.session.end(clock::now_ms().max(last));
                    self.queue.push(request);
                    return;
                }
                Control::Shutdown => return,
            }
            let scheduled = self.target.next_scrape_ms(self.host_seed, last.max(clock::now_ms() - 1));
            let wait = u64::try_from(scheduled - clock::now_ms()).unwrap_or(0);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                _ = control.changed() => continue,
            }
            let now = clock::now_ms();
            let t = if (now - scheduled).abs() <= ALIGN_TOLERANCE_MS { scheduled } else { now };
            let start = Instant::now();
            tokio::select! {
                fetched = self.fetcher.fetch(&self.target, &self.bodies) => self.take(t, start, fetched),
                // A target that hangs must not hold up a reload or the end of the process.
                _ = control.changed() => continue,
            }
            last = t;
        }
    }

    /// What a scrape gave becomes samples at `t`.
    fn take(&mut self, t: i64, start: Instant, fetched: Result<Fetched, FetchError>) {
        let (mut request, counts, error) = match &fetched {
            Ok(fetched) => {
                let (request, counts, result) = self.session.ingest(&fetched.body, fetched.format, t);
                (request, counts, result.err().map(|e| e.to_string()))
            }
            Err(e) => (self.session.fail(t), ScrapeCounts::default(), Some(e.to_string())),
        };
        let seconds = start.elapsed().as_secs_f64();
        self.session.report(t, error.is_none(), seconds, counts, &mut request);
        add(&self.metrics.scraped_samples, counts.scraped);
        add(if error.is_none() { &self.metrics.scrapes_ok } else { &self.metrics.scrapes_failed }, 1);
        self.note(t, seconds, error);
        self.push(request);
    }

    fn push(&self, request: WriteRequest) {
        self.queue.push(request);
    }

    fn note(&self, t: i64, seconds: f64, error: Option<String>) {
        if let Some(error) = &error {
            tracing::debug!(url = %self.target.url, error, "scrape failed");
        }
        let mut state = locked(&self.state);
        state.health = if error.is_none() { Health::Up } else { Health::Down };
        state.last_error = error.unwrap_or_default();
        state.last_scrape = t;
        state.last_scrape_duration = seconds;
    }
}
