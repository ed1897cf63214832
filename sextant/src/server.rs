//! A process: its roles put together in the order of the data path, run, and stopped in reverse.
//!
//! A stop has three steps, each within the configured time: no new connections, requests in flight are answered, roles end.
//! What was acknowledged is on disk whether or not the steps complete.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail};
use sextant_agent::{Agent, AgentConfig};
use sextant_compactor::{Compactor, CompactorConfig};
use sextant_distributor::{Distributor, DistributorConfig, LimitsWatcher, otlp::OtlpOptions};
use sextant_ingester::{Ingester, IngesterConfig};
use sextant_model::TenantId;
use sextant_proto::{Limits, LimitsHandle, TenantLimits};
use sextant_querier::{
    DataSource, Querier, QuerierConfig,
    http::{CorsOrigin, Surroundings, TargetsSource},
};
use sextant_replication::SyncMode;
use sextant_security::{GrpcAuthLayer, HttpAuthLayer, Listener, Protocol};
use sextant_storage::{BlockCache, ManifestOptions, Manifests, StoreMetrics, StoreOptions, open_store};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    admin::Admin,
    cli,
    cluster::Cluster,
    config::Config,
    http::{self, Surface},
    listeners::{self, Bound},
    otlp::Otlp,
    overview::Overview,
    readiness::Readiness,
    role::Role,
    security::Security,
    shards::Shards,
    targets::AgentTargets,
};

/// Runs the process until it is told to stop.
pub fn run_blocking(role: Role, config: Config) -> Result<()> {
    // Statements are parsed by recursion where they arrive.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("sextant")
        .thread_stack_size(8 << 20)
        .build()?;
    let timeout = config.duration("shutdown_timeout");
    let result = runtime.block_on(run(role, config));
    runtime.shutdown_timeout(timeout.min(Duration::from_secs(5)));
    result
}

struct Listeners {
    http: Option<Bound>,
    grpc: Option<Bound>,
    otlp_grpc: Option<Bound>,
    otlp_http: Option<Bound>,
    postgres: Option<Bound>,
    cluster: Option<Bound>,
}

impl Listeners {
    /// Opens those that the role uses.
    async fn bind(role: Role, config: &Config) -> Result<Self> {
        let bind = async |uses: bool, key, name| {
            if uses { listeners::bind(config, key, name).await } else { Ok(None) }
        };
        Ok(Self {
            http: bind(true, "http.listen", "HTTP").await?,
            grpc: bind(role.queries(), "grpc.listen", "gRPC (Flight SQL)").await?,
            otlp_grpc: bind(role.distributes(), "otlp.grpc.listen", "OTLP over gRPC").await?,
            otlp_http: bind(role.distributes(), "otlp.http.listen", "OTLP over HTTP").await?,
            postgres: bind(role.queries(), "postgres.listen", "PostgreSQL").await?,
            cluster: bind(role == Role::Ingester, "cluster.listen", "other roles").await?,
        })
    }

    fn for_clients(&self) -> impl Iterator<Item = &Bound> {
        [&self.http, &self.grpc, &self.otlp_grpc, &self.otlp_http, &self.postgres].into_iter().flatten()
    }

    fn all(&self) -> Vec<(String, String)> {
        let bound = self.for_clients().chain(&self.cluster);
        bound.map(|b| (b.name.to_owned(), b.address.to_string())).collect()
    }
}

async fn run(role: Role, config: Config) -> Result<()> {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
    let data_dir = PathBuf::from(config.text("data_dir"));
    std::fs::create_dir_all(&data_dir).with_context(|| format!("data_dir {}", data_dir.display()))?;
    // First: a wrong certificate or file of credentials must not leave a port open for a moment.
    let security = Security::open(&config)?;
    let mut listeners = Listeners::bind(role, &config).await?;
    listeners.for_clients().for_each(|b| security.warn_of(b));
    security.warn_of_cluster(listeners.cluster.as_ref());
    let (limits, limits_task) = limits(&config)?;

    let store_metrics = Arc::new(StoreMetrics::default());
    let url = store_url(role, &config, &data_dir)?;
    let store = open_store(&url, &store_options(&config, store_metrics.clone()))?;
    let manifests =
        Arc::new(Manifests::new(store.clone(), sextant_storage::METRICS, ManifestOptions::default()));

    let ready = Readiness::waiting_for(&["log replay"]);
    let http = listeners.http.as_ref().map(|b| b.address);
    let shards = match (role, &listeners.cluster) {
        (Role::All, _) => Shards::Here(
            Ingester::open(ingester_config(&config, &data_dir)?, manifests.clone())
                .await
                .with_context(|| format!("open {}", data_dir.display()))?,
        ),
        (Role::Ingester, Some(bound)) => {
            let settings = ingester_config(&config, &data_dir)?;
            let tls = &security.cluster;
            let manifests = manifests.clone();
            Shards::Cluster(
                Cluster::open_ingester(&config, &data_dir, settings, manifests, bound, http, tls).await?,
            )
        }
        (Role::Ingester, None) => bail!("cluster.listen is off: an ingester has to be reached"),
        _ => Shards::Cluster(Cluster::open(&config, role, http, &security.cluster)?),
    };
    ready.done("log replay");

    let distributor = role
        .distributes()
        .then(|| Arc::new(Distributor::new(DistributorConfig::default(), limits.clone(), shards.client())));
    let querier = if role.queries() {
        let cache = BlockCache::new(config.bytes("querier.cache_bytes") as usize);
        let source =
            DataSource { store: store.clone(), manifests: manifests.clone(), shards: shards.client(), cache };
        Some(Querier::new(source, limits.clone(), querier_config(&config))?)
    } else {
        None
    };
    let compactor_config = CompactorConfig {
        interval: config.duration("compactor.interval"),
        delete_delay: config.duration("compactor.delete_delay"),
    };
    let compactor = Arc::new(Compactor::new(compactor_config, limits, store, manifests.clone()));
    let agent = match (&distributor, role) {
        (Some(distributor), Role::All) => agent(&config, distributor.clone()).await?,
        _ => None,
    };

    let admin = Admin {
        enabled: config.flag("http.admin_api"),
        shards: shards.client(),
        manifests: manifests.clone(),
        compactor: compactor.clone(),
    };
    let overview = Arc::new(Overview {
        listeners: listeners.all(),
        manifests,
        store_metrics,
        shards: shards.clone(),
        distributor: distributor.clone(),
        querier: querier.clone(),
        compactor: compactor.clone(),
        agent: agent.clone(),
        security: security.metrics.clone(),
        started_s: started,
    });
    let options = Arc::new(otlp_options(&config));
    let surface = Surface {
        otlp: distributor.clone().map(|distributor| Otlp { distributor, options }),
        distributor,
        admin,
        shards: shards.clone(),
        querier,
        overview,
        ready,
        multi_tenancy: config.flag("multi_tenancy"),
        body_max: config.bytes("distributor.max_request_bytes") as usize,
        around: surroundings(&config, started, agent.as_ref()),
        cors: CorsOrigin::new(config.text("http.cors_origin"))
            .map_err(|e| anyhow::anyhow!("http.cors_origin: {e}"))?,
    };
    banner(role, &listeners, &security);

    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    if let Some(cluster) = shards.cluster() {
        if let Some(bound) = listeners.cluster.take() {
            tasks.spawn(cluster.clone().serve(bound, security.cluster.server.clone(), stopped.clone()));
        }
        let run = cluster.clone().run(stopped.clone());
        tasks.spawn(async move {
            run.await;
            Ok(())
        });
    }
    serve(&mut tasks, listeners, surface, &security, &stopped)?;
    if let Some(watcher) = security.watcher {
        let stop = stopped.clone();
        tasks.spawn(async move {
            watcher.run(stop).await;
            Ok(())
        });
    }
    if role.compacts() {
        let compactor_stop = stopped.clone();
        tasks.spawn(async move {
            compactor.run(compactor_stop).await;
            Ok(())
        });
    }
    if let Some(agent) = agent {
        let stop = stopped.clone();
        tasks.spawn(async move {
            agent.run(stop).await;
            Ok(())
        });
    }
    if let Some(watcher) = limits_task {
        let stop = stopped.clone();
        tasks.spawn(async move {
            watcher.run(stop).await;
            Ok(())
        });
    }

    let signal = wait_for_signal(&mut tasks).await;
    tracing::info!("stopping");
    if let Some(cluster) = shards.cluster() {
        cluster.hand_over().await;
    }
    let _ = stop.send(true);
    let timeout = config.duration("shutdown_timeout");
    let drained = tokio::time::timeout(timeout, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            ?timeout,
            "some requests were still running and are cut off; what was acknowledged is on disk"
        );
    }
    let end = async {
        match &shards {
            Shards::Here(ingester) => ingester.shutdown().await,
            Shards::Cluster(cluster) => cluster.shutdown().await,
        }
    };
    if tokio::time::timeout(timeout, end).await.is_err() {
        tracing::warn!("the ingester did not stop in time; its log is replayed at the next start");
    }
    tracing::info!("stopped");
    signal
}

/// What the Prometheus API shows of the process.
fn surroundings(config: &Config, started_s: f64, agent: Option<&Arc<Agent>>) -> Surroundings {
    Surroundings {
        config_yaml: config.to_yaml(),
        flags: config.flags().collect(),
        started: Some(UNIX_EPOCH + Duration::from_secs_f64(started_s.max(0.0))),
        targets: agent.map(|a| Arc::new(AgentTargets(Arc::clone(a))) as Arc<dyn TargetsSource>),
    }
}

/// Waits for SIGTERM or SIGINT, or for a listener that failed.
async fn wait_for_signal(tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(ended) = tasks.join_next() => ended.context("a task failed")??,
        }
    }
}

fn banner(role: Role, listeners: &Listeners, security: &Security) {
    println!("Sextant {} ({})", cli::version(), role.name());
    for (name, address) in listeners.all() {
        println!("  {name:<20} {address}");
    }
    if let Some(http) = listeners.http.as_ref().filter(|_| role.queries()) {
        let scheme = if security.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", http.address);
        println!("Try:");
        println!("  {url}/");
        println!("  {url}/api/v1/query?query=node_load1");
        println!("  {url}/api/v1/sql?q=select+name,count(*)+from+metrics+group+by+name+order+by+name");
    }
}

fn serve(
    tasks: &mut JoinSet<Result<()>>,
    listeners: Listeners,
    surface: Surface,
    security: &Security,
    stopped: &watch::Receiver<bool>,
) -> Result<()> {
    let until = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|s| *s).await;
    };
    let multi_tenancy = surface.multi_tenancy;
    let listener = |bound: Bound, protocol| Listener::new(bound.socket, security.tls.clone(), protocol);
    // Around everything else: the path is judged as it was sent, before anything of the request is read.
    let router = http::router(surface.clone())
        .layer(HttpAuthLayer::new(security.authenticator.clone(), multi_tenancy));
    let grpc = || {
        let auth = GrpcAuthLayer::new(security.authenticator.clone(), multi_tenancy);
        tonic::transport::Server::builder().layer(auth)
    };
    for bound in [listeners.http, listeners.otlp_http].into_iter().flatten() {
        let (router, stopped) = (router.clone(), stopped.clone());
        let name = bound.name;
        let listener = listener(bound, Protocol::Http);
        tasks.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(until(stopped)).await.context(name)
        });
    }
    if let (Some(bound), Some(querier)) = (listeners.grpc, &surface.querier) {
        let resolver = Arc::new(move |header: Option<&str>| http::resolve_tenants(header, multi_tenancy));
        let flight =
            sextant_querier::flight::flight_service(querier.clone(), resolver).map_err(anyhow::Error::msg)?;
        let (name, stopped, mut server) = (bound.name, stopped.clone(), grpc());
        let incoming = listener(bound, Protocol::Grpc).incoming();
        tasks.spawn(async move {
            server
                .add_service(flight)
                .serve_with_incoming_shutdown(incoming, until(stopped))
                .await
                .context(name)
        });
    }
    if let (Some(bound), Some(querier)) = (listeners.postgres, &surface.querier) {
        let resolver = Arc::new(move |tenant: Option<&str>| http::resolve_tenants(tenant, multi_tenancy));
        let (querier, stopped) = (querier.clone(), stopped.clone());
        let gate = sextant_querier::postgres::Gate {
            tls: security.tls.clone(),
            authenticator: security.authenticator.clone(),
        };
        tasks.spawn(async move {
            sextant_querier::postgres::serve(bound.socket, querier, resolver, gate, stopped)
                .await
                .context(bound.name)
        });
    }
    if let (Some(bound), Some(otlp)) = (listeners.otlp_grpc, &surface.otlp) {
        let service = crate::otlp::grpc_service(otlp, multi_tenancy);
        let (name, stopped, mut server) = (bound.name, stopped.clone(), grpc());
        let incoming = listener(bound, Protocol::Grpc).incoming();
        tasks.spawn(async move {
            server
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, until(stopped))
                .await
                .context(name)
        });
    }
    Ok(())
}

fn store_url(role: Role, config: &Config, data_dir: &std::path::Path) -> Result<String> {
    if let Some(url) = config.optional("object_store") {
        return Ok(url.to_owned());
    }
    if role != Role::All {
        bail!("object_store is needed: the roles of a cluster share one");
    }
    let dir = data_dir.join("objects");
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let dir = dir.canonicalize().with_context(|| dir.display().to_string())?;
    Ok(format!("file://{}", dir.display()))
}

fn store_options(config: &Config, metrics: Arc<StoreMetrics>) -> StoreOptions {
    let text = |key| config.optional(key).map(str::to_owned);
    StoreOptions {
        endpoint: text("s3.endpoint"),
        region: text("s3.region"),
        access_key_id: text("s3.access_key_id"),
        secret_access_key: text("s3.secret_access_key"),
        allow_http: config.flag("s3.allow_http"),
        metrics,
        ..StoreOptions::default()
    }
}

fn querier_config(config: &Config) -> QuerierConfig {
    QuerierConfig {
        timeout: config.duration("querier.timeout"),
        max_concurrent: config.integer("querier.max_concurrent") as usize,
        lookback: config.duration("querier.lookback_delta"),
        max_samples: config.integer("querier.max_samples") as usize,
        slow_query: config.duration("querier.slow_query"),
        ..QuerierConfig::default()
    }
}

fn otlp_options(config: &Config) -> OtlpOptions {
    let promoted = config.text("distributor.otlp_promote_resource_attributes");
    OtlpOptions {
        promote_resource_attributes: promoted
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty())
            .map(str::to_owned)
            .collect(),
        ..OtlpOptions::default()
    }
}

/// The limits in force, and the watcher of their file where there is one.
fn limits(config: &Config) -> Result<(LimitsHandle, Option<LimitsWatcher>)> {
    let defaults = TenantLimits {
        max_request_bytes: config.bytes("distributor.max_request_bytes"),
        ..TenantLimits::default()
    };
    let handle = LimitsHandle::new(Limits::new(defaults));
    let watcher = match config.optional("limits_file") {
        Some(path) => Some(LimitsWatcher::open(path.into(), Duration::from_secs(2), handle.clone())?),
        None => None,
    };
    Ok((handle, watcher))
}

async fn agent(config: &Config, sink: Arc<Distributor>) -> Result<Option<Arc<Agent>>> {
    let host_metrics = config.flag("agent.host_metrics");
    let scrape_config_file = config.optional("agent.scrape_config").map(PathBuf::from);
    if !host_metrics && scrape_config_file.is_none() {
        return Ok(None);
    }
    let tenant = TenantId::new(config.text("agent.tenant")).context("agent.tenant")?;
    let settings = AgentConfig {
        host_metrics,
        host_interval: config.duration("agent.host_interval"),
        scrape_config_file,
        tenant,
        ..AgentConfig::default()
    };
    Ok(Some(Arc::new(Agent::open(settings, sink).await.context("agent.scrape_config")?)))
}

fn ingester_config(config: &Config, data_dir: &std::path::Path) -> Result<IngesterConfig> {
    let sync = match config.text("ingester.log_sync") {
        "always" => SyncMode::Always,
        "relaxed" => SyncMode::Relaxed {
            interval_ms: config.duration("ingester.log_sync_interval").as_millis() as u64,
        },
        other => bail!("ingester.log_sync: {other:?} is neither `always` nor `relaxed`"),
    };
    let shards = u32::try_from(config.integer("ingester.shards")).context("ingester.shards")?;
    if shards == 0 || shards > 1024 {
        bail!("ingester.shards: {shards} is not between 1 and 1024");
    }
    let segment = config.bytes("ingester.log_segment_size");
    if !((1 << 20)..=(1 << 30)).contains(&segment) {
        bail!("ingester.log_segment_size: {segment} bytes is not between 1MiB and 1GiB");
    }
    Ok(IngesterConfig {
        shards,
        log_sync: sync,
        log_segment_bytes: segment as u32,
        head_memory_max: config.bytes("ingester.head_memory_max") as usize,
        flush_age: config.duration("ingester.flush_age"),
        flush_samples: config.integer("ingester.flush_samples"),
        drop_grace: config.duration("ingester.drop_grace"),
        data_dir: data_dir.to_owned(),
        ..IngesterConfig::default()
    })
}
