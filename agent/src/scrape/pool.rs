//! The running targets of a configuration: one task each, started and ended as the configuration says.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sextant_proto::WriteRequest;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    config::{Authorization, JobConfig, ScrapeConfigs},
    fetch::Fetcher,
    report::{DroppedTarget, Health, TargetReport, TargetState},
    session::{ScrapeCounts, Session},
    target::{Discovered, Target},
};
use crate::{
    clock,
    error::AgentError,
    host::host_name,
    metrics::{AgentMetrics, add, set},
    queue::WriteQueue,
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
    running: Arc<Semaphore>,
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
    states: BTreeMap<u64, Arc<Mutex<TargetState>>>,
    dropped: Vec<DroppedTarget>,
    dropped_counts: BTreeMap<String, u64>,
}

impl Registry {
    pub(crate) fn report(&self) -> TargetReport {
        let state = |s: &Arc<Mutex<TargetState>>| s.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut active: Vec<TargetState> = self.states.values().map(state).collect();
        active.sort_by(|a, b| (&a.scrape_pool, &a.scrape_url).cmp(&(&b.scrape_pool, &b.scrape_url)));
        TargetReport {
            active_targets: active,
            dropped_targets: self.dropped.clone(),
            dropped_target_counts: self.dropped_counts.clone(),
        }
    }
}

impl ScrapePool {
    pub(crate) fn new(
        queue: Arc<WriteQueue>,
        metrics: Arc<AgentMetrics>,
        concurrent_max: usize,
        registry: Arc<Mutex<Registry>>,
    ) -> Self {
        let running = Arc::new(Semaphore::new(concurrent_max.max(1)));
        let host_seed = xxh3_64(host_name().as_bytes());
        Self { queue, metrics, running, host_seed, targets: HashMap::new(), registry }
    }

    /// Starts the targets that are new, ends those that are gone, and restarts those whose job changed.
    pub(crate) async fn apply(&mut self, config: ScrapeConfigs) -> Result<(), AgentError> {
        let external: Arc<[(String, String)]> = config.external_labels.into();
        let mut wanted: HashMap<u64, (Arc<Target>, Fetcher, u64)> = HashMap::new();
        let mut registry = Registry::default();
        for job in config.jobs {
            let fetcher = Fetcher::new(&job)?;
            let generation = fingerprint(&job, &external);
            let job = Arc::new(job);
            let found = discover(&job, &mut registry);
            if job.target_limit > 0 && found.len() as u64 > job.target_limit {
                let reason = format!("target_limit exceeded (number of targets: {})", found.len());
                return Err(AgentError::Client { job: job.job_name.clone(), reason });
            }
            for target in found {
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
            if self.targets.contains_key(&key)
                && let Some(state) = old.get(&key)
            {
                registry.states.insert(key, Arc::clone(state));
                continue;
            }
            let state = Arc::new(Mutex::new(first_state(&target)));
            registry.states.insert(key, Arc::clone(&state));
            let running = self.start(target, fetcher, Arc::clone(&external), state, generation);
            self.targets.insert(key, running);
        }
        *self.lock() = registry;
        set(&self.metrics.targets, self.targets.len() as u64);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        target: Arc<Target>,
        fetcher: Fetcher,
        external: Arc<[(String, String)]>,
        state: Arc<Mutex<TargetState>>,
        generation: u64,
    ) -> Running {
        let (control, receiver) = watch::channel(Control::Run);
        let task = TargetTask {
            session: Session::new(Arc::clone(&target), external),
            target,
            fetcher,
            state,
            queue: Arc::clone(&self.queue),
            metrics: Arc::clone(&self.metrics),
            running: Arc::clone(&self.running),
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

/// What makes a job's targets start anew: everything but the list of them, and secrets, which its `Debug` hides.
fn fingerprint(job: &JobConfig, external: &[(String, String)]) -> u64 {
    let shape = JobConfig { static_configs: Vec::new(), ..job.clone() };
    let secrets: Vec<&str> = job.authorization.iter().flat_map(Authorization::secrets).collect();
    xxh3_64(format!("{shape:?}{external:?}{secrets:?}").as_bytes())
}

fn discover(job: &Arc<JobConfig>, registry: &mut Registry) -> Vec<Target> {
    let mut found = Vec::new();
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

fn first_state(target: &Target) -> TargetState {
    let duration = |d: Duration| match d.subsec_millis() {
        0 => format!("{}s", d.as_secs()),
        _ => format!("{}ms", d.as_millis()),
    };
    TargetState {
        discovered_labels: target.discovered.clone(),
        labels: target.labels.clone(),
        scrape_pool: target.job.job_name.clone(),
        scrape_url: target.url.to_string(),
        global_url: target.url.to_string(),
        last_error: String::new(),
        last_scrape: 0,
        last_scrape_duration: 0.0,
        health: Health::Unknown,
        scrape_interval: duration(target.interval),
        scrape_timeout: duration(target.timeout),
    }
}

struct TargetTask {
    target: Arc<Target>,
    fetcher: Fetcher,
    session: Session,
    state: Arc<Mutex<TargetState>>,
    queue: Arc<WriteQueue>,
    metrics: Arc<AgentMetrics>,
    running: Arc<Semaphore>,
    host_seed: u64,
}

impl TargetTask {
    async fn run(mut self, mut control: watch::Receiver<Control>) {
        let mut last = clock::now_ms();
        loop {
            let scheduled = self.target.next_scrape_ms(self.host_seed, last.max(clock::now_ms() - 1));
            let wait = u64::try_from(scheduled - clock::now_ms()).unwrap_or(0);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                _ = control.changed() => {}
            }
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
            let Ok(permit) = Arc::clone(&self.running).acquire_owned().await else { return };
            last = self.scrape(scheduled).await;
            drop(permit);
        }
    }

    /// One scrape; returns its timestamp.
    async fn scrape(&mut self, scheduled: i64) -> i64 {
        let now = clock::now_ms();
        let t = if (now - scheduled).abs() <= ALIGN_TOLERANCE_MS { scheduled } else { now };
        let start = Instant::now();
        let (mut request, counts, error) = match self.fetcher.fetch(&self.target).await {
            Ok((body, format)) => {
                let (request, counts, result) = self.session.ingest(&body, format, t);
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
        t
    }

    fn push(&self, request: WriteRequest) {
        self.queue.push(request);
    }

    fn note(&self, t: i64, seconds: f64, error: Option<String>) {
        if let Some(error) = &error {
            tracing::debug!(url = %self.target.url, error, "scrape failed");
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.health = if error.is_none() { Health::Up } else { Health::Down };
        state.last_error = error.unwrap_or_default();
        state.last_scrape = t;
        state.last_scrape_duration = seconds;
    }
}
