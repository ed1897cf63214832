//! Deletes series everywhere: in the shards' heads by an entry in each log, in blocks by a tombstone in the manifest.
//!
//! The deletion is announced in the manifest, so that no merge mixes rows from before and after it. Then come the entries, because
//! their positions say which rows of blocks are meant; the tombstone is one commit; the caller is answered after it. An ingester holds back flushes of a shard while it writes the entry, so a flush either ended
//! before it, and its block is the tombstone's, or leaves out what is deleted.
//!
//! ```text
//! delete.after_log       nothing is acknowledged. Rows that were in memory are gone for good, those in blocks are there; the
//!                        deletion asked for again deletes them, and nothing brings back the others
//! delete.after_manifest  everything is deleted; only the answer is missing, and asking again deletes what came since
//! ```
//! An error leaves the same as a crash at that point: some shards may have deleted their recent rows.

use std::collections::BTreeMap;

use sextant_model::{Matcher, TenantId};
use sextant_proto::{
    DeleteRequest, ErrorClass, ShardClient, ShardError, ShardId,
    fault::{self, InjectedFault},
};
use sextant_storage::{Manifests, StorageError, Tombstone, TombstoneId};

/// How many tombstones a tenant may have at a time: each read of a block looks at all.
const TOMBSTONES_MAX: usize = 1000;

/// How often a deletion is asked for anew where a merge came in between.
const ATTEMPTS: usize = 4;

/// What to delete of a tenant.
#[derive(Clone, Debug)]
pub struct SeriesDeletion {
    /// Whose series.
    pub tenant: TenantId,
    /// A series is deleted where all matchers of one of the selectors match; a selector without matchers is an error.
    pub selectors: Vec<Vec<Matcher>>,
    /// First timestamp, inclusive, milliseconds.
    pub start: i64,
    /// Last timestamp, inclusive, milliseconds.
    pub end: i64,
}

/// A deletion is not complete, see the module's documentation.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A shard did not take the entry.
    #[error("shard {shard}: {source}")]
    Shard {
        /// The shard.
        shard: u32,
        /// The error.
        source: ShardError,
    },
    /// The tombstone was not committed, or it is not known whether it was.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nothing was done, because earlier deletions wait for the compactor.
    #[error(
        "{0} earlier deletions are not compacted away yet, the most is {TOMBSTONES_MAX}: flush, clean tombstones, and repeat"
    )]
    TooMany(usize),
    /// A test asked for it.
    #[error(transparent)]
    Fault(#[from] InjectedFault),
    /// The task that waits at a fault point ended early.
    #[error("deleting: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl DeleteError {
    /// What the caller must do.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Shard { source, .. } => source.class(),
            Self::Storage(source) => source.class(),
            Self::TooMany(_) => ErrorClass::TooManyRequests,
            Self::Fault(_) | Self::Task(_) => ErrorClass::Unavailable,
        }
    }
}

/// Deletes what was acknowledged before the call: when it returns, no read that begins later finds it, except one with an
/// older manifest (see `Manifests::load`). Rows written after the call stay, also at the same timestamps.
pub async fn delete_series(
    shards: &dyn ShardClient,
    manifests: &Manifests,
    deletion: &SeriesDeletion,
) -> Result<(), DeleteError> {
    if deletion.start > deletion.end || deletion.selectors.is_empty() {
        return Ok(());
    }
    let mut attempt = 1;
    loop {
        let newest = manifests.refresh(&deletion.tenant).await?;
        let waiting = newest.tombstones.len() + newest.announced.len();
        if waiting >= TOMBSTONES_MAX {
            return Err(DeleteError::TooMany(waiting));
        }
        let id = TombstoneId::generate();
        let error = match attempt_once(shards, manifests, deletion, id).await {
            Ok(()) => return hit("delete.after_manifest").await,
            Err(e) => e,
        };
        // Where this fails too, the announcement expires.
        let _ = manifests.commit(&deletion.tenant, |m| Ok(m.without_announced(id))).await;
        match error {
            DeleteError::Storage(StorageError::Stale { reason, .. }) if attempt < ATTEMPTS => {
                tracing::info!(tenant = %deletion.tenant, reason, "a deletion is asked for anew");
                attempt += 1;
            }
            e => return Err(e),
        }
    }
}

async fn attempt_once(
    shards: &dyn ShardClient,
    manifests: &Manifests,
    deletion: &SeriesDeletion,
    id: TombstoneId,
) -> Result<(), DeleteError> {
    manifests.commit(&deletion.tenant, |m| Ok(m.with_announced(id))).await?;
    let tombstone = write_entries(shards, deletion, id).await?;
    hit("delete.after_log").await?;
    manifests.commit(&deletion.tenant, |m| m.with_tombstone(&tombstone)).await?;
    Ok(())
}

async fn write_entries(
    shards: &dyn ShardClient,
    deletion: &SeriesDeletion,
    id: TombstoneId,
) -> Result<Tombstone, DeleteError> {
    let request = DeleteRequest {
        tenant: deletion.tenant.clone(),
        id: id.0.0,
        now_ms: id.created_ms(),
        selectors: deletion.selectors.clone(),
        start: deletion.start,
        end: deletion.end,
    };
    let entries = (0..shards.shard_count()).map(|shard| {
        let request = request.clone();
        async move {
            let done = shards.delete(ShardId(shard), request).await;
            let outcome = done.map_err(|source| DeleteError::Shard { shard, source })?;
            Ok::<_, DeleteError>((shard, outcome.into()))
        }
    });
    let shards: BTreeMap<_, _> = futures::future::try_join_all(entries).await?.into_iter().collect();
    Ok(Tombstone {
        id,
        selectors: deletion.selectors.clone(),
        start: deletion.start,
        end: deletion.end,
        shards,
        version: 0,
    })
}

/// Passes a fault point off the async threads, because it may sleep.
async fn hit(name: &'static str) -> Result<(), DeleteError> {
    Ok(tokio::task::spawn_blocking(move || fault::hit(name)).await??)
}
