//! The agent's loops: this host's metrics at each interval and the scrapes go into one queue, which is written to the sink.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sextant_model::{Labels, LabelsBuilder, METRIC_NAME, MetricMetadata};
use sextant_proto::{WriteRequest, WriteSink};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    active::{ActiveSeries, float_write},
    clock,
    config::AgentConfig,
    host::{Collection, HostMetrics, host_name},
    metrics::{AgentMetrics, add},
    queue::WriteQueue,
    scrape::{Registry, ScrapeConfigs, ScrapePool, TargetReport},
};

/// How long an agent that ends tries to write what it has.
const DRAIN: Duration = Duration::from_secs(5);

/// Collects, scrapes and writes.
pub struct Agent {
    config: AgentConfig,
    sink: Arc<dyn WriteSink>,
    instance: String,
    metrics: Arc<AgentMetrics>,
    queue: Arc<WriteQueue>,
    scrapes: Option<ScrapeConfigs>,
    registry: Arc<Mutex<Registry>>,
}

impl Agent {
    /// An agent that writes to a sink.
    pub fn new(config: AgentConfig, sink: Arc<dyn WriteSink>) -> Self {
        let instance = config.host_instance.clone().unwrap_or_else(host_name);
        let metrics = Arc::new(AgentMetrics::default());
        let queue = Arc::new(WriteQueue::new(config.queue_samples_max, metrics.clone()));
        Self { config, sink, instance, metrics, queue, scrapes: None, registry: Arc::default() }
    }

    /// Scrapes these targets too, in place of those that `scrape_config_file` names.
    pub fn with_scrapes(mut self, scrapes: ScrapeConfigs) -> Self {
        self.scrapes = Some(scrapes);
        self
    }

    /// The targets and how their last scrapes went.
    pub fn targets(&self) -> TargetReport {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner).report()
    }

    /// Appends the agent's own metrics, Prometheus text.
    pub fn render_metrics(&self, out: &mut String) {
        self.metrics.render(out);
    }

    /// Runs until `stop` becomes true, and then a few seconds at most, to write what was collected.
    pub async fn run(&self, stop: watch::Receiver<bool>) {
        let collect = async {
            tokio::join!(self.collect_host(stop.clone()), self.scrape(stop.clone()));
            self.queue.close(Instant::now() + DRAIN);
        };
        tokio::join!(collect, self.queue.run(&self.config.tenant, &*self.sink));
    }

    async fn collect_host(&self, mut stop: watch::Receiver<bool>) {
        if !self.config.host_metrics {
            let _ = stop.wait_for(|s| *s).await;
            return;
        }
        let new = || HostMetrics::new(self.config.paths.clone(), self.config.clock_status.clone());
        let mut host = new();
        let mut active = ActiveSeries::default();
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
            self.queue.push(self.host_request(&collection, &mut active, t));
        }
    }

    /// The configured targets; a file that is wrong is reported, and scrapes nothing.
    fn scrape_configs(&self) -> ScrapeConfigs {
        if let Some(scrapes) = &self.scrapes {
            return scrapes.clone();
        }
        let Some(path) = &self.config.scrape_config_file else { return ScrapeConfigs::default() };
        ScrapeConfigs::from_file(path).unwrap_or_else(|error| {
            tracing::error!(%error, "nothing is scraped");
            ScrapeConfigs::default()
        })
    }

    async fn scrape(&self, mut stop: watch::Receiver<bool>) {
        let (queue, metrics) = (self.queue.clone(), self.metrics.clone());
        let mut pool =
            ScrapePool::new(queue, metrics, self.config.concurrent_scrapes_max, self.registry.clone());
        if let Err(error) = pool.apply(self.scrape_configs()).await {
            tracing::error!(%error, "nothing is scraped");
        }
        let _ = stop.wait_for(|s| *s).await;
        pool.shutdown().await;
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
        let metadata = collection.families.iter().map(|f| {
            let help = f.help.to_string();
            (f.name.to_string(), MetricMetadata { metric_type: f.metric_type, help, unit: String::new() })
        });
        request.metadata = metadata.collect();
        request
    }
}
