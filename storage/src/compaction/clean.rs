//! Removes what the newest manifest does not name: retired blocks after their grace time, orphans, old versions.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectStore, ObjectStoreExt};
use sextant_model::TenantId;
use sextant_proto::fault;

use super::{Compaction, CompactionOptions};
use crate::{BlockId, METRICS, Result, StorageError, paths};

/// Deletions in flight.
const DELETIONS: usize = 8;

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanOutcome {
    /// Retired blocks deleted.
    pub retired: Vec<BlockId>,
    /// Blocks deleted that no manifest named.
    pub orphans: Vec<BlockId>,
    /// Manifest versions deleted.
    pub versions: usize,
}

/// Removes what nobody can need any more. Every step may be repeated, by this compactor or another.
pub async fn clean_tenant(
    c: &Compaction,
    tenant: &TenantId,
    now_ms: i64,
    options: &CompactionOptions,
) -> Result<CleanOutcome> {
    // The folders are listed before the manifest is read: a block committed in between is then in the manifest.
    let folders = folders(c, tenant).await?;
    let manifest = c.manifests.refresh(tenant).await?;
    let due: Vec<BlockId> = manifest
        .retired
        .iter()
        .filter(|r| now_ms.saturating_sub(r.retired_ms) >= options.delete_delay_ms)
        .map(|r| r.id)
        .collect();
    fault::hit("compact.before_delete")?;
    for id in &due {
        delete_block(c, tenant, *id).await?;
    }
    // Only now that they are gone: a death in between deletes them again.
    if !due.is_empty() {
        let gone: HashSet<BlockId> = due.iter().copied().collect();
        c.manifests
            .commit(tenant, |m| {
                let mut next = m.clone();
                next.retired.retain(|r| !gone.contains(&r.id));
                Ok(next)
            })
            .await?;
    }
    if !manifest.tombstones.is_empty() || !manifest.announced.is_empty() {
        c.manifests.commit(tenant, |m| Ok(m.without_done_tombstones(now_ms))).await?;
    }
    let named: HashSet<BlockId> =
        manifest.blocks.iter().map(|b| b.id).chain(manifest.retired.iter().map(|r| r.id)).collect();
    let mut orphans = Vec::new();
    for id in folders {
        let old =
            now_ms.saturating_sub(id.created_ms()) >= options.orphan_grace_ms.max(options.delete_delay_ms);
        if old && !named.contains(&id) {
            tracing::info!(%tenant, block = %id, "removing a block that no manifest names");
            delete_block(c, tenant, id).await?;
            orphans.push(id);
        }
    }
    let versions = c.manifests.delete_old_versions(tenant).await?;
    Ok(CleanOutcome { retired: due, orphans, versions })
}

async fn folders(c: &Compaction, tenant: &TenantId) -> Result<Vec<BlockId>> {
    let prefix = paths::blocks(tenant, METRICS);
    let listed = c.store.list_with_delimiter(Some(&prefix)).await;
    let listed = listed.map_err(|e| StorageError::store("list", prefix.as_ref(), e))?;
    Ok(listed.common_prefixes.iter().filter_map(|p| p.filename()?.parse().ok()).collect())
}

async fn delete_block(c: &Compaction, tenant: &TenantId, id: BlockId) -> Result<()> {
    let store = &c.store;
    let prefix = paths::block(tenant, METRICS, id);
    let failed = |action| {
        let object = prefix.to_string();
        move |e| StorageError::store(action, &object, e)
    };
    store
        .list(Some(&prefix))
        .map_err(failed("list"))
        .map(|object| async {
            match store.delete(&object?.location).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(e) => Err(failed("delete")(e)),
            }
        })
        .buffer_unordered(DELETIONS)
        .try_collect::<()>()
        .await
}
