//! Does a job: merge, upload, commit.

use sextant_model::TenantId;
use sextant_proto::fault;

use super::{Compaction, CompactionJob, CompactionOptions, JobKind, MergeOptions, merge_blocks};
use crate::{BlockMeta, BlockReader, Manifest, Result, StorageError, manifest::now_ms, upload::upload_block};
use std::sync::Arc;

/// What a job did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobOutcome {
    /// Blocks retired.
    pub inputs: usize,
    /// Their samples.
    pub samples_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Blocks that came in their place.
    pub outputs: Vec<BlockMeta>,
}

/// Does a job made by [`super::plan`].
///
/// [`StorageError::Stale`]: another compactor was faster; nothing was changed, plan again. After any other error the
/// manifest is as before, or (after [`StorageError::Unavailable`] at the commit) as after the job; what was uploaded
/// is an orphan. Doing the same job again is safe in every case.
pub async fn apply_job(
    c: &Compaction,
    tenant: &TenantId,
    job: &CompactionJob,
    options: &CompactionOptions,
) -> Result<JobOutcome> {
    let manifest = c.manifests.refresh(tenant).await?;
    let mut inputs: Vec<Arc<BlockMeta>> = Vec::with_capacity(job.inputs.len());
    for id in &job.inputs {
        let meta = manifest.block(*id).ok_or_else(|| StorageError::Stale {
            tenant: tenant.to_string(),
            reason: format!("block {id} has left the manifest"),
        })?;
        inputs.push(Arc::new(meta.clone()));
    }
    let merging = |level, window_ms, cutoff_ms| MergeOptions {
        level,
        window_ms,
        cutoff_ms,
        series_max: options.block_series_max,
        samples_max: options.block_samples_max,
        block: options.block.clone(),
    };
    let mut files = match job.kind {
        JobKind::Expire => Vec::new(),
        JobKind::Merge { level, window_ms, cutoff_ms } => {
            let readers = open(c, tenant, &manifest, &inputs).await?;
            merge_blocks(&readers, &merging(level, Some(window_ms), cutoff_ms)).await?
        }
        JobKind::Rewrite { cutoff_ms } => {
            let readers = open(c, tenant, &manifest, &inputs).await?;
            if let [reader] = &readers[..]
                && !reader.has_deletions()
            {
                let (id, applied) = (reader.meta().id, reader.tombstones());
                c.manifests.commit(tenant, |m| Ok(m.with_applied(id, applied))).await?;
                return Ok(JobOutcome::default());
            }
            let level = inputs.iter().map(|b| b.level).max().unwrap_or(0);
            merge_blocks(&readers, &merging(level, None, cutoff_ms)).await?
        }
    };
    for f in &mut files {
        f.meta.applied = manifest.tombstones.iter().map(|t| t.id).collect();
    }
    fault::hit("compact.after_merge")?;
    for f in &files {
        upload_block(&c.store, tenant, f).await?;
    }
    fault::hit("compact.after_upload")?;
    let outputs: Vec<BlockMeta> = files.into_iter().map(|f| f.meta).collect();
    c.manifests.commit(tenant, |m| m.with_merge(&job.inputs, &outputs, now_ms())).await?;
    fault::hit("compact.after_manifest")?;
    Ok(JobOutcome {
        inputs: inputs.len(),
        samples_in: inputs.iter().map(|m| m.samples).sum(),
        bytes_in: inputs.iter().map(|m| m.bytes()).sum(),
        outputs,
    })
}

async fn open(
    c: &Compaction,
    tenant: &TenantId,
    manifest: &Manifest,
    inputs: &[Arc<BlockMeta>],
) -> Result<Vec<BlockReader>> {
    let mut readers = Vec::with_capacity(inputs.len());
    for meta in inputs {
        let store = c.store.clone();
        let tombstones = manifest.tombstones_of(meta);
        readers.push(BlockReader::open(store, tenant, meta.clone(), &tombstones, c.cache.clone()).await?);
    }
    Ok(readers)
}
