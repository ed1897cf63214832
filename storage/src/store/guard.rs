//! The wrapper around every store: fault points `store.put`, `store.get`, `store.list`, counters, a time limit per call.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, path::Path,
};
use sextant_proto::fault;

/// Counters of requests and bytes.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    puts: AtomicU64,
    gets: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    errors: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
}

/// The counters at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreMetricsSnapshot {
    /// Put requests, parts of uploads included.
    pub puts: u64,
    /// Get requests.
    pub gets: u64,
    /// List requests.
    pub lists: u64,
    /// Objects deleted.
    pub deletes: u64,
    /// Calls that failed, "not found" and "already exists" not counted.
    pub errors: u64,
    /// Bytes put.
    pub bytes_written: u64,
    /// Bytes asked for by gets that succeeded.
    pub bytes_read: u64,
}

impl StoreMetrics {
    /// Reads the counters.
    pub fn snapshot(&self) -> StoreMetricsSnapshot {
        StoreMetricsSnapshot {
            puts: self.puts.load(Relaxed),
            gets: self.gets.load(Relaxed),
            lists: self.lists.load(Relaxed),
            deletes: self.deletes.load(Relaxed),
            errors: self.errors.load(Relaxed),
            bytes_written: self.bytes_written.load(Relaxed),
            bytes_read: self.bytes_read.load(Relaxed),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct GuardedStore {
    inner: Arc<dyn ObjectStore>,
    call_timeout: Duration,
    metrics: Arc<StoreMetrics>,
}

impl GuardedStore {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn ObjectStore>, call_timeout: Duration, metrics: Arc<StoreMetrics>) -> Self {
        Self { inner, call_timeout, metrics }
    }

    async fn limited<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let result = match tokio::time::timeout(self.call_timeout, call).await {
            Ok(r) => r,
            Err(_) => Err(generic(format!("no answer within {:?}", self.call_timeout))),
        };
        if let Err(e) = &result
            && !matches!(e, Error::NotFound { .. } | Error::AlreadyExists { .. } | Error::Precondition { .. })
        {
            self.metrics.errors.fetch_add(1, Relaxed);
        }
        result
    }
}

fn generic(reason: String) -> Error {
    Error::Generic { store: "sextant", source: reason.into() }
}

fn point(name: &'static str) -> Result<()> {
    fault::hit(name).map_err(|e| Error::Generic { store: "sextant", source: Box::new(e) })
}

impl fmt::Display for GuardedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for GuardedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        point("store.put")?;
        self.metrics.puts.fetch_add(1, Relaxed);
        let bytes = payload.content_length() as u64;
        let result = self.limited(self.inner.put_opts(location, payload, opts)).await?;
        self.metrics.bytes_written.fetch_add(bytes, Relaxed);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        point("store.put")?;
        let inner = self.limited(self.inner.put_multipart_opts(location, opts)).await?;
        Ok(Box::new(GuardedUpload { inner, call_timeout: self.call_timeout, metrics: self.metrics.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        point("store.get")?;
        self.metrics.gets.fetch_add(1, Relaxed);
        let head = options.head;
        let result = self.limited(self.inner.get_opts(location, options)).await?;
        if !head {
            self.metrics.bytes_read.fetch_add(result.range.end - result.range.start, Relaxed);
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        point("store.get")?;
        self.metrics.gets.fetch_add(1, Relaxed);
        let result = self.limited(self.inner.get_ranges(location, ranges)).await?;
        self.metrics.bytes_read.fetch_add(result.iter().map(|b| b.len() as u64).sum(), Relaxed);
        Ok(result)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let metrics = self.metrics.clone();
        self.inner
            .delete_stream(locations)
            .inspect(move |r| {
                if r.is_ok() {
                    metrics.deletes.fetch_add(1, Relaxed);
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.metrics.lists.fetch_add(1, Relaxed);
        match point("store.list") {
            Ok(()) => self.inner.list(prefix),
            Err(e) => futures::stream::once(async move { Err(e) }).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.metrics.lists.fetch_add(1, Relaxed);
        match point("store.list") {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(e) => futures::stream::once(async move { Err(e) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        point("store.list")?;
        self.metrics.lists.fetch_add(1, Relaxed);
        self.limited(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        point("store.put")?;
        self.limited(self.inner.copy_opts(from, to, options)).await
    }
}

#[derive(Debug)]
struct GuardedUpload {
    inner: Box<dyn MultipartUpload>,
    call_timeout: Duration,
    metrics: Arc<StoreMetrics>,
}

#[async_trait]
impl MultipartUpload for GuardedUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.metrics.puts.fetch_add(1, Relaxed);
        self.metrics.bytes_written.fetch_add(data.content_length() as u64, Relaxed);
        let part = self.inner.put_part(data);
        let limit = self.call_timeout;
        Box::pin(async move {
            tokio::time::timeout(limit, part)
                .await
                .unwrap_or_else(|_| Err(generic(format!("no answer within {limit:?}"))))
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        point("store.put")?;
        tokio::time::timeout(self.call_timeout, self.inner.complete())
            .await
            .unwrap_or_else(|_| Err(generic(format!("no answer within {:?}", self.call_timeout))))
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
