//! A flipped byte anywhere in any object is found, named, and never served.

use std::sync::Arc;

use object_store::{ObjectStoreExt, PutPayload};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sextant_model::Matcher;
use sextant_storage::{
    BlockCache, BlockOptions, BlockReader, BlockSelect, CHUNK_BYTES, ReadStats, StorageError, paths,
    upload_block, write_block,
};

use crate::support::{hard_set, memory, plain, tenant};

/// Everything a block can be asked.
async fn read_all(
    store: &Arc<dyn object_store::ObjectStore>,
    meta: &Arc<sextant_storage::BlockMeta>,
) -> Result<sextant_model::SeriesSet, StorageError> {
    let reader =
        BlockReader::open(store.clone(), &tenant(), meta.clone(), &[], BlockCache::new(8 << 20)).await?;
    let stats = ReadStats::default();
    let all = BlockSelect::new(vec![], i64::MIN, i64::MAX);
    let set = reader.select(&all, &stats).await?;
    for name in reader.label_names(&all, &stats).await? {
        let values = reader.label_values(&name, &all, &stats).await?;
        for value in values.iter().take(3) {
            reader
                .series(&BlockSelect::new(vec![Matcher::equal(&name, value)], i64::MIN, i64::MAX), &stats)
                .await?;
        }
        let any = Matcher::new(&name, sextant_model::MatchOp::Regex, "[a-zA-Z0-9].*x?").unwrap();
        reader.series(&BlockSelect::new(vec![any], i64::MIN, i64::MAX), &stats).await?;
    }
    reader.exemplars(&all, &stats).await?;
    reader.metadata(&stats).await?;
    Ok(set)
}

#[tokio::test]
async fn a_flipped_byte_is_named_with_its_chunk_or_not_read_at_all() {
    let series = hard_set(11, 400, 300);
    let store = memory();
    let files =
        write_block(&series, BlockOptions { page_bytes: 16 << 10, ..Default::default() }).unwrap().unwrap();
    upload_block(&store, &tenant(), &files).await.unwrap();
    let meta = Arc::new(files.meta.clone());
    let want = plain(&read_all(&store, &meta).await.unwrap());
    assert!(files.objects.iter().any(|(_, b)| b.len() > CHUNK_BYTES), "an object of several chunks");
    assert_eq!(files.objects.len(), 8, "every kind of object");
    let mut rng = StdRng::seed_from_u64(1);
    let mut silent = 0;
    for (name, bytes) in &files.objects {
        let path = paths::object(&tenant(), "metrics", meta.id, name);
        let mut places = vec![0, bytes.len() / 2, bytes.len() - 1];
        places.extend((0..20).map(|_| rng.random_range(0..bytes.len())));
        for at in places {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1 << rng.random_range(0..8);
            store.put(&path, PutPayload::from(bad)).await.unwrap();
            match read_all(&store, &meta).await {
                Err(StorageError::Corrupt { object, chunk, .. }) => {
                    assert_eq!(object, path.to_string());
                    if name != "checksums" {
                        assert_eq!(chunk, Some((at / CHUNK_BYTES) as u32), "{name} at {at}");
                    }
                }
                Err(e) => panic!("{name} at {at}: {e}"),
                // Bytes that no read wants; then nothing of them may have been served.
                Ok(set) => {
                    silent += 1;
                    assert!(plain(&set) == want, "{name} at {at}");
                }
            }
        }
        for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            store.put(&path, PutPayload::from(bytes.slice(..cut))).await.unwrap();
            let e = read_all(&store, &meta).await.expect_err("a cut object");
            assert!(
                matches!(&e, StorageError::Corrupt { object, .. } if *object == path.to_string()),
                "{name} {cut}: {e}"
            );
        }
        store.delete(&path).await.unwrap();
        let gone = read_all(&store, &meta).await;
        if name == "index" {
            assert!(plain(&gone.unwrap()) == want);
        } else {
            assert!(
                matches!(&gone, Err(StorageError::Missing { object }) if *object == path.to_string()),
                "{name}"
            );
        }
        store.put(&path, PutPayload::from(bytes.clone())).await.unwrap();
    }
    assert!(silent < 40, "{silent} flips in bytes that no read wants");
}
