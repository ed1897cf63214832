//! A compactor that dies between any two steps loses nothing and widens nothing.
//!
//! The test starts itself as a child with `SEXTANT_FAULT` set, and looks at the folder that the child leaves behind.

use std::{process::Command, sync::Arc};

use object_store::ObjectStore;
use sextant_storage::{
    BlockOptions, Compaction, CompactionOptions, ManifestOptions, Manifests, StoreOptions, apply_job,
    clean_tenant, open_store, plan, upload_block, write_block,
};

use crate::{
    merging::{answer, counter, flush},
    support::{Plain, plain, tenant},
};

const DIR: &str = "SEXTANT_STORAGE_TEST_DIR";
const HOUR: i64 = 3_600_000;

fn options() -> CompactionOptions {
    CompactionOptions { force: true, delete_delay_ms: 0, orphan_grace_ms: 0, ..CompactionOptions::default() }
}

fn open(dir: &str) -> (Arc<dyn ObjectStore>, Arc<Manifests>) {
    let store = open_store(&format!("file://{dir}"), &StoreOptions::default()).unwrap();
    let manifests = Arc::new(Manifests::new(store.clone(), "metrics", ManifestOptions::default()));
    (store, manifests)
}

/// What the child does: one pass of a compactor.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (store, manifests) = open(&dir);
    let compaction = Compaction::new(store, manifests.clone());
    let manifest = manifests.refresh(&tenant()).await.unwrap();
    for job in plan(&manifest, 3 * HOUR, &options()) {
        apply_job(&compaction, &tenant(), &job, &options()).await.unwrap();
    }
    clean_tenant(&compaction, &tenant(), i64::MAX / 2, &options()).await.unwrap();
}

fn run_child(dir: &str, fault: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kills::child", "--nocapture"]).env(DIR, dir);
    match fault {
        Some(fault) => command.env("SEXTANT_FAULT", fault),
        None => command.env_remove("SEXTANT_FAULT"),
    };
    command.output().unwrap().status.success()
}

async fn seen(dir: &str) -> (Plain, usize) {
    let (store, manifests) = open(dir);
    let manifest = manifests.load(&tenant()).await.unwrap();
    (plain(&answer(&store, &manifest).await.unwrap()), manifest.blocks.len())
}

#[tokio::test]
async fn a_compactor_may_die_at_any_step() {
    let points = [
        "compact.after_merge=abort",
        "compact.after_upload=abort",
        "compact.after_manifest=abort",
        "compact.before_delete=abort",
        // The put of the outputs' second object, of the manifest, and a request that fails instead of a death.
        "store.put=abort@2",
        "store.put=abort@6",
        "store.put=error@3",
        "store.get=error@4",
        "store.list=error@1",
    ];
    for fault in points {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        let (store, manifests) = open(path);
        for i in 0..3 {
            flush(&store, &manifests, &counter(["a", "b"][i % 2], i as i64 * 60_000, 100), i as u64 + 1)
                .await;
        }
        let (want, _) = seen(path).await;
        assert!(!run_child(path, Some(fault)), "{fault} was not reached");
        assert!(seen(path).await.0 == want, "{fault}: the answer changed");
        // Data that comes after the death is merged with the rest.
        let late = counter("c", 0, 10);
        let files = write_block(&late, BlockOptions::default()).unwrap().unwrap();
        upload_block(&store, &tenant(), &files).await.unwrap();
        manifests
            .commit(&tenant(), |m| {
                m.with_flush(sextant_proto::ShardId(0), 9, std::slice::from_ref(&files.meta))
            })
            .await
            .unwrap();
        let (want, _) = seen(path).await;
        assert!(run_child(path, None), "{fault}: the next pass");
        let (got, blocks) = seen(path).await;
        assert!(got == want, "{fault}: the answer changed after the next pass");
        assert_eq!(blocks, 1, "{fault}");
        let left = store
            .list_with_delimiter(Some(&sextant_storage::paths::blocks(&tenant(), "metrics")))
            .await
            .unwrap();
        assert_eq!(left.common_prefixes.len(), 1, "{fault}: nothing is left over");
    }
}
