//! The agent's loops: this host's metrics at each interval and the scrapes go into one queue, which is written to the sink.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::Serialize;
use serde_json::Value;
use sextant_model::{Labels, LabelsBuilder, METRIC_NAME, Matcher, MetricMetadata};
use sextant_proto::{WriteRequest, WriteSink};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use crate::{
    active::{ActiveSeries, float_write},
    clock,
    config::AgentConfig,
    error::AgentError,
    host::{Collection, HostMetrics, host_name},
    metrics::{AgentMetrics, add, get, set},
    queue::WriteQueue,
    scrape::{
        Registry, RelabelSteps, RelabelStepsError, ScrapeConfigs, ScrapeFile, ScrapePool, TargetReport,
        TargetStates,
    },
};

/// How long an agent that ends tries to write what it has.
const DRAIN: Duration = Duration::from_secs(5);

/// The file of scrape configurations is looked at this often at most.
const LOOK_MIN: Duration = Duration::from_millis(10);

/// Types and help texts that did not change are written again after this many rounds, for a backend that lost them.
const METADATA_ROUNDS: u64 = 40;

/// A scrape configuration (`None`: what the file says now), and whoever waits for what becomes of it.
type Reload = (Option<ScrapeConfigs>, oneshot::Sender<Result<(), AgentError>>);

/// How the last scrape configuration was taken: by its poll, by a reload or at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastReload {
    /// Whether it is in force; false where it was refused, and what was in force before still is.
    pub successful: bool,
    /// When one was taken last, to the second; `None` before the first.
    pub taken: Option<SystemTime>,
}

/// Collects, scrapes and writes.
pub struct Agent {
    config: AgentConfig,
    sink: Arc<dyn WriteSink>,
    instance: String,
    metrics: Arc<AgentMetrics>,
    queue: Arc<WriteQueue>,
    scrapes: Option<ScrapeConfigs>,
    file: tokio::sync::Mutex<Option<ScrapeFile>>,
    registry: Arc<Mutex<Registry>>,
    reload: mpsc::Sender<Reload>,
    reloads: tokio::sync::Mutex<mpsc::Receiver<Reload>>,
}

impl Agent {
    /// An agent that writes to a sink. Where `scrape_config_file` is wrong this is an error; once the agent runs, a file
    /// that becomes wrong is reported, and what it said before stays in force.
    pub async fn open(config: AgentConfig, sink: Arc<dyn WriteSink>) -> Result<Self, AgentError> {
        let mut agent = Self::new(config, sink);
        if let Some(file) = agent.file.get_mut()
            && let Some(found) = file.look().await
        {
            let scrapes = found?;
            scrapes.check_clients()?;
            agent.scrapes = Some(scrapes);
        }
        Ok(agent)
    }

    /// An agent that writes to a sink. It looks at `scrape_config_file` when it runs; a file that is wrong then is
    /// reported, and nothing is scraped until it is right.
    pub fn new(config: AgentConfig, sink: Arc<dyn WriteSink>) -> Self {
        let instance = config.host_instance.clone().unwrap_or_else(host_name);
        let metrics = Arc::new(AgentMetrics::default());
        let queue = Arc::new(WriteQueue::new(config.queue_samples_max, metrics.clone()));
        // One configuration is applied at a time; whoever brings another waits.
        let (reload, reloads) = mpsc::channel(1);
        let reloads = tokio::sync::Mutex::new(reloads);
        let registry = Arc::default();
        let file = tokio::sync::Mutex::new(config.scrape_config_file.clone().map(ScrapeFile::new));
        Self { config, sink, instance, metrics, queue, scrapes: None, file, registry, reload, reloads }
    }

    /// Scrapes these targets, in place of those that `scrape_config_file` names; the file is not looked at.
    pub fn with_scrapes(mut self, scrapes: ScrapeConfigs) -> Self {
        self.scrapes = Some(scrapes);
        self.file = tokio::sync::Mutex::new(None);
        self
    }

    /// Scrapes these targets from now on, and ends the series of those that are not among them. An error changes
    /// nothing. Waits until the agent runs; once it has ended this is an error.
    pub async fn set_scrapes(&self, scrapes: ScrapeConfigs) -> Result<(), AgentError> {
        self.ask(Some(scrapes)).await
    }

    /// Reads `scrape_config_file` now, whether or not it has changed, and scrapes what it says from now on: Prometheus'
    /// `POST /-/reload`. An error changes nothing; [`AgentError::NoConfigFile`] where no file is looked at. Waits until the
    /// agent runs; once it has ended this is an error.
    pub async fn reload(&self) -> Result<(), AgentError> {
        self.ask(None).await
    }

    async fn ask(&self, scrapes: Option<ScrapeConfigs>) -> Result<(), AgentError> {
        let (answer, result) = oneshot::channel();
        self.reload.send((scrapes, answer)).await.map_err(|_| AgentError::NotRunning)?;
        result.await.map_err(|_| AgentError::NotRunning)?
    }

    /// How the last scrape configuration was taken: `reloadConfigSuccess` and `lastConfigTime` of Prometheus'
    /// `GET /api/v1/status/runtimeinfo`.
    pub fn last_reload(&self) -> LastReload {
        let seconds = get(&self.metrics.config_reload_success_seconds);
        LastReload {
            successful: get(&self.metrics.config_reload_successful) == 1,
            taken: (seconds > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    /// The targets and how their last scrapes went.
    pub fn targets(&self) -> TargetReport {
        self.registry().report()
    }

    /// `data` of Prometheus' `GET /api/v1/targets`: the targets in these states, of one job where it is named.
    pub fn targets_json(&self, states: TargetStates, scrape_pool: Option<&str>) -> Value {
        json(&self.targets().only(states, scrape_pool))
    }

    /// The names of the jobs, in order: `scrapePools` of Prometheus' `GET /api/v1/scrape_pools`.
    pub fn scrape_pools(&self) -> Vec<String> {
        self.registry().scrape_pools()
    }

    /// `data` of Prometheus' `GET /api/v1/targets/metadata`: what the targets whose labels match say of their metrics, or
    /// of one of them. No further target is looked at once there are `limit` entries.
    pub fn targets_metadata_json(
        &self,
        matchers: &[Matcher],
        metric: Option<&str>,
        limit: Option<usize>,
    ) -> Value {
        json(&self.registry().metadata(matchers, metric, limit))
    }

    /// `data` of Prometheus' `GET /api/v1/targets/relabel_steps`: what each rule of a job makes of labels, which are a JSON
    /// object of texts. An error is a bad request.
    pub fn relabel_steps_json(&self, scrape_pool: &str, labels: &str) -> Result<Value, RelabelStepsError> {
        if scrape_pool.is_empty() {
            return Err(RelabelStepsError::NoPool);
        }
        if labels.is_empty() {
            return Err(RelabelStepsError::NoLabels);
        }
        let job = self.registry().job(scrape_pool);
        let job = job.ok_or_else(|| RelabelStepsError::UnknownPool(scrape_pool.to_owned()))?;
        Ok(json(&RelabelSteps::new(&job, labels)?))
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends the agent's own metrics, Prometheus text.
    pub fn render_metrics(&self, out: &mut String) {
        self.metrics.render(out);
    }

    /// Runs until `stop` becomes true; then ends what it collects, and writes for a few seconds what was collected.
    pub async fn run(&self, stop: watch::Receiver<bool>) {
        let (closed, is_closed) = oneshot::channel();
        let collect = async {
            tokio::join!(self.collect_host(stop.clone()), self.scrape(stop.clone()));
            self.queue.close(Instant::now() + DRAIN);
            // The receiver waits below until this is sent.
            let _ = closed.send(());
        };
        let write = async {
            let writer = self.queue.run(&self.config.tenant, &*self.sink);
            let overdue = async {
                let _ = is_closed.await;
                tokio::time::sleep(DRAIN).await;
            };
            tokio::select! {
                () = writer => {}
                // A sink that does not answer at all must not keep the process.
                () = overdue => tracing::warn!("the sink did not take the last samples in time"),
            }
        };
        tokio::join!(collect, write);
    }

    async fn collect_host(&self, mut stop: watch::Receiver<bool>) {
        if !self.config.host_metrics {
            let _ = stop.wait_for(|s| *s).await;
            return;
        }
        let new = || HostMetrics::new(self.config.paths.clone(), self.config.clock_status.clone());
        let mut host = new();
        let mut active = ActiveSeries::default();
        let mut metadata = KnownMetadata::default();
        let mut ticks = tokio::time::interval(self.config.host_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                _ = ticks.tick() => {}
            }
            let t = clock::now_ms();
            // Reading files of the kernel blocks: on a thread of its own.
            let read = tokio::task::spawn_blocking(move || {
                let collection = host.collect();
                (host, collection)
            });
            let Ok((back, collection)) = read.await else {
                host = new();
                continue;
            };
            host = back;
            add(&self.metrics.host_collections, 1);
            add(&self.metrics.host_collector_failures, collection.failed);
            let mut request = self.host_request(&collection, &mut active, t);
            request.metadata = metadata.due(&collection);
            self.queue.push(request);
        }
    }

    async fn scrape(&self, mut stop: watch::Receiver<bool>) {
        let (queue, metrics) = (self.queue.clone(), self.metrics.clone());
        let mut pool =
            ScrapePool::new(queue, metrics, self.config.concurrent_scrapes_max, self.registry.clone());
        let mut file = self.file.lock().await;
        if let Some(scrapes) = self.scrapes.clone().or_else(|| file.is_none().then(ScrapeConfigs::default)) {
            // An error is in the log and in the metrics.
            let _ = self.apply(&mut pool, scrapes).await;
        }
        let mut reloads = self.reloads.lock().await;
        let mut looks = tokio::time::interval(self.config.scrape_config_poll.max(LOOK_MIN));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = async { drop(stop.wait_for(|s| *s).await) } => break,
                Some((scrapes, answer)) = reloads.recv() => {
                    let result = match (scrapes, file.as_mut()) {
                        (Some(scrapes), _) => self.apply(&mut pool, scrapes).await,
                        (None, Some(file)) => self.take(file.read().await, file.path(), &mut pool).await,
                        (None, None) => Err(AgentError::NoConfigFile),
                    };
                    // Whoever asked may have gone away.
                    let _ = answer.send(result);
                }
                _ = looks.tick(), if file.is_some() => {
                    if let Some(file) = file.as_mut() {
                        self.look(file, &mut pool).await;
                    }
                }
            }
        }
        // Whoever brings a configuration from now on learns that nobody takes it.
        reloads.close();
        pool.shutdown().await;
    }

    /// Takes what the file says where it has changed.
    async fn look(&self, file: &mut ScrapeFile, pool: &mut ScrapePool) {
        if let Some(found) = file.look().await {
            // An error is in the log and in the metrics.
            let _ = self.take(found, file.path(), pool).await;
        }
    }

    /// Takes what a file says.
    async fn take(
        &self,
        found: Result<ScrapeConfigs, AgentError>,
        path: &Path,
        pool: &mut ScrapePool,
    ) -> Result<(), AgentError> {
        let scrapes = found.inspect_err(|e| self.refused(e))?;
        self.apply(pool, scrapes).await?;
        tracing::info!(path = %path.display(), "a new scrape configuration is in force");
        Ok(())
    }

    async fn apply(&self, pool: &mut ScrapePool, scrapes: ScrapeConfigs) -> Result<(), AgentError> {
        let result = pool.apply(scrapes).await;
        match &result {
            Ok(()) => {
                set(&self.metrics.config_reload_success_seconds, clock::since_epoch().as_secs());
                set(&self.metrics.config_reload_successful, 1);
            }
            Err(error) => self.refused(error),
        }
        result
    }

    fn refused(&self, error: &AgentError) {
        set(&self.metrics.config_reload_successful, 0);
        tracing::error!(%error, "the scrape configuration is refused; what was in force before stays");
    }

    fn host_labels(&self, name: &str, pairs: &[(&'static str, String)]) -> Labels {
        let mut labels = LabelsBuilder::default();
        labels.set(METRIC_NAME, name).set("job", &self.config.host_job).set("instance", &self.instance);
        for (n, v) in pairs {
            labels.set(n, v);
        }
        labels.build()
    }

    fn host_request(&self, collection: &Collection, active: &mut ActiveSeries, t: i64) -> WriteRequest {
        let mut request = WriteRequest::default();
        active.begin();
        let mut push = |labels: Labels, v| {
            active.touch(labels.series_id(), &labels, false);
            request.series.push(float_write(labels, t, v));
        };
        push(self.host_labels("up", &[]), 1.0);
        for family in &collection.families {
            for sample in &family.samples {
                push(self.host_labels(&family.name, &sample.labels), sample.value);
            }
        }
        // A disk that was taken out, an interface that went: their series end.
        active.finish(t, &mut request.series);
        request
    }
}

/// A value of our own types, all of which have texts as keys and so are JSON.
fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

/// What was written last about this host's metrics.
#[derive(Default)]
struct KnownMetadata {
    round: u64,
    by_name: HashMap<String, MetricMetadata>,
}

impl KnownMetadata {
    /// What is new or has not been written for long.
    fn due(&mut self, collection: &Collection) -> Vec<(String, MetricMetadata)> {
        let everything = self.round.is_multiple_of(METADATA_ROUNDS);
        self.round += 1;
        let mut due = Vec::new();
        for f in &collection.families {
            let known = self.by_name.get(f.name.as_ref());
            if !everything && known.is_some_and(|k| k.metric_type == f.metric_type && k.help == f.help) {
                continue;
            }
            let metadata =
                MetricMetadata { metric_type: f.metric_type, help: f.help.to_string(), unit: String::new() };
            self.by_name.insert(f.name.to_string(), metadata.clone());
            due.push((f.name.to_string(), metadata));
        }
        due
    }
}
