//! Distributor, ingester, compactor and querier on a temporary folder: the real write path without sockets.

use std::sync::Arc;

use sextant_compactor::{Compactor, CompactorConfig};
use sextant_distributor::{Distributor, DistributorConfig};
use sextant_ingester::{Ingester, IngesterConfig};
use sextant_model::TenantId;
use sextant_proto::LimitsHandle;
use sextant_querier::{DataSource, Querier, QuerierConfig};
use sextant_storage::{BlockCache, ManifestOptions, Manifests, StoreOptions, open_store};

/// The roles.
pub struct Stack {
    pub distributor: Arc<Distributor>,
    pub ingester: Arc<Ingester>,
    pub querier: Querier,
    pub compactor: Arc<Compactor>,
    _folder: tempfile::TempDir,
}

impl Stack {
    /// Starts the roles with so many shards.
    pub async fn start(shards: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("objects");
        std::fs::create_dir_all(&objects).unwrap();
        let store = open_store(&format!("file://{}", objects.display()), &StoreOptions::default()).unwrap();
        let manifests =
            Arc::new(Manifests::new(store.clone(), sextant_storage::METRICS, ManifestOptions::default()));
        let config = IngesterConfig {
            data_dir: folder.path().to_owned(),
            shards,
            log_segment_bytes: 8 << 20,
            ..IngesterConfig::default()
        };
        let ingester = Ingester::open(config, manifests.clone()).await.unwrap();
        let limits = LimitsHandle::default();
        let distributor =
            Arc::new(Distributor::new(DistributorConfig::default(), limits.clone(), ingester.clone()));
        let cache = BlockCache::new(64 << 20);
        let source = DataSource {
            store: store.clone(),
            manifests: manifests.clone(),
            shards: ingester.clone(),
            cache,
        };
        let querier = Querier::new(source, limits.clone(), QuerierConfig::default()).unwrap();
        let compactor = Arc::new(Compactor::new(CompactorConfig::default(), limits, store, manifests));
        Self { distributor, ingester, querier, compactor, _folder: folder }
    }

    /// Everything into merged blocks.
    pub async fn flush_and_compact(&self, tenant: &TenantId) {
        self.ingester.flush_now().await.unwrap();
        self.compactor.compact(tenant).await.unwrap();
    }
}

/// The folder of shared conformance data; `None` where it is not at hand.
pub fn conformance(suite: &str) -> Option<std::path::PathBuf> {
    let root = std::env::var_os("SEXTANT_CONFORMANCE").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
        std::path::PathBuf::from,
    );
    let folder = root.join(suite);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is not there", folder.display());
    None
}
