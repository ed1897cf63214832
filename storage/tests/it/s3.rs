//! The S3 protocol against a server on this machine (`pip install 'moto[server]'`).

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use sextant_storage::{StoreOptions, open_store};

use crate::{manifests, merging};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and a store in a bucket of it; `None` where it is not installed.
async fn server() -> Option<(Server, Arc<dyn ObjectStore>)> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new("moto_server")
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = child else {
        eprintln!("skipped: moto_server cannot be run (pip install 'moto[server]')");
        return None;
    };
    let server = Server(child);
    let endpoint = format!("http://127.0.0.1:{port}");
    let options = StoreOptions {
        endpoint: Some(endpoint.clone()),
        region: Some("us-east-1".into()),
        access_key_id: Some("test".into()),
        secret_access_key: Some("test".into()),
        allow_http: true,
        ..StoreOptions::default()
    };
    // The bucket is made with the protocol's own request: a PUT on its name.
    let begun = Instant::now();
    while Command::new("python3")
        .args([
            "-c",
            "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], method='PUT'), timeout=2)",
        ])
        .arg(format!("{endpoint}/blocks"))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| !s.success())
    {
        assert!(begun.elapsed() < Duration::from_secs(60), "moto_server does not answer");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    Some((server, open_store("s3://blocks/some/prefix", &options).unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conditional_puts_ranges_and_a_blocks_life() {
    let Some((_server, store)) = server().await else { return };
    let path = Path::from("a/b");
    let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    store.put_opts(&path, PutPayload::from("0123456789"), create()).await.unwrap();
    let again = store.put_opts(&path, PutPayload::from("x"), create()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{again:?}");
    assert_eq!(store.get_range(&path, 2..5).await.unwrap(), "234");
    store.delete(&path).await.unwrap();
    assert!(matches!(store.get(&path).await, Err(Error::NotFound { .. })));
    merging::life_cycle(store.clone()).await;
    for id in ["a", "b"] {
        let part = bytes::Bytes::from(vec![id.as_bytes()[0]; 20 << 20]);
        // Larger than one part of an upload.
        let mut upload = store.put_multipart(&Path::from(id)).await.unwrap();
        futures::future::try_join_all([
            upload.put_part(PutPayload::from(part.slice(..16 << 20))),
            upload.put_part(PutPayload::from(part.slice(16 << 20..))),
        ])
        .await
        .unwrap();
        upload.complete().await.unwrap();
        assert_eq!(store.head(&Path::from(id)).await.unwrap().size, part.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_lose_nothing_on_s3() {
    let Some((_server, store)) = server().await else { return };
    manifests::race(store, 4, 5).await;
}
