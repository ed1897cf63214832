//! The agent's loop: collects this host's metrics at once and then at each interval, and writes them through a sink.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use sextant_model::{Labels, LabelsBuilder, METRIC_NAME, MetricMetadata, NO_START, Sample};
use sextant_proto::{SeriesWrite, WriteRequest, WriteSink};
use tokio::sync::watch;

use crate::{
    config::AgentConfig,
    host::{Collector, HostFamily, collect, collectors},
    metrics::AgentMetrics,
};

/// Collects and writes.
pub struct Agent {
    config: AgentConfig,
    sink: Arc<dyn WriteSink>,
    instance: String,
    metrics: AgentMetrics,
}

impl Agent {
    /// An agent that writes to a sink.
    pub fn new(config: AgentConfig, sink: Arc<dyn WriteSink>) -> Self {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let instance = config.host_instance.clone().unwrap_or_else(host);
        Self { config, sink, instance, metrics: AgentMetrics::default() }
    }

    /// Appends the agent's own metrics, Prometheus text.
    pub fn render_metrics(&self, out: &mut String) {
        self.metrics.render(out);
    }

    /// Runs until `stop` becomes true.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        if !self.config.host_metrics {
            let _ = stop.wait_for(|s| *s).await;
            return;
        }
        let mut collectors = collectors();
        let mut ticks = tokio::time::interval(self.config.host_interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = stop.wait_for(|s| *s) => return,
                _ = ticks.tick() => {}
            }
            collectors = self.once(collectors).await;
        }
    }

    async fn once(&self, mut collectors: Vec<Box<dyn Collector>>) -> Vec<Box<dyn Collector>> {
        let paths = self.config.paths.clone();
        let t = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        // Reading files of the kernel blocks: on a thread of its own.
        let read = tokio::task::spawn_blocking(move || {
            let families = collect(&mut collectors, &paths);
            (collectors, families)
        });
        let Ok((collectors, families)) = read.await else { return crate::host::collectors() };
        self.metrics.collections.fetch_add(1, Ordering::Relaxed);
        let request = self.request(&families, t);
        match self.sink.write(&self.config.tenant, request).await {
            Ok(summary) => drop(self.metrics.samples.fetch_add(summary.samples, Ordering::Relaxed)),
            Err(e) => {
                self.metrics.failed_writes.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %e, "this host's metrics could not be written");
            }
        }
        collectors
    }

    fn labels(&self, name: &str, pairs: &[(&'static str, String)]) -> Labels {
        let mut labels = LabelsBuilder::default();
        labels.set(METRIC_NAME, name).set("job", &self.config.host_job).set("instance", &self.instance);
        for (n, v) in pairs {
            labels.set(n, v);
        }
        labels.build()
    }

    fn request(&self, families: &[HostFamily], t: i64) -> WriteRequest {
        let mut request = WriteRequest::default();
        let mut push = |labels, v| {
            let samples = vec![Sample { t, v, start: NO_START }];
            request.series.push(SeriesWrite { labels, samples, ..SeriesWrite::default() });
        };
        push(self.labels("up", &[]), 1.0);
        for family in families {
            for sample in &family.samples {
                push(self.labels(&family.name, &sample.labels), sample.value);
            }
        }
        request.metadata = families
            .iter()
            .map(|f| {
                let metadata = MetricMetadata { metric_type: f.metric_type, help: f.help.to_string(), unit: String::new() };
                (f.name.to_string(), metadata)
            })
            .collect();
        request
    }
}
