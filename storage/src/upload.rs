//! Puts a block's objects into the bucket. The block is nobody's until a manifest names it.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path::Path};
use sextant_model::TenantId;

use crate::{BlockFiles, METRICS, Result, StorageError, paths};

/// Larger objects are sent in parts of this size, so that a failed request repeats only its part.
const PART_BYTES: usize = 16 << 20;
/// Objects or parts in flight.
const IN_FLIGHT: usize = 4;

/// Uploads every object of a block; may be repeated. The caller then commits `files.meta` to the manifest; dying
/// before that leaves an orphan, which the compactor removes.
pub async fn upload_block(store: &Arc<dyn ObjectStore>, tenant: &TenantId, files: &BlockFiles) -> Result<()> {
    // Owned values: futures over borrowed ones cannot be proven `Send` where a task is spawned over them.
    let puts: Vec<_> = files
        .objects
        .iter()
        .map(|(name, bytes)| {
            put_object(store.clone(), paths::object(tenant, METRICS, files.meta.id, name), bytes.clone())
        })
        .collect();
    stream::iter(puts).buffer_unordered(IN_FLIGHT).try_collect::<()>().await
}

async fn put_object(store: Arc<dyn ObjectStore>, path: Path, bytes: Bytes) -> Result<()> {
    put(&store, &path, bytes).await.map_err(|e| StorageError::store("put", path.as_ref(), e))
}

async fn put(store: &Arc<dyn ObjectStore>, path: &Path, bytes: Bytes) -> object_store::Result<()> {
    if bytes.len() <= PART_BYTES {
        store.put(path, PutPayload::from(bytes)).await?;
        return Ok(());
    }
    let mut upload = store.put_multipart(path).await?;
    let parts: Vec<_> = (0..bytes.len())
        .step_by(PART_BYTES)
        .map(|at| upload.put_part(PutPayload::from(bytes.slice(at..bytes.len().min(at + PART_BYTES)))))
        .collect();
    let sent = stream::iter(parts).buffered(IN_FLIGHT).try_collect::<()>().await;
    if let Err(e) = sent {
        // Parts that are left cost money on some stores; their life-cycle rules are the second line.
        if let Err(abort) = upload.abort().await {
            tracing::warn!(object = %path, error = %abort, "an upload that failed was not cancelled");
        }
        return Err(e);
    }
    upload.complete().await?;
    Ok(())
}
