//! The manifest under many writers, lost answers and damage.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sextant_model::TenantId;
use sextant_proto::ShardId;
use sextant_storage::{
    BlockId, BlockMeta, Manifest, ManifestOptions, Manifests, StorageError, StoreOptions, open_store, paths,
};

use crate::support::{LossyStore, memory, tenant};

pub fn block(seed: i64) -> BlockMeta {
    BlockMeta {
        id: BlockId::generate(),
        level: 0,
        min_t: seed,
        max_t: seed + 1,
        series: 1,
        samples: 2,
        objects: Default::default(),
        log: vec![],
        seq: 0,
        seq_min: 0,
        applied: Vec::new(),
    }
}

fn add(m: &Manifest, block: &BlockMeta) -> Result<Manifest, StorageError> {
    let mut next = m.clone();
    if next.block(block.id).is_none() {
        next.blocks.push(block.clone());
    }
    Ok(next)
}

pub async fn race(store: Arc<dyn ObjectStore>, writers: i64, commits: i64) {
    let tasks = (0..writers).map(|w| {
        let store = store.clone();
        tokio::spawn(async move {
            // A handle each, as separate processes have.
            let manifests = Manifests::new(
                store,
                "metrics",
                ManifestOptions { attempts_max: 1000, ..Default::default() },
            );
            for c in 0..commits {
                let b = block(w * 1000 + c);
                loop {
                    match manifests.commit(&tenant(), |m| add(m, &b)).await {
                        Ok(m) => break assert!(m.block(b.id).is_some()),
                        Err(e) if e.is_transient() => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            }
        })
    });
    futures::future::join_all(tasks).await.into_iter().for_each(|r| r.unwrap());
    let m = Manifests::new(store, "metrics", ManifestOptions::default()).load(&tenant()).await.unwrap();
    assert_eq!(m.blocks.len() as i64, writers * commits);
    assert_eq!(m.version as i64, writers * commits, "each commit is one version");
    let mut seqs: Vec<u64> = m.blocks.iter().map(|b| b.seq).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=m.version).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing_in_memory() {
    race(memory(), 12, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing_in_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("file://{}", dir.path().display());
    race(open_store(&url, &StoreOptions::default()).unwrap(), 6, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_answer_that_is_lost_is_not_a_lost_race() {
    // Every third put is stored and then answered with an error.
    let store: Arc<dyn ObjectStore> = Arc::new(LossyStore::new(memory(), 3));
    race(store, 4, 12).await;
}

#[tokio::test]
async fn a_damaged_manifest_is_an_error_and_no_older_one_is_served() {
    let store = memory();
    let manifests = Manifests::new(store.clone(), "metrics", ManifestOptions::default());
    for i in 0..3 {
        let b = block(i);
        manifests.commit(&tenant(), |m| add(m, &b)).await.unwrap();
    }
    let path = paths::manifest(&tenant(), "metrics", 3);
    let mut bytes = store.get(&path).await.unwrap().bytes().await.unwrap().to_vec();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    store.put(&path, PutPayload::from(bytes)).await.unwrap();
    let fresh = Manifests::new(store.clone(), "metrics", ManifestOptions::default());
    let e = fresh.load(&tenant()).await.unwrap_err();
    assert!(matches!(&e, StorageError::Corrupt { object, .. } if *object == path.to_string()), "{e}");
    assert!(fresh.commit(&tenant(), |m| add(m, &block(9))).await.is_err());
    // A manifest of another tenant in its place.
    let other = TenantId::new("other").unwrap();
    let bytes = store.get(&paths::manifest(&tenant(), "metrics", 1)).await.unwrap().bytes().await.unwrap();
    store.put(&paths::manifest(&other, "metrics", 1), PutPayload::from(bytes)).await.unwrap();
    assert!(matches!(fresh.load(&other).await, Err(StorageError::Corrupt { .. })));
    let mut tenants = fresh.tenants().await.unwrap();
    tenants.sort();
    assert_eq!(tenants, [tenant(), other]);
}

#[tokio::test]
async fn old_versions_go_and_new_ones_stay() {
    let options = ManifestOptions { keep_versions: 3, grace: Duration::ZERO, ..Default::default() };
    let store = memory();
    let manifests = Manifests::new(store.clone(), "metrics", options.clone());
    for i in 0..10 {
        let b = block(i);
        manifests.commit(&tenant(), |m| add(m, &b)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(manifests.delete_old_versions(&tenant()).await.unwrap(), 7);
    assert_eq!(manifests.delete_old_versions(&tenant()).await.unwrap(), 0);
    let fresh = Manifests::new(store.clone(), "metrics", options);
    assert_eq!(fresh.load(&tenant()).await.unwrap().version, 10);
    let graceful =
        Manifests::new(store, "metrics", ManifestOptions { keep_versions: 1, ..Default::default() });
    assert_eq!(graceful.delete_old_versions(&tenant()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_commit_that_comes_too_late_is_refused() {
    let store = memory();
    let keen = ManifestOptions { keep_versions: 1, grace: Duration::ZERO, ..Default::default() };
    let late = Manifests::new(
        store.clone(),
        "metrics",
        ManifestOptions { grace: Duration::from_millis(40), ..Default::default() },
    );
    let fast = Manifests::new(store.clone(), "metrics", keen);
    let first = block(1);
    late.commit(&tenant(), |m| add(m, &first)).await.unwrap();
    // While the late writer thinks, others commit and the version it would create comes free again.
    let calls = AtomicU64::new(0);
    let others: Vec<BlockMeta> = (2..6).map(block).collect();
    let result = late
        .commit(&tenant(), |m| {
            if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                std::thread::scope(|s| {
                    s.spawn(|| {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                        runtime.block_on(async {
                            for b in &others {
                                fast.commit(&tenant(), |m| add(m, b)).await.unwrap();
                            }
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            assert_eq!(fast.delete_old_versions(&tenant()).await.unwrap(), 4);
                        });
                    });
                });
            }
            add(m, &block(100))
        })
        .await;
    assert!(matches!(result, Err(StorageError::Stale { .. })), "{result:?}");
    let newest = fast.refresh(&tenant()).await.unwrap();
    assert_eq!((newest.version, newest.blocks.len()), (5, 5));
    let listed = store.list_with_delimiter(Some(&paths::manifests(&tenant(), "metrics"))).await.unwrap();
    assert_eq!(listed.objects.len(), 1, "the late version is removed");
}

#[tokio::test]
async fn a_block_older_than_the_orphan_removal_allows_is_refused() {
    let manifests = Manifests::new(
        memory(),
        "metrics",
        ManifestOptions { block_age_max: Duration::from_millis(1), ..Default::default() },
    );
    let b = block(1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let e = manifests
        .commit(&tenant(), |m| m.with_flush(ShardId(0), 1, std::slice::from_ref(&b)))
        .await
        .unwrap_err();
    assert!(matches!(e, StorageError::Stale { .. }), "{e}");
}
