//! Opens the object store of a URL: local folder, S3, Google Cloud Storage, Azure, memory.
//!
//! Every store handed out is wrapped by [`guard`]: fault points, counters and a time limit per request. A local folder
//! is additionally written durably ([`local`]): `object_store` alone does not sync files, and a flush that is only in
//! the page cache would lose acknowledged rows with the machine, because the log is cut after it.

mod guard;
mod local;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, aws::S3ConditionalPut,
    azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder, memory::InMemory, path::Path,
    prefix::PrefixStore,
};
use url::Url;

pub use guard::{GuardedStore, StoreMetrics, StoreMetricsSnapshot};

use crate::{Result, StorageError};

/// How the object store is reached.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Overrides the store's address (an S3-compatible server).
    pub endpoint: Option<String>,
    /// S3 region.
    pub region: Option<String>,
    /// Access key; with neither key nor `config` the environment and the machine's role are asked.
    pub access_key_id: Option<String>,
    /// Secret of the access key.
    pub secret_access_key: Option<String>,
    /// Session token of the access key.
    pub session_token: Option<String>,
    /// Whether plain HTTP is accepted.
    pub allow_http: bool,
    /// `bucket.host/key` instead of `host/bucket/key` (S3).
    pub virtual_hosted_style: bool,
    /// Any other key of `object_store`'s configuration for the URL's scheme.
    pub config: BTreeMap<String, String>,
    /// How often one request is repeated after a transient error.
    pub retries_max: usize,
    /// No repetition begins later than this after the request's start.
    pub retry_time_max: Duration,
    /// One HTTP request, body included.
    pub http_timeout: Duration,
    /// One call of the store, repetitions included.
    pub call_timeout: Duration,
    /// Where requests and bytes are counted.
    pub metrics: Arc<StoreMetrics>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
            virtual_hosted_style: false,
            config: BTreeMap::new(),
            retries_max: 5,
            retry_time_max: Duration::from_secs(30),
            http_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(90),
            metrics: Arc::default(),
        }
    }
}

impl StoreOptions {
    fn retry(&self) -> RetryConfig {
        RetryConfig {
            max_retries: self.retries_max,
            retry_timeout: self.retry_time_max,
            ..RetryConfig::default()
        }
    }

    fn client(&self) -> ClientOptions {
        ClientOptions::new()
            .with_allow_http(self.allow_http)
            .with_timeout(self.http_timeout)
            .with_connect_timeout(Duration::from_secs(5))
    }
}

/// Opens the store of a URL: `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
/// `memory://`. What the options leave open is taken from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`).
///
/// A folder that does not exist is created. No request is made: a wrong key shows at the first use.
pub fn open_store(url: &str, options: &StoreOptions) -> Result<Arc<dyn ObjectStore>> {
    let bad = |reason: String| StorageError::Invalid(format!("object store {url:?}: {reason}"));
    let parsed = Url::parse(url).map_err(|e| bad(e.to_string()))?;
    let prefix = Path::from_url_path(parsed.path()).map_err(|e| bad(e.to_string()))?;
    let fail = |e: object_store::Error| bad(e.to_string());
    let inner: Arc<dyn ObjectStore> = match parsed.scheme() {
        "memory" => Arc::new(InMemory::new()),
        "file" => {
            let dir = parsed.to_file_path().map_err(|()| bad("not an absolute local path".into()))?;
            std::fs::create_dir_all(&dir).map_err(|e| bad(e.to_string()))?;
            Arc::new(local::DurableLocal::open(&dir).map_err(fail)?)
        }
        "s3" | "s3a" => prefixed(Arc::new(s3(&parsed, options).map_err(fail)?), prefix),
        "gs" => {
            let mut b = GoogleCloudStorageBuilder::from_env()
                .with_bucket_name(parsed.host_str().unwrap_or_default())
                .with_retry(options.retry())
                .with_client_options(options.client());
            for (k, v) in &options.config {
                b = b.with_config(k.parse().map_err(fail)?, v);
            }
            prefixed(Arc::new(b.build().map_err(fail)?), prefix)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            let mut b = MicrosoftAzureBuilder::from_env().with_url(url);
            if let Some(endpoint) = &options.endpoint {
                b = b.with_endpoint(endpoint.clone());
            }
            for (k, v) in &options.config {
                b = b.with_config(k.parse().map_err(fail)?, v);
            }
            let b = b.with_retry(options.retry()).with_client_options(options.client());
            prefixed(Arc::new(b.build().map_err(fail)?), prefix)
        }
        other => return Err(bad(format!("unknown scheme {other:?}; known: file, s3, gs, az, memory"))),
    };
    Ok(Arc::new(GuardedStore::new(inner, options.call_timeout, options.metrics.clone())))
}

fn s3(url: &Url, options: &StoreOptions) -> object_store::Result<object_store::aws::AmazonS3> {
    let mut b = AmazonS3Builder::from_env()
        .with_bucket_name(url.host_str().unwrap_or_default())
        // The manifest lives by it: create-if-absent is the only compare-and-swap there is.
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_virtual_hosted_style_request(options.virtual_hosted_style);
    if let Some(endpoint) = &options.endpoint {
        b = b.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        b = b.with_region(region);
    }
    if let Some(key) = &options.access_key_id {
        b = b.with_access_key_id(key);
    }
    if let Some(secret) = &options.secret_access_key {
        b = b.with_secret_access_key(secret);
    }
    if let Some(token) = &options.session_token {
        b = b.with_token(token);
    }
    for (k, v) in &options.config {
        b = b.with_config(k.parse()?, v);
    }
    b.with_retry(options.retry()).with_client_options(options.client()).build()
}

fn prefixed(store: Arc<dyn ObjectStore>, prefix: Path) -> Arc<dyn ObjectStore> {
    if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) }
}
