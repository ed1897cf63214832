//! A TCP proxy whose connections can be cut.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// Forwards to one address. Cloned handles steer the same proxy.
#[derive(Clone)]
pub struct Proxy {
    pub address: String,
    cut: Arc<watch::Sender<u64>>,
    /// Bytes of answers that still go through before all is cut once.
    left: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let proxy = Self { address, cut: Arc::default(), left: Arc::new(AtomicU64::new(u64::MAX)) };
        let handle = proxy.clone();
        tokio::spawn(async move {
            loop {
                let Ok((client, _)) = listener.accept().await else { return };
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                tokio::spawn(handle.clone().forward(client, server));
            }
        });
        proxy
    }

    /// Cuts all connections there are; new ones go through.
    pub fn cut(&self) {
        self.cut.send_modify(|n| *n += 1);
    }

    /// Cuts all connections after so many more bytes of answers.
    pub fn cut_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    async fn forward(self, client: TcpStream, server: TcpStream) {
        let mut cut = self.cut.subscribe();
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        let up = tokio::io::copy(&mut client_read, &mut server_write);
        let down = async {
            let mut buf = vec![0; 1 << 16];
            loop {
                let n = server_read.read(&mut buf).await?;
                if n == 0 {
                    return std::io::Result::Ok(());
                }
                let left = self.left.load(Ordering::SeqCst);
                if left < n as u64 {
                    self.left.store(u64::MAX, Ordering::SeqCst);
                    self.cut();
                    return Ok(());
                }
                if left != u64::MAX {
                    self.left.fetch_sub(n as u64, Ordering::SeqCst);
                }
                client_write.write_all(&buf[..n]).await?;
            }
        };
        tokio::select! {
            _ = up => {}
            _ = down => {}
            _ = cut.changed() => {}
        }
    }
}
