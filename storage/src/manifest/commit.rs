//! Loading the newest manifest and committing the next one by create-if-absent.
//!
//! ## Why an old version's name must not come free too early
//!
//! Writer A lists, sees version 5 and stalls. Others commit 6 to 20, the cleaner deletes 5 to 12. A wakes and creates
//! 6: the store accepts, the change is in a version that nobody reads, and A believes it is committed. So a version
//! is deleted only when it is older than [`ManifestOptions::grace`] **and** not among the newest
//! [`ManifestOptions::keep_versions`], and a commit that took longer than a quarter of the grace time since its
//! listing lists again before it says "done".
//!
//! ## Why each version carries a commit id
//!
//! A put whose answer is lost is repeated, by us or inside `object_store`, and the repetition finds the name taken:
//! by our own first try. The id tells that from a lost race; without it a flush would be added a second time.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::TryStreamExt;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use parking_lot::Mutex;
use sextant_model::TenantId;
use ulid::Ulid;

use super::Manifest;
use crate::{Result, StorageError, paths};

/// Tenants without a manifest are remembered up to so many tenants in all.
const EMPTY_MAX: usize = 10_000;

/// How manifests are kept.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    /// How many versions are kept at least.
    pub keep_versions: usize,
    /// A version younger than this is kept, and readers may use a version this long after it was replaced.
    pub grace: Duration,
    /// A new block older than this is refused at commit: the orphan removal may be about to delete its objects.
    /// Must be well below the orphan grace of the compaction.
    pub block_age_max: Duration,
    /// [`Manifests::load`] asks the store when the cached version was last compared with it longer ago than this:
    /// bounds how long a process that commits nothing itself works with an old version. Well below `grace`.
    pub max_age: Duration,
    /// [`Manifests::load`] waits this long for the store if it has a cached version that still serves.
    pub patience: Duration,
    /// How many lost races a commit takes before it gives up.
    pub attempts_max: u32,
}

impl Default for ManifestOptions {
    fn default() -> Self {
        Self {
            keep_versions: 8,
            grace: Duration::from_secs(15 * 60),
            block_age_max: Duration::from_secs(60 * 60),
            max_age: Duration::from_secs(5),
            patience: Duration::from_secs(2),
            attempts_max: 64,
        }
    }
}

/// The newest version that is known, and when it was last found to be the newest of the store.
struct Known {
    manifest: Arc<Manifest>,
    checked: Instant,
}

/// The manifests of one signal, with the newest known version of each tenant cached. The version that a handle
/// returns for a tenant never goes backwards.
pub struct Manifests {
    store: Arc<dyn ObjectStore>,
    signal: String,
    options: ManifestOptions,
    newest: Mutex<HashMap<TenantId, Known>>,
}

impl Manifests {
    /// A handle for a signal (`metrics`).
    pub fn new(store: Arc<dyn ObjectStore>, signal: &str, options: ManifestOptions) -> Self {
        Self { store, signal: signal.to_owned(), options, newest: Mutex::default() }
    }

    /// The store the manifests are in.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The cached version, compared with the store at most [`ManifestOptions::max_age`] ago. Where the store does not
    /// answer the cached one still serves for half the grace time, with a warning in the log: the blocks it names are
    /// still there.
    pub async fn load(&self, tenant: &TenantId) -> Result<Arc<Manifest>> {
        let known = self.newest.lock().get(tenant).map(|k| (k.manifest.clone(), k.checked.elapsed()));
        let Some((manifest, age)) = known else { return self.refresh(tenant).await };
        if age <= self.options.max_age {
            return Ok(manifest);
        }
        let asked = tokio::time::timeout(self.options.patience, self.refresh(tenant)).await;
        let refreshed = asked.unwrap_or_else(|_| {
            let reason = format!("no answer within {:?}", self.options.patience);
            Err(StorageError::Unavailable {
                action: "list",
                object: paths::manifests(tenant, &self.signal).to_string(),
                reason,
            })
        });
        match refreshed {
            Err(e) if e.is_transient() && age < self.options.grace / 2 => {
                tracing::warn!(%tenant, error = %e, version = manifest.version, "the manifest in use may be old");
                Ok(manifest)
            }
            other => other,
        }
    }

    /// The newest version in the store: one list request, and one get where it is newer than the cached one.
    pub async fn refresh(&self, tenant: &TenantId) -> Result<Arc<Manifest>> {
        // A version that was listed may be replaced and deleted before it is read, after a pause of the grace time.
        for _ in 0..3 {
            let asked = Instant::now();
            let cached = self.newest.lock().get(tenant).map(|k| k.manifest.clone());
            let known = cached.as_ref().map_or(0, |m| m.version);
            let newest = self.list_versions(tenant, known).await?.into_iter().max().unwrap_or(0);
            if newest <= known {
                let manifest = match cached {
                    Some(m) => self.remember(tenant, m, asked),
                    None => self.remember_empty(tenant, asked),
                };
                return Ok(manifest);
            }
            match self.read(tenant, newest).await {
                Ok(m) => return Ok(self.remember(tenant, Arc::new(m), asked)),
                Err(StorageError::Missing { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(StorageError::Contended { tenant: tenant.to_string(), attempts: 3 })
    }

    /// Changes the manifest: `change` gets the newest version and returns the next content (its `version` and
    /// `commit` are set here, and `seq` of blocks that have none). It is called again after each lost race, so it
    /// must depend on nothing but its argument; an error of it ends the commit and is returned.
    ///
    /// Returning the argument unchanged writes nothing. When this returns `Ok`, the returned version is stored and
    /// every later refresh sees it or a newer one. After [`StorageError::Unavailable`] it is not known whether the
    /// change is stored: repeat the commit with a `change` that recognises its own work, as
    /// [`Manifest::with_flush`] and [`Manifest::with_merge`] do.
    pub async fn commit(
        &self,
        tenant: &TenantId,
        mut change: impl FnMut(&Manifest) -> Result<Manifest> + Send,
    ) -> Result<Arc<Manifest>> {
        for attempt in 0..self.options.attempts_max {
            if attempt > 0 {
                // Losers of one race come back at different times, so that many writers do not stay in step.
                let spread = u128::from(attempt.min(16)) * 8 + 1;
                let wait = Ulid::new().random() % spread;
                tokio::time::sleep(Duration::from_millis(u64::try_from(wait).unwrap_or(0))).await;
            }
            let listed = Instant::now();
            let base = self.refresh(tenant).await?;
            let mut next = change(&base)?;
            if next == *base {
                return Ok(base);
            }
            self.prepare(&base, &mut next)?;
            if self.create(tenant, &next).await? {
                if listed.elapsed() > self.options.grace / 4 {
                    self.verify_not_late(tenant, &next).await?;
                }
                return Ok(self.remember(tenant, Arc::new(next), listed));
            }
        }
        Err(StorageError::Contended { tenant: tenant.to_string(), attempts: self.options.attempts_max })
    }

    /// Tenants with a folder in the bucket.
    pub async fn tenants(&self) -> Result<Vec<TenantId>> {
        let prefix = paths::tenants();
        let listed = self.store.list_with_delimiter(Some(&prefix)).await;
        let listed = listed.map_err(|e| StorageError::store("list", prefix.as_ref(), e))?;
        Ok(listed.common_prefixes.iter().filter_map(paths::tenant_of).collect())
    }

    /// Deletes versions that are neither among the newest nor younger than the grace time. Returns how many.
    pub async fn delete_old_versions(&self, tenant: &TenantId) -> Result<usize> {
        let prefix = paths::manifests(tenant, &self.signal);
        let found = self.store.list(Some(&prefix)).try_filter_map(|o| {
            let v = version_of(&o.location).map(|v| (v, o.last_modified.timestamp_millis(), o.location));
            futures::future::ready(Ok(v))
        });
        let mut found: Vec<(u64, i64, Path)> =
            found.try_collect().await.map_err(|e| StorageError::store("list", prefix.as_ref(), e))?;
        found.sort();
        let grace = i64::try_from(self.options.grace.as_millis()).unwrap_or(i64::MAX);
        let cut = now_ms().saturating_sub(grace);
        let candidates = found.len().saturating_sub(self.options.keep_versions.max(1));
        let mut deleted = 0;
        // A version counts as replaced when its successor was written. Oldest first: a crash leaves no gap.
        for pair in found.windows(2).take(candidates) {
            if pair[1].1 > cut {
                break;
            }
            match self.store.delete(&pair[0].2).await {
                Ok(()) | Err(Error::NotFound { .. }) => deleted += 1,
                Err(e) => return Err(StorageError::store("delete", pair[0].2.as_ref(), e)),
            }
        }
        Ok(deleted)
    }

    fn prepare(&self, base: &Manifest, next: &mut Manifest) -> Result<()> {
        next.tenant.clone_from(&base.tenant);
        next.signal.clone_from(&base.signal);
        next.version = base.version + 1;
        next.commit = Ulid::new().to_string();
        let age_max = i64::try_from(self.options.block_age_max.as_millis()).unwrap_or(i64::MAX);
        let oldest = now_ms().saturating_sub(age_max);
        for block in &mut next.blocks {
            if block.seq == 0 {
                block.seq = next.version;
                block.seq_min = next.version;
            }
            if block.id.created_ms() < oldest && base.block(block.id).is_none() {
                return Err(StorageError::Stale {
                    tenant: base.tenant.clone(),
                    reason: format!("block {} was made too long ago to be committed", block.id),
                });
            }
        }
        next.blocks.sort_by_key(|b| b.id);
        if let Some(pair) = next.blocks.windows(2).find(|p| p[0].id == p[1].id) {
            return Err(StorageError::Invalid(format!("block {} is twice in a manifest", pair[0].id)));
        }
        Ok(())
    }

    /// Stores a version; `false` where another writer has it.
    async fn create(&self, tenant: &TenantId, next: &Manifest) -> Result<bool> {
        let path = paths::manifest(tenant, &self.signal, next.version);
        let payload = PutPayload::from(next.encode()?);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.store.put_opts(&path, payload.clone(), options.clone()).await {
                Ok(_) => return Ok(true),
                Err(e) => e,
            };
            let taken = matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. });
            match self.read(tenant, next.version).await {
                Ok(stored) => return Ok(stored.commit == next.commit),
                // S3 answers 409 to a put that meets another one in flight, and the other may still fail.
                Err(StorageError::Missing { .. }) if tries < 4 => {
                    tokio::time::sleep(Duration::from_millis(20 << tries)).await;
                }
                Err(StorageError::Missing { .. }) if taken => return Ok(false),
                Err(e @ StorageError::Corrupt { .. }) => return Err(e),
                Err(_) => return Err(StorageError::store("put", path.as_ref(), error)),
            }
        }
    }

    /// See the module's documentation: after a slow commit, is our version part of the chain that readers follow?
    async fn verify_not_late(&self, tenant: &TenantId, ours: &Manifest) -> Result<()> {
        let mut versions = self.list_versions(tenant, ours.version.saturating_sub(1)).await?;
        versions.sort_unstable();
        // Without a gap the newer ones were built on ours. A gap right behind it means that the name had come free.
        if versions.first() == Some(&ours.version) && versions.windows(2).all(|p| p[1] == p[0] + 1) {
            return Ok(());
        }
        let path = paths::manifest(tenant, &self.signal, ours.version);
        if let Err(e) = self.store.delete(&path).await {
            tracing::warn!(object = %path, error = %e, "a manifest version that nobody reads was not deleted");
        }
        Err(StorageError::Stale {
            tenant: tenant.to_string(),
            reason: format!("the commit of version {} came too late", ours.version),
        })
    }

    async fn list_versions(&self, tenant: &TenantId, after: u64) -> Result<Vec<u64>> {
        let prefix = paths::manifests(tenant, &self.signal);
        let offset = paths::manifest(tenant, &self.signal, after);
        self.store
            .list_with_offset(Some(&prefix), &offset)
            .try_filter_map(|o| futures::future::ready(Ok(version_of(&o.location))))
            .try_collect()
            .await
            .map_err(|e| StorageError::store("list", prefix.as_ref(), e))
    }

    async fn read(&self, tenant: &TenantId, version: u64) -> Result<Manifest> {
        let path = paths::manifest(tenant, &self.signal, version);
        let bytes = async { self.store.get(&path).await?.bytes().await }.await;
        let bytes = bytes.map_err(|e| StorageError::store("get", path.as_ref(), e))?;
        let manifest = Manifest::decode(path.as_ref(), &bytes)?;
        if (manifest.version, manifest.tenant.as_str(), manifest.signal.as_str())
            != (version, tenant.as_str(), self.signal.as_str())
        {
            return Err(StorageError::corrupt(
                path.as_ref(),
                "holds the manifest of another version or tenant",
            ));
        }
        Ok(manifest)
    }

    /// Remembers that a tenant has no manifest, for a bounded number of tenants: who asks chooses their names.
    fn remember_empty(&self, tenant: &TenantId, checked: Instant) -> Arc<Manifest> {
        let empty = Arc::new(Manifest::empty(tenant, &self.signal));
        if self.newest.lock().len() >= EMPTY_MAX {
            return empty;
        }
        self.remember(tenant, empty, checked)
    }

    fn remember(&self, tenant: &TenantId, m: Arc<Manifest>, checked: Instant) -> Arc<Manifest> {
        let mut newest = self.newest.lock();
        match newest.get_mut(tenant) {
            Some(known) if known.manifest.version > m.version => known.manifest.clone(),
            Some(known) if known.manifest.version == m.version => {
                known.checked = known.checked.max(checked);
                known.manifest.clone()
            }
            _ => {
                newest.insert(tenant.clone(), Known { manifest: m.clone(), checked });
                m
            }
        }
    }
}

/// A version's number from its object's name.
fn version_of(path: &Path) -> Option<u64> {
    let digits = path.filename()?.strip_suffix(".json")?;
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
