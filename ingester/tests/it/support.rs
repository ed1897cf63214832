//! An ingester on a temporary folder, and a reader that sees what a query sees: one manifest version, its blocks, and the
//! head behind what it covers.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use sextant_ingester::{Ingester, IngesterConfig};
use sextant_model::{Labels, SeriesSet, TenantId};
use sextant_proto::{
    AppendOutcome, BatchHeader, SelectLimits, SelectRequest, ShardClient, ShardError, ShardId,
    WriteBatchBuilder,
};
use sextant_storage::{
    BlockCache, BlockReader, BlockSelect, METRICS, ManifestOptions, Manifests, ReadStats, StoreOptions,
    open_store,
};

pub const ALL: (i64, i64) = (i64::MIN, i64::MAX);

pub struct Bench {
    pub ingester: Arc<Ingester>,
    pub manifests: Arc<Manifests>,
    cache: Arc<BlockCache>,
}

pub fn tenant(id: &str) -> TenantId {
    TenantId::new(id).unwrap()
}

pub fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_millis() as i64
}

/// Settings for a folder: nothing is flushed unless it is asked for.
pub fn config(dir: &Path) -> IngesterConfig {
    IngesterConfig { data_dir: dir.to_owned(), log_segment_bytes: 1 << 20, ..IngesterConfig::default() }
}

/// The batch of one write: series `m{i=…}` for each of the given numbers, one sample each at `t`, value `t + i`.
pub fn batch(tenant: &str, id: u128, t: i64, series: std::ops::Range<usize>) -> Bytes {
    let mut b = WriteBatchBuilder::default();
    for i in series {
        let labels = Labels::from_pairs([("__name__", "m".to_owned()), ("i", format!("{i:05}"))]).unwrap();
        let r = b.new_series(labels.as_bytes(), 0);
        b.sample(r, t, (t + i as i64) as f64, 0);
    }
    b.finish(&BatchHeader {
        tenant,
        write_id: id,
        epoch: 0,
        max_series: 0,
        ooo_window_ms: -1,
        now_ms: now_ms(),
    })
}

impl Bench {
    /// Opens an ingester with its log in `config.data_dir` and its objects in `objects`.
    pub async fn open(config: IngesterConfig, objects: &Path) -> Self {
        Self::try_open(config, objects).await.unwrap()
    }

    pub async fn try_open(
        config: IngesterConfig,
        objects: &Path,
    ) -> Result<Self, sextant_ingester::OpenError> {
        std::fs::create_dir_all(objects).unwrap();
        let url = format!("file://{}", objects.canonicalize().unwrap().display());
        let store = open_store(&url, &StoreOptions::default()).unwrap();
        let manifests = Arc::new(Manifests::new(store.clone(), METRICS, ManifestOptions::default()));
        let ingester = Ingester::open(config, manifests.clone()).await?;
        Ok(Self { ingester, manifests, cache: BlockCache::new(1 << 20) })
    }

    pub async fn write(
        &self,
        tenant: &str,
        id: u128,
        t: i64,
        series: std::ops::Range<usize>,
    ) -> Result<AppendOutcome, ShardError> {
        self.ingester.append(ShardId(0), batch(tenant, id, t, series)).await
    }

    /// What a query finds: each sample as (series, timestamp) → value and how often it is there.
    pub async fn read(&self, id: &str) -> BTreeMap<(String, i64), (f64, usize)> {
        let tenant = tenant(id);
        let manifest = self.manifests.refresh(&tenant).await.unwrap();
        let mut found = BTreeMap::new();
        let stats = ReadStats::default();
        for meta in &manifest.blocks {
            let store = self.manifests.store().clone();
            let (meta, tombstones) = (Arc::new(meta.clone()), manifest.tombstones_of(meta));
            let block =
                BlockReader::open(store, &tenant, meta, &tombstones, self.cache.clone()).await.unwrap();
            let set = block.select(&BlockSelect::new(vec![], ALL.0, ALL.1), &stats).await.unwrap();
            count(&set, &mut found);
        }
        for shard in 0..self.ingester.shard_count() {
            let request = SelectRequest {
                tenant: tenant.clone(),
                matchers: vec![],
                start: ALL.0,
                end: ALL.1,
                after: manifest.covered(ShardId(shard)),
                limits: SelectLimits::default(),
            };
            count(&self.ingester.select(ShardId(shard), request).await.unwrap(), &mut found);
        }
        found
    }

    /// Checks that a tenant has exactly the samples of these writes, each once.
    pub async fn check(
        &self,
        id: &str,
        times: impl IntoIterator<Item = i64>,
        series: std::ops::Range<usize>,
    ) {
        let mut want = BTreeMap::new();
        for t in times {
            for i in series.clone() {
                want.insert((format!("m{{i=\"{i:05}\"}}"), t), ((t + i as i64) as f64, 1));
            }
        }
        let got = self.read(id).await;
        assert_eq!(got.len(), want.len(), "tenant {id}: {:?} …", got.iter().take(3).collect::<Vec<_>>());
        assert!(got == want, "tenant {id} has other samples");
    }
}

fn count(set: &SeriesSet, found: &mut BTreeMap<(String, i64), (f64, usize)>) {
    for (i, labels) in set.labels.iter().enumerate() {
        let (t, v) = set.floats(i);
        for (&t, &v) in t.iter().zip(v) {
            let entry = found.entry((labels.to_string(), t)).or_insert((v, 0));
            entry.0 = v;
            entry.1 += 1;
        }
    }
}
